import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lit_gans import metrics
from lit_gans.adversarial import GAN
from lit_gans.base.images import save_png
from lit_gans.data import Digits, Images
from lit_gans.data.sources import open_source
from lit_gans.evaluate import evaluate, main
from lit_gans.metrics import building
from lit_gans.metrics.folders import sizes_of
from lit_gans.runs.evaluation import settings_of
from tests.metrics.common import PixelFeatures

from .callbacks.common import tiny_cgan
from .test_sample import saved


@pytest.fixture(autouse=True)
def cheap_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    build = building.build_extractor

    def cheap(spec: str, **options):
        return PixelFeatures() if spec == "pixels" else build(spec, **options)

    monkeypatch.setattr(building, "build_extractor", cheap)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with one checkpoint and the config of the run."""
    folder = saved(tmp_path / "run", tiny_cgan(total_kimg=0.016))
    config = {
        "data": {"class_path": "lit_gans.data.Digits", "init_args": {"batch_size": 16, "resolution": 8}},
        "evaluate": {"every_kimg": 1.0, "extractor": "pixels", "num_images": 40, "num_real": 90, "batch_size": 10},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def images(folder: Path, count: int, *, resolution: int = 8) -> Path:
    batch = next(Digits(batch_size=1, resolution=resolution).batches("train", count))["image"]
    for number, image in enumerate(batch):
        save_png(image, folder / f"{number:04}.png")
    return folder


def test_a_run_is_measured_as_it_was_configured(run: Path) -> None:
    found = evaluate(run)
    assert (found.protocol["n_fake"], found.protocol["n_real"], found.protocol["extractor"]) == (40, 90, "pixels")
    assert (found.protocol["generator"], found.protocol["images_seen"]) == ("ema", 16)
    other = evaluate(run / "checkpoints" / "kimg00000.016.ckpt", num_images=20, raw=True, metrics=["kid"], psi=0.7)
    assert other.values.keys() == {"kernel_pixels"} and other.protocol["generator"] == "raw"
    written = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [line["protocol"]["n_fake"] for line in written] == [40, 20]
    assert written[0]["protocol"] == found.protocol and written[0]["frechet_pixels"] == found.values["frechet_pixels"]


def test_settings_come_from_the_call_then_the_config_then_the_defaults() -> None:
    section = {"every_kimg": 1.0, "extractor": "inception", "weights_path": "w.pth", "num_images": 7, "at_end": True}
    settings = settings_of({"evaluate": section}, {"num_images": 9})
    assert (settings.num_images, settings.weights_path, settings.batch_size) == (9, "w.pth", 64)
    assert settings_of({"evaluate": section}, {"extractor": "digits"}).weights_path is None
    assert settings_of({"evaluate": {**section, "every_kimg": 0.0}}, {}).num_images == 50_000
    assert settings_of(None, {}).extractor == "inception"


def test_a_run_is_measured_by_its_fallback_where_there_are_no_weights(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    absent = {"extractor": "torchvision:squeezenet1_1", "weights_path": str(tmp_path / "absent.safetensors")}
    config["evaluate"] |= absent | {"fallback": "pixels"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.warns(UserWarning, match="absent.*measured with 'torchvision:squeezenet1_1'.*'pixels' takes"):
        found = evaluate(run)
    assert found.protocol["extractor"] == "pixels"
    assert main([str(run), "--extractor", "torchvision:squeezenet1_1", "--weights_path", absent["weights_path"]]) == 2
    assert "absent.safetensors" in capsys.readouterr().err  # who names a network gets no other


def test_a_run_against_a_folder(run: Path, tmp_path: Path) -> None:
    found = evaluate(run, images(tmp_path / "reals", 30), num_real=20, metrics=["frechet"])
    assert found.protocol["n_real"] == 20 and found.protocol["resolution"] == 8
    (run / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="no config.yaml in .*run, so the data .* is unknown: give a folder"):
        evaluate(run, extractor="pixels")


def test_folder_against_folder(tmp_path: Path) -> None:
    a, b = images(tmp_path / "a", 30), images(tmp_path / "b", 40)
    found = evaluate(a, b, extractor="pixels", output=tmp_path / "out" / "found.jsonl")
    assert (found.protocol["n_fake"], found.protocol["n_real"]) == (30, 40)
    assert found.values["precision_k5"] == 1 and found.protocol["generator"] == "images"
    assert json.loads((tmp_path / "out" / "found.jsonl").read_text())["target"] == str(a)
    assert abs(evaluate(a, a, extractor="pixels", metrics=["frechet"]).values["frechet_pixels"]) < 1e-6
    assert evaluate(a, data=Digits(batch_size=1, resolution=8), extractor="pixels").protocol["n_real"] == 1797
    larger = images(tmp_path / "larger", 20, resolution=16)
    with pytest.raises(ValueError, match="are 8 x 8 px and in .*larger 16 x 16 px: give --resolution"):
        evaluate(a, larger, extractor="pixels")
    assert evaluate(a, larger, extractor="pixels", resolution=8).protocol["resolution"] == 8


def test_weights_are_asked_for_only_where_a_metric_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(spec: str, **options):
        raise ConnectionError(f"no weights of {spec}")

    monkeypatch.setattr(building, "build_extractor", absent)
    fakes, reals = images(tmp_path / "fakes", 24, resolution=16), images(tmp_path / "reals", 30, resolution=16)
    found = evaluate(fakes, reals, metrics=["swd"])
    assert found.values["swd"] > 0 and found.protocol["extractor"] is None
    for asked in ({"metrics": ["swd", "fid"]}, {"metrics": ["swd"], "plots": tmp_path / "plots"}):
        with pytest.raises(ConnectionError, match="no weights of inception"):
            evaluate(fakes, reals, **asked)


def test_pairs_of_pictures_and_sets_in_one_call(tmp_path: Path) -> None:
    a, b = images(tmp_path / "a", 30, resolution=16), images(tmp_path / "b", 30, resolution=16)
    save_png(torch.full((1, 16, 16), 9, dtype=torch.uint8), b / "0003.png")
    found = evaluate(a, b, extractor="pixels", metrics=["frechet", "psnr", "ssim"], output=tmp_path / "found.jsonl")
    assert found.values.keys() == {"frechet_pixels", "psnr", "ssim"} and found.values["psnr"] == float("inf")
    assert json.loads((tmp_path / "found.jsonl").read_text())["psnr"] == "inf"
    assert found.stamp("ssim")["pairs"] == 30 and found.stamp("ssim")["extractor"] is None
    alone = evaluate(a, b, metrics=["ssim"])
    assert alone.values["ssim"] == found.values["ssim"] < 1 and alone.stamp("ssim")["k1"] == 0.01
    with pytest.raises(ValueError, match="psnr compare pictures of the same name: give the folder of the others"):
        evaluate(a, data=Digits(batch_size=1, resolution=16), metrics=["psnr"])


def test_metrics_of_folders_are_refused_for_a_run(run: Path) -> None:
    with pytest.raises(ValueError, match="psnr, clip_score: for folders of images, not for a run"):
        evaluate(run, metrics=["psnr", "clip_score"])


def test_captions_are_read_beside_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_gans.nn import clip

    class Encoder(torch.nn.Module):
        name, resize, fingerprint = "clip:fake", "none", "0" * 16

        def images(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.tensor([1.0, 0.0])] * len(pictures))

        def texts(self, captions: list[str]) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0] if caption == "right" else [0.0, 1.0] for caption in captions])

    monkeypatch.setattr(clip, "build_clip", lambda name, folder: Encoder())
    folder = images(tmp_path / "a", 4)
    with pytest.raises(ValueError, match="no caption of '0000.png'"):
        evaluate(folder, metrics=["clip_score"])
    captions = {f"{i:04}.png": "right" if i < 3 else "wrong" for i in range(4)}
    (folder / "captions.json").write_text(json.dumps(captions))
    found = evaluate(folder, metrics=["clip_score"])
    assert found.values == {"clip_score": 75.0} and found.stamp("clip_score")["extractor"] == "clip:fake"


def test_pictures_of_the_evaluation(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(run), "--plots", str(tmp_path / "plots"), "--metrics", "kid"]) == 0
    names = ["best_and_worst.png", "nearest_reals.png", "precision_recall.png", "tsne.png", "tsne_grid.png"]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == names
    sides = {name: min(Image.open(tmp_path / "plots" / name).size) for name in names}
    assert sides.pop("tsne_grid.png") >= 3 * 48 and min(sides.values()) > 300
    assert str(tmp_path / "plots" / "tsne.png") in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_share_the_work_and_find_the_same(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["evaluate"]["extractor"] = "random_inception"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = [str(run), "--metrics", "kid", "coverage", "--num-images=13", "--num-real=21", "--neighbours=3"]
    assert main([*arguments, f"--output={tmp_path / 'one.jsonl'}"]) == 0
    assert main([*arguments, f"--output={tmp_path / 'two.jsonl'}", "--processes=2", "--device=cpu"]) == 0
    one, two = (json.loads((tmp_path / f"{name}.jsonl").read_text()) for name in ("one", "two"))
    assert one.keys() == two.keys() and "coverage_k3" in one and one["kimg"] == 0.016
    for name in ("kernel_random_inception", "coverage_k3"):
        assert two[name] == pytest.approx(one[name], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist: give a run folder, a .ckpt file or a folder of images"),
        (["{empty}", "{empty}", "--extractor=pixels"], "no picture in"),
        (["{full}", "nowhere", "--extractor=pixels"], "nowhere is neither a folder nor a file"),
        (["{full}", "--extractor=pixels"], "give a second folder of images to compare with"),
        (["{full}", "{full}", "--extractor=pixels", "--device=cudda"], "device 'cudda' is not here"),
        (["{full}", "{full}", "--extractor=nonsense"], "unknown extractor 'nonsense'; known are inception"),
        (["{full}", "{full}", "--extractor=pixels", "--metrics", "vgg"], "choose one or more of frechet"),
        (
            ["{full}", "{full}", "--directions=ab", "--num-segments=4"],
            "full is no run of a translator, which alone has directions, num_segments: leave it out",
        ),
        (["{full}", "{full}", "--extractor=pixels", "--num-images=31"], "num_images is 31, but there are 30 images"),
    ],
)
def test_what_is_missing_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    empty, full = tmp_path / "empty", images(tmp_path / "full", 30)
    empty.mkdir()
    assert main([argument.format(empty=empty, full=full) for argument in arguments]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("data:", "  "))]
    assert len(error) == 1 and error[0].startswith("lit-gans evaluate: ") and message in error[0]


def test_the_command_shows_values_and_protocol(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(run), "--num-images=30", "--device=cpu"]) == 0
    out, error = capsys.readouterr()
    assert error.startswith("data: Digits\n  used     1,797 pictures, split 'train'\n  classes  0=0 (178), 1=1 (182)")
    for shown in ("frechet_pixels", "recall_k5", "extractor_fingerprint", "versions torch", "n_fake"):
        assert shown in out
    assert main([str(run), "--num-images=8"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("lit-gans evaluate: 8 generated images are too few")


SETS: dict[str, Any] = {"metrics": ["frechet"], "extractor": "pixels"}


def wide(folder: Path, *, sides: int, sizes: Sequence[tuple[int, int]] = ((24, 8),)) -> Path:
    """20 pictures, three times as wide as high: the middle random, both outer thirds grey of `sides`."""
    folder.mkdir()
    for number in range(20):
        width, height = sizes[number % len(sizes)]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels[:, : width // 3] = pixels[:, -(width // 3) :] = sides
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def test_all_of_a_wide_picture_is_measured_and_the_stamp_says_how(tmp_path: Path) -> None:
    good, bad = wide(tmp_path / "good", sides=0), wide(tmp_path / "bad", sides=255)
    found = evaluate(bad, good, **SETS)
    assert found.values["frechet_pixels"] > 0.1
    assert (found.protocol["framing"], found.protocol["resolution"]) == ("as stored, whole: 24 x 8 px", "as stored")
    stretched = evaluate(bad, good, **SETS, resolution=8)
    assert stretched.values["frechet_pixels"] > 0.1 and stretched.protocol["framing"] == "stretch at 8 x 8 px"
    middle = evaluate(bad, good, **SETS, resolution=8, framing="crop")
    assert abs(middle.values["frechet_pixels"]) < 1e-6 and middle.protocol["framing"] == "crop at 8 x 8 px"
    against_data = evaluate(bad, data=Images(str(good), batch_size=1, resolution=8, resize="fit"), **SETS)
    assert against_data.protocol["framing"] == "stretch at 8 x 8 px; reals fit at 8 x 8 px"


def test_pictures_of_many_sizes_are_each_measured_in_their_own(tmp_path: Path) -> None:
    sizes = ((24, 8), (24, 8), (8, 8), (30, 20), (12, 40))
    mixed, alike = wide(tmp_path / "mixed", sides=0, sizes=sizes), wide(tmp_path / "alike", sides=0)
    found = evaluate(mixed, mixed, **SETS)
    assert abs(found.values["frechet_pixels"]) < 1e-6 and (found.protocol["n_fake"], found.protocol["n_real"]) == (
        20,
        20,
    )
    assert found.protocol["framing"] == "as stored, whole: 8 x 8 px and 3 more sizes up to 30 x 20 px"
    assert evaluate(mixed, alike, **SETS).protocol["framing"].endswith("; reals as stored, whole: 24 x 8 px")
    with pytest.raises(ValueError, match="plots need images of one square size; there are as stored, whole: 8 x 8"):
        evaluate(mixed, mixed, **SETS, plots=tmp_path / "plots")
    with pytest.raises(ValueError, match="swd needs images of one square size"):
        evaluate(mixed, mixed, metrics=["swd"])
    with pytest.raises(ValueError, match="framing 'crop' goes with the size .* give --resolution too"):
        evaluate(mixed, mixed, **SETS, framing="crop")


def test_a_turned_picture_has_its_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "x.jpg", exif=exif)
    assert dict(sizes_of(open_source(tmp_path))) == {(20, 30): 1}


def test_reals_of_a_run_are_framed_as_its_own_or_as_it_is_said(run: Path, tmp_path: Path) -> None:
    reals = wide(tmp_path / "wide", sides=0)
    with pytest.raises(ValueError, match="are of 24 x 8 px, those of the run of 8, and its config does not say how"):
        evaluate(run, reals, **SETS, num_real=20)
    found = evaluate(run, reals, **SETS, num_real=20, framing="crop")
    assert found.protocol["framing"] == "crop at 8 x 8 px"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = {"class_path": "lit_gans.data.Images", "init_args": {"resize": "fit", "crop_px": 6}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert evaluate(run, reals, **SETS, num_real=20).protocol["framing"] == "6 px in the middle, then fit at 8 x 8 px"
    with pytest.raises(ValueError, match="framing 'crop' is of a folder of real images"):
        evaluate(run, framing="crop")


def test_the_stamp_of_a_kernel_distance_says_which_subsets_were_drawn(tmp_path: Path) -> None:
    a, b = images(tmp_path / "a", 30), images(tmp_path / "b", 40)
    stamp = evaluate(a, b, extractor="pixels", metrics=["kid"]).stamp("kernel_pixels")
    assert (stamp["kid_subsets"], stamp["kid_subset_size"]) == (100, 30)
    whole = evaluate(a, a, extractor="pixels", metrics=["kid"]).stamp("kernel_pixels")
    assert (whole["kid_subsets"], whole["kid_subset_size"]) == (1, 30)


def test_the_loaded_model_is_the_trained_one(run: Path) -> None:
    from lit_gans.runs.load import load_run

    gan: GAN = load_run(run)
    plan = metrics.Plan(num_images=40, num_real=90, batch_size=10)
    direct = metrics.evaluate_gan(gan, Digits(batch_size=1, resolution=8), extractor=PixelFeatures(), plan=plan)
    assert evaluate(run).values == direct.values
    assert torch.is_grad_enabled()
