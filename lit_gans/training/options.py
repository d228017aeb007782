"""Options that cannot be honoured are refused before anything is built, in one line that names what does it here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

END = "training ends by images shown: set model.init_args.total_kimg"
NO_EPOCHS = f"batches are one endless stream, which it would begin anew each time: {END}, or give fewer pictures"
NO_VALIDATION = "there is no validation loop: set evaluate.every_kimg"
# What of Lightning's trainer would do nothing here, or something else.
INSTEAD = {
    "gradient_clip_val": "each player's step has its own gradients: set model.init_args.clip_grad_norm",
    "gradient_clip_algorithm": "gradients are clipped by their norm: set model.init_args.clip_grad_norm",
    "accumulate_grad_batches": "set model.init_args.micro_batches, or a larger data.init_args.batch_size",
    "max_steps": f"Lightning counts the steps of all players together; {END}",
    "min_steps": END,
    "max_epochs": f"there are no epochs; {END}",
    "min_epochs": f"there are no epochs; {END}",
    "limit_train_batches": NO_EPOCHS,
    "overfit_batches": NO_EPOCHS,
    "limit_val_batches": NO_VALIDATION,
    "limit_test_batches": NO_VALIDATION,
    "limit_predict_batches": NO_VALIDATION,
    "val_check_interval": NO_VALIDATION,
    "check_val_every_n_epoch": NO_VALIDATION,
    "num_sanity_val_steps": NO_VALIDATION,
    "log_every_n_steps": "figures are means over images: set report.every_kimg",
    "reload_dataloaders_every_n_epochs": "there are no epochs; data follow the image clock",
    "fast_dev_run": f"give a small one: {END}=0.064",
    "barebones": "it would save and measure nothing; `lit-gans benchmark` tells the speed without callbacks",
    "sync_batchnorm": "batch norm sees the batches of all processes already",
}
STRATEGIES = ("fsdp", "deepspeed", "ddp_spawn", "ddp_fork", "ddp_notebook", "dp", "xla", "fsdp2", "model_parallel")


OFF = ("off", "null", "none", "false")


def with_switches(argv: Sequence[str], switches: Mapping[str, str]) -> list[str]:
    """argv with `--evaluate=off` (or null, none, false) as --evaluate.every_kimg=0; `switches`: the key by name."""
    found, words = [], iter(argv)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in switches:
            value = value if equals else next(words, "")
            if value.lower() not in OFF:
                raise ValueError(f"--{name}={value}: give off, or what is to be set, as --{name}.{switches[name]}=20")
            word = f"--{name}.{switches[name]}=0"
        found.append(word)
    return found


def check_trainer(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """ValueError for an option of the trainer that differs from its default and could not be honoured."""
    for name, instead in INSTEAD.items():
        if given[name] != defaults[name]:
            raise ValueError(f"trainer.{name}={given[name]} cannot be honoured: {instead}")
    strategy = given["strategy"]
    if isinstance(strategy, str) and strategy.startswith(STRATEGIES):
        raise ValueError(
            f"trainer.strategy={strategy} cannot be honoured: several optimisers step by turns, of which it knows one; "
            "leave it out (sync_at_step) or take ddp_find_unused_parameters_true"
        )


def check_arguments(argv: Sequence[str]) -> None:
    """ValueError for what the command line sets and something else decides."""
    for word in argv:
        name = word.removeprefix("--").partition("=")[0]
        if name == "trainer.default_root_dir":
            raise ValueError(f"{word}: a run writes all it makes into one folder, set by --run_folder")
        if name.startswith(("model.", "data.")) and name.rsplit(".", 1)[-1] == "seed":
            raise ValueError(f"{word}: one seed decides everything random, set by --seed_everything")


def check_finite(given: Any, *, at: str = "") -> None:
    """ValueError for a number that is NaN or infinite, with its key."""
    if isinstance(given, float) and not math.isfinite(given):
        raise ValueError(f"{at} is {given}; it must be a finite number")
    parts = given.items() if isinstance(given, Mapping) else enumerate(given) if isinstance(given, list) else ()
    for key, value in parts:
        check_finite(value, at=f"{at}.{key}" if at else str(key))
