"""What a W&B sweep file says, for a sweep that needs no W&B: the command, the metric, and what is drawn from where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_gans.runs.configs import find_sweep
from lit_gans.runs.loggers import grouped

ARGS = "${args}"  # where W&B's agent puts what it has drawn
METHODS = ("bayes", "random", "grid")
GOALS = ("minimize", "maximize")
KEYS = {
    "constant": {"value"},
    "categorical": {"values"},
    "uniform": {"min", "max"},
    "int_uniform": {"min", "max"},
    "log_uniform_values": {"min", "max"},
    "q_uniform": {"min", "max", "q"},
}
"""Of W&B's distributions those that can be drawn from here, and what each is told."""
OF_A_TRIAL = ("config", "run_folder", "ckpt_path", "stages")  # arguments of `fit` that each trial has its own of


@dataclass(frozen=True)
class SweepFile:
    """A sweep of a config.

    Args:
        command: arguments of `fit`, without what is drawn.
        metric: as metrics.jsonl has it; W&B's sections ("metrics/") are left out.
        parameters: by option of `fit`, in W&B's words, with their distribution.
        early: of `early_terminate`, "min_iter" and "eta"; None to let all trials run to their end.
    """

    path: Path
    command: tuple[str, ...]
    metric: str
    goal: str
    method: str
    parameters: Mapping[str, Mapping[str, Any]]
    early: Mapping[str, int] | None

    def identity(self) -> dict[str, Any]:
        """What trials of one study have in common, as plain values."""
        told = {name: getattr(self, name) for name in ("metric", "goal", "method", "parameters", "early")}
        return json.loads(json.dumps({"command": self.command, **told}))


def read_sweep(name: str | Path) -> SweepFile:
    """The sweep file at a path, or the shipped one of a paper. ValueError for what cannot be run here."""
    path = find_sweep(str(name))
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable YAML: {error}") from error
    if not isinstance(said, dict) or not {"command", "metric", "parameters"} <= said.keys():
        raise ValueError(f"{path} is no sweep file: it needs command, metric and parameters, as W&B's sweeps have them")
    method = _one_of(said.get("method", "bayes"), METHODS, f"{path}: method")
    metric, goal = _metric(said["metric"], path)
    parameters = {key: _parameter(key, told, path, method) for key, told in dict(said["parameters"]).items()}
    return SweepFile(path, _command(said["command"], path), metric, goal, method, parameters, _early(said, path))


def _one_of(found: Any, known: Sequence[str], what: str) -> str:
    if found not in known:
        raise ValueError(f"{what} is {found!r}; here it is one of {', '.join(known)}")
    return found


def _command(words: Any, path: Path) -> tuple[str, ...]:
    words = [str(word) for word in words] if isinstance(words, list) else []
    start = next((i for i, word in enumerate(words, 1) if word in ("fit", "lit_gans.fit")), None)
    if start is None or words.count(ARGS) != 1:
        raise ValueError(f"{path}: command must be a list such as [lit-gans, fit, --config, cgan/digits, '{ARGS}']")
    return tuple(word for word in words[start:] if word != ARGS)


def _metric(told: Any, path: Path) -> tuple[str, str]:
    """Its plain name and the goal."""
    name = str(told.get("name") if isinstance(told, dict) else told)
    plain = name.rpartition("/")[2]
    if name != grouped(plain):
        raise ValueError(f"{path}: metric {name!r}: what `fit` measures as {plain} is called {grouped(plain)} at W&B")
    goal = told.get("goal", "minimize") if isinstance(told, dict) else "minimize"
    return plain, _one_of(goal, GOALS, f"{path}: goal")


def _parameter(name: str, told: Any, path: Path, method: str) -> dict[str, Any]:
    """In W&B's words, and with the distribution that they leave open."""
    where = f"{path}: parameter {name}"
    if not isinstance(told, dict):
        raise ValueError(f"{where} is {told!r}; give it value, values, or min and max")
    whole = all(isinstance(told.get(end), int) for end in ("min", "max"))
    kinds = {"value": "constant", "values": "categorical", "min": "int_uniform" if whole else "uniform"}
    kind = told.get("distribution") or next((kinds[key] for key in kinds if key in told), None)
    kind = _one_of(kind, tuple(KEYS), f"{where}: distribution")
    if told.keys() - {"distribution"} != KEYS[kind]:
        raise ValueError(f"{where} has {', '.join(told)}; {kind} takes {', '.join(sorted(KEYS[kind]))}")
    if "min" in told and not (_is_number(told["min"]) and _is_number(told["max"]) and told["min"] <= told["max"]):
        raise ValueError(
            f"{where}: min {told['min']!r} and max {told['max']!r} are no range (1e-4 is text; 1.0e-4 is not)"
        )
    if kind == "log_uniform_values" and told["min"] <= 0:
        raise ValueError(f"{where}: min is {told['min']}; the logarithm needs it above 0")
    if kind == "categorical" and not (isinstance(told["values"], list) and told["values"]):
        raise ValueError(f"{where}: values is {told['values']!r}; give a list of one or more")
    if method == "grid" and kind not in ("constant", "categorical"):
        raise ValueError(f"{where} is {kind}; a grid needs value or values of each parameter")
    return {**told, "distribution": kind}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _early(said: Mapping[str, Any], path: Path) -> dict[str, int] | None:
    told = said.get("early_terminate")
    if told is None:
        return None
    if not isinstance(told, dict) or told.get("type") != "hyperband" or "min_iter" not in told:
        raise ValueError(f"{path}: early_terminate is {told!r}; here it is type hyperband, with min_iter")
    early = {"min_iter": told["min_iter"], "eta": told.get("eta", 3)}
    if not all(isinstance(early[name], int) and early[name] >= least for name, least in (("min_iter", 1), ("eta", 2))):
        raise ValueError(f"{path}: early_terminate has {early}; min_iter is 1 or more, eta 2 or more")
    return early


def options_of(settings: Sequence[str], sweep: SweepFile) -> list[str]:
    """Further arguments of `fit` for all trials: "trainer.devices=2" -> --trainer.devices=2.

    Raises:
        ValueError: one without a value, one that each trial has its own of, or one that is drawn.
    """
    for setting in settings:
        name, equals, _ = setting.removeprefix("--").partition("=")
        if not equals:
            raise ValueError(f"settings: {setting!r} has no value; give NAME=VALUE, as model.init_args.total_kimg=20")
        if name in OF_A_TRIAL or name in sweep.parameters:
            why = f"is drawn by {sweep.path}" if name in sweep.parameters else "is each trial's own"
            raise ValueError(f"settings: {name} {why}: leave it out")
    return [f"--{setting.removeprefix('--')}" for setting in settings]
