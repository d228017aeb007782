"""A small pair of encoders for one kind of pictures: a linear map of frozen features, and a bag of words.

It is trained with InfoNCE (van den Oord et al., 2018), as CLIP is, on some thousand captioned pictures in some
minutes. It knows the words of its captions and nothing else; numbers made with it are none of CLIP's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.cache import digest, key_of
from lit_gans.base.images import from_uint8
from lit_gans.base.precision import exact_float32
from lit_gans.base.random import Draws, derive_seed, drawing
from lit_gans.data import Images
from lit_gans.data.attributes import attribute_captions, read_attributes
from lit_gans.data.captions import END, tokenize
from lit_gans.editing.found import read_found, write_found
from lit_gans.papers.projected_gan.features import FeatureNetwork, seeded
from lit_gans.papers.text.encoders import WordReader

FEATURES = "tf_efficientnet_lite0"
KIND = "an image-text pair"


class FeaturePair(nn.Module):
    """See the module; an `ImageText`.

    Args:
        vocabulary: the words that it reads; others are left out, with a warning.
        features, weights, fingerprint: of the `FeatureNetwork`; px: the side at which it sees images.
        grid: its maps are averaged in so many fields each way, so that it matters where a feature is.
        dim: D.
    """

    mean: Tensor
    std: Tensor
    logit_scale = 100.0
    templates = ("{}",)

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        features: str = FEATURES,
        weights: str | Path | None = None,
        fingerprint: str | None = None,
        px: int = 96,
        grid: int = 3,
        dim: int = 128,
        max_words: int = 40,
    ) -> None:
        super().__init__()
        self.settings = {"vocabulary": list(vocabulary), "features": features, "px": px, "grid": grid, "dim": dim,
                         "max_words": max_words}  # fmt: skip
        self.network = FeatureNetwork(features, px=px, weights=weights, normalise=True, fingerprint=fingerprint)
        self.grid, width = grid, sum(self.network.channels) * grid**2
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.to_image = nn.Linear(width, dim)
        self.words = WordReader(vocabulary, sentence_dim=dim, max_words=max_words, word_dim=dim, rnn="bag")
        self.name = f"pair:{features}"

    @property
    def fingerprint(self) -> str:
        """16 hex digits of weights and words; its feature network is loaded for it."""
        self.network.load()
        return key_of(weights=digest(self.state_dict()), network=self.network.fingerprint, **self.settings)

    def features(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] in [-1, 1] -> [N, F]."""
        return torch.cat([F.adaptive_avg_pool2d(one, self.grid).flatten(1) for one in self.network(images)], 1)

    def embed_features(self, features: Tensor) -> Tensor:
        return F.normalize(self.to_image((features - self.mean) / self.std))

    def embed_images(self, images: Tensor) -> Tensor:
        return self.embed_features(self.features(images))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        if unknown := self.words.unknown(texts):
            warnings.warn(f"{self.name} has not read {', '.join(map(repr, unknown))}: left out", stacklevel=2)
        batch = {name: tensor.to(self.mean.device) for name, tensor in self.words.tensors(texts).items()}
        return F.normalize(self.words(batch).sentence)

    def save(self, path: str | Path, **stamp: object) -> None:
        """Writes all but the feature network, with its fingerprint, as a .safetensors file; `read_pair` reads it."""
        said = {"network_fingerprint": self.network.fingerprint, **self.settings, **stamp}
        write_found(path, KIND, self.state_dict(), said)


def read_pair(path: str | Path, *, weights: str | Path | None = None) -> FeaturePair:
    """The pair of a file from `FeaturePair.save`; weights: the file of its feature network's.

    FileNotFoundError; ValueError for another file, a damaged one, or weights other than those it was trained with.
    """
    state, said = read_found(path, KIND, way_out="train one with train_pair")
    keys = ("vocabulary", "features", "px", "grid", "dim", "max_words")
    pair = FeaturePair(**{key: said[key] for key in keys}, weights=weights, fingerprint=said["network_fingerprint"])
    pair.load_state_dict(state)
    pair.network.load()
    return pair.eval().requires_grad_(False)


# ---- training one ----------------------------------------------------------------------------------------------------


def train_pair(
    images: Iterable[Tensor],
    captions: Sequence[Sequence[str]],
    *,
    features: str = FEATURES,
    weights: str | Path | None = None,
    px: int = 96,
    epochs: int = 40,
    batch_size: int = 256,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    held_out: float = 0.1,
    seed: int = 0,
    on_step: Callable[[int, int, float], None] | None = None,
) -> tuple[FeaturePair, float]:
    """(the pair, share of held-out captions that find their picture among 100) of batches of uint8 [n, 3, R, R].

    captions: of each picture some, of which each pass draws one. The last `held_out` of the pictures are kept for the
    share. on_step(done, in all, loss): pictures looked at first, with a loss of nan, then steps. All follows from seed.
    ValueError where pictures and captions are not as many, or fewer than two batches.
    """
    with seeded(derive_seed(seed, "pair")):
        words = sorted({word for some in captions for text in some for word in tokenize(text)})
        pair = FeaturePair((END, *words), features=features, weights=weights, px=px)
    with torch.no_grad(), exact_float32(pair.mean.device):
        found: list[Tensor] = []
        for batch in images:
            found.append(pair.features(from_uint8(batch)))
            if on_step is not None:
                on_step(sum(map(len, found)), len(captions), float("nan"))
    x = torch.cat(found)
    kept = len(x) - max(round(len(x) * held_out), 1)
    if len(x) != len(captions) or kept < 2 * batch_size:
        raise ValueError(
            f"{len(x)} pictures, {kept} of them to learn from, and captions of {len(captions)}: give captions of each "
            f"picture, and {2 * batch_size} pictures or more, or a smaller batch_size"
        )
    pair.mean.copy_(x[:kept].mean(0))
    pair.std.copy_(x[:kept].std(0) + 1e-4)
    with torch.enable_grad(), drawing(Draws(seed, "pair", "dropout")):
        _fit(pair, x[:kept], captions, epochs, batch_size, lr, weight_decay, seed, on_step)
    pair.eval().requires_grad_(False)
    return pair, _found(pair, x[kept:], [some[0] for some in captions[kept:]])


def _fit(
    pair: FeaturePair,
    x: Tensor,
    captions: Sequence[Sequence[str]],
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
    on_step: Callable[[int, int, float], None] | None,
) -> None:
    """InfoNCE both ways, with the temperature learnt as in CLIP; the learning rate falls to 0 as a cosine."""
    draws, scale = Draws(seed, "pair", "order"), torch.tensor(2.7, requires_grad=True)
    learning = [*pair.to_image.parameters(), *pair.words.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": learning}, {"params": [scale], "weight_decay": 0.0}], lr=lr, weight_decay=weight_decay
    )
    steps, step = epochs * (len(x) // batch_size), 0
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    pair.words.train()
    numbers = pair.words.tensors([text for some in captions[: len(x)] for text in some])  # words are looked up once
    count = torch.tensor([len(some) for some in captions[: len(x)]])
    first = count.cumsum(0) - count
    for _ in range(epochs):
        order = draws.uniform(len(x)).argsort()
        for rows in order[: len(x) // batch_size * batch_size].split(batch_size):
            drawn = first[rows] + (draws.uniform(len(rows)) * count[rows]).long()
            sentences = F.normalize(pair.words({name: one[drawn] for name, one in numbers.items()}).sentence)
            logits = scale.exp().clamp(max=100) * pair.embed_features(x[rows]) @ sentences.T
            own = torch.arange(len(rows))
            loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if on_step is not None:
                on_step(step, steps, loss.item())


@torch.no_grad()
def _found(pair: FeaturePair, x: Tensor, texts: list[str], *, candidates: int = 100) -> float:
    """Share of texts that are nearest to their own picture, among as many as there are up to `candidates` at a time."""
    found = []
    for rows in torch.arange(len(x)).split(candidates):
        nearest = (pair.embed_texts([texts[i] for i in rows.tolist()]) @ pair.embed_features(x[rows]).T).argmax(1)
        found.append(nearest == torch.arange(len(rows)))
    return torch.cat(found).double().mean().item()


def train_face_pair(
    pictures: str,
    table: str | Path,
    *,
    resolution: int = 64,
    crop_px: int | None = None,
    first: int | None = None,
    each: int = 4,
    **settings: Any,
) -> tuple[FeaturePair, float]:
    """`train_pair` on a folder of faces and captions written from their attributes, such as CelebA's.

    resolution, crop_px: how the pictures are framed, which should be as the generator's are; first: so many of them
    alone; each: captions of a face.
    """
    data = Images(pictures, batch_size=128, resolution=resolution, labels="none", crop_px=crop_px, num_workers=0)
    names = data.dataset("train").names[:first]
    captions = attribute_captions(read_attributes(table).rows(names), each=each, seed=settings.get("seed", 0))
    batches = data.batches("train", 128, indices=torch.arange(len(names)))
    return train_pair((batch["image"] for batch in batches), captions, **settings)
