"""Age-cGAN: its networks, the game, and the encoder that learns from the generator's own images."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gans.adversarial.capabilities import Encodes, can
from lit_gans.base.checkpoints import checkpoints
from lit_gans.papers import AgeCGAN
from lit_gans.papers.age_cgan import Discriminator, Encoder, Generator, latent_distance
from lit_gans.runs.load import load_run
from tests.cases import BATCH, largest_difference, state, tiny, train
from tests.distributed.launch import run_processes

build = tiny(
    AgeCGAN, width=8, resolution=16, num_classes=10, kernel_size=4, encoder_share=0.5, encoder_width=8,
    encoder_hidden=16, encoder_pairs=100,
)  # fmt: skip


# ---- networks --------------------------------------------------------------------------------------------------------


def test_networks_have_the_published_shapes() -> None:
    gan = AgeCGAN()
    assert gan.generator.layers.project.in_features == 100 + 6 and gan.sample([0]).shape == (1, 3, 64, 64)
    convs = [m for m in gan.discriminator.layers if isinstance(m, torch.nn.Conv2d)]
    assert gan.discriminator.first.out_channels == 128 and convs[0].in_channels == 128 + 6
    assert gan.encoder is not None
    convs = [m for m in gan.encoder.layers if isinstance(m, torch.nn.Conv2d)]
    assert [(m.kernel_size, m.stride, m.out_channels) for m in convs] == [
        ((5, 5), (2, 2), channels) for channels in (32, 64, 128, 256)
    ]
    linear = [m for m in gan.encoder.layers if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(4096, 4096), (4096, 100)]
    assert gan.encode(gan.sample(range(3))).shape == (3, 100)


def test_the_group_is_joined_as_constant_maps_behind_the_first_convolution() -> None:
    """A discriminator whose next layer looks at one group's map alone tells groups apart, whatever the image."""
    network = Discriminator(num_classes=3, width=4, kernel_size=4, channels=1, resolution=16).eval()
    seen: list[Tensor] = []
    network.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(torch.rand(2, 1, 16, 16), torch.tensor([2, 0]))
    maps = seen[0][:, 4:]
    assert maps.shape == (2, 3, 8, 8)
    assert maps.mean((2, 3)).tolist() == [[0, 0, 1], [1, 0, 0]] and maps.std((2, 3)).max() == 0


def test_the_generator_has_the_group_beside_the_latent() -> None:
    network = Generator(z_dim=4, num_classes=3, width=4, kernel_size=4, channels=1, resolution=16).eval()
    z = torch.randn(2, 4)
    joined = torch.cat([z, torch.tensor([[0.0, 1, 0], [0, 0, 1]])], 1)
    assert torch.equal(network(z, torch.tensor([1, 2])), network.layers(joined))


def test_the_distance_of_latents_is_euclidean() -> None:
    found, z = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert latent_distance(found, z).item() == pytest.approx(2.5)  # (5 + 0) / 2


@pytest.mark.parametrize("resolution", [8, 16, 32, 128])
def test_every_resolution(resolution: int) -> None:
    gan = AgeCGAN(resolution=resolution, width=4, encoder_width=4, encoder_hidden=8, z_dim=5)
    images = gan.sample([0, 1])
    assert images.shape == (2, 3, resolution, resolution)
    assert gan.discriminator(images, torch.tensor([0, 5])).shape == (2,) and gan.encode(images).shape == (2, 5)


# ---- the game --------------------------------------------------------------------------------------------------------


def stepping(gan: AgeCGAN, player: str, after: Any) -> AgeCGAN:
    """`gan`, which calls `after(gan)` once before and once after each step of this player."""

    class Watched(type(gan)):  # type: ignore[misc]
        def _step(self, optimizer: Any) -> None:
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            mine = id(next(getattr(self, player).parameters())) in held
            if mine:
                after(self)
            super()._step(optimizer)
            if mine:
                after(self)

    gan.__class__ = Watched
    return gan


def test_each_player_plays_for_itself(tmp_path: Path) -> None:
    """A step of the discriminator parts reals from fakes further; one of the generator makes its fakes more real."""
    fixed: dict[str, Tensor] = {}
    gaps: list[float] = []
    beliefs: list[float] = []

    def told(gan: AgeCGAN) -> tuple[Tensor, Tensor]:
        """Mean logits of the batch's reals and of fakes, by copies in training mode, whose statistics nobody needs."""
        generator, discriminator = copy.deepcopy(gan.generator), copy.deepcopy(gan.discriminator)
        with torch.no_grad():
            fakes = generator(fixed["z"], fixed["label"])
            real = discriminator(fixed["image"], fixed["label"]).mean()
            return real, discriminator(fakes, fixed["label"]).mean()

    def of_discriminator(gan: AgeCGAN) -> None:
        real, fake = told(gan)
        gaps.append((real - fake).item())

    def of_generator(gan: AgeCGAN) -> None:
        beliefs.append(told(gan)[1].item())

    gan = stepping(build(encoder_share=0.0, lr=1e-3), "discriminator", of_discriminator)
    gan = stepping(gan, "generator", of_generator)
    own = gan.training_step

    def keep(batch: dict[str, Tensor], batch_idx: int) -> None:
        fixed.update(batch, z=gan.latents(len(batch["image"]), "z"))
        own(batch, batch_idx)

    gan.training_step = keep  # type: ignore[method-assign]
    train(gan, tmp_path, batches=4)
    assert len(gaps) == len(beliefs) == 8
    assert all(after > before for before, after in zip(gaps[::2], gaps[1::2], strict=True))
    assert all(after > before for before, after in zip(beliefs[::2], beliefs[1::2], strict=True))


def test_groups_are_learned(tmp_path: Path) -> None:
    """The discriminator, trained against fakes of the right groups alone, doubts reals that are called by another."""
    gan = build(encoder_share=0.0, lr=2e-3)
    from lit_gans.data import Digits

    train(gan, tmp_path, batches=60)
    batch = next(Digits(batch_size=256, resolution=16, seed=5).batches(batch_size=256))
    image, label = batch["image"].float() / 127.5 - 1, batch["label"]
    with torch.no_grad():
        right, wrong = gan.discriminator(image, label), gan.discriminator(image, (label + 5) % 10)
    assert right.mean() > wrong.mean() + 0.1


# ---- the encoder -----------------------------------------------------------------------------------------------------


class Learns(AgeCGAN):
    """Keeps what the encoder's loss was."""

    def report(self, **values: Any) -> None:
        super().report(**values)
        self.losses = [*getattr(self, "losses", []), *([values["loss_e"].item()] if "loss_e" in values else [])]


def test_the_encoder_learns_the_latents_and_the_players_stand_still(tmp_path: Path) -> None:
    gan = build(lr=2e-3)
    gan.__class__ = Learns
    train(gan, tmp_path / "a", batches=20, stop_at=11)
    assert len(gan.losses) == 1, "10 batches are of the game"
    before = {name: tensor.clone() for name, tensor in gan.state_dict().items()}
    gan = build(lr=2e-3)
    gan.__class__ = Learns
    train(gan, tmp_path / "a", batches=20, resume=checkpoints(tmp_path / "a")[-1])
    changed = {name.split(".")[0] for name, tensor in gan.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"encoder"}
    for (ours, live), (theirs, average) in zip(
        gan.generator.state_dict().items(), gan.generator_ema.state_dict().items(), strict=True
    ):
        assert ours == theirs and torch.equal(live, average)


def test_without_an_average_the_encoder_learns_the_generator_itself() -> None:
    gan = build()
    with torch.no_grad():
        gan.generator.train()(torch.randn(4, 8), torch.arange(4))  # a batch, of which no average was told
        gan.generator.layers.project.weight.add_(1)
    trained = {name: tensor.clone() for name, tensor in gan.generator.state_dict().items()}
    gan.settle()
    for network in (gan.generator, gan.generator_ema):
        assert all(torch.equal(tensor, trained[name]) for name, tensor in network.state_dict().items())


def test_what_the_encoder_says_comes_nearer(tmp_path: Path) -> None:
    """On pairs that it did not see, against the distance of a guess of 0, which the norm of latents is."""
    gan = build(lr=5e-3, encoder_share=0.9, encoder_pairs=1000)
    with torch.no_grad():
        for parameter in gan.generator.parameters():
            parameter.mul_(3)  # so that images differ
    train(gan, tmp_path, batches=150)
    z, labels = gan.seeded_latents(range(200)), torch.arange(200) % 10
    with torch.no_grad():
        found = gan.encode(gan.generate(z, labels=labels))
    assert latent_distance(found, z) < 0.8 * z.norm(dim=1).mean()


def test_pairs_are_seen_once_in_each_epoch_and_of_all_groups() -> None:
    gan = build()
    gan.images_seen = 3 * 100 - 40  # the end of an epoch of 100 pairs
    numbers = gan.pair_numbers(140)
    assert sorted(numbers[40:].tolist()) == list(range(100)) and numbers[40:].tolist() != list(range(100))
    assert len(set(numbers[:40].tolist())) == 40
    z, y = gan.pairs(numbers[40:])
    assert y.bincount().tolist() == [10] * 10
    assert torch.equal(gan.pairs(numbers[50:53])[0], z[10:13]), "a pair is of its number alone"
    assert not torch.equal(build(seed=4).pairs(numbers[50:53])[0], z[10:13])
    assert abs(z.mean().item()) < 0.1 and z.std().item() == pytest.approx(1, abs=0.1)


def test_a_run_stopped_in_the_encoders_part_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = build()
    unbroken = state(whole, train(whole, tmp_path / "whole", batches=10))
    for stop in (5, 8):  # where the parts meet, and within the second
        folder = tmp_path / str(stop)
        train(build(), folder, batches=10, stop_at=stop)
        resumed = build()
        trainer = train(resumed, folder, batches=10, resume=checkpoints(folder)[-1])
        assert largest_difference(unbroken, state(resumed, trainer)) == 0.0


def test_half_precision_is_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_ALLOW_SLOW_BF16", "1")
    gan = build()
    train(gan, tmp_path, batches=4, precision="bf16-mixed")
    assert all(bool(p.isfinite().all()) for p in gan.parameters()) and gan.encode(gan.sample([0])).isfinite().all()


def test_micro_batches_take_the_same_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    own = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, images: seen.append(images) or own(self, images))
    gan = build(micro_batches=4)
    train(gan, tmp_path, batches=2)
    assert [len(images) for images in seen] == [BATCH // 4] * 4


@pytest.mark.slow
def test_two_processes_train_the_encoder_as_one(tmp_path: Path) -> None:
    gan = build()
    alone = state(gan, train(gan, tmp_path / "alone", batches=6, holdout=True))
    run_processes(2, ["-m", "tests.papers.test_age_cgan", str(tmp_path)])
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert largest_difference(first, second) == 0.0
    assert largest_difference(alone["state"], first["state"]) < 1e-5 and alone["clock"] == first["clock"]


def main(folder: Path) -> None:
    """One of the two."""
    import os

    torch.set_num_threads(1)
    gan = build()
    trainer = train(gan, folder / "two", batches=6, holdout=True, strategy="sync_at_step", devices=2)
    torch.save(state(gan, trainer), folder / f"{os.environ['RANK']}.pt")


def test_who_has_no_encoder_says_so(tmp_path: Path) -> None:
    without = build(encoder_share=0.0)
    assert without.encoder is None and not can(without, Encodes)
    with pytest.raises(ValueError, match="encoder_share 0, which is no encoder"):
        without.encode(torch.zeros(1, 1, 16, 16))
    gan = build()
    assert not can(gan, Encodes), "it has not learned yet"
    train(gan, tmp_path, batches=4)
    loaded = load_run(tmp_path)
    assert can(gan, Encodes) and can(loaded, Encodes)
    images = gan.sample(range(2))
    assert torch.equal(loaded.encode(images), gan.encode(images))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_classes": 1}, "num_classes 1: ageing needs 2 groups"),
        ({"encoder_share": 1.0}, r"encoder_share 1.0 is not in \[0, 1\)"),
        ({"encoder_pairs": 0}, "encoder_pairs 0 is below 1; the paper has 100000"),
        ({"resolution": 48}, "resolution 48 is not a power of two"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AgeCGAN(**wrong)


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]))
