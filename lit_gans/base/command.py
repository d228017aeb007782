"""The command line of a verb, made of its function: names, types and defaults of its parameters, help of its docstring.

Parameters before the `*` are positional, those behind it options: flags for truth values, choices for literals, several
words for sequences; what may be one or several, `T | Sequence[T]`, is given again, or as numbers one behind the other.
"""

import errno
import math
import os
import re
import sys
import sysconfig
import traceback
import warnings
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter, signature
from pathlib import Path
from types import GenericAlias, NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

Verb = Callable[..., Any]


def show_result(result: object) -> None:
    print(result)


def run_verb(verb: Verb, argv: Sequence[str] | None, /, *, show: Verb = show_result, **fixed: Any) -> int:
    """Parses `argv` (None: this process's), calls the verb, and shows what it gives; the exit status.

    0, or what `show` returns; 2, with one line on standard error, for what the user can mend; 130 after Ctrl-C. What
    `show` takes by keyword is an option too. `fixed` are arguments of the verb that the command line has not.
    """
    name, given = command_of(verb), parsed(verb, argv, show=show, without=fixed)
    to_call, to_show = ({k: given[k] for k in signature(each).parameters if k in given} for each in (verb, show))
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *where: print(f"{name}: {message}", file=sys.stderr)
        try:
            return show(verb(**to_call, **fixed), **to_show) or 0
        except (ValueError, OSError) as error:
            if os.environ.get("LIT_GANS_TRACEBACK") == "1":
                raise
            print(f"{name}: {told(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stop:
            print("; ".join([f"{name}: broken off", *map(str, stop.args)]), file=sys.stderr)
            return 130


def told(error: Exception) -> str:
    """The message; of a full disk with the way out, and of what a user's own file raised with file and line."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        file = f" while {error.filename} was written" if error.filename else ""
        text = (
            f"the disk is full{file} ({error.strerror}): free space, or let it write to another disk, and start again"
        )
    if place := _own_place(error):
        return f"{text} ({place}; LIT_GANS_TRACEBACK=1 shows how it came there)"
    return text


def _own_place(error: Exception) -> str:
    """File and line, where the innermost frame that is no library's is not of this package either."""
    package, libraries = str(Path(__file__).parents[1]), tuple(set(sysconfig.get_paths().values()))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    inside = [frame.filename.startswith(package + os.sep) for frame in frames]
    after = frames[inside.index(True) :] if any(inside) else []
    of_people = [f for f in after if f.filename.startswith(package + os.sep) or not f.filename.startswith(libraries)]
    if not of_people or of_people[-1].filename.startswith(package + os.sep):
        return ""
    return f"{of_people[-1].filename}, line {of_people[-1].lineno}"


def command_of(verb: Verb) -> str:
    """As its function is called, which has an underscore behind it where Python has one of that name: `list_`."""
    return f"lit-gans {verb.__name__.rstrip('_')}"


def parsed(
    verb: Verb, argv: Sequence[str] | None, *, show: Verb = show_result, without: Iterable[str] = ()
) -> dict[str, Any]:
    """What `argv` says, by the names of the parameters; --help, and what cannot be read, end the process."""
    options = parameters(verb, show, without=without)
    said = parser_of(verb, show, options).parse_args(words(sys.argv[1:] if argv is None else argv, options))
    return {name: value for name, value in vars(said).items() if value is not None}


def parameters(verb: Verb, show: Verb = show_result, *, without: Iterable[str] = ()) -> list[Parameter]:
    """What the command line may say: the parameters of the verb, and those that `show` takes by keyword."""
    own = [p for p in signature(verb).parameters.values() if p.name not in without]
    shown = [p for p in signature(show).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return list({p.name: p for p in (*shown, *own)}.values())


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser_of(verb: Verb, show: Verb, options: Iterable[Parameter]) -> ArgumentParser:
    """What reads the options; what is not given is not in its result, and is left to the defaults of the function."""
    from docstring_parser import parse

    doc, shown = (parse(each.__doc__ or "") for each in (verb, show))
    told = {p.arg_name: p.description or "" for p in (*shown.params, *doc.params)}
    about = " ".join(filter(None, (doc.short_description, doc.long_description))).replace("%", "%%")
    parser = _Parser(prog=command_of(verb), description=about)
    for option in options:
        needed = option.default is Parameter.empty
        text = told.get(option.name, "").replace("%", "%%")
        if not any(option.default is each for each in (None, False, Parameter.empty)):
            text += f" (default: {option.default})"
        reading = {"help": text, **_reading(option.annotation)}
        if option.kind is option.KEYWORD_ONLY:
            parser.add_argument(f"--{option.name}", required=needed, default=SUPPRESS, **reading)
        else:
            parser.add_argument(option.name, **{**({} if needed else {"nargs": "?"}), **reading})
    return parser


def _reading(kind: Any) -> dict[str, Any]:
    """What argparse is told of a type."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    first, *others = [member for member in members if member is not NoneType]
    if first is bool:
        return {"action": "store_true"}
    if get_origin(first) is Literal:
        return {"type": type(get_args(first)[0]), "choices": get_args(first)}
    if get_origin(first) is tuple:
        return {**_reading(get_args(first)[0]), "nargs": len(get_args(first))}
    if get_origin(first) is Sequence:
        return {**_reading(get_args(first)[0]), "nargs": "+", "action": "extend"}
    one = {"type": {int: int, float: finite}.get(first, str)}
    return one | {"action": "append"} if GenericAlias(Sequence, first) in others else one


def finite(word: str) -> float:
    """A number of a command line; argparse says "invalid finite value" of what is none."""
    value = float(word)
    if not math.isfinite(value):
        raise ArgumentTypeError(f"{word} is no finite number")
    return value


def words(argv: Sequence[str], options: Iterable[Parameter]) -> list[str]:
    """`underscored`, and of one or several numbers, --psi 0.5 1 is --psi 0.5 --psi 1.

    argparse itself would take for one more whatever follows, a run for a psi.
    """
    numbers = [f"--{o.name}" for o in options if _reading(o.annotation) == {"type": finite, "action": "append"}]
    found: list[str] = []
    for word in underscored(argv):
        further = len(found) > 1 and found[-2] in numbers and re.fullmatch(r"-?\d*\.?\d+", word)
        found += [found[-2], word] if further else [word]
    return found


def underscored(argv: Sequence[str]) -> list[str]:
    """--batch-size=3 is --batch_size=3; values stay as they are."""
    return [re.sub(r"^--[^=\s]+", lambda name: "--" + name[0][2:].replace("-", "_"), word) for word in argv]
