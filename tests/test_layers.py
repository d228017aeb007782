"""What may import what: downwards only, and nothing in a circle."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lit_gans"
LAYERS = (
    ("base",),
    ("nn", "official"),
    ("augment", "data"),
    ("metrics",),
    ("adversarial",),
    ("papers", "comparators"),
    ("runs",),
    ("callbacks", "editing"),
    ("training",),
    ("verbs",),
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Where functions import of lit_gans, beside the verbs, which start without torch: what draws pictures reads matplotlib.
LATE = ("base.progress", "runs.evaluation")
DISPATCHERS = ("cli", "__main__", "__init__")


def modules() -> dict[str, Path]:
    """Dotted name below lit_gans -> file; a package is called as its folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of lit_gans that a file imports anywhere, but for type checkers."""
    tree, found = ast.parse(path.read_text()), set()
    typed = {id(n) for node in ast.walk(tree) if _for_type_checkers(node) for n in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("lit_gans.") and id(node) not in typed:
            where = node.module.removeprefix("lit_gans").removeprefix(".")
            for name in (alias.name for alias in node.names):
                inner = f"{where}.{name}" if where else name
                found.add(inner if inner in known else where or "__init__")
    return found


def late_imports(path: Path) -> set[str]:
    """Modules of lit_gans that functions of a file import."""
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, FUNCTIONS))
    inner = (node for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom))
    return {node.module for node in inner if f"{node.module}.".startswith("lit_gans.")}


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def layer(name: str) -> int:
    folder = name.split(".")[0] if (PACKAGE / name.split(".")[0]).is_dir() else "verbs"
    return next(i for i, folders in enumerate(LAYERS) if folder in folders)


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(path, known) - {name} for name, path in known.items()}


def test_imports_go_downwards_only() -> None:
    wrong = []
    for name, targets in graph().items():
        for target in targets - {"__init__"}:
            inside = name.split(".")[0] == target.split(".")[0] and (PACKAGE / name.split(".")[0]).is_dir()
            if name not in DISPATCHERS and not inside and layer(target) >= layer(name):
                wrong.append(f"{name} -> {target}")
    assert not wrong, "\n".join(sorted(wrong))


def test_nothing_imports_in_a_circle() -> None:
    left = {name: set(targets) & set(modules()) for name, targets in graph().items() if name not in DISPATCHERS}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"in or behind a circle: {', '.join(sorted(left))}"


def test_imports_stand_at_the_top_but_for_start_up_time() -> None:
    late = {name for name, path in modules().items() if late_imports(path) and "." in name}
    assert late == set(LATE)


def test_verbs_are_short() -> None:
    long = {path.name: n for path in PACKAGE.glob("*.py") if (n := len(path.read_text().splitlines())) > 150}
    assert not long
