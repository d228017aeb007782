import random
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.base.images import to_uint8
from lit_gans.data import Digits
from lit_gans.metrics import Evaluation, Features, Plan, evaluate_gan, evaluate_images, precision_recall
from lit_gans.metrics.frechet import frechet_distance
from lit_gans.metrics.path_length import measure_path_length
from lit_gans.metrics.protocol import differing
from lit_gans.metrics.subjects import intended_labels

from .common import PixelFeatures, conditional, digits, unconditional

STAMP = {
    "extractor", "extractor_fingerprint", "resize", "n_real", "n_fake", "split", "dataset", "resolution", "skipped",
    "versions", "generator", "images_seen", "psi", "seed", "numbers",
}  # fmt: skip
PASSED = ("extractor", "rank", "world", "progress", "show", "distance", "attributes", "cache_dir")


def evaluated(gan: GAN, *, num_images: int = 41, **settings) -> Evaluation:
    settings = {"batch_size": 16, "num_real": 60, **settings}
    passed = {name: settings.pop(name) for name in PASSED if name in settings}
    plan = Plan(num_images=num_images, **settings)
    return evaluate_gan(gan, digits(), plan=plan, **{"extractor": PixelFeatures(), **passed})


def test_values_and_their_names() -> None:
    values = evaluated(conditional()).values
    assert list(values) == [
        "frechet_pixels", "kernel_pixels", "precision_k5", "recall_k5", "score_pixels", "score_pixels_std",
        "class_accuracy", "class_share_min",
    ]  # fmt: skip
    inception = evaluated(conditional(), extractor=PixelFeatures(name="inception")).values
    assert {"fid", "kid", "is", "is_std"} < inception.keys()
    assert list(evaluated(unconditional(), metrics=["recall"]).values) == ["recall_k5"]


def test_values_are_those_of_the_samples() -> None:
    gan, extractor = conditional(), PixelFeatures()
    values = evaluated(gan, seed=2, psi=0.8, num_real=None).values
    labels = intended_labels(10, digits(), split="train", num_images=41, seed=2)
    samples = gan.sample(2 * 10**9 + torch.arange(41), labels=labels, psi=0.8)
    fake, logits = extractor(to_uint8(samples))
    real = extractor(digits().dataset().images(torch.arange(1797))).features
    moments = [m for x in (real.double(), fake.double()) for m in (x.mean(0), x.T.cov())]
    assert values["frechet_pixels"] == pytest.approx(frechet_distance(*moments).item(), rel=1e-9)
    near = [value.item() for value in precision_recall(real, fake, k=5)]
    assert [values["precision_k5"], values["recall_k5"]] == pytest.approx(near)
    assert values["class_accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_protocol_has_every_field() -> None:
    gan = conditional()
    gan.images_seen = 1234
    protocol = evaluated(gan, seed=3, psi=0.5, ema=False).protocol
    assert protocol.keys() == STAMP
    assert protocol["versions"].keys() == {"torch", "torchmetrics", "torch-fidelity", "lit_gans"}
    expected = {
        "extractor": "pixels", "extractor_fingerprint": PixelFeatures().fingerprint, "n_real": 60, "n_fake": 41,
        "split": "train", "dataset": digits().fingerprint(), "resolution": 8, "skipped": {}, "generator": "raw",
        "images_seen": 1234, "psi": 0.5, "seed": 3, "resize": "average pooling to 4",
    }  # fmt: skip
    assert {name: protocol[name] for name in expected} == expected
    assert evaluated(gan).protocol["generator"] == "ema"
    gan.generator_ema = None
    assert evaluated(gan).protocol["generator"] == "raw"


def test_labels_are_drawn_evenly_where_asked_and_the_protocol_says_so() -> None:
    gan, metrics = conditional(), ["frechet"]
    even, as_data = (evaluated(gan, metrics=metrics, labels=how) for how in ("uniform", "data"))
    assert even.stamp("frechet_pixels")["labels"] == "uniform" and "labels" not in as_data.protocol
    assert even.values != as_data.values
    assert list(differing([e.stamp("frechet_pixels") for e in (even, as_data)])) == ["labels"]
    with pytest.raises(ValueError, match="labels 'uniform' are of classes, and this model has none"):
        evaluated(unconditional(), metrics=metrics, labels="uniform")
    with pytest.raises(ValueError, match="labels 'even' is neither 'data' nor 'uniform'"):
        Plan(labels="even")


def test_metrics_that_do_not_apply_are_left_out_and_named() -> None:
    plain = evaluated(unconditional())
    assert "class_share_min" in plain.values and "class_accuracy" not in plain.values
    assert plain.protocol["skipped"] == {"class_accuracy": "no class is asked for: shares only"}
    bare = evaluated(conditional(), extractor=PixelFeatures(num_classes=0))
    assert bare.values.keys() == {"frechet_pixels", "kernel_pixels", "precision_k5", "recall_k5"}
    assert bare.protocol["skipped"].keys() == {"is", "class_accuracy"}
    other = evaluated(conditional(), extractor=PixelFeatures(num_classes=7))
    assert other.protocol["skipped"] == {"class_accuracy": "the extractor knows 7 classes, the data 10"}


def test_seed_psi_and_generator_matter_and_batch_size_does_not() -> None:
    gan = conditional()
    with torch.no_grad():
        for parameter in gan.generator.parameters():
            parameter.mul_(1.5)
    base = evaluated(gan).values
    for change in ({"seed": 1}, {"psi": 0.5}, {"ema": False}):
        assert evaluated(gan, **change).values["frechet_pixels"] != base["frechet_pixels"]
    assert evaluated(gan, batch_size=7).values == pytest.approx(base, rel=1e-6, abs=1e-8)
    assert evaluated(gan, num_images=41).values == base


def test_intended_labels_have_the_distribution_of_the_real_ones() -> None:
    data = digits()
    real = data.dataset().labels
    labels = intended_labels(10, data, split="train", num_images=2 * 1797, seed=0)
    assert torch.equal(labels.bincount(), 2 * real.bincount())
    assert torch.equal(labels[:50], intended_labels(10, data, split="train", num_images=50, seed=0))
    assert not torch.equal(labels[:50], intended_labels(10, data, split="train", num_images=50, seed=1))
    assert intended_labels(0, data, split="train", num_images=5, seed=0) is None
    even = intended_labels(10, data, split="train", num_images=25, seed=0, how="uniform")
    assert even.bincount().tolist() == [3] * 5 + [2] * 5
    data.dataset().labels = None
    assert intended_labels(3, data, split="train", num_images=5, seed=0).tolist() == [0, 1, 2, 0, 1]
    data = digits()
    with pytest.raises(ValueError, match="the model has 3 classes and the data 10: evaluate"):
        intended_labels(3, data, split="train", num_images=5, seed=0)


def test_model_and_random_generators_are_left_as_they_were() -> None:
    gan = conditional().train()
    gan.generator.eval()
    modes = [module.training for module in gan.modules()]
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    rng = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    evaluated(gan)
    assert [module.training for module in gan.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng[0]) and random.getstate() == rng[1]
    assert np.array_equal(np.random.get_state()[1], rng[2]) and torch.is_grad_enabled()


def test_too_few_images_for_the_covariance_are_told() -> None:
    with pytest.warns(UserWarning, match="8 generated images are too few for the covariance of 8 features") as caught:
        evaluated(unconditional(), num_images=8)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_images": 1}, "num_images is 1; a distance needs 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"metrics": ["frechet", "lpips"]}, r"metrics \['frechet', 'lpips'\]: choose one or more of frechet, spatial"),
        ({"metrics": []}, "choose one or more"),
        ({"rank": 0, "world": 2}, "rank 0 of 2 was given, but this is process 0 of 1"),
        ({"split": "test"}, "no split 'test' unless holdout"),
        ({"num_real": 2000}, "num_real is 2000; the split has 1797"),
        ({"neighbours": 0}, "neighbours is 0; it must be 1 or more"),
        ({"metrics": ["separability"]}, "separability needs attribute classifiers: pass attributes"),
        ({"metrics": ["ppl_w_full"]}, "space 'w' needs a style-based generator"),
        ({"metrics": ["modes"]}, "modes are counted on StackedMNIST, with 1000 classes; the data have 10"),
        ({"metrics": ["swd"], "num_images": 1798}, "swd compares as many real images as generated ones"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluated(unconditional(), **settings)


def test_progress_counts_to_the_end() -> None:
    told: list[tuple[str, int, int]] = []
    evaluated(unconditional(), progress=lambda *step: told.append(step))
    assert told[0] == ("real images", 16, 60) and ("real images", 60, 60) in told
    assert told[-1] == ("generated images", 41, 41)


@pytest.fixture
def cheap_random_network(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = lambda: PixelFeatures(name="random_inception", num_classes=0, seed=3)  # noqa: E731
    monkeypatch.setattr("lit_gans.metrics.extractors.RandomInception", cheap)


def test_numbers_with_settings_of_their_own_carry_them(cheap_random_network) -> None:
    found = evaluated(conditional(), metrics=["rfid", "kid", "density", "coverage", "intra_fid"], num_images=90)
    assert found.values.keys() == {"rfid", "kernel_pixels", "density_k5", "coverage_k5", "intra_frechet_pixels"}
    random = found.stamp("rfid")
    assert (random["extractor"], random["n_fake"]) == ("random_inception", 90) and "numbers" not in random
    assert random["extractor_fingerprint"] != found.protocol["extractor_fingerprint"]
    assert found.stamp("kernel_pixels")["kid_subsets"] == 100 and "kid_subsets" not in found.stamp("density_k5")
    assert found.stamp("density_k5")["extractor"] == "pixels"


def test_intra_class_distance_is_the_mean_over_classes() -> None:
    gan, extractor = conditional(), PixelFeatures()
    values = evaluated(gan, metrics=["intra_frechet"], num_images=200, num_real=None).values
    labels = intended_labels(10, digits(), split="train", num_images=200, seed=0)
    fake = extractor(to_uint8(gan.sample(torch.arange(200), labels=labels))).features.double()
    data = digits().dataset()
    real = extractor(data.images(torch.arange(1797))).features.double()
    of_class = [
        frechet_distance(*(m for x in (real[data.labels == c], fake[labels == c]) for m in (x.mean(0), x.T.cov())))
        for c in range(10)
    ]
    assert values["intra_frechet_pixels"] == pytest.approx(torch.stack(of_class).mean().item(), rel=1e-8)
    with pytest.raises(ValueError, match=r"two images or more of every class, and class \d has \d generated"):
        evaluated(gan, metrics=["intra_frechet"], num_images=12)


def test_spatial_features_have_a_distance_of_their_own() -> None:
    class Spatial(PixelFeatures):
        num_spatial = 5

        def forward(self, images: Tensor) -> Features:
            plain = super().forward(images)
            return Features(plain.features, plain.logits, plain.features[:, :5] * 2)

    values = evaluated(conditional(), extractor=Spatial(name="inception"), metrics=["sfid"]).values
    assert values["sfid"] > 0 and len(values) == 1
    again = evaluated(conditional(), extractor=Spatial(name="inception"), metrics=["sfid"]).values  # from the cache
    assert again == values
    plain = evaluated(conditional(), metrics=["kid", "sfid"])
    assert plain.protocol["skipped"] == {"spatial_frechet": "extractor pixels has no spatial features"}


def test_path_lengths_are_of_the_generator() -> None:
    gan = conditional()
    told = []
    found = evaluated(
        gan, metrics=["ppl_z_full", "ppl_z_end"], path_samples=30, seed=4, progress=lambda *step: told.append(step),
        distance=lambda a, b: (a - b).square().flatten(1).sum(1),
    )  # fmt: skip
    direct = measure_path_length(
        gan, lambda a, b: (a - b).square().flatten(1).sum(1), num_samples=30, seed=4, space="z", sampling="full"
    )
    assert found.values["ppl_z_full"] == pytest.approx(direct.item(), rel=1e-4)
    assert found.stamp("ppl_z_end")["path_samples"] == 30 and ("path lengths", 1, 2) in told


def test_separability_takes_classifiers() -> None:
    bright = {"bright": lambda images: images.float().mean(dim=(1, 2, 3)) - 100}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a generator that was never trained may have no bright image
        found = evaluated(unconditional(), metrics=["separability"], separability_samples=80, attributes=bright)
    assert found.values["separability"] >= 1 and "separability_entropy_bright" in found.values
    assert found.stamp("separability")["attributes"] == ["bright"]


def test_sliced_wasserstein_needs_no_extractor() -> None:
    data = Digits(batch_size=1, resolution=32)
    found = evaluate_images(data, data, extractor=None, plan=Plan(metrics=["swd"], num_images=20))
    assert found.values.keys() == {"swd", "swd_32", "swd_16"} and found.values["swd"] > 0
    stamp = found.stamp("swd")
    assert (stamp["extractor"], stamp["directions"], stamp["n_real"], stamp["n_fake"]) == (None, 512, 20, 20)


def test_features_are_asked_for_by_name() -> None:
    with pytest.raises(ValueError, match="swd, kid: these need features, but extractor is None"):
        evaluated(conditional(), extractor=None, metrics=["swd", "kid"], num_images=20)
    with pytest.raises(ValueError, match="pictures of an evaluation: these need features"):
        evaluate_images(
            Digits(batch_size=1), Digits(batch_size=1), extractor=None, show=print,
            plan=Plan(metrics=["swd"], num_images=20),
        )  # fmt: skip


def test_nothing_is_sampled_or_extracted_that_no_metric_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()
    extract = PixelFeatures.extract
    monkeypatch.setattr(
        PixelFeatures, "extract", lambda self, images: (calls.update(["extract"]), extract(self, images))[1]
    )
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path))
    gan = conditional()
    sample = gan.sample
    gan.sample = lambda seeds, **rest: (calls.update(["sample"]), sample(seeds, **rest))[1]
    found = evaluated(gan, metrics=["frechet"])
    assert calls == {"sample": 3, "extract": 4 + 3} and "frechet_pixels" in found.values
    calls.clear()
    bright = lambda images: (images.float().mean(dim=(1, 2, 3)) - images.float().mean()).sign()  # noqa: E731
    found = evaluated(gan, metrics=["separability"], separability_samples=40, attributes={"bright": bright})
    assert not calls and "separability" in found.values
    assert found.protocol["n_fake"] is None and found.protocol["extractor"] is None


def test_classes_of_two_sets_are_compared_by_name() -> None:
    named = Digits(batch_size=1)
    other = Digits(batch_size=1)
    other.class_names = tuple("abcdefghij")
    plan = Plan(metrics=["class_accuracy"], num_images=100)
    same = evaluate_images(named, named, extractor=PixelFeatures(), plan=plan)
    different = evaluate_images(other, named, extractor=PixelFeatures(), plan=plan)
    assert "class_accuracy" in same.values and "class_accuracy" not in different.values
    assert "class_accuracy" in different.protocol["skipped"]


def test_broken_samples_are_refused() -> None:
    gan = unconditional()
    sample = gan.sample
    gan.sample = lambda seeds, **rest: sample(seeds, **rest).where(
        seeds[:, None, None, None] != 17, torch.tensor(float("nan"))
    )
    with pytest.raises(ValueError, match="image of seed 17 holds NaN or infinity, and so do 1 of 16 in its batch"):
        evaluated(gan)


def test_samples_of_another_type_or_range_are_told() -> None:
    gan = unconditional()
    sample = gan.sample
    gan.sample = lambda seeds, **rest: 5000 + sample(seeds, **rest)
    with pytest.warns(UserWarning, match=r"values reach 5e\+03, where images lie in \[-1, 1\].*range \[0, 255\]"):
        evaluated(gan)
    gan.sample = lambda seeds, **rest: to_uint8(sample(seeds, **rest))
    with pytest.raises(ValueError, match=r"gave torch.uint8 of shape \[16, 1, 8, 8\], expected float"):
        evaluated(gan)


def test_pictures_can_be_drawn_of_what_was_seen() -> None:
    seen = []
    found = evaluated(conditional(), metrics=["class_accuracy"], show=seen.append)
    (shown,) = seen
    assert shown.real.shape == (60, 8) and shown.fake.shape == (41, 8) and shown.images.shape == (41, 1, 8, 8)
    assert torch.allclose(PixelFeatures()(shown.images).features, shown.fake, atol=1e-5)
    assert torch.equal(shown.classes.real, digits().dataset().labels[shown.indices]) and len(shown.classes.fake) == 41
    assert found.values.keys() == {"class_accuracy", "class_share_min"}


def test_a_set_against_itself() -> None:
    data = Digits(batch_size=1, resolution=8)
    found = evaluate_images(data, data, extractor=PixelFeatures(), plan=Plan(num_images=1797))
    assert abs(found.values["frechet_pixels"]) < 1e-6
    assert (found.values["precision_k5"], found.values["recall_k5"]) == (1, 1)
    assert found.protocol["generator"] == "images" and found.protocol["n_fake"] == found.protocol["n_real"] == 1797
    with pytest.raises(ValueError, match="num_images is 1798, but there are 1797"):
        evaluate_images(data, data, extractor=PixelFeatures(), plan=Plan(num_images=1798))


class Noise:
    """A model of no family that we know: it draws images from seeds, and nothing more is known of it."""

    resolution, channels, num_classes, images_seen, device = 8, 1, 0, 5, torch.device("cpu")

    def sample(self, seeds: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return torch.stack([torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(int(s))) for s in seeds])


def test_whatever_samples_is_measured() -> None:
    found = evaluated(Noise())
    assert found.values["frechet_pixels"] > 0 and found.protocol.keys() == STAMP
    assert (found.protocol["generator"], found.protocol["images_seen"]) == ("raw", 5)
    with pytest.raises(ValueError, match="ppl_z_full walk from latent to latent; a Noise draws from none"):
        evaluated(Noise(), metrics=["kid", "ppl_z_full"])
