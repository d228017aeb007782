"""Metrics against numbers of the official code, chosen by what the files say of themselves."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_gans.metrics import FrechetDistance, class_score, kernel_distance, manifold_overlap, precision_recall
from lit_gans.metrics.kernel import squared_mmd
from lit_gans.metrics.manifold import neighbour_radii
from lit_gans.metrics.score import class_scores

FOLDER = Path(os.environ.get("LIT_GANS_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


def cases(official: str) -> list:
    """(tensors, config) of every file whose official class contains `official`."""
    from safetensors import safe_open

    found = []
    for path in sorted(FOLDER.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if official in metadata.get("official_class", ""):
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                found.append(pytest.param(tensors, json.loads(metadata["config"]), id=path.stem))
    required = os.environ.get("LIT_GANS_REQUIRE_GOLDEN") == "1"
    absent = pytest.param(
        {}, {}, id="absent", marks=() if required else pytest.mark.skip(f"no golden file in {FOLDER}")
    )
    return found or [absent]


on_features = pytest.mark.parametrize(("tensors", "config"), cases("metrics.prdc"))
on_logits = pytest.mark.parametrize(("tensors", "config"), cases("metric_isc"))


def features(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    assert tensors, f"no golden file in {FOLDER}"
    return tensors["in/real"].double(), tensors["in/fake"].double()


@on_features
def test_frechet(tensors: dict[str, Tensor], config: dict) -> None:
    metric = FrechetDistance(tensors["in/real"].shape[1]) if tensors else None
    real, fake = features(tensors)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    official = {name: value.item() for name, value in tensors.items() if name.startswith("out/fid_")}
    assert official
    for name, value in official.items():
        assert metric.compute().item() == pytest.approx(value, rel=1e-6), name


@on_features
def test_kernel(tensors: dict[str, Tensor], config: dict) -> None:
    real, fake = features(tensors)
    full = tensors["out/kid_full_polynomial_unbiased"].item()
    assert kernel_distance(real, fake).item() == pytest.approx(full, rel=1e-9)
    # The official loop with its own draws: fakes first, numpy's legacy generator (StyleGAN3), seed 123.
    rng, size = np.random.RandomState(123), config["kid_subset"]
    drawn = []
    for _ in range(config["kid_subsets"]):
        rows = [torch.from_numpy(rng.choice(len(side), size, replace=False)) for side in (fake, real)]
        drawn.append(squared_mmd(fake[rows[0]], real[rows[1]]))
    official = tensors["out/kid_stylegan3_10x100_npseed123"].item()
    assert torch.stack(drawn).mean().item() == pytest.approx(official, rel=1e-9)


@on_features
def test_precision_and_recall(tensors: dict[str, Tensor], config: dict) -> None:
    real, fake = features(tensors)
    for k in (3, 5):  # the official shares were rounded to float32
        precision, recall = precision_recall(real, fake, k=k)
        assert precision.item() == pytest.approx(tensors[f"out/kynkaanniemi_k{k}_precision"].item(), abs=1e-7)
        assert recall.item() == pytest.approx(tensors[f"out/kynkaanniemi_k{k}_recall"].item(), abs=1e-7)
    radii = neighbour_radii(real, k=config["k"])
    assert torch.allclose(radii, tensors["out/radii_real"], rtol=1e-9)


@on_features
def test_density_and_coverage(tensors: dict[str, Tensor], config: dict) -> None:
    real, fake = features(tensors)
    k = config["k"]
    found = manifold_overlap(real, fake, k=k)
    for name in ("density", "coverage"):
        assert getattr(found, name).item() == pytest.approx(tensors[f"out/prdc_k{k}_{name}"].item(), rel=1e-6), name


@on_features
def test_torch_fidelitys_kernel_distance(tensors: dict[str, Tensor], config: dict) -> None:
    real, fake = features(tensors)
    rng, size, drawn = np.random.RandomState(2020), config["kid_subset"], []
    for _ in range(config["kid_subsets"]):
        rows = [torch.from_numpy(rng.choice(len(side), size, replace=False)) for side in (fake, real)]
        drawn.append(squared_mmd(fake[rows[0]], real[rows[1]]))
    name = f"out/kid_torchfidelity_{config['kid_subsets']}x{size}_seed2020"
    values = torch.stack(drawn)
    assert values.mean().item() == pytest.approx(tensors[f"{name}_mean"].item(), rel=1e-6)
    assert values.std(correction=0).item() == pytest.approx(tensors[f"{name}_std"].item(), rel=1e-6)


@on_logits
def test_class_score(tensors: dict[str, Tensor], config: dict) -> None:
    assert tensors, f"no golden file in {FOLDER}"
    for splits in (1, config["splits"]):
        official = tensors[f"out/is_studiogan_splits{splits}_mean"].item()
        assert class_score(tensors["in/logits"], splits=splits).item() == pytest.approx(official, rel=1e-9)
    splits = config["splits"]
    scores = class_scores(tensors["in/logits"], splits=splits)
    for name, correction in (("studiogan", 1), ("stylegan3", 0)):
        kind = "unbiased" if correction else "biased"
        official = tensors[f"out/is_{name}_splits{splits}_std_{kind}"].item()
        assert scores.std(correction=correction).item() == pytest.approx(official, rel=1e-7), name
    order = torch.from_numpy(np.random.RandomState(2020).permutation(len(tensors["in/logits"])))
    shuffled = class_scores(tensors["in/logits"][order], splits=splits)
    official = tensors[f"out/is_torchfidelity_splits{splits}_shuffled_seed2020_mean"].item()
    assert shuffled.mean().item() == pytest.approx(official, rel=1e-7)
