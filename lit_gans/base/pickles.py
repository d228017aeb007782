"""Plain values, arrays and tensors of pickles, read without running anything that they say.

The few globals that such files name stand for small functions of ours in a closed table (`known_globals`).
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_gans.base.machine import Budget, Function, HostilePickle, Machine, Unbuilt, hashable, of_type

MAX_DEPTH = 64  # of modules in modules, and of values in values
MAX_VALUES = 1_000_000  # modules or values that one network may be made of

STORAGES = {
    "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64, "ByteStorage": torch.uint8, "CharStorage": torch.int8, "ShortStorage": torch.int16,
    "IntStorage": torch.int32, "LongStorage": torch.int64, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
}  # fmt: skip
_ARRAY_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
_REPEATED = 2**20  # elements that a tensor may have beyond those of its storage, as `expand` makes them


def loads(data: bytes) -> Any:
    """The value that the bytes of a pickle describe, of plain values, arrays and tensors; HostilePickle otherwise."""
    value = Machine(io.BytesIO(data), known_globals(Budget(2 * len(data)))).run()
    check_nesting(value, MAX_VALUES + len(data))
    return value


def known_globals(budget: Budget) -> dict[tuple[str, str], Any]:
    """What pickles of values may name, and what stands for it here."""

    def counted(make: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(make, budget=budget)

    functions: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch", "Size"): lambda sizes=(): _sizes(tuple(of_type(sizes, (list, tuple), "a size"))),
        ("_codecs", "encode"): counted(_encoded),
        **{(builtins, "set"): counted(_members) for builtins in ("builtins", "__builtin__")},
        **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array(budget) for core in ("core", "_core")},
        **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): counted(_array) for core in ("core", "_core")},
        ("numpy", "dtype"): _array_type,
    }
    table: dict[tuple[str, str], Any] = named(functions)
    table["collections", "OrderedDict"] = Function("collections.OrderedDict", counted(dictionary), new=True)
    table["numpy", "ndarray"] = "numpy.ndarray"  # an argument of _reconstruct, never called
    return table


def named(functions: dict[tuple[str, str], Callable[..., Any]], *, new: bool = False) -> dict[tuple[str, str], Any]:
    """A part of a table of globals: each stands for the function of ours."""
    return {key: Function(".".join(key), make, new=new) for key, make in functions.items()}


def check_nesting(root: Any, most: int) -> None:
    """Raises HostilePickle for values deeper than MAX_DEPTH, or more than `most` once what is shared is written out.

    A kilobyte of lists that hold each other twice would take longer than any life to print.
    """
    known: dict[int, tuple[int, int]] = {}

    def measure(value: Any, depth: int) -> tuple[int, int]:
        """(number of values, height)."""
        if not isinstance(value, (dict, list, tuple, set)):
            return 1, 0
        if id(value) not in known:
            inner = [1, 0]
            for each in value.values() if isinstance(value, dict) else value:
                count, height = measure(each, depth + 1) if depth <= MAX_DEPTH else (0, MAX_DEPTH)
                inner = [inner[0] + count, max(inner[1], height + 1)]
                if inner[0] > most or inner[1] > MAX_DEPTH:
                    raise HostilePickle("values lie in values too deep, in themselves, or are too many")
            known[id(value)] = (inner[0], inner[1])
        return known[id(value)]

    measure(root, 0)


# ---- arrays ----------------------------------------------------------------------------------------------------------


@dataclass
class _ArrayType(Unbuilt):
    code: str
    order: str = "="

    def build(self, state: Any) -> _ArrayType:
        """The byte order is all that a number's type has for state."""
        state = of_type(state, tuple, "an array type's state")
        if len(state) < 5 or state[1] not in ("<", ">", "=", "|") or any(each is not None for each in state[2:5]):
            raise HostilePickle("an array type is no plain number")
        return _ArrayType(self.code, state[1])

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


@dataclass
class _Array(Unbuilt):
    budget: Budget

    def build(self, state: Any) -> Tensor:
        _, shape, dtype, fortran, data = of_type(state, tuple, "an array's state")
        return _array(data, dtype, shape, "F" if fortran else "C", budget=self.budget)


def _array(data: Any, dtype: Any, shape: Any, order: Any, *, budget: Budget) -> Tensor:
    data = data.encode("latin-1") if isinstance(data, str) else data  # of Python 2, whose bytes are text
    data, dtype = of_type(data, (bytes, bytearray), "an array's data"), of_type(dtype, _ArrayType, "its type").numpy
    count = math.prod(_sizes(shape))
    if count * dtype.itemsize != len(data):
        raise HostilePickle(f"an array claims {count} elements of {dtype.itemsize} bytes, and has {len(data)} bytes")
    budget.spend(len(data))
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
    return torch.from_numpy(np.array(values, dtype.newbyteorder("="), order="C"))


def _scalar(dtype: Any, data: Any) -> Any:
    data = data[:16].encode("latin-1") if isinstance(data, str) else of_type(data, bytes, "a number")
    return np.frombuffer(data, of_type(dtype, _ArrayType, "a number's type").numpy, count=1)[0].item()


def _array_type(code: Any, *flags: Any) -> _ArrayType:
    if code not in _ARRAY_TYPES:
        raise HostilePickle(f"an array has the type {code!r:.80}; known are {', '.join(_ARRAY_TYPES)}")
    return _ArrayType(code)


def _sizes(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, tuple) or not all(type(n) is int and 0 <= n < 2**48 for n in sizes) or len(sizes) > 16:
        raise HostilePickle(f"{sizes!r:.80} is no shape")
    return sizes


# ---- tensors ---------------------------------------------------------------------------------------------------------


def rebuilt_tensor(storage: Any, offset: Any, size: Any, stride: Any, *flags: Any, budget: Budget) -> Tensor:
    """A tensor in the memory of its storage, beyond which it may not reach; what its elements take is spent."""
    storage = of_type(storage, Tensor, "a tensor's storage")
    size, stride, (offset,) = _sizes(size), _sizes(stride), _sizes((offset,))
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= len(storage) or count > len(storage) + _REPEATED):
        raise HostilePickle(f"a tensor of shape {size} reaches beyond its storage of {len(storage)} elements")
    budget.spend(count * storage.element_size())
    return storage.as_strided(size, stride, offset)


def own_tensor(*arguments: Any, budget: Budget) -> Tensor:
    """The same in memory of its own, without gaps."""
    return rebuilt_tensor(*arguments, budget=budget).clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class StorageId:
    """Which storage a pickle refers to; `count` is how many elements it claims."""

    dtype: torch.dtype
    key: str
    count: int


def storage_id(given: Any) -> StorageId:
    """Of a persistent id ("storage", type, key, device, count), as torch writes it."""
    given = of_type(given, tuple, "a storage's id")
    if len(given) != 5 or given[0] != "storage":
        raise HostilePickle("a storage has an unknown id")
    dtype, key, count = of_type(given[1], torch.dtype, "its type"), of_type(given[2], str, "its key"), given[4]
    return StorageId(dtype, key, *_sizes((count,)))


# ---- collections -----------------------------------------------------------------------------------------------------


def dictionary(*items: Any, budget: Budget) -> dict:
    """As `OrderedDict()`, or in protocol 2 `OrderedDict([[key, value], ...])`, is called when pickled."""
    pairs = [] if not items else of_type(items[0], list, "a dictionary's items") if len(items) == 1 else None
    if pairs is None or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise HostilePickle("a dictionary has unknown arguments")
    budget.spend(len(pairs))
    return {hashable(key): value for key, value in pairs}


def _encoded(text: Any, encoding: Any, *, budget: Budget) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if encoding != "latin1":
        raise HostilePickle(f"it asks for _codecs.encode with {encoding!r:.80}")
    budget.spend(len(of_type(text, str, "encoded bytes")))
    return text.encode("latin1")


def _members(values: Any = (), *, budget: Budget) -> set:
    budget.spend(len(of_type(values, (list, tuple), "a set's members")))
    return set(map(hashable, values))
