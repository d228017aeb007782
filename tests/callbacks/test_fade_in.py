"""FadeIn: stages on the clock, batches and learning rates by stage, resets, and a resume in the middle of a fade."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN, Growing, lazy_adam
from lit_gans.adversarial.progressive import blended, enlarged
from lit_gans.base.checkpoints import checkpoints
from lit_gans.callbacks import EMA, Checkpoint, FadeIn
from lit_gans.callbacks.fade_in import growth
from lit_gans.data import Digits
from tests.cases import CASES, StopAt, largest_difference, state
from tests.waits import DEVICE, waits_of

SCHEDULE: dict[str, Any] = {"start_px": 4, "stabilise_kimg": 0.032, "fade_kimg": 0.032}


class Grower(Growing):
    """A layer for each stage, whose outputs or inputs are blended."""

    def __init__(self, resolution: int, *, generates: bool) -> None:
        super().__init__(resolution)
        sizes = [4 << i for i in range((resolution // 4).bit_length())]
        shapes = {str(px): (4, px * px) if generates else (px * px, 1) for px in sizes}
        self.layers = nn.ModuleDict({px: nn.Linear(*shape) for px, shape in shapes.items()})
        self.generates = generates

    def at(self, x: Tensor, px: int) -> Tensor:
        y = self.layers[str(px)](x if self.generates else x.flatten(1))
        return y.view(-1, 1, px, px) if self.generates else y[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        new = self.at(x, self.stage)
        if self.alpha == 1:
            return new
        coarse = x if self.generates else nn.functional.avg_pool2d(x, 2)
        old = self.at(coarse, self.stage // 2)
        return torch.lerp(enlarged(old, self.stage) if self.generates else old, new, self.alpha)


class GrowingGAN(GAN):
    def __init__(self, **game: Any) -> None:
        super().__init__(resolution=16, channels=1, z_dim=4, **game)
        self.save_hyperparameters()
        self.generator, self.discriminator = Grower(16, generates=True), Grower(16, generates=False)
        self.generator_ema = Grower(16, generates=True).requires_grad_(False)
        self.generator_ema.load_state_dict(self.generator.state_dict())
        self.seen: list[tuple[int, int, float, int]] = []

    def set_progress(self, stage: int, alpha: float) -> None:
        for network in (self.generator, self.discriminator, self.generator_ema):
            network.set_progress(stage, alpha)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        real, z = blended(batch["image"], self.generator.alpha), self.latents(len(batch["image"]), "z")
        steps = max((int(s["step"]) for s in opt_d.state.values()), default=0)
        self.seen.append((real.shape[-1], self.images_seen, self.generator.alpha, steps))
        with self.updating(opt_d):
            self.accumulate((self.discriminator(self.generator(z)) - self.discriminator(real)).mean())
        with self.updating(opt_g):
            self.accumulate(-self.discriminator(self.generator(z)).mean())

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [lazy_adam(p.parameters(), lr=0.01, betas=(0.0, 0.99)) for p in self.networks()]


def built(**game: Any) -> GrowingGAN:
    torch.manual_seed(0)
    return GrowingGAN(seed=1, **game)


def train(
    gan: GAN, folder: Path, *, batches: int = 12, stop_at: int | None = None, resume: Path | None = None, **fade: Any
) -> pl.Trainer:
    gan.total_kimg = 0.16
    fading = FadeIn(**{**SCHEDULE, **fade})
    trainer = pl.Trainer(
        max_epochs=-1, limit_val_batches=0, logger=False, accelerator="cpu", default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[fading, EMA(0.1), StopAt(stop_at), Checkpoint(0, 0, monitor=None)],
    )  # fmt: skip
    data = Digits(batch_size=16, resolution=16, seed=5)
    trainer.fit(gan, datamodule=data, ckpt_path=resume, weights_only=True)
    return trainer


def test_stages_shares_and_sizes_follow_the_clock(tmp_path: Path) -> None:
    gan = built()
    train(gan, tmp_path)
    found = [(px, alpha) for px, _, alpha, _ in gan.seen]
    assert found == [(4, 1), (4, 1), (8, 0), (8, 0.5), (8, 1), (8, 1), (16, 0), (16, 0.5), (16, 1), (16, 1)]
    assert [steps for *_, steps in gan.seen] == [0, 1] * 5, "Adam begins anew at each transition"
    assert gan.take_reports()["stage_px"] == pytest.approx((4 * 2 + 8 * 4 + 16 * 4) / 10)
    assert (gan.generator_ema.stage, float(gan.generator_ema.lod)) == (16, 0.0)


def test_figures_lie_beside_the_losses(tmp_path: Path) -> None:
    """Where Health puts them together."""
    gan, data = CASES["pggan"](), Digits(batch_size=16, resolution=16)
    assert waits_of(gan, data, tmp_path, batches=6, callbacks=[FadeIn(**SCHEDULE)]) == []
    assert {"stage_px", "alpha", "loss_d"} < gan.reports.means().keys()
    assert gan.reports.finite().device == DEVICE


def test_moments_may_be_kept(tmp_path: Path) -> None:
    """Each layer's steps: of its own stage, and of the fade that follows."""
    for reset, expected in ((True, {"16": 2}), (False, {"4": 4, "8": 6, "16": 4})):
        gan = built()
        trainer = train(gan, tmp_path / str(reset), reset_optimizers=reset)
        states, layers = trainer.optimizers[1].state, gan.discriminator.layers
        steps = {px: int(states[layer.weight]["step"]) for px, layer in layers.items() if layer.weight in states}
        assert steps == expected


def test_batches_and_learning_rates_by_stage(tmp_path: Path) -> None:
    gan, rates = built(), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
            rates.append([group["lr"] for o in trainer.optimizers for group in o.param_groups])

    fading = {"batch_sizes": {8: 8, 16: 4}, "lrs": {4: 0.01, 16: 0.002}}
    original = FadeIn.on_train_batch_end
    FadeIn.on_train_batch_end = lambda self, trainer, *args: Watch.on_train_batch_end(None, trainer)
    try:
        train(gan, tmp_path, **fading)
    finally:
        FadeIn.on_train_batch_end = original
    seen = [(px, images) for px, images, *_ in gan.seen]
    assert seen[:4] == [(4, 0), (4, 16), (8, 32), (8, 40)]
    assert seen[10:12] == [(16, 96), (16, 100)] and gan.images_seen == 160
    assert rates[0] == rates[9] == [0.01, 0.01] and rates[10] == rates[-1] == [0.002, 0.002]


@pytest.mark.parametrize("stop_at", [2, 3, 4, 7])
def test_a_run_that_stops_anywhere_goes_on_bit_for_bit(stop_at: int, tmp_path: Path) -> None:
    """In the middle of a fade, and at a transition."""
    whole, resumed = built(), built()
    unbroken = state(whole, train(whole, tmp_path / "whole"))
    train(built(), tmp_path / "half", stop_at=stop_at)
    left = checkpoints(tmp_path / "half")[-1]
    trainer = train(resumed, tmp_path / "half", resume=left)
    assert largest_difference(unbroken, state(resumed, trainer)) == 0.0
    assert whole.seen[stop_at:] == resumed.seen


def test_layers_of_later_stages_wait_untouched(tmp_path: Path) -> None:
    gan = built()
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    trainer = train(gan, tmp_path, stop_at=2)
    for name, tensor in gan.state_dict().items():
        changed = bool((tensor != before[name]).any())
        if name != "discriminator.layers.4.bias":  # which both terms of the loss have
            assert changed == (".4." in name or name.endswith("lod")), name
    trained = {id(p) for o in trainer.optimizers for p in o.state}
    assert trained == {id(p) for n, p in gan.named_parameters() if ".layers.4." in n and "ema" not in n}


def test_zero_switches_it_off(tmp_path: Path) -> None:
    gan = built()
    train(gan, tmp_path, start_px=0)
    assert {px for px, *_ in gan.seen} == {16}


# ---- schedules that cannot be ----------------------------------------------------------------------------------------


def plan(**changes: Any) -> Any:
    return growth(**{**SCHEDULE, "resolution": 16, "batch_size": 8, **changes})


def test_numbers_by_size_hold_from_their_size_on() -> None:
    found = plan(stabilise_kimg={4: 1, 16: 5}, fade_kimg={8: 2}, batch_sizes={8: 4})
    assert [(s.px, s.start, s.fade, s.batch_size) for s in found.stages] == [
        (4, 0, 0, 8), (8, 1000, 2000, 4), (16, 4000, 2000, 4)
    ]  # fmt: skip
    assert found.alpha_at(1500) == 0.25 and found.phase_at(3000) == (8, False) and found.phase_at(10**9) == (16, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_px": 6}, "fade_in.start_px 6 is not a power of two from 4 to 16"),
        ({"start_px": 32}, "fade_in.start_px 32 is not"),
        ({"batch_sizes": {5: 8}}, "fade_in.batch_sizes has 5 px, and the stages are 4, 8, 16"),
        ({"stabilise_kimg": {8: 1}}, "fade_in.stabilise_kimg is None at 4 px"),
        ({"fade_kimg": -1}, "fade_in.fade_kimg is -1 at 8 px"),
    ],
)
def test_schedules_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**changes)


def test_what_does_not_fit_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="batch of 6 at 8 px .global. does not divide into 1 processes x 4 micro-batche"
    ):
        train(built(micro_batches=4), tmp_path, batch_sizes={8: 6})
    from tests.callbacks.common import tiny_gan

    with pytest.raises(ValueError, match="FadeIn needs a model that grows .* does not: .* set fade_in.start_px=0"):
        train(tiny_gan(), tmp_path)
    with pytest.warns(UserWarning, match="training ends at 0.16 kimg, with 4 px; 16 px are faded in at 2.064 kimg"):
        train(built(), tmp_path, stabilise_kimg={4: 1.0}, fade_kimg=0.032, stop_at=1)
