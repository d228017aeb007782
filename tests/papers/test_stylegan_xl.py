"""StyleGAN-XL: what its networks and its training promise beyond the battery and the recorded values."""

import json
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import interpolate

from lit_gans import fit, sample
from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.base.grids import readable_grid
from lit_gans.base.images import from_uint8, save_png, to_uint8
from lit_gans.callbacks import EMA, Checkpoint
from lit_gans.convert import convert
from lit_gans.data import Images
from lit_gans.data.sets import TensorSet
from lit_gans.editing import project as find
from lit_gans.editing import read_projection, truncation_sweep
from lit_gans.nn import Draws, drawing
from lit_gans.official import read_official
from lit_gans.papers import stylegan3
from lit_gans.papers.stylegan_xl import Classifier, Generator, StyleGANXL, from_official_config
from lit_gans.papers.stylegan_xl.training import hinges
from lit_gans.project import project
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained, save_pretrained
from tests.cases import BATCH, CASES, STYLEGAN_XL, largest_difference, state, train
from tests.editing.test_projector import Blurs
from tests.official.layout import official_modules, stylegan3_state, tree, written

__all__ = ["official_modules"]

SMALL = {"num_layers": 6, "margin_px": 4, "channel_base": 96, "channel_max": 6}
on = pytest.mark.parametrize


def generator(**arguments: Any) -> Generator:
    torch.manual_seed(0)
    network = Generator(**{"z_dim": 4, "c_dim": 3, "w_dim": 8, "embedding": [5, 7], **SMALL, **arguments})
    network.mapping.w_avg.normal_()
    return network


# ---- the mapping -----------------------------------------------------------------------------------------------------


def test_truncation_goes_to_the_own_class_or_to_the_nearest_centroid() -> None:
    mapping, z, c = generator().mapping, torch.randn(3, 4), torch.tensor([2, 0, 2])
    w = mapping(z, c)[:, 0]
    assert torch.equal(mapping(z, c, psi=0)[:, 5], mapping.w_avg[c])
    half = mapping(z, c, psi=0.5, cutoff=2)
    assert torch.allclose(half[:, 1], (w + mapping.w_avg[c]) / 2) and torch.equal(half[:, 2], w)
    centroids = torch.stack([w[1] + 0.1, w[0] - 0.1, w[2] + 0.1])
    assert torch.allclose(mapping(z, c, psi=0, centroids=centroids)[:, 0], centroids[[1, 0, 2]])
    one = mapping(z, c, psi=0.25, centroids=torch.ones(1, 8))
    assert torch.allclose(one[:, 0], 0.75 + 0.25 * w)


def test_class_means_move_sample_by_sample() -> None:
    mapping, w = generator(w_avg_decay=0.5).mapping, torch.randn(3, 8)
    before = mapping.w_avg.clone()
    mapping.track(w, torch.tensor([1, 0, 1]))
    assert torch.allclose(mapping.w_avg[1], before[1] / 4 + w[0] / 4 + w[2] / 2)
    assert torch.allclose(mapping.w_avg[0], before[0] / 2 + w[1] / 2) and torch.equal(mapping.w_avg[2], before[2])
    alone = generator(c_dim=0, w_avg_decay=0.5).mapping
    before = alone.w_avg.clone()
    alone.track(w, None)
    assert torch.allclose(alone.w_avg, before / 2 + w.mean(0) / 2)


def test_a_label_is_its_condition() -> None:
    mapping, z = generator().mapping, torch.randn(2, 4)
    assert torch.equal(mapping(z, torch.tensor([1, 2])), mapping(z, torch.eye(3)[1:]))


# ---- stages ----------------------------------------------------------------------------------------------------------


def test_a_head_stands_on_the_stem_as_it_was() -> None:
    stem, below, grown = (generator(heads=heads) for heads in ([], [[32, 4]], [[32, 4], [64, 3]]))
    below.take_stem(stem.state_dict())
    grown.take_stem(below.state_dict())
    z, c, seen = torch.randn(2, 4), torch.tensor([0, 2]), []
    for network in (stem, grown):
        network.synthesis.layers["3"].register_forward_hook(lambda layer, given, out: seen.append(out))
    stem(z, c)
    assert grown(z, c).shape == (2, 3, 64, 64) and torch.equal(*seen)
    assert list(grown.synthesis.layers) == ["0", "1", "2", "3", "5", "6", "7", "8", "9", "10"]
    trained, every = {id(p) for p in grown.trained()}, dict(grown.named_parameters())
    assert {name.split(".")[2] for name, p in every.items() if id(p) in trained} == {"7", "8", "9", "10"}
    assert {id(p) for p in stem.trained()} == {id(p) for p in stem.parameters()}
    with pytest.raises(ValueError, match=r"not this one's stem in 2 tensors \(synthesis.layers.6.weight"):
        grown.take_stem(stem.state_dict())


# ---- training --------------------------------------------------------------------------------------------------------


def tiny(**arguments: Any) -> StyleGANXL:
    return CASES["stylegan-xl"](**{"features": ["test_resnet"], "features_weights": ["random"], **arguments})


def unguided(**arguments: Any) -> StyleGANXL:
    given = {**STYLEGAN_XL, "features": ["test_resnet"], "features_weights": ["random"], "features_px": [32]}
    torch.manual_seed(0)
    return StyleGANXL(**{**given, "channels": 1, "z_dim": 8, "seed": 3, **arguments})


HEAD = {"resolution": 32, "heads": [[32, 4]]}


def test_a_stage_trains_its_head_alone_and_is_resumed_without_the_stage_before(tmp_path: Path) -> None:
    """The stem gives the features that it gave, to the last bit, whoever is averaged."""
    stem = unguided()
    train(stem, tmp_path / "stem", batches=1)
    below = {k: t.clone() for k, t in stem.generator_ema.state_dict().items()}
    given = {**HEAD, "start_from": str(tmp_path / "stem")}
    whole, first, second = unguided(**given), unguided(**given), unguided(**given)
    before = {k: t.clone() for k, t in whole.generator.state_dict().items()}
    unbroken = state(whole, train(whole, tmp_path / "whole", batches=2))
    train(first, tmp_path / "parts", batches=2, stop_at=1)
    rmtree(tmp_path / "stem")
    saved = checkpoints(tmp_path / "parts")[-1]
    resumed = state(second, train(second, tmp_path / "parts", batches=2, resume=saved))
    assert largest_difference(unbroken, resumed) == 0
    head = tuple(f"synthesis.layers.{number}." for number in whole.generator.synthesis.head())
    for network in (whole.generator, whole.generator_ema):
        for name, tensor in network.state_dict().items():
            if name.startswith(head):
                assert not name.endswith(".weight") or not torch.equal(tensor, before[name]), name
            elif name != "mapping.w_avg":  # which goes on, as in the official code
                assert torch.equal(tensor, below[name]), name
    assert load_run(tmp_path / "whole").sample([0, 1], psi=0.5).shape == (2, 1, 32, 32)


def test_path_lengths_are_a_stems_from_some_moment_on(tmp_path: Path) -> None:
    gan, moments = unguided(pl_from_kimg=2 * BATCH / 1000, pl_interval=1), []
    penalty = gan.path_length_penalty
    gan.path_length_penalty = lambda *given: moments.append(gan.batches_seen) or penalty(*given)
    train(gan, tmp_path, batches=4)
    assert moments == [2, 3] and gan.pl_mean > 0
    assert unguided(**HEAD).pl_weight == 0


def test_guidance_sees_fakes_as_they_are_and_is_off_without_a_weight(tmp_path: Path) -> None:
    gan, seen = tiny(features_px=[32]), []
    gan.classifier.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    fake = torch.randn(2, 1, 16, 16)
    assert gan.guidance(fake, torch.tensor([1, 2])) > 0 and torch.equal(seen[0], fake)
    assert not torch.equal(gan.seen(fake), fake)
    gan.guidance_weight = 0.0
    train(gan, tmp_path, batches=1)
    assert len(seen) == 1 and load_run(tmp_path).classifier is None


def test_classes_start_from_a_file(tmp_path: Path) -> None:
    table = torch.randn(12, 6)
    save_file({"embed": table}, tmp_path / "table.safetensors")
    gan = unguided(class_embedding=str(tmp_path / "table.safetensors"))
    gan.start_embeddings(gan.class_table(gan.class_embedding))
    for network in (gan.generator, gan.generator_ema):
        assert torch.equal(network.mapping.embed.weight, table)
    for head in gan.discriminator.judges[0].heads.heads:
        assert torch.equal(head.condition.embed.weight, table)
    with pytest.raises(ValueError, match=r"holds tensors of \(12, 6\); give one of \(12, 7\)"):
        unguided(embedding=[12, 7]).class_table(gan.class_embedding)


def coloured(folder: Path, *, labels: Sequence[int], px: int = 16) -> Images:
    """Pictures of 40 pixels of the classes: reddish, greenish, bluish."""
    folder.mkdir(parents=True)
    noise = torch.Generator().manual_seed(0)
    for number, label in enumerate(labels):
        image = torch.randint(60, (3, 40, 40), generator=noise, dtype=torch.uint8)
        image[label] += 150
        save_png(image, folder / f"{number}.png")
    rows = [[f"{number}.png", label] for number, label in enumerate(labels)]
    (folder / "dataset.json").write_text(json.dumps({"labels": rows}))
    return Images(str(folder), resolution=px, batch_size=4, num_workers=0)


COLOURED = {"channels": 3, "num_classes": 2, "embedding": [12, 96], "class_embedding": "features"}


def fitted(gan: StyleGANXL, data: Images, folder: Path, *, batches: int, resume: Path | None = None) -> StyleGANXL:
    gan.total_kimg = 4 * batches / 1000
    options = {"max_epochs": -1, "limit_val_batches": 0, "logger": False, "accelerator": "cpu"}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(folder)}
    trainer = pl.Trainer(**options, **quiet, callbacks=[EMA(0.1), Checkpoint(0, 0, monitor=None)])
    trainer.fit(gan, datamodule=data, ckpt_path=resume, weights_only=True)
    return gan


def test_classes_start_from_what_a_network_sees_in_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    labels, tables = [0, 1, 1, 0, 1, 0, 1], list[torch.Tensor]()
    data, start = coloured(tmp_path / "data", labels=labels), StyleGANXL.start_embeddings
    monkeypatch.setattr(StyleGANXL, "start_embeddings", lambda gan, rows: start(gan, tables.append(rows) or rows))
    gan = fitted(unguided(**COLOURED, class_images=3), data, tmp_path / "run", batches=1)
    assert "mean of test_resnet's features over up to 3 images of each of 2 classes" in capsys.readouterr().err
    network = gan.pooled()
    seen = Images(str(tmp_path / "data"), resolution=32, batch_size=4).dataset()  # of the files, not of 16 pixels
    for row, chosen in zip(tables[0], ([0, 3, 5], [1, 4, 6]), strict=True):  # of four the outer ones and one between
        maps = network(seen.images(torch.tensor(chosen)).float() / 127.5 - 1)[-1]
        assert torch.allclose(row, maps.mean((2, 3)).mean(0), atol=1e-5)
    assert (tables[0][0] - tables[0][1]).abs().max() > 1e-3
    assert torch.equal(gan.generator.mapping.embed.weight[2:], unguided(**COLOURED).generator.mapping.embed.weight[2:])
    fitted(unguided(**COLOURED), data, tmp_path / "run", batches=2, resume=checkpoints(tmp_path / "run")[-1])
    assert len(tables) == 1  # what is resumed has its tables from the checkpoint


def test_a_table_of_features_needs_images_of_each_class_and_its_width(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"class 1 \(1\) has no images to begin with"):
        three = unguided(**{**COLOURED, "num_classes": 3})
        fitted(three, coloured(tmp_path / "data", labels=[0, 2, 2, 0]), tmp_path, batches=1)
    with pytest.raises(ValueError, match=r"test_resnet gives rows of 96 numbers, and .*: set embedding=\[12, 96\]"):
        unguided(**{**COLOURED, "embedding": [12, 6]})
    with pytest.raises(ValueError, match="needs a convolutional network: none of features is one"):
        unguided(**COLOURED, **{"features": ["test_vit"], "features_px": [64]})
    with pytest.raises(ValueError, match="found 0 classes and Images: leave it out"):
        alone = unguided(**{**COLOURED, "num_classes": 0})
        fitted(alone, coloured(tmp_path / "one", labels=[0] * 4), tmp_path, batches=1)


def test_each_feature_network_has_its_own_images() -> None:
    gan, seen = CASES["stylegan-xl"](policy=["translation"]), []
    for judge in gan.discriminator.judges:
        judge.features.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with drawing(Draws(1)):
        logits = gan.discriminator(torch.randn(4, 1, 16, 16), torch.arange(4))
    assert len(logits) == 2 and not torch.equal(*seen)
    real, fake = ([torch.full((4, n), value) for n in (2, 5)] for value in (0.5, -0.25))
    d_loss, g_loss = hinges(real, fake)  # sums over networks of means, however many logits each has
    assert d_loss == 2 * (0.5 + 0.75) and g_loss == 2 * 0.25


def test_a_classifier_is_frozen_and_takes_its_classes() -> None:
    network = Classifier("test_resnet", weights="random", px=32, classes=[5, 2])
    images = torch.rand(2, 1, 16, 16, requires_grad=True)
    logits = network(images)
    every = network.network(
        (interpolate(images.expand(-1, 3, -1, -1) - network.mean, 32, mode="bilinear")) / network.std
    )
    assert torch.allclose(logits, every[:, [5, 2]], atol=1e-5) and logits.sum().backward() is None
    assert images.grad.abs().max() > 0 and not list(network.parameters()) and not network.state_dict()


def test_a_classifier_learns_classes_that_it_does_not_know() -> None:
    images = torch.randint(0, 60, (90, 3, 16, 16), dtype=torch.uint8)  # of a class, one colour is light
    labels = torch.arange(90) % 3
    images[torch.arange(90), labels] += 190
    network = Classifier("test_resnet", weights="random", px=32, classes="learned")
    right = network.learn(TensorSet(images, labels), classes=["red", "green", "blue"], most=25)
    assert right > 0.9 and network.weight.shape[0] == 3 and not network.state_dict()
    found = network(from_uint8(images)).argmax(1)
    assert (found == labels).double().mean() > 0.9  # as it is guided: towards its own class, and no other
    again = Classifier("test_resnet", weights="random", px=32, classes="learned")
    assert again.learn(TensorSet(images, labels), classes=["red", "green", "blue"], most=25) == right
    assert torch.equal(again.weight, network.weight) and torch.equal(again.bias, network.bias)
    with pytest.raises(ValueError, match=r"class 3 \(grey\) has no images to begin with"):
        network.learn(TensorSet(images, labels), classes=["red", "green", "blue", "grey"], most=25)
    with pytest.raises(ValueError, match="classes 'all' of a classifier: give numbers of its outputs, 'learned', or"):
        Classifier(classes="all")


@on(
    ("given", "message"),
    [
        ({"features": []}, "nothing judges the images"),
        (
            {"guidance_weight": 1.0, "classifier": Classifier("test_resnet", weights="random", classes=[1, 2])},
            r"classes of the classifier are 2 of its outputs, and the data has \d+ classes: give one for each, or",
        ),
        ({"guidance_weight": 1.0}, "guidance needs classes and a classifier"),
        (HEAD, r"heads \[\[32, 4\]\] stand on a stage trained before: give its run as start_from"),
    ],
)
def test_what_cannot_be_trained(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    few = {"features_weights": [], "features_px": []} if given.get("features") == [] else {}
    with pytest.raises(ValueError, match=message):
        train(unguided(**given, **few), tmp_path, batches=1)


def test_a_stage_stands_on_the_one_below(tmp_path: Path) -> None:
    train(unguided(), tmp_path, batches=1)
    gan = unguided(resolution=64, heads=[[32, 4], [64, 4]])
    with pytest.raises(ValueError, match=r"has heads \[\], and this stage stands on \[\[32, 4\]\]"):
        gan.take_over(tmp_path)
    with pytest.raises(ValueError, match=r"resolution 64, and the last of stem_px 16, heads \[\] is another"):
        unguided(resolution=64)


def test_a_run_goes_on_with_its_own_features(tmp_path: Path) -> None:
    train(unguided(), tmp_path, batches=2, stop_at=1)
    with pytest.raises(ValueError, match="weights of test_resnet of fingerprint .* the file that it was trained with"):
        train(unguided(seed=4), tmp_path, batches=2, resume=checkpoints(tmp_path)[-1])


def test_a_generator_alone_is_a_model() -> None:
    network = generator(heads=[[32, 4]], channels=1)
    gan = StyleGANXL.from_generator(network)
    assert (gan.resolution, gan.channels, gan.num_classes, gan.z_dim) == (32, 1, 3, 4)
    z, c = gan.seeded_latents([5]), torch.tensor([1])
    assert torch.allclose(gan.sample([5], labels=c, psi=0.5), network(z, c, psi=0.5).clamp(-1, 1), atol=1e-6)
    assert torch.allclose(gan.synthesize(gan.styles(z, labels=c)), network(z, c), atol=1e-6)


def test_a_sheet_of_classes_goes_to_their_own_means(tmp_path: Path) -> None:
    gan = unguided()
    gan.generator_ema.mapping.w_avg.normal_()
    save_pretrained(gan, tmp_path / "model")
    argv = ["--psi", "0", "0.5", "1", "--classes", "0,2", "--seeds", "4,5", "--output", str(tmp_path / "sheet.png")]
    assert sample.main([str(tmp_path / "model"), *argv]) == 0
    sheet = truncation_sweep(gan, [4, 5], psi=[0, 0.5, 1], label=[0, 2])
    assert sheet.shape == (2, 6, 1, 16, 16)
    with Image.open(tmp_path / "sheet.png") as file:
        assert torch.equal(torch.tensor(np.array(file)), readable_grid(sheet.flatten(0, 1), 6)[0])
    means = gan.generator_ema.mapping.w_avg[[0, 2], None].expand(-1, gan.generator.synthesis.num_ws, -1)
    centres = to_uint8(gan.synthesize(means))
    for seed in (0, 1):
        assert (sheet[:, seed].int() - centres.int()).abs().max() <= 1
    assert not torch.equal(sheet[:, 4], sheet[:, 5]) and not torch.equal(sheet[0], sheet[1])


def test_a_picture_is_projected_from_the_mean_of_its_class(tmp_path: Path) -> None:
    gan = unguided()
    gan.generator_ema.mapping.w_avg.normal_()
    gan.class_names = tuple("abcdefghij")
    save_pretrained(gan, tmp_path / "model")
    image = save_png(to_uint8(gan.sample([3], labels=torch.tensor([4])))[0], tmp_path / "own.png")
    options = {"distance": Blurs(), "output": tmp_path / "found", "steps": 40}
    with pytest.raises(ValueError, match=r"mean style for each of its 10 classes .*: give label, .*\(0=a, 1=b"):
        project(tmp_path / "model", image, **options)
    _, _, settings = read_projection(project(tmp_path / "model", image, **options, label=4) / "w.safetensors")
    first, *_ = map(json.loads, (tmp_path / "found" / "log.jsonl").read_text().splitlines())
    assert settings["label"] == 4 and settings["distance"] < first["distance"] / 4
    assert torch.equal(gan.class_centres()[4], gan.generator_ema.mapping.w_avg[4])
    alone = unguided(num_classes=0)
    assert alone.class_centres().shape == (1, 8)
    found = find(alone, alone.sample([1])[0], distance=Blurs(), steps=2, num_samples=20)
    assert found.settings["label"] is None  # without classes there is one mean


# ---- released files --------------------------------------------------------------------------------------------------

BUFFERS = ("freqs", "phases", "transform", "w_avg", "magnitude_ema", "up_filter", "down_filter")
SYNTHESIS = {"w_dim": 8, "img_resolution": 16, "img_channels": 3, "num_layers": 6, "margin_size": 4}
SYNTHESIS |= {"channel_base": 96, "channel_max": 6, "magnitude_ema_beta": 0.99}
MAPPING = {"num_layers": 2, "rand_embedding": False}


def assert_round_trip(tmp_path: Path, network: Generator, contents: dict[str, Any]) -> None:
    convert(written(tmp_path / "official.pkl", contents), tmp_path / "ours")
    z, c = torch.randn(2, 4), torch.tensor([0, 2]) if network.mapping.c_dim else None
    assert torch.allclose(from_pretrained(tmp_path / "ours")(z, c, psi=0.5), network(z, c, psi=0.5), atol=1e-5)
    convert(tmp_path / "ours", tmp_path / "again.pkl", to="official")
    first, second = (read_official(tmp_path / f"{name}.pkl").networks["G_ema"] for name in ("official", "again"))
    assert list(second.state) == list(first.state) and second.fingerprint == first.fingerprint
    assert (second.buffers, second.init_kwargs, second.parts) == (first.buffers, first.init_kwargs, first.parts)


@on("classes", [3, 0])
def test_a_released_stem_goes_both_ways(classes: int, tmp_path: Path, official_modules: None) -> None:
    """Without classes the official network has an embedding all the same; its class is torch's own."""
    rows = [1000, 320]
    network = generator(c_dim=classes, embedding=rows)
    official = {"mapping.embed.weight": torch.randn(rows)} | stylegan3_state(network)
    config = {"z_dim": 4, "c_dim": classes, **SYNTHESIS, "mapping_kwargs": MAPPING}
    contents = tree("Generator", official, buffers=BUFFERS.__contains__, arguments=config)
    contents.get_submodule("mapping").embed = nn.Embedding(*rows, _weight=official["mapping.embed.weight"])
    assert_round_trip(tmp_path, network, {"G_ema": contents})
    assert read_official(tmp_path / "official.pkl").networks["G_ema"].modules["mapping.embed"] == "Embedding"


@on("heads", [[[32, 5]], [[32, 5], [64, 4]], [[64, 5], [128, 3]]])
def test_a_released_super_resolution_goes_both_ways(
    heads: list[list[int]], tmp_path: Path, official_modules: None
) -> None:
    """What lies between the stem and the last head is told by the layers alone."""
    network = generator(heads=heads)
    below = [[16, 0], *heads][-2][0]
    config = {"path_stem": "https://x/best_model.pkl", "head_layers": heads[-1][1], "up_factor": heads[-1][0] // below}
    config |= {"c_dim": 3, "img_resolution": heads[-1][0], "img_channels": 3}
    parts = {"synthesis": SYNTHESIS, "mapping": {"z_dim": 4, "c_dim": 3, "w_dim": 8, "num_ws": 8, **MAPPING}}
    state = stylegan3_state(network)
    contents = tree("SuperresGenerator", state, buffers=BUFFERS.__contains__, arguments=config, parts=parts)
    assert_round_trip(tmp_path, network, {"G_ema": contents})


def test_stylegan3_is_told_from_it(tmp_path: Path, official_modules: None) -> None:
    torch.manual_seed(0)
    network = stylegan3.Generator(resolution=16, z_dim=4, w_dim=8, c_dim=3, **SMALL)
    config = {"z_dim": 4, "c_dim": 3, **SYNTHESIS, "mapping_kwargs": {"num_layers": 2}}
    contents = tree("Generator", stylegan3_state(network), buffers=BUFFERS.__contains__, arguments=config)
    convert(written(tmp_path / "official.pkl", {"G_ema": contents}), tmp_path / "ours")
    assert isinstance(from_pretrained(tmp_path / "ours"), stylegan3.Generator)


# ---- bad input -------------------------------------------------------------------------------------------------------


@on(
    ("build", "message"),
    [
        (lambda: generator(c_dim=6), r"6 classes, and a class embedding of 5 rows: set embedding=\[6, 7\]"),
        (lambda: generator(heads=[[48, 4]]), "a head of 48 px on 16 px: it must raise the resolution 2, 4, 8 or 16"),
        (lambda: generator(heads=[[16, 4]]), "a head of 16 px on 16 px"),
        (lambda: generator(heads=[[32, 2]]), "num_critical 2 of num_layers 2: some layers must come"),
        (lambda: generator()(torch.randn(2, 4)), "conditional: give labels"),
        (lambda: from_official_config({"up_factor": 2, "head_layers": 4}), "stem whose arguments are not there"),
        (lambda: from_official_config({"up_factor": 2, "head_layer": 4}), "'head_layer' is no argument"),
    ],
)
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# ---- experiments -----------------------------------------------------------------------------------------------------


def arguments(name: str, folder: Path, *more: str) -> list[str]:
    """For two batches of a shipped config on drawn shapes, judged through a small network."""
    px = yaml.safe_load(shipped_configs()[f"stylegan_xl/{name}"].read_text())["data"]["init_args"]["resolution"]
    argv = ["--config", f"stylegan_xl/{name}", "--logger=none", f"--run_folder={folder}", "--evaluate.every_kimg=0"]
    argv += ["--image_grid.columns=2", "--image_grid.rows=2", "--model.init_args.num_classes=6"]
    argv += ["--model.init_args.embedding=[6,96]"]
    argv += ["--model.init_args.features=[test_resnet]", "--model.init_args.features_weights=[random]"]
    argv += ["--model.init_args.features_px=[64]", "--model.init_args.channel_max=4", "--model.init_args.head_width=4"]
    argv += ["--model.init_args.total_kimg=0.008", "--model.init_args.micro_batches=1", "--data=lit_gans.data.Shapes"]
    return [*argv, f"--data.init_args.resolution={px}", "--data.init_args.batch_size=4", *more]


def test_a_run_says_which_networks_judged_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    judged = ["--model.init_args.classifier=lit_gans.papers.stylegan_xl.Classifier"]
    judged += ["--model.init_args.classifier.init_args.name=test_resnet", "--model.init_args.guidance_weight=1"]
    judged += ["--model.init_args.classifier.init_args.weights=random", "--model.init_args.classifier.init_args.px=32"]
    judged += ["--model.init_args.classifier.init_args.classes=learned"]
    assert fit.main(arguments("flowers16", tmp_path, *judged)) == 0
    assert "classifier: test_resnet's outputs on up to 100 images of each of 6 classes" in capsys.readouterr().err
    (start,) = json.loads((tmp_path / "run.json").read_text())["starts"]
    saved = read_checkpoint(checkpoints(tmp_path)[-1])["hyper_parameters"]["features_fingerprints"]
    drawn = {"network": "test_resnet", "weights": "random weights"}
    network, classifier = Classifier("test_resnet", weights="random", px=32), start["networks"][1]
    network.load()
    assert start["networks"][0] == {**drawn, "px": 64, "fingerprint": saved[0]}
    assert classifier == {**drawn, "px": 32, "fingerprint": network.fingerprint}
    assert len(start["networks"]) == 2 and start["precision"] == "32-true"
    assert saved[0] in (tmp_path / "index.html").read_text()


@pytest.mark.slow
def test_small_experiments_train_one_after_the_other(tmp_path: Path) -> None:
    for px, below in ((16, []), (32, [16]), (64, [32])):
        more = [f"--model.init_args.start_from={tmp_path / str(stage)}" for stage in below]
        assert fit.main(arguments(f"flowers{px}", tmp_path / str(px), *more)) == 0
        assert load_run(tmp_path / str(px)).sample([1]).shape == (1, 3, px, px)


PUBLISHED = [name for name in shipped_configs() if name.startswith("stylegan_xl/imagenet")]


@on("name", PUBLISHED)
def test_published_stages_stand_on_each_other(name: str) -> None:
    plans = {name: yaml.safe_load(shipped_configs()[name].read_text()) for name in PUBLISHED}
    model, data = plans[name]["model"]["init_args"], plans[name]["data"]["init_args"]
    px, batch = model["resolution"], data["batch_size"]
    assert (data["resolution"], batch) == (px, 2048 if px <= 64 else 256) and plans[name]["ema"][
        "half_life_kimg"
    ] == batch * 10 / 32
    measured = plans[name]["evaluate"]
    assert measured["labels"] == "uniform" and {"spatial_frechet", "random_frechet"} < set(measured["metrics"])
    assert batch // 8 // model["micro_batches"] == 8  # images at once on each of eight GPUs
    if px == 16:
        assert "start_from" not in model and "guidance_weight" not in model
        return
    below = plans[f"stylegan_xl/{model['start_from'].rpartition('-')[2]}"]["model"]["init_args"]
    assert model["heads"] == [*below.get("heads", []), [px, 5 if px == 1024 else 7]]
    assert model["guidance_weight"] == 8 and below["resolution"] * 2 == px
