"""`lit-gans evaluate` of runs whose models translate."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_gans.evaluate import evaluate, main
from lit_gans.fit import fit

SMALL = ["--model.init_args.width=2", "--model.init_args.discriminator_width=2", "--model.init_args.total_kimg=0.016",
         "--data.init_args.images=32", "--data.init_args.test_images=24", "--data.init_args.resolution=64",
         "--image_grid.every_kimg=0", "--logger=none"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return fit("pix2pix/shapes64", *SMALL, "--evaluate_translation.metrics=[psnr,ssim]", run=str(folder / "pairs"))


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return fit("cyclegan/shapes64", *SMALL, run=str(folder / "unpaired"))


class Brightness(nn.Module):
    """Dark, middle and light pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return (images.float().mean(1) / 86).long()


def test_a_run_is_measured_as_it_was_configured(run: Path) -> None:
    found = evaluate(run)
    assert set(found.values) == {"psnr", "ssim"} and 0 < found.values["psnr"] < 40
    assert found.stamp("psnr")["pairs"] == 24 and found.protocol["split"] == "test"
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert lines[-1]["psnr"] == found.values["psnr"] and lines[-1]["protocol"]["images_seen"] == 16
    fewer = evaluate(run, metrics=["psnr"], num_images=10)
    assert fewer.stamp("psnr")["pairs"] == 10 and fewer.values["psnr"] != found.values["psnr"]


def test_what_a_segmenter_of_the_users_reads(run: Path) -> None:
    found = evaluate(run, metrics=["segmentation"], segmenter=Brightness(), num_segments=3)
    assert set(found.values) == {"pixel_accuracy", "mean_class_accuracy", "mean_iou"}
    assert all(0 <= value <= 1 for value in found.values.values())
    argv = [str(run), "--metrics", "segmentation", "--num-segments", "3", "--device", "cpu"]
    assert main([*argv, "--segmenter", f"{__name__}.Brightness", "--output", str(run / "out.jsonl")]) == 0
    line = json.loads((run / "out.jsonl").read_text())
    assert line["mean_iou"] == found.values["mean_iou"] and line["protocol"]["numbers"]["mean_iou"]["classes"] == 3


def test_both_directions_of_unpaired_domains(unpaired: Path, tmp_path: Path) -> None:
    found = evaluate(unpaired, extractor="digits", metrics=["fid"], cache_dir=tmp_path)
    assert set(found.values) == {"frechet_digits", "frechet_digits_ba"}
    one = evaluate(unpaired, extractor="digits", metrics=["fid"], directions=["ba"], cache_dir=tmp_path)
    assert one.values == {"frechet_digits_ba": pytest.approx(found.values["frechet_digits_ba"], rel=1e-6)}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--plots", "plots", "--psi", "0.5"], "holds a translator, which has no plots, psi: leave it out"),
        (["--metrics", "segmentation"], "segmentation has num_segments 0"),
        (["--segmenter", "no.such"], "segmenter 'no.such' cannot be built .* such as my_networks.fcn8s"),
        (["--directions", "ba"], "directions has 'ba', and this translator has ab"),
        (["--metrics", "modes"], "choose one or more of psnr, ssim"),
        (["--split", "gone"], "gone"),
    ],
)
def test_mistakes_are_told(run: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main([str(run), *argv]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told), told


def test_a_checkpoint_alone_has_no_pictures(run: Path, tmp_path: Path) -> None:
    checkpoint = sorted((run / "checkpoints").glob("kimg*.ckpt"))[-1]
    lone = tmp_path / "lone.ckpt"
    lone.write_bytes(checkpoint.read_bytes())
    with pytest.raises(FileNotFoundError, match="the data .*lone.ckpt was trained on is unknown: from Python, pass da"):
        evaluate(lone)
    from lit_gans.data import ShapePairs

    found = evaluate(lone, metrics=["psnr"], data=ShapePairs(batch_size=8, resolution=64, images=32, test_images=24))
    assert torch.isfinite(torch.tensor(found.values["psnr"]))
