"""Steps of edit scripts along directions and by dragged points, and starts from what was found of pictures."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.editing.directions import Directions, stamp
from lit_gans.editing.drag import drag
from lit_gans.editing.found import write_found
from lit_gans.editing.projector import KIND
from lit_gans.editing.script import parse_script
from lit_gans.editing.state import Edited, weights_digest
from tests.cases import CASES


@pytest.fixture
def styled() -> GAN:
    return CASES["stylegan2"]().eval()


@pytest.fixture
def plain() -> GAN:
    return CASES["dcgan"]().eval()


def last(model: GAN, folder: Path, steps: str, start: str = "{seed: 3}") -> Edited:
    return parse_script(f"model: x\nstart: {start}\nsteps: {steps}", folder).states(model)[-1]


def ways(model: GAN, space: str, width: int, path: Path) -> Tensor:
    """The vector of the second of two directions in a file."""
    vectors, two = torch.eye(width)[:2].clone(), torch.tensor([2.0, 3.0])
    Directions(space, ("pose", "smile"), vectors, two, two.clone(), two.clone(), settings=stamp(model)).save(path)
    return vectors[1]


def test_a_direction_is_gone_along(styled: GAN, plain: GAN, tmp_path: Path) -> None:
    vector = ways(styled, "w", 8, tmp_path / "a.safetensors")
    start = last(styled, tmp_path, "[]").ws
    moved = last(styled, tmp_path, "[direction: {file: a.safetensors, name: smile, by: 0.5, layers: '1-2'}]").ws
    torch.testing.assert_close(moved[0, 1:3], start[0, 1:3] + 1.5 * vector)
    assert torch.equal(moved[:, 0], start[:, 0]) and torch.equal(moved[:, 3:], start[:, 3:])
    first = last(styled, tmp_path, "[direction: {file: a.safetensors}]").ws
    assert first[0, 0, 0] == start[0, 0, 0] + 2
    vector = ways(plain, "z", 8, tmp_path / "b.safetensors")
    torch.testing.assert_close(
        last(plain, tmp_path, "[direction: {file: b.safetensors, name: smile}]").z,
        last(plain, tmp_path, "[]").z + 3 * vector,
    )
    with pytest.raises(ValueError, match="step 1, direction: there is no direction 'age'; there are pose, smile"):
        last(styled, tmp_path, "[direction: {file: a.safetensors, name: age}]")
    with pytest.raises(ValueError, match="step 1, direction: a direction of W needs a model that has styles"):
        last(plain, tmp_path, "[direction: {file: a.safetensors}]")
    ways(styled, "z", 8, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="is one of latents, and the picture has styles instead"):
        last(styled, tmp_path, "[direction: {file: c.safetensors}]")


def test_points_are_dragged_as_by_the_function(styled: GAN, tmp_path: Path) -> None:
    light = torch.zeros(16, 16)
    light[:4] = 1
    Image.fromarray((light * 255).byte().numpy()).save(tmp_path / "mask.png")
    said = "handles: [[3, 4]], targets: [[9, 10.5]], max_steps: 3"
    start = last(styled, tmp_path, "[]").ws
    for more, mask in (("", None), (", mask: mask.png", light)):
        found = drag(styled, start, handles=[(3, 4)], targets=[(9, 10.5)], mask=mask, max_steps=3, frames=False)
        edited = last(styled, tmp_path, f"[drag: {{{said}{more}}}]")
        assert torch.equal(edited.ws, found.ws) and not torch.equal(edited.ws, start)
        assert torch.equal(edited.picture(), last(styled, tmp_path, f"[drag: {{{said}{more}}}]").picture())
    (tmp_path / "text.png").write_text("no picture")
    for wrong, why in (
        ("handles: [[3]], targets: [[1, 2]]", r"handle \[3.0\] is no point"),
        ("handles: [[3, .inf]], targets: [[1, 2]]", "handle .*inf.* is no point"),
        ("handles: [[3, 99]], targets: [[1, 2]]", ".* is outside the image"),
        ("handles: [[3, 9]], targets: [[1, 2]], mask: text.png", "mask .*text.png cannot be read as a picture"),
        ("handles: 3, targets: [[1, 2]]", "handles cannot be 3"),
    ):
        with pytest.raises(ValueError, match=f"step 1, drag: {why}"):
            last(styled, tmp_path, f"[drag: {{{wrong}}}]")


def test_what_was_edited_before_a_drag_stays(styled: GAN, tmp_path: Path) -> None:
    with torch.no_grad():
        for layer in styled.generator_ema.modules():
            if hasattr(layer, "noise_strength"):
                layer.noise_strength.fill_(1.0)
    pull = "drag: {handles: [[3, 4]], targets: [[9, 10]], max_steps: 1}"
    noisy = last(styled, tmp_path, f"[{{noise: {{kind: random}}}}, {{{pull}}}]")
    assert noisy.noise and not torch.equal(noisy.ws, last(styled, tmp_path, f"[{pull}]").ws)


def test_a_latent_of_a_file_is_a_start(styled: GAN, plain: GAN, tmp_path: Path) -> None:
    z = plain.seeded_latents([7])
    write_found(tmp_path / "z.safetensors", KIND, {"z": z}, {})
    found = last(plain, tmp_path, "[]", "{latent: z.safetensors, psi: 0.5}")
    assert torch.equal(found.z, z) and found.psi == 0.5
    styles = last(styled, tmp_path, "[]", "{latent: z.safetensors}")  # of a model with styles it is mapped to them
    assert torch.equal(styles.ws, styled.styles(z, labels=styles.labels()))
    write_found(tmp_path / "other.safetensors", KIND, {"z": z[:, :5]}, {})
    with pytest.raises(ValueError, match=r"has a latent \[1, 5\], and this model's are \[1, 8\]: another's"):
        last(styled, tmp_path, "[]", "{latent: other.safetensors}")


def test_a_digest_is_of_the_weights_as_they_are(styled: GAN) -> None:
    before = weights_digest(styled)
    assert weights_digest(styled) == before and weights_digest(styled, ema=False) is not None
    with torch.no_grad():
        next(styled.generator_ema.parameters()).add_(1)
    changed = weights_digest(styled)
    assert changed != before and weights_digest(CASES["stylegan2"]()) == before
