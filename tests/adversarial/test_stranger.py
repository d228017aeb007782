"""The ritual on modules, data, callbacks and loggers that know nothing of it."""

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lit_gans import fit as verb
from lit_gans.adversarial import Game
from lit_gans.adversarial.checks import UNCALLED_HOOKS
from lit_gans.adversarial.clock import Clock, images_in
from lit_gans.base.checkpoints import checkpoints
from lit_gans.callbacks import EMA, Checkpoint, Health, ImageGrid, Report, Throughput
from lit_gans.runs.load import load_run
from tests.adversarial import tiny
from tests.adversarial.stranger import BATCH, Autoencoder, build, fit
from tests.cases import largest_difference


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ---- the clock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch",
    [
        torch.ones(3, 2),
        {"a": torch.ones(3), "b": 1},
        (None, [torch.tensor(7), torch.ones(3)]),
        {"c": {"d": [torch.ones(3)]}},
    ],
)
def test_a_batch_is_counted_by_its_first_rows(batch: Any) -> None:
    assert images_in(batch, 2) == 6


def test_a_batch_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of dict holds no tensor whose rows could be counted"):
        images_in({"a": torch.tensor(3), "b": "text"}, 1)


class Twice(Autoencoder):
    """A recipe that adds to its parent's."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        before = self.images_seen
        super().training_step(batch, batch_idx)
        assert self.images_seen == before and self.mid_step, "the batch is counted when it is over"


class Grandchild(Twice):
    """A class that changes nothing."""


class Seen(pl.Callback):
    def __init__(self) -> None:
        self.at: list[tuple[int, int, bool]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, game: Game, *args: Any) -> None:
        self.at.append((game.images_seen, game.batches_seen, game.mid_step))


@pytest.mark.parametrize("cls", [Twice, Grandchild])
def test_each_batch_counts_once_before_callbacks_see_its_end(cls: type[Game], tmp_path: Path) -> None:
    first, game = Seen(), build(cls)
    trainer = fit(game, tmp_path, first)
    assert first.at == [(n * BATCH, n, False) for n in range(1, 9)]
    assert isinstance(trainer.callbacks[0], Clock)


def test_a_second_fit_goes_on_with_one_clock(tmp_path: Path) -> None:
    game, seen = build(total_kimg=0.048), Seen()
    trainer = fit(game, tmp_path, seen)
    game.total_kimg = 0.08
    trainer.fit(game, trainer.train_dataloader)
    assert [at[0] for at in seen.at] == [16, 32, 48, 64, 80]
    assert sum(isinstance(c, Clock) for c in trainer.callbacks) == 1


def test_an_error_in_a_step_leaves_the_clock_in_the_middle_of_it(tmp_path: Path) -> None:
    class Breaks(Autoencoder):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            super().training_step(batch, batch_idx)
            if self.batches_seen == 2:
                raise RuntimeError("broken")

    game, seen = build(Breaks), Seen()
    with pytest.raises(RuntimeError, match="broken"):
        fit(game, tmp_path, seen, Checkpoint(0, 0, monitor=None))
    assert game.mid_step and game.images_seen == 2 * BATCH and len(seen.at) == 2
    assert checkpoints(tmp_path) == []  # half a batch's steps are in the weights


def test_a_finished_run_is_not_in_the_middle_of_a_step(tmp_path: Path) -> None:
    game = build(total_kimg=0.032)
    fit(game, tmp_path)
    seen = Seen()
    fit(game, tmp_path, seen)
    assert not game.mid_step and game.images_seen == 32 and seen.at == []


def test_a_clock_that_was_not_wound_is_told(tmp_path: Path) -> None:
    class Forgets(Autoencoder):
        def setup(self, stage: str) -> None:
            """Without the parent's."""

    with pytest.raises(ValueError, match=r"Forgets stands still: its setup must call super\(\).setup\(stage\)"):
        fit(build(Forgets), tmp_path)


# ---- one player, rows, default callbacks -----------------------------------------------------------------------------


def test_one_player_trains_resumes_and_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    defaults = [EMA(), Report(0.032), Throughput(0.032), Health(0.032), ImageGrid(0.032), Checkpoint(0.064, 0)]
    fit(build(), tmp_path, *defaults)
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told if "Autoencoder" in line] == [
        "no average is kept", "no diversity is measured", "no pictures are drawn"
    ]  # fmt: skip
    assert sum("after a resume their order is theirs to keep" in line for line in told) == 1
    assert not (tmp_path / "samples").exists()
    assert lines(tmp_path)[0]["loss"] > lines(tmp_path)[-2]["loss"]
    half, resumed = checkpoints(tmp_path)[0], build()
    fit(resumed, tmp_path / "resumed", ckpt_path=half)
    assert resumed.images_seen == 128 and "0.064" in half.name
    whole = load_run(tmp_path, trust="tests.adversarial")
    # The loader does not shuffle and stands at the end of an epoch: here even its order is kept.
    assert largest_difference(dict(whole.state_dict()), dict(resumed.state_dict())) == 0.0


def test_what_is_compiled_is_what_is_trained(tmp_path: Path) -> None:
    game = build(total_kimg=0.016)
    fit(game, tmp_path)
    assert game.networks() == list(game.bottleneck)
    translator = tiny.build()
    tiny.train(translator, tmp_path, batches=1)
    assert translator.networks() == [translator.ab, translator.ba, translator.judge]


# ---- hooks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", UNCALLED_HOOKS)
def test_hooks_that_lightning_would_not_call_are_refused(hook: str, tmp_path: Path) -> None:
    cls = type("Hooked", (Autoencoder,), {hook: lambda self, *args, **kwargs: None})
    with pytest.raises(ValueError, match=f"Hooked.{hook} would never be called, as Lightning does it in automatic.*: "):
        fit(build(cls), tmp_path)


def test_a_callbacks_uncalled_hook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="LambdaCallback.on_before_zero_grad would never be called"):
        fit(build(), tmp_path, LambdaCallback(on_before_zero_grad=lambda *args: None))


FIRING = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")


@pytest.mark.parametrize("hook", FIRING)
def test_a_modules_hooks_fire_once_per_step(hook: str, tmp_path: Path) -> None:
    calls = []

    def noted(self: Game, *args: Any) -> None:
        calls.append(args)
        getattr(Autoencoder, hook)(self, *args)

    fit(build(type("Hooked", (Autoencoder,), {hook: noted})), tmp_path)
    assert len(calls) == 8


@pytest.mark.parametrize("hook", FIRING)
def test_a_callbacks_hooks_fire_once_per_step(hook: str, tmp_path: Path) -> None:
    calls = []
    fit(build(), tmp_path, LambdaCallback(**{hook: lambda *args: calls.append(args)}))
    assert len(calls) == 8


def test_a_backward_of_ones_own_is_used(tmp_path: Path) -> None:
    class Own(Autoencoder):
        backwards = 0

        def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
            self.backwards += 1
            loss.backward()

    game, plain = build(Own), build()
    fit(game, tmp_path)
    fit(plain, tmp_path)
    assert game.backwards == 8
    assert largest_difference(dict(plain.state_dict()), dict(game.state_dict())) == 0.0


# ---- figures, monitors, loggers --------------------------------------------------------------------------------------


def test_logged_values_are_means_over_kimg_in_all_books(tmp_path: Path) -> None:
    logger, report = CSVLogger(tmp_path, name="csv", version=""), Report(0.064)
    trainer = fit(build(), tmp_path, report, logger=logger, log_every_n_steps=1)
    written = lines(tmp_path)
    assert [line["kimg"] for line in written] == [0.064, 0.128] and math.isfinite(written[0]["loss"])
    header, *rows = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    assert header == "kimg,loss,step" and [row.split(",")[::2] for row in rows] == [["0.064", "64"], ["0.128", "128"]]
    assert trainer.callback_metrics["loss"].item() == pytest.approx(written[-1]["loss"])


def test_without_a_report_logging_is_lightnings(tmp_path: Path) -> None:
    trainer = fit(build(), tmp_path, logger=CSVLogger(tmp_path, name="csv", version=""), log_every_n_steps=4)
    header, *rows = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    assert header == "epoch,loss,step" and len(rows) == 2 and "loss" in trainer.callback_metrics


def test_early_stopping_looks_whenever_its_figure_is_recorded(tmp_path: Path) -> None:
    class Rises(tiny.TinyTranslator):
        def report_discriminator(self, loss: torch.Tensor, *logits: torch.Tensor) -> None:
            super().report_discriminator(loss * 0 + self.batches_seen, *logits)

    stopping, game = EarlyStopping(monitor="loss_d", patience=3), tiny.build()
    game.__class__ = Rises
    tiny.train(game, tmp_path, Report(0.008), Throughput(0.008), stopping, batches=100)
    assert game.batches_seen == 8, "the first tick is the best of them, and three are worse; each has two batches"
    assert stopping.best_score == 0.5 and stopping.stopping_reason.name == "PATIENCE_EXHAUSTED"


def test_model_checkpoint_keeps_the_best(tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path / "best", "{loss_d:.4f}", monitor="loss_d", every_n_train_steps=4)
    game = tiny.build()
    tiny.train(game, tmp_path, Report(0.008), kept, batches=8)
    values = [line["loss_d"] for line in lines(tmp_path)]
    assert kept.best_model_score.item() == pytest.approx(min(values))
    assert [p.stem for p in (tmp_path / "best").iterdir()] == [f"loss_d={min(values):.4f}"]
    resumed = tiny.build()
    tiny.train(resumed, tmp_path / "resumed", batches=8, resume=kept.best_model_path)
    assert largest_difference(dict(resumed.state_dict()), dict(game.state_dict())) == 0.0


# ---- on the command line ---------------------------------------------------------------------------------------------


CONFIG = {
    "model": {"class_path": "tests.adversarial.stranger.Autoencoder", "init_args": {"total_kimg": 0.064}},
    "data": {"class_path": "tests.adversarial.stranger.Rows"},
    "report": {"every_kimg": 0.032},
}


def run(folder: Path, *arguments: str, **config: Any) -> int:
    (folder / "stranger.yaml").write_text(yaml.safe_dump({**CONFIG, **config}))
    return verb.main(["--config", str(folder / "stranger.yaml"), f"--run_folder={folder / 'run'}", *arguments])


def csv(folder: Path) -> dict[str, Any]:
    return {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "theirs", "version": ""}}


def test_a_users_own_loggers_are_used(tmp_path: Path) -> None:
    board = {**csv(tmp_path), "class_path": "TensorBoardLogger"}
    assert run(tmp_path, trainer={"logger": [csv(tmp_path), board]}) == 0
    header, first, *_ = (tmp_path / "theirs" / "metrics.csv").read_text().splitlines()
    assert first.split(",")[header.split(",").index("step")] == "32" and "kimg" in header and "loss" in header
    assert (tmp_path / "theirs" / "hparams.yaml").is_file() and list((tmp_path / "theirs").glob("events*"))
    assert not (tmp_path / "run" / "wandb").exists()
    more = ["--ckpt_path=last", "--model.init_args.total_kimg=0.096"]
    assert run(tmp_path / "run", "--config", str(tmp_path / "run" / "config.yaml"), *more) == 0


def test_two_ways_to_name_a_logger_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(tmp_path, "--logger=csv", trainer={"logger": csv(tmp_path)}) == 1
    assert capsys.readouterr().err.endswith("--logger=csv and a trainer.logger are both given: keep one of them\n")


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        pytest.param("--run_folder=run", "wandb", marks=pytest.mark.slow),
        ("--trainer.logger=false", "none"),
        ("--logger=csv", "csv"),
    ],
)
def test_the_logger_that_was_used_is_recorded(given: str, recorded: str, tmp_path: Path) -> None:
    assert run(tmp_path, given, f"--run_folder={tmp_path / 'run'}") == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["logger"] == recorded and config["trainer"]["logger"] is False
    assert (tmp_path / "run" / "wandb").exists() == (recorded == "wandb")


def test_a_models_file_may_lie_beside_its_config(tmp_path: Path) -> None:
    file = (Path(__file__).parent / "stranger.py").read_text()
    (tmp_path / "beside_config.py").write_text(file)
    changed = {"model": {"class_path": "beside_config.Autoencoder", "init_args": {"total_kimg": 0.032}}}
    assert run(tmp_path, "--logger=none", data={"class_path": "beside_config.Rows"}, **changed) == 0
    assert load_run(tmp_path / "run", trust="beside_config").images_seen == 32
