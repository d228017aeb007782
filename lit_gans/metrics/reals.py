"""What the metrics need of the real images: taken once, kept on disk under everything that it depends on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from lit_gans.base.cache import cache_folder, key_of, read_tensors, write_tensors
from lit_gans.base.processes import as_rank_zero_says, share_of
from lit_gans.metrics.extractors import Extractor
from lit_gans.metrics.features import FeatureSet, Moments
from lit_gans.metrics.manifold import neighbour_radii

if TYPE_CHECKING:
    from lit_gans.metrics.measures import Context

_VERSION = 2  # of the files' content

Progress = Callable[[str, int, int], None]
"""progress(what, done, total), called after every batch."""


@runtime_checkable
class RealImages(Protocol):
    """What is asked of a data module."""

    resolution: int
    channels: int
    num_classes: int
    class_names: Sequence[str]

    def dataset(self, split: str = "train"): ...

    def fingerprint(self, split: str = "train") -> str: ...

    def batches(
        self, split: str = "train", batch_size: int = 64, *, indices: Tensor | None = None
    ) -> Iterator[dict]: ...


@dataclass(frozen=True)
class RealStatistics:
    """Moments (count, mean, scatter) of the features and, or None, of spatial ones; features float32 [N, D] or None.

    `path` is the file that they are kept in.
    """

    moments: tuple[int, Tensor, Tensor]
    spatial: tuple[int, Tensor, Tensor] | None
    features: Tensor | None
    path: Path

    def radii(self, *, k: int, device: torch.device) -> Tensor:
        """[N] float64: distances to the k-th nearest other real, found once (a while, for large sets) and kept."""
        path = self.path.with_name(f"{self.path.stem}-radii{k}.safetensors")
        kept = read_tensors(path)
        if kept is not None:
            return kept[0]["radii"]
        assert self.features is not None
        radii = neighbour_radii(self.features.to(device), k=k).cpu()
        _keep(path, {"radii": radii})
        return radii


@dataclass(frozen=True)
class Reals:
    """The real images of an evaluation: a split of `data`, or `num_real` of it."""

    data: RealImages
    split: str
    num_real: int | None = None

    @property
    def available(self) -> int:
        return len(self.data.dataset(self.split))

    @property
    def indices(self) -> Tensor:
        """int64 [N]: the places in the split of those that are taken; ValueError for more than there are."""
        return real_indices(self.available, self.num_real)

    def statistics(self, extractor: Extractor, context: Context, *, whole: bool) -> RealStatistics | None:
        """`real_statistics` of them."""
        return real_statistics(
            self.data, extractor, split=self.split, num_real=self.num_real, whole=whole,
            batch_size=context.plan.batch_size, rank=context.rank, world=context.world, folder=context.cache_dir,
            device=context.device, progress=context.progress,
        )  # fmt: skip


def real_indices(length: int, num_real: int | None) -> Tensor:
    """int64 [N], sorted: all, or `num_real` drawn once and for all (a folder's first images are often of one class)."""
    if num_real is None:
        return torch.arange(length)
    if not 2 <= num_real <= length:
        raise ValueError(f"num_real is {num_real}; the split has {length} images: use 2 to {length}, or None for all")
    return torch.randperm(length, generator=torch.Generator().manual_seed(0))[:num_real].sort().values


def statistics_file(
    data: RealImages, extractor: Extractor, *, split: str, count: int, whole: bool, folder: Path | None = None
) -> Path:
    """Where the statistics are kept; the name changes with whatever changes them. `whole`: with all features."""
    key = key_of(
        version=_VERSION,
        dataset=data.fingerprint(split),
        split=split,
        resolution=data.resolution,
        channels=data.channels,
        extractor=[extractor.name, extractor.fingerprint, extractor.resize, extractor.num_spatial],
        count=count,
    )
    kind = "features" if whole else "moments"
    return (folder or cache_folder()) / f"real-{extractor.name}-{key}-{kind}.safetensors"


def real_statistics(
    data: RealImages,
    extractor: Extractor,
    *,
    split: str = "train",
    num_real: int | None = None,
    whole: bool = True,
    batch_size: int = 64,
    rank: int = 0,
    world: int = 1,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> RealStatistics | None:
    """Statistics of the reals on process 0, None on the others; all must call it. `whole` keeps every feature.

    Read from disk where they are kept; otherwise the processes share the images, and process 0 keeps the result.
    Several evaluations may do so at once: each writes a file of its own and renames it, and the last one stays.
    """
    indices = real_indices(len(data.dataset(split)), num_real)
    path = statistics_file(data, extractor, split=split, count=len(indices), whole=whole, folder=folder)
    wider = statistics_file(data, extractor, split=split, count=len(indices), whole=True, folder=folder)
    kept = _read(path if path.is_file() else wider) if rank == 0 else None
    if as_rank_zero_says(kept is not None, torch.device(device)):
        return kept
    made = _extract(data, extractor, split, indices, whole, batch_size, rank, world, torch.device(device), progress)
    if rank != 0:
        return None
    _keep(path, made)
    return _statistics(made, path)


def _keep(path: Path, tensors: dict[str, Tensor]) -> None:
    """A full disk or a folder without rights costs the time to take them again, not the evaluation."""
    from safetensors import SafetensorError

    try:
        write_tensors(path, tensors, {})
    except (OSError, SafetensorError) as error:
        warnings.warn(f"statistics of the real images are not kept in {path} ({error})", stacklevel=3)


def _read(path: Path) -> RealStatistics | None:
    kept = read_tensors(path)
    return None if kept is None else _statistics(kept[0], path)


def _statistics(tensors: dict[str, Tensor], path: Path) -> RealStatistics:
    count = int(tensors["count"])
    spatial = (count, tensors["spatial_mean"], tensors["spatial_scatter"]) if "spatial_mean" in tensors else None
    return RealStatistics((count, tensors["mean"], tensors["scatter"]), spatial, tensors.get("features"), path)


def _extract(
    data: RealImages,
    extractor: Extractor,
    split: str,
    indices: Tensor,
    whole: bool,
    batch_size: int,
    rank: int,
    world: int,
    device: torch.device,
    progress: Progress | None,
) -> dict[str, Tensor]:
    """This process's share of the images through the extractor, gathered from all: the content of the file."""
    done, mine = 0, share_of(len(indices), rank=rank, world=world)
    moments = Moments(extractor.num_features).to(device)
    spatial = Moments(extractor.num_spatial).to(device)
    features = FeatureSet(extractor.num_features, capacity=len(mine)).to(device)
    for metric in (moments, spatial, features):  # a process without images has (empty) state too
        metric.update(torch.empty(0, metric.num_features, device=device))
    for batch in data.batches(split, batch_size, indices=indices[mine]):
        extracted = extractor.extract(batch["image"].to(device))
        moments.update(extracted.features)
        if extracted.spatial is not None:
            spatial.update(extracted.spatial)
        if whole:
            features.update(extracted.features, mine[done : done + len(extracted.features)])
        done += len(extracted.features)
        if progress is not None:
            progress("real images", done, len(mine))
    count, mean, scatter = moments.compute()
    made = {"count": torch.tensor(count), "mean": mean.cpu(), "scatter": scatter.cpu()}
    if extractor.num_spatial:
        _, spatial_mean, spatial_scatter = spatial.compute()
        made |= {"spatial_mean": spatial_mean.cpu(), "spatial_scatter": spatial_scatter.cpu()}
    return {**made, "features": features.gathered().cpu()} if whole else made
