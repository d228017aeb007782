"""Weights & Biases: the user's own settings, and what happens where it cannot be reached."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from lit_gans.runs import loggers
from lit_gans.runs.loggers import Tracking, build_logger, close, grouped


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROJECT", "NAME", "RUN_ID", "DIR", "RESUME", "MODE", "API_KEY", "ENTITY", "RUN_GROUP", "TAGS"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setattr(loggers, "wandb_is_logged_in", lambda: True)


def settings(run: Path, **tracking: Any) -> dict[str, Any]:
    logger = build_logger("wandb", run, tracking=Tracking(**tracking))
    assert isinstance(logger, WandbLogger)
    return logger._wandb_init


def test_what_the_user_set_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    ours = settings(tmp_path / "run")
    assert (ours["project"], ours["name"], ours["dir"]) == ("lit_gans", "run", str(tmp_path / "run"))
    assert ours["id"] == (tmp_path / "run" / "wandb_id").read_text() and ours["resume"] == "allow"
    asked = {"PROJECT": "mine", "NAME": "a name", "RUN_ID": "an-id", "DIR": str(tmp_path / "there"), "RESUME": "must"}
    for name, value in asked.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    theirs = settings(tmp_path / "other")
    assert [theirs[k] for k in ("project", "name", "id", "dir", "resume")] == list(asked.values())


def test_options_win_over_the_environment_which_wandb_reads_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("PROJECT", "NAME", "ENTITY", "RUN_GROUP", "TAGS"):
        monkeypatch.setenv(f"WANDB_{name}", "environment")
    asked = {"project": "p", "entity": "e", "group": "g", "tags": ["a", "b"], "name": "n"}
    assert {name: settings(tmp_path, **asked)[name] for name in asked} == asked
    left = settings(tmp_path)
    assert left["project"] == left["name"] == "environment" and not {"entity", "group", "tags"} & set(left)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss_d", "loss/loss_d"),
        ("r1", "loss/r1"),
        ("fid", "metrics/fid"),
        ("frechet_digits", "metrics/frechet_digits"),
        ("augment_p", "augment/augment_p"),
        ("img_per_s", "speed/img_per_s"),
        ("own/name", "own/name"),
        ("kimg", "kimg"),
    ],
)
def test_series_stand_in_sections(name: str, expected: str) -> None:
    assert grouped(name) == expected


@pytest.mark.parametrize("error", [wandb.errors.CommError, wandb.errors.UsageError, wandb.errors.AuthenticationError])
def test_without_network_training_goes_on_offline_after_one_line(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def init(mode: str, **options: Any) -> Any:
        if mode == "online":
            raise error("no route to host\nand a long story")
        return SimpleNamespace(mode=mode, **options)

    monkeypatch.setattr(wandb, "init", init)
    logger = build_logger("wandb", tmp_path / "run")
    assert isinstance(logger, WandbLogger) and logger.experiment.mode == "offline"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "offline (no route to host); training goes on" in said


def test_with_network_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(wandb, "init", lambda **options: SimpleNamespace(**options))
    logger = build_logger("wandb", tmp_path / "run")
    assert isinstance(logger, WandbLogger) and logger.experiment.mode == "online" and capsys.readouterr().err == ""


def test_segments_of_an_offline_run_are_named_when_there_are_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **options: SimpleNamespace(finish=lambda: None, **options))
    logger = build_logger("wandb", tmp_path)
    assert isinstance(logger, WandbLogger) and logger.experiment is not None
    capsys.readouterr()
    (tmp_path / "wandb" / f"offline-run-1-{logger.version}").mkdir(parents=True)
    (tmp_path / "wandb" / "offline-run-2-another").mkdir()
    close(logger)
    assert capsys.readouterr().err == ""
    (tmp_path / "wandb" / f"offline-run-3-{logger.version}").mkdir()
    close(logger)
    assert f"wandb sync {tmp_path}/wandb/offline-run-*-{logger.version}" in capsys.readouterr().err


def test_options_of_another_logger_are_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert build_logger("none", tmp_path, tracking=Tracking()) is False and not recwarn
    with pytest.warns(UserWarning, match="wandb.group, wandb.artifacts: of --logger=wandb alone, and this run's"):
        assert build_logger("none", tmp_path, tracking=Tracking(group="seeds", artifacts="best")) is False
