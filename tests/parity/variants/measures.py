"""Files of metrics."""

import torch

from lit_gans.base.interpolation import lerp
from lit_gans.metrics import FrechetDistance, manifold_overlap
from lit_gans.metrics.kernel import squared_mmd
from lit_gans.metrics.score import class_scores
from tests.parity.variants import Recorder


def of_features(r: Recorder) -> None:
    """Sets of different sizes, other neighbours, and one subset, which holds all of the smaller set."""
    real, fake = r.normal(60, 6).double(), r.normal(50, 6).double() + 0.3
    metric, overlap = FrechetDistance(6), manifold_overlap(real, fake, k=4)
    metric.update(real, real=True), metric.update(fake, real=False)
    outputs = {"fid_eig": metric.compute(), "kid_full_polynomial_unbiased": squared_mmd(real, fake)}
    outputs |= {"prdc_k4_density": overlap.density, "prdc_k4_precision": overlap.precision}
    outputs["kynkaanniemi_k7_recall"] = manifold_overlap(real, fake, k=7).recall
    inputs, config = {"real": real, "fake": fake}, {"n_real": 60, "n_fake": 50, "dim": 6, "k": 4}
    r.write("metrics-features", "StudioGAN metrics.prdc.compute_prdc", config, inputs=inputs, outputs=outputs)


def of_logits(r: Recorder) -> None:
    """A number of splits that does not divide the number of images."""
    logits = r.normal(31, 4).double()
    scores, whole = class_scores(logits, splits=7), class_scores(logits, splits=1)
    outputs = {"is_studiogan_splits7_std_unbiased": scores.std(), "is_stylegan3_splits1_mean": whole[0]}
    config, kind = {"n": 31, "classes": 4, "splits": 7}, "torch_fidelity.metric_isc.isc_features_to_metric"
    r.write("metrics-score", kind, config, inputs={"logits": logits}, outputs=outputs)


def of_paths(r: Recorder) -> None:
    """Interpolation alone, with a larger step."""
    inputs = {name: r.normal(4, 5).double() for name in "ab"} | {"t": torch.rand(4, 1).double()}
    outputs = {"lerp_t_eps": lerp(inputs["a"], inputs["b"], inputs["t"] + 0.01)}
    r.write("metrics-path", "metrics.perceptual_path_length", {"epsilon": 0.01}, inputs=inputs, outputs=outputs)


FAMILIES = (of_features, of_logits, of_paths)
