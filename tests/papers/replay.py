"""One batch of a game, again and again from the same weights and by the same random numbers.

So a test can take one player's step alone, and see what it changed for both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from lit_gans.adversarial import Game

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Run(NamedTuple):
    """What one pass through `training_step` did.

    steps: the number of the optimiser of each step, in their order. judged: (real, fake) logits of each report.
    gradients: of each optimiser's parameters, added up over its steps. loss: of all steps together.
    """

    steps: list[int]
    judged: list[tuple[Tensor, Tensor]]
    gradients: list[Tensor]
    loss: float
    reports: dict[str, float]


class Replay:
    """Passes through the training step of `game` on its first batch, each from the weights that it has now.

    same_latents: whatever they are drawn for, so that both players' are.
    """

    def __init__(self, game: Game, batch: dict[str, Tensor], *, same_latents: bool = False) -> None:
        self.game, self.batch, self.same_latents = game, batch, same_latents
        self.start = copy.deepcopy(game.state_dict())
        self.optimizers = copy.deepcopy([o.state_dict() for o in game.trainer.optimizers])

    def restore(self) -> None:
        self.game.load_state_dict(self.start)
        for optimizer, state in zip(self.game.trainer.optimizers, self.optimizers, strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))

    def run(self, taken: int | None = None) -> Run:
        """One pass, in which the optimiser of number `taken` alone makes its steps; then it holds what they made."""
        game, steps, judged, losses = self.game, [], [], []
        trained = [[p for g in o.param_groups for p in g["params"]] for o in game.trainer.optimizers]
        sums = [[torch.zeros_like(p) for p in own] for own in trained]

        def step(optimizer: LightningOptimizer) -> None:
            number = game.trainer.optimizers.index(optimizer.optimizer)
            steps.append(number)
            for total, p in zip(sums[number], trained[number], strict=True):
                total.add_(0 if p.grad is None else p.grad)
            if number == taken:
                optimizer.optimizer.step()

        with spied(game, "_step", step), spied(game, "report_discriminator", lambda loss, r, f: judged.append((r, f))):
            draws = game.draws
            same = lambda *purpose: draws(*purpose[: 1 if self.same_latents and purpose[0] == "z" else None])  # noqa: E731
            with spied(game, "draws", same), heard(game, "accumulate", lambda loss: losses.append(loss.detach())):
                game.reports.clear()
                game.start_batch()
                type(game).training_step(game, self.batch, 0)
        reports = {name: value.item() for name, value in game.reports.means().items()}
        flat = [torch.cat([t.flatten() for t in own]) for own in sums]
        detached = [(r.detach().clone(), f.detach().clone()) for r, f in judged]
        return Run(steps, detached, flat, float(sum(losses)), reports)

    def slopes(self) -> list[tuple[Tensor | None, Tensor | None]]:
        """For each report of a discriminator how its player's loss changes with the (real, fake) logits.

        None for a side that the loss does not depend on, or that was put together for the report.
        """
        judged: list[Tensor] = []
        with spied(self.game, "report_discriminator", lambda loss, *logits: judged.extend(logits)):
            losses = self._losses()
        found = torch.autograd.grad(losses, judged, allow_unused=True)
        return list(zip(found[::2], found[1::2], strict=True))

    def pulls(self, head: str) -> list[int]:
        """-1 for each call of this part of a discriminator whose player wants more of what it gives, 1 for less."""
        out: list[Tensor] = []
        hook = self.game.get_submodule(head).register_forward_hook(lambda module, given, made: out.append(made))
        losses = self._losses()
        hook.remove()
        return [int(slope.sum().sign()) for slope in torch.autograd.grad(losses, out)]

    def _losses(self) -> Tensor:
        """The sum of the losses of all steps from the first weights, not gone back from."""
        self.restore()
        losses: list[Tensor] = []
        with spied(self.game, "_step", lambda optimizer: None), spied(self.game, "accumulate", losses.append):
            self.game.start_batch()
            type(self.game).training_step(self.game, self.batch, 0)
        return torch.stack(losses).sum()

    def fresh(self) -> Run:
        """A pass from the first weights, in which nobody steps."""
        self.restore()
        return self.run()

    def after(self, number: int) -> Run:
        """A pass in which nobody steps, from the first weights but for those that optimiser `number` has stepped to."""
        self.stepped(number)
        return self.run()

    def stepped(self, number: int) -> None:
        """The first weights and buffers, but for the parameters that optimiser `number` has stepped to."""
        self.restore()
        self.run(number)
        parameters = {name: p.detach().clone() for name, p in self.game.named_parameters()}
        self.restore()
        for name, p in self.game.named_parameters():
            p.data.copy_(parameters[name])


@torch.no_grad()
def moved(game: Game) -> None:
    """Takes weights away from where training begins, where some are 0, and some logits nearly so."""
    generator = torch.Generator().manual_seed(5)
    for p in game.parameters():
        if p.requires_grad:
            p.add_(0.1 * torch.randn(p.shape, generator=generator))


@contextmanager
def spied(owner: Any, name: str, instead: Callable[..., Any]) -> Iterator[None]:
    """`instead` in the place of a method of this one object."""
    before = vars(owner).get(name)
    vars(owner)[name] = instead
    try:
        yield
    finally:
        del vars(owner)[name]
        if before is not None:
            vars(owner)[name] = before


@contextmanager
def heard(owner: Any, name: str, hear: Callable[..., Any]) -> Iterator[None]:
    """`hear` is given the arguments of a method of this one object, which goes on as ever."""
    method = getattr(owner, name)

    def both(*args: Any, **kwargs: Any) -> Any:
        hear(*args, **kwargs)
        return method(*args, **kwargs)

    with spied(owner, name, both):
        yield


class Passes(NamedTuple):
    """A call of a network."""

    network: str
    step: int  # the number of the optimiser that is being stepped, -1 outside of a step
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any


@contextmanager
def watched(game: Game, *networks: str) -> Iterator[list[Passes]]:
    """All calls of these networks, `forward` itself included, which penalties take."""
    calls: list[Passes] = []
    inside = [-1]
    updating = game.updating

    @contextmanager
    def noted(optimizer: LightningOptimizer) -> Iterator[None]:
        inside[0] = game.trainer.optimizers.index(optimizer.optimizer)
        with updating(optimizer):
            yield
        inside[0] = -1

    def watch(name: str, network: nn.Module) -> None:
        forward = network.forward

        def seen(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            calls.append(Passes(name, inside[0], args, kwargs, out))
            return out

        vars(network)["forward"] = seen

    vars(game)["updating"] = noted
    for name in networks:
        watch(name, game.get_submodule(name))
    try:
        yield calls
    finally:
        del vars(game)["updating"]
        for name in networks:
            del vars(game.get_submodule(name))["forward"]


def replayed(
    game: Game, data: pl.LightningDataModule, folder: Path, look: Callable[[Game, dict[str, Tensor]], None]
) -> None:
    """Calls `look` in the place of the first batch's training step."""

    class Looking(type(game)):  # type: ignore[misc]
        def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
            game.__class__ = type(self).__mro__[1]
            look(game, batch)
            self.trainer.should_stop = True

    game.__class__, game.total_kimg = Looking, 1000.0
    arguments = {
        "max_epochs": 1,
        "max_steps": 1,
        "limit_val_batches": 0,
        "limit_train_batches": 1,
        "accelerator": "cpu",
    }
    pl.Trainer(**arguments, **QUIET, default_root_dir=str(folder)).fit(game, datamodule=data)
