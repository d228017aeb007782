"""A run is a folder: resolved config, versions, `metrics.jsonl`, samples, checkpoints.

runs/cgan-digits/
    config.yaml  run.json  metrics.jsonl  samples/  checkpoints/kimg00012.800.ckpt  best.ckpt
"""

import json
import os
import platform
import re
import subprocess
import time
import zipfile
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import lightning.pytorch as pl
    import torch

    from lit_gans.adversarial import GAN, Game
    from lit_gans.data import ImageData

CHECKPOINT_NAME = re.compile(r"kimg(\d+\.\d{3})(-interrupted)?\.ckpt")


# ---- folders ---------------------------------------------------------------------------------------------------------


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest on the image clock first."""
    found = [(m, p) for p in (run / "checkpoints").glob("*.ckpt") if (m := CHECKPOINT_NAME.fullmatch(p.name))]
    # An interrupted step comes before the same moment reached again in whole steps.
    return [p for m, p in sorted(found, key=lambda mp: (float(mp[0][1]), mp[0][2] is None)) if zipfile.is_zipfile(p)]


def new_run_folder(wanted: Path) -> Path:
    """`wanted`, or `wanted-2`, `wanted-3`, ...: the first that holds no checkpoint yet.

    Every process of a launch decides the same, since checkpoints appear only after all have decided.
    """
    return next(p for p in _numbered(wanted) if not checkpoints(p))


def last_run_folder(wanted: Path) -> Path:
    """The newest of `wanted`, `wanted-2`, ... that holds a checkpoint.

    Raises:
        FileNotFoundError: there is none.
    """
    last = None
    for folder in _numbered(wanted):
        if not folder.is_dir():
            break
        last = folder if checkpoints(folder) else last
    if last is None:
        raise FileNotFoundError(
            f"no checkpoint in {wanted / 'checkpoints'}: nothing to resume; start the run without --ckpt_path=last"
        )
    return last


def _numbered(wanted: Path) -> Any:
    yield wanted
    number = 2
    while True:
        yield wanted.with_name(f"{wanted.name}-{number}")
        number += 1


# ---- records ---------------------------------------------------------------------------------------------------------


def record(trainer: "pl.Trainer", metrics: dict[str, float], **stamp: Any) -> None:
    """Writes figures to `<run>/metrics.jsonl` and to the loggers at this moment of the image clock.

    Call it on all processes with the same figures; rank 0 writes. `stamp` goes to the file only.
    """
    game = trainer.lightning_module
    game.latest_metrics = {**game.latest_metrics, **metrics}
    if not trainer.is_global_zero:
        return
    line = {"kimg": game.kimg, "time_s": round(time.time(), 3), **metrics, **stamp}
    run = Path(trainer.default_root_dir)
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "metrics.jsonl", "a") as f:
        f.write(json.dumps(line) + "\n")
    for logger in trainer.loggers:
        logger.log_metrics({**metrics, "kimg": game.kimg}, step=game.images_seen)


def record_image(trainer: "pl.Trainer", name: str, path: Path) -> None:
    """Sends a PNG to the loggers that take images (rank 0)."""
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    if not trainer.is_global_zero:
        return
    game = trainer.lightning_module
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            logger.experiment.log({name: wandb.Image(str(path)), "kimg": game.kimg})
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np
            from PIL import Image

            picture = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(name, picture, game.images_seen, dataformats="HWC")


def record_table(trainer: "pl.Trainer", name: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Sends a table to Weights & Biases (rank 0); the other loggers have none."""
    from lightning.pytorch.loggers import WandbLogger

    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            table = wandb.Table(columns=columns, data=rows)
            logger.experiment.log({name: table, "kimg": trainer.lightning_module.kimg})


def describe(trainer: "pl.Trainer", command: list[str]) -> dict[str, Any]:
    """What a number of this run depends on besides its config: versions, commit, hardware."""
    import torch

    packages = ("torch", "torchvision", "lightning", "torchmetrics", "torch-fidelity", "numpy", "pillow")
    device = trainer.strategy.root_device
    return {
        "command": command,
        "versions": {"lit_gans": metadata_version("lit-gans"), **{p: metadata_version(p) for p in packages}},
        "commit": git_commit(),
        "python": platform.python_version(),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "processes": trainer.world_size,
        "precision": trainer.precision,
    }


def metadata_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the source that is running, with "+" when it has uncommitted changes; None outside of git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        status = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "") if commit.returncode == 0 else None


def cpu_name() -> str:
    """The processor's model and the number of cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


# ---- loading ---------------------------------------------------------------------------------------------------------


def find_checkpoint(path: str | os.PathLike) -> Path:
    """The checkpoint that `path` means: itself, or the newest of a run folder.

    Raises:
        FileNotFoundError: nothing there, naming what was looked for.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a run folder or a .ckpt file")
    found = checkpoints(path)
    if not found:
        raise FileNotFoundError(f"no checkpoint in {path / 'checkpoints'}: is {path} a run folder?")
    return found[-1]


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint's plain contents; nothing in the file is run.

    Raises:
        ValueError: it is no checkpoint, is damaged, holds objects beyond tensors and plain values, or is not ours.
    """
    import pickle

    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a checkpoint that can be read safely, or is damaged: {reason}") from error
    if not isinstance(checkpoint, dict) or "lit_gans" not in checkpoint:
        raise ValueError(f"{path} was not written by lit_gans (it has no 'lit_gans' entry)")
    return checkpoint


def find_device(name: str, *, double: bool = False) -> "torch.device":
    """The device called `name`; "auto" is this process's accelerator, else the CPU.

    `double`: an accelerator without double precision (Apple's) does not count.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if found is None or (double and found.type == "mps"):
            return torch.device("cpu")
        return torch.device(found.type, int(os.environ.get("LOCAL_RANK", 0)))
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # which of them depends on how torch was built
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} is not here ({reason}): give auto, cpu, cuda, cuda:1, ...") from error
    return torch.device(name)


def is_pretrained(path: str | os.PathLike) -> bool:
    """Whether it is a folder of `lit_gans.pretrained`: a model as files, without a run."""
    return all((Path(path) / name).is_file() for name in ("config.json", "model.safetensors"))


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
    from lit_gans.pretrained import from_pretrained

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


def run_config(path: str | os.PathLike) -> dict[str, Any]:
    """The resolved config of a run folder, or of the run that a checkpoint lies in.

    Raises:
        FileNotFoundError: there is no config.yaml.
    """
    import yaml

    path = Path(path)
    run = path if path.is_dir() else path.absolute().parent.parent
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"no config.yaml in {run}: is it a run folder?")
    return yaml.safe_load((run / "config.yaml").read_text())


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
