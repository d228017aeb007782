"""A model as a folder for a model hub: what `save_pretrained` writes, a picture, and a card that a stranger can use."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Captioned, Samples, Translates, can
from lit_gans.base.grids import grid
from lit_gans.base.images import save_png
from lit_gans.metrics.protocol import differing
from lit_gans.runs.comparison_table import protocol_text
from lit_gans.runs.folder import is_pretrained
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import CARD, CONFIG, REPOSITORY, WEIGHTS, read_config, save_pretrained
from lit_gans.runs.results import Number, Target, read_targets

LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")  # as the hub writes them
PICTURE = "samples.png"


def check_told(repo: str, license: str) -> None:
    """ValueError for what no repository, or no licence, is called."""
    if not REPOSITORY.fullmatch(repo):
        raise ValueError(f"repo {repo!r} is not of the form owner/name")
    if not LICENCE.fullmatch(license):
        raise ValueError(f"license {license!r} is no name of the hub's: give mit, apache-2.0, cc-by-4.0, other, ...")


def write_shared(run: Path, folder: Path, *, repo: str, license: str, data: str, trust: str | None) -> Path:
    """The folder, new or empty, with the model of a run, and its card. ValueError where it holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and holds something: give a new folder")
    model = load_run(run, trust=trust)
    if is_pretrained(run):  # it may be a network alone, which is shared as it is
        folder.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(run / name, folder / name)
    else:
        save_pretrained(model, folder)
    row = read_targets(run)[0] if run.is_dir() and not is_pretrained(run) else Target(repo, str(run))
    pictured = _draw(model, run, folder / PICTURE)
    card = _card(model, read_config(folder), row, repo=repo, license=license, data=data, pictured=pictured)
    (folder / CARD).write_text(card, encoding="utf-8")
    return folder


def _draw(model: Game, run: Path, path: Path) -> bool:
    """Whether there is a picture: samples of these weights or, of what takes pictures or words, the last grid."""
    if can(model, Samples) and not can(model, Captioned):
        with torch.no_grad():
            images = model.sample(range(16))
        save_png(grid(images, 4, min_cell_px=64), path)
    elif (run / "samples" / "latest.png").is_file():
        shutil.copyfile(run / "samples" / "latest.png", path)
    return path.is_file()


def _task(model: Game) -> str:
    if can(model, Captioned):
        return "text-to-image"
    return "image-to-image" if can(model, Translates) else "unconditional-image-generation"


def _card(
    model: Game, config: dict[str, Any], row: Target, *, repo: str, license: str, data: str, pictured: bool
) -> str:
    name, task, kimg = config["class_path"].rpartition(".")[2], _task(model), config["images_seen"] / 1000
    numbers = {metric: _last_of_each(row.numbers[metric]) for metric in row.numbers}
    front = {"license": license, "library_name": "lit-gans", "pipeline_tag": task}
    front |= {"tags": ["gan", "image-generation", name.lower()]}
    if results := _results(numbers, kimg, task, _data_name(row) or "not told"):
        front["model-index"] = [{"name": repo.partition("/")[2], "results": results}]
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", f"# {name}", ""]
    lines += [f"![Samples]({PICTURE})", ""] if pictured else []
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines += [f"`{config['class_path']}` of lit_gans {config['lit_gans']}, {parameters:,} parameters"]
    lines[-1] += f", trained on {kimg:g} thousand images." if kimg else "."
    lines += ["", "## Data", "", data or f"{_data_name(row) or 'Not told'}.", "", *_use(config, repo, task)]
    lines += [*_table(numbers), "## Arguments", ""]
    return "\n".join(lines + [f"- {key}: `{json.dumps(value)}`" for key, value in config["arguments"].items()]) + "\n"


def _data_name(row: Target) -> str:
    """Class and last part of the path of a run's data; the rest of a path is nobody's business."""
    told = row.config.get("data.class_path"), row.config.get("data.init_args.path")
    return " ".join(part for part in (str(told[0] or "").rpartition(".")[2], Path(str(told[1] or "")).name) if part)


def _use(config: dict[str, Any], repo: str, task: str) -> list[str]:
    package = config["class_path"].partition(".")[0]
    python, command = ("", "") if package == "lit_gans" else (f', trust="{package}"', f" --trust {package}")
    name = repo.partition("/")[2]
    verb = f"translate {name} photos" if task == "image-to-image" else f"sample {name} --seeds 0-63"
    return [
        "## Use", "", "```bash", "pip install 'lit-gans[hub]'",
        f"hf download {repo} --local-dir {name}",
        f"lit-gans {verb} --output out{command}", "```", "", "```python",
        "from lit_gans.runs.pretrained import from_pretrained", "",
        f'model = from_pretrained("{repo}"{python})', "```", "",
    ]  # fmt: skip


def _last_of_each(numbers: list[Number]) -> list[Number]:
    """The last finite number of each protocol."""
    found: list[Number] = []
    for number in sorted((n for n in numbers if math.isfinite(n.value)), key=lambda n: n.age):
        found = [other for other in found if differing([other.stamp, number.stamp])] + [number]
    return found


def _results(numbers: dict[str, list[Number]], kimg: float, task: str, data: str) -> list[dict[str, Any]]:
    """For the hub's index: numbers of these very weights alone."""
    metrics = [
        {"type": name, "value": number.value, "name": f"{name} ({protocol_text(number.stamp)})"}
        for name, each in numbers.items()
        for number in each
        if number.kimg is not None and round(1000 * number.kimg) == round(1000 * kimg)
    ]
    dataset = {"name": data, "type": re.sub(r"\W+", "-", data).strip("-").lower()}
    return [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}] if metrics else []


def _table(numbers: dict[str, list[Number]]) -> list[str]:
    """The numbers, and below them the protocol of each."""
    told = [(name, number) for name, each in numbers.items() for number in each]
    if not told:
        return ["## Numbers", "", "None measured.", ""]
    protocols = list(dict.fromkeys(protocol_text(number.stamp) for _, number in told))
    lines = ["## Numbers", "", "| metric | value | kimg | protocol |", "|---|---:|---:|---:|"]
    for name, number in told:
        kimg = "-" if number.kimg is None else f"{number.kimg:.10g}"
        lines.append(f"| {name} | {number.value:.6g} | {kimg} | {1 + protocols.index(protocol_text(number.stamp))} |")
    lines += ["", "Numbers of different protocols are not comparable.", ""]
    return lines + [f"{i}. {text}" for i, text in enumerate(protocols, 1)] + [""]
