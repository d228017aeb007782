"""Weights & Biases, offline and read back: the growing table, checkpoints as artifacts, what a resume continues."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb
import yaml
from PIL import Image
from wandb.proto import wandb_internal_pb2

from lit_gans.base.images import save_png
from lit_gans.callbacks import Checkpoint, ImageGrid, Report, sample_table
from lit_gans.callbacks.sample_table import SampleTable, rows_before, rows_of
from lit_gans.data import Digits
from lit_gans.papers import Pix2Pix
from lit_gans.runs.loggers import GroupedWandb, Tracking, build_logger, close, over_kimg
from tests.callbacks.common import fit, tiny_cgan, tiny_gan
from tests.callbacks.test_checkpoint import Measure
from tests.distributed.launch import run_processes
from tests.test_fit import CONFIG, run, wandb_records

EVALUATION = {"every_kimg": 0.016, "num_images": 20, "extractor": "digits", "metrics": ["frechet"]}
KEEPS = {"enable_checkpointing": True}


@pytest.fixture(autouse=True)
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where W&B keeps files until they are uploaded."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))


def records(folder: Path) -> Iterator[Any]:
    """All that the segments of an offline run would upload, in their order."""
    wandb.teardown()  # its service may still be writing
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in wandb_records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield record


def artifacts(folder: Path, kind: str) -> list[Any]:
    return [r.artifact for r in records(folder) if r.HasField("artifact") and r.artifact.type == kind]


def table_rows(artifact: Any) -> list[list[Any]]:
    """The rows of a table, with the pictures that they name."""
    files = {each.path: Path(each.local_path) for each in artifact.manifest.contents}
    (table,) = (path for name, path in files.items() if name.endswith(".table.json"))
    content = json.loads(table.read_text())
    assert content["columns"] == ["seed", "class", "image", "nearest real", "kimg"]
    return [[Image.open(files[c["path"]]) if isinstance(c, dict) else c for c in row] for row in content["data"]]


def items(record: Any) -> dict[str, Any]:
    return {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    grids = {"every_kimg": 0.016, "columns": 2, "table": 3}
    settings = {"image_grid": grids, "checkpoint": {"every_kimg": 0.016}, "evaluate": EVALUATION, "logger": "wandb"}
    path.write_text(yaml.safe_dump({**CONFIG, **settings, "wandb": {"artifacts": "all"}}))
    return path


def test_a_run_is_read_back_from_its_file(tmp_path: Path) -> None:
    logger = build_logger("wandb", tmp_path, tracking=Tracking(artifacts="last"))
    assert isinstance(logger, GroupedWandb)
    over_kimg(logger)
    grids, measure = ImageGrid(0.016, columns=2, at_start=False, table=2), Measure("fid", [2.0, 3.0])
    fit(tmp_path, tiny_cgan(total_kimg=0.032), grids, measure, Report(0.016), Checkpoint(0.016), logger=logger, **KEEPS)
    close(logger)
    history = [items(r.history.item) for r in records(tmp_path) if r.HasField("history")]
    for name in ("loss/loss_d", "metrics/fid", "fakes.caption", "samples.nrows"):
        assert [h["kimg"] for h in history if name in h] == [0.016, 0.032], name
    tables = [table_rows(artifact) for artifact in artifacts(tmp_path, "wandb-run-incremental-table")]
    plain = [[(seed, name, kimg) for seed, name, _, _, kimg in rows] for rows in tables]
    assert plain == [[(0, "0", kimg), (1, "1", kimg)] for kimg in (0.016, 0.032)]
    strip = Image.open(tmp_path / "samples" / "table-00000.032.png")
    for seed, _, image, real, _ in tables[1]:
        assert image.tobytes() == strip.crop((seed * 8, 0, seed * 8 + 8, 8)).tobytes()
        assert real.tobytes() == strip.crop((seed * 8, 8, seed * 8 + 8, 16)).tobytes()
    (model,) = artifacts(tmp_path, "model")
    assert json.loads(model.metadata) == {"kimg": 0.032, "metric": "fid", "value": 3.0, "best": False}
    assert model.name == f"model-{(tmp_path / 'wandb_id').read_text()}"
    assert set(model.aliases) == {"latest", "kimg0.032"}
    (file,) = model.manifest.contents
    assert Path(file.local_path).read_bytes() == (tmp_path / "checkpoints" / "kimg00000.032.ckpt").read_bytes()


@pytest.mark.slow
def test_a_run_that_is_continued_is_read_back_from_its_files(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for kimg in ("0.016", "0.032"):
        more = [f"--run_folder={folder}", "--ckpt_path=auto", f"--model.init_args.total_kimg={kimg}"]
        assert run(config, *more) == 0
    history = [items(r.history.item) for r in records(folder) if r.HasField("history")]
    for name in ("loss/loss_d", "metrics/frechet_digits", "speed/img_per_s"):
        assert [h["kimg"] for h in history if name in h][-2:] == [0.016, 0.032], name
    captions = [h["fakes.caption"] for h in history if "fakes.caption" in h]
    assert [c.rpartition(", ")[2] for c in captions] == [f"at {k} kimg" for k in ("0.000", "0.016", "0.032")]
    summary = {k: v for r in records(folder) if r.HasField("summary") for k, v in items(r.summary.update).items()}
    assert len(summary["protocol/frechet_digits"]) == 12 and summary["samples.increment_num"] == 0
    assert {r.run.run_id for r in records(folder) if r.HasField("run")} == {(folder / "wandb_id").read_text()}

    tables = [table_rows(artifact) for artifact in artifacts(folder, "wandb-run-incremental-table")]
    moments = [[(seed, kimg) for seed, _, _, _, kimg in rows] for rows in tables]
    first, second, third = ([(seed, kimg) for seed in range(3)] for kimg in (0.0, 0.016, 0.032))
    assert moments == [first, second, first + second + third]  # continued offline: the earlier rows, and the new

    models = artifacts(folder, "model")
    told = [json.loads(model.metadata) for model in models]
    assert [each["kimg"] for each in told] == [0.016, 0.032] and {each["metric"] for each in told} == {"frechet_digits"}
    assert [each["value"] for each in told] == [
        h["metrics/frechet_digits"] for h in history if "metrics/frechet_digits" in h
    ]
    assert {model.name for model in models} == {f"model-{(folder / 'wandb_id').read_text()}"}
    assert ["best" in model.aliases for model in models] == [each["best"] for each in told]
    for model, name in zip(models, ("kimg00000.016.ckpt", "kimg00000.032.ckpt"), strict=True):
        assert {"latest", f"kimg{float(name[4:-5]):.3f}"} <= set(model.aliases)
        (file,) = model.manifest.contents
        assert file.path == name and Path(file.local_path).read_bytes() == (folder / "checkpoints" / name).read_bytes()


@pytest.mark.slow
def test_of_several_processes_the_first_one_writes(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = [f"--run_folder={folder}", "--model.init_args.total_kimg=0.032", "--trainer.devices=2"]
    run_processes(2, ["-m", "lit_gans.fit", "--config", str(config), *more, "--trainer.accelerator=cpu"])
    assert len(list(folder.glob("wandb/offline-run-*"))) == 1
    assert len(artifacts(folder, "model")) == 2 and len(artifacts(folder, "wandb-run-incremental-table")) == 3


# ---- the table -------------------------------------------------------------------------------------------------------


def test_a_copy_is_found_beside_its_real_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, gan = Digits(batch_size=16, resolution=40), tiny_cgan()  # larger than what is compared
    places = torch.tensor([1501, 4, 77])
    monkeypatch.setattr(sample_table, "draw", lambda game, seeds, psi: data.dataset().images(places))
    trainer = SimpleNamespace(datamodule=data, default_root_dir=tmp_path, loggers=[], lightning_module=gan)
    SampleTable(3, psi=1.0).add(trainer, gan)
    rows = rows_of(tmp_path / "samples" / "table-00000.000.png", ["zero", "one"])
    assert [row[:2] + row[4:] for row in rows] == [[0, "zero", 0.0], [1, "one", 0.0], [2, "zero", 0.0]]
    assert all(image.tobytes() == real.tobytes() for _, _, image, real, _ in rows)


def test_rows_of_a_model_without_classes_have_none(tmp_path: Path) -> None:
    path = save_png(torch.arange(2 * 8 * 4, dtype=torch.uint8).view(1, 8, 8), tmp_path / "table-00012.800.png")
    assert [(row[1], row[4], row[2].size) for row in rows_of(path, [])] == [(None, 12.8, (4, 4))] * 2


def test_rows_before_leave_out_what_cannot_be_read(tmp_path: Path) -> None:
    for kimg in (1, 2, 3):
        save_png(torch.zeros(1, 8, 4, dtype=torch.uint8), tmp_path / f"table-{kimg:09.3f}.png")
    (tmp_path / "table-00000.500.png").write_bytes((tmp_path / "table-00001.000.png").read_bytes()[:40])
    (tmp_path / "table-00000.of-mine.png").touch()
    assert [row[-1] for row in rows_before(tmp_path / "table-00003.000.png", [])] == [1.0, 2.0]


def test_the_table_needs_no_logger_and_says_where_it_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fit(tmp_path, tiny_gan(total_kimg=0.016), ImageGrid(0.016, columns=2, rows=1, table=2))
    assert len(list(tmp_path.glob("samples/table-*.png"))) == 2 and "no table" not in capsys.readouterr().err
    translator, trainer = Pix2Pix(width=2, discriminator_width=2), SimpleNamespace(is_global_zero=True, datamodule=None)
    ImageGrid(1, table=2).setup(trainer, translator, "fit")
    assert "image_grid.table: no table, which is of samples from seeds" in capsys.readouterr().err
    with pytest.raises(ValueError, match="image_grid.table is -1"):
        ImageGrid(1, table=-1)


# ---- artifacts -------------------------------------------------------------------------------------------------------


class Kept(GroupedWandb):
    """Keeps what would be sent."""

    def __init__(self, folder: Path, artifacts: Any) -> None:
        super().__init__(artifacts=artifacts, save_dir=folder, id="an-id", offline=True)
        self.sent: list[tuple[str, float, float | None, bool]] = []

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(log=lambda *_, **__: None, config=SimpleNamespace(update=lambda *_, **__: None))

    def _send(self, path: Path, told: dict[str, Any]) -> None:
        assert path.is_file() and told["metric"] == "fid"
        self.sent.append((path.name, told["kimg"], told["value"], told["best"]))


@pytest.mark.parametrize(
    ("artifacts", "during", "at_end"),
    [
        ("none", [], []),
        ("last", [], [("kimg00000.048.ckpt", 0.048, 3.0, False)]),
        ("best", [], [("best.ckpt", 0.032, 1.0, True)]),
        (
            "all",
            [
                ("kimg00000.016.ckpt", 0.016, 2.0, True),
                ("kimg00000.032.ckpt", 0.032, 1.0, True),
                ("kimg00000.048.ckpt", 0.048, 3.0, False),
            ],
            [],
        ),
    ],
)
def test_checkpoints_are_sent_as_was_asked_for(artifacts: Any, during: list, at_end: list, tmp_path: Path) -> None:
    logger = Kept(tmp_path, artifacts)
    fit(
        tmp_path, tiny_gan(total_kimg=0.048), Measure("fid", [2.0, 1.0, 3.0]), Checkpoint(0.016), logger=logger, **KEEPS
    )
    assert logger.sent == during
    logger.send_last()
    assert logger.sent == during + at_end
    logger.send_last()
    assert len(logger.sent) == len(during + at_end)


def test_a_best_that_a_kill_kept_from_being_sent_is_sent_by_the_next_start(tmp_path: Path) -> None:
    measure, last = Measure("fid", [2.0, 3.0, 3.5]), tmp_path / "checkpoints" / "kimg00000.032.ckpt"
    fit(tmp_path, tiny_gan(total_kimg=0.032), measure, Checkpoint(0.016), logger=Kept(tmp_path, "best"), **KEEPS)
    logger = Kept(tmp_path, "best")
    fit(tmp_path, tiny_gan(total_kimg=0.048), measure, Checkpoint(0.016), logger=logger, ckpt_path=last, **KEEPS)
    logger.send_last()
    assert logger.sent == [("best.ckpt", 0.016, 2.0, True)]


def test_a_file_that_is_not_taken_is_a_warning(tmp_path: Path) -> None:
    logger = GroupedWandb(artifacts="all", save_dir=tmp_path, id="an-id", offline=True)
    with pytest.warns(UserWarning, match="gone.ckpt was not handed to Weights & Biases .*; it is intact"):
        logger.offer(tmp_path / "gone.ckpt", kimg=1.0, metric=None, value=None, best=False)


def test_another_word_for_artifacts_is_refused(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run(config, f"--run_folder={tmp_path / 'run'}", "--wandb.artifacts=some")
    assert "'none', 'best', 'last', 'all'" in capsys.readouterr().err
