"""A config's `preset`: what a paper computes from data and devices becomes options, between the config and yours."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from lit_gans.adversarial.preset import Facts, Preset
from lit_gans.data import ImageData
from lit_gans.runs.folder import run_config

RESOLUTION = "model.init_args.resolution"


def preset_of(path: str) -> Preset:
    """The function at an import path. ValueError where there is none."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"preset {path!r} is no function that can be imported ({error}): the shipped configs stylegan2/auto and "
            "stylegan2/photos name theirs"
        ) from error
    return found


def facts_of(config: Mapping[str, Any], counted: tuple[int, int], parent: Mapping[str, Any]) -> Facts:
    """What is known of a parsed config; `counted`: as `counted_in`; `parent`: see `Facts`."""
    trainer = {name: config["trainer"][name] for name in ("accelerator", "devices", "num_nodes")}
    quiet = {name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")}
    devices = Trainer(**trainer, **quiet)
    cuda = devices.strategy.root_device.type == "cuda"
    return Facts(_at(config, RESOLUTION), *counted, devices.num_devices * devices.num_nodes, cuda, parent)


def of_fine_tuning(config: Mapping[str, Any]) -> dict[str, Any]:
    """What goes with weights to begin with: p moves faster where it is adapted, as in ADA's code.

    That code also leaves the average without ramp-up, which here keeps it: in trainings of a few kimg, which few
    pictures ask for, the average would be the parent's for most of the time.
    """
    return {"adaptive_augmentation.speed_kimg": 100} if config["adaptive_augmentation"]["interval"] else {}


def counted_in(config: Mapping[str, Any]) -> tuple[int, int]:
    """(pictures, median of shorter sides) of a config's data; zeros where they cannot be had without reading all.

    What is wrong with the data is said where they are set up.
    """
    module, _, name = config["data"]["class_path"].rpartition(".")
    arguments = config["data"].get("init_args") or {}
    try:
        data = getattr(import_module(module), name)(**arguments)
        return data.glance() if isinstance(data, ImageData) else (0, 0)
    except (ValueError, OSError, TypeError):
        return 0, 0


def recorded(checkpoint: Path, keys: Sequence[str]) -> dict[str, Any]:
    """The values that the run of a checkpoint was trained with, of those keys that its config has."""
    config = run_config(checkpoint)
    return {key: value for key in keys if (value := _at(config, key)) is not None}


def as_options(values: Mapping[str, Any]) -> list[str]:
    """["--model.init_args.r1_gamma=0.8192", ...]"""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def with_options(argv: Sequence[str], options: Sequence[str], *, name: str) -> list[str]:
    """argv with options behind the config that names the preset: what follows overrules them.

    Where an option names it they come last, but for those that are given.
    """
    for i, word in enumerate(argv):
        apart = word in ("--config", "-c") and i + 1 < len(argv)
        file = argv[i + 1] if apart else word.partition("=")[2] if word.startswith(("--config=", "-c=")) else ""
        if file and _preset_in(file) == name:
            end = i + 1 + apart
            return [*argv[:end], *options, *argv[end:]]
    given = {word.partition("=")[0] for word in argv}
    return [*argv, *(option for option in options if option.partition("=")[0] not in given)]


def _preset_in(file: str) -> str | None:
    text = Path(file).read_text(encoding="utf-8") if Path(file).is_file() else ""
    found = yaml.safe_load(text)
    return found.get("preset") if isinstance(found, dict) else None


@rank_zero_only
def say_computed(name: str, values: Mapping[str, Any], config: Mapping[str, Any], *, of: str) -> None:
    """What was computed, and what was given instead."""
    lines = [f"preset {name.rsplit('.', 1)[-1]}, for {of}:"]
    for key, value in values.items():
        given, shown = _shown(_at(config, key)), _shown(value)
        lines.append(f"  {key:<36} {given}" + (f" (given; {shown} is computed)" if given != shown else ""))
    print("\n".join(lines), file=sys.stderr, flush=True)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
