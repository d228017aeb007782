"""StyleCLIP's three methods and StyleMC on drawn shapes: how often an edit does what it is asked, and nothing else.

    python experiments/styleclip/shapes.py runs/stylegan2-shapes32 --output OUT \
        --features-weights tf_efficientnet_lite0.safetensors

An image-text pair is trained on captions of drawn shapes, or read from --pair. The judge is exact: it reads colour and
shape from the picture, see `lit_gans.data.ShapeCaptions.read`. A colour that is asked for must come and the shape stay,
and the other way round; a picture that is no shape any more has neither. What is counted stands at `methods.rates`.
"""

from __future__ import annotations

import torch
from methods import Asked, arguments, measure
from torch import Tensor

from lit_gans.base.progress import Lines
from lit_gans.data import ShapeCaptions
from lit_gans.data.shapes import COLOURS, SHAPES
from lit_gans.editing.text import read_pair, train_pair
from lit_gans.editing.text.pair import FeaturePair
from lit_gans.runs.load import load_run

# What is asked, from what to what, and the judge's column and number.
ASKED = {
    **{name: Asked(f"a {name} shape", "a shape", 0, list(COLOURS).index(name)) for name in ("red", "blue")},
    **{name: Asked(f"a {name}", "a shape", 1, SHAPES.index(name)) for name in ("circle", "star")},
}
TOLD = {"position": ["in the centre"], "size": ["medium", "large"]}


def shapes(px: int, count: int) -> ShapeCaptions:
    return ShapeCaptions(batch_size=64, resolution=px, images=count, holdout=False, only=TOLD)


def judged(images: Tensor) -> Tensor:
    """uint8 [N, 3, R, R] -> int64 [N, 2]: colour and shape, -1 where there is none."""
    found = shapes(images.shape[-1], 1).read(images)
    return torch.stack([found["colour"], found["shape"]], 1)


def pair_of(px: int, weights: str, *, count: int = 4000) -> tuple[FeaturePair, float]:
    """`train_pair` on `count` pictures, each with the words for its colour and its shape."""
    data = shapes(px, count)
    told = data.attributes(torch.arange(count))
    rows = zip(told["colour"].tolist(), told["shape"].tolist(), strict=True)
    names = [(list(COLOURS)[colour], SHAPES[shape]) for colour, shape in rows]
    captions = [[f"a {colour} {shape}", f"a {colour} shape", f"a {shape}"] for colour, shape in names]
    batches = (batch["image"] for batch in data.batches("train", 128, indices=torch.arange(count)))
    lines = Lines("of the pair")
    return train_pair(batches, captions, weights=weights, on_step=lambda done, total, _: lines(done, total, ""))


def main() -> None:
    given = arguments(str(__doc__), list(ASKED)).parse_args()
    torch.set_num_threads(1)
    model = load_run(given.run)
    pair = read_pair(given.pair, weights=given.features_weights) if given.pair else None
    if pair is None:
        pair, found = pair_of(model.resolution, given.features_weights)
        print(f"pair: {found:.3f} of held-out captions find their picture among 100", flush=True)
        pair.save(given.output / "pair.safetensors")
    measure(given, model, judged, ASKED, {"image_text": pair, "identity": None})


if __name__ == "__main__":
    main()
