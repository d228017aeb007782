import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lit_gans.adversarial.priors import Normal, Prior, Uniform
from lit_gans.base.interpolation import lerp, slerp, spherical
from lit_gans.metrics import path_length as ppl
from lit_gans.metrics.path_length import PathLength, measure_path_length, path_distances, path_length
from lit_gans.metrics.sources import FromLatents, HasStyles
from tests.distributed.launch import run_processes

from .common import conditional, unconditional

Z = 4


class LinearGAN:
    """Images of 8 px that are a fixed isometry of z, in float64: distances are those of the latents."""

    num_classes = 0
    device = torch.device("cpu")

    def __init__(self, *, prior: Prior | None = None, normalise: bool = False, side: int = 8) -> None:
        self.prior, self.normalise, self.side = prior or Normal(), normalise, side
        noise = torch.randn(side**2, Z, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.weight = torch.linalg.qr(noise).Q
        self.batches: list[int] = []
        self.labels: list[Tensor] = []

    def seeded_latents(self, seeds: Tensor) -> Tensor:
        rows = [torch.randn(Z, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds.tolist()]
        return torch.stack(rows)

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        self.batches.append(len(z))
        z = z / z.square().mean(dim=1, keepdim=True).sqrt() if self.normalise else z
        images = psi * (z if ema else 2 * z) @ self.weight.T
        if labels is not None:
            self.labels.append(labels)
            images = images * (1 + labels[:, None])
        return images.view(-1, 1, self.side, self.side)


class StyledGAN(LinearGAN):
    """ws [N, 2, Z]: z and -2 z; the image is that of their sum."""

    def styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return psi * torch.stack([z, -2 * z], dim=1)

    def synthesize(self, ws: Tensor, *, ema: bool = True) -> Tensor:
        return self.generate(ws.sum(dim=1), ema=ema)


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).sum(dim=1)


def ends(gan: LinearGAN, index: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    return tuple(gan.seeded_latents(seed * 10**9 + 2 * index + side) for side in (0, 1))


INDEX = torch.arange(9)


def test_fakes_are_what_the_protocols_ask_for_and_so_are_our_models() -> None:
    assert isinstance(LinearGAN(), FromLatents) and isinstance(unconditional(), FromLatents)
    assert isinstance(StyledGAN(), HasStyles)
    assert not isinstance(LinearGAN(), HasStyles) and not isinstance(unconditional(), HasStyles)


@pytest.mark.parametrize("sampling", ["full", "end"])
def test_straight_paths_of_a_linear_generator_have_the_length_of_their_ends(sampling: str) -> None:
    z0, z1 = ends(LinearGAN(), INDEX)
    cube = path_distances(LinearGAN(prior=Uniform()), squared, INDEX, sampling=sampling)
    asked = path_distances(LinearGAN(), squared, INDEX, sampling=sampling, interpolation=lerp)
    styles = path_distances(StyledGAN(), squared, INDEX, sampling=sampling, space="w")
    for found in (cube, asked, styles):
        assert found.dtype == torch.float64
        assert torch.allclose(found, (z1 - z0).square().sum(dim=1), rtol=1e-8)


@pytest.mark.parametrize("epsilon", [1e-4, 0.1])
def test_paths_on_the_sphere_are_arcs_cut_into_chords(epsilon: float) -> None:
    z0, z1 = (z / z.norm(dim=1, keepdim=True) for z in ends(LinearGAN(), INDEX))
    omega = (z0 * z1).sum(dim=1).acos()
    chords = (2 * math.sqrt(Z) * torch.sin(epsilon * omega / 2) / epsilon) ** 2
    for sampling in ("full", "end"):
        found = path_distances(LinearGAN(), squared, INDEX, epsilon=epsilon, sampling=sampling)
        assert torch.allclose(found, chords, rtol=1e-7)


def test_unit_vectors_give_the_same_where_the_generator_normalises() -> None:
    ours = path_distances(LinearGAN(normalise=True), squared, INDEX)
    official = path_distances(LinearGAN(normalise=True), squared, INDEX, interpolation=slerp)
    assert torch.allclose(ours, official, rtol=1e-6)
    unlike = path_distances(LinearGAN(), squared, INDEX, interpolation=slerp)
    assert torch.allclose(Z * unlike, ours, rtol=1e-6)


def test_t_is_uniform_or_zero() -> None:
    def where(gan: LinearGAN, sampling: str) -> Tensor:
        seen = []
        path_distances(
            gan, squared, torch.arange(400), sampling=sampling, interpolation=lambda a, b, t: seen.append(t) or a
        )
        start, end = seen[0].chunk(2)
        assert torch.allclose(end - start, torch.full_like(start, 1e-4), rtol=1e-9)
        return start

    full = where(LinearGAN(), "full").flatten().sort().values
    assert (full - (torch.arange(400) + 0.5) / 400).abs().max() < 0.068  # Kolmogorov-Smirnov, 5 %
    assert not where(LinearGAN(), "end").any()


def test_full_and_end_differ_where_the_generator_bends() -> None:
    def bent(a: Tensor, b: Tensor) -> Tensor:
        return squared(a**3, b**3)

    full, end = (path_distances(LinearGAN(), bent, INDEX, sampling=sampling) for sampling in ("full", "end"))
    assert torch.isclose(full, end, rtol=0.01).sum() <= 1  # it bends back in places


def test_batches_and_the_order_of_paths_do_not_matter() -> None:
    gans = [LinearGAN() for _ in range(4)]
    sizes = (3, 7, 50, 64)
    values = [
        measure_path_length(g, squared, num_samples=50, batch_size=b).item() for g, b in zip(gans, sizes, strict=True)
    ]
    assert values == pytest.approx([values[0]] * 4, rel=1e-9)
    assert [set(gan.batches) for gan in gans] == [{6}, {14}, {100}, {100}]
    z0, z1 = ends(LinearGAN(), torch.arange(50), seed=3)
    found = measure_path_length(LinearGAN(prior=Uniform()), squared, num_samples=50, batch_size=8, seed=3)
    lengths = (z1 - z0).square().sum(dim=1)  # of 50, the percentiles 1 and 99 reject none
    assert found.item() == pytest.approx(lengths.mean().item(), rel=1e-8)


def test_both_ends_of_a_step_are_in_one_batch_with_one_label() -> None:
    gan = LinearGAN()
    gan.num_classes = 5
    drawn = path_distances(gan, squared, torch.arange(40))
    assert gan.batches == [80] and torch.equal(gan.labels[0][:40], gan.labels[0][40:])
    assert gan.labels[0].unique().tolist() == [0, 1, 2, 3, 4]
    parts = [path_distances(gan, squared, part) for part in torch.arange(40).split(7)]
    assert torch.allclose(torch.cat(parts), drawn, rtol=1e-9)
    zero = path_distances(gan, squared, torch.arange(40), labels=torch.zeros(40, dtype=torch.int64))
    assert torch.allclose(zero * (1 + gan.labels[0][:40]) ** 2, drawn, rtol=1e-6)


def test_psi_ema_and_seed_are_passed_on() -> None:
    base = path_distances(LinearGAN(), squared, INDEX)
    assert torch.allclose(path_distances(LinearGAN(), squared, INDEX, psi=0.5), base / 4, rtol=1e-6)
    assert torch.allclose(path_distances(LinearGAN(), squared, INDEX, ema=False), base * 4, rtol=1e-6)
    assert not torch.isclose(path_distances(LinearGAN(), squared, INDEX, seed=1), base, rtol=1e-3).any()


@pytest.mark.parametrize("gan", [unconditional, conditional])
def test_our_models_have_one(gan) -> None:
    model = gan().train()
    before = torch.get_rng_state()
    values = [measure_path_length(model, squared, num_samples=20, batch_size=b).item() for b in (20, 6)]
    assert values[0] > 0 and values == pytest.approx([values[0]] * 2, rel=2e-3)  # float32 networks, magnified
    assert model.training and all(part.training for part in model.modules())
    assert torch.equal(torch.get_rng_state(), before)


def test_rejection_is_numpys_and_keeps_its_bounds() -> None:
    for n in (1, 2, 57, 101, 400, 1001):
        x = torch.randn(n, generator=torch.Generator().manual_seed(n)).exp()
        low, high = np.percentile(x, 1, method="lower"), np.percentile(x, 99, method="higher")
        kept = [value for value in x.tolist() if low <= value <= high]
        assert path_length(x).item() == pytest.approx(sum(kept) / len(kept), rel=1e-12)
        assert [bound.item() for bound in ppl.rejection_bounds(x)] == [low, high]
    assert path_length(torch.tensor([0.0, 1.0, 8.0]), lower=0, upper=100) == 3
    assert path_length(torch.cat([torch.ones(398), torch.tensor([-1e6, 1e9])])) == 1


def test_metric_is_in_the_order_of_the_index_however_it_is_split() -> None:
    x = torch.randn(101).exp()
    whole, gathered = PathLength(), PathLength()
    whole.update(x)
    for rank in (1, 0):
        gathered.update(torch.empty(0))
        gathered.update(x[rank::2], torch.arange(rank, 101, 2))
    assert gathered.compute() == whole.compute() == path_length(x)
    assert whole.compute().dtype == torch.float64


def test_slerp_walks_the_great_circle_at_constant_speed() -> None:
    a, b = (torch.randn(5, 7, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    angle = torch.cosine_similarity(a, b).acos()
    for t in (0.0, 0.3, 1.0):
        found = slerp(a, b, torch.full((5, 1), t))
        assert torch.allclose(found.norm(dim=1), torch.ones(5).double())
        assert torch.allclose(torch.cosine_similarity(a, found).clamp(max=1).acos(), t * angle, atol=1e-7)
    assert torch.allclose(found, nn.functional.normalize(b))
    assert torch.allclose(slerp(a, 3 * a, torch.full((5, 1), 0.4)), nn.functional.normalize(a))
    assert slerp(a, -a, torch.full((5, 1), 0.4)).isfinite().all()
    assert torch.allclose(spherical(a, b, torch.tensor(0.2)).square().mean(dim=1), torch.ones(5).double())


def test_crop_and_shrink() -> None:
    image = torch.arange(64.0).view(1, 1, 8, 8)
    assert ppl.crop_face(image)[0, 0, :, 0].tolist() == [26, 34, 42, 50]
    assert ppl.crop_face(image)[0, 0, 0].tolist() == [26, 27, 28, 29]
    large = torch.rand(1, 2, 1024, 1024)
    assert torch.allclose(ppl.shrink(large), large.view(1, 2, 256, 4, 256, 4).mean(dim=(3, 5)), atol=1e-6)
    assert ppl.shrink(ppl.crop_face(large)).shape[-1] == 256
    assert ppl.shrink(large[..., :511, :511]).shape[-1] == 511
    sizes = []
    path_distances(LinearGAN(side=512), lambda a, b: sizes.append(a.shape) or squared(a, b), INDEX[:2])
    path_distances(LinearGAN(), lambda a, b: sizes.append(a.shape) or squared(a, b), INDEX[:2], crop=True)
    assert sizes == [(2, 1, 256, 256), (2, 1, 4, 4)]


def test_equals_torch_fidelity_where_that_means_the_same() -> None:
    """Its slerp weighs the ends by their lengths, so that "unit" is StyleGAN's only for ends of one length."""
    noise = pytest.importorskip("torch_fidelity.noise")
    generator, t = torch.Generator().manual_seed(0), torch.tensor(0.3, dtype=torch.float64)
    a, b = (nn.functional.normalize(torch.randn(6, 5, generator=generator).double()) for _ in range(2))
    assert torch.allclose(noise.batch_slerp_unit(a, b, 0.3), slerp(a, b, t), atol=1e-9)
    assert torch.allclose(noise.batch_slerp_any(a, b, 0.3), slerp(a, b, t), atol=1e-9)
    assert torch.allclose(slerp(5 * a, b, t), slerp(a, b, t), atol=1e-9)
    assert not torch.allclose(noise.batch_slerp_unit(5 * a, b, 0.3), slerp(5 * a, b, t), atol=1e-2)
    assert torch.allclose(noise.batch_lerp(a, b, 0.3), lerp(a, b, t), atol=1e-12)


def test_equals_torch_fidelitys_whole_measurement() -> None:
    fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_ppl import calculate_ppl
    from torch_fidelity.registry import SAMPLE_SIMILARITY_REGISTRY

    class Squared(fidelity.SampleSimilarityBase):
        def __init__(self, name: str, **_) -> None:
            super().__init__(name)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return squared(a, b)

    class Module(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return LinearGAN().generate(z.double())

    class SameLatents(LinearGAN):
        def seeded_latents(self, seeds: Tensor) -> Tensor:
            rng = np.random.RandomState(7)
            both = torch.from_numpy(np.stack([rng.randn(30, Z) for _ in range(2)], axis=1)).float()
            return both.reshape(-1, Z).double()[seeds]

    SAMPLE_SIMILARITY_REGISTRY["squared"] = Squared
    try:
        official = calculate_ppl(
            1, input1=fidelity.GenerativeModelModuleWrapper(Module(), Z, "normal", 0), input1_model_num_samples=30,
            cuda=False, batch_size=8, verbose=False, rng_seed=7, ppl_epsilon=1e-2, ppl_z_interp_mode="lerp",
            ppl_sample_similarity="squared", ppl_reduction="none", ppl_discard_percentile_lower=None,
            ppl_discard_percentile_higher=None,
        )  # fmt: skip
    finally:
        del SAMPLE_SIMILARITY_REGISTRY["squared"]
    settings = {"sampling": "end", "epsilon": 1e-2, "interpolation": lerp}
    ours = path_distances(SameLatents(), squared, torch.arange(30), **settings)
    assert torch.allclose(ours, torch.from_numpy(official[fidelity.KEY_METRIC_PPL_RAW]).double(), rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "w"}, "space 'w' needs a style-based generator, .*LinearGAN has no W: use space 'z'"),
        ({"space": "s"}, "space 's' is neither 'z' nor 'w'"),
        ({"sampling": "half"}, "sampling 'half' is neither 'full'"),
        ({"epsilon": 0.0}, "epsilon 0.0 is not positive"),
        ({"labels": torch.zeros(9)}, "this model is unconditional"),
        ({"distance": lambda a, b: squared(a, b).mean()}, r"the distance of 9 pairs has shape \[\], expected \[9\]"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings: dict, message: str) -> None:
    distance = settings.pop("distance", squared)
    with pytest.raises(ValueError, match=message):
        path_distances(LinearGAN(), distance, INDEX, **settings)


def test_bad_numbers_are_refused() -> None:
    gan = LinearGAN()
    gan.num_classes = 2
    with pytest.raises(ValueError, match="3 labels for 9 paths"):
        path_distances(gan, squared, INDEX, labels=torch.zeros(3))
    with pytest.raises(ValueError, match="8 labels for 9 paths"):
        measure_path_length(gan, squared, num_samples=9, labels=torch.zeros(8))
    with pytest.raises(ValueError, match="num_samples 0 and batch_size 32; both must be 1 or more"):
        measure_path_length(gan, squared, num_samples=0)
    with pytest.raises(ValueError, match="one distance or more, got none"):
        path_length(torch.empty(0))
    with pytest.raises(ValueError, match="2 of 3 distances are not finite"):
        path_length(torch.tensor([math.nan, math.inf, 1.0]))
    with pytest.raises(ValueError, match="percentiles 99 and 1"):
        path_length(torch.ones(3), lower=99, upper=1)
    with pytest.raises(ValueError, match="images of 8 x 9 px cannot be cropped"):
        ppl.crop_face(torch.zeros(1, 1, 8, 9))


def lengths(gan, **ranks: int) -> list[float]:
    return [measure_path_length(gan, squared, num_samples=n, batch_size=4, **ranks).item() for n in (2, 31)]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_find_what_one_finds(world: int) -> None:
    outputs = run_processes(world, ["-m", "tests.metrics.test_path_length"])
    expected = lengths(LinearGAN()) + lengths(unconditional())
    for output in outputs:
        assert [float(x) for x in output.splitlines()[-1].split()] == pytest.approx(expected, rel=1e-6)


if __name__ == "__main__":  # one of those processes
    dist.init_process_group("gloo")
    ranks = {"rank": dist.get_rank(), "world": dist.get_world_size()}
    print(*lengths(LinearGAN(), **ranks), *lengths(unconditional(), **ranks))
    dist.destroy_process_group()
