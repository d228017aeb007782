"""Training on a device whose contents the host cannot have, and which counts what else a GPU's host would wait for.

The device is "meta", whose tensors hold nothing. Whatever asks for a content there (`item`, `tolist`, a branch, a mask
as an index) would make the host wait for a GPU, and raises. What it takes, and a GPU makes the host wait for, are
tensors built from numbers and copies from the host that do not say `non_blocking`: these are collected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lit_gans.adversarial import Game
from lit_gans.base.random import Draws

DEVICE = torch.device("meta")
BUILDERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)


class Accelerator(CPUAccelerator):
    """Of a Trainer whose tensors are on DEVICE."""

    def setup_device(self, device: torch.device) -> None:
        assert device == DEVICE


class Strategy(SingleDeviceStrategy):
    """Leaves the game there when training has ended: nothing could come back."""

    def teardown(self) -> None: ...


class _Built(TorchFunctionMode):
    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in BUILDERS and result.device == DEVICE and not isinstance(args[-1], Tensor):
            self.note(f"built from {args[-1]}")
        if function is Tensor.__getitem__ and args[0].device == DEVICE and isinstance(args[1], list):
            self.note(f"indexed with {args[1]}")
        return result


class _Copied(TorchDispatchMode):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = op(*args, **kwargs)
        if op.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_) and result.device == DEVICE:
            source = args[len(args) > 1 and isinstance(args[1], Tensor)]
            blocking = not (kwargs.get("non_blocking") or True in args[2:3])
            if source.device.type == "cpu" and blocking:
                self.note(f"copied {tuple(source.shape)}")
        return result


@contextmanager
def noting(note: Callable[[str], None]) -> Iterator[None]:
    """Calls `note` with all that is built on DEVICE from numbers, or copied there while the host waits."""
    with _Built(note), _Copied(note):
        yield


class Operators(TorchDispatchMode):
    """Counts the operators that are called, by name: on a GPU each is at least one launch."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[op.overloadpacket.__name__] += 1
        return op(*args, **(kwargs or {}))


class Waits(pl.Callback):
    """Collects what the host would have waited for in so many batches, after which it ends training."""

    def __init__(self, batches: int) -> None:
        self.batches, self.on, self.seen = batches, False, []

    def note(self, what: str) -> None:
        if self.on:
            self.seen.append(what)

    def on_train_start(self, *args: Any) -> None:
        self.on = True

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Game, *args: Any) -> None:
        self.on = pl_module.batches_seen < self.batches
        trainer.should_stop |= not self.on


def waits_of(
    game: Game, data: pl.LightningDataModule, folder: Path, *, batches: int, callbacks: Sequence[pl.Callback] = ()
) -> list[str]:
    """Trains so many batches, in shapes alone; what the host would have waited for."""
    game.total_kimg, waits = 1.0, Waits(batches)
    trainer = pl.Trainer(
        max_epochs=-1, limit_val_batches=0, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=str(folder),
        strategy=Strategy(DEVICE, accelerator=Accelerator()), callbacks=[waits, *callbacks],
    )  # fmt: skip
    with ExitStack() as stack:
        # That device has no generator, no autocast and no fused optimiser.
        stack.enter_context(patch.object(Game, "fused", False))
        stack.enter_context(patch.object(Draws, "generator", None))
        stack.enter_context(patch.object(torch, "autocast", lambda *_, **__: nullcontext()))
        stack.enter_context(noting(waits.note))
        trainer.fit(game, datamodule=data)
    assert game.batches_seen == batches
    return waits.seen
