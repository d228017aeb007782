"""pix2pix: its networks, translation as in training, and a training that resumes, divides and keeps players apart.

Run as a script it is one of several processes that train every case; see `run_processes`.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lit_gans.adversarial import Game, checks
from lit_gans.base.checkpoints import checkpoints
from lit_gans.base.images import from_uint8
from lit_gans.callbacks import Checkpoint, ImageGrid
from lit_gans.data import Digits, TranslationData
from lit_gans.data.paired import Paired
from lit_gans.nn import Draws, Dropout, drawing
from lit_gans.papers.pix2pix import PatchGAN, Pix2Pix, UNet, patch_discriminator
from lit_gans.runs.load import load_run
from tests.cases import StopAt, largest_difference, state
from tests.distributed.launch import run_processes

BATCH = 4


def tiny(**arguments: Any) -> Callable[..., Pix2Pix]:
    def build(**overrides: Any) -> Pix2Pix:
        torch.manual_seed(0)
        small = {"width": 2, "levels": 6, "discriminator_width": 3, "patch_px": 16, "seed": 3, "total_kimg": 0.04}
        return Pix2Pix(**small | arguments | overrides)

    return build


CASES = {
    "batch": tiny(),
    "instance": tiny(norm="instance", patch_px=1, levels=5, l1_weight=10.0),
    "least-squares": tiny(norm="none", dropout=False, loss="lit_gans.adversarial.losses.least_squares"),
}


def pictures(folder: Path, names: dict[str, int], *, size: tuple[int, int]) -> Path:
    """`count` pictures of smooth colours in each of the folders `names`, none like another."""
    generator = torch.Generator().manual_seed(1)
    for name, count in names.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            coarse = torch.randint(0, 256, (4, 4, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(coarse.numpy()).resize(size).save(folder / name / f"{i}.png")
    return folder


def pairs(folder: Path, **options: Any) -> Paired:
    """11 pairs of 70x70 pixels, cut to 64x64."""
    if not folder.exists():
        pictures(folder, {"train": 11, "test": 3}, size=(140, 70))
    return Paired(str(folder), **{"batch_size": BATCH, "resolution": 64, "load_px": 70, "mirror": True} | options)


def train(
    game: Game, data: TranslationData, folder: Path, *, batches: int, stop_at: int | None = None, **options: Any
) -> pl.Trainer:
    """Trains in a run of `batches` batches, which is stopped at `stop_at`."""
    game.total_kimg, game.decay_from_kimg = batches * BATCH / 1000, batches * BATCH / 2000
    resume, callbacks = options.pop("resume", None), options.pop("callbacks", [])
    arguments = {"max_epochs": -1, "logger": False, "accelerator": "cpu", "default_root_dir": str(folder)}
    arguments |= {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
    callbacks = [StopAt(stop_at), *callbacks, Checkpoint(0, 0, monitor=None)]
    trainer = pl.Trainer(**(arguments | options), callbacks=callbacks)
    trainer.fit(game, datamodule=data, ckpt_path=resume, weights_only=True)
    return trainer


def doubled(data: TranslationData) -> TranslationData:
    """The same data in double precision."""
    single = type(data).on_after_batch_transfer
    data.on_after_batch_transfer = lambda batch, i: {k: v.double() for k, v in single(data, batch, i).items()}
    return data


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize(("levels", "channels"), [(2, (3, 1)), (5, (1, 3)), (6, (2, 2))])
def test_u_net_returns_the_size(norm: str, levels: int, channels: tuple[int, int]) -> None:
    network = UNet(in_channels=channels[0], out_channels=channels[1], width=2, levels=levels, norm=norm)
    images = network(torch.randn(2, channels[0], 2**levels * 2, 2**levels))
    assert images.shape == (2, channels[1], 2**levels * 2, 2**levels)
    assert images.abs().max() <= 1


def test_dropout_sits_between_the_innermost_level_and_the_fourth() -> None:
    """CD512 three times in App. 6.1.1, of which the innermost has none in the official code."""
    assert [layer.p for layer in UNet(width=1).dropouts] == [0, 0, 0, 0, 0.5, 0.5, 0.5, 0]
    assert not any(layer.p for layer in UNet(width=1, dropout=False).dropouts)


@pytest.mark.parametrize("patch_px", [1, 16, 34, 70, 142, 286])
def test_a_logit_sees_its_patch(patch_px: int) -> None:
    network = patch_discriminator(patch_px, channels=1, width=1, norm="none")
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.1)  # no path is dead
    images = torch.ones(1, 1, 384, 384, requires_grad=True)
    logits = network(images)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = images.grad[0, 0] != 0
    assert seen.any(0).sum() == seen.any(1).sum() == patch_px
    assert seen.sum() == patch_px**2


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_least_size_of_a_patch_discriminator(layers: int) -> None:
    network = PatchGAN(channels=1, width=1, layers=layers, norm="instance")
    assert network(torch.randn(1, 1, network.least_px, network.least_px)).shape == (1, 1, 1, 1)
    with pytest.raises((RuntimeError, ValueError)):
        network(torch.randn(1, 1, network.least_px - 1, network.least_px - 1))


def test_initial_weights() -> None:
    network = UNet(width=32, levels=4)
    assert network.ups[2].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert network.up_norms[2].weight.mean().item() == pytest.approx(1, abs=0.01)
    assert network.ups[0].bias.abs().max() == 0


# ---- translation -----------------------------------------------------------------------------------------------------


def test_a_translation_is_a_training_batch_of_one() -> None:
    """Dropout from the given draws, batch norm with the image's own statistics (Sec. 3.3)."""
    game, image = CASES["batch"](), torch.rand(1, 3, 64, 64) * 2 - 1
    found = game.translate(image, draws=Draws(7))
    with drawing(Draws(7)), torch.no_grad():
        expected = game.generator.train()(image)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, game.translate(image, draws=Draws(8)), atol=1e-3)


def test_a_translation_depends_on_its_image_alone() -> None:
    game, images = CASES["batch"](), torch.rand(3, 3, 64, 64) * 2 - 1
    together = game.translate(images)
    assert torch.allclose(together[1:2], game.translate(images[1:2]), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_translating_changes_nothing() -> None:
    game, images = CASES["batch"]().train(), torch.rand(2, 3, 64, 64)
    before, ambient = {k: v.clone() for k, v in game.state_dict().items()}, torch.get_rng_state()
    game.translate(images)
    assert torch.equal(torch.get_rng_state(), ambient)
    assert largest_difference(before, dict(game.state_dict())) == 0
    assert all(m.training for m in game.generator.modules())
    assert not any(vars(m).get("alone", False) for m in game.generator.modules())
    assert sum(isinstance(m, Dropout) and m.p > 0 for m in game.generator.modules()) == 1


# ---- training --------------------------------------------------------------------------------------------------------


def players(game: Game) -> dict[str, list[Tensor]]:
    return {name: [p.detach().clone() for p in network.parameters()] for name, network in game.named_children()}


def check_steps(game: Game, data: TranslationData, folder: Path, order: list[set[str]]) -> None:
    """In one batch, the players step in this `order`; all their parameters have gradients, and no other changes."""
    steps: list[tuple[set[str], dict[str, list[Tensor]]]] = []

    class Spy(type(game)):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            stepping = {id(p) for group in optimizer.param_groups for p in group["params"]}
            own = {name: list(player.parameters()) for name, player in self.named_children()}
            own = {name: parameters for name, parameters in own.items() if parameters}
            names = {name for name, parameters in own.items() if id(parameters[0]) in stepping}
            assert stepping == {id(p) for name in names for p in own[name]}
            assert all(p.grad is not None for name in names for p in own[name])
            steps.append((names, players(self)))

    game.__class__ = Spy
    train(game, data, folder, batches=1)
    assert [names for names, _ in steps] == order
    after = [players_after for _, players_after in steps[1:]] + [players(game)]
    for (names, before), later in zip(steps, after, strict=True):
        for name, parameters in before.items():
            assert (largest_difference(parameters, later[name]) > 0) == (name in names), f"{names}: {name}"


@pytest.mark.parametrize("name", CASES)
def test_the_discriminator_steps_first_and_each_update_changes_one_player(name: str, tmp_path: Path) -> None:
    check_steps(CASES[name](), pairs(tmp_path / "data"), tmp_path, [{"discriminator"}, {"generator"}])


def check_resume(build: Callable[..., Game], data: Callable[[], TranslationData], folder: Path) -> None:
    """5 + 5 batches are 10, bit for bit, whatever torch's own generator has been drawn from."""
    whole, resumed = build(), build()
    unbroken = state(whole, train(whole, data(), folder / "whole", batches=10))
    train(build(), data(), folder / "half", batches=10, stop_at=5)
    torch.manual_seed(99)
    trainer = train(resumed, data(), folder / "half", batches=10, resume=checkpoints(folder / "half")[-1])
    assert largest_difference(unbroken, state(resumed, trainer)) == 0.0
    loaded = load_run(folder / "half")
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded.translate(image), whole.translate(image))


@pytest.mark.parametrize("name", CASES)
def test_resume(name: str, tmp_path: Path) -> None:
    check_resume(CASES[name], lambda: pairs(tmp_path / "data"), tmp_path)


def check_processes(module: str, cases: dict[str, Callable[..., Game]], data: TranslationData, folder: Path) -> None:
    """Two processes that run `module` as a script end where one does.

    In double precision: of a gradient of rounding errors, such as that of a bias before an instance norm, Adam makes
    whole steps in single.
    """
    run_processes(2, ["-m", module, str(folder), str(data.path)])
    for name, build in cases.items():
        game = build()
        before = {k: v.clone() for k, v in game.state_dict().items()}
        alone = state(game, train(game, doubled(data), folder / name, batches=10, precision="64-true"))
        first, second = (torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1))
        assert largest_difference(first, second) == 0.0, "the ranks differ"
        assert alone["clock"] == first["clock"] == (10 * BATCH, 10)
        learned = [k for k in before if before[k].shape == alone["state"][k].shape]
        assert max(largest_difference(before[k], alone["state"][k]) for k in learned) > 1e-4
        assert largest_difference(alone["state"], first["state"]) < 1e-9


def as_one_process(cases: dict[str, Callable[..., Game]], data: Callable[[Path], TranslationData]) -> None:
    """Trains every case in this process's part of a group and leaves its state in a file."""
    torch.set_num_threads(1)
    folder, where = Path(sys.argv[1]), Path(sys.argv[2])
    for name, build in cases.items():
        game = build()
        how = {"strategy": "sync_at_step", "devices": int(os.environ["WORLD_SIZE"]), "precision": "64-true"}
        trainer = train(game, doubled(data(where)), folder / "two" / name, batches=10, **how)
        torch.save(state(game, trainer), folder / f"{name}-{os.environ['RANK']}.pt")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    check_processes("tests.papers.test_pix2pix", CASES, pairs(tmp_path / "data"), tmp_path)


def check_bf16(game: Game, data: TranslationData, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checks.SLOW_BF16_VARIABLE, "1")
    before = [p.detach().clone() for p in game.parameters()]
    train(game, data, folder, batches=2, precision="bf16-mixed")
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in game.parameters())
    assert largest_difference(before, [p.detach() for p in game.parameters()]) > 0


@pytest.mark.parametrize("name", CASES)
def test_bf16(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_bf16(CASES[name](), pairs(tmp_path / "data"), tmp_path, monkeypatch)


def check_micro_batches(build: Callable[..., Game], data: TranslationData, folder: Path) -> None:
    ends = []
    for parts in (1, 2):
        game = build(micro_batches=parts)
        trainer = train(game, doubled(data), folder / str(parts), batches=4, precision="64-true")
        ends.append(state(game, trainer)["state"])
    assert largest_difference(*ends) < 1e-9


def test_micro_batches_add_up_to_the_whole_batch(tmp_path: Path) -> None:
    """Without batch norm; noise included."""
    build = tiny(norm="none", loss="lit_gans.adversarial.losses.least_squares")
    assert any(layer.p for layer in build().generator.dropouts)
    check_micro_batches(build, pairs(tmp_path / "data"), tmp_path)


def test_l1_falls(tmp_path: Path) -> None:
    """Learning the identity at 16 pixels."""
    pictures(tmp_path / "data" / "same", {"trainA": 6}, size=(16, 16))
    data = Paired(
        str(tmp_path / "data" / "same" / "trainA"),
        path_b=str(tmp_path / "data" / "same" / "trainA"),
        batch_size=BATCH,
        resolution=16,
    )
    game = tiny(levels=4, width=8, patch_px=1, lr=2e-3)()
    train(game, data, tmp_path, batches=5)
    first = game.take_reports()["l1"]
    again = tiny(levels=4, width=8, patch_px=1, lr=2e-3)()
    train(again, data, tmp_path / "long", batches=60, callbacks=[Forget(55)])
    assert again.take_reports()["l1"] < 0.5 * first


class Forget(pl.Callback):
    """Clears the reports after so many batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Game, *args: Any) -> None:
        if pl_module.batches_seen == self.batches:
            pl_module.reports.clear()


def test_preview_is_input_output_target(tmp_path: Path) -> None:
    game, data = CASES["batch"](), pairs(tmp_path / "data")
    images, columns = game.preview(data, rows=5, columns=8, psi=1.0)
    assert columns == 6 and images.shape == (9, 3, 64, 64) and images.dtype == torch.uint8  # 3 test pictures
    test = data.dataset("test").fetch(torch.arange(3))
    assert torch.equal(images[0::3], test["a"]) and torch.equal(images[2::3], test["b"])
    expected = game.translate(from_uint8(test["a"]))
    assert (from_uint8(images[1::3]) - expected).abs().max() < 0.005
    grey = tiny(in_channels=1)()
    images, columns = grey.preview(pairs(tmp_path / "data", a_channels=1), rows=1, columns=1, psi=1.0)
    assert columns == 3 and torch.equal(images[0, 0], images[0, 2])


def test_image_grid_writes_the_preview(tmp_path: Path) -> None:
    train(CASES["batch"](), pairs(tmp_path / "data"), tmp_path, batches=1, callbacks=[ImageGrid(1.0, 3, 2)])
    assert Image.open(tmp_path / "samples" / "latest.png").size == (3 * 64, 2 * 64)
    assert not (tmp_path / "samples" / "reals.png").exists()


def test_learning_rate_is_constant_and_then_falls_to_nothing(tmp_path: Path) -> None:
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
            rates.append([o.param_groups[0]["lr"] for o in trainer.optimizers])

    train(CASES["instance"](), pairs(tmp_path / "data"), tmp_path, batches=8, callbacks=[Watch()])
    expected = [2e-4 * f for f in (1, 1, 1, 1, 1, 0.75, 0.5, 0.25)]
    assert [r[0] for r in rates] == pytest.approx(expected) and [r[1] for r in rates] == pytest.approx(expected)
    assert (Pix2Pix(width=1).decay_from_kimg, Pix2Pix(width=1, decay_from_kimg=7.0).decay_from_kimg) == (40.0, 7.0)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_px": 64}, "patch_px 64 is the view of no discriminator: use one of 1, 16, 34, 70, 142, 286"),
        ({"norm": "layer"}, "norm 'layer' is unknown: use 'batch', 'instance' or 'none'"),
        ({"levels": 1}, "levels 1 leaves nothing between the halvings"),
        ({"loss": "nowhere.f"}, "loss 'nowhere.f' cannot be imported"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(**arguments)


def test_images_that_do_not_fit_are_refused() -> None:
    game = CASES["batch"]()
    with pytest.raises(ValueError, match="images of 100x64 px do not fit .* multiples of 64: .* to 128x64 for example"):
        game.translate(torch.zeros(1, 3, 64, 100))
    with pytest.raises(ValueError, match="direction 'ba' is none of this translator's, which are ab"):
        game.translate(torch.zeros(1, 3, 64, 64), direction="ba")
    with pytest.raises(ValueError, match="NoneType gives no samples to preview: set image_grid.every_kimg=0"):
        game.preview(None, rows=1, columns=3, psi=1.0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({}, {"resolution": 48}, "48x48 px do not fit Pix2Pix, whose sides must be multiples of 64 and at least 6"),
        ({"patch_px": 286}, {}, "64x64 px do not fit Pix2Pix, .* at least 96"),
        ({"in_channels": 1}, {}, "Pix2Pix translates 1 channels into 3, and the data have 3 and 3"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_training(
    arguments: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny()(**arguments), pairs(tmp_path / "data", **options), tmp_path, batches=1)


def test_single_images_are_refused(tmp_path: Path) -> None:
    data = Digits(batch_size=BATCH, resolution=64)
    with pytest.raises(ValueError, match="learns from pictures of two domains, and Digits gives single ones"):
        train(tiny()(), data, tmp_path, batches=1)


if __name__ == "__main__":
    as_one_process(CASES, pairs)
