"""Interprets a pickle over plain values: nothing that it names is looked up, and nothing of it is run.

A pickle is a program for a stack machine. `pickle.Unpickler` runs it with real objects: even where `find_class` is
restricted, a file can set attributes on what it was given, have nested tuples hashed for years, or ask for a terabyte
in five bytes. Here its instructions, as the standard library's `pickletools` parses them, act on plain values only, and
the few globals that a reader knows stand for small functions of ours. Whatever else a file names is refused by name.
"""

from __future__ import annotations

import codecs
import io
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

MAX_OPCODES = 5_000_000  # releases have some tens of thousands
# Containers, calls and globals, which cost some 200 bytes of memory for one or two of the file; AttnGAN's captions have
# 90,000.
MAX_MADE = 1_000_000
# Of an integer as a key: below it Python's hash of an integer is the integer, so that no two fall together.
MAX_KEY = 2**61 - 2
MAX_MEMO = 2**32
MAX_ARGUMENTS = 64


class HostilePickle(ValueError):
    """The file asks for something that no release asks for, is damaged, or claims more than it holds."""


class Unbuilt:
    """What a call makes of an object whose state follows; BUILD takes what `build` makes of that state."""

    value: Any = None

    def build(self, state: Any) -> Any:
        raise HostilePickle(f"it sets the state of a {type(self).__name__}")


@dataclass
class Budget:
    """How many bytes a file may make: calls that copy what a file names once, or often, spend it."""

    left: int

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise HostilePickle("it makes more bytes of tensors than it has")


@dataclass(frozen=True)
class Function:
    """A known global: calling it is calling `make`, of ours. `new`: it is a class, which NEWOBJ may also make."""

    name: str
    make: Callable[..., Any]
    new: bool = False


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_MARK = object()
_VALUES = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8",
))  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple, "EMPTY_SET": set, "MARK": lambda: _MARK,
}  # fmt: skip
_MAKERS = frozenset((
    "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "EMPTY_SET", "LIST", "TUPLE", "DICT", "FROZENSET", "TUPLE1", "TUPLE2",
    "TUPLE3", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID", "GLOBAL", "STACK_GLOBAL",
))  # fmt: skip


@dataclass
class Machine:
    """Interprets one pickle from where `file` stands; `persistent` makes a value of a persistent id.

    `other` gives what stands for a global that is not among the known; None refuses it.
    """

    file: io.BytesIO
    known: Mapping[tuple[str, str], Any]
    persistent: Callable[[Any], Any] | None = None
    other: Callable[[str, str], Function | None] | None = None
    stack: list = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    made: int = 0

    def run(self) -> Any:
        try:
            for count, (name, argument) in enumerate(_instructions(self.file)):
                if name == "STOP":
                    return self.pop()
                if count > MAX_OPCODES:
                    raise HostilePickle(f"it has more than {MAX_OPCODES} instructions")
                self.step(name, argument)
        except HostilePickle:
            raise
        # What the standard library's parser, struct, numpy and torch say of damaged bytes and of wrong values.
        except (ValueError, TypeError, LookupError, RuntimeError, OverflowError, MemoryError, struct.error) as error:
            raise HostilePickle(f"it is damaged: {str(error).splitlines()[0] if str(error) else error!r}") from error
        raise HostilePickle("it is cut off")

    def step(self, name: str, argument: Any) -> None:
        self.made += name in _MAKERS
        if self.made > MAX_MADE:
            raise HostilePickle(f"it makes more than {MAX_MADE} containers and objects")
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in self.actions:
            self.actions[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise HostilePickle(f"it has the instruction {name}, which no file of weights has")

    def pop(self) -> Any:
        if not self.stack:
            raise HostilePickle("it takes from an empty stack")
        value = self.stack.pop()
        if value is _MARK:
            raise HostilePickle("it takes a mark for a value")
        return value

    def top(self, kind: type, what: str) -> Any:
        """The topmost value, left there."""
        value = self.pop()
        self.stack.append(value)
        if not isinstance(value, kind):
            raise HostilePickle(f"it adds {what} to a {type(value).__name__}")
        return value

    def marked(self) -> list:
        """The values since the last mark, taken off with it."""
        values: list[Any] = []
        while self.stack:
            value = self.stack.pop()
            if value is _MARK:
                return values[::-1]
            values.append(value)
        raise HostilePickle("it has no mark where one is needed")

    # Collections. Keys and members are text, numbers or bytes, whose hashes cost nothing.

    def _append(self, _: None) -> None:
        value = self.pop()
        self.top(list, "an item").append(value)

    def _appends(self, _: None) -> None:
        values = self.marked()
        self.top(list, "items").extend(values)

    def _setitem(self, _: None) -> None:
        value, key = self.pop(), self.pop()
        self.top(dict, "an entry").update(_pairs([key, value]))

    def _setitems(self, _: None) -> None:
        values = self.marked()
        self.top(dict, "entries").update(_pairs(values))

    def _additems(self, _: None) -> None:
        values = self.marked()
        self.top(set, "members").update(map(hashable, values))

    def _list(self, _: None) -> None:
        self.stack.append(self.marked())

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self.marked()))

    def _dict(self, _: None) -> None:
        self.stack.append(dict(_pairs(self.marked())))

    def _frozenset(self, _: None) -> None:
        self.stack.append(set(map(hashable, self.marked())))

    def _tuple1(self, _: None) -> None:
        self.stack.append((self.pop(),))

    def _tuple2(self, _: None) -> None:
        second, first = self.pop(), self.pop()
        self.stack.append((first, second))

    def _tuple3(self, _: None) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.stack.append((first, second, third))

    # The stack and the memo

    def _pop(self, _: None) -> None:
        if not self.stack:
            raise HostilePickle("it takes from an empty stack")
        self.stack.pop()

    def _pop_mark(self, _: None) -> None:
        self.marked()

    def _memoize(self, _: None) -> None:
        self._put(len(self.memo))

    def _put(self, index: int) -> None:
        if not 0 <= int(index) < MAX_MEMO:
            raise HostilePickle(f"it keeps a value under the number {index!r:.40}")
        value = self.pop()
        self.stack.append(value)
        self.memo[int(index)] = value

    _binput = _long_binput = _put

    def _get(self, index: int) -> None:
        if int(index) not in self.memo:
            raise HostilePickle(f"it takes value {index}, which it never kept")
        value = self.memo[int(index)]
        self.stack.append(value.value if isinstance(value, Unbuilt) and value.value is not None else value)

    _binget = _long_binget = _get

    # Globals and calls

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.find(module, name))

    def _stack_global(self, _: None) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self.find(of_type(module, str, "a module's name"), of_type(name, str, "a global's name")))

    def find(self, module: str, name: str) -> Any:
        if (module, name) in self.known:
            return self.known[module, name]
        found = None if self.other is None else self.other(module, name)
        if found is None:
            raise HostilePickle(f"it asks for {module:.200}.{name:.200}, which no file of weights needs: refused")
        return found

    def _reduce(self, _: None) -> None:
        arguments, function = self.pop(), self.pop()
        self.stack.append(_function(function).make(*_arguments(arguments)))

    def _newobj(self, _: None) -> None:
        arguments, function = self.pop(), self.pop()
        if not _function(function).new:
            raise HostilePickle(f"it makes an object of {function.name}, which is no class")
        self.stack.append(function.make(*_arguments(arguments)))

    def _build(self, _: None) -> None:
        state, value = self.pop(), self.pop()
        self.stack.append(self.built(value, state))

    def built(self, value: Any, state: Any) -> Any:
        """What the value is with its state."""
        if not isinstance(value, Unbuilt):
            raise HostilePickle(f"it sets attributes of a {type(value).__name__}")
        built = value.build(state)
        value.value = None if built is value else built
        return built

    def _binpersid(self, _: None) -> None:
        if self.persistent is None:
            raise HostilePickle("it refers to an object outside of it (a persistent id)")
        self.stack.append(self.persistent(self.pop()))

    actions: ClassVar[dict[str, Callable[[Machine, Any], None]]] = {
        "APPEND": _append, "APPENDS": _appends, "SETITEM": _setitem, "SETITEMS": _setitems, "ADDITEMS": _additems,
        "LIST": _list, "TUPLE": _tuple, "DICT": _dict, "FROZENSET": _frozenset, "TUPLE1": _tuple1, "TUPLE2": _tuple2,
        "TUPLE3": _tuple3, "POP": _pop, "POP_MARK": _pop_mark, "MEMOIZE": _memoize, "PUT": _put, "BINPUT": _binput,
        "LONG_BINPUT": _long_binput, "GET": _get, "BINGET": _binget, "LONG_BINGET": _long_binget, "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global, "REDUCE": _reduce, "NEWOBJ": _newobj, "BUILD": _build,
        "BINPERSID": _binpersid,
    }  # fmt: skip


def _instructions(file: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """(name, argument) of each, as `pickletools.genops` gives them, but for Python 2's STRING.

    Up to Python 3.11 that takes only ASCII, and Python 2 wrote the bytes of arrays so; they become the text that has
    them in latin-1, as with its other instructions for bytes.
    """
    while True:
        code = file.read(1)
        if not code:
            raise HostilePickle("it is damaged: it ends before its last instruction")
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            raise HostilePickle(f"it is damaged: {code!r} is no instruction")
        yield opcode.name, _quoted(file) if opcode.name == "STRING" else opcode.arg and opcode.arg.reader(file)


def _quoted(file: io.BytesIO) -> str:
    """The rest of the line, in quotes and with escapes."""
    line = file.readline()
    if len(line) < 3 or line[-1:] != b"\n" or line[:1] not in (b"'", b'"') or line[-2:-1] != line[:1]:
        raise HostilePickle(f"it is damaged: {line!r:.40} is no text in quotes")
    return codecs.escape_decode(line[1:-2])[0].decode("latin-1")


def _pairs(values: list) -> Iterator[tuple[Any, Any]]:
    if len(values) % 2:
        raise HostilePickle("it has a key without a value")
    return zip(map(hashable, values[::2]), values[1::2], strict=True)


def hashable(key: Any) -> Any:
    """The key; HostilePickle unless it is None, a number, text or bytes; large integers can be made to collide."""
    if key is not None and not isinstance(key, (str, int, float, bytes)):
        raise HostilePickle(f"a {type(key).__name__} is the key of an entry")
    if isinstance(key, int) and abs(key) > MAX_KEY:
        raise HostilePickle(f"an integer of {key.bit_length()} bits is the key of an entry")
    return key


def _function(value: Any) -> Function:
    if not isinstance(value, Function):
        raise HostilePickle(f"it calls a {type(value).__name__}")
    return value


def _arguments(value: Any) -> tuple:
    """Those of a call; many of them, called again and again, would take more time than the file's size allows."""
    if len(of_type(value, tuple, "a call's arguments")) > MAX_ARGUMENTS:
        raise HostilePickle(f"it calls something with {len(value)} arguments")
    return value


def of_type(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """The value, which is of a `kind`; HostilePickle says that `what` is not."""
    if not isinstance(value, kind):
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise HostilePickle(f"{what:.80} is a {type(value).__name__}, not a {wanted}")
    return value
