"""Projection and tables of styles, on StyleGAN2 at a size that finds its own images in a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.cache import write_tensors
from lit_gans.base.images import to_uint8
from lit_gans.editing import Projection, project, read_projection, render, style_mixing, truncation_sweep
from lit_gans.editing.projector import (
    compared,
    exploration,
    learning_rate_share,
    noise_maps,
    noise_penalty,
    pyramid,
    style_statistics,
)
from lit_gans.metrics.perceptual import FrozenDistance
from lit_gans.papers.stylegan2 import StyleGAN2
from tests.callbacks.common import tiny_gan

LAYERS = 6  # of StyleGAN2 at 16 pixels


class Blurs(FrozenDistance):
    """Squared differences of an image and its averages over 2 x 2 and 4 x 4 pixels."""

    name = "blurs"

    def __init__(self) -> None:
        super().__init__()
        self.freeze()

    def features(self, images: Tensor) -> list[Tensor]:
        return [images, F.avg_pool2d(images, 2), F.avg_pool2d(images, 4)]

    def between(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        return torch.stack([(a - b).square().mean((1, 2, 3)) for a, b in zip(fake, real, strict=True)]).sum(0)


def tiny_stylegan(**options: Any) -> StyleGAN2:
    """16-pixel colour images of middling contrast, with noise in every layer."""
    torch.manual_seed(0)
    sizes = {"resolution": 16, "channels": 3, "z_dim": 8, "w_dim": 8, "num_layers": 2}
    gan = StyleGAN2(**{**sizes, **options}, channel_base=64, channel_max=8)
    with torch.no_grad():
        for name, parameter in gan.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
            elif name.endswith("to_rgb.weight"):
                parameter.mul_(0.3)
        gan.generator_ema.mapping.w_avg.fill_(0.1)
    return gan.eval()


@pytest.fixture(scope="module")
def gan() -> StyleGAN2:
    return tiny_stylegan()


def own(gan: StyleGAN2, seed: int) -> Tensor:
    return gan.generate(gan.seeded_latents([seed]))[0]


def found(gan: StyleGAN2, image: Tensor, **options: Any) -> Projection:
    return project(gan, image, **{"distance": Blurs(), "steps": 60, "num_samples": 500, **options})


def psnr_db(projection: Projection, image: Tensor) -> float:
    return 10 * math.log10(4 / (projection.target - image).square().mean())


@pytest.fixture(scope="module")
def projection(gan: StyleGAN2) -> Projection:
    return found(gan, own(gan, 5))


# ---- the method ------------------------------------------------------------------------------------------------------


def test_an_image_of_the_model_is_found_again(gan: StyleGAN2, projection: Projection) -> None:
    assert projection.distance < projection.steps[0].distance / 15
    mean, _ = style_statistics(gan, num_samples=500)
    start = gan.synthesize(mean.repeat(1, LAYERS, 1))
    assert psnr_db(projection, projection.image) > psnr_db(projection, start) + 10
    again = render(gan, projection.ws, projection.noise).clamp(-1, 1)
    assert torch.allclose(again, projection.image, atol=1e-6) and torch.equal(projection.target[0], own(gan, 5))
    assert projection.ws.shape == (1, LAYERS, 8) and (projection.ws == projection.ws[:, :1]).all()
    assert projection.frames.shape == (60, 3, 16, 16)
    assert torch.equal(projection.frames[-1:], to_uint8(projection.image))


@pytest.mark.slow
def test_a_style_for_each_layer_comes_nearer(gan: StyleGAN2) -> None:
    """To an image of mixed styles, which no single w has."""
    a, b = (gan.styles(gan.seeded_latents([seed])) for seed in (5, 6))
    mixed = gan.synthesize(torch.cat([a[:, :2], b[:, 2:]], 1))[0].detach().clamp(-1, 1)
    one, each = (found(gan, mixed, space=space, steps=100) for space in ("w", "w+"))
    assert each.distance < 0.7 * one.distance
    assert not (each.ws == each.ws[:, :1]).all()


def test_noise_maps_stay_noise(gan: StyleGAN2, projection: Projection) -> None:
    assert projection.noise.keys() == noise_maps(gan).keys() and len(projection.noise) == 5
    for noise in projection.noise.values():
        assert abs(noise.mean()) < 1e-6 and abs(noise.square().mean() - 1) < 1e-5
    assert projection.steps[-1].noise_penalty < projection.steps[0].noise_penalty / 10


def test_all_follows_from_the_seed(gan: StyleGAN2) -> None:
    torch.manual_seed(1)
    one = found(gan, own(gan, 5), steps=5)
    torch.manual_seed(2)
    with torch.no_grad():
        same, other = found(gan, own(gan, 5), steps=5), found(gan, own(gan, 5), steps=5, seed=1)
    assert torch.equal(one.ws, same.ws) and one.steps == same.steps and torch.equal(one.image, same.image)
    assert not torch.equal(one.ws, other.ws)
    still = found(gan, own(gan, 5), steps=5, initial_noise=0.0)
    assert not torch.equal(one.ws, still.ws)


def test_the_model_stays_as_it_was() -> None:
    gan = tiny_stylegan().train()
    before = {name: tensor.clone() for name, tensor in gan.state_dict().items()}
    found(gan, own(gan, 5), steps=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in gan.state_dict().items())
    assert gan.generator.training and all(p.grad is None for p in gan.parameters())


def test_noise_penalty_is_the_correlation_of_neighbours_at_every_scale() -> None:
    noise = torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert [tuple(level.shape[2:]) for level in pyramid(torch.zeros(32, 32))] == [(32, 32), (16, 16), (8, 8)]
    coarse = noise.view(8, 2, 8, 2).mean((1, 3))
    expected = 0.0
    for level in (noise, coarse):
        size = len(level)
        for down, right in ((1, 0), (0, 1)):
            pairs = [
                level[i, j] * level[(i - down) % size, (j - right) % size] for i in range(size) for j in range(size)
            ]
            expected += (sum(pairs) / size**2) ** 2
    assert torch.allclose(noise_penalty([noise]), expected, rtol=1e-10)
    assert torch.allclose(noise_penalty([noise, noise[None, None]]), 2 * expected, rtol=1e-10)
    assert noise_penalty([torch.ones(4, 4)]) == 2 and noise_penalty([]) == 0


def test_schedules() -> None:
    assert [learning_rate_share(t) for t in (0, 0.025, 0.05, 0.75, 0.875)] == pytest.approx([0, 0.5, 1, 1, 0.5])
    assert learning_rate_share(1.0) == 0
    assert [exploration(t) for t in (0, 0.375, 0.75, 0.9)] == [1, 0.25, 0, 0]


def test_the_start_is_the_mean_of_w(gan: StyleGAN2) -> None:
    mean, spread = style_statistics(gan, num_samples=1500, seed=4)
    w = gan.styles(gan.seeded_latents(range(1500)))[:, 0]
    assert torch.allclose(mean, w.mean(0), atol=5 * spread / 1500**0.5)
    assert spread == pytest.approx(w.var(0).sum().sqrt().item(), rel=0.1)


def test_large_images_are_compared_at_256_px() -> None:
    images = torch.randn(1, 3, 512, 512)
    assert torch.allclose(compared(images), F.avg_pool2d(images, 2), atol=1e-6)
    assert compared(images[..., :256, :256]).shape[-1] == 256


def test_classes_give_the_start() -> None:
    gan = tiny_stylegan(num_classes=3)
    means = [style_statistics(gan, num_samples=300, label=label)[0] for label in (0, 1, 2, None)]
    assert torch.allclose(torch.stack(means[:3]).mean(0), means[3], atol=0.2) and not torch.equal(means[0], means[1])
    image = gan.sample([4], labels=torch.tensor([1]))[0]
    assert found(gan, image, steps=2, label=1).settings["label"] == 1


# ---- files and errors ------------------------------------------------------------------------------------------------


def test_a_saved_projection_gives_the_image_again(gan: StyleGAN2, projection: Projection, tmp_path: Path) -> None:
    projection.save(tmp_path / "w.safetensors", image="own")
    ws, noise, settings = read_projection(tmp_path / "w.safetensors")
    assert torch.equal(render(gan, ws, noise), render(gan, projection.ws, projection.noise))
    assert (settings["space"], settings["image"], settings["distance"]) == ("w", "own", projection.distance)


def test_other_files_are_no_projections(projection: Projection, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match="give the w.safetensors of a projection"):
        read_projection(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged, or no file of this package: give the w.safetensors"):
        read_projection(path)
    write_tensors(path, {"ws": projection.ws}, {"space": '"w"'})  # as they were before they said what they are
    assert torch.equal(read_projection(path)[0], projection.ws) and read_projection(path)[2] == {"space": "w"}
    write_tensors(path, {"w": projection.ws}, {})
    with pytest.raises(ValueError, match="holds neither ws nor z: give the w.safetensors"):
        read_projection(path)
    projection.save(path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="is damaged, or no file of this package"):
        read_projection(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "z"}, "space 'z' is neither 'w' nor 'w\\+'"),
        ({"steps": 0}, "steps is 0: give 1 or more"),
        ({"label": 0}, "this model has no classes: leave the label out"),
        ({"image": torch.zeros(1, 16, 16)}, r"image torch.float32 \[1, 16, 16\], expected float \[3, 16, 16\]"),
        ({"image": torch.zeros(3, 16, 16, dtype=torch.uint8)}, "image torch.uint8"),
        ({"image": torch.full((3, 16, 16), 2.0)}, "image values from 2 to 2, expected"),
        ({"lr": math.nan}, "are not finite: lower lr"),
    ],
)
def test_what_cannot_be_met(gan: StyleGAN2, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found(gan, **{"image": torch.zeros(3, 16, 16), "steps": 2, **options})


def test_models_without_w_and_noise_of_another_model(gan: StyleGAN2, projection: Projection) -> None:
    with pytest.raises(ValueError, match="projection needs a model that has styles .*, and a VanillaGAN does not"):
        project(tiny_gan(), torch.zeros(1, 8, 8), distance=Blurs())
    name = next(iter(projection.noise))
    with pytest.raises(ValueError, match=rf"{name} is given as \[2, 2\], and this StyleGAN2 has \[4, 4\]: it belongs"):
        render(gan, projection.ws, {name: torch.zeros(2, 2)})


# ---- tables of styles ------------------------------------------------------------------------------------------------


def test_mixed_styles_have_the_layers_of_the_column(gan: StyleGAN2) -> None:
    table = style_mixing(gan, [1, 2, 3], [4, 5], layers=[0, 3], psi=0.7, batch_size=4)
    assert table.shape == (4, 3, 3, 16, 16) and table[0, 0].max() == 0
    images = to_uint8(gan.sample([1, 2, 3, 4, 5], psi=0.7))
    assert torch.equal(table[1:, 0], images[:3]) and torch.equal(table[0, 1:], images[3:])
    ws = gan.styles(gan.seeded_latents([3, 4]), psi=0.7)
    mixed = torch.stack([ws[1 if layer in (0, 3) else 0, layer] for layer in range(LAYERS)])
    expected = to_uint8(gan.synthesize(mixed[None]))[0]
    assert (table[3, 1].int() - expected.int()).abs().max() <= 1
    all_layers = style_mixing(gan, [1], [4], layers=range(LAYERS))
    assert torch.equal(all_layers[1, 1], all_layers[0, 1])


def test_mixing_says_what_it_needs(gan: StyleGAN2) -> None:
    with pytest.raises(ValueError, match="layer 6 does not exist: this model has the layers 0 to 5"):
        style_mixing(gan, [1], [2], layers=[5, 6])
    with pytest.raises(ValueError, match="style mixing needs a model that has styles .*, and a VanillaGAN does not"):
        style_mixing(tiny_gan(), [1], [2], layers=[0])


def test_truncation_sweeps_have_a_row_per_psi(gan: StyleGAN2) -> None:
    table = truncation_sweep(gan, [3, 4], psi=[0.0, 0.5, 1.0])
    assert table.shape == (3, 2, 3, 16, 16)
    assert torch.equal(table[0, 0], table[0, 1])  # the average
    assert torch.equal(table[1], to_uint8(gan.sample([3, 4], psi=0.5)))
    plain = tiny_gan()
    assert torch.equal(truncation_sweep(plain, [3], psi=[0.5])[0], to_uint8(plain.sample([3], psi=0.5)))


def test_noise_of_either_generator(gan: StyleGAN2) -> None:
    assert all(name.startswith("generator.") for name in noise_maps(gan, ema=False))
    name, own_map = next(iter(noise_maps(gan).items()))
    changed = render(gan, gan.styles(gan.seeded_latents([1])), {name: -own_map})
    assert not torch.allclose(changed, gan.synthesize(gan.styles(gan.seeded_latents([1]))))
    assert isinstance(own_map, Tensor) and not isinstance(own_map, nn.Parameter)


def test_noise_of_a_released_generator_which_is_both_players(gan: StyleGAN2) -> None:
    released = StyleGAN2.from_generator(gan.generator_ema)
    for ema, player in ((True, "generator_ema"), (False, "generator")):
        maps = noise_maps(released, ema=ema)
        assert len(maps) == 5 and all(name.startswith(f"{player}.") for name in maps)
        ws = released.styles(released.seeded_latents([5]))
        with torch.no_grad():
            silent = render(released, ws, {name: torch.zeros_like(one) for name, one in maps.items()}, ema=ema)
            assert torch.equal(silent, released.synthesize(ws, noise="none"))
            assert torch.equal(render(released, ws, {}, ema=ema), gan.synthesize(ws))
