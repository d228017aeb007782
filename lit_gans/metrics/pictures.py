"""The pictures of one evaluation: where the samples lie among the reals, which are good, which are copies."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lit_gans.base.grids import spread
from lit_gans.metrics.evaluator import Seen
from lit_gans.metrics.plots import (
    memorised_share,
    nearest_reals,
    plot_best_and_worst,
    plot_nearest_reals,
    plot_precision_recall,
    plot_tsne,
    plot_tsne_grid,
    realism,
)
from lit_gans.metrics.reals import RealImages

MOST_ROWS = 5000  # of either side, where all pairs are looked at
_NEIGHBOURS, _ROWS = 5, 12


def draw_pictures(seen: Seen, data: RealImages, folder: Path, *, split: str = "train") -> list[Path]:
    """Writes tsne.png, tsne_grid.png, precision_recall.png, best_and_worst.png, nearest_reals.png; the paths.

    `seen` is what `evaluate_gan` or `evaluate_images` hands to `show`, `data` the reals. Pictures that need more images
    than there are, 20 on either side, are left out.
    """
    few = min(len(seen.real), len(seen.fake))
    if few < 20:
        return []
    real, fake = thinned(seen.real, MOST_ROWS), thinned(seen.fake, MOST_ROWS)
    written = [_tsne(seen, folder / "tsne.png")]
    shown = seen.fake[: len(seen.images)]
    written.append(plot_tsne_grid(seen.images, shown, folder / "tsne_grid.png"))
    plot_precision_recall(real, fake, folder / "precision_recall.png")
    written.append(folder / "precision_recall.png")
    scores = realism(real, shown)
    written.append(plot_best_and_worst(seen.images, scores, folder / "best_and_worst.png"))
    written.append(_nearest(seen, data, folder / "nearest_reals.png", split=split))
    return written


def thinned(rows: Tensor, most: int) -> Tensor:
    """At most `most` rows, evenly spread over all."""
    return rows if len(rows) <= most else rows[spread(len(rows), most)]


def _tsne(seen: Seen, path: Path) -> Path:
    classes = seen.classes
    real, fake = (classes.real, classes.fake) if classes.count <= 20 else (None, None)
    return plot_tsne(seen.real, seen.fake, path, labels_real=real, labels_fake=fake)


def _nearest(seen: Seen, data: RealImages, path: Path, *, split: str) -> Path:
    """The samples that lie nearest to a real image, with the reals; against all reals, since any may be a source."""
    shown = seen.fake[: len(seen.images)]
    distances, places = nearest_reals(shown, seen.real, n=_NEIGHBOURS)
    rows = distances[:, 0].argsort()[:_ROWS].cpu()
    distances, places = distances.cpu()[rows], places.cpu()[rows]
    found = next(iter(data.batches(split, places.numel(), indices=seen.indices[places.flatten()])))["image"]
    reals = found.unflatten(0, (len(rows), _NEIGHBOURS))
    return plot_nearest_reals(
        seen.images[rows],
        reals,
        distances,
        path,
        count=_ROWS,
        total=len(shown),
        share=memorised_share(seen.real, shown).item(),
    )
