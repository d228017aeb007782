"""CycleGAN: its generator, its pools of former fakes, and a training that resumes, divides and keeps players apart.

Run as a script it is one of several processes that train every case; see `run_processes`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from lit_gans.base.checkpoints import checkpoints
from lit_gans.base.images import from_uint8
from lit_gans.data.paired import Paired
from lit_gans.data.unpaired import Unpaired
from lit_gans.nn import Draws, Dropout, drawing
from lit_gans.nn.mode import evaluating
from lit_gans.papers.cyclegan import CycleGAN, ResNet
from lit_gans.runs.load import load_run
from tests.papers.test_pix2pix import (
    BATCH,
    as_one_process,
    check_bf16,
    check_micro_batches,
    check_processes,
    check_resume,
    check_steps,
    pictures,
    train,
)

GENERATORS, DISCRIMINATORS = {"generator_ab", "generator_ba"}, {"discriminator_a", "discriminator_b"}


def tiny(**arguments: Any) -> Callable[..., CycleGAN]:
    def build(**overrides: Any) -> CycleGAN:
        torch.manual_seed(0)
        small = {"width": 2, "blocks": 1, "discriminator_width": 2, "pool_size": 6, "seed": 3, "total_kimg": 0.04}
        return CycleGAN(**small | arguments | overrides)

    return build


CASES = {"usual": tiny(), "plain": tiny(identity_weight=0.0, pool_size=0, cycle_weight=5.0)}


def domains(folder: Path, **options: Any) -> Unpaired:
    """7 pictures of one domain and 5 of the other, cut to 32x32."""
    if not folder.exists():
        pictures(folder, {"trainA": 7, "trainB": 5, "testA": 2, "testB": 3}, size=(36, 36))
    return Unpaired(str(folder), **{"batch_size": BATCH, "resolution": 32, "load_px": 36, "mirror": True} | options)


# ---- the generator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
@pytest.mark.parametrize("blocks", [0, 2])
def test_resnet_returns_the_size(norm: str, padding: str, blocks: int) -> None:
    network = ResNet(in_channels=1, out_channels=2, width=2, blocks=blocks, norm=norm, padding=padding)
    images = network(torch.randn(2, 1, 20, 12))
    assert images.shape == (2, 2, 20, 12) and images.abs().max() <= 1


def test_paddings_differ_at_the_border_alone() -> None:
    """Without norms, which spread the border over the whole image."""
    networks = [ResNet(width=2, blocks=1, norm="none", padding=padding) for padding in ("reflect", "replicate", "zero")]
    for network in networks:
        for parameter, weight in zip(network.parameters(), networks[0].parameters(), strict=True):
            parameter.data = weight.detach().sign() * 0.1
    image = torch.randn(1, 3, 64, 64)
    first, *others = (network(image) for network in networks)
    for other in others:
        assert torch.allclose(first[..., 24:40, 24:40], other[..., 24:40, 24:40], atol=1e-6)
        assert not torch.allclose(first, other, atol=1e-6)


def test_dropout_in_the_blocks() -> None:
    network, image = ResNet(width=2, blocks=2, dropout=True), torch.randn(1, 3, 16, 16)
    assert sum(isinstance(m, Dropout) for m in network.modules()) == 2
    with drawing(Draws(1)):
        first = network(image)
    assert not torch.allclose(first, network.eval()(image))
    assert not any(isinstance(m, Dropout) for m in CASES["usual"]().modules())


def test_instance_norm_makes_training_and_evaluation_one() -> None:
    game, images = CASES["usual"](), torch.rand(2, 3, 32, 32)
    for network in game.networks():
        with evaluating(network):
            calm = network(images)
        assert torch.equal(calm, network.train()(images))


def test_translation_goes_both_ways_and_depends_on_its_image_alone() -> None:
    game, images = CASES["usual"](), torch.rand(3, 3, 32, 24) * 2 - 1
    there, back = game.translate(images), game.translate(images, direction="ba")
    assert torch.allclose(there, game.generator_ab(images), atol=1e-6)
    assert torch.allclose(back, game.generator_ba(images), atol=1e-6)
    assert torch.allclose(there[1:2], game.translate(images[1:2]), atol=1e-5)
    assert not there.requires_grad and (game.directions, game.stride) == (("ab", "ba"), 4)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_generators_step_first_and_each_update_changes_one_side(name: str, tmp_path: Path) -> None:
    check_steps(CASES[name](), domains(tmp_path / "data"), tmp_path, [GENERATORS, DISCRIMINATORS])


@pytest.mark.parametrize("name", CASES)
def test_resume_with_pools(name: str, tmp_path: Path) -> None:
    check_resume(CASES[name], lambda: domains(tmp_path / "data"), tmp_path)


def test_the_pools_are_in_the_checkpoint(tmp_path: Path) -> None:
    """Nothing but the pools tells this run from one that lost them."""
    data = domains(tmp_path / "data")
    train(CASES["usual"](), data, tmp_path / "run", batches=10, stop_at=5)
    left = checkpoints(tmp_path / "run")[-1]
    saved = torch.load(left, weights_only=True)["state_dict"]
    assert saved["pool_a.images"].shape == saved["pool_b.images"].shape == (6, 3, 32, 32)
    assert not torch.equal(saved["pool_a.images"], saved["pool_b.images"])

    class Emptied(CycleGAN):
        def on_train_start(self) -> None:
            self.pool_a.images = self.pool_b.images = torch.empty(0)

    ends = []
    for cls in (CycleGAN, Emptied):
        game = CASES["usual"]()
        game.on_train_start = cls.on_train_start.__get__(game)
        train(game, data, tmp_path / "run", batches=10, resume=left)
        ends.append(game.discriminator_a.layers[0].weight.detach().clone())
    assert not torch.equal(*ends)
    assert load_run(tmp_path / "run").pool_a.images.shape == (6, 3, 32, 32)


def test_discriminators_are_shown_the_pools_images(tmp_path: Path) -> None:
    """Of 5 batches the first 6 fakes fill a pool; of the others about half are former ones."""
    game, seen = CASES["usual"](), []
    original = game.judged

    def spy(domain: str, real: Tensor, fake: Tensor) -> Tensor:
        seen.append((domain, fake))
        return original(domain, real, fake)

    game.judged, made = spy, []
    for name in GENERATORS:
        getattr(game, name).register_forward_hook(lambda m, x, y, name=name: made.append((name, y.detach())))
    train(game, domains(tmp_path / "data"), tmp_path, batches=5)
    assert [domain for domain, _ in seen] == ["a", "b"] * 5
    fresh = [[y for name, y in made if name == wanted][::3] for wanted in ("generator_ba", "generator_ab")]
    new = [
        [any(torch.equal(image, other) for other in fresh[side][batch]) for image in seen[2 * batch + side][1]]
        for side in (0, 1)
        for batch in range(5)
    ]
    assert all(all(batch) for batch in (new[0], new[5])) and 10 < sum(map(sum, new)) < 40
    assert [sum(map(sum, new[:5])), sum(map(sum, new[5:]))] != [20, 20]


def test_without_identity_two_passes_are_spared(tmp_path: Path) -> None:
    passes = {}
    for name in CASES:
        game, count = CASES[name](), []
        game.generator_ab.register_forward_hook(lambda *_, count=count: count.append(1))
        train(game, domains(tmp_path / "data"), tmp_path / name, batches=1)
        passes[name] = len(count)
        assert ("identity" in game.take_reports()) == (name == "usual")
    assert passes == {"usual": 3, "plain": 2}


def test_reports_and_weights_of_the_losses(tmp_path: Path) -> None:
    game = CASES["usual"]()
    train(game, domains(tmp_path / "data"), tmp_path, batches=3)
    found = game.take_reports()
    expected = found["adversarial"] + 10 * found["cycle"] + 5 * found["identity"]
    assert found["loss_g"] == pytest.approx(expected, rel=1e-5)
    assert found["loss_d"] == pytest.approx((found["loss_d_a"] + found["loss_d_b"]) / 2, rel=1e-5)


def test_each_cycle_may_have_a_weight_of_its_own(tmp_path: Path) -> None:
    data, beyond = domains(tmp_path / "data"), {}
    for weights in ((2.0, 0.0), (0.0, 2.0), (2.0, 2.0), 2.0):
        game = tiny(cycle_weight=weights, lr=0.0)()
        train(game, data, tmp_path / str(weights), batches=1)
        found = game.take_reports()
        beyond[weights] = found["loss_g"] - found["adversarial"]
    assert beyond[2.0] == beyond[2.0, 2.0] == pytest.approx(beyond[2.0, 0.0] + beyond[0.0, 2.0], rel=1e-5)
    assert beyond[2.0, 0.0] != pytest.approx(beyond[0.0, 2.0], rel=1e-3)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Pools included."""
    check_processes("tests.papers.test_cyclegan", CASES, domains(tmp_path / "data"), tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_bf16(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_bf16(CASES[name](), domains(tmp_path / "data"), tmp_path, monkeypatch)


def test_micro_batches_add_up_to_the_whole_batch(tmp_path: Path) -> None:
    check_micro_batches(CASES["usual"], domains(tmp_path / "data"), tmp_path)


def test_a_domain_may_be_grey(tmp_path: Path) -> None:
    game = tiny(channels_b=1, identity_weight=0.0)()
    train(game, domains(tmp_path / "data", b_channels=1), tmp_path, batches=1)
    assert game.translate(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)
    assert game.translate(torch.rand(1, 1, 32, 32), direction="ba").shape == (1, 3, 32, 32)
    images, columns = game.preview(domains(tmp_path / "data", b_channels=1), rows=1, columns=6, psi=1.0)
    assert images.shape == (6, 3, 32, 32) and columns == 6


def test_preview_goes_there_and_back(tmp_path: Path) -> None:
    game, data = CASES["usual"](), domains(tmp_path / "data")
    images, columns = game.preview(data, rows=2, columns=3, psi=1.0)
    assert columns == 3 and images.shape == (6, 3, 32, 32) and images.dtype == torch.uint8
    a = data.dataset("test").fetch(torch.arange(2))["a"]
    there = game.translate(from_uint8(a))
    assert torch.equal(images[::3], a)
    assert (from_uint8(images[1::3]) - there).abs().max() < 0.005
    assert (from_uint8(images[2::3]) - game.translate(there, direction="ba")).abs().max() < 0.005
    images, columns = game.preview(data, rows=2, columns=7, psi=1.0)
    assert columns == 6 and torch.equal(images[3::6], data.dataset("test").fetch(torch.arange(2))["b"])


def test_cycle_falls(tmp_path: Path) -> None:
    game = tiny(width=4, lr=2e-3, pool_size=3, cycle_weight=100.0)()
    train(game, domains(tmp_path / "data", load_px=32, mirror=False), tmp_path, batches=5)
    first = game.take_reports()["cycle"]

    class Forget(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: CycleGAN, *args: Any) -> None:
            if pl_module.batches_seen == 40:
                pl_module.reports.clear()

    game = tiny(width=4, lr=2e-3, pool_size=3, cycle_weight=100.0)()
    data = domains(tmp_path / "data", load_px=32, mirror=False)
    train(game, data, tmp_path / "long", batches=45, callbacks=[Forget()])
    assert game.take_reports()["cycle"] < 0.75 * first


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tiny(channels_b=1)(), "compares images of 3 and of 1 channels: set identity_weight=0"),
        (lambda: tiny(pool_size=-1)(), "pool size -1 is negative"),
        (lambda: ResNet(padding="wrap"), "padding 'wrap' is unknown: use 'reflect', 'replicate' or 'zero'"),
        (lambda: ResNet(norm="layer"), "norm 'layer' is unknown"),
        (lambda: CASES["usual"]().translate(torch.zeros(1, 3, 32, 30)), "images of 30x32 px do not fit .* to 32x32"),
        (lambda: CASES["usual"]().translate(torch.zeros(1, 3, 32, 32), direction="aa"), "'aa' is none of .* ab, ba"),
    ],
)
def test_bad_arguments_are_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 34, "load_px": 34}, "34x34 px do not fit CycleGAN, whose sides must be multiples of 4"),
        ({"resolution": 16, "load_px": 16}, "16x16 px do not fit CycleGAN, .* at least 24"),
        ({"b_channels": 1}, "CycleGAN translates 3 channels into 3, and the data have 3 and 1"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_training(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(CASES["usual"](), domains(tmp_path / "data", **options), tmp_path, batches=1)


def test_label_maps_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "data", {"train_img": 4}, size=(32, 32))
    from PIL import Image

    for folder in ("train_label", "train_inst"):
        (tmp_path / "data" / folder).mkdir()
        for i in range(4):
            Image.new("L", (32, 32)).save(tmp_path / "data" / folder / f"{i}.png")
    data = Paired(str(tmp_path / "data"), batch_size=BATCH, resolution=32, num_labels=3)
    with pytest.raises(ValueError, match="these data have label, instance, b: use lit_gans.papers.Pix2PixHD"):
        train(CASES["usual"](), data, tmp_path, batches=1)


if __name__ == "__main__":
    as_one_process(CASES, domains)
