"""Models that make pictures of pictures, from runs, checkpoints and converted folders."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lit_gans.adversarial.capabilities import Input, Translates

if TYPE_CHECKING:
    from lit_gans.nn import Draws
    from lit_gans.papers.pix2pixhd import Pix2PixHD

WAYS = {"ab": "G_A", "ba": "G_B"}  # the official names of CycleGAN's generators


def load_translator(
    run: str | os.PathLike, *, direction: str = "ab", trust: str | None = None
) -> tuple[Translates, Input]:
    """The model of a run folder, .ckpt file or converted folder, and what it takes in this direction.

    ValueError where it translates nothing, or not in this direction.
    """
    from lit_gans.runs.load import load_run
    from lit_gans.runs.pretrained import CONFIG, from_pretrained

    path = Path(run)
    converted = (path / CONFIG).is_file()
    model = from_pretrained(path) if converted else load_run(path, trust=trust)
    if not isinstance(model, Translates):
        if not converted:
            raise ValueError(f"{path} holds a {type(model).__name__}, which translates nothing: see lit-gans sample")
        model = _of_networks(path, model)
    if direction not in model.directions:
        raise ValueError(f"direction {direction!r}: {path} translates only {' and '.join(model.directions)}")
    arguments = model.arguments[direction] if isinstance(model, Networks) else model.hparams
    return model, _input(arguments, direction)


def _input(arguments: Mapping[str, Any], direction: str) -> Input:
    """From a constructor's arguments, among which papers have the channels of their inputs."""
    if arguments.get("num_labels"):
        return Input(1, labels=True)
    names = ("in_channels", "channels_a") if direction == "ab" else ("in_channels", "channels_b")
    return Input(next((arguments[name] for name in names if name in arguments), 3))


# ---- converted networks ----------------------------------------------------------------------------------------------


class Networks:
    """Generators alone as a translator, by direction, with the arguments that each was built with.

    They run as at the end of their training (see `lit_gans.papers.pix2pix.as_in_training`).
    """

    def __init__(self, generators: Mapping[str, tuple[nn.Module, dict[str, Any]]]) -> None:
        self.generators = {direction: network for direction, (network, _) in generators.items()}
        self.arguments = {direction: arguments for direction, (_, arguments) in generators.items()}
        self.directions = tuple(self.generators)

    @property
    def stride(self) -> int:
        return max(network.stride for network in self.generators.values())

    def to(self, device: str) -> Networks:
        for network in self.generators.values():
            network.to(device)
        return self

    def translate(self, images: Tensor, *, direction: str = "ab", draws: Draws | None = None) -> Tensor:
        from lit_gans.nn import drawing
        from lit_gans.papers.pix2pix import SameDraws, as_in_training

        network = self.generators[direction]
        draws = SameDraws(0, "translate", device=images.device) if draws is None else draws
        with as_in_training(network), drawing(draws):
            return network(images)


def _of_networks(folder: Path, model: nn.Module) -> Networks | Pix2PixHD:
    """A translator of a folder with one official network, and others in folders below it."""
    from lit_gans.papers.cyclegan import ResNet
    from lit_gans.papers.pix2pix import UNet
    from lit_gans.papers.pix2pixhd import GlobalGenerator, LocalEnhancer
    from lit_gans.runs.pretrained import CONFIG, from_pretrained, read_config

    if type(model) in (GlobalGenerator, LocalEnhancer):
        return _pix2pixhd(folder, model)
    if type(model) not in (UNet, ResNet):
        raise ValueError(f"{folder} holds a {type(model).__name__} alone, which translates no pictures: give a run")
    found = {}
    for direction, name in WAYS.items():
        for place in (folder, folder / name):
            if (place / CONFIG).is_file() and _official_name(place) == name:
                found[direction] = (from_pretrained(place), read_config(place)["arguments"])
    return Networks(found or {"ab": (model, read_config(folder)["arguments"])})


def _official_name(folder: Path) -> str | None:
    from lit_gans.runs.conversion import KEPT

    path = folder / KEPT
    return json.loads(path.read_text()).get("name") if path.is_file() else None


def _pix2pixhd(folder: Path, generator: nn.Module) -> Pix2PixHD:
    """pix2pixHD without its training. Of more than 3 channels all are labels but one, of the instances' edges."""
    from lit_gans.papers.pix2pixhd import Pix2PixHD
    from lit_gans.runs.pretrained import read_config

    if (folder / "E").is_dir():
        raise ValueError(f"{folder} was trained with an encoder, whose features no file of the release has clusters of")
    arguments = dict(read_config(folder)["arguments"])
    channels = arguments.pop("in_channels")
    labels = channels - 1 if channels > 3 else 0
    taken = {"num_labels": labels, "instances": labels > 0, "in_channels": channels}
    small = {"discriminator_width": 1, "discriminator_layers": 1, "scales": 1, "perceptual_weight": 0.0}
    game = Pix2PixHD(**taken, **arguments, **small)
    game.generator = generator
    return game.eval().requires_grad_(False)
