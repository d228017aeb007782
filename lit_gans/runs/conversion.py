"""Released weights as folders of ours, and back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lit_gans.official import OfficialNetwork

PAPERS = ("lit_gans.papers.stylegan2",)  # each with OFFICIAL_KEYS and from_official_config
CLASSES = ("Generator", "Discriminator")
ROOTS = ("G_ema", "G", "G_A", "G_B")  # the first that there is becomes the folder itself
KEPT, KEPT_TENSORS = "official.json", "official.safetensors"
_CALL = {"noise_mode": "noise", "truncation_psi": "psi", "truncation_cutoff": "cutoff", "force_fp32": "force_fp32"}
_WITHOUT_EFFECT = ("fused_modconv",)  # another order of the same operations


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


def _to_ours(source: Path, target: Path, epoch: str, golden: str | Path | None) -> Certificate:
    from lit_gans.official import are_state_dicts, build_ours, read_official, read_state_dicts, state_dict_files

    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not (target / KEPT).is_file()):
        raise ValueError(f"{target} is there and holds something else: give a new folder")
    by_name = are_state_dicts(source)
    file = read_state_dicts(source, epoch=epoch) if by_name else read_official(source)
    if wrong := [name for name in file.networks if not re.fullmatch(r"\w+", name)]:
        raise ValueError(f"{source} has a network named {wrong[0]!r}, which cannot be a folder's name")
    found = build_ours if by_name else _counterpart
    models = {name: found(network, name) for name, network in file.networks.items()}
    if not any(models.values()):
        raise ValueError(f"{source} holds no network of ours, only {', '.join(models)}")
    differences = {} if golden is None else _differences(Path(golden), file.networks, models)
    root = next(name for name in (*ROOTS, *models) if models.get(name) is not None)
    records = {}
    for name, network in file.networks.items():
        folder = target if name == root else target / name
        kept = {"name": name, "file": source.name, "file_sha256": file.sha256}
        kept |= {"extra": file.extra if name == root else {}}
        records[name] = _save(network, models[name], folder, kept)
    sources = state_dict_files(source, epoch) if by_name else [source]
    return Certificate(_digests([*sources, *_files(target)]), records, differences)


def _counterpart(network: OfficialNetwork, name: str) -> tuple[nn.Module, dict[str, Any]] | None:
    """Our network with the official weights, and its arguments; None for a class that is neither player's."""
    from lit_gans.official import apply_keys

    if network.class_name not in CLASSES:
        if name in ("G", "D", "G_ema"):
            raise ValueError(f"{name} is a {network.class_name}, of which there is none here: {', '.join(CLASSES)}")
        return None
    reasons = []
    for path in PAPERS:
        paper = import_module(path)
        try:
            apply_keys(network.state, paper.OFFICIAL_KEYS)
        except ValueError as error:
            reasons.append(f"{path.rpartition('.')[2]}: {error}")
            continue
        if network.init_args:
            raise ValueError(f"{name} was built from arguments without names, {network.init_args!r:.80}")
        arguments = paper.from_official_config(network.init_kwargs)
        model = getattr(paper, network.class_name)(**arguments)
        model.load_state_dict(apply_keys(network.state, paper.OFFICIAL_KEYS, ours=model.state_dict()))
        return model.eval().requires_grad_(False), arguments
    raise ValueError(f"{name} is a {network.class_name} of no paper here: {'; '.join(reasons)}")


def _save(
    network: OfficialNetwork, found: tuple[nn.Module, dict] | None, folder: Path, kept: dict[str, Any]
) -> Converted:
    """Writes a network's folder: ours, and beside it what the way back needs; `kept` is what is known of the file."""
    from safetensors.torch import save_file

    from lit_gans.official import dropped_keys, fingerprint
    from lit_gans.runs.pretrained import save_pretrained

    folder.mkdir(parents=True, exist_ok=True)
    class_path, arguments, own, aside = None, network.init_kwargs, None, network.state
    if found is not None:
        model, arguments = found
        class_path = f"{type(model).__module__}.{type(model).__qualname__}"
        table = _table(model, network.class_name, list(network.state))
        own, aside = fingerprint(model.state_dict()), dropped_keys(network.state, table)
        assert fingerprint(_official_state(model, table, list(network.state), aside)) == network.fingerprint
        notes = f"Converted from the official network {kept['name']}, whose licence holds for these weights too."
        save_pretrained(model, folder, arguments=arguments, notes=notes)
    save_file(aside, folder / KEPT_TENSORS)
    kept |= {"class_name": network.class_name, "init_args": list(network.init_args), "init_kwargs": network.init_kwargs}
    kept |= {"names": list(network.state), "buffers": sorted(network.buffers), "modules": network.modules}
    kept |= {"source_sha256": network.source_sha256, "converted": found is not None}
    (folder / KEPT).write_text(json.dumps(kept, indent=2) + "\n")
    return Converted(
        class_path, arguments, network.num_parameters, network.fingerprint, own, source_sha256=network.source_sha256
    )


def _table(model: nn.Module, class_name: str, names: Sequence[str]) -> Mapping[str, Any]:
    """Official names -> ours, of a network of the official class that has these names."""
    from lit_gans.official import COUNTERPARTS, official_keys

    if class_name in COUNTERPARTS:
        return official_keys(class_name, names)
    return import_module(type(model).__module__).OFFICIAL_KEYS


def _official_state(
    model: nn.Module, table: Mapping[str, Any], names: Sequence[str], aside: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Our network's weights under the official names, in their order."""
    from lit_gans.official import invert

    return invert(model.state_dict(), table, official=names, dropped=aside)


def _to_official(source: Path, target: Path, epoch: str) -> Certificate:
    from lit_gans.official import COUNTERPARTS, write_official

    root = _kept(source)
    by_name = root["class_name"] in COUNTERPARTS
    if not by_name and target.suffix != ".pkl":
        raise ValueError(f"{target} is no .pkl file: name the pickle that shall be written")
    networks, records = {}, {}
    for folder in (source, *sorted(path.parent for path in source.glob(f"*/{KEPT}"))):
        name, networks[name], records[name] = _restored(folder)
    if by_name:
        return Certificate(_digests([*_files(source), *_write_state_dicts(target, networks, epoch)]), records)
    write_official(target, networks, extra=root["extra"])
    notes = (
        "The file has the layout of the releases, and lit_gans reads it. What it reads can be loaded by name into",
        "networks that the official code builds; unpickling the file there fails: the networks' source is not in it.",
    )
    return Certificate(_digests([*_files(source), target]), records, notes=notes)


def _write_state_dicts(target: Path, networks: Mapping[str, OfficialNetwork], epoch: str) -> list[Path]:
    """One network as the file `target`, or all in the folder `target` under the names of the official trainings.

    genforce's networks are together in one file.
    """
    from lit_gans.official import PORT, write_named_states, write_state_dict

    states = {name: network.state for name, network in networks.items()}
    if target.suffix == ".pth" and all(network.class_name in PORT for network in networks.values()):
        return [write_named_states(target, states)]
    if target.suffix != ".pth":
        wanted = {target / f"{epoch}_net_{name}.pth": state for name, state in states.items()}
    elif len(networks) == 1:
        wanted = {target: next(iter(states.values()))}
    else:
        raise ValueError(f"{', '.join(networks)} do not go into the one file {target}: name a folder for their files")
    return [write_state_dict(path, state) for path, state in wanted.items()]


def _restored(folder: Path) -> tuple[str, OfficialNetwork, Converted]:
    from lit_gans.official import OfficialNetwork, fingerprint
    from lit_gans.runs.pretrained import from_pretrained, read_tensors

    kept, aside = _kept(folder), read_tensors(folder / KEPT_TENSORS)
    class_path, own, state = None, None, aside
    if kept["converted"]:
        model = from_pretrained(folder)
        class_path = f"{type(model).__module__}.{type(model).__qualname__}"
        own = fingerprint(model.state_dict())
        state = _official_state(model, _table(model, kept["class_name"], kept["names"]), kept["names"], aside)
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
    )
    record = Converted(class_path, kept["init_kwargs"], network.num_parameters, network.fingerprint, own)
    return kept["name"], network, record


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / KEPT
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: only a folder that was converted from a release goes back to one, since that file "
            "holds its names and arguments"
        )
    try:
        kept = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    wanted = {"name": str, "class_name": str, "init_args": list, "init_kwargs": dict, "names": list, "buffers": list}
    wanted |= {"modules": dict, "converted": bool, "extra": dict}
    found = kept if isinstance(kept, dict) else {}
    if wrong := [key for key, kind in wanted.items() if not isinstance(found.get(key), kind)]:
        raise ValueError(f"{path} is damaged: {wrong[0]!r} is missing or of another type")
    return kept


def _differences(
    path: Path, networks: Mapping[str, OfficialNetwork], models: Mapping[str, tuple[nn.Module, dict] | None]
) -> dict[str, tuple[float, float]]:
    """By network: the largest difference from the recorded output, and its share of the largest recorded value."""
    from lit_gans.official import fingerprint

    tensors, call = _recorded(path)
    recorded = fingerprint({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("state/")})
    matching = [name for name, found in models.items() if found and networks[name].fingerprint == recorded]
    if not matching:
        raise ValueError(f"{path} was recorded from other weights than any network of the file: leave golden out")
    return {name: _difference(models[name][0], tensors, call) for name in matching}


def _recorded(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a .safetensors file of recorded outputs")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return tensors, json.loads((file.metadata() or {}).get("call", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no file of recorded outputs, or is damaged: {error}") from error


def _difference(model: nn.Module, tensors: Mapping[str, Tensor], call: Mapping[str, Any]) -> tuple[float, float]:
    if "in/x" in tensors and "out/eval/y" in tensors:
        return _distance(model(tensors["in/x"]), tensors["out/eval/y"])
    kwargs = {name: value for name, value in call.get("kwargs", {}).items() if name not in _WITHOUT_EFFECT}
    if unknown := sorted(set(kwargs) - set(_CALL)):
        raise ValueError(f"the recorded call has {unknown[0]!r}; known are {', '.join(_CALL)}")
    given = {_CALL[name]: value for name, value in kwargs.items()}
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
