"""One of several processes that train every case and leave their state in files: see test_equal_one_process.py."""

import os
import sys
from pathlib import Path

import torch

from tests.cases import CASES, IN_PARTS, state, train


def main(folder: Path, strategy: str, batches: int, stop_at: int, *names: str) -> None:
    torch.set_num_threads(1)
    how = {"strategy": strategy, "devices": int(os.environ["WORLD_SIZE"]), "holdout": True}
    for name in names or CASES:
        gan = CASES[name](**({"micro_batches": 2} if name in IN_PARTS else {}))
        trainer = train(gan, folder / name, batches=batches, stop_at=stop_at, **how)
        torch.save(state(gan, trainer), folder / f"{name}-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
