"""MSG-GAN: what its networks and its training promise beyond the battery and the recorded values."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, pad

from lit_gans import fit as verb
from lit_gans.base.random import Draws, drawing
from lit_gans.callbacks.ema import ema_weight
from lit_gans.papers import MSGGAN
from lit_gans.papers.msg_gan import (
    Conv,
    Discriminator,
    Generator,
    StyleGenerator,
    from_official_config,
    least_squares_of_means,
    multi_scale_gradient_penalty,
    multi_scale_r1,
    on_sphere,
    pyramid,
    wasserstein_with_drift,
    widths,
)
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from tests.cases import BATCH, CASES, train

EXPERIMENTS = [name for name in shipped_configs() if name.startswith("msg_gan/")]


def tiny(**arguments: Any) -> MSGGAN:
    torch.manual_seed(0)
    return MSGGAN(**{"resolution": 16, "channels": 1, "z_dim": 8, "width": 8, "seed": 3, **arguments})


def style_generator() -> StyleGenerator:
    torch.manual_seed(0)
    network = StyleGenerator(resolution=16, z_dim=8, width=8)
    for name, p in network.named_parameters():
        if name.endswith("noise_weight"):
            nn.init.constant_(p, 0.5)
    return network


# ---- networks --------------------------------------------------------------------------------------------------------


def test_widths_are_the_published_ones() -> None:
    assert [*widths(1024, width=512).values()] == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert [*widths(64, width=6)] == [4, 8, 16, 32, 64] and widths(64, width=6)[64] == 3


def test_reals_are_pooled_to_every_scale_from_one_image() -> None:
    x = torch.randn(2, 3, 32, 32)
    found = pyramid(x)
    assert [f.shape[-1] for f in found] == [4, 8, 16, 32] and torch.equal(found[-1], x)
    for smaller, larger in zip(found, found[1:], strict=False):
        assert torch.allclose(smaller, avg_pool2d(larger, 2), atol=1e-6)
    point = torch.randn(2, 2, 1, 1)
    assert [f.shape for f in pyramid(x[..., :2, :2])] == [(2, 3, 2, 2)] and torch.equal(pyramid(point)[0], point)
    d = Discriminator(resolution=32, width=8)
    assert torch.equal(d(x), d(found))


@pytest.mark.parametrize("resolution", [8, 16, 64])
def test_every_scale_is_made_and_judged(resolution: int) -> None:
    torch.manual_seed(0)
    g = Generator(resolution=resolution, z_dim=6, width=8)
    d = Discriminator(resolution=resolution, width=8)
    images = g(on_sphere(torch.randn(3, 6)))
    assert [i.shape for i in images] == [(3, 3, 2**k, 2**k) for k in range(2, int(math.log2(resolution)) + 1)]
    gradients = torch.autograd.grad(d(images).square().sum(), images)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    direct = torch.autograd.grad(d([*images[:1], *(i.detach() for i in images[1:])]).sum(), g.blocks[0].conv1.weight)
    assert direct[0].abs().max() > 0, "the first layers have a gradient through the smallest scale alone"


def test_std_is_over_the_whole_batch() -> None:
    d = Discriminator(resolution=8, width=8)
    x = torch.randn(6, 3, 8, 8)
    assert not torch.allclose(d(x)[:3], d(x[:3]), atol=1e-4)
    assert torch.allclose(d(x)[torch.arange(5, -1, -1)], d(x.flip(0)), atol=1e-5)


def test_equalised_layers_start_at_unit_variance_and_can_be_plain() -> None:
    torch.manual_seed(0)
    x, layer, plain = torch.randn(2, 64, 8, 8), Conv(64, 64, 3), Conv(64, 64, 3, equalized=False)
    assert layer.weight.std().item() == pytest.approx(1, rel=0.02) and layer.bias.abs().max() == 0
    assert layer(x)[:, :, 1:-1, 1:-1].std().item() == pytest.approx(math.sqrt(2), rel=0.1)
    assert torch.equal(plain(x), conv2d(x, plain.weight, plain.bias, padding=1))
    g = Generator(resolution=8, z_dim=4, width=4, equalized=False)
    assert {m.scale for m in g.modules() if isinstance(m, (Conv, nn.ConvTranspose2d))} == {1.0}


def test_noise_is_drawn_anew_or_stored() -> None:
    g, z = style_generator(), torch.randn(4, 8)

    def under(key: int, rows: slice = slice(0, 4), **share: int) -> list[Tensor]:
        with drawing(Draws(key, **share)):
            return g(z[rows])

    whole = under(1)
    assert torch.equal(whole[-1], under(1)[-1]) and not torch.allclose(whole[-1], under(2)[-1], atol=1e-3)
    halves = [under(1, slice(2 * i, 2 * i + 2), share=i, shares=2) for i in (0, 1)]
    for scale, images in enumerate(whole):
        assert torch.allclose(images, torch.cat([half[scale] for half in halves]), atol=1e-4)
    assert torch.equal(g(z, noise="const")[-1], g(z, noise="const")[-1])


def test_truncation_of_w() -> None:
    g, z = style_generator(), torch.randn(3, 8)
    g.mapping.w_avg.normal_()
    average = g(z, psi=0.0, noise="const")[-1]
    assert torch.allclose(average[0], average[2], atol=1e-4)
    assert not torch.allclose(average[0], g(z, noise="const")[-1][0], atol=1e-2)
    some = g(z, psi=0.0, cutoff=2, noise="const")
    assert torch.allclose(some[0][0], some[0][1], atol=1e-4) and not torch.allclose(some[1][0], some[1][1], atol=1e-2)


def test_upsampling_in_one_kernel_is_the_same() -> None:
    """StyleGAN's fused layer: the sum of four shifted kernels, as a transposed convolution of stride 2."""
    layer, x = style_generator().layers[2], torch.randn(2, 8, 4, 4)
    w = pad(layer.weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1)) * layer.scale
    fused = w[..., 1:, 1:] + w[..., :-1, 1:] + w[..., 1:, :-1] + w[..., :-1, :-1]
    expected = conv2d(interpolate(x, scale_factor=2), layer.weight * layer.scale, padding=1)
    assert torch.allclose(conv_transpose2d(x, fused, stride=2, padding=1), expected, atol=1e-5)


# ---- losses and penalties --------------------------------------------------------------------------------------------


def test_penalties_of_a_linear_network_in_closed_form() -> None:
    torch.manual_seed(0)
    a = [torch.randn(1, 4, 4), torch.randn(1, 8, 8)]
    norms = torch.stack([x.norm() for x in a])

    def network(images: list[Tensor]) -> Tensor:
        return torch.stack([(x * w).flatten(1).sum(1) for x, w in zip(images, a, strict=True)]).sum(0)

    reals, fakes = ([torch.randn(3, 1, s, s) for s in (4, 8)] for _ in range(2))
    assert multi_scale_r1(network, reals).item() == pytest.approx(norms.square().mean().item(), rel=1e-5)
    found = multi_scale_gradient_penalty(network, reals, fakes, mix=torch.rand(3))
    assert found.item() == pytest.approx((norms - 1).square().mean().item(), rel=1e-5)


def test_the_penalty_is_taken_between_reals_and_fakes() -> None:
    seen: list[Tensor] = []

    def network(images: list[Tensor]) -> Tensor:
        seen.extend(images)
        return images[0].square().flatten(1).sum(1)

    real, fake = [torch.ones(2, 1, 4, 4)], [torch.zeros(2, 1, 4, 4)]
    multi_scale_gradient_penalty(network, real, fake, mix=torch.tensor([0.25, 1.0]))
    assert [x.mean().item() for x in seen[0]] == [0.25, 1.0]


def test_losses_of_means_and_drift() -> None:
    real, fake = torch.tensor([0.0, 2.0]), torch.tensor([-1.0, 1.0])
    d_loss, g_loss = least_squares_of_means(real, fake)
    assert (d_loss.item(), g_loss.item()) == (0.0, 0.5), "the mean is squared, not each score"
    d_loss, g_loss = wasserstein_with_drift(real, fake)
    assert d_loss.item() == pytest.approx(-1 + 0.001 * 2) and g_loss.item() == 0


# ---- training --------------------------------------------------------------------------------------------------------


def test_both_players_step_on_one_batch_of_latents(tmp_path: Path) -> None:
    gan, seen = tiny(), []
    gan.generator.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    train(gan, tmp_path, batches=2)
    assert len(seen) == 4 and torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[0], seen[2])
    assert torch.allclose(seen[0].norm(dim=1), torch.full((BATCH,), math.sqrt(8)), atol=1e-5)


def test_both_players_see_reals_and_fakes_of_every_scale(tmp_path: Path) -> None:
    """The generator's relativistic loss judges the reals too."""
    gan, seen = tiny(), []
    gan.discriminator.register_forward_pre_hook(lambda module, args: seen.append([x.shape[-1] for x in args[0]]))
    train(gan, tmp_path, batches=1)
    assert seen == [[4, 8, 16]] * 4


def test_penalties_are_weighted_and_reported(tmp_path: Path) -> None:
    gan = tiny(penalty_weight=10.0, r1_gamma=4.0)
    reals, fakes, mix = pyramid(torch.randn(2, 1, 16, 16)), pyramid(torch.randn(2, 1, 16, 16)), torch.rand(2)
    gp = multi_scale_gradient_penalty(gan.discriminator, reals, fakes, mix=mix)
    expected = 10 * gp + 2 * multi_scale_r1(gan.discriminator, reals)
    assert gan.penalty(reals, fakes, mix).item() == pytest.approx(expected.item(), rel=1e-5)
    assert {"gp", "r1"} <= {*gan.reports.means()} and tiny().penalty(reals, fakes, mix) == 0.0
    train(gan, tmp_path, batches=1)


def test_the_average_of_w_follows_the_batch(tmp_path: Path) -> None:
    gan, means = CASES["msg-gan-style"](micro_batches=2), []
    track = gan.generator.mapping.track
    gan.generator.mapping.track = lambda mean: (means.append(mean), track(mean))
    train(gan, tmp_path, batches=2)
    expected = torch.zeros(8).lerp(means[0], 0.005).lerp(means[1], 0.005)
    assert len(means) == 2 and torch.allclose(gan.generator.mapping.w_avg, expected, atol=1e-6)
    assert torch.equal(gan.generator_ema.mapping.w_avg, gan.generator.mapping.w_avg)


# ---- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("networks", ["pggan", "stylegan"])
def test_a_sample_is_the_largest_of_the_scales(networks: str) -> None:
    gan = tiny(networks=networks)
    for name, p in gan.generator_ema.named_parameters():
        if name.endswith("bias"):  # without them the pixel norm takes the length of z away again
            nn.init.normal_(p)
    z = gan.seeded_latents(range(3))
    scales = gan.scales(z)
    assert [s.shape[-1] for s in scales] == [4, 8, 16] and all(s.abs().max() <= 1 for s in scales)
    assert torch.equal(scales[-1], gan.sample(range(3)))
    assert torch.allclose(gan.generate(7 * z), gan.generate(z), atol=1e-5), "latents lie on the sphere"
    assert not torch.allclose(gan.generate(z, psi=0.3), gan.generate(z), atol=1e-3)
    average = gan.generate(z, psi=0.0)
    assert torch.allclose(average[0], average[2], atol=1e-5)
    images, columns = gan.preview(None, rows=1, columns=3, psi=1.0)
    assert images.shape == (3, 1, 16, 16) and columns == 3


# ---- bad input, experiments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tiny(resolution=48), "resolution 48 is not a power of two.*use 32, 64"),
        (lambda: tiny(resolution=4), "resolution 4 is not a power of two from 8"),
        (lambda: tiny(width=7), "width 7 cannot be halved at every scale of 16 pixels"),
        (lambda: tiny(resolution=256, width=12), "width 12 cannot be halved.*use a multiple of 8"),
        (lambda: tiny(networks="progan"), "networks 'progan' is not one of pggan, stylegan"),
        (lambda: tiny(num_classes=10), "MSG-GAN is unconditional"),
        (lambda: tiny(loss="nowhere.f"), "loss 'nowhere.f' cannot be imported"),
        (lambda: tiny().generate(torch.ones(1, 8), labels=torch.ones(1)), "labels were given"),
        (lambda: from_official_config({"dept": 3}), "'dept' is no argument of the official network, which has depth"),
    ],
)
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_have_the_official_numbers(name: str) -> None:
    plan = yaml.safe_load(shipped_configs()[name].read_text())
    model, data = plan["model"]["init_args"], plan["data"]["init_args"]
    assert model["resolution"] == data["resolution"]
    small = name == "msg_gan/mnist32"  # whose header tells how it deviates
    assert model["lr"] == (0.001 if small else 0.003) and model.get("betas", (0.0, 0.99)) == (0.0, 0.99)
    with torch.device("meta"):
        gan = MSGGAN(**model)
    assert gan.style_based == (model.get("networks") == "stylegan")
    if not gan.style_based and model["width"] == 512:  # the official decay is 0.999 per step
        kept = ema_weight(data["batch_size"], 10**9, half_life_kimg=plan["ema"]["half_life_kimg"], ramp_up=None)
        assert kept == pytest.approx(0.999, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_train(name: str, tmp_path: Path) -> None:
    model = yaml.safe_load(shipped_configs()[name].read_text())["model"]["init_args"]
    data = "Digits" if model["channels"] == 1 else "Shapes"
    argv = ["--config", f"experiments/{name}.yaml", "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += ["--evaluate.every_kimg=0", "--image_grid.columns=2", "--image_grid.rows=2"]
    argv += ["--model.init_args.width=8", "--model.init_args.resolution=32", "--model.init_args.total_kimg=0.008"]
    argv += [f"--data=lit_gans.data.{data}", "--data.init_args.resolution=32", "--data.init_args.batch_size=4"]
    assert verb.main(argv) == 0
    assert load_run(tmp_path / "run").images_seen == 8
