import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from lit_gans.metrics import plots, precision_recall
from lit_gans.metrics.plots import (
    REALISM_MAX,
    memorised_share,
    nearest_reals,
    plot_best_and_worst,
    plot_nearest_reals,
    plot_precision_recall,
    plot_tsne,
    plot_tsne_grid,
    prd_curve,
    prd_f_beta,
    prd_of_histograms,
    realism,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def size(path: Path) -> tuple[int, int]:
    """(width, height) of a PNG that is no blank page, alone in its folder."""
    assert list(path.parent.iterdir()) == [path]
    with Image.open(path) as image:
        assert image.format == "PNG" and len(image.convert("RGB").getcolors(2**20)) > 10
        return image.size


def test_curve_of_two_bins_is_the_closed_form() -> None:
    precision, recall = prd_of_histograms(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), angles=9)
    slopes = [math.tan(math.pi / 2 * i / 10) for i in range(1, 10)]
    assert precision.tolist() == pytest.approx([min(slope, 0.5) for slope in slopes])
    assert recall.tolist() == pytest.approx([min(1, 0.5 / slope) for slope in slopes])


def test_f_beta_takes_the_corner_that_beta_asks_for() -> None:
    half_precise = prd_of_histograms(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]))
    assert prd_f_beta(*half_precise) == pytest.approx(65 * 0.5 / (64 * 0.5 + 1), abs=1e-3)
    assert prd_f_beta(*half_precise, beta=1 / 8) == pytest.approx((65 / 64) * 0.5 / (0.5 / 64 + 1), abs=1e-3)
    half_recalled = prd_of_histograms(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    assert prd_f_beta(*half_recalled, beta=1 / 8) == pytest.approx(prd_f_beta(*half_precise), abs=1e-3)
    assert prd_f_beta(torch.zeros(3), torch.zeros(3)) == 0


def test_curve_of_equal_and_of_disjoint_sets() -> None:
    x = normal(60, 4)
    precision, recall = prd_curve(x, x, repeats=2)
    assert torch.minimum(precision, recall).max().item() == pytest.approx(1)
    # A cluster for each side, ten times over: nothing is shared.
    precision, recall = prd_curve(x, x + 1000, clusters=4, repeats=2)
    assert max(precision.max(), recall.max()) == 0


def test_curve_sees_a_lost_mode_as_recall_and_a_false_one_as_precision() -> None:
    two = torch.cat([normal(60, 2), normal(60, 2) + 100])  # more of them: the curve is of shares, not of counts
    one = normal(60, 2, seed=1)
    lost, false = (prd_curve(*sets, clusters=2, repeats=3) for sets in ((two, one), (one, two)))
    assert (lost[0].max().item(), lost[1].max().item()) == pytest.approx((1, 0.5))
    assert (false[0].max().item(), false[1].max().item()) == pytest.approx((0.5, 1))


def test_the_larger_set_does_not_get_most_of_the_clusters() -> None:
    real = torch.cat([normal(300, 2), normal(300, 2) + 40]) / 10
    precision, _ = prd_curve(real, normal(20, 2, seed=1) / 10 + 12, clusters=2, repeats=2)
    assert precision.max() == 0  # with all the reals the fakes would share a cluster with half of them


def test_curve_is_a_function_of_its_seed_and_leaves_global_generators_alone() -> None:
    real, fake = normal(70, 3), normal(50, 3, seed=1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, again, other = (torch.stack(prd_curve(real, fake, repeats=2, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("elements", [2**25, 100])
@pytest.mark.parametrize("n", [40, 41])
def test_realism_equals_brute_force(n: int, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_CHUNK_ELEMENTS", elements)
    real, fake = normal(n, 5), normal(23, 5, seed=1) * 1.5
    a, b = real.double().numpy(), fake.double().numpy()
    radii = np.sort(np.linalg.norm(a[:, None] - a, axis=-1), axis=1)[:, 3]  # column 0 is the point itself
    kept = radii <= np.median(radii)
    wanted = (radii[kept] / np.linalg.norm(b[:, None] - a[kept], axis=-1)).max(axis=1)
    assert realism(real, fake, k=3).tolist() == pytest.approx(wanted.tolist(), rel=1e-6)


def test_realism_of_copies_is_finite() -> None:
    real = normal(80, 4).double() + 1000  # far from the origin a matrix product leaves 1e-5 of a distance of 0
    radii = plots.neighbour_radii(real, k=5)
    narrow = real[radii <= radii.quantile(0.5)]
    assert realism(real, narrow).tolist() == [REALISM_MAX] * len(narrow)
    assert 0 < realism(real, narrow + 1000).max() < 0.01
    assert realism(real[:1].repeat(9, 1), real[:1]).item() == REALISM_MAX  # radius and distance are both 0


@pytest.mark.parametrize("elements", [2**25, 50])
def test_nearest_reals_are_those_of_sklearn(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_CHUNK_ELEMENTS", elements)
    real, fake = normal(40, 6) + 50, normal(17, 6, seed=1) + 50
    fake[3] = real[7]
    distances, indices = nearest_reals(fake, real, n=4)
    wanted = NearestNeighbors(n_neighbors=4, algorithm="kd_tree").fit(real.double()).kneighbors(fake.double())
    assert distances.numpy() == pytest.approx(wanted[0], rel=1e-12)
    assert indices.tolist() == wanted[1].tolist()
    assert distances[3, 0] == 0 and indices[3, 0] == 7


def test_memorised_share() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0], [3.0]])
    fake = torch.tensor([[0.4], [-1.5], [3.0], [2.9], [9.0]])  # nearer, farther, copy, near a double, far off
    assert memorised_share(real, fake).item() == pytest.approx(2 / 5)
    assert memorised_share(real, real) == 1


def test_fresh_images_share_what_mutual_neighbours_share() -> None:
    real, fake = (torch.rand(n, 1, generator=torch.Generator().manual_seed(n)) for n in (2000, 1500))
    assert memorised_share(real, fake).item() == pytest.approx(2 / 3, abs=0.04)
    assert memorised_share(real, fake + 2).item() < 0.01  # off the reals


def test_map_is_the_same_file_for_the_same_seed(tmp_path: Path) -> None:
    real, fake = normal(25, 60), normal(12, 60, seed=1)
    labels = torch.arange(25) % 3
    written = [
        plot_tsne(real, fake, tmp_path / str(i) / "map.png", labels_real=labels, seed=seed, max_points=15).read_bytes()
        for i, seed in enumerate((0, 0, 1))
    ]
    assert written[0] == written[1] != written[2]
    assert size(tmp_path / "0" / "map.png") == (1200, 660)


def test_map_without_labels_has_one_panel_and_many_classes_a_colour_bar(tmp_path: Path) -> None:
    real, fake = normal(14, 1), normal(3, 1, seed=1)
    assert size(plot_tsne(real, fake, tmp_path / "one" / "map.png")) == (600, 660)
    classes = {"labels_real": torch.arange(14) * 5, "labels_fake": torch.arange(3)}
    assert size(plot_tsne(real, fake, tmp_path / "two" / "map.png", **classes)) == (1200, 660)


def test_a_tsne_grid_shows_each_image_once_and_puts_those_of_one_kind_together(tmp_path: Path) -> None:
    kinds = torch.arange(36) % 2
    features = 20.0 * F.one_hot(kinds, 4) + normal(36, 4)
    images = (torch.arange(36) * 2 + 100 * kinds).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    path = plot_tsne_grid(images, features, tmp_path / "new" / "grid.png", side=20)
    assert size(path) == (6 * 48, 6 * 48)
    cells = np.array(Image.open(path))[24::48, 24::48, 0]
    assert sorted(cells.flatten().tolist()) == sorted(images[:, 0, 0, 0].tolist())
    kind = cells % 4 // 2  # an image's number, whose parity is its kind
    same = (kind[1:] == kind[:-1]).mean() / 2 + (kind[:, 1:] == kind[:, :-1]).mean() / 2
    assert same > 0.75  # of neighbours; 0.5 by chance
    again = plot_tsne_grid(images, features, tmp_path / "again.png", side=20)
    assert again.read_bytes() == path.read_bytes()
    large = plot_tsne_grid(images.repeat(1, 1, 16, 16), features, tmp_path / "large.png", side=3)
    assert Image.open(large).size == (288, 288)
    one = plot_tsne_grid(images[:9], torch.ones(9, 4), tmp_path / "collapsed.png")
    assert Image.open(one).size == (3 * 48, 3 * 48)
    with pytest.raises(ValueError, match="t-SNE grid"):
        plot_tsne_grid(images[:8], features[:8], tmp_path / "few.png")


def test_precision_and_recall_are_drawn_and_returned(tmp_path: Path) -> None:
    real, fake = normal(60, 3), normal(50, 3, seed=1) * 0.6
    drawn = plot_precision_recall(real, fake, tmp_path / "curve.png", seed=4)
    curve = prd_curve(real, fake, seed=4)
    assert drawn.pop("prd_f8") == prd_f_beta(*curve) and drawn.pop("prd_f1_8") == prd_f_beta(*curve, beta=1 / 8)
    for k in (3, 5, 10):
        assert (drawn.pop(f"precision_k{k}"), drawn.pop(f"recall_k{k}")) == precision_recall(real, fake, k=k)
    assert drawn == {} and size(tmp_path / "curve.png") == (600, 640)


def test_best_and_worst_are_shown_with_their_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(plots, "_pictures", lambda _, images, captions, columns: shown.append((images, captions)))
    images, scores = pictures(7, 3, 8, 8), torch.tensor([0.5, 3.0, 0.1, 9.0, 2.0, 0.25, 1.0])
    plot_best_and_worst(images, scores, tmp_path / "both.png", count=2)
    (best, highest), (worst, lowest) = shown
    assert torch.equal(best, images[[3, 1]]) and highest == ["9", "3"]
    assert torch.equal(worst, images[[2, 5]]) and lowest == ["0.1", "0.25"]


def test_few_grey_images_are_halved(tmp_path: Path) -> None:
    path = plot_best_and_worst(pictures(5, 1, 8, 8), torch.arange(5.0), tmp_path / "both.png")
    width, height = size(path)
    assert width == 640 and height < 500


def test_neighbours_are_rows_with_the_nearest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = pictures(4, 3, 8, 8), pictures(4, 2, 3, 8, 8, seed=1)
    distances = torch.tensor([[5.0, 6.0], [1.0, 8.0], [3.0, 4.0], [0.0, 0.5]])
    path = plot_nearest_reals(fake, real, distances, tmp_path / "near.png", count=2, share=0.25)
    assert size(path) == (640, 354)
    shown = []
    monkeypatch.setattr(plots, "_pictures", lambda _, images, captions, columns: shown.append((images, captions)))
    plot_nearest_reals(fake, real, distances, tmp_path / "near.png", count=2)
    assert torch.equal(torch.stack(shown[0][0]), torch.stack([fake[3], *real[3], fake[1], *real[1]]))
    assert shown[0][1] == ["generated", "0", "0.5", "generated", "1", "8"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path, a, b = tmp_path / "x.png", torch.zeros(19, 4), torch.zeros(40, 4)
    with pytest.raises(ValueError, match="t-SNE needs 3 images or more on each side, got 2 and 19"):
        plot_tsne(a[:2], a, path)
    with pytest.raises(ValueError, match=r"labels torch.int64 \[3\], expected integers \[19\]"):
        plot_tsne(a, a, path, labels_fake=torch.arange(3))
    with pytest.raises(ValueError, match="a PRD curve with 20 clusters needs 20 images or more .* got 40 and 19"):
        plot_precision_recall(b, a, path)
    with pytest.raises(ValueError, match="5 neighbours need more than 5 real images, got 5"):
        realism(a[:5], b)
    with pytest.raises(ValueError, match="5 nearest reals need 5 real images or more, got 4"):
        nearest_reals(a, b[:4])
    with pytest.raises(ValueError, match="needs two real images or more, got 1"):
        memorised_share(a[:1], b)
    with pytest.raises(ValueError, match=r"shapes \[19, 4\] and \[40, 3\]"):
        realism(a, b[:, :3])
    with pytest.raises(ValueError, match="features hold nan or inf"):
        realism(a, b / 0)
    with pytest.raises(ValueError, match=r"5 images and scores of shape \[4\]"):
        plot_best_and_worst(pictures(5, 1, 8, 8), torch.zeros(4), path)
    with pytest.raises(ValueError, match=r"neighbours \[3, 2, 1, 8, 8\] and distances \[4, 2\]"):
        plot_nearest_reals(pictures(4, 1, 8, 8), pictures(3, 2, 1, 8, 8), torch.zeros(4, 2), path)
    assert not list(tmp_path.glob("*.png"))
