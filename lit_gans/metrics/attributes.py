"""Classifiers of attributes: logistic regression on the features of a frozen network, from a table of labels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.cache import cache_folder, digest, key_of, read_tensors, write_tensors
from lit_gans.data.attributes import AttributeTable
from lit_gans.data.images import FileSet
from lit_gans.metrics.extractors import Extractor
from lit_gans.metrics.reals import Progress, RealImages, real_statistics
from lit_gans.metrics.separability import AttributeClassifier

Judge = Callable[[Tensor], Tensor]
"""judge(images): uint8 [N, C, H, W] -> logits [N, A], positive where an image has the attribute."""

_VERSION = 1  # of the training, part of the key of what is kept
_HELD_OUT, _DECAY, _STEPS = 0.2, 0.01, 100


class LinearAttributes(nn.Module):
    """Logits of attributes, linear in the features of a frozen extractor: a `Judge`.

    names: of the attributes; accuracy: of each on the pictures that were held out.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, extractor: Extractor, names: Sequence[str], state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.extractor, self.names = extractor, tuple(names)
        self.register_buffer("weight", state["weight"])
        self.register_buffer("bias", state["bias"])
        self.accuracy = dict(zip(self.names, state["accuracy"].tolist(), strict=True))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> logits [N, A]."""
        return F.linear(self.extractor.extract(images).features, self.weight, self.bias)

    def only(self, names: Sequence[str]) -> LinearAttributes:
        """The classifier of these attributes. ValueError for one that it does not know."""
        if unknown := [name for name in names if name not in self.names]:
            raise ValueError(f"there is no attribute {unknown[0]!r} in the table; it has {', '.join(self.names)}")
        rows = [self.names.index(name) for name in names]
        accuracy = torch.tensor([self.accuracy[name] for name in names])
        state = {"weight": self.weight[rows], "bias": self.bias[rows], "accuracy": accuracy}
        return LinearAttributes(self.extractor, names, state)

    def classifiers(self) -> dict[str, AttributeClassifier]:
        """One for each attribute, as the linear separability asks for them."""
        return {name: partial(self._one, i) for i, name in enumerate(self.names)}

    def _one(self, column: int, images: Tensor) -> Tensor:
        return self(images)[:, column]


def together(classifiers: Mapping[str, AttributeClassifier]) -> Judge:
    """The judge whose columns are what the classifiers say, in their order."""
    return lambda images: torch.stack([classifier(images) for classifier in classifiers.values()], dim=1)


def train_attributes(
    table: AttributeTable,
    data: RealImages,
    extractor: Extractor,
    *,
    split: str = "train",
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> LinearAttributes:
    """Trained on the pictures of `data` that the table knows by the names of their files, once, then kept in `folder`.

    So are the features of all pictures, which are those of an evaluation. device: the extractor's. ValueError where the
    data has no files, or fewer than two of each kind of an attribute have a row.
    """
    images = data.dataset(split)
    if not isinstance(images, FileSet):
        raise ValueError(f"the pictures of {type(data).__name__} have no file names, which the table goes by")
    places, rows = table.rows_of(images.names)
    values = table.values[rows]
    _check_values(table, images.names, values)
    key = key_of(
        version=_VERSION, data=data.fingerprint(split), table=digest({"values": values, "places": places}),
        names=table.attributes, extractor=[extractor.name, extractor.fingerprint, extractor.resize],
    )  # fmt: skip
    path = (folder or cache_folder()) / f"attributes-{extractor.name}-{key}.safetensors"

    kept = read_tensors(path)
    state = kept[0] if kept is not None else {}
    if kept is None:
        left = f"; {len(images) - len(places)} pictures have no row" if len(places) < len(images) else ""
        what = f"{len(table.attributes)} attributes on {len(places)} pictures with {extractor.name}{left}"
        print(f"Training classifiers of {what}, once; kept at {path}", file=sys.stderr)
        reals = real_statistics(data, extractor, split=split, folder=folder, device=device, progress=progress)
        assert reals is not None and reals.features is not None  # of the first process, and whole
        state = fit_logistic(reals.features[places], values)
        write_tensors(path, state, {"names": json.dumps(table.attributes), "extractor": extractor.name})
    return LinearAttributes(extractor, table.attributes, state)


def _check_values(table: AttributeTable, files: Sequence[str], values: Tensor) -> None:
    if len(values) == 0:
        raise ValueError(
            f"none of the {len(files)} pictures (such as {files[0]}) has a row in the table (such as "
            f"{table.files[0]}): name the folder in which files are called as in the table"
        )
    least = torch.minimum(values.sum(0), (~values).sum(0))
    if (rare := int(least.argmin())) >= 0 and least[rare] < 2:
        raise ValueError(
            f"attribute {table.attributes[rare]!r}: {int(values[:, rare].sum())} of {len(values)} pictures have it; "
            f"both kinds need two or more: leave it out of the table, or give more pictures"
        )


def fit_logistic(features: Tensor, values: Tensor) -> dict[str, Tensor]:
    """features [N, D], values bool [N, A] -> weight [A, D], bias [A] of logits, and accuracy [A] on a fifth held out.

    Logistic regression with weight decay on standardised features, all attributes at once, by L-BFGS in float64.
    """
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    kept, held_out = order[round(_HELD_OUT * len(order)) :], order[: round(_HELD_OUT * len(order))]
    x, y = features.double().cpu(), values.double()
    mean, std = x[kept].mean(0), x[kept].std(0).clamp(min=1e-8)
    x = (x - mean) / std
    weight = torch.zeros(y.shape[1], x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(y.shape[1], dtype=x.dtype, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        wrong = F.binary_cross_entropy_with_logits(F.linear(x[kept], weight, bias), y[kept], reduction="none")
        total = wrong.mean(0).sum() + _DECAY / 2 * weight.square().sum()
        total.backward()
        return total

    with torch.inference_mode(False), torch.enable_grad():
        search.step(loss)
    weight, bias = weight.detach(), bias.detach()
    accuracy = ((F.linear(x[held_out], weight, bias) > 0) == values[held_out]).double().mean(0)
    plain = weight / std
    return {"weight": plain.float(), "bias": (bias - plain @ mean).float(), "accuracy": accuracy}
