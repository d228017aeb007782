"""StyleGAN-XL: what its networks and its training promise beyond the battery and the recorded values."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lit_gans.convert import convert
from lit_gans.official import read_official
from lit_gans.papers import stylegan3
from lit_gans.papers.stylegan_xl import Generator, from_official_config
from lit_gans.runs.pretrained import from_pretrained
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


# ---- released files --------------------------------------------------------------------------------------------------

BUFFERS = ("freqs", "phases", "transform", "w_avg", "magnitude_ema", "up_filter", "down_filter")
SYNTHESIS = {"w_dim": 8, "img_resolution": 16, "img_channels": 3, "num_layers": 6, "margin_size": 4}
SYNTHESIS |= {"channel_base": 96, "channel_max": 6, "magnitude_ema_beta": 0.99}
MAPPING = {"num_layers": 2, "rand_embedding": False}


def round_trip(tmp_path: Path, network: Generator, contents: dict[str, Any]) -> None:
    convert(written(tmp_path / "official.pkl", contents), tmp_path / "ours")
    z, c = torch.randn(2, 4), torch.tensor([0, 2]) if network.mapping.c_dim else None
    assert torch.allclose(from_pretrained(tmp_path / "ours")(z, c, psi=0.5), network(z, c, psi=0.5), atol=1e-5)
    convert(tmp_path / "ours", tmp_path / "again.pkl", to="official")
    first, second = (read_official(tmp_path / f"{name}.pkl").networks["G_ema"] for name in ("official", "again"))
    assert list(second.state) == list(first.state) and second.fingerprint == first.fingerprint
    assert (second.buffers, second.init_kwargs, second.parts) == (first.buffers, first.init_kwargs, first.parts)


@on("classes", [3, 0])
def test_a_released_stem_goes_both_ways(classes: int, tmp_path: Path, official_modules: None) -> None:
    """Without classes the official network has an embedding all the same."""
    rows = [1000, 320]
    network = generator(c_dim=classes, embedding=rows)
    official = {"mapping.embed.weight": torch.randn(rows)} | stylegan3_state(network)
    config = {"z_dim": 4, "c_dim": classes, **SYNTHESIS, "mapping_kwargs": MAPPING}
    contents = tree("Generator", official, buffers=BUFFERS.__contains__, arguments=config)
    round_trip(tmp_path, network, {"G_ema": contents})


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
    round_trip(tmp_path, network, {"G_ema": contents})


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
