"""A run is a folder: resolved config, versions, `metrics.jsonl`, samples, checkpoints.

runs/cgan-digits/
    config.yaml  run.json  metrics.jsonl  samples/  checkpoints/kimg00012.800.ckpt  best.ckpt
"""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_gans.base.checkpoints import find_checkpoint, read_checkpoint
from lit_gans.runs.folder import is_pretrained

if TYPE_CHECKING:

    from lit_gans.adversarial import GAN, Game
    from lit_gans.data import ImageData


# ---- folders ---------------------------------------------------------------------------------------------------------


# ---- records ---------------------------------------------------------------------------------------------------------


# ---- loading ---------------------------------------------------------------------------------------------------------


def load_run(path: str | os.PathLike, *, trust: str | None = None) -> "Game":
    """The model of a run folder, .ckpt file or pretrained folder on the CPU, in evaluation mode.

    Only classes of `lit_gans.papers` are built, unless `trust` names another package that you trust.

    Raises:
        FileNotFoundError, ValueError: as `find_checkpoint` and `read_checkpoint`; or the class is not trusted.
    """
    if is_pretrained(path):
        return _load_pretrained(Path(path))
    checkpoint = read_checkpoint(find_checkpoint(path))
    cls = _trusted_class(checkpoint["lit_gans"]["class_path"], packages=("lit_gans.papers", trust))
    arguments = {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")}
    loss = arguments.get("loss")
    if loss is not None and not _inside(loss, ("lit_gans", trust)):
        raise ValueError(f"the checkpoint names the loss {loss!r}, which is not ours; pass trust= its package")
    game = cls(**arguments)
    game.on_load_checkpoint(checkpoint)
    game.load_state_dict(checkpoint["state_dict"])
    return game.eval().requires_grad_(False)


def _load_pretrained(folder: Path) -> "Game":
    from lit_gans.adversarial import Game
    from lit_gans.papers import msg_gan, pggan, stylegan1, stylegan2
    from lit_gans.runs.pretrained import from_pretrained

    model = from_pretrained(folder)
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


def load_gan(path: str | os.PathLike, *, trust: str | None = None) -> "GAN":
    """As `load_run`, of a run whose model makes images from latents.

    Raises:
        FileNotFoundError, ValueError: as `load_run`; or the model translates images.
    """
    from lit_gans.adversarial import GAN

    game = load_run(path, trust=trust)
    if not isinstance(game, GAN):
        raise ValueError(
            f"{path} holds a {type(game).__name__}, which makes nothing from latents but translates images: use "
            "lit-gans translate"
        )
    return game


def _inside(path: str, packages: tuple[str | None, ...]) -> bool:
    return any(p is not None and (path == p or path.startswith(p + ".")) for p in packages)


def _trusted_class(class_path: str, *, packages: tuple[str | None, ...]) -> type["Game"]:
    from lit_gans.adversarial import Game

    if not _inside(class_path, packages):
        raise ValueError(
            f"the checkpoint's class {class_path!r} is not one of lit_gans.papers; pass trust= its package"
        )
    module, _, name = class_path.rpartition(".")
    try:
        cls = getattr(import_module(module), name, None)
    except ImportError:
        cls = None
    if not (isinstance(cls, type) and issubclass(cls, Game)):
        raise ValueError(f"the checkpoint's class {class_path!r} is not a GAN of this version of lit_gans")
    return cls


def build_data(config: dict[str, Any]) -> "ImageData":
    """The datamodule that a resolved config describes; only classes of `lit_gans.data` are built.

    Raises:
        ValueError: another class.
    """
    from lit_gans import data
    from lit_gans.data import ImageData

    class_path, arguments = config["data"]["class_path"], config["data"].get("init_args") or {}
    module, _, name = class_path.rpartition(".")
    cls = getattr(data, name, None) if _inside(module, ("lit_gans.data",)) else None
    if not (isinstance(cls, type) and issubclass(cls, ImageData)):
        raise ValueError(f"data class {class_path!r} of the config is not one of lit_gans.data")
    return cls(**arguments)
