import json
from pathlib import Path

import pytest
import torch

from lit_gans.callbacks.checkpoint import Checkpoint
from lit_gans.callbacks.report import Report, cut_metrics
from lit_gans.runs.report import grouped

from .common import fit, tiny_gan


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_one_line_per_tick_with_the_means(tmp_path: Path) -> None:
    report = Report(0.032)
    fit(tmp_path, tiny_gan(total_kimg=0.08), report)
    assert [line["kimg"] for line in lines(tmp_path)] == [0.032, 0.064, 0.08]
    assert {"loss_d", "loss_g", "real_logits", "real_sign"} <= lines(tmp_path)[0].keys()
    assert report.latest["loss_d"] == lines(tmp_path)[-1]["loss_d"]


def test_a_longer_tick_is_the_mean_of_the_shorter_ones(tmp_path: Path) -> None:
    for name, every_kimg in (("each", 0.016), ("both", 0.032)):
        torch.manual_seed(0)
        fit(tmp_path / name, tiny_gan(total_kimg=0.032), Report(every_kimg))
    (first, second), (both,) = lines(tmp_path / "each"), lines(tmp_path / "both")
    for name in ("loss_d", "loss_g", "real_logits", "fake_sign"):
        assert both[name] == pytest.approx((first[name] + second[name]) / 2, rel=1e-6)


def test_means_go_on_after_a_resume(tmp_path: Path) -> None:
    """A checkpoint in the middle of a tick."""
    fit(tmp_path / "whole", tiny_gan(total_kimg=0.064), Report(0.064), Checkpoint(0.032, 0), enable_checkpointing=True)
    half = next((tmp_path / "whole" / "checkpoints").glob("*0.032.ckpt"))
    fit(tmp_path / "half", tiny_gan(total_kimg=0.064), Report(0.064), ckpt_path=half)
    whole, resumed = ({k: v for k, v in lines(tmp_path / f)[0].items() if k != "time_s"} for f in ("whole", "half"))
    assert whole == resumed and whole["kimg"] == 0.064


def write(path: Path, *kimg: float, tail: str = "") -> None:
    path.write_text("".join(json.dumps({"kimg": k, "x": 1}) + "\n" for k in kimg) + tail)


@pytest.mark.parametrize(
    ("images_seen", "tail", "kept"),
    [(2000, "", [1.0, 2.0]), (3000, '{"kimg": 3.0, "x', [1.0, 2.0, 3.0]), (2500, "", [1.0, 2.0]), (0, "", [])],
)
def test_resume_cuts_what_the_dead_run_wrote(tmp_path: Path, images_seen: int, tail: str, kept: list[float]) -> None:
    write(tmp_path / "metrics.jsonl", 1.0, 2.0, 3.0, tail=tail)
    cut_metrics(tmp_path / "metrics.jsonl", images_seen=images_seen)
    assert [line["kimg"] for line in lines(tmp_path)] == kept
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_file_that_needs_no_cut_is_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1.0, 2.0)
    before = path.stat().st_ino
    cut_metrics(path, images_seen=2000)
    cut_metrics(tmp_path / "missing.jsonl", images_seen=2000)
    assert path.stat().st_ino == before


def test_resumed_run_writes_the_file_of_an_unbroken_one(tmp_path: Path) -> None:
    gan = tiny_gan(total_kimg=0.064)
    trainer = fit(tmp_path, gan, Report(0.032))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"kimg": 0.096, "dead": 1}\n{"kimg": 0.1')
    fit(tmp_path, tiny_gan(total_kimg=0.128), Report(0.032), ckpt_path=tmp_path / "x.ckpt")
    assert [line["kimg"] for line in lines(tmp_path)] == [0.032, 0.064, 0.096, 0.128]
    assert not any("dead" in line for line in lines(tmp_path))


def test_the_page_has_a_place_for_every_figure_that_is_reported() -> None:
    figures = {"loss": 1.0, "loss_kl": 1.0, "kl_penalty": 1.0, "swd": 2.0, "alpha": 1, "img_per_s": 9.0}
    figures |= {"precision_k5": 0.5, "recall_k5": 0.5}
    shown = grouped([{"kimg": 1.0, "time_s": 3.0, "protocol": {}, **figures}])
    trained = [("losses", ["loss", "loss_kl"]), ("penalties", ["kl_penalty"]), ("others", ["alpha"])]
    assert shown == [*trained, ("manifold", ["precision_k5", "recall_k5"]), ("sliced wasserstein", ["swd"])]
