"""StyleGAN-XL: what its networks and its training promise beyond the battery and the recorded values."""

from typing import Any

import pytest
import torch

from lit_gans.papers.stylegan_xl import Generator, from_official_config

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
