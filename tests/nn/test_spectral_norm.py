"""Spectral normalisation beside torch's, whose old form the published weights come from."""

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm

from lit_gans.nn.spectral_norm import SpectralConv2d, SpectralConvTranspose2d, SpectralLinear, vectors_from, vectors_of

LAYERS = {
    "conv": (SpectralConv2d(4, 6, 3, 2, 1, groups=2), nn.Conv2d(4, 6, 3, 2, 1, groups=2), (2, 4, 8, 8)),
    "transposed": (SpectralConvTranspose2d(4, 6, 4, 2, 1, bias=False), nn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False),
                   (2, 4, 8, 8)),
    "linear": (SpectralLinear(4, 6), nn.Linear(4, 6), (2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_passes_and_gradients_are_those_of_torchs_old_form(name: str) -> None:
    ours, plain, shape = LAYERS[name]
    theirs = spectral_norm(plain)
    names = {"weight": "weight_orig", "u": "weight_u", "v": "weight_v", "bias": "bias"}
    theirs.load_state_dict({names[own]: tensor for own, tensor in ours.state_dict().items()})
    x = torch.arange(torch.Size(shape).numel()).sin().view(shape)
    for network in (ours, theirs):  # two passes before one backward: the first one's vectors are kept for it
        (network(x) * network(2 * x)).sum().backward()
    assert torch.allclose(ours.weight.grad, theirs.weight_orig.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(ours.u, theirs.weight_u, atol=1e-6) and torch.allclose(ours.v, theirs.weight_v, atol=1e-6)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-6)
    assert torch.equal(ours(x), ours(x)), "in evaluation the vectors stay"


def test_the_weight_comes_to_have_norm_one() -> None:
    layer = SpectralLinear(5, 7)
    layer.approach(200)
    assert torch.linalg.matrix_norm(layer.normalised().detach(), 2).item() == pytest.approx(1, abs=1e-5)


def test_earlier_vectors_give_the_earlier_pass_again_and_the_present_ones_come_back() -> None:
    layer, x = SpectralConv2d(3, 4, 3), torch.ones(1, 3, 5, 5)
    before = vectors_of(layer)
    first, second = layer(x), layer(x)
    now = layer.u.clone()
    with vectors_from(before):
        assert torch.equal(layer(x), first) and not torch.equal(first, second)
    assert torch.equal(layer.u, now)
