"""Stages, levels of detail and blending of growing networks."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import avg_pool2d

from lit_gans.adversarial.progressive import Growing, blended, enlarged, grow_together, stage_at


@pytest.mark.parametrize(
    ("lod", "stage", "alpha"), [(0, 32, 1), (0.7, 32, 0.3), (1, 16, 1), (1.7, 16, 0.3), (2.0, 8, 1), (3, 4, 1)]
)
def test_levels_of_detail_are_stages_and_shares(lod: float, stage: int, alpha: float) -> None:
    assert stage_at(lod, 32) == (stage, pytest.approx(alpha))
    network = Growing(32)
    network.set_progress(stage, alpha)
    assert float(network.lod) == pytest.approx(lod)
    other = Growing(32)
    other.load_state_dict(network.state_dict())
    assert (other.stage, other.alpha) == (stage, pytest.approx(alpha))


def test_a_network_is_built_fully_grown() -> None:
    network = Growing(16)
    assert (network.stage, network.alpha, float(network.lod)) == (16, 1.0, 0.0)


def test_a_share_of_the_new_beside_the_old() -> None:
    network, old, new = Growing(32), torch.zeros(2, 3), torch.ones(2, 3)
    for stage, alpha in ((32, 0.3), (8, 0.75)):
        network.set_progress(stage, alpha)
        assert network.fading and torch.allclose(network.faded(old, new), alpha * new, atol=1e-6)
        network.set_progress(stage, 0.0)
        assert torch.equal(network.faded(old, new), old)
        network.set_progress(stage, 1.0)
        assert not network.fading
    other = Growing(32)
    network.set_progress(16, 0.5)
    other.load_state_dict(network.state_dict())
    assert other.fading and torch.equal(other.faded(old, new), 0.5 * new)


def test_compiled_networks_are_made_anew_for_each_set_of_layers_and_not_for_each_share() -> None:
    class Two(Growing):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * self.stage
            return self.faded(x, x + 1) if self.fading else x

    compiled, eager, counter, x = Two(1024), Two(1024), CompileCounter(), torch.randn(3)
    torch.compiler.reset()
    compiled.compile(backend=counter, dynamic=False)
    for stage in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
        for alpha in (0.0, 0.25, 0.5, 1.0) if stage > 4 else (1.0,):
            grow_together([compiled, eager], stage, alpha, leader=compiled, compiled=True)
            assert torch.equal(compiled(x), eager(x))
    assert counter.frame_count == 1 + 2 * 8
    torch.compiler.reset()


def test_reals_fade_in_from_what_the_stage_before_saw() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert blended(images, 1.0) is images
    coarse = enlarged(avg_pool2d(images, 2), 8)
    assert torch.allclose(blended(images, 0.0), coarse)
    assert torch.allclose(blended(images, 0.25), 0.25 * images + 0.75 * coarse)
    assert enlarged(images, 8) is images and torch.equal(enlarged(images, 32)[..., 3, 3], images[..., 0, 0])


@pytest.mark.parametrize(
    ("stage", "alpha", "message"),
    [(64, 1, "stage 64 is not"), (12, 1, "stage 12 is not"), (2, 1, "stage 2 is not a power of two from 4 to 32"),
     (8, 1.5, "alpha 1.5 at 8 px"), (4, 0.5, "alpha 0.5 at 4 px: it lies in .0, 1., and at 4 px it is 1")],
)  # fmt: skip
def test_what_no_network_can_be(stage: int, alpha: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Growing(32).set_progress(stage, alpha)
    with pytest.raises(ValueError, match="resolution 24 is not a power of two from 4"):
        Growing(24)
