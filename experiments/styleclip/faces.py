"""StyleCLIP's three methods and StyleMC on generated faces: how often an edit does what it is asked, and nothing else.

    python experiments/styleclip/faces.py RUN --pictures img_align_celeba --table list_attr_celeba.txt \
        --features-weights tf_efficientnet_lite0.safetensors --judge-weights squeezenet1_1.safetensors --output OUT

An image-text pair is trained on captions written from the table, or read from --pair. The judge is the classifier of
`lit-gans directions`, a logistic regression on the features of SqueezeNet, which the pair, of EfficientNet-lite0, knows
nothing of, trained on the last pictures of the table, where the pair has the first. What is counted
stands at `methods.rates`.
"""

from __future__ import annotations

import argparse

import torch
from methods import Asked, arguments, measure

from lit_gans.base.progress import Lines
from lit_gans.data import Images
from lit_gans.data.attributes import read_attributes
from lit_gans.editing.text import build_identity, read_pair, train_face_pair
from lit_gans.editing.text.identity import CELEBA_CROP
from lit_gans.metrics.attributes import LinearAttributes, train_attributes
from lit_gans.metrics.building import build_extractor
from lit_gans.runs.load import load_run

# What is asked, from what to what, and the attribute that the judge looks for.
ASKED = {
    "Smiling": ("a smiling face", "a serious face"),
    "Eyeglasses": ("a face with glasses", "a face"),
    "Blond_Hair": ("a face with blond hair", "a face with black hair"),
}
OTHERS = (
    "Male", "Young", "Smiling", "Eyeglasses", "Blond_Hair", "Black_Hair", "Bangs", "Heavy_Makeup", "Wearing_Lipstick",
    "Wearing_Hat", "No_Beard", "Mouth_Slightly_Open", "Pale_Skin", "Gray_Hair",
)  # fmt: skip


def judge_of(given: argparse.Namespace) -> LinearAttributes:
    """The package's classifier of OTHERS, trained on the pictures of the table that the pair does not learn from."""
    data = Images(
        given.pictures, batch_size=128, resolution=64, labels="none", crop_px=given.crop_px, num_workers=0
    )  # fmt: skip
    table = read_attributes(given.table).rows(data.dataset("train").names[given.pictures_used :])
    seeing = build_extractor("torchvision:squeezenet1_1", weights_path=given.judge_weights)
    lines = Lines()
    progress = lambda what, done, total: lines(done, total, what)  # noqa: E731
    return train_attributes(table, data, seeing, progress=progress).only(OTHERS)


def main() -> None:
    parser = arguments(str(__doc__), list(ASKED))
    for name in ("--pictures", "--table", "--judge-weights"):
        parser.add_argument(name, required=True)
    parser.add_argument("--identity")
    parser.add_argument("--crop-px", type=int, default=89)
    parser.add_argument("--pictures-used", type=int, default=6000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    judge = judge_of(given)
    print("judge, held out:", ", ".join(f"{name} {one:.3f}" for name, one in judge.accuracy.items()), flush=True)
    pair = read_pair(given.pair, weights=given.features_weights) if given.pair else None
    if pair is None:
        framing = {"crop_px": given.crop_px, "first": given.pictures_used}
        pair, found = train_face_pair(given.pictures, given.table, **framing, weights=given.features_weights)
        print(f"pair: {found:.3f} of held-out captions find their picture among 100", flush=True)
        pair.save(given.output / "pair.safetensors")
    identity = build_identity(given.identity, crop=CELEBA_CROP) if given.identity else None
    asked = {name: Asked(*texts, OTHERS.index(name), True) for name, texts in ASKED.items()}
    shared = {"image_text": pair, "identity": identity}
    measure(given, load_run(given.run), lambda images: judge(images) > 0, asked, shared)


if __name__ == "__main__":
    main()
