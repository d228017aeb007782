"""The layers of every styled generator, looked at and changed through hooks, against what its forward pass does."""

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import HasLayers, HasStyles, can, class_labels
from lit_gans.editing import channel_styles, synthesize_features, synthesize_shifted
from lit_gans.papers.stylegan_t.networks import Modulation
from tests.cases import CASES

STYLED = ("stylegan1", "stylegan2", "stylegan3-t", "stylegan3-r", "stylegan-t", "stylegan-xl", "projected-gan-style")


def styled(name: str) -> tuple[GAN, Tensor]:
    model = CASES[name]()
    seeds = torch.tensor([0, 1])
    return model, model.styles(model.seeded_latents(seeds), labels=class_labels(model, seeds)).detach()


def taken_by(model: GAN, ws: Tensor) -> dict[str, Tensor]:
    """What the layers' maps give in the forward pass, in its order."""
    found, names = dict[str, Tensor](), {id(layer.affine): key for key, layer in model.style_layers().items()}

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        if id(module) in names:
            found[names[id(module)]] = output

    with nn.modules.module.register_module_forward_hook(keep):
        model.synthesize(ws)
    return found


@pytest.mark.parametrize("name", STYLED)
def test_each_layer_takes_the_row_that_it_names(name: str) -> None:
    """Another w in one row changes the channel styles of the layers of that row, and of these alone."""
    model, ws = styled(name)
    layers, before = model.style_layers(), channel_styles(model, ws)
    for row in range(ws.shape[1]):
        other = ws.clone()
        other[:, row] += 1
        with torch.no_grad():
            after, taken = channel_styles(model, other), taken_by(model, other)
        changed = {key for key in layers if not torch.equal(before[key], after[key])}
        assert changed == {key for key, layer in layers.items() if layer.row == row}
        assert list(taken) == list(layers)  # the order of synthesis
        for key, styles in taken.items():
            torch.testing.assert_close(styles, after[key])


@pytest.mark.parametrize("name", STYLED)
def test_a_shift_of_the_bias_is_a_shift_of_the_styles(name: str) -> None:
    model, ws = styled(name)
    shifts = {key: torch.linspace(-1, 1, styles.shape[1]) for key, styles in channel_styles(model, ws).items()}
    with torch.no_grad():
        plain, moved = model.synthesize(ws), synthesize_shifted(model, ws, shifts)
        assert torch.equal(model.synthesize(ws), plain)  # and the hooks are gone
        for key, layer in model.style_layers().items():
            # Of a map of second order, a * b + c, the bias of c.
            affine = layer.affine.proj if isinstance(layer.affine, Modulation) else layer.affine
            assert affine.bias is not None
            affine.bias[-len(shifts[key]) :] += shifts[key] / getattr(affine, "lr_multiplier", 1)
        expected = model.synthesize(ws)
    assert (moved - plain).abs().max() > 1e-4
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", STYLED)
def test_features_are_maps_that_grow_and_have_gradients(name: str) -> None:
    model, ws = styled(name)
    names = list(model.feature_layers())
    images, maps = synthesize_features(model, ws.requires_grad_(), names)
    assert torch.equal(images, model.synthesize(ws)) and list(maps) == names
    sides = [one.shape[-1] for one in maps.values()]
    assert all(one.dim() == 4 and one.shape[-1] == one.shape[-2] and len(one) == 2 for one in maps.values())
    assert name.startswith(("stylegan3", "stylegan-xl")) or sides == sorted(sides)
    (gradient,) = torch.autograd.grad(maps[names[0]].square().sum(), ws)
    assert gradient.abs().sum() > 0


def test_one_image_may_be_moved_and_the_other_not() -> None:
    model, ws = styled("stylegan2")
    key, styles = next(iter(channel_styles(model, ws).items()))
    shift = torch.zeros_like(styles)
    shift[0] = 1
    moved, plain = synthesize_shifted(model, ws, {key: shift}), model.synthesize(ws)
    assert not torch.allclose(moved[0], plain[0]) and torch.equal(moved[1], plain[1])


def test_what_a_model_has_not_is_said() -> None:
    model, ws = styled("stylegan2")
    with pytest.raises(ValueError, match=r"layer '5.conv9' does not exist: this model has 4.conv1, 4.to_rgb, 8.conv0"):
        synthesize_shifted(model, ws, {"5.conv9": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"layer '7' does not exist: this model has 4, 8"):
        synthesize_features(model, ws, ["7"])
    with pytest.raises(ValueError, match=r"shift of layer 4.conv1 has shape \[1, 3\]: it has \d+ channels"):
        synthesize_shifted(model, ws, {"4.conv1": torch.zeros(1, 3)})


def test_projected_gan_has_w_with_stylegan2s_generator_alone() -> None:
    assert can(CASES["projected-gan-style"](), HasLayers)
    other = CASES["projected-gan"]()
    assert not can(other, HasStyles) and not can(other, HasLayers)
    with pytest.raises(ValueError, match="needs a model that shows its layers, and a ProjectedGAN does not"):
        channel_styles(other, torch.zeros(1, 1, 1))
