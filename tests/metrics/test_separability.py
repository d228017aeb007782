import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lit_gans.adversarial.priors import Normal
from lit_gans.metrics import separability as separable
from lit_gans.metrics.separability import (
    LinearSeparability,
    conditional_entropy,
    keep_confident,
    labelled_latents,
    measure_separability,
    separability,
)
from tests.distributed.launch import run_processes

from .common import conditional, unconditional


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_is_one_where_planes_tell_everything() -> None:
    latents = draw(600, 5)
    score, entropies = separability(latents, latents @ draw(5, 3, seed=1))  # the kept half has a margin
    assert (score.item(), entropies.tolist()) == (1.0, [0.0, 0.0, 0.0])
    assert score.dtype == entropies.dtype == torch.float64


def test_of_chance_is_two_to_the_number_of_attributes() -> None:
    latents, logits = draw(8000, 2), draw(8000, 3, seed=1)
    score, entropies = separability(latents, logits)
    assert (entropies < math.log(2)).all()
    assert score.item() == pytest.approx(2**3, rel=0.01)
    assert score.item() == pytest.approx(math.exp(entropies.sum().item()), rel=1e-12)


def test_a_plane_does_not_tell_the_inside_of_a_ball() -> None:
    latents = draw(4000, 2)
    inside = 1.0 - latents.square().sum(dim=1)
    along = latents[:, 0]
    _, entropies = separability(latents, torch.stack([along, inside], dim=1))
    assert entropies[0] == 0 and entropies[1] > 0.4


@pytest.mark.parametrize("positive", [0.1, 0.5, 0.9])
def test_conditional_entropy_is_what_the_prediction_leaves_open(positive: float) -> None:
    stats, metrics = pytest.importorskip("scipy.stats"), pytest.importorskip("sklearn.metrics")
    labels = torch.rand(500, generator=torch.Generator().manual_seed(0)) < positive
    predicted = labels ^ (draw(500) > 0.8)
    whole = stats.entropy(np.bincount(labels))
    expected = whole - metrics.mutual_info_score(labels, predicted)
    assert conditional_entropy(predicted, labels).item() == pytest.approx(expected, rel=1e-9)
    constant = torch.ones(500, dtype=torch.bool)
    assert conditional_entropy(constant, labels).item() == pytest.approx(whole, rel=1e-12)
    for perfect in (labels, ~labels):
        assert conditional_entropy(perfect, labels) == 0
    bits = conditional_entropy(predicted, labels).item() / math.log(2)
    assert 2**bits == pytest.approx(math.exp(expected), rel=1e-9)


def test_the_surest_are_kept_on_both_sides() -> None:
    logits = torch.tensor([0.1, -5.0, 3.0, -0.2, 90.0, -80.0])
    assert keep_confident(logits).tolist() == [1, 4, 5]
    assert keep_confident(logits, share=1.0).tolist() == list(range(6))
    assert keep_confident(logits, share=1e-9).tolist() == [4]
    assert keep_confident(torch.ones(5), share=0.6).tolist() == [0, 1, 2]
    assert len(keep_confident(draw(201), share=0.29)) == 58


def test_unsure_images_do_not_count() -> None:
    latents = draw(400, 3)
    latents[:, 0] += latents[:, 0].sign()  # a margin
    logits = latents[:, 0].sign() * torch.where(torch.arange(400) % 2 == 0, 5.0, -0.1)  # odd ones are labelled wrongly
    assert separability(latents, logits[:, None])[0] == 1
    assert separability(latents, logits[:, None], share=1.0)[0] > 1.9


def test_the_plane_is_liblinears_and_draws_nothing() -> None:
    svm = pytest.importorskip("sklearn.svm")
    latents, labels = draw(300, 4), draw(300, seed=1) + draw(300, 4)[:, 0] > 0
    before = np.random.get_state()[1].copy()
    found = separable.predict_by_plane(latents, labels)
    assert torch.equal(found, separable.predict_by_plane(latents, labels))
    assert (np.random.get_state()[1] == before).all()
    by_default = svm.LinearSVC(dual=True, max_iter=100_000, random_state=0).fit(latents.numpy(), labels.numpy())
    assert (found.numpy() == by_default.predict(latents.numpy())).mean() > 0.99
    assert (found == labels).double().mean() > 0.6


def test_an_attribute_of_one_kind_counts_nothing_and_is_named() -> None:
    latents = draw(60, 3)
    logits = torch.stack([latents[:, 0], torch.full((60,), -2.0)], dim=1)
    with pytest.warns(UserWarning, match="attribute 1: 0 of the 30 surest images have it"):
        score, entropies = separability(latents, logits)
    assert score == 1 and entropies.tolist() == [0, 0]


def test_order_and_splits_over_processes_do_not_matter() -> None:
    latents = draw(301, 4)
    logits = latents @ draw(4, 2, seed=1) + draw(301, 2, seed=2)
    whole, gathered, shuffled = (LinearSeparability(4, 2) for _ in range(3))
    whole.update(latents, logits)
    for rank in (1, 0):
        gathered.update(torch.empty(0, 4), torch.empty(0, 2))
        gathered.update(latents[rank::2], logits[rank::2], torch.arange(rank, 301, 2))
    for rows in torch.randperm(301, generator=torch.Generator().manual_seed(0)).split(40):
        shuffled.update(latents[rows], logits[rows], rows)
    score, entropies = separability(latents, logits)
    assert 1 < score < 4
    for metric in (whole, gathered, shuffled):
        found = metric.compute()
        assert found[0] == score and torch.equal(found[1], entropies)


def bright(images: Tensor) -> Tensor:
    return images.double().mean(dim=(1, 2, 3)) - 127


def left(images: Tensor) -> Tensor:
    columns = images.double().mean(dim=(1, 2))
    return columns[:, :4].sum(dim=1) - columns[:, 4:].sum(dim=1)


CLASSIFIERS: dict[str, Callable[[Tensor], Tensor]] = {"bright": bright, "left": left}


class Corner:
    """Images whose left half is as bright as z_0, and whose right half is as z_1; w is z thrice, image from the sum."""

    num_classes, prior, device = 0, Normal(), torch.device("cpu")

    def seeded_latents(self, seeds: Tensor) -> Tensor:
        return torch.cat([draw(1, 3, seed=seed) for seed in seeds.tolist()])

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        halves = (z[:, :2] / 4).repeat_interleave(4, dim=1)
        return halves[:, None, None].expand(-1, 1, 8, -1)

    def styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return torch.stack([z, 2 * z, -z], dim=1)

    def synthesize(self, ws: Tensor, *, ema: bool = True) -> Tensor:
        return self.generate(ws.sum(dim=1))


def test_rows_are_those_of_the_samples() -> None:
    gan, index = Corner(), torch.arange(5)
    z = gan.seeded_latents(3 * 10**9 + index)
    latents, logits = labelled_latents(gan, CLASSIFIERS, index, seed=3)
    assert torch.equal(latents, z) and logits.shape == (5, 2)
    assert torch.equal(logits[:, 1] > 0, z[:, 0] > z[:, 1])
    styles, of_styles = labelled_latents(gan, CLASSIFIERS, index, seed=3, space="w")
    assert torch.equal(styles, -z) and torch.equal(of_styles[:, 1] > 0, logits[:, 1] > 0)


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_generator_with_one_direction_for_each_attribute_is_separable(space: str) -> None:
    settings = {"num_samples": 200, "space": space}
    score, entropies = measure_separability(Corner(), CLASSIFIERS, batch_size=64, **settings)
    assert score.item() == pytest.approx(1, abs=1e-12) and list(entropies) == ["bright", "left"]
    assert measure_separability(Corner(), CLASSIFIERS, batch_size=7, **settings) == (score, entropies)


def test_our_models_have_one() -> None:
    for gan in (unconditional(), conditional()):
        score, entropies = measure_separability(gan, {"left": left}, num_samples=40, batch_size=16)
        assert 1 <= score <= 2 and score == entropies["left"].exp()
    index = torch.arange(12)
    by_default = labelled_latents(conditional(), {"left": left}, index)[1]
    assert torch.equal(by_default, labelled_latents(conditional(), {"left": left}, index, labels=index % 10)[1])
    assert not torch.equal(by_default, labelled_latents(conditional(), {"left": left}, index, labels=0 * index)[1])


def test_what_cannot_be_measured_is_refused() -> None:
    index = torch.arange(4)
    with pytest.raises(ValueError, match="no attribute classifiers were given"):
        labelled_latents(Corner(), {}, index)
    with pytest.raises(ValueError, match="space 'w' needs a style-based generator"):
        labelled_latents(unconditional(), CLASSIFIERS, index, space="w")
    with pytest.raises(ValueError, match=r"classifier 'flat' gives \[4, 1\] for 4 images, expected \[4\]"):
        labelled_latents(Corner(), {"flat": lambda images: bright(images)[:, None]}, index)
    with pytest.raises(ValueError, match="this model is unconditional"):
        labelled_latents(Corner(), CLASSIFIERS, index, labels=index)
    with pytest.raises(ValueError, match="2 labels for 4 samples"):
        labelled_latents(conditional(), CLASSIFIERS, index, labels=index[:2])
    with pytest.raises(ValueError, match="9 labels for 8 samples"):
        measure_separability(conditional(), CLASSIFIERS, num_samples=8, labels=torch.zeros(9))
    with pytest.raises(ValueError, match="num_samples 1 and batch_size 32; 2 samples or more"):
        measure_separability(Corner(), CLASSIFIERS, num_samples=1)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latents \[4, 2, 3\] and logits \[4, 1\], expected .* flatten ws"):
        separability(torch.zeros(4, 2, 3), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="latents or logits are not finite"):
        separability(draw(4, 2), torch.full((4, 1), math.nan))
    with pytest.raises(ValueError, match=r"share 0 is not in \(0, 1\]"):
        LinearSeparability(2, 1, share=0)
    with pytest.raises(ValueError, match=r"latents \[4, 2\] and logits \[3, 1\], expected \[N, 2\] and \[N, 1\]"):
        LinearSeparability(2, 1).update(torch.zeros(4, 2), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"predictions \[3\] and labels \[2\], expected both \[N\]"):
        conditional_entropy(torch.ones(3, dtype=torch.bool), torch.ones(2, dtype=torch.bool))


def both_scores(**ranks: int) -> list[float]:
    noisy = {"left": lambda images: left(images) + 40 * torch.cos(images[:, 0, 0, 0].double()), "bright": bright}
    found = (measure_separability(Corner(), noisy, num_samples=n, batch_size=8, share=0.9, **ranks) for n in (3, 101))
    return [score.item() for score, _ in found]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.filterwarnings("ignore:attribute")
def test_processes_together_find_what_one_finds(world: int) -> None:
    expected = both_scores()
    assert expected[1] > 1.05
    for output in run_processes(world, ["-m", "tests.metrics.test_separability"]):
        assert [float(x) for x in output.splitlines()[-1].split()] == pytest.approx(expected, rel=1e-9)


if __name__ == "__main__":  # one of those processes
    dist.init_process_group("gloo")
    print(*both_scores(rank=dist.get_rank(), world=dist.get_world_size()))
    dist.destroy_process_group()
