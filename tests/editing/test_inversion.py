"""Inversion in Z, pivotal tuning, encoders and folders of pictures, on generators of 8 to 32 pixels."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_gans.adversarial.priors import Normal, TruncatedNormal, Uniform
from lit_gans.base.images import save_png, to_uint8
from lit_gans.editing import (
    invert,
    project_latent,
    read_encoder,
    read_projection,
    read_weights_of,
    render,
    save_encoder,
    save_weights,
    train_encoder,
    tune,
    tuned_model,
)
from lit_gans.editing.encoder import EncoderStep, encoded
from lit_gans.editing.latents import candidates_of
from lit_gans.editing.state import weights_digest
from lit_gans.editing.tuning import morphed
from lit_gans.encode import main as encode
from lit_gans.metrics.perceptual import FeatureDistance, PixelDistance, build_distance
from lit_gans.papers.cgan import CGAN
from lit_gans.papers.dcgan import DCGAN
from lit_gans.project import main as project
from lit_gans.runs.load import load_run
from tests.callbacks.common import tiny_gan
from tests.editing.test_projector import found, own, tiny_stylegan
from tests.metrics.test_perceptual import random_state
from tests.test_sample import pixels, saved, saved_stylegan

QUICK = {"distance": PixelDistance(), "candidates": 40, "starts": 2}


def tiny_dcgan() -> DCGAN:
    torch.manual_seed(0)
    gan = DCGAN(resolution=16, z_dim=6, width=8)
    with torch.no_grad():
        for parameter in gan.generator_ema.parameters():
            parameter.mul_(8)
    return gan.eval()


def tiny_cgan() -> CGAN:
    torch.manual_seed(0)
    return CGAN(resolution=16, channels=1, num_classes=3, z_dim=4, width=8).eval()


@pytest.fixture(scope="module")
def gan() -> DCGAN:
    return tiny_dcgan()


# ---- Z ---------------------------------------------------------------------------------------------------------------


def test_an_image_of_any_generator_is_found_again(gan: DCGAN) -> None:
    target = own(gan, 3)
    result = project_latent(gan, target, steps=60, **QUICK)
    assert result.distance < result.steps[0].distance / 5 and result.psnr_db > 20
    assert result.code.shape == (1, 6) and result.code.abs().max() <= 1, "its prior is uniform"
    assert torch.equal(render(gan, result.code, {}).clamp(-1, 1), result.image)
    assert result.settings["space"] == "z" and result.settings["label"] is None and result.frames.shape[0] == 60


def test_the_best_of_all_classes_is_found() -> None:
    gan = tiny_cgan()
    for label in (1, 2):
        target = gan.sample([5], labels=torch.tensor([label]))[0]
        result = project_latent(gan, target, steps=40, **QUICK)
        assert result.settings["label"] == label
        again = render(gan, result.code, {}, labels=torch.tensor([label])).clamp(-1, 1)
        assert torch.equal(again, result.image)
    begun = project_latent(gan, target, steps=1, start=result.code, **QUICK)
    assert begun.settings["label"] == 2 and begun.steps[0].distance == pytest.approx(result.distance, rel=1e-3)
    given = project_latent(gan, target, steps=2, label=0, **QUICK)
    assert given.settings["label"] == 0
    assert candidates_of(gan, 2, None)[1].tolist() == [0, 1, 2], "each class has one at least"


def test_latents_stay_where_their_prior_has_them() -> None:
    z = 3 * torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Normal().nearest(z).norm(dim=1), torch.full((4,), 3.0))
    assert Uniform().nearest(z).abs().max() == 1 and TruncatedNormal(0.5).nearest(z).abs().max() == 0.5
    gan = tiny_cgan()
    result = project_latent(gan, gan.sample([1])[0], steps=5, **QUICK)
    assert result.code.norm().item() == pytest.approx(2.0, rel=1e-5)


def test_a_generator_that_keeps_no_gradients_is_named(gan: DCGAN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan, "generate", torch.no_grad()(gan.generate))
    with pytest.raises(ValueError, match="DCGAN.generate keeps no gradients, which inversion follows"):
        project_latent(gan, own(gan, 3), steps=1, **QUICK)


def test_styles_have_latents_too() -> None:
    gan = tiny_stylegan()
    result = invert(gan, own(gan, 5), distance=PixelDistance(), space="z", steps=10)
    assert result.code.shape == (1, 8) and result.distance < result.steps[0].distance


# ---- pivotal tuning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["w+", "z"])
def test_tuned_weights_come_nearer_and_the_model_stays(space: str, tmp_path: Path) -> None:
    gan = tiny_stylegan() if space == "w+" else tiny_dcgan()
    before = {name: tensor.clone() for name, tensor in gan.state_dict().items()}
    target = own(gan, 5).flip(-1)
    choices = {"distance": PixelDistance(), "steps": 15, "frames": 2}
    result = invert(gan, target, space=space, tuning_steps=30, **choices)
    assert result.distance < 0.8 * result.pivot.distance and result.psnr_db > result.pivot.psnr_db
    assert torch.equal(result.code, result.pivot.code) and result.settings["tuning_taken"] == 30
    assert all(torch.equal(tensor, before[name]) for name, tensor in gan.state_dict().items())
    assert not any("mapping" in name for name in result.weights)

    save_weights(result, gan, tmp_path / "weights.safetensors")
    weights, settings = read_weights_of(tmp_path / "weights.safetensors", gan)
    again = render(gan, result.code, result.noise, weights=weights).clamp(-1, 1)
    assert torch.equal(again, result.image) and settings["locality"] == 0.1
    tuned = tuned_model(gan, weights)
    assert torch.equal(render(tuned, result.code, result.noise).clamp(-1, 1), result.image)
    assert weights_digest(tuned) != weights_digest(gan) == settings["model_weights"]
    with pytest.raises(ValueError, match="was made with a generator of the weights .*: give the run"):
        read_weights_of(tmp_path / "weights.safetensors", tuned)


def test_locality_keeps_other_images() -> None:
    gan = tiny_stylegan()
    pivot = found(gan, own(gan, 5).flip(-1), steps=10)
    other = gan.styles(gan.seeded_latents([9]))

    def moved(locality: float) -> float:
        weights = tune(gan, pivot, distance=PixelDistance(), steps=30, locality=locality, lr=3e-3, radius=3.0).weights
        return (render(gan, other, {}, weights=weights) - gan.synthesize(other)).square().mean().item()

    assert moved(3.0) < 0.75 * moved(0.0)


def test_tuning_stops_where_it_is_near() -> None:
    gan = tiny_stylegan()
    pivot = found(gan, own(gan, 5), steps=5)
    near = tune(gan, pivot, distance=PixelDistance(), steps=3, stop_at=10.0)
    assert near.settings["tuning_taken"] == 0 and torch.equal(near.image, pivot.image)
    told: list = []
    tune(gan, pivot, distance=PixelDistance(), steps=2, stop_at=0.0, every=2, on_step=told.append)
    assert [step.step for step in told] == [0, 1] and told[0].locality == 0 and told[0].distance > 0
    with pytest.raises(ValueError, match="steps of tuning is 0"):
        tune(gan, pivot, distance=PixelDistance(), steps=0)
    with pytest.raises(ValueError, match="is not finite: lower the learning rate of tuning"):
        tune(gan, pivot, distance=PixelDistance(), steps=3, lr=1e30, stop_at=0.0)


def test_the_ball_around_a_pivot_has_one_radius_over_all_layers() -> None:
    drawn, pivot = torch.randn(2, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    around = morphed(drawn, pivot, radius=5.0)
    assert (around - pivot).norm().item() == pytest.approx(5.0, rel=1e-5)
    assert morphed(pivot + 1, pivot)[0, 0, 0] - pivot[0, 0, 0] == pytest.approx(30 / 48**0.5, rel=1e-4)


# ---- encoders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_stylegan, tiny_dcgan])
def test_an_encoder_begins_nearer(make: Any, tmp_path: Path) -> None:
    gan, told = make(), list[EncoderStep]()
    encoder, settings = train_encoder(gan, steps=40, width=8, seed=1, pixels_every=2, on_step=told.append)
    first, last = (sum(step.code for step in part) for part in (told[:10], told[-10:]))
    assert last < 0.8 * first and settings["space"] == ("w" if make is tiny_stylegan else "z")
    save_encoder(encoder, settings, tmp_path / "encoder.safetensors")
    again, said = read_encoder(tmp_path / "encoder.safetensors", gan)
    target = own(gan, 7)
    assert torch.equal(encoded(again, target), encoded(encoder, target)) and said == settings
    choices = {"distance": PixelDistance(), "steps": 2}
    near, far = (invert(gan, target, start=start, **choices) for start in (again, None))
    assert near.steps[0].distance < far.steps[0].distance or make is tiny_dcgan
    assert near.settings["start"] == "given" != far.settings["start"]
    with pytest.raises(ValueError, match="and this .* has .*: give the run and the checkpoint that it was made with"):
        read_encoder(tmp_path / "encoder.safetensors", tuned_model(gan, {name_of(gan): torch.zeros_like(one(gan))}))


def name_of(gan: Any) -> str:
    return next(name for name, p in gan.named_parameters() if name.startswith("generator_ema.") and p.any())


def one(gan: Any) -> Tensor:
    return gan.get_parameter(name_of(gan))


def test_encoders_of_other_spaces_and_other_files(gan: DCGAN, tmp_path: Path) -> None:
    styled = tiny_stylegan()
    encoder, _ = train_encoder(styled, steps=1, width=8)
    with pytest.raises(ValueError, match="the encoder gives a code of w, and the space is z"):
        invert(styled, own(styled, 1), distance=PixelDistance(), space="z", start=encoder)
    found(styled, own(styled, 5), steps=1).save(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds a projection, expected an encoder of a generator: make one with"):
        read_encoder(tmp_path / "w.safetensors", styled)
    with pytest.raises(ValueError, match="holds a projection, expected tuned weights: give the weights.safetensors"):
        read_weights_of(tmp_path / "w.safetensors", styled)
    with pytest.raises(ValueError, match="steps of an encoder is 0"):
        train_encoder(gan, steps=0)


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_stylegan(tmp_path_factory.mktemp("stylegan2"), resolution=32)


def folder_of(run: Path, folder: Path) -> Path:
    for seed, image in zip((3, 4), to_uint8(load_run(run).sample([3, 4])), strict=True):
        save_png(image, folder / f"own{seed}.png")
    return folder


def test_a_folder_of_pictures_has_a_table_and_a_sheet(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = folder_of(run, tmp_path / "pictures")
    assert encode([str(run), "--steps", "2", "--width", "8", "--output", str(tmp_path / "e.safetensors")]) == 0
    options = ["--steps", "3", "--tune", "2", "--lpips", "pixels", "--start", f"encoder:{tmp_path / 'e.safetensors'}"]
    assert project([str(run), str(pictures), "--output", str(tmp_path / "out"), *options]) == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"own3", "own4", "table.csv", "sheet.png"}
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == ["own3", "own4"]
    assert all(float(row["distance"]) < float(row["pivot_distance"]) and float(row["psnr_db"]) > 0 for row in rows)
    told = capsys.readouterr().err
    assert "picture  pivot_psnr_db  pivot_pixels  psnr_db  pixels" in told and "\nmean " in told
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (6 * 66 - 2, 64), "two pictures, of each the target, the pivot and what was found"
    weights, _ = read_weights_of(out / "own3" / "weights.safetensors", load_run(run))
    ws, noise, settings = read_projection(out / "own3" / "w.safetensors")
    drawn = to_uint8(render(load_run(run), ws, noise, weights=weights))
    assert torch.equal(drawn[0, 0], pixels(out / "own3" / "projected.png")) and settings["start"] == "given"


def test_a_model_without_styles_is_searched_in_z(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain", tiny_gan(total_kimg=0.016))
    picture = save_png(to_uint8(load_run(plain).sample([2]))[0], tmp_path / "own.png")
    options = ["--steps", "2", "--starts", "2", "--lpips", "pixels", "--output", str(tmp_path / "out")]
    assert project([str(plain), str(picture), *options]) == 0
    z, noise, settings = read_projection(tmp_path / "out" / "z.safetensors")
    assert z.shape == (1, load_run(plain).z_dim) and not noise and settings["starts"] == 2


@pytest.mark.slow
def test_another_process_finds_the_same_bits(run: Path, tmp_path: Path) -> None:
    picture = folder_of(run, tmp_path / "pictures") / "own3.png"
    made = []
    for name in ("a", "b"):
        options = ["--steps", "4", "--tune", "3", "--lpips", "pixels", "--output", str(tmp_path / name)]
        subprocess.run([sys.executable, "-m", "lit_gans", "project", str(run), str(picture), *options], check=True)
        weights, said = read_weights_of(tmp_path / name / "weights.safetensors", load_run(run))
        made.append((read_projection(tmp_path / name / "w.safetensors"), weights, said))
    (one, weights, said), (other, same_weights, same_said) = made
    assert torch.equal(one[0], other[0]) and one[2] == other[2] and said == same_said
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    for file in ("projected.png", "progress.gif", "log.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


# ---- what compares ---------------------------------------------------------------------------------------------------


def test_features_need_no_heads() -> None:
    features = FeatureDistance("squeeze", random_state("squeezenet1_1"))
    images = 2 * torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
    assert features.name == "features_squeezenet1_1" and features(images, images).tolist() == [0, 0]
    a, b = features.features(images[:1]), features.features(images[1:])
    cosines = [(x * y).sum(1).mean() for x, y in zip(a, b, strict=True)]
    assert features(images[:1], images[1:]).item() == pytest.approx(2 - 2 * sum(cosines).item() / 7, rel=1e-4)
    assert build_distance("pixels").name == "pixels"
    with pytest.raises(ValueError, match="no net 'resnet'; it has vgg, alex, squeeze"):
        build_distance("resnet", plain=True)
