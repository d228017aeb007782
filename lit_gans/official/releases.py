"""What a paper says of an official network: how its files are recognised, and what of them is ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lit_gans.official.names import Table, apply_keys
from lit_gans.official.pickles import OfficialNetwork
from lit_gans.official.writer import Sourced

if TYPE_CHECKING:
    from torch import nn

State = Mapping[str, Tensor]
Config = dict[str, Any]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Release:
    """One network of an official repository, and ours for it. A paper lists its own as `OFFICIAL`.

    Args:
        network: our class; keys: official names -> ours, see `official.names`.
        arguments: official constructor arguments -> those of `network`. ValueError for one that is not known.
        config: the official arguments of a state dict, from its names and shapes. None for a network in pickles of
            NVIDIA's kind, which say them: those are recognised by `class_name` and by the table.
        begins: names of tensors, one of which a state dict of this network has, and the sizes after its first two
            dimensions, such as (3, 3) of a convolution's kernel.
        fits: whether the tensors are of this network, where others have its names too.
        name: what a network without a name is called: "G", "D", ...
        in_one_file: names of networks in a file of several, and what they are called here.
        call: keywords of recorded calls -> ours; None for one without effect.
        model: the training class whose `from_generator` takes this network, where it makes images by itself.
        parts: names in a training's folder, and what the network so named is to `from_generator`; first comes first.
        told: checks what was said of the network's input, by keyword, where its weights do not tell it.
        says: the official constructor arguments of a pickle's network, where the file does not list them.
        sourced: an official network as one whose source is ours, for pickles that the official code shall open.
        snapshot: the networks of a training of `model`, with their source, as the official training saves them.
        trains: our network's arguments -> those of `model` whose training has such a network, as far as they tell.
    """

    repository: str
    class_name: str
    network: type[nn.Module]
    keys: Table
    arguments: Callable[[Config], Config]
    config: Callable[[State], Config] | None = None
    begins: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fits: Callable[[State], bool] = bool
    name: str = "G"
    in_one_file: Mapping[str, str] = field(default_factory=dict)
    call: Mapping[str, str | None] = field(default_factory=dict)
    model: Any = None
    parts: Mapping[str, str] = field(default_factory=lambda: {"G_ema": "generator", "G": "generator"})
    told: Callable[..., object] | None = None
    says: Callable[[OfficialNetwork], Config] = attrgetter("init_kwargs")
    sourced: Callable[[OfficialNetwork], Sourced] | None = None
    snapshot: Callable[[Any], dict[str, Sourced]] | None = None
    trains: Callable[[Config], Config] | None = None

    def has(self, state: State) -> bool:
        """Whether the tensors are of this network's state dict."""
        sizes = self.begins.items()
        return any(name in state and state[name].shape[2:] == rest for name, rest in sizes) and self.fits(state)

    def read(self, state: State) -> OfficialNetwork:
        """The network of a state dict that is recognised. ValueError where it lacks tensors."""
        assert self.config is not None
        try:
            config = self.config(state)
        except LookupError as error:
            raise ValueError(f"it begins like a {self.class_name}, and lacks tensors of one ({error})") from error
        buffers = frozenset(name for name in state if name.endswith(STATISTICS))
        return OfficialNetwork(self.class_name, (), config, dict(state), buffers, {}, "")

    def table(self, names: Collection[str]) -> Table:
        """Official names -> ours, of a network with these names.

        Statistics that instance norms kept in old files are dropped: nobody reads them, and these norms have no weight.
        """
        kept = (name for name in names if name.endswith(STATISTICS))
        stale = [name for name in kept if f"{name.rpartition('.')[0]}.weight" not in names]
        return {**{re.escape(name): None for name in stale}, **self.keys}

    def build(self, network: OfficialNetwork, name: str = "") -> tuple[nn.Module, Config]:
        """Our network with the official weights, for evaluation, and the arguments that it was built with.

        `name` is what messages call it. ValueError for weights that do not fit.
        """
        if network.init_args:
            raise ValueError(f"{name} was built from arguments without names, {network.init_args!r:.80}")
        try:
            given = self.arguments(self.says(network))
        except LookupError as error:
            raise ValueError(
                f"{name} is named like a {self.class_name}, and lacks what tells its size ({error})"
            ) from error
        model = self.network(**given)
        try:
            state = apply_keys(network.state, self.table(network.state), ours=model.state_dict())
        except ValueError as error:
            raise ValueError(f"{name or 'a network'}, a {self.class_name}: {error}") from error
        model.load_state_dict(state)
        return model.eval().requires_grad_(False), given


def renaming(names: Mapping[str, str | None]) -> Callable[[Config], Config]:
    """For `Release.arguments`: official arguments -> ours; None says nothing that ours would not find by itself."""

    def arguments(config: Config) -> Config:
        if unknown := sorted(config.keys() - names.keys()):
            raise ValueError(f"{unknown[0]!r} is no argument of the official network, which has {', '.join(names)}")
        return {own: config[name] for name, own in names.items() if own is not None and name in config}

    return arguments


def numbered(state: State, pattern: str) -> dict[int, Tensor]:
    """The tensors whose whole names fit the pattern, by the number that is its group."""
    found = ((re.fullmatch(pattern, name), tensor) for name, tensor in state.items())
    return dict(sorted((int(match[1]), tensor) for match, tensor in found if match))


# ---- which release a network is of -----------------------------------------------------------------------------------


def of_state(state: State, releases: Iterable[Release]) -> Release:
    """The release that a state dict is of. ValueError where there is none, or more than one."""
    known = [release for release in releases if release.begins]
    found = [release for release in known if release.has(state)]
    if not found:
        first, repositories = ", ".join(list(state)[:3]) or "none", dict.fromkeys(r.repository for r in known)
        raise ValueError(
            f"its names ({first}, ...) are of no network of {', '.join(repositories)}, each of which has one of "
            f"{', '.join(dict.fromkeys(name for release in known for name in release.begins))}"
        )
    return _only(found, "its names")


def of_pickle(network: OfficialNetwork, name: str, releases: Iterable[Release]) -> Release | None:
    """The release that a pickle's network is of; None for a class of none, unless it is a player's by name.

    ValueError where the class is known and its names are not, or more than one release has them all.
    """
    known = [release for release in releases if release.config is None]
    named = [release for release in known if release.class_name == network.class_name]
    if not named and name in ("G", "D", "G_ema"):
        classes = ", ".join(dict.fromkeys(release.class_name for release in known))
        raise ValueError(f"{name} is a {network.class_name}, of which there is none here: {classes}")
    if not named:
        return None
    found, reasons = [], []
    for release in named:
        try:
            apply_keys(network.state, release.table(network.state))
            if release.fits(network.state):
                found.append(release)
            else:
                reasons.append(f"{release.repository}: its tensors are another network's")
        except ValueError as error:
            reasons.append(f"{release.repository}: {error}")
    if not found:
        raise ValueError(f"{name} is a {network.class_name} of no paper here: {'; '.join(reasons)}")
    return _only(found, f"{name}'s names")


def _only(found: list[Release], whose: str) -> Release:
    if len(found) > 1:
        told = " and ".join(f"the {release.class_name} of {release.repository}" for release in found)
        raise ValueError(f"{whose} fit {told} alike: `fits` or the tables of these releases must part them")
    return found[0]


def of_ours(model: nn.Module, class_name: str, releases: Iterable[Release]) -> Release:
    """The release of this official class that our network came from. ValueError where there is none."""
    for release in releases:
        if release.network is type(model) and release.class_name == class_name:
            return release
    raise ValueError(f"a {type(model).__name__} goes back to no official {class_name}")
