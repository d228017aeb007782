"""A run is a folder: resolved config, versions, `metrics.jsonl`, samples, checkpoints.

runs/cgan-digits/
    config.yaml  run.json  metrics.jsonl  samples/  checkpoints/kimg00012.800.ckpt  best.ckpt
"""

import os
from pathlib import Path
from typing import Any

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Samples, Translates, can, require
from lit_gans.base.checkpoints import find_checkpoint, read_checkpoint
from lit_gans.data import ImageData
from lit_gans.runs.classes import check_loss, trusted_class
from lit_gans.runs.folder import is_pretrained
from lit_gans.runs.pretrained import from_pretrained


def load_run(path: str | os.PathLike, *, trust: str | None = None) -> Game:
    """The model of a run folder, .ckpt file or pretrained folder on the CPU, in evaluation mode.

    Only classes of lit_gans and of installed packages of papers are built, and of the package `trust`, if you name one.

    Raises:
        FileNotFoundError, ValueError: as `find_checkpoint` and `read_checkpoint`; or the class is not trusted.
    """
    if is_pretrained(path):
        return _load_pretrained(Path(path), trust)
    checkpoint = read_checkpoint(find_checkpoint(path))
    cls = trusted_class(checkpoint["lit_gans"]["class_path"], Game, trust=trust)
    arguments = {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")}
    check_loss(arguments, trust=trust)
    game = cls(**arguments)
    game.on_load_checkpoint(checkpoint)
    game.load_state_dict(checkpoint["state_dict"])
    return game.eval().requires_grad_(False)


def _load_pretrained(folder: Path, trust: str | None) -> Game:
    from lit_gans.papers import msg_gan, pggan, stylegan1, stylegan2

    model = from_pretrained(folder, trust=trust)
    alone = {
        stylegan2.Generator: stylegan2.StyleGAN2,
        stylegan1.Generator: stylegan1.StyleGAN1,
        pggan.Generator: pggan.PGGAN,
        msg_gan.Generator: msg_gan.MSGGAN,
    }
    if type(model) in alone:
        model = alone[type(model)].around(model)
    if not isinstance(model, Game):
        raise ValueError(f"{folder} holds a {type(model).__name__}, which draws no images: give a generator's folder")
    return model.eval().requires_grad_(False)


def load_gan(path: str | os.PathLike, *, trust: str | None = None) -> Samples:
    """As `load_run`, of a run whose model samples images.

    Raises:
        FileNotFoundError, ValueError: as `load_run`; or the model samples none.
    """
    game = load_run(path, trust=trust)
    way_out = "use lit-gans translate" if can(game, Translates) else "give the run of another model"
    return require(game, Samples, f"sampling {path}", otherwise=way_out)


def build_data(config: dict[str, Any], *, trust: str | None = None) -> ImageData:
    """The datamodule that a resolved config describes, of a class as `load_run` builds it.

    Raises:
        ValueError: another class.
    """
    cls = trusted_class(config["data"]["class_path"], ImageData, trust=trust)
    return cls(**(config["data"].get("init_args") or {}))
