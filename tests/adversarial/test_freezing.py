"""Freeze-D: the layers next to the image stay, whatever comes after them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial.freezing import freeze, layers_from_image
from lit_gans.nn.mode import evaluating
from lit_gans.papers.attngan import Discriminators as AttnDiscriminators
from lit_gans.papers.pix2pixhd import MultiscaleDiscriminator
from lit_gans.papers.stylegan2 import Discriminator
from tests.cases import BATCH, CASES, each, train

ONE_BY_ONE = ("dcgan", "stylegan2", "pggan", "projected-gan")


def outputs(layers: list[nn.Module], run: object) -> dict[int, Tensor]:
    """What each layer gave when it was first called, by its number; those that were not called are missing."""
    found: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, i=i: found.setdefault(i, out.detach().clone()))
        for i, layer in enumerate(layers)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


def check_order(layers: list[nn.Module], run: object) -> None:
    """No layer depends on one that comes after it: the first of them are those next to the image."""
    before = outputs(layers, run)
    assert before and min(before) == 0
    for number, layer in reversed(list(enumerate(layers))):  # from the last on, each is changed for good
        with torch.no_grad():
            for parameter in layer.parameters(recurse=False):
                parameter.add_(0.5)
        after = outputs(layers[:number], run)
        assert all(torch.equal(after[i], before[i]) for i in after), f"layer {number} comes before one of the first"


@pytest.mark.parametrize("name", CASES)
def test_layers_are_in_the_order_of_the_image(name: str) -> None:
    gan = CASES[name]()
    images = gan.sample(range(4))
    labels = (torch.arange(4) % gan.num_classes,) if gan.num_classes else ()
    for discriminator in gan.discriminators():
        with evaluating(gan.discriminator), torch.no_grad():
            check_order(layers_from_image(discriminator), lambda: gan.discriminator(images, *labels))


def test_and_of_those_that_judge_at_several_scales() -> None:
    images = torch.rand(2, 3, 64, 64)
    network = MultiscaleDiscriminator(channels=3, width=4, layers=2, scales=2)
    for scale in network.scales:
        check_order(layers_from_image(scale), lambda: network(images))
    of_texts = AttnDiscriminators(resolution=128, stages=2, width=4, embed_dim=4, joint=True)
    for one in of_texts.at.values():
        at = next(side for side, found in of_texts.at.items() if found is one)
        shown = torch.rand(2, 3, int(at), int(at))
        check_order(layers_from_image(one.encode), lambda one=one, shown=shown: one(shown))


def test_stylegan2_is_counted_as_in_adas_code() -> None:
    """`freezed` of its discriminator counts from_rgb, conv0, conv1 and skip of each block, from the image on."""
    network = Discriminator(resolution=16, channel_base=64, channel_max=8)
    freeze([network], 5)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    first = {"from_rgb.weight", "from_rgb.bias", "conv0.weight", "conv0.bias", "conv1.weight", "conv1.bias"}
    whole = {f"blocks.16.{name}" for name in (*first, "skip.weight")}
    assert frozen == whole | {"blocks.8.conv0.weight", "blocks.8.conv0.bias"}


@pytest.mark.parametrize("name", each(CASES, slow=[name for name in CASES if name not in ONE_BY_ONE]))
def test_frozen_layers_stay_and_all_others_learn(name: str, tmp_path: Path) -> None:
    options = {"clip": 10.0} if name == "wgan" else {}  # which clips all weights, those that are frozen too
    gan = CASES[name](freeze_discriminator_layers=1, **options)
    trained = {id(p) for network in gan.discriminators() for p in network.parameters()}
    found = map(layers_from_image, gan.discriminators())
    nearest = [layers[0] for layers in found if len(layers) > 1]
    frozen = {id(p) for layer in nearest for p in layer.parameters(recurse=False)}
    before = {name: p.detach().clone() for name, p in gan.named_parameters() if id(p) in trained}
    train(gan, tmp_path, batches=2)
    now = dict(gan.named_parameters())
    moved = {name for name, p in before.items() if not torch.equal(now[name], p)}
    assert moved and not any(id(now[name]) in frozen for name in moved)
    assert gan.images_seen == 2 * BATCH
    alone = CASES[name](**options)
    train(alone, tmp_path / "whole", batches=2)
    moved_alone = {name for name, p in before.items() if not torch.equal(dict(alone.named_parameters())[name], p)}
    assert moved == {name for name in moved_alone if id(now[name]) not in frozen} != moved_alone


@pytest.mark.parametrize(
    "layers, message", [(-1, "-1 is below 0"), (99, "a discriminator has 4 layers"), (4, "give less than 4")]
)
def test_what_cannot_be_frozen(layers: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train(CASES["dcgan"](freeze_discriminator_layers=layers), tmp_path, batches=1)


def test_a_game_without_a_discriminator() -> None:
    with pytest.raises(ValueError, match="there is no discriminator"):
        freeze([], 2)
