"""Files of torch.save and torch.jit.save, read without running anything in them and without believing their sizes.

Archives are zips of records, each with a CRC-32 that torch.load does not look at and that is checked here, at some
0.1 s for 100 MB. The form before PyTorch 1.6 has no checksum. What a file may make of memory follows from its size.
"""

from __future__ import annotations

import functools
import io
import struct
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gans.base.files import check_regular
from lit_gans.base.machine import Budget, Function, HostilePickle, Machine, of_type
from lit_gans.base.pickles import (
    MAX_VALUES,
    STORAGES,
    check_nesting,
    dictionary,
    known_globals,
    named,
    rebuilt_tensor,
    storage_id,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before it wrote archives; releases hold their storages so
LEGACY_PROTOCOL = 1001
_SPENT = 8  # bytes of storages and tensors together for one of the file; whole tensors alone make 2
_CHUNK = 2**24
# What zipfile and zlib raise on damaged bytes.
_DAMAGED = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, LookupError, ValueError, OverflowError, EOFError, OSError,
    MemoryError, zlib.error, struct.error,
)  # fmt: skip


def read_torch_file(path: Path) -> Any:
    """What torch.save wrote: tensors on the CPU, plain values and containers.

    HostilePickle, a ValueError, where it holds anything else, is damaged, or claims more than its bytes can make.
    """
    check_regular(path)
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    value = _read_archive(path) if is_archive else read_legacy(path.read_bytes())
    check_nesting(value, MAX_VALUES)
    return value


# ---- archives --------------------------------------------------------------------------------------------------------


@dataclass
class Records:
    """The records of an archive below its folder, read whole and with their checksums compared."""

    archive: zipfile.ZipFile
    root: str
    budget: Budget
    storages: dict[str, Tensor] = field(default_factory=dict)

    def read(self, name: str) -> bytearray:
        """What a record holds; one that swells beyond the file, or beyond what it claims, is refused before it is."""
        record = self.archive.getinfo(self.root + name)
        if record.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise HostilePickle(f"its record {name} is packed in an unknown way")
        self.budget.spend(record.file_size)
        content = bytearray()
        with self.archive.open(record) as file:
            while chunk := file.read(_CHUNK):  # read() would unpack all that there is, and cut it then
                content += chunk
        if len(content) != record.file_size:
            raise HostilePickle(f"its record {name} claims {record.file_size} bytes, and has {len(content)}")
        return content

    def storage(self, given: Any) -> Tensor:
        found = storage_id(given)
        if found.key not in self.storages:
            data = self.read(f"data/{found.key}")
            if len(data) != found.count * found.dtype.itemsize:
                raise HostilePickle(
                    f"a storage claims {found.count} elements of {found.dtype}, and has {len(data)} bytes"
                )
            self.storages[found.key] = _tensor(data, found.dtype)
        storage = self.storages[found.key]
        if (storage.dtype, len(storage)) != (found.dtype, found.count):
            raise HostilePickle(f"storage {found.key} is claimed twice, with different types or sizes")
        return storage


@contextmanager
def records(path: Path) -> Iterator[Records]:
    """The records of an archive; whatever is raised of its bytes is a HostilePickle."""
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                root = next((n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")), None)
                if root is None:
                    raise HostilePickle("it has no data.pkl")
                if len(set(names)) < len(names):
                    raise HostilePickle("it has two records of one name")
                found = Records(archive, root.removesuffix("data.pkl"), Budget(_SPENT * path.stat().st_size))
                if f"{found.root}byteorder" in names and found.read("byteorder") != b"little":
                    raise HostilePickle("its bytes are not in the order of this kind of machine")
                yield found
        except HostilePickle:
            raise
        except _DAMAGED as error:
            raise HostilePickle(f"it is damaged: {str(error) or type(error).__name__}") from error


def _read_archive(path: Path) -> Any:
    with records(path) as found:
        pickle = io.BytesIO(found.read("data.pkl"))
        return TensorMachine(pickle, torch_globals(found.budget), found.storage).run()


# ---- the form before archives ----------------------------------------------------------------------------------------


@dataclass
class _Storages:
    """Made when they are named, filled when the pickles have been read: their bytes come last."""

    left: Budget
    made: dict[str, Tensor] = field(default_factory=dict)

    def storage(self, given: Any) -> Tensor:
        given = of_type(given, tuple, "a storage's id")
        found, view = storage_id(given[:5]), given[5] if len(given) == 6 else None
        if found.key not in self.made:
            try:
                self.left.spend(found.count * found.dtype.itemsize)
            except HostilePickle:
                raise _not_there(found.count, found.dtype) from None
            self.made[found.key] = torch.zeros(found.count, dtype=found.dtype)
        whole = self.made[found.key]
        if whole.dtype != found.dtype or len(whole) != found.count:
            raise HostilePickle(f"storage {found.key} is claimed twice, with different types or sizes")
        if view is None:
            return whole
        _, first, count = of_type(view, tuple, "a part of a storage")  # as PyTorch 0.1 wrote them
        return whole.narrow(0, of_type(first, int, "its beginning"), of_type(count, int, "its size"))

    def fill(self, keys: Any, file: io.BytesIO) -> None:
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(self.made):
            raise HostilePickle("it lists other storages than it names")
        for key in keys:
            storage = self.made[key]
            count, size = int.from_bytes(file.read(8), "little"), len(storage) * storage.element_size()
            data = bytearray(file.read(size))
            if count != len(storage) or len(data) != size:
                raise _not_there(max(count, len(storage)), storage.dtype)
            if size:
                storage.copy_(_tensor(data, storage.dtype))


def read_legacy(data: bytes) -> Any:
    """What torch.save wrote before PyTorch 1.6: four pickles, a list of keys, and the storages' raw bytes."""
    file, storages = io.BytesIO(data), _Storages(Budget(len(data)))
    magic, version, system = (Machine(file, {}).run() for _ in range(3))
    little = isinstance(system, dict) and system.get("little_endian") is True
    if magic != LEGACY_MAGIC or version != LEGACY_PROTOCOL or not little:
        raise HostilePickle("it is no file of torch.save that is known")
    value = TensorMachine(file, torch_globals(Budget(_SPENT * len(data))), storages.storage).run()
    storages.fill(Machine(file, {}).run(), file)
    if file.read(1):
        raise HostilePickle("it goes on after its last storage")
    return value


def _not_there(count: int, dtype: torch.dtype) -> HostilePickle:
    return HostilePickle(f"a storage claims {count} elements of {dtype} that are not there")


def _tensor(data: bytearray, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


# ---- what known globals make -----------------------------------------------------------------------------------------


class TensorMachine(Machine):
    """Knows state dicts, whose attribute `_metadata` modules may want when they load them."""

    def built(self, value: Any, state: Any) -> Any:
        if not isinstance(value, OrderedDict):
            return super().built(value, state)
        state = of_type(state, dict, "a dictionary's attributes")
        if unknown := sorted(map(str, state.keys() - {"_metadata"})):
            raise HostilePickle(f"it sets {unknown[0]!r:.80} of a dictionary")
        versions = of_type(state.get("_metadata", {}), dict, "_metadata")
        if not all(isinstance(each, dict) for each in versions.values()):
            raise HostilePickle("a dictionary's _metadata holds something else than dictionaries")
        value._metadata = versions  # type: ignore[attr-defined]
        return value


def torch_globals(budget: Budget) -> dict[tuple[str, str], Any]:
    """What torch.save names for tensors and containers."""
    rebuilt = functools.partial(rebuilt_tensor, budget=budget)
    table = known_globals(budget) | named({
        ("torch._utils", "_rebuild_tensor"): rebuilt,
        ("torch._utils", "_rebuild_tensor_v2"): rebuilt,
        ("torch._utils", "_rebuild_tensor_v3"): functools.partial(_rebuilt_as, rebuilt),
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: of_type(data, Tensor, "a parameter"),
        ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: of_type(data, Tensor, "a parameter"),
        ("torch._tensor", "_rebuild_from_type_v2"): _rebuilt_of_type,
        ("torch", "device"): lambda *kind: torch.device(*kind),
        **{(builtins, "bytearray"): lambda *of: bytearray(_bytes(*of)) for builtins in ("builtins", "__builtin__")},
        **{(builtins, "complex"): _complex for builtins in ("builtins", "__builtin__")},
        ("collections", "Counter"): lambda counts=(): Counter(of_type(counts, dict, "counts")),
    })  # fmt: skip
    ordered = {("collections", "OrderedDict"): lambda *items: OrderedDict(dictionary(*items, budget=budget))}
    storages = {(m, name): dtype for m in ("torch", "torch.cuda") for name, dtype in STORAGES.items()}
    untyped = {("torch.storage", "UntypedStorage"): torch.uint8}
    dtypes = {("torch", str(d).removeprefix("torch.")): d for d in vars(torch).values() if isinstance(d, torch.dtype)}
    tensors = {("torch", "Tensor"): Tensor, ("torch.nn.parameter", "Parameter"): Tensor}  # kinds of what is rebuilt
    return table | named(ordered, new=True) | storages | untyped | dtypes | tensors


def _complex(real: Any, imaginary: Any) -> complex:
    return complex(of_type(real, float, "a real part"), of_type(imaginary, float, "an imaginary part"))


def _bytes(content: Any = b"", encoding: Any = "latin-1") -> bytes:
    if isinstance(content, str) and encoding == "latin-1":
        return content.encode("latin-1")
    return of_type(content, bytes, "bytes")


def _rebuilt_as(rebuilt: Callable[..., Tensor], storage: Any, *arguments: Any) -> Tensor:
    """A tensor of a type that has no storages of its own name: (storage, offset, size, stride, grad, hooks, type)."""
    dtype = of_type(arguments[5], torch.dtype, "a tensor's type")
    return rebuilt(of_type(storage, Tensor, "a tensor's storage").view(dtype), *arguments[:3])


def _rebuilt_of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
    """A tensor with attributes, which are left out."""
    made = of_type(function, Function, "what rebuilds a tensor").make(*of_type(arguments, tuple, "its arguments"))
    return of_type(made, Tensor, "what was rebuilt")
