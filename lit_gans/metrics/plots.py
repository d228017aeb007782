"""Pictures of an evaluation as PNG files, and the mathematics behind them; features and images in, no networks.

PRD curves: Sajjadi et al. (2018), https://arxiv.org/abs/1806.00035. Realism: Kynkäänniemi et al. (2019),
https://arxiv.org/abs/1904.06991, Eq. 3. Figures are drawn without pyplot, whose state is global.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.base.files import replacing
from lit_gans.base.grids import grid, spread
from lit_gans.base.images import as_channels, save_png
from lit_gans.metrics.manifold import neighbour_radii, precision_recall

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from sklearn.cluster import MiniBatchKMeans

REALISM_MAX = 1e6
NEIGHBOURS = (3, 5, 10)  # k of the points beside the PRD curve

_CHUNK_ELEMENTS = 2**25  # distances held at once: 256 MiB in float64
_SLACK = 1e-12  # of the squared lengths: what rounding can add to a distance of 0
_PCA_FEATURES = 50
_PERPLEXITY = 30
_DPI = 100
_CAPTION = 0.22  # height of the line below a picture, in pictures
_MIN_PICTURES = 6  # in a row, for the title's sake
_THUMBNAIL_PX = 96
_REAL, _FAKE, _GREY = "#0072B2", "#D55E00", "#BBBBBB"  # blue and vermilion of Okabe and Ito, told apart by everyone
_CLASSES = (  # Tol's muted scheme and black, for the same reason
    "#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#AA4499", "#44AA99", "#999933", "#882255", "#000000",
)  # fmt: skip


# Mathematics


def prd_of_histograms(real: Tensor, fake: Tensor, *, angles: int = 1001) -> tuple[Tensor, Tensor]:
    """Shares [B] of each bin in both sets -> precision [angles], recall [angles], float64 in [0, 1].

    Slopes are tan(i / (angles + 1) * pi / 2), so that the curve runs from recall to precision (Sec. 3.2, Eq. 3).
    """
    real, fake = real.double(), fake.double()
    steps = torch.arange(1, angles + 1, dtype=torch.float64, device=real.device)
    slopes = (steps / (angles + 1) * math.pi / 2).tan()[:, None]
    precision = torch.minimum(slopes * real, fake).sum(dim=1)
    recall = torch.minimum(real, fake / slopes).sum(dim=1)
    return precision.clamp(max=1), recall.clamp(max=1)  # sums of shares exceed 1 by rounding


def prd_curve(
    real: Tensor, fake: Tensor, *, clusters: int = 20, repeats: int = 10, angles: int = 1001, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """real [N, D], fake [M, D] -> precision [angles], recall [angles], float64 in [0, 1]: the mean of all repeats.

    Each repeat bins both sets by k-means on their union (Sec. 4). The paper's sets are of one size; here the larger is
    thinned for finding the clusters, so that it does not get most of them, and counted whole.
    ValueError unless both sets have as many points as there are clusters.
    """
    _check_features(real, fake, least=clusters, purpose=f"a PRD curve with {clusters} clusters")
    generator = torch.Generator().manual_seed(seed)
    curves = []
    for _ in range(repeats):
        size = min(len(real), len(fake))
        union = torch.cat([_draw(real, size, generator), _draw(fake, size, generator)])
        means = _cluster(union, clusters, seed=int(torch.randint(2**31, (), generator=generator)))
        bins = (_shares(means, rows, clusters) for rows in (real, fake))
        curves.append(torch.stack(prd_of_histograms(*bins, angles=angles)))
    precision, recall = torch.stack(curves).mean(dim=0)
    return precision, recall


def prd_f_beta(precision: Tensor, recall: Tensor, *, beta: float = 8.0) -> float:
    """The largest F_beta on a curve, in [0, 1]; beta 8 asks for recall, 1/8 for precision (Sec. 4.1)."""
    below = beta**2 * precision + recall
    return ((1 + beta**2) * precision * recall / below.clamp(min=torch.finfo(below.dtype).tiny)).max().item()


def realism(real: Tensor, fake: Tensor, *, k: int = 5) -> Tensor:
    """real [N, D], fake [M, D] -> [M] float64 in [0, REALISM_MAX]: 1 or more for a fake in the ball of some real.

    The largest of radius / distance over the reals, whose radius reaches to their k-th nearest other real; the wide
    balls, above the median radius, do not count (Eq. 3). A fake that lies on a real gets REALISM_MAX, not infinity.
    ValueError unless there are more than k reals.
    """
    _check_features(real, fake, least=1, purpose="realism")
    if len(real) <= k:
        raise ValueError(f"{k} neighbours need more than {k} real images, got {len(real)}")
    radii = neighbour_radii(real, k=k)
    kept = radii <= radii.quantile(0.5)  # the mean of the middle two of an even count, unlike Tensor.median
    ratios = [(radii[kept] / distances).nan_to_num(REALISM_MAX).amax(dim=1) for distances in _chunks(fake, real[kept])]
    return torch.cat(ratios).clamp(max=REALISM_MAX)


def nearest_reals(fake_features: Tensor, real_features: Tensor, *, n: int = 5) -> tuple[Tensor, Tensor]:
    """fake [M, D], real [N, D] -> distances float64 [M, n] rising along the row, indices int64 [M, n] into the reals.

    ValueError for fewer than n reals.
    """
    _check_features(real_features, fake_features, least=1, purpose="a nearest real")
    if len(real_features) < n:
        raise ValueError(f"{n} nearest reals need {n} real images or more, got {len(real_features)}")
    nearest = [distances.topk(n, dim=1, largest=False).indices for distances in _chunks(fake_features, real_features)]
    indices = torch.cat(nearest)
    # A matrix product found them; their differences measure them, so that a copy is at 0 exactly.
    apart = [(fake_features.double() - real_features[column].double()).norm(dim=1) for column in indices.T]
    distances, order = torch.stack(apart, dim=1).sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


def memorised_share(real: Tensor, fake: Tensor) -> Tensor:
    """real [N, D], fake [M, D] -> float64 scalar in [0, 1]: 1 for a generator that repeats its training images.

    Share of the fakes that are nearer to their nearest real than this real is to its nearest other real; copies count
    even of images that the reals have twice. In the spirit of Meehan et al. (2020), https://arxiv.org/abs/2004.05675.
    Fresh images of the same distribution give the share of mutual nearest neighbours, which is 2/3 in one dimension and
    0.62 in two, but 0.1 for normal features in hundreds, where few reals are the nearest of most. So judge it beside
    the share of held-out reals in place of the fakes: well above that says memorised, below says off the reals.
    """
    _check_features(real, fake, least=1, purpose="the memorised share")
    if len(real) < 2:
        raise ValueError(f"a real's nearest other needs two real images or more, got {len(real)}")
    distances, indices = (x[:, 0] for x in nearest_reals(fake, real, n=1))
    used, place = indices.unique(return_inverse=True)
    to_others = nearest_reals(real[used], real, n=2)[0][:, 1]  # the first is the real itself
    return ((distances < to_others[place]) | (distances == 0)).double().mean()


# Figures


def plot_tsne(
    real_features: Tensor,
    fake_features: Tensor,
    path: str | os.PathLike,
    *,
    labels_real: Tensor | None = None,
    labels_fake: Tensor | None = None,
    seed: int = 0,
    max_points: int = 2000,
) -> Path:
    """Writes both sets on one t-SNE map, a function of the seed; returns the path.

    Features [N, D], [M, D], of which at most `max_points` of each side are drawn; integer labels [N], [M] add a panel
    coloured by class, in which a side without labels is grey. ValueError for fewer than 3 images on a side.
    """
    _check_features(real_features, fake_features, least=3, purpose="t-SNE")
    generator = torch.Generator().manual_seed(seed)
    chosen = [_choose(len(rows), max_points, generator) for rows in (real_features, fake_features)]
    shown = [rows[i.to(rows.device)] for rows, i in zip((real_features, fake_features), chosen, strict=True)]
    labels = [
        None if given is None else _check_labels(given, len(rows))[i.to(given.device)].cpu()
        for given, rows, i in zip((labels_real, labels_fake), (real_features, fake_features), chosen, strict=True)
    ]
    sides = _tsne(torch.cat(shown), seed).split([len(rows) for rows in shown])
    panels = 1 + any(given is not None for given in labels)
    figure = _figure(6 * panels, 6.6)
    counts = f"{_of(shown[0], real_features)} real, {_of(shown[1], fake_features)} generated images"
    figure.suptitle(f"t-SNE of features: {counts}")
    _sides(_map_axes(figure, panels, 1, "real and generated" if panels == 2 else ""), *sides)
    if panels == 2:
        _classes(_map_axes(figure, panels, 2, "classes: real as dots, generated as crosses"), sides, labels)
    return _save(figure, path)


def plot_tsne_grid(images: Tensor, features: Tensor, path: str | os.PathLike, *, side: int = 20, seed: int = 0) -> Path:
    """Writes images where a t-SNE map of their features has them, pressed onto a grid; returns the path.

    Images of one kind are neighbours, so that a mode that many samples fell into is seen as a patch (StackGAN++,
    Sec. 5). images uint8 [N, C, H, W], C 1 or 3, features [N, D]; at most side x side of them, evenly chosen, larger
    ones scaled down to 96 pixels. Of all ways to fill the grid it is that of the least squared distances. ValueError
    for fewer than 9 images.
    """
    from scipy.optimize import linear_sum_assignment

    _check_features(features, features, least=9, purpose="a t-SNE grid")
    side = min(side, math.isqrt(len(images)))
    chosen = spread(len(images), side**2)
    places = _tsne(features[chosen.to(features.device)], seed)
    low, high = places.aminmax(dim=0)
    places = (places - low) / (high - low).clamp(min=torch.finfo(places.dtype).tiny)
    ticks = (torch.arange(side, dtype=places.dtype) + 0.5) / side
    cells = torch.cartesian_prod(ticks, ticks).flip(1)  # rows from the top, x first
    order = linear_sum_assignment(torch.cdist(cells, places).square().numpy())[1]
    shown = as_channels(images.cpu()[chosen][torch.from_numpy(order)], 3)
    if max(shown.shape[2:]) > _THUMBNAIL_PX:
        factor = _THUMBNAIL_PX / max(shown.shape[2:])
        shown = F.interpolate(shown.float(), scale_factor=factor, mode="bilinear", antialias=True).round().byte()
    return save_png(grid(shown, side, min_cell_px=48), path)


def plot_precision_recall(
    real_features: Tensor, fake_features: Tensor, path: str | os.PathLike, *, seed: int = 0
) -> dict[str, float]:
    """Writes the PRD curve with the precision and recall by nearest neighbours; returns what it drew.

    Features [N, D], [M, D] -> prd_f8, prd_f1_8, and precision_k<k>, recall_k<k> for each k of `NEIGHBOURS`.
    ValueError for fewer than 20 images on a side.
    """
    precision, recall = prd_curve(real_features, fake_features, seed=seed)
    drawn = {"prd_f8": prd_f_beta(precision, recall), "prd_f1_8": prd_f_beta(precision, recall, beta=1 / 8)}
    figure = _figure(6, 6.4)
    figure.suptitle(f"Precision and recall: {len(real_features)} real, {len(fake_features)} generated images")
    axes = figure.add_subplot(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    label = f"PRD curve, $F_8$ {drawn['prd_f8']:.3f}, $F_{{1/8}}$ {drawn['prd_f1_8']:.3f}"
    axes.plot(recall.tolist(), precision.tolist(), color=_REAL, label=label, clip_on=False)
    for k, marker in zip(NEIGHBOURS, "os^", strict=True):
        p, r = (value.item() for value in precision_recall(real_features, fake_features, k=k))
        drawn |= {f"precision_k{k}": p, f"recall_k{k}": r}
        label = f"{k} neighbours: precision {p:.3f}, recall {r:.3f}"
        axes.plot(r, p, marker, color=_FAKE, markersize=8, fillstyle="none", label=label, clip_on=False)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small")
    _save(figure, path)
    return drawn


def plot_curves(
    x: Sequence[float], curves: Mapping[str, Sequence[float]], path: str | os.PathLike, *, xlabel: str, title: str
) -> Path:
    """Writes a panel for each of the curves, by name, over the same x; of two, also one of the second over the first.

    So of Inception Score and FID the trade-off is seen that Brock et al. (2019) draw in Figure 17.
    ValueError for no curves, or of other lengths than x.
    """
    if not curves or any(len(values) != len(x) for values in curves.values()):
        raise ValueError(f"{len(x)} points, and curves of {[len(values) for values in curves.values()]}")
    names, pairs = list(curves), len(curves) == 2
    figure = _figure(4 * (len(curves) + pairs), 3.6)
    figure.suptitle(title)
    for number, (name, values) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(1, len(curves) + pairs, number, xlabel=xlabel, ylabel=name)
        axes.plot(x, values, "o-", color=_REAL, markersize=4)
        axes.grid(alpha=0.3)
    if pairs:
        axes = figure.add_subplot(1, 3, 3, xlabel=names[0], ylabel=names[1])
        axes.plot(curves[names[0]], curves[names[1]], "o-", color=_FAKE, markersize=4)
        for place, a, b in zip(x, curves[names[0]], curves[names[1]], strict=True):
            axes.annotate(f"{place:g}", (a, b), fontsize=7, xytext=(3, 3), textcoords="offset points")
        axes.grid(alpha=0.3)
    return _save(figure, path)


def plot_best_and_worst(
    images: Tensor, scores: Tensor, path: str | os.PathLike, *, count: int = 32, score: str = "realism"
) -> Path:
    """Writes the `count` images of the highest and of the lowest score, each with its score; returns the path.

    images uint8 [N, C, H, W], C 1 or 3; scores [N], finite, higher is better, called `score` in the title. Of fewer
    than 2 `count` images each half is shown. ValueError for fewer than two images, or scores that do not fit them.
    """
    images, scores = as_channels(images, 3), scores.detach().cpu()
    if len(images) < 2 or scores.shape != (len(images),) or not scores.isfinite().all():
        raise ValueError(
            f"{len(images)} images and scores of shape {list(scores.shape)}: expected two images or more and a finite "
            f"score for each"
        )
    count = min(count, len(images) // 2)
    order = scores.argsort(descending=True, stable=True)
    columns = min(8, count)
    rows = math.ceil(count / columns)
    figure = _figure(max(columns, _MIN_PICTURES) + 0.4, 2 * (rows * (1 + _CAPTION) + 0.5) + 0.5)
    figure.suptitle(f"Generated images by {score}: {count} best and {count} worst of {len(images)}")
    for i, (title, part) in enumerate((("highest", order[:count]), ("lowest", order[-count:].flip(0)))):
        axes = figure.add_subplot(2, 1, i + 1, title=f"{title} {score}")
        _pictures(axes, images[part.to(images.device)], [f"{s:.3g}" for s in scores[part].tolist()], columns)
    return _save(figure, path)


def plot_nearest_reals(
    fake_images: Tensor,
    real_images: Tensor,
    distances: Tensor,
    path: str | os.PathLike,
    *,
    count: int = 12,
    total: int | None = None,
    share: float | None = None,
) -> Path:
    """Writes a row for each generated image: the image, then its nearest reals with their distances; returns the path.

    fake_images uint8 [M, C, H, W]; real_images uint8 [M, n, C, H, W] and distances [M, n] as from `nearest_reals`. The
    `count` images nearest to a real are shown, the nearest first, and the title says of how many (`total`, if more were
    looked at than are given). `share`, if given, is the `memorised_share` to put
    in the title. ValueError where the shapes do not fit.
    """
    m, n = distances.shape if distances.ndim == 2 else (0, 0)
    if min(m, n) == 0 or len(fake_images) != m or real_images.ndim != 5 or real_images.shape[:2] != (m, n):
        raise ValueError(
            f"images {list(fake_images.shape)}, neighbours {list(real_images.shape)} and distances "
            f"{list(distances.shape)}, expected [M, C, H, W], [M, n, C, H, W] and [M, n]"
        )
    distances = distances.detach().cpu()
    shown = distances[:, 0].argsort(stable=True)[:count]
    pictures, captions = [], []
    for i in shown.tolist():
        pictures += [as_channels(fake_images[i : i + 1], 3)[0], *as_channels(real_images[i], 3)]
        captions += ["generated", *(f"{d:.3g}" for d in distances[i].tolist())]
    figure = _figure(max(n + 1, _MIN_PICTURES) + 0.4, len(shown) * (1 + _CAPTION) + 1.1)
    title = f"Nearest real images: {len(shown)} of {total or m} generated"
    figure.suptitle(title if share is None else f"{title}\nmemorised share {share:.3f}")
    axes = figure.add_subplot(title="generated | its nearest reals and their distances")
    _pictures(axes, pictures, captions, n + 1)
    axes.axvline(0.985, color="black", linewidth=1)  # in the gap beside the first column
    return _save(figure, path)


# Parts of them


def _check_features(real: Tensor, fake: Tensor, *, least: int, purpose: str) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"features of shapes {list(real.shape)} and {list(fake.shape)}, expected [N, D] and [M, D]")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError("features hold nan or inf: look for a diverged generator or an extractor in half precision")
    if min(len(real), len(fake)) < least:
        raise ValueError(f"{purpose} needs {least} images or more on each side, got {len(real)} and {len(fake)}")


def _check_labels(labels: Tensor, count: int) -> Tensor:
    if labels.shape != (count,) or labels.is_floating_point():
        raise ValueError(f"labels {labels.dtype} {list(labels.shape)}, expected integers [{count}], one for each image")
    return labels


def _chunks(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Distances [n, len(b)] for consecutive rows of a, float64; those that rounding alone can make are 0."""
    b = b.double()
    for part in a.split(max(1, _CHUNK_ELEMENTS // len(b))):
        part = part.double()
        distances = torch.cdist(part, b)
        lengths = part.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1)
        yield distances.masked_fill_(distances.square() <= _SLACK * lengths, 0)


def _choose(total: int, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` different numbers below `total`, rising; all of them draw nothing."""
    if total <= count:
        return torch.arange(total)
    return torch.randperm(total, generator=generator)[:count].sort().values


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows[_choose(len(rows), count, generator).to(rows.device)]


def _cluster(union: Tensor, clusters: int, *, seed: int) -> MiniBatchKMeans:
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(clusters, n_init=10, random_state=seed).fit(union.detach().float().cpu().numpy())


def _shares(means: MiniBatchKMeans, rows: Tensor, clusters: int) -> Tensor:
    """[clusters] float64 shares of the rows in each cluster."""
    bins = torch.from_numpy(means.predict(rows.detach().float().cpu().numpy()))
    return bins.long().bincount(minlength=clusters).double() / len(rows)


def _tsne(features: Tensor, seed: int) -> Tensor:
    """[N, D] -> [N, 2]; of a generator that draws one image alone all in one point, where scikit-learn crashes."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = features.detach().double().cpu().numpy()
    if (rows == rows[0]).all():
        return torch.zeros(len(rows), 2)
    reduced = PCA(min(_PCA_FEATURES, *rows.shape), random_state=seed).fit_transform(rows)
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)  # scikit-learn wants less than the number of rows
    init = "pca" if reduced.shape[1] > 1 else "random"
    return torch.from_numpy(TSNE(init=init, perplexity=perplexity, random_state=seed).fit_transform(reduced))


def _figure(width: float, height: float) -> Figure:
    """In inches, of 100 pixels each."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _map_axes(figure: Figure, panels: int, number: int, title: str) -> Axes:
    """With one scale for both directions, the limits giving way and not the frame."""
    axes = figure.add_subplot(1, panels, number, title=title, xlabel="t-SNE 1", ylabel="t-SNE 2")
    axes.set_aspect("equal", adjustable="datalim")
    return axes


def _sides(axes: Axes, real: Tensor, fake: Tensor) -> None:
    for points, colour, label in ((real, _REAL, "real"), (fake, _FAKE, "generated")):
        x, y = points.T.numpy()
        axes.scatter(x, y, s=12, alpha=0.4, color=colour, linewidths=0, label=label)
    _legend(axes)


def _classes(axes: Axes, sides: Sequence[Tensor], labels: Sequence[Tensor | None]) -> None:
    """Colours and a legend for ten classes or fewer, a colour bar for more."""
    from matplotlib.colors import ListedColormap, Normalize

    known = torch.cat([given for given in labels if given is not None]).unique()
    few = len(known) <= len(_CLASSES)
    cmap = ListedColormap(_CLASSES) if few else "viridis"
    norm = Normalize(0, len(_CLASSES) - 1) if few else Normalize(known.min().item(), known.max().item())
    for points, given, marker in zip(sides, labels, "ox", strict=True):
        x, y = points.T.numpy()
        style: dict[str, Any] = {"s": 14, "alpha": 0.5, "marker": marker, "linewidths": 0 if marker == "o" else 1}
        if given is None:
            axes.scatter(x, y, color=_GREY, zorder=0, label="without class", **style)
            continue
        values = torch.searchsorted(known, given) if few else given
        drawn = axes.scatter(x, y, c=values.numpy(), cmap=cmap, norm=norm, **style)
    if not few:
        solids = axes.figure.colorbar(drawn, ax=axes, label="class").solids
        assert solids is not None
        solids.set_alpha(1)
        return
    for name, colour in zip(known.tolist(), _CLASSES, strict=False):
        axes.scatter([], [], color=colour, label=name)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Below the map, where it hides no point, and opaque."""
    style = {"fontsize": "small", "markerscale": 1.5, "columnspacing": 1, "handletextpad": 0.2}
    count = len(axes.get_legend_handles_labels()[1])
    legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=min(count, 6), **style)
    for handle in legend.legend_handles:
        assert handle is not None
        handle.set_alpha(1)


def _pictures(axes: Axes, pictures: Sequence[Tensor] | Tensor, captions: Sequence[str], columns: int) -> None:
    """uint8 [3, H, W] each, row by row in cells of width 1 with a caption below."""
    height = 1 + _CAPTION
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = i % columns, -(i // columns) * height
        axes.imshow(picture.permute(1, 2, 0).cpu().numpy(), extent=(x, x + 0.97, y - 0.97, y))
        axes.text(x + 0.485, y - 1, caption, ha="center", va="top", fontsize=8)
    axes.set(xlim=(0, columns), ylim=(y - height, 0), aspect="equal")
    axes.set_axis_off()


def _of(shown: Tensor, whole: Tensor) -> str:
    return str(len(shown)) if len(shown) == len(whole) else f"{len(shown)} of {len(whole)}"


def _save(figure: Figure, path: str | os.PathLike) -> Path:
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png")
    return Path(path)
