"""`lit-gans truncation`: a table and a picture, each point measured once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from lit_gans.data import Digits
from lit_gans.evaluate import evaluate
from lit_gans.metrics import building
from lit_gans.metrics.plots import plot_curves
from lit_gans.runs import truncation as curves
from lit_gans.sample import sample
from lit_gans.truncation import main, truncation
from tests.cases import CASES
from tests.metrics.common import PixelFeatures

from .callbacks.common import tiny_cgan, tiny_trainer
from .test_sample import saved


@pytest.fixture(autouse=True)
def cheap_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    build = building.build_extractor
    monkeypatch.setattr(
        building, "build_extractor", lambda spec, **o: PixelFeatures() if spec == "pixels" else build(spec, **o)
    )


def configured(folder: Path, resolution: int) -> Path:
    data = {"class_path": "lit_gans.data.Digits", "init_args": {"batch_size": 16, "resolution": resolution}}
    section = {"every_kimg": 1.0, "extractor": "pixels", "num_images": 40, "num_real": 90, "metrics": ["frechet", "is"]}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data, "evaluate": section}))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return configured(saved(tmp_path / "run", tiny_cgan(total_kimg=0.016)), 8)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The psi of all evaluations."""
    found: list[float] = []
    measure = curves.evaluate_run

    def heard(target: Path, given: dict[str, Any], where: Any, **reals: Any) -> Any:
        found.append(given["psi"])
        return measure(target, given, where, **reals)

    monkeypatch.setattr(curves, "evaluate_run", heard)
    return found


def test_points_of_a_stand_in_are_measured_anew_when_the_network_is_there(
    run: Path, asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["evaluate"] |= {"extractor": "timm:absent", "fallback": "pixels", "metrics": ["frechet"]}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    known = building.build_extractor

    def absent(spec: str, **options: Any) -> Any:
        if spec == "timm:absent":
            raise FileNotFoundError("no weights")
        return known(spec, **options)

    monkeypatch.setattr(building, "build_extractor", absent)
    with pytest.warns(UserWarning, match="'pixels' takes its place"):
        first = truncation(run, psis=[0.5])
        assert truncation(run, psis=[0.5]).measured == ()
    there = PixelFeatures()
    there.name = "absent"
    monkeypatch.setattr(building, "build_extractor", lambda spec, **_: there)
    second = truncation(run, psis=[0.5])
    assert second.measured == (0.5,) and asked == [0.5, 0.5]
    names = [list(curve.points[0.5].values) for curve in (first, second)]
    assert names == [["frechet_pixels"], ["frechet_absent"]]


def test_each_point_is_measured_once_and_is_what_evaluate_measures(run: Path, asked: list[float]) -> None:
    first = truncation(run, psis=[1.0, 0.5])
    assert asked == [0.5, 1.0] == list(first.points) == list(first.measured)
    again = truncation(run, psis=[0.5, 0.75, 1.0])
    assert asked == [0.5, 1.0, 0.75] and again.measured == (0.75,)
    assert again.points[0.5] == first.points[0.5]
    alone = evaluate(run, psi=0.75)
    assert alone.values == again.points[0.75].values and alone.protocol == again.points[0.75].protocol
    assert len({tuple(point.values.values()) for point in again.points.values()}) == 3
    table = (run / "truncation" / "truncation.md").read_text().splitlines()
    assert table[0].startswith("| psi | frechet_pixels | score_pixels") and [r.split(" ")[1] for r in table[2:]] == [
        "0.5", "0.75", "1",
    ]  # fmt: skip
    assert Image.open(run / "truncation" / "truncation.png").size == (1200, 360)


def test_other_settings_and_weights_are_measured_anew(run: Path, asked: list[float], tmp_path: Path) -> None:
    truncation(run, psis=[0.5])
    truncation(run, psis=[0.5], num_images=30)
    truncation(run, psis=[0.5], seed=1)
    truncation(run, psis=[0.5], batch_size=7)  # which changes no number
    assert asked == [0.5] * 3
    checkpoint = run / "checkpoints" / "kimg00000.016.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"] = {name: t * 1.5 for name, t in content["state_dict"].items()}
    torch.save(content, checkpoint)
    truncation(run, psis=[0.5])
    assert asked == [0.5] * 4
    truncation(run, psis=[0.5], output=tmp_path / "elsewhere")
    assert len((tmp_path / "elsewhere" / "points.jsonl").read_text().splitlines()) == 1


def test_a_curve_that_is_broken_off_goes_on(run: Path, asked: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    measure = curves.evaluate_run

    def broken(target: Path, given: dict[str, Any], *args: Any, **reals: Any) -> Any:
        if given["psi"] == 0.75:
            raise KeyboardInterrupt
        return measure(target, given, *args, **reals)

    with monkeypatch.context() as patched:
        patched.setattr(curves, "evaluate_run", broken)
        with pytest.raises(KeyboardInterrupt):
            truncation(run, psis=[0.5, 0.75])
    assert truncation(run, psis=[0.5, 0.75]).measured == (0.75,)


def test_biggan_is_truncated_the_way_that_is_asked_for(tmp_path: Path, asked: list[float]) -> None:
    gan, trainer = CASES["biggan"](total_kimg=0.016), tiny_trainer(tmp_path / "run")
    trainer.fit(gan, Digits(batch_size=16, resolution=32))
    trainer.save_checkpoint(tmp_path / "run" / "checkpoints" / "kimg00000.016.ckpt")
    run = configured(tmp_path / "run", 32)
    ways = ("scaled", "resampled", "hub")
    found = {how: truncation(run, psis=[0.5], truncation=how, num_images=20).points[0.5] for how in ways}
    assert {how: point.protocol["truncation"] for how, point in found.items()} == {how: how for how in found}
    assert len({point.values["frechet_pixels"] for point in found.values()}) == 3
    assert truncation(run, psis=[0.5], num_images=20).measured == (), "as it was built: scaled"
    files = [sample(run, output=tmp_path / how, seeds="3", psi=0.5, truncation=how)[0] for how in ways]
    assert len({file.read_bytes() for file in files}) == 3
    told = evaluate(run, psi=0.5, truncation="hub", num_images=20)
    assert told.protocol["truncation"] == "hub" and told.values == found["hub"].values


def test_what_truncates_in_one_way_is_not_asked_for_another(run: Path, tmp_path: Path) -> None:
    for verb in (lambda: sample(run, output=tmp_path, truncation="hub"), lambda: evaluate(run, truncation="hub")):
        with pytest.raises(ValueError, match="a CGAN truncates in one way alone: leave it out"):
            verb()
    with pytest.raises(ValueError, match="is taken as images, which have no truncation: leave it out"):
        evaluate(tmp_path / "run" / "checkpoints", tmp_path, truncation="hub")


def test_the_command_prints_the_table_and_says_what_cannot_be(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(run), "--psis", "0.5", "1", "--metrics", "frechet", "--drawn", "frechet_pixels"]) == 0
    told = capsys.readouterr().out
    assert "| 0.5 | " in told and "truncation.png" in told
    for argv, message in (
        ([str(run), "--psis", "0.5", "0.5"], "give one or more numbers, each once"),
        ([str(run), "--truncation", "hub"], "truncation 'hub': a CGAN truncates in one way alone: leave it out"),
        ([str(run.parent / "nowhere")], "does not exist"),
        ([str(run / "checkpoints")], "is no run or checkpoint"),
        ([str(run), "--psis", "0.5", "--drawn", "fid"], "'fid' was not measured, and cannot be drawn: there are"),
    ):
        assert main(argv) == 2
        assert message in capsys.readouterr().err
    points = run / "truncation" / "points.jsonl"
    points.write_text(json.dumps({"psi": 1}) + "\n")
    assert main([str(run), "--psis", "0.5"]) == 2
    assert "points.jsonl, line 1, is no point of a truncation curve" in capsys.readouterr().err


def test_curves_have_a_value_for_each_point(tmp_path: Path) -> None:
    plot_curves([0.5], {"a": [1.0], "b": [2.0], "c": [3.0]}, tmp_path / "three.png", xlabel="psi", title="three")
    assert Image.open(tmp_path / "three.png").size == (1200, 360)
    with pytest.raises(ValueError, match=r"2 points, and curves of \[1\]"):
        plot_curves([0.5, 1.0], {"a": [1.0]}, tmp_path / "no.png", xlabel="psi", title="none")
