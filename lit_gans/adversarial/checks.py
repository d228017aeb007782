"""What is checked before training starts, each failure with one message and the way out."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden

from lit_gans.adversarial.strategy import SyncAtStep
from lit_gans.augment.image_pool import pool_buffers
from lit_gans.base.checkpoints import open_checkpoint
from lit_gans.data.base import ImageData
from lit_gans.metrics.sources import Samples

if TYPE_CHECKING:
    from lit_gans.adversarial.game import Game

SLOW_BF16_VARIABLE = "LIT_GANS_ALLOW_SLOW_BF16"
# Lightning calls these in automatic optimisation alone: they would be written and never run.
UNCALLED_HOOKS = {
    "optimizer_step": "what belongs to a step stands in `with self.updating(optimizer)` or on_before_optimizer_step",
    "optimizer_zero_grad": "`with self.updating(optimizer)` does it",
    "on_before_zero_grad": "put it before `with self.updating(optimizer)`, which begins with it",
    "configure_gradient_clipping": "set clip_grad_norm, or clip in on_before_optimizer_step",
    "lr_scheduler_step": "set schedule and warmup_kimg, or set the rates in on_train_batch_start",
}


def check_strategy(trainer: pl.Trainer) -> None:
    """Plain DDP crashes on alternating optimisers in the first step; this says so before it.

    Raises:
        ValueError: the strategy wraps the module and does not look for unused parameters.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy) or isinstance(strategy, SyncAtStep):
        return
    if not strategy._ddp_kwargs.get("find_unused_parameters", False):
        raise ValueError(
            "strategy 'ddp' expects gradients of all parameters in every backward pass, and a discriminator step has "
            "none of the generator's: use --trainer.strategy=sync_at_step (the default on several devices) or "
            "ddp_find_unused_parameters_true"
        )


def check_hooks(game: "Game", trainer: pl.Trainer) -> None:
    """No hook may be written that is never called.

    Raises:
        ValueError: the game or a callback has one of `UNCALLED_HOOKS`.
    """
    dead = [(game, h) for h in UNCALLED_HOOKS if is_overridden(h, game, pl.LightningModule)]
    hook = "on_before_zero_grad"  # the only one of them that callbacks have
    dead += [(c, hook) for c in trainer.callbacks if is_overridden(hook, c, pl.Callback)]  # type: ignore[attr-defined]
    for owner, hook in dead[:1]:
        raise ValueError(
            f"{type(owner).__name__}.{hook} would never be called, as Lightning does it in automatic optimisation "
            f"alone: {UNCALLED_HOOKS[hook]}"
        )


def say(trainer: pl.Trainer, line: str) -> None:
    """A line for the user, once and not per process."""
    if trainer.is_global_zero:
        print(line, file=sys.stderr)


def check_data(trainer: pl.Trainer) -> None:
    """Says what cannot be promised of data that do not follow the image clock."""
    if not isinstance(trainer.datamodule, ImageData):  # type: ignore[attr-defined]
        say(
            trainer,
            "the data are not of lit_gans.data: after a resume their order is theirs to keep, and on several processes "
            "each must be given its own part (trainer.use_distributed_sampler=true does it for a DataLoader)",
        )


def check_precision(trainer: pl.Trainer) -> None:
    """bf16 on a CPU without bf16 instructions is 13 to 27 times slower than fp32, and fp16 is worse.

    Raises:
        ValueError: a half precision on such a CPU, unless $LIT_GANS_ALLOW_SLOW_BF16 is 1.
    """
    if trainer.precision not in ("bf16-mixed", "16-mixed", "bf16-true", "16-true"):
        return
    if trainer.strategy.root_device.type != "cpu" or os.environ.get(SLOW_BF16_VARIABLE) == "1":
        return
    if trainer.precision.startswith("bf16") and cpu_has_fast_bf16():
        return
    raise ValueError(
        f"precision {trainer.precision} on a CPU without AVX512-BF16 or AMX instructions makes convolutions 13 to 27 "
        f"times slower than fp32: use --trainer.precision=32-true, or set {SLOW_BF16_VARIABLE}=1 to insist"
    )


def cpu_has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def check_batch_size(game: "Game", trainer: pl.Trainer) -> None:
    """Every micro-batch of every process must have the same number of images.

    Raises:
        ValueError: the global batch cannot be divided so.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    parts = trainer.world_size * game.micro_batches
    if isinstance(data, ImageData) and data.batch_size % parts:
        raise ValueError(
            f"batch_size {data.batch_size} (global) is not divisible by {trainer.world_size} processes x "
            f"{game.micro_batches} micro-batches: use a multiple of {parts}"
        )


def class_names_for(model: Samples, trainer: pl.Trainer) -> tuple[str, ...]:
    """What the data call the classes of a conditional model; () of others, and where the data are not ours."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return tuple(data.class_names) if model.num_classes and isinstance(data, ImageData) else ()


def check_against_data(model: Samples, trainer: pl.Trainer) -> None:
    """The data must have the images that the model was built to sample.

    Raises:
        ValueError: they are of another kind, or sizes, channels or classes differ.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ImageData):
        return
    if data.gives == "pictures to translate":
        raise ValueError(
            f"{type(model).__name__} makes images from latents, and {type(data).__name__} gives {data.gives}: "
            "use data of single images, such as lit_gans.data.Images"
        )
    for name, way_out in (("resolution", ""), ("channels", " (1 is grey, 3 is RGB)")):
        ours, theirs = getattr(model, name), getattr(data, name)
        if ours != theirs:
            raise ValueError(
                f"the model has {name} {ours}, the data have {name} {theirs}{way_out}: set both "
                f"model.init_args.{name} and data.init_args.{name}"
            )
    if model.num_classes and not data.num_classes:
        raise ValueError(
            f"{type(model).__name__} is conditional on {model.num_classes} classes, and the data have no labels: give "
            "labelled data (sub-folders per class, or dataset.json in the zip), or set model.init_args.num_classes=0"
        )
    if model.num_classes and model.num_classes != data.num_classes:
        raise ValueError(
            f"{type(model).__name__} has num_classes {model.num_classes}, the data have {data.num_classes} classes: "
            f"set model.init_args.num_classes={data.num_classes}"
        )


def class_path(game: "Game") -> str:
    """What checkpoints and configs call its class."""
    return f"{type(game).__module__}.{type(game).__qualname__}"


def open_earlier(game: "Game", run: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    """(path, checkpoint) of the run, of the same class, that a stage or a phase goes on from: `start_from`.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is of another class.
    """
    path, checkpoint = open_checkpoint(run)
    theirs, ours = checkpoint.get("lit_gans", {}).get("class_path"), class_path(game)
    if theirs != ours:
        raise ValueError(f"start_from {path} holds a {theirs}, and must hold a {ours}")
    return path, checkpoint


def check_same_architecture(game: "Game", checkpoint: dict[str, Any]) -> None:
    """A checkpoint is loaded only into the class and shape of networks that it was saved from.

    Raises:
        ValueError: it is not ours, of another class, or its tensors do not fit, naming the first differences.
    """
    if "lit_gans" not in checkpoint:
        raise ValueError("this checkpoint was not written by lit_gans (it has no 'lit_gans' entry): cannot resume")
    theirs, ours = checkpoint["lit_gans"]["class_path"], class_path(game)
    if theirs != ours:
        raise ValueError(f"the checkpoint holds a {theirs}, the config asks for a {ours}: use the run's own config")
    growing = pool_buffers(game)
    saved, wanted = (
        {k: "any" if k in growing else tuple(v.shape) for k, v in state.items()}
        for state in (checkpoint["state_dict"], game.state_dict())
    )
    wrong = [
        f"{k}: saved {saved.get(k)}, wanted {wanted.get(k)}"
        for k in sorted(saved.keys() | wanted.keys())
        if saved.get(k) != wanted.get(k)
    ]
    if wrong:
        raise ValueError(
            f"the checkpoint's networks differ from the config's in {len(wrong)} tensors ({'; '.join(wrong[:3])}): "
            "use the run's own config"
        )
