"""Translators measured during training, and by several processes together."""

import json
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Input
from lit_gans.base.images import from_uint8, to_uint8
from lit_gans.callbacks.evaluate_translation import EvaluateTranslation
from lit_gans.data import Digits, ShapeDomains, ShapePairs, TranslationData
from lit_gans.metrics import LPIPS, Evaluation, building, frechet_distance, perceptual
from lit_gans.metrics.measures import Judges
from lit_gans.metrics.plan import TranslationPlan
from lit_gans.metrics.translation import evaluate_translator
from lit_gans.nn import Draws
from tests.distributed.launch import run_processes
from tests.metrics.common import PixelFeatures

from .common import tiny_gan, tiny_trainer

SIDE = 16


class Dimmer(Game):
    """One layer, trained to make b of a by its mean square alone; the way back is a negative."""

    directions: tuple[str, ...] = ("ab", "ba")
    stride = 4

    def __init__(self, *, total_kimg: float = 0.016, directions: Sequence[str] = ("ab", "ba")) -> None:
        super().__init__(total_kimg=total_kimg)
        torch.manual_seed(0)
        self.layer, self.directions = nn.Conv2d(3, 3, 3, padding=1), tuple(directions)

    def networks(self) -> list[nn.Module]:
        return [self.layer]

    def takes(self, direction: str) -> Input:
        return Input(3)

    def preview(self, data: Any, *, rows: int, columns: int, psi: float) -> tuple[Tensor, int]:
        raise AssertionError

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.layer.parameters(), lr=0.1)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        with self.updating(self.optimizers()):
            self.accumulate((self.layer(batch["a"]) - batch["b"]).square().mean())

    def translate(
        self, images: Tensor, *, direction: str = "ab", draws: Draws | None = None, instance: Tensor | None = None
    ) -> Tensor:
        images = images.expand(-1, 3, -1, -1)
        return self.layer(images).tanh() if direction == "ab" else -images


class Colours(nn.Module):
    """The strongest channel, or 3 where none is above 100."""

    def forward(self, images: Tensor) -> Tensor:
        value, channel = images.max(dim=1)
        return torch.where(value > 100, channel, 3)


def pairs(**options: Any) -> ShapePairs:
    return ShapePairs(batch_size=8, resolution=SIDE, images=30, test_images=11, holdout=False, **options)


def domains() -> ShapeDomains:
    return ShapeDomains(batch_size=8, resolution=SIDE, images=30, test_images=11)


def measured(
    metrics: Sequence[str], data: TranslationData, *, rank: int = 0, world: int = 1, game: Any = None, **plan: Any
) -> Evaluation:
    judges = Judges(PixelFeatures(), None, Colours())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of so few images
        return evaluate_translator(
            game or Dimmer(), data, plan=TranslationPlan(metrics=metrics, batch_size=4, num_segments=4, **plan),
            judges=judges, rank=rank, world=world,
        )  # fmt: skip


@pytest.fixture(autouse=True)
def cheap_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for Inception and LPIPS, and statistics in a folder of the test."""
    from torchvision.models import squeezenet1_1

    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    build = building.build_extractor

    def extractor(spec: str, **options: Any) -> Any:
        return PixelFeatures() if spec == "pixels" else build(spec, **options)

    def lpips(net: str, *, weights_path: str | None) -> LPIPS:
        assert (net, weights_path) == ("alex", None)
        torch.manual_seed(0)
        return LPIPS("squeeze", squeezenet1_1(weights=None).state_dict())

    monkeypatch.setattr(building, "build_extractor", extractor)
    monkeypatch.setattr(perceptual, "build_lpips", lpips)


# ---- values ----------------------------------------------------------------------------------------------------------


def both(game: Dimmer, data: ShapePairs) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(translations of all test pictures, their partners, the batch) in one go."""
    batch = data.dataset("test").fetch(torch.arange(11))
    with torch.no_grad():
        return to_uint8(game.translate(from_uint8(batch["a"]))), batch["b"], batch


def test_pairs_are_measured_picture_by_picture() -> None:
    game, data = Dimmer(), pairs()
    found = measured(["psnr", "segmentation"], data, game=game)
    fake, real, _ = both(game, data)
    each = [peak_signal_noise_ratio(f.double(), r.double(), data_range=255.0) for f, r in zip(fake, real, strict=True)]
    assert found.values["psnr"] == pytest.approx(torch.stack(each).mean().item(), rel=1e-6)
    truth, seen = (Colours()(images).flatten().numpy() for images in (real, fake))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "pixel_accuracy": accuracy_score(truth, seen),
            "mean_class_accuracy": balanced_accuracy_score(truth, seen),
            "mean_iou": jaccard_score(truth, seen, average="macro"),
        }
    assert {name: found.values[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    stamp = found.stamp("mean_iou")
    assert (stamp["direction"], stamp["pairs"], stamp["segmenter"]) == ("ab", 11, "Colours")
    assert stamp["truth"] == "the segmenter on the partner" and stamp["extractor"] is None and stamp["split"] == "test"


def test_sets_are_compared_whole_and_each_direction_has_its_numbers() -> None:
    game, data = Dimmer(), pairs()
    found = measured(["fid", "kid"], data, game=game, directions=("ab", "ba"))
    assert sorted(found.values) == ["frechet_pixels", "frechet_pixels_ba", "kernel_pixels", "kernel_pixels_ba"]
    fake, real, batch = both(game, data)
    extractor = PixelFeatures()
    for name, made, reals in (("", fake, real), ("_ba", 255 - real, batch["a"])):
        sides = [extractor(images).features.double() for images in (reals, made)]
        moments = [(x.mean(0), torch.from_numpy(np.cov(x.numpy().T))) for x in sides]
        expected = frechet_distance(*moments[0], *moments[1]).item()
        assert found.values[f"frechet_pixels{name}"] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    stamp = found.stamp("frechet_pixels_ba")
    assert (stamp["direction"], stamp["n_fake"], stamp["n_real"], stamp["extractor"]) == ("ba", 11, 11, "pixels")
    fewer = measured(["fid"], data, game=game, num_images=5, real_split="train", num_real=20)
    stamp = fewer.stamp("frechet_pixels")
    assert (stamp["n_fake"], stamp["n_real"], stamp["real_split"]) == (5, 20, "train")


def test_unpaired_domains_are_taken_once_each() -> None:
    data = domains()
    found = measured(["fid"], data, directions=("ab", "ba"))
    for direction in ("ab", "ba"):
        count = len(data.domain(direction[0]).dataset("test"))
        assert found.stamp(f"frechet_pixels{'' if direction == 'ab' else '_ba'}")["n_fake"] == count


def test_label_maps_and_instances_are_given_to_the_model_and_are_the_truth() -> None:
    seen: list[dict[str, Tensor]] = []

    class Painter(Dimmer):
        def translate(self, images: Tensor, **rest: Any) -> Tensor:
            seen.append({"images": images, **rest})
            return super().translate(images, **rest)

    class Labels(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), *images.shape[2:], dtype=torch.int64)

    data = pairs(inputs="labels")
    judges = Judges(segmenter=Labels())
    plan = TranslationPlan(metrics=["segmentation"], num_segments=data.num_labels)
    found = evaluate_translator(Painter(), data, plan=plan, judges=judges)
    batch = data.dataset("test").fetch(torch.arange(11))
    given = {name: torch.cat([each[name] for each in seen]) for name in ("images", "instance")}
    assert given["images"].equal(from_uint8(batch["label"])[:, None]) and given["instance"].dtype == torch.int64
    assert given["instance"].equal(batch["instance"].long())
    assert found.values["pixel_accuracy"] == (batch["label"] == 0).double().mean().item()
    assert found.stamp("mean_iou")["truth"] == "label maps"


def test_no_number_is_taken_of_broken_translations() -> None:
    class Broken(Dimmer):
        def translate(self, images: Tensor, **rest: Any) -> Tensor:
            made = super().translate(images, **rest)
            made[1] = math.nan
            return made

    with pytest.raises(ValueError, match=r"translation \(ab\) of picture 1 of split 'test' holds NaN or infinity"):
        measured(["psnr"], pairs(), game=Broken())


# ---- several processes -----------------------------------------------------------------------------------------------


def everything(rank: int = 0, world: int = 1) -> dict[str, float]:
    metrics = ["psnr", "ssim", "segmentation", "fid", "kid", "precision", "coverage"]
    both_ways = measured(metrics, pairs(), rank=rank, world=world, directions=("ab", "ba"))
    few = measured(["psnr", "segmentation"], pairs(), rank=rank, world=world, num_images=2)
    apart = measured(["fid"], domains(), rank=rank, world=world)
    return {
        f"{name} {part}": value
        for part, evaluation in enumerate((both_ways, few, apart))
        for name, value in evaluation.values.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_find_what_one_finds(world: int) -> None:
    outputs = run_processes(world, ["-m", "tests.callbacks.test_evaluate_translation"])
    expected = everything()
    assert len(expected) == 2 * 9 + 4 + 1
    for output in outputs:
        assert json.loads(output.splitlines()[-1]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


# ---- the callback ----------------------------------------------------------------------------------------------------


def evaluate(every_kimg: float, **settings: Any) -> EvaluateTranslation:
    return EvaluateTranslation(every_kimg, **{"extractor": "pixels", "metrics": ["psnr", "fid"], **settings})


def lines(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fit(folder: Path, game: Game, callback: Any, data: Any = None) -> None:
    tiny_trainer(folder, *([callback] if callback else [])).fit(game, pairs() if data is None else data)


def test_values_are_written_with_their_protocol_when_the_clock_says_so(tmp_path: Path) -> None:
    game, callback = Dimmer(), evaluate(0.008, at_start=True, directions=["ab"])
    fit(tmp_path, game, callback)
    written = lines(tmp_path)
    assert [line["kimg"] for line in written] == [0, 0.008, 0.016]
    assert [line["protocol"]["images_seen"] for line in written] == [0, 8, 16]
    assert written[0]["psnr"] != written[1]["psnr"] and written[1]["protocol"]["generator"] == "raw"
    again = measured(["psnr", "fid"], pairs(), game=game)
    assert callback.latest == pytest.approx(again.values, rel=1e-6) and again.stamp("psnr")["resolution"] == SIDE


def test_what_is_measured_by_default_follows_from_the_data(tmp_path: Path) -> None:
    plain = EvaluateTranslation(1, extractor="pixels")
    fit(tmp_path, Dimmer(total_kimg=0.008), plain, domains())
    assert plain.plan.metrics == ("frechet", "kid") and plain.plan.directions == ("ab", "ba")
    assert plain.plan.split == "test" and sorted(plain.latest)[:2] == ["frechet_pixels", "frechet_pixels_ba"]
    whole = EvaluateTranslation(1, extractor="pixels", segmenter=Colours(), num_segments=4, directions=["ab"])
    fit(tmp_path, Dimmer(total_kimg=0.008), whole, ShapePairs(batch_size=8, resolution=32, images=9, test_images=8))
    assert sorted(whole.latest) == [
        "frechet_pixels", "kernel_pixels", "lpips_form_squeezenet1_1", "mean_class_accuracy", "mean_iou",
        "pixel_accuracy", "psnr", "ssim",
    ]  # fmt: skip


def test_training_is_the_same_with_and_without_it(tmp_path: Path) -> None:
    states = []
    for name, callback in (("with", evaluate(0.008)), ("without", None)):
        game = Dimmer(total_kimg=0.032)
        torch.manual_seed(1)
        fit(tmp_path / name, game, callback)
        states.append((game.layer.weight.detach().clone(), torch.get_rng_state()))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True)) and len(lines(tmp_path / "with")) == 4


def test_zero_switches_it_off(tmp_path: Path) -> None:
    fit(tmp_path, Dimmer(), EvaluateTranslation(0, extractor="nonsense", metrics=["nonsense"]))
    assert lines(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extractor": "nonsense"}, "unknown extractor 'nonsense'"),
        ({"metrics": ["fud"]}, r"metrics \['fud'\]: choose one or more of psnr"),
        ({"metrics": ["segmentation"]}, "segmentation has num_segments 0: give the number"),
        ({"metrics": ["segmentation"], "num_segments": 4}, "segmentation cannot be taken without a segmenter"),
        ({"metrics": ["segmentation"], "num_segments": 3, "segmenter": Colours()}, "a found label is 3; 3 classes are"),
        ({"metrics": ["ms_ssim"]}, "images of 16 x 16 px are too small for 5 scales"),
        ({"directions": ["ba"], "game": ("ab",)}, "directions has 'ba', and this translator has ab"),
        ({"split": "val"}, "no split 'val'; it has train, test"),
        ({"num_images": 12}, "num_images is 12; split 'test' has 11 pictures: use 2 to 11, or None"),
        ({"num_real": 31, "real_split": "train"}, "num_real is 31; the split has 30 images"),
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"directions": []}, r"directions \[\]: choose of ab and ba"),
        ({"data": "domains"}, "psnr compare pairs, and ShapeDomains has none: leave them out"),
        ({"data": "digits"}, "takes pictures from the datamodule, but found Digits: pass one for translators"),
        ({"data": "one"}, "frechet need 2 translated pictures or more in direction 'ab', and there is 1"),
        ({"data": "labels", "metrics": ["segmentation"], "num_segments": 4, "segmenter": Colours()},
         "the segmenter has num_segments 4, and the label maps 11 labels"),
        ({"game": "gan"}, "needs a model that translates images, and a VanillaGAN does not: it draws images"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_before_training(settings: dict, message: str) -> None:
    settings = dict(settings)
    one = {"batch_size": 1, "resolution": SIDE, "holdout": False, "images": 9, "test_images": 1}
    data = {"pairs": pairs, "domains": domains, "digits": lambda: Digits(batch_size=8, resolution=8),
            "one": lambda: ShapePairs(**one), "labels": lambda: pairs(inputs="labels")}  # fmt: skip
    chosen, directions = data[settings.pop("data", "pairs")](), settings.pop("game", ("ab", "ba"))
    game = tiny_gan() if directions == "gan" else Dimmer(directions=directions)
    callback = evaluate(1, **settings)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        callback.setup(SimpleNamespace(datamodule=chosen), game, "fit")


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    print(json.dumps(everything(dist.get_rank(), dist.get_world_size())), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
