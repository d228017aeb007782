"""`lit-gans new`: a GAN of one's own to begin with, in one file, and a config that trains it."""

import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

from lit_gans.base.command import run_verb
from lit_gans.base.files import user_path

TEMPLATE = Path(__file__).parent / "adversarial" / "template.py"


def new(name: str | os.PathLike) -> list[Path]:
    """Writes a small GAN to be changed, and a config that trains it on digits that come with the package.

    All verbs find its class from the working folder; those that take the run want `--trust` and the first part of the
    name beside.

    Args:
        name: my_gan, for my_gan/gan.py and my_gan/my_gan.yaml; or a file, as models/my_gan.py, for the same and its
            .yaml.

    Raises:
        ValueError: it cannot be a name of a module, or is one already.
        FileExistsError: one of the files is there.
    """
    model, config, class_name = _planned(_from_here(user_path(name)))
    parts = model.with_suffix("").parts
    _check_names(*parts, class_name)
    if class_name in re.findall(r"\w+", TEMPLATE.read_text(encoding="utf-8")):
        raise ValueError(f"the class would be {class_name}, as another in its file is called: give another name")
    for path in (model, config):
        if path.exists():
            raise FileExistsError(f"{path} is there already: give another name, or move it away")
    _check_module(parts)
    model.parent.mkdir(parents=True, exist_ok=True)
    for path, source in ((model, TEMPLATE), (config, TEMPLATE.with_suffix(".yaml"))):
        text = source.read_text(encoding="utf-8").replace("lit_gans.adversarial.template", ".".join(parts))
        text = text.replace("template.yaml", config.as_posix()).replace("Template", class_name)
        path.write_text(text, encoding="utf-8")
    return [model, config]


def _from_here(path: Path) -> Path:
    """Relative to the working folder, from which the verbs import."""
    here = Path.cwd().resolve()
    if here not in path.resolve().parents:
        raise ValueError(f"{path} is not below the working folder {here}, where its class is looked for: go there")
    return path.resolve().relative_to(here)


def _planned(path: Path) -> tuple[Path, Path, str]:
    """(file, config, name of the class): first_gan has a FirstGan."""
    model, config = (path, path.with_suffix(".yaml")) if path.suffix == ".py" else (path / "gan.py", path / path.name)
    return model, config.with_suffix(".yaml"), "".join(w[:1].upper() + w[1:] for w in path.stem.split("_"))


def _check_names(*names: str) -> None:
    for name in names:
        if not name.isidentifier() or iskeyword(name):
            raise ValueError(f"{name!r} cannot be a name in Python: give letters, digits and underscores, as my_gan")


def _check_module(parts: Sequence[str]) -> None:
    """ValueError where Python, in the working folder or the config's, finds another module by the first part's name."""
    from lit_gans.runs.classes import see_working_folder

    first, *below = parts
    see_working_folder()
    found = find_spec(first)
    place = f"{Path(*parts)}.py" if first in below else found and found.origin
    free = found is None or (below and str(Path(first).resolve()) in (found.submodule_search_locations or ()))
    if first in ("lit_gans", *below) or not free:
        raise ValueError(f"{first!r} is the name of another module ({place}), which would be found: give another name")


def show(files: Sequence[Path]) -> None:
    """Prints what was written, and how it is trained."""
    model, config = files
    print(f"model       {model}\nconfig      {config}\ntrain       lit-gans fit --config {config}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(new, argv, show=show)


if __name__ == "__main__":
    sys.exit(main())
