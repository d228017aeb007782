"""What every adversarial training shares: one clock and the ritual of an update, in Lightning's manual optimisation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from numbers import Number
from typing import TYPE_CHECKING, Any, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from lit_gans import __version__
from lit_gans.adversarial.capabilities import Samples
from lit_gans.adversarial.checks import (
    check_against_data,
    check_batch_size,
    check_data,
    check_hooks,
    check_precision,
    check_same_architecture,
    check_strategy,
    class_names_for,
    class_path,
)
from lit_gans.adversarial.clock import images_in, wind
from lit_gans.adversarial.freezing import freeze
from lit_gans.adversarial.optim import Options, Schedule, learning_rate_factor, repair
from lit_gans.adversarial.reports import Reports
from lit_gans.adversarial.strategy import SyncAtStep, average_gradients
from lit_gans.base.random import Draws, drawing
from lit_gans.nn.mode import statistics_kept
from lit_gans.nn.spectral_norm import Vectors, vectors_from, vectors_of

Made = TypeVar("Made")
LOOK_EVERY_BATCHES = 50  # at whether gradients are finite before they are repaired: a pass over all of them


class Game(pl.LightningModule, ABC):
    """The clock, the ritual of an update, randomness, reports and checkpoints, whatever the players make of a batch.

    A paper declares its players, one or several, and writes its recipe in `training_step` and `configure_optimizers`.
    A batch is any nest of dicts, tuples and tensors; the clock counts the rows of its first tensor: `images_seen` is
    the count before the batch inside `training_step`, and already includes it when callbacks see the batch's end.
    Where it has `preview` (see `Previews`), ImageGrid draws it. docs/adversary.md is the guide.

    Args:
        total_kimg: training ends when so many thousand images have been shown.
        micro_batches: each process's batch is processed in so many parts, whose gradients add up to one step; the
            memory of activations falls with their number.
        clip_grad_norm: largest gradient norm per optimiser; 0 clips nothing.
        repair_gradients: NaN becomes 0 and infinity 1e5 before each step, as in NVIDIA's training loops: one bad batch
            must not destroy the weights. One more pass over all gradients.
        schedule: of all learning rates, on the image clock; see `learning_rate_factor`.
        compile: the players run through torch.compile; their first step then takes a minute or so. Penalties, which
            cannot be differentiated through a compiled network, are given the eager `forward`.
        freeze_discriminator_layers: so many layers of each discriminator, from the image on, do not learn (Freeze-D; Mo
            et al., 2020): for going on from other weights with few images, where 10 of StyleGAN2's is a start.
        seed: with the clock, determines every random number of training. Weights follow `seed_everything`.
    """

    # Modules that a config gives and that nothing but training needs: without them a checkpoint is loaded for sampling.
    only_in_training: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        total_kimg: float = 1000.0,
        micro_batches: int = 1,
        clip_grad_norm: float = 0.0,
        repair_gradients: bool = True,
        schedule: Schedule = "constant",
        warmup_kimg: float = 0.0,
        decay_from_kimg: float = 0.0,
        compile: bool = False,
        freeze_discriminator_layers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if micro_batches < 1:
            raise ValueError(f"micro_batches {micro_batches} is below 1; 1 processes each batch whole")
        if total_kimg <= 0:
            raise ValueError(f"total_kimg {total_kimg} is not positive: nothing would be trained")
        if freeze_discriminator_layers < 0:
            raise ValueError(f"freeze_discriminator_layers {freeze_discriminator_layers} is below 0, which is none")
        self.total_kimg, self.seed = total_kimg, seed
        self.freeze_discriminator_layers = freeze_discriminator_layers
        self.micro_batches, self.clip_grad_norm = micro_batches, clip_grad_norm
        self.repair_gradients = repair_gradients
        self.schedule, self.warmup_kimg, self.decay_from_kimg = schedule, warmup_kimg, decay_from_kimg
        self._compile = compile
        self.images_seen = 0
        self.batches_seen = 0
        self.mid_step = False
        self.latest_metrics: dict[str, float] = {}
        self.class_names: tuple[str, ...] = ()  # of a conditional model, by number, as its data name them
        self._updates_this_batch = 0
        self._part, self._parts = 0, 1  # the micro-batch being processed, out of how many
        self.reports = Reports()
        self.optimizer_options: Options = []  # what the optimisers were built with
        self.saved_options: Options | None = None  # the same of the run that is resumed
        self._plain = False
        self._broken: dict[Optimizer, Tensor] = {}
        self._parameters_of_others: dict[Optimizer, list[nn.Parameter]] = {}

    # ---- what a paper says of itself ---------------------------------------------------------------------------------

    @abstractmethod
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """The recipe: one update after the other, each in `with self.updating(optimizer)`."""

    @abstractmethod
    def configure_optimizers(self) -> Any:
        """The players' optimisers, as Lightning takes them."""

    def networks(self) -> list[nn.Module]:
        """The modules that `compile` compiles: those of which the optimisers hold a parameter."""
        trained = {id(p) for o in self.trainer.optimizers for group in o.param_groups for p in group["params"]}
        return [m for m in _players(self) if any(id(p) in trained for p in m.parameters())]

    def discriminators(self) -> list[nn.Module]:
        """The networks that judge images, of which `freeze_discriminator_layers` freezes the first layers."""
        return []

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """(average, live) pairs of one and the same architecture, which the EMA callback keeps; [] for none."""
        return []

    def frozen_networks(self) -> list[dict[str, object]]:
        """What training looks through and checkpoints do not hold, as after `setup`, for the record of a run.

        Of each plain values: "network", "weights" and their "fingerprint".
        """
        return []

    # ---- the clock ---------------------------------------------------------------------------------------------------

    @property
    def kimg(self) -> float:
        """Thousands of images shown so far, over all processes."""
        return self.images_seen / 1000

    @property
    def is_finished(self) -> bool:
        """Whether all images of training have been shown."""
        return self.kimg >= self.total_kimg

    def start_batch(self) -> None:
        """Called by `Clock` before each batch. `mid_step` is true from here to the count, so after an error too."""
        self._updates_this_batch, self.mid_step = 0, not self.is_finished

    def end_batch(self, batch: Any) -> None:
        """Counts the batch."""
        self.mid_step = False
        self.images_seen += images_in(batch, self._world_size)
        self.batches_seen += 1

    def every(self, interval: int) -> bool:
        """Whether a lazy term is due in this batch: in the first and in every `interval`-th after it."""
        return self.batches_seen % interval == 0

    def is_last(self, batch: Any) -> bool:
        """Inside `training_step`: whether training ends with this batch."""
        return self.images_seen + images_in(batch, self._world_size) >= 1000 * self.total_kimg

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        if self.is_finished:  # resumed from a finished run
            self.trainer.should_stop = True
            return -1
        if self.schedule != "constant" or self.warmup_kimg > 0:
            self._set_learning_rates()
        return None

    def _set_learning_rates(self) -> None:
        factor = learning_rate_factor(
            self.kimg,
            schedule=self.schedule,
            total_kimg=self.total_kimg,
            warmup_kimg=self.warmup_kimg,
            decay_from_kimg=self.decay_from_kimg,
        )
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    # ---- the ritual of an update -------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def optimizers(self, use_pl_optimizer: bool = True) -> Any:
            """Lightning's, which type checkers take for one that cannot be unpacked."""

    @contextmanager
    def updating(self, optimizer: LightningOptimizer) -> Iterator[None]:
        """One step of `optimizer` from the gradients that `accumulate` gathers inside.

        Only this optimiser's parameters take gradients inside; on leaving, gradients are averaged over processes,
        made finite, clipped if asked, and applied. Layers with randomness draw from this update's own stream.
        """
        if not self.mid_step:
            name = type(self).__name__
            raise ValueError(f"the clock of {name} stands still: its setup must call super().setup(stage)")
        self._updates_this_batch += 1
        optimizer.zero_grad()
        frozen = [p for p in self._others(optimizer.optimizer) if p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            with drawing(self.draws("layers", self._updates_this_batch)):
                yield
            self._step(optimizer)
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def _step(self, optimizer: LightningOptimizer) -> None:
        if not self._plain:
            optimizer.step()
            return
        if isinstance(self.trainer.strategy, SyncAtStep):
            average_gradients([p for group in optimizer.param_groups for p in group["params"]])
        self.on_before_optimizer_step(optimizer.optimizer)
        optimizer._on_before_step()  # Lightning's global_step
        optimizer.optimizer.step()
        optimizer._on_after_step()

    def _others(self, optimizer: Optimizer) -> list[nn.Parameter]:
        """The parameters of all other optimisers, gathered once."""
        if optimizer not in self._parameters_of_others:
            groups = (group for o in self.trainer.optimizers if o is not optimizer for group in o.param_groups)
            self._parameters_of_others[optimizer] = [p for group in groups for p in group["params"]]
        return self._parameters_of_others[optimizer]

    def split(self, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
        """The tensors' micro-batches, as many as `micro_batches`; None stays None."""
        if self.micro_batches == 1:
            yield tensors
            return
        parts = [[None] * self.micro_batches if t is None else t.chunk(self.micro_batches) for t in tensors]
        self._parts = self.micro_batches
        for self._part, part in enumerate(zip(*parts, strict=True)):
            with drawing(self.draws("layers", self._updates_this_batch)):
                yield part
        self._part, self._parts = 0, 1

    def for_both(self, make: Callable[..., Made], *inputs: Tensor | None) -> list[Made]:
        """`make` of each micro-batch of the inputs, for the steps of both players; layers draw from their own stream.

        Of several micro-batches only the results are kept: each is made once more, by the same random numbers, when
        its backward pass comes. So memory falls with their number.
        """
        if self.micro_batches == 1:
            with drawing(self.draws("layers", 0)):
                return [make(*inputs)]
        return [
            checkpoint(make, *part, use_reentrant=False, preserve_rng_state=False, context_fn=self._first_and_again)
            for part in self.split(*inputs)
        ]

    def _first_and_again(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        return drawing(self.draws("layers", 0)), _again(self, self.draws("layers", 0), vectors_of(self))

    def accumulate(self, loss: Tensor) -> None:
        """Adds the gradient of a micro-batch's mean loss to the step."""
        loss = loss / self.micro_batches if self.micro_batches > 1 else loss
        loss.backward() if self._plain else self.manual_backward(loss)

    def on_fit_start(self) -> None:
        # What Lightning puts around a backward and a step (scaling, DDP's reducer, hooks of callbacks) costs more than
        # a small network's own work; where it would do nothing it is left out.
        trainer, hooks = self.trainer, ["on_before_backward", "on_after_backward"]
        hooked = any(is_overridden(h, self, Game) for h in (*hooks, "backward", "manual_backward"))
        hooks.append("on_before_optimizer_step")
        hooked |= any(is_overridden(h, c, pl.Callback) for c in trainer.callbacks for h in hooks)  # type: ignore[attr-defined]
        simple = isinstance(trainer.strategy, (SingleDeviceStrategy, SyncAtStep))
        self._plain = simple and not hooked and trainer.precision in ("32-true", "64-true", "bf16-mixed")
        self._parameters_of_others, self._broken = {}, {}
        if self._compile:  # in place: state-dict names stay, and a module's own `forward` stays eager
            for network in self.networks():
                network.compile(dynamic=False)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # After averaging and unscaling. The Health callback reports what happened and stops the run.
        stepping = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.repair_gradients:
            gradients = [p.grad for p in stepping if p.grad is not None]
            if self.batches_seen % LOOK_EVERY_BATCHES == 0 and gradients:
                broken = ~torch.stack([g.isfinite().all() for g in gradients]).all()
                self._broken[optimizer] = (self._broken.get(optimizer, broken.new_zeros(()).long()) + 1) * broken
            repair(gradients)
        if self.clip_grad_norm > 0:
            # Not `self.clip_gradients`, which refuses fused optimisers even where no scaler is involved.
            nn.utils.clip_grad_norm_(stepping, self.clip_grad_norm)

    def broken_gradients(self) -> dict[str, int]:
        """Players whose gradients were not finite when they were last looked at, and for how many looks in a row.

        Of one batch in 50; waits for the device.
        """
        counts = {self._player_of(optimizer): int(count) for optimizer, count in self._broken.items()}
        return {player: count for player, count in counts.items() if count}

    def _player_of(self, optimizer: Optimizer) -> str:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        names = [n for n, child in self.named_children() if any(id(p) in held for p in child.parameters())]
        return " and ".join(names) or type(self).__name__

    @property
    def fused(self) -> bool:
        """Whether optimisers may be fused: not where a gradient scaler must unscale before the step."""
        return self._trainer is None or self.trainer.precision != "16-mixed"

    # ---- randomness --------------------------------------------------------------------------------------------------

    def draws(self, *purpose: int | str) -> Draws:
        """This process's (and micro-batch's) share of the random stream of `purpose` at this moment of the clock."""
        return Draws(
            self.seed,
            self.images_seen,
            *purpose,
            share=self.global_rank * self._parts + self._part,
            shares=self._world_size * self._parts,
            device=self.device,
        )

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

    # ---- reports -----------------------------------------------------------------------------------------------------

    def log(  # type: ignore[override]
        self, name: str, value: Any, prog_bar: bool = False, logger: bool | None = None, **options: Any
    ) -> None:
        """As Lightning's; where a Report callback writes, a step's values are reported: as means, over kimg."""
        ours = self.reports.written and self.mid_step and isinstance(value, (Tensor, Number)) and logger is not False
        if ours and not (options.get("on_epoch") or options.get("rank_zero_only")):
            self.report(**{name: value})
        else:
            super().log(name, value, prog_bar=prog_bar, logger=logger, **options)

    def report(self, **values: Tensor | float) -> None:
        """Adds to the running means that `take_reports` hands out; never waits for the device.

        All are kept on the module's device: a number is written there by a kernel, a tensor from elsewhere is copied.
        """
        for name, value in values.items():
            there = value.to(self.device) if isinstance(value, Tensor) else torch.full((), value, device=self.device)
            self.reports.add(name, there)

    def report_discriminator(self, loss: Tensor, real_logits: Tensor, fake_logits: Tensor) -> None:
        """The figures of a discriminator step under the names that callbacks look for; see `Reports.add_logits`."""
        self.reports.add("loss_d", loss)
        self.reports.add_logits(real_logits, fake_logits)

    def take_reports(self) -> dict[str, float]:
        """Means since the last call, over all processes, which must all call it."""
        means = self.reports.means()
        self.reports.clear()
        if not means:
            return {}
        together = torch.stack(list(means.values()))
        together = self.trainer.strategy.reduce(together, reduce_op="mean")
        return dict(zip(means, together.tolist(), strict=True))

    # ---- checks and checkpoints --------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage == "fit":
            wind(self.trainer)
            check_hooks(self, self.trainer)
            check_data(self.trainer)
            check_strategy(self.trainer)
            check_precision(self.trainer)
            check_batch_size(self, self.trainer)
            if isinstance(self, Samples):
                check_against_data(self, self.trainer)
                self.class_names = class_names_for(self, self.trainer)
            if self.freeze_discriminator_layers:
                freeze(self.discriminators(), self.freeze_discriminator_layers)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lit_gans"] = {
            "class_path": class_path(self),
            "version": __version__,
            "images_seen": self.images_seen,
            "batches_seen": self.batches_seen,
            "optimizers": self.optimizer_options,
            "class_names": list(self.class_names),
        }
        if self.reports.written:  # of the tick that is not over: a resumed run reports the means of an unbroken one
            checkpoint["lit_gans_reports"] = self._report_sums()

    def _report_sums(self) -> dict[str, tuple[float, int]]:
        """Of all processes, which each save: their mean, so that every one of them can go on from it."""
        sums = self.reports.sums()
        if not sums:
            return {}
        totals = self.trainer.strategy.reduce(torch.stack([total for total, _ in sums.values()]), reduce_op="mean")
        return {name: (total, sums[name][1]) for name, total in zip(sums, totals.tolist(), strict=True)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        absent = tuple(f"{name}." for name in self.only_in_training if getattr(self, name) is None)
        if absent and self._trainer is None:  # loaded for sampling
            saved = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: t for name, t in saved.items() if not name.startswith(absent)}
        check_same_architecture(self, checkpoint)
        self.images_seen = checkpoint["lit_gans"]["images_seen"]
        self.batches_seen = checkpoint["lit_gans"]["batches_seen"]
        self.saved_options = checkpoint["lit_gans"].get("optimizers")  # None: of a version that did not keep them
        self.reports.restore(checkpoint.get("lit_gans_reports", {}), self.device)
        self.class_names = self.class_names or tuple(map(str, checkpoint["lit_gans"].get("class_names", ())))


@contextmanager
def _again(game: Game, draws: Draws, vectors: Vectors) -> Iterator[None]:
    with drawing(draws), statistics_kept(game), vectors_from(vectors):
        yield


def _players(module: nn.Module) -> Iterator[nn.Module]:
    """Its children; in the place of a list or dict of modules, which has no `forward`, what is in it."""
    for child in module.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _players(child)
        else:
            yield child
