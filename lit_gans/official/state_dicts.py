"""State dicts: names and tensors, and nothing else.

What a network was built from is not in such a file; it follows from the names and shapes (see `Release.config`). The
files of one training lie in one folder as `<epoch>_net_<network>.pth`, or several networks lie in one file.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lit_gans.base.checkpoints import read_pth, read_weights
from lit_gans.base.files import replacing
from lit_gans.official.pickles import OfficialFile
from lit_gans.official.releases import Release, State, of_state

ENDINGS = (".pth", ".pt", ".bin")
FILE_NAME = re.compile(r"(?P<epoch>\w+)_net_(?P<network>[A-Z](?:_[A-Z])?)\.pth")


def are_state_dicts(source: str | Path) -> bool:
    """Whether `source` is a .pth, .pt or .bin file, or a folder with files `<epoch>_net_<network>.pth`."""
    source = Path(source)
    if source.is_dir():
        return any(FILE_NAME.fullmatch(path.name) for path in source.glob("*_net_*.pth"))
    return source.suffix in ENDINGS


def read_state_dicts(source: str | Path, releases: Sequence[Release], *, epoch: str = "latest") -> OfficialFile:
    """The networks of one file, or of a folder's files `<epoch>_net_<network>.pth`, by name: "G", "D_A", ...

    A network of a file without its name is called as its release says. Each comes with its official class and
    arguments, as far as weights tell. Nothing in the files is run.
    FileNotFoundError where there is none; ValueError for what is no such file, or of no release.
    """
    source, networks, total = Path(source), {}, hashlib.sha256()
    together = {part: name for release in releases for part, name in release.in_one_file.items()}
    for path in state_dict_files(source, epoch):
        match = FILE_NAME.fullmatch(path.name)
        for part, state in read_named_states(path, together).items():
            try:
                release = of_state(state, releases)
                network = release.read(state)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            networks[together.get(part) or (match["network"] if match else release.name)] = network
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return OfficialFile(total.hexdigest(), networks, {})


def state_dict_files(source: Path, epoch: str) -> list[Path]:
    """The file itself, or of a training's folder those of this epoch. FileNotFoundError where there are none."""
    if not source.is_dir():
        return [source]
    found = {path: match for path in sorted(source.glob("*.pth")) if (match := FILE_NAME.fullmatch(path.name))}
    chosen = [path for path, match in found.items() if match["epoch"] == epoch]
    if not chosen:
        epochs = ", ".join(sorted({match["epoch"] for match in found.values()})) or "none"
        raise FileNotFoundError(f"{source} has no {epoch}_net_*.pth; its epochs are: {epochs}")
    return chosen


def read_named_states(path: Path, together: Mapping[str, str]) -> dict[str, dict[str, Tensor]]:
    """{"": the state dict} of a file with one, or those of several networks by their names in the file."""
    content = read_pth(path) if path.is_file() else None
    if not isinstance(content, dict) or not content or not content.keys() <= together.keys():
        return {"": read_state_dict(path)}
    for name, state in content.items():
        if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError(f"{path}: {name!r} holds {type(state).__name__}, expected names and tensors alone")
    return {name: {k: t.float() if t.is_floating_point() else t for k, t in s.items()} for name, s in content.items()}


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The names and tensors of a .pth file, read without running anything in it; floats as float32.

    A common first part "module." (of a network saved from within a parallel one) is taken away, and the counters of
    batch norms, which PyTorch did not write before 0.4.1, are added as 0.
    FileNotFoundError where there is none; ValueError where it holds anything but named tensors.
    """
    state = read_weights(Path(path))
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    whole: dict[str, Tensor] = {}
    for name, tensor in state.items():
        whole[name] = tensor
        norm, _, own = name.rpartition(".")
        counter = f"{norm}.num_batches_tracked"
        if own == "running_var" and f"{norm}.weight" in state and counter not in state:
            whole[counter] = torch.tensor(0)
    return whole


def write_state_dict(path: str | Path, state: State) -> Path:
    """The file as the official code loads it, written beside and renamed."""
    with replacing(path) as unfinished:
        torch.save(_plain(state), unfinished)
    return Path(path)


def write_named_states(path: str | Path, states: Mapping[str, State], together: Mapping[str, str]) -> Path:
    """Networks in one file, under the names that `Release.in_one_file` has for ours."""
    theirs = {ours: name for name, ours in together.items()}
    with replacing(path) as unfinished:
        torch.save({theirs[name]: _plain(state) for name, state in states.items()}, unfinished)
    return Path(path)


def _plain(state: State) -> OrderedDict[str, Tensor]:
    return OrderedDict((name, tensor.detach().cpu().clone()) for name, tensor in state.items())
