"""StackGAN: what a step does, its two stages, resuming, processes, bad input, and the shipped experiments.

As a program: one of several processes that train it.
"""

import os
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml

from lit_gans.adversarial.losses import divergence
from lit_gans.papers import StackGAN
from lit_gans.papers.stackgan import augmented, discriminator_loss, generator_loss
from lit_gans.papers.text.game import scaled_images
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from tests.cases import largest_difference, state
from tests.distributed.launch import run_processes
from tests.papers.captioned import BATCH, BLUE, RED, TINY, check_resume, fit, shapes, steps_of


def tiny(**options: Any) -> StackGAN:
    """Stage I for two batches."""
    torch.manual_seed(0)
    plain = {"z_dim": 4, "condition_dim": 3, "width": 4, "discriminator_width": 2, "residuals": 1}
    plain |= {"stage1_kimg": 2 * BATCH / 1000, "halve_every_kimg": 0.0}
    return StackGAN(**{**TINY, **plain, **options})


def train(gan: StackGAN, folder: Path, *, wrong: str = "caption", **options: Any) -> pl.Trainer:
    return fit(gan, folder, shapes(wrong=wrong), average=False, **options)


# ---- networks and losses ---------------------------------------------------------------------------------------------


def test_stages_have_a_quarter_and_the_whole_of_the_resolution() -> None:
    gan = tiny(stage1_kimg=0.0)
    sketch, image = gan.multi_scale([0, 1], captions=[RED, BLUE])
    assert sketch.shape == (2, 3, 8, 8) and image.shape == (2, 3, 32, 32)


def test_while_stage_1_is_trained_its_sketch_is_shown_enlarged() -> None:
    sketch, image = tiny().multi_scale([0], captions=[RED])
    assert torch.equal(image[..., ::4, ::4], sketch)


def test_divergence_is_that_of_torch() -> None:
    mu, logvar = torch.randn(4, 5), torch.randn(4, 5)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mu, (0.5 * logvar).exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(divergence(mu, logvar), expected)
    assert torch.equal(augmented(mu, logvar, torch.zeros(4, 5)), mu)


def test_wrong_pairs_are_neighbours_or_given() -> None:
    gan = tiny()
    discriminator, images = gan.discriminator["stage1"].eval(), torch.rand(3, 3, 8, 8)
    c = torch.rand(3, 3)
    by_neighbour = discriminator_loss(discriminator, images, images, c)
    given = discriminator_loss(discriminator, images, images, c, wrong=c.flip(0))
    h, softplus = discriminator(images), torch.nn.functional.softplus
    right_and_fake = softplus(-by_neighbour.real).mean() + 0.5 * softplus(by_neighbour.fake).mean()
    for judged, wrong in ((by_neighbour, (h[:2], c[1:])), (given, (h, c.flip(0)))):
        wrong_part = 0.5 * softplus(discriminator.conditional(*wrong)).mean()
        torch.testing.assert_close(judged.loss, right_and_fake + wrong_part)


# ---- training --------------------------------------------------------------------------------------------------------


def test_each_stage_trains_its_own_networks_in_order(tmp_path: Path) -> None:
    gan = tiny()
    steps = steps_of(gan, lambda: train(gan, tmp_path, batches=4))
    assert [player for player, _ in steps] == ["discriminator", "generator"] * 4
    for number, (player, changed) in enumerate(steps):
        stage = "stage1" if number < 4 else "stage2"
        assert changed == {n for n, _ in gan.named_parameters() if n.startswith(f"{player}.{stage}.")}


def test_norms_of_the_frozen_stage_go_on(tmp_path: Path) -> None:
    gan = tiny(stage1_kimg=BATCH / 1000)
    train(gan, tmp_path, batches=4)
    norms = [b for n, b in gan.generator.stage1.named_buffers() if n.endswith("num_batches_tracked")]
    assert norms and all(int(b) == 4 for b in norms)


@pytest.mark.parametrize("wrong", ["caption", "none"])
@pytest.mark.parametrize("stage1_kimg", [1.0, 0.0])
def test_the_losses_of_a_step(wrong: str, stage1_kimg: float, tmp_path: Path) -> None:
    gan = tiny(lr=0.0, stage1_kimg=stage1_kimg)
    train(gan, tmp_path, wrong=wrong, batches=1)
    gan.images_seen = gan.batches_seen = 0
    source = shapes(wrong=wrong)
    batch = source.on_after_batch_transfer(source.stream().batch(0), 0)
    noise = gan.draws("noise").normal(BATCH, gan.noise_dim)
    fake = gan.train().drawn(gan.latents(BATCH, "z"), gan.features(batch).sentence, noise)
    discriminator, (real,) = gan.discriminator[gan.stage], scaled_images(batch["image"], [gan.stage_px])
    given = None if wrong == "none" else gan.condition(gan.features(batch, prefix="wrong_").sentence)
    found = gan.reports.means()
    judged = discriminator_loss(discriminator, real, fake.image, fake.mu, wrong=given)
    torch.testing.assert_close(found["loss_d"], judged.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        found["loss_g"], generator_loss(discriminator, fake.image, fake.mu), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(found["kl"], divergence(fake.mu, fake.logvar), rtol=1e-5, atol=1e-6)


class Rates(pl.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_learning_rates_halve_within_each_stage(tmp_path: Path) -> None:
    gan, rates = tiny(lr=0.1, stage1_kimg=3 * BATCH / 1000, halve_every_kimg=2 * BATCH / 1000), Rates()
    gan.total_kimg = 6 * BATCH / 1000
    trainer = pl.Trainer(
        max_epochs=-1, limit_val_batches=0, logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=str(tmp_path), callbacks=[rates], enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(gan, datamodule=shapes(wrong="caption"))
    assert rates.seen == pytest.approx([0.1, 0.1, 0.05, 0.1, 0.1, 0.05])


@pytest.mark.parametrize("wrong", ["caption", "none"])
@pytest.mark.parametrize("stop_at", [1, 2, 4])
def test_a_resumed_run_equals_an_unbroken_one(wrong: str, stop_at: int, tmp_path: Path) -> None:
    def run(gan: StackGAN, folder: Path, **options: Any) -> pl.Trainer:
        return train(gan, folder, wrong=wrong, **options)

    check_resume(lambda: tiny(halve_every_kimg=0.01), tmp_path, run, stop_at=stop_at)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    run_processes(2, ["-m", "tests.papers.test_stackgan", str(tmp_path)])
    gan = tiny()
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    alone = state(gan, train(gan, tmp_path / "alone", batches=4))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert largest_difference(first, second) == 0.0, "the ranks differ"
    assert largest_difference(alone["state"], before) > 1e-4, "nothing was learned"
    assert largest_difference(alone["state"], first["state"]) < 2e-5


def test_micro_batches_and_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_ALLOW_SLOW_BF16", "1")
    gan = tiny(micro_batches=2, stage1_kimg=BATCH / 1000)
    before = [p.detach().clone() for p in gan.parameters()]
    train(gan, tmp_path, batches=2, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in gan.parameters())
    assert largest_difference(before, [p.detach() for p in gan.parameters()]) > 0 and gan.images_seen == 2 * BATCH


def test_a_saved_run_draws_the_same(tmp_path: Path) -> None:
    gan = tiny()
    train(gan, tmp_path, batches=3)
    loaded = load_run(tmp_path)
    assert loaded.stage == "stage2"
    assert torch.equal(loaded.sample([3], captions=[RED]), gan.eval().sample([3], captions=[RED]))


# ---- bad input, experiments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "none"}, "StackGAN draws captions"),
        ({"resolution": 48}, "resolution 48 is not 32, 64"),
        ({"width": 6}, "width 6 is not divisible by 4"),
        ({"schedule": "linear"}, "set halve_every_kimg"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_wrong_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set data.init_args.wrong=caption"):
        train(tiny(), tmp_path, wrong="image", batches=1)


def test_a_neighbour_needs_a_part_of_two(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a part of 8 images in 8 has none"):
        train(tiny(micro_batches=BATCH), tmp_path, wrong="none", batches=1)


def plan(name: str) -> dict[str, Any]:
    return yaml.safe_load(shipped_configs()[name].read_text())


@pytest.mark.parametrize(("name", "pictures", "epochs"), [("stackgan/cub", 8.855, (600, 600, 100))])
def test_published_numbers(name: str, pictures: float, epochs: tuple[int, int, int]) -> None:
    arguments = plan(name)["model"]["init_args"]
    first, second, halving = (pictures * each for each in epochs)
    assert arguments["stage1_kimg"] == pytest.approx(first)
    assert arguments["total_kimg"] == pytest.approx(first + second)
    assert arguments["halve_every_kimg"] == pytest.approx(halving)
    with torch.device("meta"):
        gan = StackGAN(**arguments)
    assert gan.lr == 2e-4 and gan.betas == (0.5, 0.999) and plan(name)["data"]["init_args"]["batch_size"] == 64


@pytest.mark.slow
def test_the_small_experiment_trains_both_stages(tmp_path: Path) -> None:
    from lit_gans import fit as verb  # here, since a process of two would wait for it

    first = ["--config", "experiments/joint_embedding/shapes64.yaml", "--logger=none"]
    first += [f"--run_folder={tmp_path / 'encoder'}", "--model.init_args.total_kimg=0.008"]
    first += ["--model.init_args.sentence_dim=6", "--data.init_args.batch_size=8", "--data.init_args.images=64"]
    first += ["--image_grid.columns=3", "--image_grid.rows=2"]
    assert verb.main(first) == 0
    argv = ["--config", "experiments/stackgan/shapes64.yaml", "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += [f"--model.init_args.encoder_weights={tmp_path / 'encoder'}", "--model.init_args.stage1_kimg=0.008"]
    argv += ["--model.init_args.total_kimg=0.016", "--model.init_args.width=4", "--data.init_args.batch_size=8"]
    argv += ["--data.init_args.images=64", "--image_grid.columns=3", "--image_grid.rows=2"]
    assert verb.main(argv) == 0
    gan = load_run(tmp_path / "run")
    assert gan.images_seen == 16 and gan.stage == "stage2"
    assert gan.sample([0], captions=[RED]).shape == (1, 3, 64, 64)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    gan = tiny()
    how = {"strategy": "sync_at_step", "devices": int(os.environ["WORLD_SIZE"])}
    trainer = train(gan, folder / "two", batches=4, **how)
    torch.save(state(gan, trainer), folder / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
