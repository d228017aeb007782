import json
from pathlib import Path

import pytest
import torch

from lit_gans.base.images import to_uint8
from lit_gans.callbacks.evaluate import Evaluate
from lit_gans.data import Digits, StackedMNIST
from lit_gans.metrics import Plan, building, evaluate_gan
from lit_gans.metrics.modes import mode_divergence, stacked_classes, stacked_logits
from tests.data.test_mnist import write_set
from tests.metrics.common import PixelFeatures

from .common import fit, tiny_cgan, tiny_gan, tiny_trainer


@pytest.fixture(autouse=True)
def cheap_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate's network is a stand-in, and statistics are kept in a folder of the test."""
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    build = building.build_extractor

    def cheap(spec: str, **options):
        return PixelFeatures() if spec == "pixels" else build(spec, **options)

    monkeypatch.setattr(building, "build_extractor", cheap)


def evaluate(every_kimg: float, **settings) -> Evaluate:
    return Evaluate(every_kimg, **{"num_images": 30, "extractor": "pixels", "num_real": 100, **settings})


def lines(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_values_are_written_with_their_protocol_when_the_clock_says_so(tmp_path: Path) -> None:
    callback, gan = evaluate(0.032, at_start=True), tiny_cgan(total_kimg=0.048)
    trainer = fit(tmp_path, gan, callback)
    written = lines(tmp_path)
    assert [line["kimg"] for line in written] == [0, 0.032, 0.048]
    assert [line["protocol"]["images_seen"] for line in written] == [0, 32, 48]
    assert written[-1]["protocol"]["n_fake"] == 30 and written[-1]["protocol"]["n_real"] == 100
    plan = Plan(num_images=30, num_real=100, batch_size=100)
    again = evaluate_gan(gan, trainer.datamodule, extractor=PixelFeatures(), plan=plan)
    assert callback.latest == again.values == {name: written[-1][name] for name in again.values}
    assert gan.latest_metrics == callback.latest and written[-1]["protocol"] == again.protocol


def weights(gan: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in gan.state_dict().values()])


def test_training_is_the_same_with_and_without_it(tmp_path: Path) -> None:
    states = []
    for name, callbacks in (("with", [evaluate(0.016)]), ("without", [])):
        torch.manual_seed(0)
        gan = tiny_cgan(total_kimg=0.064)
        fit(tmp_path / name, gan, *callbacks)
        states.append((weights(gan), torch.get_rng_state()))
    assert torch.equal(states[0][0], states[1][0]) and torch.equal(states[0][1], states[1][1])
    assert len(lines(tmp_path / "with")) == 4


def test_resume_neither_repeats_nor_skips(tmp_path: Path) -> None:
    trainer = fit(tmp_path, tiny_gan(total_kimg=0.048), evaluate(0.032, at_start=True, at_end=False))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    fit(
        tmp_path, tiny_gan(total_kimg=0.08), evaluate(0.032, at_start=True, at_end=False), ckpt_path=tmp_path / "x.ckpt"
    )
    assert [line["kimg"] for line in lines(tmp_path)] == [0, 0.032, 0.064]


def test_zero_switches_it_off(tmp_path: Path) -> None:
    fit(tmp_path, tiny_gan(total_kimg=0.016), evaluate(0, extractor="nonsense", at_start=True))
    assert lines(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extractor": "nonsense"}, "unknown extractor 'nonsense'; known are inception"),
        ({"extractor": "torchvision:resnet0"}, "torchvision has no classifier 'resnet0'"),
        ({"metrics": ["fud"]}, r"metrics \['fud'\]: choose one or more of frechet"),
        ({"metrics": ["ppl_w_end"]}, "space 'w' needs a style-based generator"),
        ({"split": "test"}, "no split 'test' unless holdout=True"),
        ({"num_images": 0}, "num_images is 0"),
        ({"num_real": 5000}, "num_real is 5000; the split has 1797"),
    ],
)
def test_what_is_missing_is_told_before_training(tmp_path: Path, settings: dict, message: str) -> None:
    gan = tiny_gan()
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, gan, evaluate(1, **settings))
    assert gan.images_seen == 0


def test_missing_inception_weights_are_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(ConnectionError, match="Inception's weights are not at .*offline.*put the file there"):
        fit(tmp_path, tiny_gan(), Evaluate(1))


def test_another_extractor_takes_the_place_of_one_whose_weights_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(spec: str, **options):
        if spec == "inception":
            raise ConnectionError("Inception's weights are not at x and could not be downloaded (offline)")
        assert spec == "random_inception" and options.get("weights_path") is None
        return PixelFeatures()

    monkeypatch.setattr(building, "build_extractor", build)
    callback = Evaluate(0.064, num_images=300, metrics=["frechet"], fallback="random_inception")
    with pytest.warns(UserWarning, match="(?s)offline.*Nothing is measured with 'inception'.*'random_inception' takes"):
        fit(tmp_path, tiny_gan(total_kimg=0.064), callback)
    (line,) = lines(tmp_path)
    assert "frechet_pixels" in line and "fid" not in line


def test_a_datamodule_is_needed(tmp_path: Path) -> None:
    loader = Digits(batch_size=16, resolution=8).train_dataloader()
    with pytest.raises(ValueError, match="images of the datamodule, but found NoneType: pass a datamodule"):
        tiny_trainer(tmp_path, evaluate(1)).fit(tiny_gan(), loader)


def test_modes_of_stacked_digits_are_counted_in_training_and_again_afterwards(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist", labels=[1, 2, 3, 4, 5, 6])
    data = StackedMNIST(
        str(tmp_path / "mnist"), resolution=8, batch_size=16, images=200, test_images=50, num_workers=0
    )
    gan = tiny_gan(channels=3, total_kimg=0.032)
    asked = {"metrics": ["modes"], "num_images": 40, "num_real": None}
    callback = evaluate(0.032, **asked)
    tiny_trainer(tmp_path, callback).fit(gan, datamodule=data)
    (line,) = lines(tmp_path)
    assert line["kimg"] == 0.032 and line["modes"] == callback.latest["modes"] and "mode_divergence" in line
    images = to_uint8(gan.sample(range(40)))
    classes = stacked_classes(stacked_logits(PixelFeatures(), images))
    assert line["modes"] == len(classes.unique()) > 0
    real = data.dataset().labels.bincount(minlength=1000)
    assert line["mode_divergence"] == mode_divergence(classes.bincount(minlength=1000), real).item()
    again = evaluate_gan(gan, data, extractor=PixelFeatures(), plan=Plan(metrics=["modes"], num_images=40))
    assert again.values == callback.latest and again.protocol["n_fake"] == 40
