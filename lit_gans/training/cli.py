"""LightningCLI with the image clock's callbacks: what `fit` parses, builds and runs."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import warnings
from argparse import HelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import LightningDataModule
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_gans import callbacks
from lit_gans.adversarial import Game
from lit_gans.adversarial.checks import check_same_architecture, say
from lit_gans.adversarial.strategy import SyncAtStep
from lit_gans.base.checkpoints import read_checkpoint
from lit_gans.base.command import told
from lit_gans.base.files import user_path
from lit_gans.base.precision import set_float32_precision
from lit_gans.runs.classes import load_added, see_working_folder
from lit_gans.runs.configs import differences, experiment_name, find_config, with_hint
from lit_gans.runs.folder import run_config
from lit_gans.runs.initial import Initial, fit_of, read_initial, stamp, take
from lit_gans.runs.loggers import LoggerName, Tracking, build_logger, close, over_kimg
from lit_gans.runs.records import add_to_start, record_networks, record_start
from lit_gans.runs.report import write_page
from lit_gans.runs.state import record_end
from lit_gans.runs.uses import commands
from lit_gans.runs.vocabulary import share_vocabulary
from lit_gans.training import presets
from lit_gans.training.options import check_arguments, check_finite, check_trainer, with_switches
from lit_gans.training.place import TOLD, Place, as_process_zero_says, likely_folder, place_of, take_folder

# In the order of their work after a batch; each is configured by its name, as in --ema.half_life_kimg=20.
CALLBACKS = {
    "fade_in": callbacks.FadeIn,
    "ema": callbacks.EMA,
    "adaptive_augmentation": callbacks.AdaptiveAugmentation,
    "report": callbacks.Report,
    "throughput": callbacks.Throughput,
    "health": callbacks.Health,
    "image_grid": callbacks.ImageGrid,
    "evaluate": callbacks.Evaluate,
    "evaluate_translation": callbacks.EvaluateTranslation,
    "separability": callbacks.Separability,
    "checkpoint": callbacks.Checkpoint,
    "page": callbacks.Page,
    "progress": callbacks.Progress,
}
SWITCHES = {
    name: key
    for name, callback in CALLBACKS.items()
    for key in ("every_kimg", "interval")
    if key in inspect.signature(callback).parameters
}
"""What `--evaluate=off` sets to 0."""
TRAINER_DEFAULTS = {
    "max_epochs": -1,  # the image clock ends training, and the stream of batches is endless
    "limit_val_batches": 0,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "logger": None,  # --logger names one of ours, built for the run folder
}
ABOUT = "Options of one run; `--stages FILE FILE ...` takes the place of --config and trains several in turn."
KEEPS_NETWORKS = LambdaCallback(on_fit_start=record_networks)


class Parser(LightningArgumentParser):
    """Names the nearest known keys and classes when one is unknown; its help is of one group of options, or "all"."""

    def __init__(self, *args: Any, shown: str = "all", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shown = shown

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        if self.shown != "all":
            groups = {name: group for group in self._action_groups for name in _names(group)}
            self.usage = "lit-gans fit [options]"
            if self.shown not in groups:
                self.error(f"no options are of {self.shown!r}: --help=all, or of {', '.join(sorted(groups))}")
            self._action_groups = [groups[self.shown]]
        return super().format_help(*([] if formatter is None else [formatter]))

    def error(self, message: str, ex: Exception | None = None) -> None:
        if not self.exit_on_error or "JSONARGPARSE_DEBUG" in os.environ:
            super().error(message, ex)
        self.exit(2, f"{self.prog}: {with_hint(message, self, {'model': Game, 'data': LightningDataModule})}\n")


def _names(group: Any) -> set[str]:
    """What the options of a group begin with: "trainer" of --trainer.devices."""
    options = (option for action in group._group_actions for option in action.option_strings)
    return {found[1] for option in options if (found := re.match(r"--(\w+)\.", option))}


class FitCLI(LightningCLI):
    """LightningCLI with the image clock's callbacks; `run` is the folder that the run writes to."""

    def __init__(self, argv: list[str], *, run_folder: str | None) -> None:
        self.argv, self.wanted_run = argv, run_folder
        self.initial: Initial | None = None
        asked = [word.partition("=")[2] for word in argv if word.startswith("--help=")]
        super().__init__(
            Game,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={**TRAINER_DEFAULTS, "callbacks": [callbacks.DataReport(), KEEPS_NETWORKS]},
            parser_class=Parser,
            parser_kwargs={"prog": "lit-gans fit", "description": ABOUT, "shown": (asked or ["all"])[-1]},
            args=["--help"] if asked else argv,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_folder", type=str | None, help="run folder; default runs/<config's folder>-<config's name>"
        )
        parser.add_argument(
            "--ckpt_path", type=str | None,
            help="'last' continues the run; 'auto' too, or starts it if there is nothing to continue; or a .ckpt file",
        )  # fmt: skip
        parser.add_argument(
            "--init_from", type=str | None,
            help="weights to begin with on a new clock: a run, .ckpt, saved folder, official .pkl, or owner/name (hub)",
        )  # fmt: skip
        parser.add_argument(
            "--logger", type=LoggerName | None, help="where curves and grids go; default wandb, or trainer.logger"
        )
        parser.add_class_arguments(Tracking, "wandb")
        parser.add_argument(
            "--preset", type=str | None, help="import path of a function that computes settings, as stylegan2/auto has"
        )
        parser.add_argument(
            "--float32_matmul_precision", default="high", choices=["highest", "high", "medium"],
            help="'high' lets GPUs multiply float32 in TF32; 'highest' does not",
        )  # fmt: skip
        for name, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
        parser.set_defaults({"adaptive_augmentation.interval": 0})  # most models have no augmentation
        parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """With what the preset computes, if there is one. The config then has its values, and no preset."""
        asked = [word for word in args if word.startswith("--print_config")]
        given = [word for word in args if word not in asked]
        super().parse_arguments(parser, given)
        given = self._with_initial(parser, given)
        if self.config["preset"]:
            given = self._with_preset(parser, given, self.config["preset"])
        if asked:
            super().parse_arguments(parser, [*given, "--preset=null", *asked])
        self.config["preset"] = None

    def _with_initial(self, parser: LightningArgumentParser, given: list[str]) -> list[str]:
        """The arguments, and what goes with weights to begin with, which a run that goes on does not read again."""
        source = self.config["init_from"]
        if source is None:
            return given
        if self._place().checkpoint is None:
            self.initial = read_initial(source)
        values = presets.of_fine_tuning(self.config)
        if not values:
            return given
        options = presets.with_options(given, presets.as_options(values), name="")
        super().parse_arguments(parser, options)
        presets.say_computed("fine_tuning", values, self.config.as_dict(), of=f"weights of {source}")
        return options

    def _with_preset(self, parser: LightningArgumentParser, given: list[str], name: str) -> list[str]:
        """The arguments, and what is computed, of the resolution that is given or computed; a resume has its run's."""
        preset, checkpoint = presets.preset_of(name), self._place().checkpoint
        parent = {} if self.initial is None else self.initial.arguments
        if checkpoint is not None and self.config["init_from"]:
            parent = run_config(checkpoint)["model"]["init_args"]  # its own by now
        counted, options = presets.counted_in(self.config.as_dict()), given
        for _ in range(2):  # the first may compute a resolution, of which the second computes all others
            facts = presets.facts_of(self.config.as_dict(), counted, parent)
            values = preset(facts)
            if checkpoint is not None:
                values = presets.recorded(checkpoint, list(values))
            options = presets.with_options(given, presets.as_options(values), name=name)
            super().parse_arguments(parser, options)
        of = f"{facts}" if checkpoint is None else f"the run of {checkpoint}"
        presets.say_computed(name, values, self.config.as_dict(), of=of)
        return options

    def instantiate_classes(self) -> None:
        """With the errors of constructors as they were raised; the parser tells them among types that it tried."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            first: BaseException = error
            while str(first).startswith("Does not validate") and first.__cause__ is not None:
                first = first.__cause__
            raise first from None

    def before_instantiate_classes(self) -> None:
        check_finite(self.config.as_dict())
        options = self.config["trainer"].as_dict()
        check_trainer(options, {name: self.parser.get_default(f"trainer.{name}") for name in options})
        self.place = Place(Path(self.wanted_run)) if self.wanted_run else self._place()
        self.config["trainer"]["default_root_dir"] = str(likely_folder(self.place))
        self._choose_logger()
        share_vocabulary(self.config["model"], self.config["data"])

    def _place(self) -> Place:
        configs = _config_values(self.argv)
        default = Path("runs") / (experiment_name(Path(configs[-1])) if configs else "run")
        return place_of(self.config["run_folder"], self.config["ckpt_path"], default=default)

    @property
    def run(self) -> Path:
        """The run folder."""
        return Path(self.config["trainer"]["default_root_dir"])

    @contextmanager
    def run_folder_taken(self) -> Iterator[None]:
        """Inside, the run folder is this start's alone, and `run` and `place` are the same on all processes."""
        folder = None

        def decide() -> Place:
            nonlocal folder
            folder, place = take_folder(self.place, ckpt_path=self.config["ckpt_path"])
            return place

        try:
            self.place = as_process_zero_says(self.trainer, decide)
            self.config["trainer"]["default_root_dir"] = self.trainer._default_root_dir = str(self.place.run)
            yield
        finally:
            os.environ.pop(TOLD, None)
            if folder is not None:
                folder.leave(trained=self.model.images_seen > 0)

    def _choose_logger(self) -> None:
        """Raises ValueError where the short way and Lightning's are both taken."""
        ours, theirs = self.config["logger"], self.config["trainer"]["logger"]
        if ours and theirs:
            raise ValueError(f"--logger={ours} and a trainer.logger are both given: keep one of them")
        if not theirs:
            self.config["logger"] = ours or ("wandb" if theirs is None else "none")
            self.config["trainer"]["logger"] = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Raises ValueError for what Lightning's trainer refuses."""
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (TypeError, MisconfigurationException) as error:  # of devices, accelerator, precision
            raise ValueError(f"trainer: {error}") from error
        strategy = trainer.strategy
        if type(strategy) is DDPStrategy and not strategy._ddp_kwargs.get("find_unused_parameters"):
            # What "auto" and "ddp" mean on several devices; see SyncAtStep.
            trainer = super().instantiate_trainer(**{**kwargs, "strategy": "sync_at_step"})
            assert isinstance(trainer.strategy, SyncAtStep)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = CheckedIO()
        return trainer


class CheckedIO(TorchCheckpointIO):
    """Reads checkpoints as `read_checkpoint` does; torch.load compares no checksums."""

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(path)


def parse(argv: list[str], *, run_folder: str | None = None) -> FitCLI:
    """Builds everything that `argv` describes and runs nothing: `.trainer`, `.model`, `.datamodule`, `.config`.

    `run_folder` is where the run will write; by default as `fit` chooses it.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import_module("lit_gans.papers")  # a class has a short name, as in --model=CGAN, once it is imported
    load_added()
    see_working_folder()
    check_arguments(argv)
    found = with_switches(_with_shipped_configs(_with_parents_config(argv)), SWITCHES)
    sys.path += [str(Path(config).resolve().parent) for config in _config_values(found)]  # a model's file beside it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*treespec.*|.*intended to run from within Python.*")
        return FitCLI(found, run_folder=run_folder)


def set_arithmetic(cli: FitCLI) -> None:
    """Sets what holds for the whole process: TF32, and whether cuDNN searches for its fastest convolutions.

    It searches at each new size, which pays where sizes stay: not while networks grow. `trainer.benchmark` decides,
    where it is given; `trainer.deterministic` forbids it.
    """
    set_float32_precision(cli.config["float32_matmul_precision"])
    if cli.config["trainer"]["benchmark"] is None and not torch.are_deterministic_algorithms_enabled():
        torch.backends.cudnn.benchmark = cli.config["fade_in"]["start_px"] == 0


def train(cli: FitCLI, argv: list[str]) -> Path:
    """Trains what was parsed; the run folder, which belongs to this start from here to the end."""
    set_arithmetic(cli)
    with cli.run_folder_taken():
        _train(cli, argv)
    return cli.run


def _train(cli: FitCLI, argv: list[str]) -> None:
    trainer, checkpoint = cli.trainer, cli.place.checkpoint
    if checkpoint is not None:
        found = read_checkpoint(checkpoint)
        check_same_architecture(cli.model, found)
        if _is_finished(cli, checkpoint, found["lit_gans"]["images_seen"]):
            return
    beginning = _begin(cli)
    if trainer.is_global_zero:
        _say_changes(cli, checkpoint)
        record_start(trainer, cli.parser.dump(cli.config, skip_unset=False), ["lit-gans", "fit", *argv])
        add_to_start(cli.run, **beginning)
        if cli.config["logger"] is not None:
            trainer.logger = build_logger(
                cli.config["logger"], cli.run, tracking=Tracking(**cli.config["wandb"].as_dict())
            )
        for each in trainer.loggers:
            over_kimg(each)
            each.log_hyperparams(_plain_config(cli))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*treespec.*|.*does not have many workers.*|.*pre-optimization state.*")
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # networks that are frozen
        ended, why = "failed", ""
        try:
            trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
            ended = "finished"
        except (SIGTERMException, KeyboardInterrupt):
            ended = "stopped"
            raise
        except Exception as error:
            why = told(error)
            raise
        finally:
            if trainer.is_global_zero:
                _finish(cli, ended, why)


def _is_finished(cli: FitCLI, checkpoint: Path, images_seen: int) -> bool:
    """Whether nothing is left to train, as a job that starts again by itself may find; ValueError for any other."""
    if images_seen < 1000 * cli.model.total_kimg:
        return False
    told = f"{checkpoint} stands at {images_seen / 1000:g} kimg of {cli.model.total_kimg:g}: nothing is left to train"
    if cli.config["ckpt_path"] != "auto":
        raise ValueError(
            f"{told}; give a larger --model.init_args.total_kimg, or --init_from={cli.place.run} in the place of "
            "--ckpt_path to begin anew with its weights"
        )
    say(cli.trainer, told)
    return True


def _begin(cli: FitCLI) -> dict[str, Any]:
    """Sees to it that training begins with the weights of --init_from; what run.json says of them."""
    if cli.initial is None:
        return {}
    fit = fit_of(cli.initial, cli.model)
    say(cli.trainer, f"init_from: {cli.initial.told}\n  {fit}\n  clock and optimisers are new")
    # After all that a model does at the start of its first run, and before the first grid.
    begins = LambdaCallback(on_train_start=lambda trainer, game: take(fit, game))
    cli.trainer.callbacks.insert(0, begins)
    return stamp(cli.initial, fit)


def _finish(cli: FitCLI, ended: str, why: str) -> None:
    """The page, and the loggers' last words; where the disk refuses them they do not hide what ended training."""
    try:
        write_page(cli.run, state=record_end(cli.run, ended, why), commands=commands(cli.run, cli.model))
    except OSError as error:
        warnings.warn(f"{cli.run / 'index.html'} was not written: {told(error)}", stacklevel=2)
    for each in cli.trainer.loggers:
        close(each)


def _config_values(argv: list[str]) -> list[str]:
    return _values_of("--config", "-c", in_=argv)


def _values_of(*names: str, in_: list[str]) -> list[str]:
    values = [a.split("=", 1)[1] for a in in_ if a.startswith(tuple(f"{name}=" for name in names))]
    return values + [in_[i + 1] for i, a in enumerate(in_[:-1]) if a in names]


def _with_parents_config(argv: list[str]) -> list[str]:
    """Where no config and no model are given, those of the run that --init_from names, in a run folder of its own."""
    sources = _values_of("--init_from", in_=argv)
    if not sources or _config_values(argv) or any(a.startswith("--model") and "init_args" not in a for a in argv):
        return argv
    path = user_path(sources[-1])
    run = path if path.is_dir() else path.absolute().parent.parent
    if not (run / "config.yaml").is_file():
        raise ValueError(f"--init_from={sources[-1]} is no run with a config: give --config, such as stylegan2/photos")
    run = run.resolve()
    theirs = [f"--config={run / 'config.yaml'}", "--ckpt_path=null", f"--run_folder=runs/{run.name}-tuned"]
    return [*theirs, *argv]


def _with_shipped_configs(argv: list[str]) -> list[str]:
    """Config files that are not on disk but came with the package are found there."""
    given = set(_config_values(argv))
    found = {value: str(find_config(value)) for value in given}
    return [
        found.get(a) or (a.split("=", 1)[0] + "=" + found[a.split("=", 1)[1]] if a.startswith("--config=") else a)
        for a in argv
    ]


def _say_changes(cli: FitCLI, checkpoint: Path | None) -> None:
    """Which settings of the run that is continued are others now; they hold from here on."""
    before = checkpoint.resolve().parent.parent / "config.yaml" if checkpoint else None
    if before is not None and before.is_file():
        with suppress(yaml.YAMLError, OSError, UnicodeDecodeError):  # to say it is no reason to stop
            changed = differences(yaml.safe_load(before.read_text(encoding="utf-8")), _plain_config(cli))
            if changed:
                print(f"settings that differ from {before}, and hold from here on:", *changed, sep="\n  ")


def _plain_config(cli: FitCLI) -> dict[str, Any]:
    return yaml.safe_load(cli.parser.dump(cli.config, skip_unset=False))
