"""StyleGAN3: what its networks and its training promise beyond the battery and the recorded values."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from lit_gans import fit as verb
from lit_gans.augment import AdaptiveAugment
from lit_gans.convert import convert
from lit_gans.editing.styles import noise_table
from lit_gans.official import read_official
from lit_gans.papers.stylegan3 import Generator, StyleGAN3, from_official_config
from lit_gans.papers.stylegan3 import filtered_lrelu as operators
from lit_gans.papers.stylegan3.filtered_lrelu import filtered_lrelu, plain
from lit_gans.papers.stylegan3.networks import lowpass_filter, modulated, schedule
from lit_gans.papers.stylegan3.training import blurred
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained
from tests.cases import BATCH, CASES, largest_difference, state, train
from tests.official.layout import official_modules, stylegan3_state, tree, written

__all__ = ["official_modules"]

SMALL = {"resolution": 16, "num_layers": 4, "margin_px": 4, "channel_base": 64, "channel_max": 4}


def tiny(**arguments: Any) -> StyleGAN3:
    return CASES["stylegan3-t"](**{"num_classes": 0, **arguments})


def generator(**arguments: Any) -> Generator:
    torch.manual_seed(0)
    return Generator(**{"z_dim": 8, "w_dim": 8, **SMALL, **arguments})


# ---- the filtered nonlinearity ---------------------------------------------------------------------------------------

FORMS: dict[str, tuple[int, int, list[int], tuple[int, ...], tuple[int, ...], float | None]] = {
    "separable": (2, 2, [9, 8, 9, 8], (12,), (12,), None),
    "radial, clamped": (2, 2, [7, 10, 3, 12], (12,), (12, 12), 0.4),
    "up 4, cropped": (4, 2, [-2, -1, -3, 1], (24,), (12,), 0.7),
    "asymmetric": (2, 1, [3, 2, 1, 4], (5,), (3, 3), 1.0),
}


def derivatives(form: Any, case: str, dtype: torch.dtype) -> list[Tensor]:
    """Result, gradients, their gradients, and those of these."""
    up, down, padding, *sizes, clamp = FORMS[case]
    draw = torch.Generator().manual_seed(0)
    x, b = (torch.randn(*s, generator=draw, dtype=dtype).requires_grad_() for s in ((2, 19, 13, 12), (19,)))
    fu, fd = (torch.rand(*s, generator=draw, dtype=dtype) / math.prod(s) for s in sizes)
    y = form(x, fu, fd, b, up=up, down=down, padding=padding, gain=1.7, slope=0.1, clamp=clamp, flip_filter=False)
    weight = torch.randn(y.shape, generator=draw, dtype=dtype).requires_grad_()
    dx, db = torch.autograd.grad((y * weight).sum(), (x, b), create_graph=True)
    (second,) = torch.autograd.grad(dx.square().sum() + db.pow(3).sum(), weight, create_graph=True)
    (third,) = torch.autograd.grad(second.square().sum(), weight)
    return [y, dx, db, second, third]


@pytest.mark.parametrize("together", [2**22, 1])
@pytest.mark.parametrize("case", FORMS)
def test_the_lean_form_is_the_plain_one(case: str, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In derivatives of every order, all channels at once or some after another."""
    monkeypatch.setattr(operators, "_TOGETHER", together)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        for found, expected in zip(*(derivatives(form, case, dtype) for form in (filtered_lrelu, plain)), strict=True):
            assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_lean_form_keeps_a_byte_of_each_sample_between_the_filters() -> None:
    """Twelve taps, twice the rate: 2 * 32 samples a side and what the filters overlap."""
    x, f, kept = torch.randn(2, 16, 32, 32, requires_grad=True), torch.ones(12) / 12, []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        filtered_lrelu(x, f, f, up=2, down=2, padding=9)
    assert sum(kept) < 1.1 * 2 * 16 * (2 * 32 + 18 - 11) ** 2 < x.nbytes * 2


def test_the_operators_are_registered_as_torch_wants_them() -> None:
    x, b, f = torch.randn(1, 3, 8, 8), torch.randn(3), torch.rand(6)
    given = (x, b, f, f, 2, 2, [3, 3, 3, 3], 1.0, 0.2, 0.5, True)
    y, mask = operators._filtered_lrelu(*given)
    assert mask.dtype == torch.int8 and {*mask.unique().tolist()} == {0, 1, 2}
    back = (y, mask, f, f, 2, 2, [5, 5, 5, 5], [2, 1, 2, 1], 1.0, 0.2)
    for operator, arguments in ((operators._filtered_lrelu, given), (operators._filtered_scale, back)):
        torch.library.opcheck(operator, arguments, test_utils=["test_schema", "test_faketensor"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": -8}, r"smaller than the filter \(12, 12\): pad more"),
        ({"clamp": -1}, "clamp -1 is negative"),
        ({"padding": [1, 2, 3]}, r"padding \[1, 2, 3\] has 3 numbers"),
    ],
)
def test_bad_geometry(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filtered_lrelu(torch.ones(1, 2, 8, 8), torch.ones(12), torch.ones(12), up=2, down=2, **arguments)


# ---- filters and layers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radial", [False, True])
def test_a_filter_passes_its_band_and_stops_what_lies_beyond(radial: bool) -> None:
    f = lowpass_filter(48, cutoff=4.0, width=4.0, rate=64.0, radial=radial)
    response = torch.fft.rfft(f.sum(0) if radial else f, 640).abs()  # in tenths of a cycle
    assert (response[:20] - 1).abs().max() < 0.01 and response[61:].max() < 0.01
    assert response[40] == pytest.approx(0.5, abs=0.05)
    if radial:
        assert torch.equal(f, f.T) and torch.allclose(f, f.flip(0), atol=1e-7)


def test_the_last_layers_alone_are_critical() -> None:
    signals = schedule(256, channels=3)
    assert [s.critical for s in signals] == [False] * 12 + [True] * 3
    for s in signals:
        assert s.critical == (s.cutoff == s.sampling_rate / 2) and s.cutoff <= s.sampling_rate / 2
        assert s.size == (256 if s.cutoff == 128 and s is not signals[12] else s.sampling_rate + 20)


# ---- networks --------------------------------------------------------------------------------------------------------


def shifted(g: Generator, ws: Tensor, x: float, y: float) -> Tensor:
    transform = g.synthesis.input.transform
    transform.copy_(torch.eye(3))
    transform[:2, 2] = -torch.tensor([x, y])
    return g.synthesis(ws)


def test_a_shift_of_the_features_shifts_the_picture() -> None:
    """By two pixels to the right and one up, but for the filters' reach at the borders."""
    g = generator(resolution=32, channel_max=8, margin_px=10).eval()
    with torch.no_grad():
        ws = g.mapping(torch.randn(2, 8))
        still, moved = shifted(g, ws, 0, 0), shifted(g, ws, 2 / 32, -1 / 32)
    difference = moved[..., 8:-8, 8:-8] - still[..., 9:-7, 6:-10]
    assert difference.abs().max() < 0.01 * still.abs().max() < (moved - still).abs().max()


def test_r_turns_by_quarters() -> None:
    g = generator(resolution=32, margin_px=10, conv_kernel=1, radial_filters=True, channel_max=8).eval()
    with torch.no_grad():
        ws = g.mapping(torch.randn(2, 8))
        still = g.synthesis(ws)
        g.synthesis.input.transform.copy_(torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
        turned = g.synthesis(ws)
    assert torch.allclose(turned, still.rot90(-1, (2, 3)), atol=0.02 * still.abs().max().item())
    assert not torch.allclose(turned, still, atol=0.1 * still.abs().max().item())


@pytest.mark.slow
def test_frequencies_fill_a_disc_evenly() -> None:
    radii = generator(channel_base=2**20, channel_max=4096).synthesis.input.freqs.norm(dim=1)
    shares = radii.square() / 4  # of the disc of radius 2 within each
    assert shares.max() < 1 and (shares.sort().values - torch.linspace(0, 1, len(shares))).abs().max() < 0.05


def test_the_input_gain_is_not_demodulated_away_and_samples_are_apart() -> None:
    x, w, s, gain = torch.randn(2, 5, 6, 6), torch.randn(4, 5, 3, 3), torch.randn(2, 5), torch.tensor(0.5)
    y = modulated(x, w, s, gain=torch.ones(()))
    assert torch.allclose(modulated(x, w, s, gain=gain), y / 2, atol=1e-6)
    assert torch.allclose(modulated(x, 100 * w, s * torch.tensor([[3.0], [7.0]]), gain=torch.ones(())), y, atol=1e-4)
    assert torch.allclose(modulated(x[:1], w, s[:1], gain=gain), y[:1] / 2, atol=1e-6)


@pytest.mark.parametrize("half_dtype", ["float16", "bfloat16"])
def test_half_precision_is_near_full(half_dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gans.papers.stylegan2.networks.has_fast_half", lambda device: True)
    g = generator(resolution=32, num_half_res=1, half_dtype=half_dtype, channel_max=8)
    seen: list[torch.dtype] = []
    for layer in g.synthesis.layers:
        layer.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    z = torch.randn(4, 8)
    image, full = g(z), g(z, force_fp32=True)
    dtypes = [torch.float32 if layer.half is None else getattr(torch, half_dtype) for layer in g.synthesis.layers]
    assert seen == [*dtypes, *[torch.float32] * len(dtypes)] and len({*dtypes}) == 2
    tolerance = {"float16": 0.01, "bfloat16": 0.1}[half_dtype] * full.abs().max().item()
    assert torch.allclose(image, full, atol=tolerance) and not torch.equal(image, full) and image.dtype == torch.float32


# ---- training --------------------------------------------------------------------------------------------------------


def test_averages_move_once_a_step_whatever_the_parts(tmp_path: Path) -> None:
    whole = tiny(mbstd_channels=0, r1_interval=2)
    parts = tiny(mbstd_channels=0, r1_interval=2, micro_batches=4)
    before = whole.generator.synthesis.layers[2].magnitude_ema.clone()
    one = state(whole, train(whole, tmp_path / "a", batches=3))["state"]
    two = state(parts, train(parts, tmp_path / "b", batches=3))["state"]
    assert one["generator.mapping.w_avg"].abs().max() > 0
    assert one["generator.synthesis.layers.2.magnitude_ema"] != before
    assert one["generator_ema.synthesis.layers.2.magnitude_ema"] == one["generator.synthesis.layers.2.magnitude_ema"]
    for name, tensor in one.items():
        assert largest_difference(tensor, two[name]) <= 1e-5 * max(1.0, tensor.abs().max().item()), name


def test_magnitudes_halve_their_distance_in_twenty_kimg() -> None:
    gan, layers = tiny(), 5
    gan.move_averages(torch.cat([torch.ones(8), torch.full((layers,), 3.0)]), images=20_000)
    assert [layer.magnitude_ema.item() for layer in gan.generator.synthesis.layers] == pytest.approx([2.0] * layers)
    assert torch.allclose(gan.generator.mapping.w_avg, torch.full((8,), 0.002))


class Doubled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * images


def test_all_that_is_judged_is_blurred_at_first(tmp_path: Path) -> None:
    gan, seen = tiny(blur_sigma=1.0, blur_kimg=2 * BATCH / 1000, r1_interval=1, augment=Doubled()), []
    gan.discriminator.register_forward_pre_hook(lambda module, args: seen.append((gan.sigma, args[0].detach())))
    real = torch.ones(2, 1, 16, 16)
    assert torch.allclose(gan.seen(real), 2 * blurred(real, 1.0)) and gan.seen(real)[0, 0, 0, 0] < 1.5
    train(gan, tmp_path, batches=3)
    assert [sigma for sigma, _ in seen] == [1.0] * 3 + [0.5] * 3 + [0.0] * 3  # R1 calls `forward`, which has no hooks
    assert gan.r1_penalty(real, None) > 0


def test_real_logits_of_both_steps_are_observed_and_sampling_needs_no_augment(tmp_path: Path) -> None:
    gan = tiny(augment=AdaptiveAugment(p=0.25, xflip=1, brightness=1), r1_interval=2)
    train(gan, tmp_path, batches=3)
    signs, count = gan.augment.take_observed()
    assert count == (3 + 2) * BATCH and -count <= signs <= count
    again = load_run(tmp_path)
    assert again.augment is None and torch.equal(again.sample([1, 2]), gan.sample([1, 2]))


# ---- released files --------------------------------------------------------------------------------------------------

BUFFERS = ("freqs", "phases", "transform", "w_avg", "magnitude_ema", "up_filter", "down_filter")


def test_a_released_pickle_goes_both_ways(tmp_path: Path, official_modules: None) -> None:
    config = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3, "num_layers": 4}
    config |= {"mapping_kwargs": {"num_layers": 2}, "margin_size": 4, "channel_base": 64, "channel_max": 4}
    config |= {"magnitude_ema_beta": 0.99, "conv_kernel": 1, "use_radial_filters": True, "num_fp16_res": 4}
    network = generator(conv_kernel=1, radial_filters=True)
    network.mapping.w_avg.normal_()
    official = stylegan3_state(network)
    contents = {"G_ema": tree("Generator", official, buffers=BUFFERS.__contains__, arguments=config)}
    convert(written(tmp_path / "official.pkl", contents), tmp_path / "ours")
    z = torch.randn(2, 8)
    assert torch.allclose(from_pretrained(tmp_path / "ours")(z, psi=0.5), network(z, psi=0.5), atol=1e-5)
    assert isinstance(gan := load_run(tmp_path / "ours"), StyleGAN3) and gan.sample([1]).shape == (1, 3, 16, 16)
    convert(tmp_path / "ours", tmp_path / "again.pkl", to="official")
    first, second = (read_official(tmp_path / f"{name}.pkl").networks["G_ema"] for name in ("official", "again"))
    assert list(second.state) == list(first.state) and second.fingerprint == first.fingerprint
    assert second.buffers == first.buffers and second.init_kwargs == first.init_kwargs


# ---- sampling, bad input, experiments --------------------------------------------------------------------------------


def test_styles_and_synthesis_are_the_two_halves_of_a_sample() -> None:
    gan = tiny(num_classes=3)
    gan.generator_ema.mapping.w_avg.fill_(0.5)
    z, labels = gan.seeded_latents(range(3)), torch.tensor([0, 1, 2])
    ws = gan.styles(z, labels=labels, psi=0.5).requires_grad_()
    image = gan.synthesize(ws)
    assert torch.allclose(image.clamp(-1, 1), gan.generate(z, labels=labels, psi=0.5), atol=1e-6)
    assert torch.autograd.grad(image.square().sum(), ws)[0].abs().max() > 0
    average = gan.generate(z, labels=labels, psi=0)
    assert torch.allclose(average[0], average[2], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [{}, {"conv_kernel": 1, "radial_filters": True}], ids=["t", "r"])
def test_a_generator_is_exported(shape: dict[str, Any]) -> None:
    """By torch.export, for any number of images."""
    torch.manual_seed(0)
    network = Generator(resolution=16, z_dim=8, w_dim=8, num_layers=3, channel_base=64, channel_max=4, **shape)
    network.eval().requires_grad_(False)
    program = torch.export.export(network, (torch.randn(3, 8),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    z = torch.randn(5, 8)
    assert torch.allclose(program.module()(z), network(z), atol=1e-5)


def test_a_generator_alone_is_a_model() -> None:
    network = generator(channels=1, c_dim=3)
    gan = StyleGAN3.from_generator(network)
    assert (gan.resolution, gan.channels, gan.num_classes, gan.z_dim) == (16, 1, 3, 8)
    z = gan.seeded_latents([5])
    expected = network(z, torch.tensor([1])).clamp(-1, 1)
    assert torch.allclose(gan.sample([5], labels=torch.tensor([1])), expected, atol=1e-6)


def test_without_noise_there_is_no_table_of_it() -> None:
    with pytest.raises(ValueError, match="needs layers with noise, and a StyleGAN3 has none"):
        noise_table(tiny(), [0, 1])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedule(48, channels=3), "resolution 48 is not a power of two.*use 16, 32"),
        (lambda: schedule(32, channels=3, num_layers=2), "num_critical 2 of num_layers 2: some layers must come"),
        (lambda: generator(conv_kernel=2), "conv_kernel 2 must be odd"),
        (lambda: generator(half_dtype="fp16"), "half_dtype 'fp16' is not one of"),
        (lambda: tiny(configuration="S"), "configuration 'S' is not one of T, R"),
        (lambda: tiny(r1_interval=0), "r1_interval 0 must be 1 or more"),
        (lambda: tiny(blur_sigma=1, blur_kimg=0), "blur_kimg 0 be positive"),
        (lambda: generator(c_dim=3)(torch.randn(2, 8)), "conditional: give labels"),
        (lambda: from_official_config({"img_size": 8}), "'img_size' is no argument"),
        (lambda: from_official_config({"mapping_kwargs": {"freeze_layers": 1}}), "freeze_layers is 1.* 0 alone"),
    ],
)
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shapes32", "t_ffhqu256", "r_afhqv2_512"])
def test_experiments_train(name: str, tmp_path: Path) -> None:
    plan = yaml.safe_load(shipped_configs()[f"stylegan3/{name}"].read_text())
    argv = ["--config", f"experiments/stylegan3/{name}.yaml", "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += ["--evaluate.every_kimg=0", "--image_grid.columns=2", "--image_grid.rows=2"]
    argv += ["--model.init_args.channel_max=4", "--model.init_args.total_kimg=0.008", "--data=lit_gans.data.Shapes"]
    argv += [f"--data.init_args.resolution={plan['data']['init_args']['resolution']}", "--data.init_args.batch_size=4"]
    assert verb.main(argv) == 0
    assert load_run(tmp_path / "run").images_seen == 8
