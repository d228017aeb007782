"""`lit-gans list`: the papers, data sets and experiments that there are, and what each experiment claims.

All is read as text: docstrings of the source, headers of the experiment files. Nothing of it is imported.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from json import dumps
from pathlib import Path
from typing import Any, Literal

from lit_gans.base.command import run_verb
from lit_gans.runs.classes import added
from lit_gans.runs.configs import shipped_configs

PACKAGE = Path(__file__).parent
WHAT = {
    "papers": ("name", "about"),
    "data": ("name", "about"),
    "experiments": ("name", "hardware", "paper", "measured"),
}
FIELD = re.compile(r"#\s{2,4}(\w+)\s{2,}(.+)")
CONTINUED = re.compile(r"#\s{6,}(.+)")


def list_(what: Literal["papers", "data", "experiments"] | None = None) -> dict[str, list[dict[str, str]]]:
    """What can be trained, and what was measured; experiments have the fields of their headers.

    Args:
        what: only these.
    """
    all_ = {"papers": [*_papers(), *_added()], "data": list(_data()), "experiments": list(_experiments())}
    return all_ if what is None else {what: all_[what]}


def claim(header: str) -> dict[str, str]:
    """The comment that an experiment file begins with -> its first line as "about", and its fields, such as "paper"."""
    told, field = {"about": ""}, "about"
    for line in header.splitlines():
        if not line.startswith("#"):
            break
        if found := FIELD.fullmatch(line):
            field = found[1]
            told[field] = found[2]
        elif field != "about" and (more := CONTINUED.fullmatch(line)):
            told[field] += f" {more[1]}"
        elif field == "about":
            told["about"] = f"{told['about']} {line.lstrip('# ')}".strip()
    return {name: " ".join(text.split()) for name, text in told.items()}


def _experiments() -> Iterator[dict[str, str]]:
    for name, path in shipped_configs().items():
        yield {"name": name, **claim(path.read_text(encoding="utf-8"))}


# ---- classes, by their source ----------------------------------------------------------------------------------------


def _exports(package: str) -> Iterator[tuple[Path, str]]:
    """(source, name) of all that a package of lit_gans gives to its users."""
    for node in _source(PACKAGE / package / "__init__.py").body:
        if isinstance(node, ast.ImportFrom):
            path = PACKAGE.parent.joinpath(*node.module.split("."))
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            yield from ((path, alias.name) for alias in node.names)


def _papers() -> Iterator[dict[str, str]]:
    """Each is in a file of its own, whose first words say which paper it is."""
    for path, name in _exports("papers"):
        yield {"name": name, "class_path": f"lit_gans.papers.{name}", "about": _about(_source(path))}


def _added() -> Iterator[dict[str, str]]:
    for entry in added():
        about = f"of the installed package {entry.dist.name} {entry.dist.version}"
        yield {"name": entry.attr, "class_path": entry.value.replace(":", "."), "about": about}


def _data() -> Iterator[dict[str, str]]:
    """Those that can be built: ancestors of others that leave something open are left out."""
    sources = [_source(path) for path in sorted((PACKAGE / "data").glob("*.py"))]
    classes = {node.name: node for source in sources for node in source.body if isinstance(node, ast.ClassDef)}

    def line(name: str) -> list[str]:
        """The class and its ancestors."""
        bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name) and base.id in classes]
        return [name, *(ancestor for base in bases for ancestor in line(base))]

    def loads(name: str) -> bool:
        return any(isinstance(node, ast.FunctionDef) and node.name == "load" for node in classes[name].body)

    for _, name in _exports("data"):
        ancestors = line(name) if name in classes else []
        whole = name in classes and "@abstractmethod" not in ast.unparse(classes[name])
        if whole and "ImageData" in ancestors and any(loads(each) for each in ancestors if each != "ImageData"):
            yield {"name": name, "class_path": f"lit_gans.data.{name}", "about": _about(classes[name])}


def _source(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _about(node: ast.Module | ast.ClassDef) -> str:
    """The first paragraph of its docstring."""
    return " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())


# ---- the command -----------------------------------------------------------------------------------------------------


def show(found: dict[str, list[dict[str, Any]]], *, json: bool = False) -> None:
    """Prints tables.

    Args:
        json: print JSON, with all fields of the experiments.
    """
    if json:
        print(dumps(found, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for what, rows in found.items():
        table = Table(*WHAT[what], title=what, title_justify="left", show_lines=what == "experiments")
        for row in rows:
            table.add_row(*(row.get(column, "-") for column in WHAT[what]))
        console.print(table)
    console.print("lit-gans fit --config <experiment>, or --model=<paper> --data=<data>", markup=False)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(list_, argv, show=show)


if __name__ == "__main__":
    sys.exit(main())
