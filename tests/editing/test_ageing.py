"""A person's latent, found by encoder, pixels or identity, and kept while the class changes; scripts replay it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from lit_gans.age import main
from lit_gans.base.images import from_uint8, save_png, to_uint8
from lit_gans.data.ages import group_names
from lit_gans.edit import edit
from lit_gans.editing import read_projection, reconstruct, render, save_encoder, train_encoder
from lit_gans.editing.ageing_files import label_of, read_people
from lit_gans.editing.script import parse_script, read_script
from lit_gans.editing.state import Edited
from lit_gans.papers import CGAN, AgeCGAN
from lit_gans.runs.pretrained import save_pretrained
from tests.editing.test_image_text import face_state
from tests.editing.test_projector import tiny_stylegan
from tests.metrics.test_ages import age_state

DATE = "20170109142408075"


def tiny(**options: Any) -> AgeCGAN:
    torch.manual_seed(0)
    gan = AgeCGAN(
        resolution=16, z_dim=6, width=8, kernel_size=4, encoder_width=4, encoder_hidden=8, encoder_share=0.5, **options
    )
    with torch.no_grad():
        for parameter in gan.generator_ema.parameters():
            parameter.mul_(6)
        if gan.encoder is not None:
            gan.encoder.pairs_seen += 1
    gan.class_names = group_names()
    return gan.eval()


def without_encoder() -> AgeCGAN:
    """Begins with the best of many, from where a random network is searched well."""
    gan = tiny()
    gan.encoder = None
    return gan


class Seen(torch.nn.Module):
    """An identity network of a random projection of what is looked at from afar."""

    name, fingerprint = "seen", "0"

    def forward(self, images: Tensor) -> Tensor:
        small = F.avg_pool2d(images, 4).flatten(1)
        weight = torch.randn(24, small.shape[1], generator=torch.Generator().manual_seed(3))
        return F.normalize(F.linear(small, weight))


@pytest.fixture(scope="module")
def gan() -> AgeCGAN:
    return tiny()


@pytest.fixture(scope="module")
def target(gan: AgeCGAN) -> Tensor:
    """Somebody whom the generator can nearly draw, in the third group."""
    image = gan.sample([5], labels=torch.tensor([2]))[0]
    return (image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)


# ---- the latent ------------------------------------------------------------------------------------------------------


def test_the_encoder_says_where_it_begins(gan: AgeCGAN, target: Tensor) -> None:
    found = reconstruct(gan, target, label=2, method="encoder")
    assert torch.equal(found.code, gan.encode(target[None])) and found.steps == []
    own = render(gan, found.code, {}, labels=torch.tensor([2]))
    assert torch.equal(found.image, own.clamp(-1, 1))
    assert found.distance == pytest.approx((own - target).norm().item(), rel=1e-5), "Euclidean, of pixels"
    assert found.settings["start"] == "own" and found.settings["start_distance"] == found.distance


@pytest.mark.parametrize("method", ["pixel", "identity"])
def test_optimisation_makes_its_own_distance_smaller(gan: AgeCGAN, target: Tensor, method: str) -> None:
    look = {"pixel": lambda images: images.flatten(1), "identity": Seen()}[method]
    before = {name: tensor.clone() for name, tensor in gan.state_dict().items()}
    found = reconstruct(gan, target, label=2, method=method, identity=Seen(), steps=25)
    with torch.no_grad():
        z0 = gan.encode(target[None])
        drawn = [render(gan, z, {}, labels=torch.tensor([2])) for z in (z0, found.code)]
        first, last = ((look(image) - look(target[None])).norm().item() for image in drawn)
    assert last < 0.7 * first
    assert found.settings["start_distance"] == pytest.approx(first, rel=1e-5)
    assert found.distance == pytest.approx(last, rel=1e-4)
    distances = [step.distance for step in found.steps]
    assert distances[0] == pytest.approx(first, rel=1e-5) and len(distances) == 25
    assert all(b <= a * 1.0001 for a, b in zip(distances, distances[1:], strict=False)), "no step leads away"
    assert all(torch.equal(tensor, before[name]) for name, tensor in gan.state_dict().items())
    again = reconstruct(gan, target, label=2, method=method, identity=Seen(), steps=25)
    assert torch.equal(again.code, found.code), "nothing is drawn"


def test_each_method_is_best_in_its_own_measure(target: Tensor) -> None:
    gan, seen = without_encoder(), Seen()
    target = 0.7 * target + 0.3 * target.flip(-1)  # nobody whom it could draw
    by = {m: reconstruct(gan, target, label=2, method=m, identity=seen, steps=25) for m in ("pixel", "identity")}
    persons = {m: (seen(one.image) - seen(target[None])).norm().item() for m, one in by.items()}
    pixels = {m: (one.image - target).norm().item() for m, one in by.items()}
    assert persons["identity"] < persons["pixel"] and pixels["pixel"] < pixels["identity"]


def test_the_persons_own_class_is_what_is_searched(monkeypatch: pytest.MonkeyPatch, target: Tensor) -> None:
    gan, seen = without_encoder(), list[Tensor]()
    own = gan.generate

    def generate(z: Tensor, *, labels: Tensor, **given: Any) -> Tensor:
        seen.append(labels)
        return own(z, labels=labels, **given)

    monkeypatch.setattr(gan, "generate", generate)
    reconstruct(gan, target, label=4, method="pixel", steps=2)
    assert len(seen) > 4 and set(torch.cat(seen).tolist()) == {4}, "candidates, steps and the picture at the end"


@pytest.mark.parametrize("build", [lambda: CGAN(resolution=16, num_classes=3, z_dim=4, width=8), tiny_stylegan])
def test_any_generator_with_classes_will_do(build: Any) -> None:
    """One without an encoder begins with the best of what it draws; styles are no hindrance."""
    torch.manual_seed(0)
    gan = build(num_classes=3).eval() if build is tiny_stylegan else build().eval()
    image = gan.sample([5], labels=torch.tensor([1]))[0].clamp(-1, 1)
    found = reconstruct(gan, image, label=1, method="pixel", steps=10, candidates=30)
    assert found.settings["start"] == "candidates" and found.distance < found.settings["start_distance"]
    assert found.code.shape == (1, gan.z_dim)
    if build is tiny_stylegan:
        return
    with pytest.raises(ValueError, match="method 'encoder' needs an encoder.*lit-gans encode RUN"):
        reconstruct(gan, image, label=1, method="encoder")
    encoder, _ = train_encoder(gan, steps=2, batch_size=2, width=8)
    given = reconstruct(gan, image, label=1, method="encoder", start=encoder)
    assert torch.equal(given.code, encoder(image[None])) and given.settings["start"] == "given"


def test_settings_that_cannot_be_met(gan: AgeCGAN, target: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in [
        ({"label": 6}, "label 6 does not exist: this model has the classes 0 to 5"),
        ({"method": "best"}, "method 'best' is none of encoder, pixel, identity"),
        ({"method": "identity"}, "method 'identity' needs an identity network"),
        ({"steps": 0}, "steps is 0: give 1 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            reconstruct(gan, target, **{"label": 2, "method": "pixel", **options})
    with pytest.raises(ValueError, match="image values from 0 to 255"):
        reconstruct(gan, 255 * (target > 0).float(), label=2, method="pixel")
    with pytest.raises(ValueError, match="StyleGAN2 has no classes: ageing needs a generator with groups of ages"):
        reconstruct(tiny_stylegan(), target, label=0, method="pixel")
    monkeypatch.setattr(gan, "generate", torch.no_grad()(gan.generate))
    with pytest.raises(ValueError, match="AgeCGAN.generate keeps no gradients"):
        reconstruct(gan, target, label=2, method="pixel", steps=1)


# ---- the step of a script --------------------------------------------------------------------------------------------


def states(model: Any, steps: str, start: str = "{seed: 3}") -> list[Edited]:
    return parse_script(f"model: x\nstart: {start}\nsteps: {steps}").states(model)


def test_a_class_changes_and_the_latent_stays(gan: AgeCGAN) -> None:
    styled = tiny_stylegan(num_classes=6)
    for model in (gan, styled):
        found = states(model, "[class: {label: 5}, class: {label: 1}]", "{seed: 3, label: 2, psi: 0.7}")
        for state, label in zip(found, (2, 5, 1), strict=True):
            own = model.sample([3], labels=torch.tensor([label]), psi=0.7)
            assert torch.equal(state.picture(), to_uint8(own)[0]) and state.label == label
    named, numbered = (states(gan, f"[class: {{label: {label}}}]")[-1].picture() for label in ("30-39", 2))
    assert torch.equal(named, numbered)


def test_classes_that_cannot_be_changed() -> None:
    styled, plain = tiny_stylegan(num_classes=6), tiny_stylegan()
    with pytest.raises(ValueError, match="step 2, class: class: styles belong to the class that they were drawn in"):
        states(styled, "[mix: {seed: 1}, class: {label: 1}]")
    with pytest.raises(ValueError, match="labels must be 1 classes from 0 to 5, found \\[6\\]"):
        states(styled, "[class: {label: 6}]")
    with pytest.raises(ValueError, match="this model is unconditional"):
        states(plain, "[class: {label: 1}]")
    with pytest.raises(ValueError, match="no class is called"):
        states(tiny(), "[class: {label: old}]")


def test_a_latent_of_a_styled_model_is_a_start(tmp_path: Path) -> None:
    styled = tiny_stylegan(num_classes=3)
    image = styled.sample([5], labels=torch.tensor([1]))[0].clamp(-1, 1)
    found = reconstruct(styled, image, label=1, method="pixel", steps=2, candidates=5)
    found.save(tmp_path / "z.safetensors")
    script = parse_script("model: x\nstart: {latent: z.safetensors}\nsteps: [class: {label: 2}]", tmp_path)
    first, second = script.states(styled)
    assert first.label == 1 and torch.equal(first.picture(), to_uint8(found.image)[0])
    own = render(styled, found.code, {}, labels=torch.tensor([2]))
    assert torch.equal(second.picture(), to_uint8(own)[0].cpu())


# ---- whose age -------------------------------------------------------------------------------------------------------


def test_ages_become_groups() -> None:
    groups = group_names()
    assert [label_of(groups, age=years) for years in (0, 18.5, 43, 99)] == [0, 0, 3, 5]
    assert label_of(groups, group="40-49") == 3 and label_of(("cat", "dog"), group="dog") == 1
    with pytest.raises(ValueError, match="group 'old' does not exist: this model has 0-18, 19-29"):
        label_of(groups, group="old")
    with pytest.raises(ValueError, match="cat, dog, are no groups of ages: .* --group cat"):
        label_of(("cat", "dog"), age=43)
    with pytest.raises(ValueError, match="age -1 is none of a person"):
        label_of(groups, age=-1)


def test_names_options_and_the_network_tell_ages(gan: AgeCGAN, tmp_path: Path) -> None:
    for name in (f"43_0_1_{DATE}.png", "aunt.png"):
        save_png(torch.zeros(3, 20, 30, dtype=torch.uint8), tmp_path / name)
    asked: list[Tensor] = []

    def estimate(images: Tensor) -> Tensor:
        asked.append(images)
        return torch.tensor([27.4])

    nothing = {"age": None, "group": None, "estimate": None}
    people = read_people(tmp_path, gan, **{**nothing, "estimate": estimate})
    assert [(p.path.name, p.label, p.said) for p in people] == [
        (f"43_0_1_{DATE}.png", 3, "43 years by its name"), ("aunt.png", 1, "27 years by the age network"),
    ]  # fmt: skip
    assert len(asked) == 1 and asked[0].shape == (1, 3, 16, 16) and asked[0].max() == -1
    assert {p.label for p in read_people(tmp_path, gan, **{**nothing, "age": 70.0})} == {5}
    assert {p.label for p in read_people(tmp_path, gan, **{**nothing, "group": "0-18"})} == {0}
    with pytest.raises(ValueError, match="aunt.png: how old is this person.*--age 43 or --group 40-49, or --age_n"):
        read_people(tmp_path, gan, **nothing)
    with pytest.raises(ValueError, match="say the same thing: give one of them"):
        read_people(tmp_path, gan, age=4.0, group="0-18", estimate=None)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="no picture in"):
        read_people(tmp_path / "none", gan, **nothing)


# ---- the verb --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(gan: AgeCGAN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "age"
    save_pretrained(tiny(), folder)
    return folder


@pytest.fixture
def photos(gan: AgeCGAN, tmp_path: Path) -> Path:
    for seed, age in ((1, 43), (2, 8)):
        save_png(to_uint8(gan.sample([seed]))[0], tmp_path / "photos" / f"{age}_0_1_{DATE}.png")
    return tmp_path / "photos"


def picture(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def test_a_folder_becomes_a_sheet_and_scripts_that_replay(run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "aged"
    argv = [str(run), str(photos), "--method", "pixel", "--steps", "3", "--output", str(out), "--device", "cpu"]
    assert main(argv) == 0
    assert {path.name for path in out.iterdir()} == {
        "sheet.png", "table.csv", "settings.json", f"43_0_1_{DATE}", f"8_0_1_{DATE}",
    }  # fmt: skip
    sheet = picture(out / "sheet.png")
    assert sheet.shape == (3, 2 * 66 - 2, 8 * 66 - 2)
    with (out / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == ["40-49", "0-18"] and rows[0]["told_by"] == "43 years by its name"
    assert all(float(row["distance"]) < float(row["start_distance"]) for row in rows)
    settings = json.loads((out / "settings.json").read_text(encoding="utf-8"))
    assert settings["method"] == "pixel" and settings["groups"] == list(group_names())
    for row, name in enumerate((f"43_0_1_{DATE}", f"8_0_1_{DATE}")):
        own = out / name
        assert {path.name for path in own.iterdir()} == {"aged.png", "edit.yaml", "z.safetensors", "log.jsonl"}
        edit(own / "edit.yaml", sheet=True, output=tmp_path / "again.png", device="cpu")
        assert torch.equal(picture(tmp_path / "again.png"), picture(own / "aged.png"))
        assert torch.equal(sheet[:, 66 * row : 66 * row + 64, 2 * 66 :], picture(own / "aged.png"))
        z, _, said = read_projection(own / "z.safetensors")
        assert said["method"] == "pixel" and said["group"] == rows[row]["group"] and z.shape == (1, 6)
        photo = picture(photos / f"{name}.png").repeat_interleave(4, 1).repeat_interleave(4, 2)
        assert torch.equal(sheet[:, 66 * row : 66 * row + 64, :64], photo)
    script = read_script(out / f"8_0_1_{DATE}" / "edit.yaml")
    assert len(script.steps) == 5 and script.weights is not None


@pytest.mark.slow
def test_another_process_replays_it(run: Path, photos: Path, tmp_path: Path) -> None:
    photo, out = photos / f"8_0_1_{DATE}.png", tmp_path / "one"
    assert main([str(run), str(photo), "--method", "encoder", "--output", str(out), "--device", "cpu"]) == 0
    assert (out / "aged.png").is_file() and (out / "sheet.png").is_file() and not (out / "log.jsonl").exists()
    command = [sys.executable, "-m", "lit_gans.edit", str(out / "edit.yaml"), "--sheet", "--device", "cpu"]
    subprocess.run([*command, "--output", str(tmp_path / "again.png")], check=True)
    assert torch.equal(picture(tmp_path / "again.png"), picture(out / "aged.png"))


def test_the_face_and_age_networks_are_read(run: Path, gan: AgeCGAN, tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in face_state().items()}, tmp_path / "face.safetensors")
    save_file(age_state(), tmp_path / "age.safetensors")
    save_png(to_uint8(gan.sample([1]))[0], tmp_path / "aunt.png")
    argv = [str(run), str(tmp_path / "aunt.png"), "--steps", "1", "--output", str(tmp_path / "out"), "--device", "cpu"]
    networks = ["--identity", str(tmp_path / "face.safetensors"), "--age-network", str(tmp_path / "age.safetensors")]
    assert main([*argv, *networks]) == 0
    _, _, said = read_projection(tmp_path / "out" / "z.safetensors")
    assert said["network"] == "face_recognition" and "years by the age network" in said["told_by"]
    assert said["distance"] <= said["start_distance"] and said["image"] == "aunt.png"


def test_an_encoder_of_a_file(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = CGAN(resolution=16, num_classes=6, z_dim=4, width=8).eval()
    plain.class_names = group_names()
    save_pretrained(plain, tmp_path / "cgan")
    encoder, settings = train_encoder(plain, steps=2, batch_size=2, width=8)
    save_encoder(encoder, settings, tmp_path / "encoder.safetensors")
    argv = [str(tmp_path / "cgan"), str(photos), "--method", "encoder", "--output", str(tmp_path / "out")]
    assert main([*argv, "--encoder", str(tmp_path / "encoder.safetensors"), "--device", "cpu"]) == 0
    z, _, said = read_projection(tmp_path / "out" / f"8_0_1_{DATE}" / "z.safetensors")
    image = from_uint8(picture(photos / f"8_0_1_{DATE}.png"))
    assert torch.equal(z, encoder(image[None])) and said["start"] == "given"


def test_the_command_says_one_line(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_png(torch.zeros(3, 16, 16, dtype=torch.uint8), tmp_path / "aunt.png")
    (tmp_path / "file").write_text("")
    for argv, message in [
        ([str(photos)], "method 'identity' needs --identity"),
        ([str(tmp_path / "aunt.png"), "--method", "pixel"], "aunt.png: how old is this person?"),
        ([str(tmp_path / "none"), "--method", "pixel"], "none does not exist"),
        ([str(photos), "--method", "pixel", "--group", "old"], "group 'old' does not exist"),
        ([str(photos), "--identity", str(tmp_path / "none.safetensors")], "none.safetensors does not exist"),
        ([str(photos), "--method", "pixel", "--output", str(tmp_path / "file")], "file is a file: give a folder"),
    ]:
        argv = [str(run), *argv, *([] if "--output" in argv else ["--output", str(tmp_path / "out")])]
        assert main([*argv, "--device", "cpu"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("lit-gans age: ") and message in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()
