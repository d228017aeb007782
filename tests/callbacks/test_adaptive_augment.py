"""The strength of augmentation, alone and on two processes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gans.augment import AdaptiveAugment
from lit_gans.base.checkpoints import checkpoints
from lit_gans.callbacks.adaptive_augment import AdaptiveAugmentation, adjusted
from lit_gans.callbacks.report import Report
from lit_gans.papers.gan import VanillaGAN
from tests.cases import largest_difference, state, train
from tests.distributed.launch import run_processes

from .common import tiny_gan


class Augmented(VanillaGAN):
    """Both sides augmented, signs observed unless told otherwise."""

    def __init__(self, *, p: float = 0.0, observing: bool = True, **options: Any) -> None:
        options = {"resolution": 8, "hidden": 16, "units": 8, "pieces": 2, "z_dim": 4, "seed": 3, **options}
        super().__init__(optimizer="adam", lr=2e-3, **options)
        self.augment, self.observing, self.observed = AdaptiveAugment.preset("bgc", p=p), observing, []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        n = len(batch["image"])
        with self.updating(opt_d):
            for real, z in self.split(batch["image"], self.latents(n, "d")):
                real_logits = self.discriminator(self.augment(real))
                fake_logits = self.discriminator(self.augment(self.generator(z)))
                if self.observing:
                    self.augment.observe(real_logits)
                    self.observed.append(real_logits.detach())
                self.accumulate(self.loss(real_logits, fake_logits)[0])
        with self.updating(opt_g):
            for (z,) in self.split(self.latents(n, "g")):
                fake_logits = self.discriminator(self.augment(self.generator(z)))
                self.accumulate(self.loss(fake_logits, fake_logits)[1])


def build(**options: Any) -> Augmented:
    torch.manual_seed(0)
    return Augmented(**options)


def fast(target: float = 0.1, interval: int = 4) -> AdaptiveAugmentation:
    return AdaptiveAugmentation(target=target, interval=interval, speed_kimg=0.25)


def test_one_adjustment() -> None:
    p, r_t = torch.tensor(0.25), torch.tensor(0.7, dtype=torch.float64)
    by = 64 * 4 / 500_000  # the paper's batch, interval and speed
    assert adjusted(p, r_t, target=0.6, by=by).item() == pytest.approx(0.25 + 0.000512)
    assert adjusted(p, r_t, target=0.8, by=by).item() == pytest.approx(0.25 - 0.000512)
    assert adjusted(p, r_t, target=0.7, by=by).item() == 0.25
    assert adjusted(p, r_t, target=0.8, by=0.5).item() == 0.0
    assert adjusted(p, r_t, target=0.6, by=9.0).item() == 9.25  # no upper bound


def test_p_follows_all_signs_since_the_last_adjustment(tmp_path: Path) -> None:
    gan = build(p=0.05, micro_batches=2)
    train(gan, tmp_path, batches=12, callbacks=[fast(), Report(0.064)])
    p, reported = 0.05, []
    for i in range(3):
        signs = torch.cat(gan.observed[8 * i : 8 * i + 8]).sign()
        assert len(signs) == 4 * 16
        r_t = signs.mean().item()
        p = max(p + (0.256 if r_t > 0.1 else -0.256), 0)
        reported.append((r_t, p))
    assert gan.augment.p.item() == pytest.approx(p, abs=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    written = [(line["augment_r_t"], line["augment_p"]) for line in lines]
    assert [x for pair in written for x in pair] == pytest.approx([x for pair in reported for x in pair], abs=1e-6)
    assert len({p for _, p in reported}) > 1


def test_five_and_five_batches_are_ten(tmp_path: Path) -> None:
    whole, half, resumed = build(p=0.3), build(p=0.3), build(p=0.3)
    unbroken = state(whole, train(whole, tmp_path / "whole", batches=10, callbacks=[fast()]))
    stopped = fast()
    train(half, tmp_path / "half", batches=10, stop_at=5, callbacks=[stopped])
    assert stopped.state_dict()["logits"] == stopped.state_dict()["images"] == 16  # one batch since batch 4
    left = checkpoints(tmp_path / "half")[-1]
    callback = fast()
    trainer = train(resumed, tmp_path / "half", batches=10, resume=left, callbacks=[callback])
    assert largest_difference(unbroken, state(resumed, trainer)) == 0.0
    assert 0 < resumed.augment.p.item() != pytest.approx(0.3)
    assert callback.state_dict()["logits"] == 32  # batches 9 and 10


def test_setup_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"under VanillaGAN.augment, and the parts are: .*generator \(Generator\)"):
        train(tiny_gan(), tmp_path, batches=1, callbacks=[AdaptiveAugmentation()])


def test_a_step_that_observes_nothing_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no real logits were observed in 64 images: Augmented's .*augment.observe"):
        train(build(observing=False), tmp_path, batches=8, callbacks=[AdaptiveAugmentation()])


def test_zero_switches_it_off(tmp_path: Path) -> None:
    without = tiny_gan()  # which has no augmentation to look for
    train(without, tmp_path / "without", batches=2, callbacks=[AdaptiveAugmentation(interval=0)])
    assert without.batches_seen == 2
    gan = build(p=0.3)
    train(gan, tmp_path / "with", batches=8, callbacks=[AdaptiveAugmentation(interval=0)])
    assert gan.batches_seen == 8 and gan.augment.p.item() == pytest.approx(0.3)


@pytest.mark.parametrize(("argument", "value"), [("target", 1.0), ("interval", -1), ("speed_kimg", 0)])
def test_senseless_arguments_are_refused(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"adaptive_augmentation.{argument} {value}"):
        AdaptiveAugmentation(**{argument: value})


def half_a_run(folder: Path) -> None:
    """What each of two processes does: 5 of 10 batches, whose state it leaves in a file."""
    torch.set_num_threads(1)
    gan, devices = build(p=0.3), int(os.environ["WORLD_SIZE"])
    how = {"strategy": "sync_at_step", "devices": devices, "holdout": True, "stop_at": 5}
    callback = fast()
    trainer = train(gan, folder / "run", batches=10, callbacks=[callback], **how)
    torch.save(state(gan, trainer) | {"sums": callback.state_dict()}, folder / f"{os.environ['RANK']}.pt")


@pytest.mark.slow
def test_two_processes_equal_one_and_one_goes_on_from_two(tmp_path: Path) -> None:
    run = "import pathlib, sys, tests.callbacks.test_adaptive_augment as t; t.half_a_run(pathlib.Path(sys.argv[1]))"
    run_processes(2, ["-c", run, str(tmp_path)])
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert largest_difference(first, second) == 0.0, "the ranks differ"
    alone, callback = build(p=0.3), fast()
    trained = state(alone, train(alone, tmp_path / "five", batches=10, stop_at=5, callbacks=[callback], holdout=True))
    assert first["sums"] == callback.state_dict()
    assert largest_difference(trained["state"], first["state"]) < 1e-5
    whole, resumed = build(p=0.3), build(p=0.3)
    unbroken = state(whole, train(whole, tmp_path / "whole", batches=10, callbacks=[fast()], holdout=True))
    how = {"resume": checkpoints(tmp_path / "run")[-1], "callbacks": [fast()], "holdout": True}
    went_on = state(resumed, train(resumed, tmp_path / "run", batches=10, **how))
    assert largest_difference(unbroken["state"], went_on["state"]) < 1e-5
    assert whole.augment.p.item() == resumed.augment.p.item() > 0
