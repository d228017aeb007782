"""The extractor that a name means."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lit_gans.base.checkpoints import read_weights
from lit_gans.base.download import weights_file
from lit_gans.metrics import backbones
from lit_gans.metrics.classifiers import DATA_CLASSIFIERS, classifier_of, digits_classifier
from lit_gans.metrics.extractors import (
    _INCEPTION_SHA256,
    INCEPTION_URL,
    Extractor,
    InceptionFeatures,
    RandomInception,
    TorchvisionFeatures,
    opening,
)

if TYPE_CHECKING:
    from lit_gans.metrics.reals import RealImages


def build_extractor(
    spec: str, *, weights_path: str | Path | None = None, data: RealImages | None = None, spatial: bool = False
) -> Extractor:
    """The extractor called `spec`.

    "inception" (FID's), "random_inception" (never trained), "vgg16", "torchvision:squeezenet1_1" and its like,
    "timm:<model>", "clip:ViT-B-32" and its like, "dinov2:vit-s-14" and its like; "digits" and "mnist" are small
    classifiers trained here once and kept (see `classifiers`), and "mnist" and its kin need the `data` to train on;
    "stackedmnist" is for counting modes.
    `weights_path` is a .safetensors or .pth file; without it published weights are taken from where they are kept, or
    downloaded. `spatial` asks "inception" for the features of sFID too.
    ValueError for an unknown spec, FileNotFoundError or ConnectionError for weights that cannot be had.
    """
    if spatial and spec != "inception":
        raise ValueError(f"extractor {spec!r} has no spatial features; 'inception' has: they are what sFID is made of")
    family, colon, model = spec.partition(":")
    families: dict[str, Callable[[str, str | Path | None], Extractor]] = {
        "torchvision": _torchvision,
        "timm": backbones.timm_features,
        "clip": backbones.clip_features,
        "dinov2": backbones.dinov2_features,
    }
    if colon and family in families:
        return families[family](model, weights_path)
    if spec == "inception":
        return _inception(weights_path, spatial=spatial)
    if spec == "vgg16":
        return backbones.vgg16_features(weights_path)
    own = ("digits", *DATA_CLASSIFIERS, "random_inception")
    if spec not in own:
        known = ", ".join(("inception", *own, "vgg16", *(f"{name}:<model>" for name in families)))
        raise ValueError(f"unknown extractor {spec!r}; known are {known}, such as torchvision:squeezenet1_1")
    if weights_path is not None:
        verb = "draws" if spec == "random_inception" else "trains"
        raise ValueError(f"extractor {spec!r} {verb} its own weights: leave out weights_path {str(weights_path)!r}")
    if spec == "random_inception":
        return RandomInception()
    return digits_classifier() if spec == "digits" else classifier_of(spec, data)


def _inception(weights_path: str | Path | None, *, spatial: bool) -> InceptionFeatures:
    hint = (
        "or pass weights_path; extractors 'random_inception' and 'digits' need no file, and 'torchvision:...' takes "
        "its own"
    )
    path = weights_file(INCEPTION_URL, what="Inception", sha256_prefix=_INCEPTION_SHA256, path=weights_path, hint=hint)
    state = read_weights(path)
    try:
        return InceptionFeatures(state, spatial=spatial)
    except RuntimeError as error:
        raise ValueError(
            f"{path} is not torch-fidelity's Inception v3, which {INCEPTION_URL} has: {opening(error)}"
        ) from error


def _torchvision(name: str, weights_path: str | Path | None) -> TorchvisionFeatures:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(f"torchvision has no classifier {name!r}; it has {', '.join(models.list_models(models))}")
    url = models.get_model_weights(name).DEFAULT.url
    prefix = re.search(r"-([0-9a-f]{8,})\.", url)
    path = weights_file(
        url, what=name, sha256_prefix=prefix and prefix[1], path=weights_path,
        hint="or pass weights_path, a file of its weights",
    )  # fmt: skip
    state = read_weights(path)
    try:
        return TorchvisionFeatures(name, state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of torchvision's {name}: {opening(error)}") from error
