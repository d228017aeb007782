"""What holds for every paper, at tiny size."""

import re
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from lit_gans import papers
from lit_gans.adversarial import GAN
from lit_gans.base.checkpoints import checkpoints
from lit_gans.nn.mode import evaluating
from lit_gans.runs.load import load_run
from tests.cases import BATCH, CASES, largest_difference, state, train


def batch_for(gan: GAN) -> dict[str, torch.Tensor]:
    images = torch.rand(BATCH, gan.channels, gan.resolution, gan.resolution) * 2 - 1
    labels = {"label": torch.arange(BATCH) % gan.num_classes} if gan.num_classes else {}
    return {"image": images, **labels}


def working(network: torch.nn.Module) -> list[torch.nn.Parameter]:
    """All parameters, but in networks that grow, here to their full size, the colours of the earlier stages."""
    colours = {id(p) for name, p in network.named_parameters() if re.search(r"(to_rgb|from_rgb)\.\d+\.", name)}
    for name, layers in network.named_modules():
        if name.endswith(("to_rgb", "from_rgb")) and isinstance(layers, torch.nn.ModuleList):
            present = layers[-1 if name.endswith("to_rgb") else 0]
            colours -= {id(p) for p in present.parameters()}
    return [p for p in network.parameters() if id(p) not in colours]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_shapes_and_ranges(name: str, channels: int) -> None:
    gan = CASES[name](channels=channels)
    images = gan.sample(range(5))
    assert images.shape == (5, channels, gan.resolution, gan.resolution)
    assert torch.isfinite(images).all() and images.abs().max() <= 1
    labels = (torch.arange(5) % gan.num_classes,) if gan.num_classes else ()
    with evaluating(gan.discriminator):
        logits = gan.discriminator(images, *labels)
    # Of each image one logit, or those of several places; for each feature network, where there are several.
    assert {len(each) for each in (logits if isinstance(logits, list) else [logits])} == {5}


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_gets_a_gradient_and_each_update_changes_one_player(name: str, tmp_path: Path) -> None:
    gan = CASES[name]()
    seen: list[tuple[str, dict[str, list[torch.Tensor]]]] = []  # who steps, and both players before it

    def players(gan: GAN) -> dict[str, list[torch.Tensor]]:
        both = {"generator": gan.generator, "discriminator": gan.discriminator}
        return {player: [p.detach().clone() for p in network.parameters()] for player, network in both.items()}

    class Spy(type(gan)):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            stepping = {id(p) for g in optimizer.param_groups for p in g["params"]}
            player = "generator" if id(next(self.generator.parameters())) in stepping else "discriminator"
            assert all(p.grad is not None for p in working(getattr(self, player)))
            seen.append((player, players(self)))

    gan.__class__ = Spy
    before = players(gan)
    train(gan, tmp_path, batches=1)
    assert {player for player, _ in seen} == {"generator", "discriminator"}
    assert largest_difference(before, seen[0][1]) == 0.0
    for (player, state_before), (_, state_after) in zip(seen, [*seen[1:], ("", players(gan))], strict=True):
        other = {"generator": "discriminator", "discriminator": "generator"}[player]
        assert largest_difference(state_before[other], state_after[other]) == 0.0, "a step changed the other player"
        assert largest_difference(state_before[player], state_after[player]) > 0.0


@pytest.mark.parametrize("name", CASES)
def test_training_is_deterministic_and_leaves_torchs_generator_alone(name: str, tmp_path: Path) -> None:
    first, second = CASES[name](), CASES[name]()
    one = state(first, train(first, tmp_path / "a", batches=3))
    torch.manual_seed(99)
    ambient = torch.get_rng_state()
    two = state(second, train(second, tmp_path / "b", batches=3))
    assert torch.equal(torch.get_rng_state(), ambient), "training drew from the ambient generator"
    assert largest_difference(one, two) == 0.0


@pytest.mark.parametrize("name", CASES)
def test_saved_run_is_loaded_and_samples_the_same(name: str, tmp_path: Path) -> None:
    gan = CASES[name]()
    train(gan, tmp_path, batches=6)
    assert checkpoints(tmp_path)[-1].name == "kimg00000.096.ckpt"
    loaded = load_run(tmp_path)
    assert type(loaded) is type(gan) and loaded.images_seen == 96
    for ema in (True, False):
        assert torch.equal(loaded.sample(range(6), ema=ema), gan.sample(range(6), ema=ema))
    assert not torch.equal(gan.sample(range(6)), gan.sample(range(6), ema=False))


@pytest.mark.parametrize("name", CASES)
def test_a_sample_depends_on_its_seed_alone(name: str) -> None:
    gan = CASES[name]()
    labels = torch.tensor([1, 1, 1]) if gan.num_classes else None
    together = gan.sample([4, 5, 6], labels=labels)
    alone = gan.sample([5], labels=None if labels is None else labels[:1])
    assert torch.allclose(together[1], alone[0], atol=1e-5)  # instance norms enlarge rounding
    assert not torch.allclose(together[0], together[1], atol=1e-4)


def test_micro_batches_add_up_to_the_whole_batch(tmp_path: Path) -> None:
    """Without batch norm the parts give the whole batch's gradient, dropout and flips included."""
    whole, parts = CASES["cgan-mlp"](), CASES["cgan-mlp"](micro_batches=4)
    one = state(whole, train(whole, tmp_path / "a", batches=5))
    two = state(parts, train(parts, tmp_path / "b", batches=5))
    assert largest_difference(one["state"], two["state"]) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_every_paper_takes_micro_batches(name: str, tmp_path: Path) -> None:
    gan = CASES[name](micro_batches=4)
    before = [p.detach().clone() for p in gan.parameters()]
    train(gan, tmp_path, batches=2)
    after = [p.detach() for p in gan.parameters()]
    assert all(torch.isfinite(p).all() for p in after) and largest_difference(before, after) > 0
    assert (gan._part, gan._parts, gan.images_seen) == (0, 1, 2 * BATCH)


class Hooked(pl.Callback):
    """A callback of somebody else's that wants to see every backward and step."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_after_backward(self, *args: object) -> None:
        self.seen.append("backward")

    def on_before_optimizer_step(self, *args: object) -> None:
        self.seen.append("step")


@pytest.mark.parametrize("name", ["gan", "dcgan-r1"])
def test_hooks_of_other_callbacks_are_called_and_change_nothing(name: str, tmp_path: Path) -> None:
    hooked, plain, watching = CASES[name](), CASES[name](), Hooked()
    one = train(hooked, tmp_path / "a", batches=2, callbacks=[watching])
    two = train(plain, tmp_path / "b", batches=2)
    assert watching.seen == ["backward", "step"] * 4
    assert one.global_step == two.global_step == 4
    assert largest_difference(state(hooked, one), state(plain, two)) == 0.0


def test_conditional_samples_differ_by_class(tmp_path: Path) -> None:
    gan = CASES["cgan-conv"]()
    train(gan, tmp_path, batches=2)
    images = gan.sample([1] * 10, labels=torch.arange(10))
    assert len({tuple(i.flatten().tolist()) for i in images}) == 10


def test_label_flip_swaps_pairs() -> None:
    gan = CASES["cgan-conv"](label_flip=0.49)
    flips = gan.draws("flip").uniform(10_000) < gan.label_flip
    assert flips.float().mean().item() == pytest.approx(0.49, abs=0.02)


def test_wgan_clips_its_critic(tmp_path: Path) -> None:
    gan = CASES["wgan"](clip=0.003)
    train(gan, tmp_path, batches=2)
    assert max(p.abs().max() for p in gan.discriminator.parameters()) <= 0.003


def test_published_shapes() -> None:
    """DCGAN's Figure 1 at 64 px, and the convolutional CGAN's 4x4x1025 map."""
    assert papers.dcgan.widths(64, width=128) == [1024, 512, 256, 128]
    gan = papers.CGAN()
    assert gan.generator.from_z.out_features == 4 * 4 * 1024
    assert gan.generator.layers[0].in_channels == 1025
    assert [m.out_channels for m in gan.generator.layers if isinstance(m, torch.nn.ConvTranspose2d)] == [
        512,
        256,
        128,
        3,
    ]
    assert gan.sample([0]).shape == (1, 3, 64, 64)


def test_initial_weights_follow_the_papers() -> None:
    dcgan = papers.DCGAN(resolution=32)
    assert dcgan.generator.layers[1].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert dcgan.generator.norm.weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert papers.VanillaGAN().generator.layers[0].weight.abs().max().item() == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize("kernel_size", [4, 5])
@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256])
def test_dcgan_at_every_resolution(resolution: int, kernel_size: int) -> None:
    gan = papers.DCGAN(resolution=resolution, width=4, kernel_size=kernel_size)
    images = gan.sample([0, 1])
    assert images.shape == (2, 3, resolution, resolution)
    assert gan.discriminator(images).shape == (2,)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: papers.DCGAN(resolution=48), "resolution 48 is not a power of two.*use 16, 32, 64, 128 or 256"),
        (lambda: papers.WGANGP(resolution=20), "resolution 20 is not a power of two.*networks='mlp'"),
        (lambda: papers.CGAN(num_classes=0), "num_classes 0.*use DCGAN"),
        (lambda: papers.CGAN(label_flip=0.5), "label_flip 0.5"),
        (lambda: papers.DCGAN(num_classes=10), "DCGAN is unconditional.*CGAN"),
        (lambda: papers.DCGAN(channels=2), "channels 2 is neither 1"),
        (lambda: papers.DCGAN(total_kimg=0), "total_kimg 0 is not positive"),
        (lambda: papers.DCGAN(micro_batches=0), "micro_batches 0 is below 1"),
        (lambda: papers.DCGAN(loss="nowhere.f"), "loss 'nowhere.f' cannot be imported"),
    ],
)
def test_bad_arguments_are_refused_at_construction(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_unknown_arguments_fail() -> None:
    with pytest.raises(TypeError, match="widht"):
        papers.DCGAN(widht=3)
