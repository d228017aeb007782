"""How much memory a training step takes: the most bytes of tensors that are alive at once."""

from __future__ import annotations

import weakref
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """`bytes`: the most that was alive at once of what operators made inside, whoever held it; views count once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self._alive, self._known = 0, 0, set()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = op(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and (key := made.untyped_storage()._cdata) not in given | self._known:
                self._known.add(key)
                self._alive += made.untyped_storage().nbytes()
                weakref.finalize(made.untyped_storage(), self._gone, key, made.untyped_storage().nbytes())
        self.bytes = max(self.bytes, self._alive)
        return result

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._alive -= size


class StepMemory(pl.Callback):
    """`peak`: bytes of the second batch's step, when optimisers have made their moments."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if pl_module.batches_seen == 1:
            self._mode = Peak()
            self._mode.__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if pl_module.batches_seen == 2:
            self._mode.__exit__(None, None, None)
            self.peak = self._mode.bytes
