"""A run is a folder: resolved config, versions, `metrics.jsonl`, samples, checkpoints.

runs/cgan-digits/
    config.yaml  run.json  metrics.jsonl  samples/  checkpoints/kimg00012.800.ckpt  best.ckpt
"""

import os
from pathlib import Path
from typing import Any

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Translates, can
from lit_gans.base.checkpoints import open_checkpoint
from lit_gans.data import ImageData
from lit_gans.runs.classes import check_loss, trusted_class
from lit_gans.runs.conversion import model_around
from lit_gans.runs.folder import is_pretrained
from lit_gans.runs.pretrained import from_pretrained


def load_run(path: str | os.PathLike, *, trust: str | None = None) -> Game:
    """The model of a run folder, .ckpt file or pretrained folder on the CPU, in evaluation mode.

    Only classes of lit_gans and of installed packages of papers are built, and of the package `trust`, if you name one.

    Raises:
        FileNotFoundError, ValueError: as `open_checkpoint`; or the class is not trusted, or not what the file fits.
    """
    if is_pretrained(path):
        return _load_pretrained(Path(path), trust)
    path, checkpoint = open_checkpoint(path)
    cls = trusted_class(checkpoint["lit_gans"]["class_path"], Game, trust=trust)
    arguments = {k: v for k, v in checkpoint.get("hyper_parameters", {}).items() if not k.startswith("_")}
    check_loss(arguments, trust=trust)
    try:
        game = cls(**arguments)
        game.on_load_checkpoint(checkpoint)
        game.load_state_dict(checkpoint["state_dict"])
    except (TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{path} does not fit {cls.__name__} ({type(error).__name__}: {error})") from error
    return game.eval().requires_grad_(False)


def _load_pretrained(folder: Path, trust: str | None) -> Game:
    model = from_pretrained(folder, trust=trust)
    model = model if isinstance(model, Game) else model_around(folder, model, trust=trust)
    return model.eval().requires_grad_(False)


def load_translator(path: str | os.PathLike, *, direction: str = "ab", trust: str | None = None) -> Translates:
    """As `load_run`, of a run or a converted folder whose model translates images in this direction.

    Raises:
        FileNotFoundError, ValueError: as `load_run`; or it translates nothing, or not in this direction.
    """
    model = load_run(path, trust=trust)
    if not can(model, Translates):
        raise ValueError(f"{path} holds a {type(model).__name__}, which translates nothing: see lit-gans sample")
    if direction not in model.directions:
        raise ValueError(f"direction {direction!r}: {path} translates only {' and '.join(model.directions)}")
    channels, labels = model.takes(direction)
    if not labels and channels not in (1, 3):
        raise ValueError(f"{path} takes {channels} channels, and pictures have 1 or 3: call its translate from Python")
    return model


def build_data(config: dict[str, Any], *, trust: str | None = None) -> ImageData:
    """The datamodule that a resolved config describes, of a class as `load_run` builds it.

    Raises:
        ValueError: another class.
    """
    cls = trusted_class(config["data"]["class_path"], ImageData, trust=trust)
    return cls(**(config["data"].get("init_args") or {}))
