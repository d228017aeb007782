"""Weights that a new training begins with: of a run, a checkpoint, a saved folder, the hub, or an official pickle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.adversarial import Game
from lit_gans.augment.image_pool import pool_buffers
from lit_gans.base.checkpoints import open_checkpoint
from lit_gans.base.files import user_path
from lit_gans.official import fingerprint
from lit_gans.runs.classes import trusted_class
from lit_gans.runs.conversion import networks_of
from lit_gans.runs.folder import is_pretrained
from lit_gans.runs.pretrained import REPOSITORY, WEIGHTS, local_folder, read_config, read_tensors

AVERAGED = "G_ema"  # among official networks; the one that is trained is "G"
SHOWN = 4


@dataclass(frozen=True)
class Initial:
    """What a source holds: `state` by the names of a whole training of `class_path`, or `networks` by official names.

    `arguments` of the training class, as far as they are known; `told` is the source in words.
    """

    source: str
    told: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    class_path: str = ""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    networks: Mapping[str, nn.Module] = field(default_factory=dict)


def read_initial(source: str) -> Initial:
    """What there is at `source`; nothing in it is run.

    Raises:
        FileNotFoundError, ValueError: nothing is there, or something else than a run folder, a .ckpt, a folder of
            save_pretrained, a repository "owner/name" of the hub, or an official .pkl.
    """
    path = user_path(source)
    if path.suffix == ".pkl":
        return _of_networks(path, source)
    if not path.exists() and not path.parent.exists() and REPOSITORY.fullmatch(source):
        return _of_folder(local_folder(source), source)
    if is_pretrained(path):
        return _of_folder(path, source)
    if not path.exists() or path.suffix in (".pth", ".pt", ".safetensors"):
        raise FileNotFoundError(
            f"init_from {source} is no run folder, .ckpt, folder of save_pretrained, official .pkl, or owner/name of "
            "the hub; other official weights are made a folder by lit-gans convert"
        )
    path, checkpoint = open_checkpoint(path)
    ours, arguments = checkpoint["lit_gans"], checkpoint.get("hyper_parameters", {})
    known = {name: value for name, value in arguments.items() if not name.startswith("_")}
    told = f"{path}, {_named(ours['class_path'])} at {ours['images_seen'] / 1000:g} kimg"
    return Initial(source, told, known, ours["class_path"], checkpoint["state_dict"])


def _of_folder(folder: Path, source: str) -> Initial:
    config = read_config(folder)
    if not _is_training(config["class_path"]):
        return _of_networks(folder, source)
    told = f"{source}, {_named(config['class_path'])} at {config['images_seen'] / 1000:g} kimg"
    return Initial(source, told, config["arguments"], config["class_path"], read_tensors(folder / WEIGHTS))


def _of_networks(path: Path, source: str) -> Initial:
    found = networks_of(path)
    known = [one.release.trains(one.arguments) for one in found.values() if one.release.trains is not None]
    networks = {name: one.model for name, one in found.items()}
    return Initial(source, f"{path}, networks {', '.join(found)}", known[0] if known else {}, networks=networks)


def _is_training(class_path: str) -> bool:
    """Whether the class is a whole training's, as a stranger's is, which is not imported to find out."""
    try:
        return issubclass(trusted_class(class_path, nn.Module), Game)
    except ValueError:
        return True


def _named(class_path: str) -> str:
    return f"a {class_path.rpartition('.')[2]}"


# ---- what fits -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Tensors of a source by a game's names; of the game's other tensors why each stays as it is."""

    taken: Mapping[str, Tensor]
    left: Mapping[str, str]

    def __str__(self) -> str:
        all_of, some = (Counter(_part(name) for name in names) for names in ([*self.taken, *self.left], self.taken))
        lines = [", ".join(f"{part} {some[part]} of {count}" for part, count in all_of.items()) + " tensors"]
        lines += [f"as at any start: {name}, {why}" for name, why in list(self.left.items())[:SHOWN]]
        more = len(self.left) - SHOWN
        return "\n  ".join([*lines, *([f"and {more} more, all in run.json"] if more > 0 else [])])


def fit_of(initial: Initial, game: Game) -> Fit:
    """What the game takes: weights and statistics of its networks, and its augmentation's strength, by name and shape.

    An average that the source lacks begins as the network that it averages, and the other way round. What belongs to
    the game as a whole, such as a mean of path lengths, and pools of old images begin anew.

    Raises:
        ValueError: the source is of another class that has no network like one of the game's, which would be taken
            whole, such as StyleGAN2's generator by a Projected GAN; or no weight fits of what makes images.
    """
    ours, own, pools = f"{type(game).__module__}.{type(game).__qualname__}", game.state_dict(), pool_buffers(game)
    same = initial.class_path in ("", ours)
    state = initial.state if same else _whole_networks(initial.state, own)
    if not same and not state:
        raise ValueError(
            f"init_from {initial.source} holds a {initial.class_path}, and the config trains a {ours}, which has no "
            "network like one of its: take a config of that class, or weights of this one"
        )
    theirs = _with_averages({**state, **_by_names_of(game, initial.networks)}, game)
    taken, left = dict[str, Tensor](), dict[str, str]()
    for name in (name for name in own if "." in name and name not in pools):
        if name in theirs and theirs[name].shape == own[name].shape:
            taken[name] = theirs[name]
        else:
            there = f"{tuple(theirs[name].shape)} there" if name in theirs else "not there"
            left[name] = f"{there}, {tuple(own[name].shape)} here"
    judged = {id(p) for network in game.discriminators() for p in network.parameters()}
    if not any(name in taken for name, p in game.named_parameters() if id(p) not in judged):
        first = next(iter(left.items()), ("no", "networks"))
        raise ValueError(
            f"no weight of init_from {initial.source} fits this {type(game).__name__} ({first[0]}: {first[1]}): give "
            f"it resolution and widths of the source, {dict(initial.arguments) or 'an official network'}"
        )
    return Fit(taken, left)


def _whole_networks(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of another class's tensors those of networks that are the game's own too, in all names and shapes."""
    theirs, ours = _shapes_by_part(state), _shapes_by_part(own)
    whole = {part for part, shapes in ours.items() if shapes == theirs.get(part)}
    return {name: tensor for name, tensor in state.items() if "." in name and _part(name) in whole}


def _shapes_by_part(state: Mapping[str, Tensor]) -> dict[str, dict[str, torch.Size]]:
    found: dict[str, dict[str, torch.Size]] = {}
    for name, tensor in state.items():
        if "." in name:
            found.setdefault(_part(name), {})[name] = tensor.shape
    return found


def _by_names_of(game: Game, networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Tensors of networks for the game's own of the same class: the averaged one for the average, if there are two."""
    averages, found = [average for average, _ in game.averages()], dict[str, Tensor]()
    for part, child in game.named_children():
        same = [name for name, network in networks.items() if type(network) is type(child)]
        is_average = any(child is average for average in averages)
        for name in sorted(same, key=lambda name: (name == AVERAGED) is not is_average)[:1]:
            found |= {f"{part}.{key}": tensor for key, tensor in networks[name].state_dict().items()}
    return found


def _with_averages(state: Mapping[str, Tensor], game: Game) -> dict[str, Tensor]:
    names, found = {id(module): f"{name}." for name, module in game.named_modules()}, dict(state)
    for average, live in game.averages():
        pair = names[id(average)], names[id(live)]
        for one, other in (pair, pair[::-1]):
            if not _starting(state, one):
                found |= {one + name.removeprefix(other): state[name] for name in _starting(state, other)}
    return found


def _starting(names: Iterable[str], prefix: str) -> list[str]:
    return [name for name in names if name.startswith(prefix)]


def _part(name: str) -> str:
    return name.partition(".")[0]


@torch.no_grad()
def take(fit: Fit, game: Game) -> None:
    """Writes what fits into the game's tensors, where they are."""
    own = game.state_dict()
    for name, tensor in fit.taken.items():
        own[name].copy_(tensor)


def stamp(initial: Initial, fit: Fit) -> dict[str, Any]:
    """For run.json: what a run began with, and what of its own it kept."""
    told = {"source": initial.told, "fingerprint": fingerprint(fit.taken), "as_at_any_start": dict(fit.left)}
    return {"init_from": told}
