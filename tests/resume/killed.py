"""A training process that kills itself with SIGKILL: after a batch, or in the middle of writing a checkpoint."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lit_gans.callbacks import Checkpoint, checkpoint
from tests.cases import BATCH, CASES, train


class KillAfter(pl.Callback):
    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.batches_seen == self.batches:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, how: str) -> None:
    torch.set_num_threads(1)
    if how == "while-writing":
        flush, written = checkpoint.flush_to_disk, []

        def kill_in_the_second(path: Path) -> None:
            if written:
                with open(path, "r+b") as f:
                    f.truncate(path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            written.append(path)
            flush(path)

        checkpoint.flush_to_disk = kill_in_the_second
    keep = Checkpoint(3 * BATCH / 1000, 0, monitor=None)
    train(CASES["cgan-conv"](), folder, batches=10, callbacks=[KillAfter(8)], checkpoint=keep)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
