"""What an earlier version wrote works as it did: runs, model folders, converted weights and numbers of tests/fixtures.

The files are older than the package's present arrangement (see tests/fixtures/write.py) and are never written again:
where a test fails, the package has to change.
"""

import json
import pydoc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from lit_gans.compare import compare
from lit_gans.convert import convert
from lit_gans.data import Digits
from lit_gans.evaluate import evaluate
from lit_gans.fit import fit
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained
from lit_gans.sample import sample
from lit_gans.translate import translate

FIXTURES = Path(__file__).parent / "fixtures"
PICTURES = FIXTURES / "pictures"
CAPTIONS = ("a small red circle at the top left on grey", "there is one square in the centre and its colour is blue")

Draw = Callable[[Path, Path], object]
"""draw(model, folder): pictures of a run or a model's folder, by a verb."""


def _both_ways(model: Path, folder: Path) -> None:
    for direction in ("ab", "ba"):
        translate(model, PICTURES, output=folder / direction, direction=direction)


def _captions(model: Path, folder: Path) -> None:
    sample(model, output=folder / "told", seeds="0-1", text=CAPTIONS)
    sample(model, output=folder / "held_out", seeds="2")


DRAW: dict[str, Draw] = {
    "cgan": lambda model, folder: sample(model, output=folder, seeds="0-3", classes="3,7"),
    "stylegan2_ada": lambda model, folder: sample(model, output=folder, seeds="0-7", psi=0.7),
    "pggan": lambda model, folder: sample(model, output=folder, seeds="0-7", raw=True),
    "cyclegan": _both_ways,
    "pix2pix": lambda model, folder: translate(model, PICTURES, output=folder, seed=1),
    "stackgan2": _captions,
}
DRAW_RELEASED: dict[str, Draw] = {
    "stylegan2.pkl": lambda model, folder: sample(model, output=folder, seeds="0-3"),
    "cyclegan": _both_ways,
    "pix2pixhd.pth": lambda model, folder: translate(model, PICTURES, output=folder),
}
# To how many thousand images the runs go on.
RESUME_TO = {
    "cgan": 4.864, "stylegan2_ada": 1.696, "pggan": 0.864, "cyclegan": 0.412, "pix2pix": 0.416, "stackgan2": 0.832
}  # fmt: skip
EVALUATE: dict[str, dict[str, Any]] = {"cgan": {}, "pix2pix": {"metrics": ["psnr", "ssim"], "num_images": 8}}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are resumed from the folder that they were started in; the classifier of digits was kept."""
    shutil.copytree(FIXTURES / "cache", tmp_path / "cache")
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "trained" / name, folder))


def pixels(folder: Path) -> dict[str, Tensor]:
    """uint8 of all pictures below a folder, by their paths."""
    paths = sorted(folder.rglob("*.png"))
    return {path.relative_to(folder).as_posix(): torch.from_numpy(np.array(Image.open(path))) for path in paths}


def drawn(draw: Draw, model: Path) -> dict[str, Tensor]:
    folder = Path("drawn")
    draw(model, folder)
    return pixels(folder)


def state(run: Path) -> dict[str, Tensor]:
    """float32: the first few numbers of every tensor of a run's newest checkpoint."""
    return {name: tensor.flatten()[:16].float() for name, tensor in checkpoint(run)["state_dict"].items()}


def checkpoint(run: Path) -> dict[str, Any]:
    """The newest of a run."""
    return torch.load(max(run.glob("checkpoints/kimg*.ckpt")), weights_only=True)


def resume(name: str) -> dict[str, Any]:
    """Goes on with the run in the folder of this name; its clock and what it added to metrics.jsonl."""
    run = Path(name)
    before = len(lines(run))
    fit(run / "config.yaml", f"--model.init_args.total_kimg={RESUME_TO[name]}", ckpt_path="last")
    clock = checkpoint(run)["lit_gans"]
    return {**{key: clock[key] for key in ("images_seen", "batches_seen")}, "metrics": lines(run)[before:]}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_pictures(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, picture in expected.items():
        assert found[name].shape == picture.shape
        assert (found[name].int() - picture.int()).abs().max() <= 1, name


def same_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def far(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """What differs by more than the rounding of another processor, as a share of the tensor's largest number."""
    assert found.keys() == expected.keys()
    shares = {name: _difference(found[name], tensor) for name, tensor in expected.items() if tensor.numel()}
    return {name: share for name, share in shares.items() if not share <= 1e-4}


def _difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-3)).item()


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAW)
def test_a_run_is_loaded_with_all_its_tensors(name: str) -> None:
    run = FIXTURES / "trained" / name
    saved = torch.load(next(run.glob("checkpoints/*.ckpt")), weights_only=True)
    game = load_run(run)
    assert f"lit_gans.papers.{type(game).__name__}" in (run / "config.yaml").read_text()
    assert game.images_seen == saved["lit_gans"]["images_seen"] > 0
    kept = {k: v for k, v in saved["state_dict"].items() if not k.startswith("augment.")}  # which training alone uses
    assert same_tensors(game.state_dict(), kept)


@pytest.mark.parametrize("name", DRAW)
def test_a_run_draws_what_it_drew(name: str) -> None:
    expected = load_file(FIXTURES / "expected" / f"{name}_images.safetensors")
    assert_same_pictures(drawn(DRAW[name], FIXTURES / "trained" / name), expected)


@pytest.mark.filterwarnings("ignore:training ends at", "ignore:Found .* in eval mode")
@pytest.mark.parametrize("name", DRAW)
def test_a_run_goes_on_as_it_did(name: str) -> None:
    """In its own folder, with the states of its optimisers and callbacks."""
    run = copied(name, Path(name))
    found, expected = resume(name), json.loads((FIXTURES / "expected" / f"{name}.json").read_text())
    assert far(state(run), load_file(FIXTURES / "expected" / f"{name}_state.safetensors")) == {}
    assert {**found, "metrics": None} == {**expected, "metrics": None}
    assert [line.keys() for line in found["metrics"]] == [line.keys() for line in expected["metrics"]]
    for line, old in zip(found["metrics"], expected["metrics"], strict=True):
        assert losses(line) == pytest.approx(losses(old), rel=1e-3)
    assert len(json.loads((run / "run.json").read_text())["starts"]) == 2
    known_at_wandb = {path.read_text() for path in run.glob("wandb_id")}
    assert {path.name.rpartition("-")[2] for path in run.glob("wandb/offline-run-*")} == known_at_wandb


def losses(line: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name == "kimg" or name.startswith("loss")}


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVALUATE)
def test_numbers_of_then_and_now_are_equal_and_ranked_together(name: str, tmp_path: Path) -> None:
    then, now = copied(name, tmp_path / "then"), copied(name, tmp_path / "now")
    for file in ("evaluations.jsonl", "metrics.jsonl"):
        (now / file).unlink()
    evaluate(now, **EVALUATE[name])
    old, new = (json.loads((run / "evaluations.jsonl").read_text()) for run in (then, now))
    comparison = compare([then, now])
    assert {"kimg", "time_s", *(column.name for column in comparison.columns)} == {
        key for key, value in old.items() if isinstance(value, float)
    }
    assert old.keys() == new.keys() and old["protocol"].keys() == new["protocol"].keys()
    for column in comparison.columns:
        assert new[column.name] == pytest.approx(old[column.name], rel=1e-5), column.name
        assert [column.cells[run].number.value for run in ("then", "now")] == [old[column.name], new[column.name]]
        # Another processor may round a pixel that scaling puts halfway between two grey levels the other way.
        assert column.differing.keys() <= {"dataset"}


def test_statistics_of_data_are_kept_under_the_same_key() -> None:
    assert Digits(batch_size=1, resolution=8).fingerprint("train") == "bde7916215a1d8f7"


# ---- model folders ---------------------------------------------------------------------------------------------------


def test_a_pretrained_training_class_draws_what_its_run_drew() -> None:
    folder = FIXTURES / "pretrained" / "cgan"
    run, model = load_run(FIXTURES / "trained" / "cgan"), from_pretrained(folder)
    assert type(model) is type(run) and model.images_seen == run.images_seen
    assert torch.equal(model.sample(range(4)), run.sample(range(4)))
    assert_same_pictures(drawn(DRAW["cgan"], folder), load_file(FIXTURES / "expected" / "cgan_images.safetensors"))


def test_a_pretrained_generator_alone_draws_what_it_drew() -> None:
    folder = FIXTURES / "pretrained" / "stylegan2"
    generator = load_run(FIXTURES / "trained" / "stylegan2_ada").generator_ema
    z, model = torch.randn(2, 8), from_pretrained(folder)
    assert type(model) is type(generator) and torch.equal(model(z, noise="const"), generator(z, noise="const"))
    expected = load_file(FIXTURES / "expected" / "stylegan2_images.safetensors")
    assert_same_pictures(drawn(DRAW["stylegan2_ada"], folder), expected)


@pytest.mark.parametrize("name", DRAW_RELEASED)
def test_a_converted_folder_draws_what_it_drew(name: str) -> None:
    expected = load_file(FIXTURES / "expected" / f"released_{Path(name).stem}_images.safetensors")
    assert_same_pictures(drawn(DRAW_RELEASED[name], FIXTURES / "converted" / Path(name).stem), expected)


@pytest.mark.parametrize("name", DRAW_RELEASED)
def test_released_weights_become_the_same_networks(name: str, tmp_path: Path) -> None:
    convert(FIXTURES / "official" / name, tmp_path / "ours")
    found, kept = networks(tmp_path / "ours"), networks(FIXTURES / "converted" / Path(name).stem)
    assert found.keys() == kept.keys() and "." in kept
    assert all(type(found[folder]) is type(network) for folder, network in kept.items())
    assert all(same_tensors(found[folder].state_dict(), network.state_dict()) for folder, network in kept.items())


def networks(converted: Path) -> dict[str, nn.Module]:
    """By folder."""
    folders = [path.parent for path in converted.rglob("config.json")]
    return {folder.relative_to(converted).as_posix(): from_pretrained(folder) for folder in folders}


@pytest.mark.parametrize("name", DRAW_RELEASED)
def test_a_converted_folder_goes_back_to_the_released_weights(name: str, tmp_path: Path) -> None:
    convert(FIXTURES / "converted" / Path(name).stem, tmp_path / name, to="official")
    released, back = (
        convert(folder / name, tmp_path / f"from_{folder.name}") for folder in (FIXTURES / "official", tmp_path)
    )
    assert {key: network.official_fingerprint for key, network in back.networks.items()} == {
        key: network.official_fingerprint for key, network in released.networks.items()
    }


# ---- names -----------------------------------------------------------------------------------------------------------


def test_import_paths_in_configs_checkpoints_and_folders_lead_somewhere() -> None:
    paths = (FIXTURES / "paths.txt").read_text().split()
    assert paths and [path for path in paths if pydoc.locate(path) is None] == []
