"""Files of every form that is read, damaged at random; what each reader makes of them.

python -m tests.damage [MUTATIONS] [FLIPS] [TRUNCATIONS]: the table for experiments/results.md.
"""

import hashlib
import io
import pickle
import random
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from lit_gans.base.checkpoints import read_checkpoint, read_weights
from lit_gans.data.cifar import read_pickled
from lit_gans.data.embeddings import read_values
from lit_gans.data.sources import open_source
from lit_gans.official import read_official
from lit_gans.official.pickles import OfficialNetwork
from lit_gans.official.state_dicts import read_state_dict
from lit_gans.official.weights import read_published
from lit_gans.official.writer import write_official
from lit_gans.runs.load import load_run

from .cases import CASES, train

Read = Callable[[Path], Any]


@dataclass
class Form:
    """A file of a form: its bytes, what reads it, and whether checksums cover what it says."""

    content: bytes
    read: Read
    suffix: str
    checked: bool = False


@dataclass
class Outcomes:
    """How often each happened; `nameless` and `wrong` say where."""

    counts: Counter = field(default_factory=Counter)
    nameless: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    most_bytes: int = 0


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40), nn.BatchNorm1d(40), nn.Linear(40, 40).half())


def forms(folder: Path) -> dict[str, Form]:
    """One of each, a few kilobytes long."""
    state, out = network().state_dict(), io.BytesIO()
    torch.save(state, out)
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.script(network()), scripted)
    save_file(state, folder / "x.safetensors")
    train(CASES["gan"](), folder / "run", batches=1)
    checkpoint = next((folder / "run" / "checkpoints").glob("*.ckpt")).read_bytes()
    tensors = {name: tensor.float() for name, tensor in state.items()}
    whole = OfficialNetwork("G", (), {"z_dim": 4}, tensors, frozenset(), {"": "G", "0": "L", "1": "L", "2": "L"}, "")
    write_official(folder / "g.pkl", {"G_ema": whole})
    batch = {"data": np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8), "labels": [3, 4]}
    embeddings = [np.random.default_rng(i).normal(size=(2, 8)).astype(np.float32) for i in range(3)]
    return {
        "checkpoint": Form(checkpoint, read_checkpoint, ".ckpt", checked=True),
        "run of a checkpoint": Form(checkpoint, _loaded, ".ckpt", checked=True),
        ".pth": Form(out.getvalue(), read_weights, ".pth", checked=True),
        ".pth before 1.6": Form(legacy.getvalue(), read_state_dict, ".pth"),
        "TorchScript": Form(scripted.getvalue(), read_published, ".pt", checked=True),
        "safetensors": Form((folder / "x.safetensors").read_bytes(), read_weights, ".safetensors"),
        "network pickle": Form((folder / "g.pkl").read_bytes(), _official, ".pkl"),
        "CIFAR-10 batch": Form(pickle.dumps(batch, 2), lambda path: read_pickled(path.read_bytes(), str(path)), ""),
        "embeddings": Form(pickle.dumps(embeddings, 2), read_values, ".pickle"),
        "zip of pictures": Form(_pictures(), lambda path: _labels(path), ".zip"),
    }


def _loaded(path: Path) -> Any:
    return dict(load_run(path).state_dict())


def _official(path: Path) -> Any:
    return {name: network.state for name, network in read_official(path).networks.items()}


def _pictures() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            png = io.BytesIO()
            Image.new("L", (4, 4), i).save(png, "png")
            archive.writestr(f"{i}.png", png.getvalue())
        archive.writestr("dataset.json", '{"labels": [["0.png", 0], ["1.png", 1], ["2.png", 1]]}')
    return out.getvalue()


def _labels(path: Path) -> Any:
    source = open_source(path)
    return source.names, source.read_labels()


# ---- damage ----------------------------------------------------------------------------------------------------------


def flipped(content: bytes, rng: random.Random) -> bytes:
    """One bit is another."""
    changed, at = bytearray(content), rng.randrange(len(content))
    changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to three changes: bits, bytes, numbers at their limits, pieces removed, doubled, moved, zeroed."""
    for _ in range(rng.randint(1, 3)):
        at, size = rng.randrange(len(content) + 1), rng.randint(1, 40)
        piece = content[at : at + size]
        number = rng.choice([0, 1, 0x7F, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1])
        content = rng.choice([
            content[:at] + rng.randbytes(len(piece)) + content[at + size :],
            content[:at] + bytes(len(piece)) + content[at + size :],
            content[:at] + struct.pack("<Q", number)[: rng.choice([1, 2, 4, 8])] + content[at + size :],
            content[:at] + content[at + size :],
            content[:at] + piece + content[at:],
            content[:at] + rng.randbytes(size) + content[at:],
            content[at:] + content[:at],
            flipped(content or b"x", rng),
            cut(content or b"x", rng),
        ]) or b"x"  # fmt: skip
    return content


def mutated_inside(content: bytes, rng: random.Random) -> bytes:
    """A record of the zip is another, and its checksum fits: what somebody writes, not what a disk does."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = rng.choice([name for name in old.namelist() if name.endswith(("data.pkl", ".json"))])
        for name in old.namelist():
            record = old.read(name)
            new.writestr(name, mutated(record, rng) if name == chosen else record)
    return out.getvalue()


# ---- what comes of it ------------------------------------------------------------------------------------------------


def digest(value: Any) -> str:
    """Of what a file says, tensors by their bytes."""
    total = hashlib.sha256()

    def add(each: Any) -> None:
        if isinstance(each, torch.Tensor):
            total.update(f"{each.dtype}{list(each.shape)}".encode())
            total.update(each.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(each, dict):
            total.update(f"dict {len(each)}".encode())
            for key, inner in each.items():
                total.update(repr(key).encode("utf-8", "surrogatepass"))
                add(inner)
        elif isinstance(each, (list, tuple)):
            total.update(f"list {len(each)}".encode())
            for inner in each:
                add(inner)
        else:
            total.update(repr(each).encode("utf-8", "surrogatepass"))

    add(value)
    return total.hexdigest()


def try_all(form: Form, damaged: list[bytes], folder: Path) -> Outcomes:
    """Reads every damaged file. Whatever is not ValueError or FileNotFoundError, or says no path, is nameless."""
    found, path = Outcomes(), folder / f"damaged{form.suffix}"
    path.write_bytes(form.content)
    expected = digest(form.read(path))
    for content in damaged:
        path.write_bytes(content)
        before, start = _reset_peak(), time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = form.read(path)
            found.counts["equal" if digest(value) == expected else "other"] += 1
        except (ValueError, FileNotFoundError) as error:
            named = str(path) in str(error)
            found.counts["refused" if named else "nameless"] += 1
            found.nameless += [] if named else [f"{type(error).__name__}: {error}"]
        except Exception as error:  # what the test is for
            found.counts["nameless"] += 1
            found.nameless.append(f"{type(error).__name__}: {error}")
        found.longest_s = max(found.longest_s, time.monotonic() - start)
        found.most_bytes = max(found.most_bytes, _peak() - before)
    return found


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def _reset_peak() -> int:
    """Bytes that the process has now; the highest is counted from here. 0 where Linux does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS:")
    except OSError:
        return 0


def _peak() -> int:
    try:
        return _status("VmHWM:")
    except OSError:
        return 0


def main(mutations: int = 4000, flips: int = 200, truncations: int = 60) -> None:
    with tempfile.TemporaryDirectory() as place:
        rows = table(Path(place), mutations, flips, truncations)
    print("| form | damage | files | refused by name | equal | other | nameless | longest s | most MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, how, found in rows:
        numbers = [found.counts[key] for key in ("refused", "equal", "other", "nameless")]
        cells = [name, how, found.counts.total(), *numbers, f"{found.longest_s:.2f}", f"{found.most_bytes / 1e6:.0f}"]
        print("|", " | ".join(map(str, cells)), "|")
        for line in Counter(found.nameless).most_common(8):
            print("   ", line)


def table(folder: Path, mutations: int, flips: int, truncations: int) -> list[tuple[str, str, Outcomes]]:
    """(form, damage, outcomes): flips and truncations of every form, and the mutations shared out among them."""
    known, rng, rows = forms(folder), random.Random(0), []
    each = -(-mutations // len(known))
    for name, form in known.items():
        ways = {"bit flips": (flipped, flips), "truncations": (cut, truncations), "mutations": (mutated, each)}
        if zipfile.is_zipfile(io.BytesIO(form.content)):
            ways["mutations"] = (mutated, each - each // 2)
            ways["mutations, checksums fitting"] = (mutated_inside, each // 2)
        for how, (damage, count) in ways.items():
            damaged = [damage(form.content, rng) for _ in range(count)]
            rows.append((name, how, try_all(form, damaged, folder)))
    return rows


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
