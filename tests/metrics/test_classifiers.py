from pathlib import Path

import pytest
import torch

from lit_gans.data import MNIST, Digits, StackedMNIST
from lit_gans.data.sets import TensorSet
from lit_gans.metrics import build_extractor, classifiers
from lit_gans.metrics.classifiers import Training, train_classifier


def test_digits_classifier_knows_digits_it_has_not_seen(trained) -> None:
    assert trained[0].held_out_accuracy >= 0.98


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_digits_classifier_reads_any_resolution_and_colour(trained, resolution: int) -> None:
    batch = next(Digits(batch_size=1, resolution=resolution).batches("train", 500))
    features, logits = trained[0](batch["image"])
    assert features.shape == (500, 64) and logits.shape == (500, 10)
    assert (logits.argmax(1) == batch["label"]).double().mean() > 0.98
    colour = trained[0](batch["image"].repeat(1, 3, 1, 1))
    assert torch.equal(colour.logits, logits)


def test_digits_classifier_is_kept(trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("LIT_GANS_CACHE", trained[1])
    monkeypatch.setattr(classifiers, "train_classifier", None)
    again = build_extractor("digits")
    assert (again.fingerprint, again.held_out_accuracy) == (trained[0].fingerprint, trained[0].held_out_accuracy)
    assert capsys.readouterr().err == ""


def few(seed: int = 0) -> tuple[torch.Tensor, float]:
    training = Training(input_px=16, epochs=1, seed=seed)
    batch = next(Digits(batch_size=1, resolution=8).batches("train", 320))
    network, accuracy = train_classifier(batch["image"], batch["label"], training)
    return network.head.weight, accuracy


def test_training_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch.no_grad():  # as inside an evaluation
        first = few()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = few(), few(seed=1)
    assert torch.equal(first[0], second[0]) and first[1] == second[1]
    assert not torch.equal(first[0], other[0])


def named(name: str, count: int) -> object:
    """Digits in the shape of another data set."""

    def load(self: Digits, split: str) -> TensorSet:
        whole = Digits.load(self, split)
        return TensorSet(whole.pixels[:count], whole.labels[:count])

    return type(name, (Digits,), {"load": load})(batch_size=1, resolution=28)


def test_data_classifier_is_kept_by_data_and_training(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(classifiers, "DATA_TRAINING", Training(input_px=28, epochs=1))
    first = build_extractor("mnist", data=named("MNIST", 200))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "200 images for extractor 'mnist', once; kept at" in said
    assert first.name == "mnist" and first.num_classes == 10
    assert build_extractor("mnist", data=named("MNIST", 200)).fingerprint == first.fingerprint
    assert capsys.readouterr().err == ""
    build_extractor("mnist", data=named("MNIST", 240))
    monkeypatch.setattr(classifiers, "DATA_TRAINING", Training(input_px=28, epochs=1, max_images=150))
    build_extractor("mnist", data=named("MNIST", 200))
    assert "150 images" in capsys.readouterr().err
    assert len(list(cache.iterdir())) == 3


def test_damaged_file_is_trained_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "DATA_TRAINING", Training(input_px=28, epochs=1))
    first = build_extractor("kmnist", data=named("KMNIST", 200))
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="is damaged"):
        assert build_extractor("kmnist", data=named("KMNIST", 200)).fingerprint == first.fingerprint


def test_data_made_of_digits_have_the_classifier_of_their_digits_and_a_better_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(classifiers, "DATA_TRAINING", Training(input_px=28, epochs=1, max_images=150))
    monkeypatch.setattr(classifiers, "STACKED_TRAINING", Training(input_px=28, epochs=1))
    digits = named("MNIST", 240)
    stacked = type("StackedMNIST", (Digits,), {"digits": lambda self: digits})(batch_size=1, resolution=28)
    found = {name: build_extractor(name, data=stacked) for name in ("mnist", "stackedmnist")}
    said = capsys.readouterr().err
    assert "150 images for extractor 'mnist'" in said and "240 images for extractor 'stackedmnist'" in said
    assert found["mnist"].fingerprint == build_extractor("mnist", data=digits).fingerprint
    assert found["mnist"].fingerprint != found["stackedmnist"].fingerprint
    with pytest.raises(ValueError, match="'stackedmnist' is trained on the data of that name, .* got MNIST"):
        build_extractor("stackedmnist", data=digits)


@pytest.mark.slow
def test_the_classifier_that_counts_modes_knows_99_percent_of_the_test_digits(real_data: Path) -> None:
    data = StackedMNIST(str(real_data / "mnist"), batch_size=1, resolution=28)
    extractor = build_extractor("stackedmnist", data=data)
    digits = data.digits().batches("test", 1000)
    right = [(extractor(b["image"]).logits.argmax(1) == b["label"]).double() for b in digits]
    assert torch.cat(right).mean() >= 0.99 and extractor.held_out_accuracy >= 0.99


@pytest.mark.slow
def test_mnist_classifier_knows_the_test_digits(real_data: Path) -> None:
    data = MNIST(str(real_data / "mnist"), batch_size=1)
    extractor = build_extractor("mnist", data=data)
    right = [(extractor(b["image"]).logits.argmax(1) == b["label"]).double() for b in data.batches("test", 1000)]
    assert torch.cat(right).mean() >= 0.985 and extractor.held_out_accuracy >= 0.985
