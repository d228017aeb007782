"""Released weights as folders of ours, and back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lit_gans.adversarial import Game
from lit_gans.official import (
    OfficialNetwork,
    Release,
    are_state_dicts,
    dropped_keys,
    fingerprint,
    invert,
    of_ours,
    of_pickle,
    of_state,
    read_official,
    read_state_dicts,
    state_dict_files,
    write_named_states,
    write_official,
    write_state_dict,
)
from lit_gans.official.state_dicts import ENDINGS
from lit_gans.runs.pretrained import CONFIG, from_pretrained, read_config, read_tensors, save_pretrained
from lit_gans.runs.releases import releases

KEPT, KEPT_TENSORS = "official.json", "official.safetensors"
RUNS_THERE = (
    "The networks' source goes along, under lit_gans's own licence, in the format that the official loader runs."
)


class Found(NamedTuple):
    """A network of a release as ours, and the arguments that it was built with."""

    release: Release
    model: nn.Module
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Converted:
    """One network: as it was built, and what it holds. `class_path` is None where it was only kept aside."""

    class_path: str | None
    arguments: dict[str, Any]
    num_parameters: int
    official_fingerprint: str
    fingerprint: str | None
    source_sha256: str = ""


@dataclass(frozen=True)
class Certificate:
    """What was converted: files with their SHA-256, networks by name, and differences of outputs by network."""

    files: dict[str, str]
    networks: dict[str, Converted]
    differences: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{digest}  {path}" for path, digest in self.files.items()]
        for name, network in self.networks.items():
            lines += ["", f"{name}: {network.class_path or 'kept aside, of no class of ours'}"]
            lines += [f"  {network.num_parameters:,} parameters"]
            lines += [f"  {key} = {json.dumps(value)}" for key, value in network.arguments.items()]
            lines += [f"  official tensors  {network.official_fingerprint}"]
            lines += [f"  our tensors       {network.fingerprint}"] if network.fingerprint else []
            lines += [f"  official source   {network.source_sha256}"] if network.source_sha256 else []
            if name in self.differences:
                absolute, relative = self.differences[name]
                lines += [f"  largest difference from the recorded output {absolute:.3g}, {relative:.3g} of its range"]
        return "\n".join([*lines, "", *self.notes])


def to_ours(source: Path, target: Path, epoch: str, golden: str | Path | None, told: Mapping[str, Any]) -> Certificate:
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not (target / KEPT).is_file()):
        raise ValueError(f"{target} is there and holds something else: give a new folder")
    by_name = are_state_dicts(source)
    file = read_state_dicts(source, releases(), epoch=epoch) if by_name else read_official(source)
    if wrong := [name for name in file.networks if not re.fullmatch(r"\w+", name)]:
        raise ValueError(f"{source} has a network named {wrong[0]!r}, which cannot be a folder's name")
    found = {name: _found(network, name, by_name) for name, network in file.networks.items()}
    ours = {name: one for name, one in found.items() if one is not None}
    if not ours:
        raise ValueError(f"{source} holds no network of ours, only {', '.join(found)}")
    asking = _asking(source, ours, told)
    differences = {} if golden is None else _differences(Path(golden), file.networks, ours)
    root = min(ours, key=lambda name: _place(name, ours[name].release))
    records = {}
    for name, network in file.networks.items():
        kept = {"name": name, "file": source.name, "file_sha256": file.sha256}
        kept |= {"extra": file.extra if name == root else {}}
        folder = target if name == root else target / name
        records[name] = _save(network, found[name], folder, kept, told if name in asking else {})
    sources = state_dict_files(source, epoch) if by_name else [source]
    notes = [f"{', '.join(file.left_out)}: states of optimisers, which are left out"] if file.left_out else []
    return Certificate(_digests([*sources, *_files(target)]), records, differences, tuple(notes))


def networks_of(source: Path) -> dict[str, Found]:
    """By their official names: the networks of a release's pickle, or of the folder that one was converted to.

    A network alone that was saved here is a "G".

    Raises:
        FileNotFoundError, ValueError: as `read_official`, `from_pretrained`; or it is no network of a paper.
    """
    if source.is_file():
        found = {name: _found(network, name, False) for name, network in read_official(source).networks.items()}
        networks = {name: one for name, one in found.items() if one is not None}
        if not networks:
            raise ValueError(f"{source} holds no network of ours, only {', '.join(found)}")
        return networks
    networks = {}
    for folder in (source, *sorted(path.parent for path in source.glob(f"*/{CONFIG}"))):
        model, known = from_pretrained(folder), releases()
        release = next((each for each in known if each.network is type(model)), None)
        if release is None:
            raise ValueError(f"{folder} holds a {type(model).__name__}, of which no paper here has a network")
        networks[_official_name(folder) or "G"] = Found(release, model, read_config(folder)["arguments"])
    return networks


def _asking(source: Path, ours: Mapping[str, Found], told: Mapping[str, Any]) -> list[str]:
    """Names of the networks whose input weights do not tell. ValueError where `told` does not, or there are none."""
    asking = [name for name, found in ours.items() if found.release.told is not None]
    if told and not asking:
        raise ValueError(f"{source} has no generator of which {', '.join(told)} must be told: leave it out")
    for name in asking:
        try:
            ours[name].release.told(ours[name].model, **told)
        except ValueError as error:
            raise ValueError(f"{source}, {name}: {error}") from error
    return asking


def _found(network: OfficialNetwork, name: str, by_name: bool) -> Found | None:
    """Our network with the official weights; None for a class of a pickle that is neither player's."""
    release = of_state(network.state, releases()) if by_name else of_pickle(network, name, releases())
    return None if release is None else Found(release, *release.build(network, name))


def _place(name: str, release: Release) -> tuple[bool, int]:
    """What a network's folder is to the others': the first of those that make images becomes the folder itself."""
    parts = list(release.parts)
    return release.model is None, parts.index(name) if name in parts else len(parts)


def model_around(folder: Path, network: nn.Module, *, trust: str | None = None) -> Game:
    """The training class's model of a folder's generator alone, and of its fellows in folders below.

    ValueError where nothing makes images with such a network, or of what its folder says of its input.
    """
    name = _official_name(folder) or "G"
    known = [r for r in releases(type(network)) if r.network is type(network) and r.model is not None]
    release = next((r for r in known if name in r.parts), known[0] if known else None)
    if release is None:
        raise ValueError(f"{folder} holds a {type(network).__name__} alone, which makes no images: give a run")
    given = {release.parts.get(name, next(iter(release.parts.values()))): network}
    for below in sorted(path.parent for path in folder.glob(f"*/{CONFIG}")):
        part = release.parts.get(_official_name(below) or "")
        if part is not None and part not in given:
            given[part] = from_pretrained(below, trust=trust)
    try:
        return release.model.from_generator(**given, **read_config(folder).get("input", {}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {error}") from error


def _official_name(folder: Path) -> str | None:
    path = folder / KEPT
    return json.loads(path.read_text(encoding="utf-8")).get("name") if path.is_file() else None


def _save(
    network: OfficialNetwork, found: Found | None, folder: Path, kept: dict[str, Any], told: Mapping[str, Any]
) -> Converted:
    """Writes a network's folder: ours, and beside it what the way back needs; `kept` is what is known of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    class_path, arguments, own, aside = None, network.init_kwargs, None, network.state
    if found is not None:
        model, arguments = found.model, found.arguments
        class_path = f"{type(model).__module__}.{type(model).__qualname__}"
        own, aside = fingerprint(model.state_dict()), dropped_keys(network.state, found.release.table(network.state))
        assert fingerprint(_official_state(model, found.release, list(network.state), aside)) == network.fingerprint
        notes = f"Converted from the official network {kept['name']}, whose licence holds for these weights too."
        save_pretrained(model, folder, arguments=arguments, told=told, notes=notes)
    save_file(aside, folder / KEPT_TENSORS)
    kept |= {"class_name": network.class_name, "init_args": list(network.init_args), "init_kwargs": network.init_kwargs}
    kept |= {"parts": network.parts}
    kept |= {"names": list(network.state), "buffers": sorted(network.buffers), "modules": network.modules}
    kept |= {"source_sha256": network.source_sha256, "converted": found is not None}
    (folder / KEPT).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return Converted(
        class_path, arguments, network.num_parameters, network.fingerprint, own, source_sha256=network.source_sha256
    )


def _official_state(
    model: nn.Module, release: Release, names: Sequence[str], aside: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Our network's weights under the official names, in their order."""
    return invert(model.state_dict(), release.table(names), official=names, dropped=aside)


def to_official(source: Path, target: Path, epoch: str) -> Certificate:
    root, networks, records, known, sources = _kept(source), {}, {}, [], {}
    for folder in (source, *sorted(path.parent for path in source.glob(f"*/{KEPT}"))):
        name, networks[name], records[name], release = _restored(folder)
        known += [] if release is None else [release]
        if release is not None and release.sourced is not None:
            sources[name] = release.sourced(networks[name])
    if all(release.config is not None for release in known):
        return Certificate(_digests([*_files(source), *_write_state_dicts(target, networks, known, epoch)]), records)
    check_pickle(target)
    write_official(target, networks | sources, extra=root["extra"])
    others = [name for name in networks if name not in sources]
    notes = [RUNS_THERE] if sources else []
    notes += [f"{', '.join(others)}: weights and names alone; their source is not ours to write"] if others else []
    return Certificate(_digests([*_files(source), target]), records, notes=tuple(notes))


def export(model: Game, source: Path, target: Path) -> Certificate:
    """A model of our own training as a network pickle, with its networks' source, that the official code opens.

    ValueError where no official repository has such networks, or their source is not ours to write.
    """
    known = [release for release in releases() if release.snapshot and isinstance(model, release.model)]
    if not known:
        able = dict.fromkeys(release.model.__name__ for release in releases() if release.snapshot)
        raise ValueError(
            f"{source} holds a {type(model).__name__}, which does not go to an official pickle: that needs source of "
            f"ours with the official interface, which {', '.join(able)} has"
        )
    check_pickle(target)
    networks = known[0].snapshot(model)
    write_official(target, networks, extra={"training_set_kwargs": None, "augment_pipe": None})
    written = read_official(target).networks
    records = {
        name: Converted(
            f"{known[0].repository}'s {each.class_name}", each.init_kwargs, each.num_parameters, each.fingerprint, None
        )
        for name, each in written.items()
    }
    notes = [RUNS_THERE, *(network.note for network in networks.values() if network.note)]
    return Certificate(_digests([target]), records, notes=tuple(notes))


def check_pickle(target: Path) -> None:
    """ValueError where a pickle would be written under another name."""
    if target.suffix != ".pkl":
        raise ValueError(f"{target} is no .pkl file: name the pickle that shall be written")


def _write_state_dicts(
    target: Path, networks: Mapping[str, OfficialNetwork], known: Sequence[Release], epoch: str
) -> list[Path]:
    """One network as the file `target`, or all in the folder `target` under the names of the official trainings.

    Those that their repository keeps together are in one file.
    """
    states = {name: network.state for name, network in networks.items()}
    if target.suffix in ENDINGS and all(release.in_one_file for release in known):
        return [write_named_states(target, states, known[0].in_one_file)]
    if target.suffix not in ENDINGS:
        wanted = {target / f"{epoch}_net_{name}.pth": state for name, state in states.items()}
    elif len(networks) == 1:
        wanted = {target: next(iter(states.values()))}
    else:
        raise ValueError(f"{', '.join(networks)} do not go into the one file {target}: name a folder for their files")
    return [write_state_dict(path, state) for path, state in wanted.items()]


def _restored(folder: Path) -> tuple[str, OfficialNetwork, Converted, Release | None]:
    """A folder's network under its official names; the release is None for one that was only kept aside."""
    kept, aside = _kept(folder), read_tensors(folder / KEPT_TENSORS)
    class_path, own, state, release = None, None, aside, None
    if kept["converted"]:
        model = from_pretrained(folder)
        class_path = f"{type(model).__module__}.{type(model).__qualname__}"
        own = fingerprint(model.state_dict())
        release = of_ours(model, kept["class_name"], releases())
        state = _official_state(model, release, kept["names"], aside)
    if missing := [name for name in kept["names"] if name not in state]:
        raise ValueError(f"{folder / KEPT_TENSORS} has no {missing[0]!r}")
    network = OfficialNetwork(
        class_name=kept["class_name"],
        init_args=tuple(kept["init_args"]),
        init_kwargs=kept["init_kwargs"],
        state={name: state[name] for name in kept["names"]},
        buffers=frozenset(kept["buffers"]),
        modules=kept["modules"],
        source_sha256="",
        parts=kept.get("parts", {}),
    )
    record = Converted(class_path, kept["init_kwargs"], network.num_parameters, network.fingerprint, own)
    return kept["name"], network, record, release


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / KEPT
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: only a folder that was converted from a release goes back to one, since that file "
            "holds its names and arguments"
        )
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    wanted = {"name": str, "class_name": str, "init_args": list, "init_kwargs": dict, "names": list, "buffers": list}
    wanted |= {"modules": dict, "converted": bool, "extra": dict}
    found = kept if isinstance(kept, dict) else {}
    if wrong := [key for key, kind in wanted.items() if not isinstance(found.get(key), kind)]:
        raise ValueError(f"{path} is damaged: {wrong[0]!r} is missing or of another type")
    return kept


def _differences(
    path: Path, networks: Mapping[str, OfficialNetwork], ours: Mapping[str, Found]
) -> dict[str, tuple[float, float]]:
    """By network: the largest difference from the recorded output, and its share of the largest recorded value."""
    tensors, call = _recorded(path)
    recorded = fingerprint({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("state/")})
    matching = [name for name in ours if networks[name].fingerprint == recorded]
    if not matching:
        raise ValueError(f"{path} was recorded from other weights than any network of the file: leave golden out")
    return {name: _difference(ours[name], tensors, call) for name in matching}


def _recorded(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a .safetensors file of recorded outputs")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return tensors, json.loads((file.metadata() or {}).get("call", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no file of recorded outputs, or is damaged: {error}") from error


def _difference(found: Found, tensors: Mapping[str, Tensor], call: Mapping[str, Any]) -> tuple[float, float]:
    model, known = found.model, found.release.call
    if "in/x" in tensors and "out/eval/y" in tensors:
        return _distance(model(tensors["in/x"]), tensors["out/eval/y"])
    if unknown := sorted(call.get("kwargs", {}).keys() - known.keys()):
        raise ValueError(f"the recorded call has {unknown[0]!r}; known are {', '.join(known) or 'none'}")
    given = {own: value for name, value in call.get("kwargs", {}).items() if (own := known[name]) is not None}
    first, output = ("in/z", "out/img") if "in/z" in tensors else ("in/img", "out/logits")
    if missing := [name for name in (first, output) if name not in tensors]:
        raise ValueError(f"the recorded outputs have no {', '.join(missing)}")
    return _distance(model(tensors[first], tensors.get("in/c"), **given), tensors[output])


def _distance(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """The largest difference, and its share of the largest expected value."""
    found, expected = found.double().reshape(expected.shape), expected.double()
    largest = (found - expected).abs().max().item()
    return largest, largest / max(expected.abs().max().item(), 1e-30)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            digests[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
