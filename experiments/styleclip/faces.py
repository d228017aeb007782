"""StyleCLIP's three methods and StyleMC on generated faces: how often an edit does what it is asked, and nothing else.

    python experiments/styleclip/faces.py RUN --pictures img_align_celeba --table list_attr_celeba.txt \
        --features-weights tf_efficientnet_lite0.safetensors --judge-weights squeezenet1_1.safetensors --output OUT

An image-text pair is trained on captions written from the table, or read from --pair. The judge is the classifier of
`lit-gans directions`, a logistic regression on the features of SqueezeNet, which the pair, of EfficientNet-lite0, knows
nothing of, trained on the last pictures of the table, where the pair has the first. Of faces that lack the asked
attribute by the judge, "changed" is the share that has it after the edit; "kept" is the share of the other attributes,
over all faces and attributes, of which the judge says the same as before.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.base.grids import readable_grid
from lit_gans.base.images import save_png, to_uint8
from lit_gans.base.progress import Lines
from lit_gans.data import Images
from lit_gans.data.attributes import read_attributes
from lit_gans.editing.layers import synthesize_shifted
from lit_gans.editing.text import (
    build_identity,
    find_channel_effects,
    find_direction,
    mapped,
    optimize_latents,
    read_effects,
    read_pair,
    train_face_pair,
    train_mapper,
)
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
METHODS = ("optimisation", "mapper", "global", "StyleMC")
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
    return train_attributes(table, data, seeing, progress=Lines("pictures")).only(OTHERS)


def rates(judge: LinearAttributes, before: Tensor, after: Tensor, asked: str) -> dict[str, float]:
    """Images [N, 3, R, R] in [-1, 1] before and after -> the shares that are told above."""
    a, b = (judge(to_uint8(images.clamp(-1, 1))) > 0 for images in (before, after))
    own = OTHERS.index(asked)
    lacking = ~a[:, own]
    others = [i for i in range(len(OTHERS)) if i != own]
    return {
        "changed": b[lacking, own].double().mean().item(),
        "faces": int(lacking.sum()),
        "kept": (a == b)[:, others].double().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--pictures", "--table", "--features-weights", "--judge-weights", "--output"):
        parser.add_argument(name, required=True)
    parser.add_argument("run")
    parser.add_argument("--pair")
    parser.add_argument("--identity")
    parser.add_argument("--crop-px", type=int, default=89)
    parser.add_argument("--pictures-used", type=int, default=6000)
    parser.add_argument("--faces", type=int, default=48)
    parser.add_argument("--optimisation-steps", type=int, default=300)
    parser.add_argument("--mapper-steps", type=int, default=2000)
    parser.add_argument("--effect-images", type=int, default=16)
    parser.add_argument("--l2-weight", type=float, nargs="+", default=[0.008, 0.002])
    parser.add_argument("--asked", nargs="+", default=list(ASKED), choices=list(ASKED))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    run(parser.parse_args())


def run(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    out = Path(given.output)
    framing = {"crop_px": given.crop_px, "first": given.pictures_used}
    judge = judge_of(given)
    print("judge, held out:", ", ".join(f"{name} {one:.3f}" for name, one in judge.accuracy.items()), flush=True)
    pair = read_pair(given.pair, weights=given.features_weights) if given.pair else None
    if pair is None:
        pair, found = train_face_pair(given.pictures, given.table, **framing, weights=given.features_weights)
        print(f"pair: {found:.3f} of held-out captions find their picture among 100", flush=True)
        pair.save(out / "pair.safetensors")
    identity = build_identity(given.identity, crop=CELEBA_CROP) if given.identity else None
    model = load_run(given.run)
    ws = model.styles(model.seeded_latents(range(given.faces)), psi=0.7)
    before = model.synthesize(ws)
    lines = Lines("steps")
    shared: Shared = {"image_text": pair, "identity": identity}
    shared["on_step"] = lambda done, total, loss: lines(done, total, f"loss {loss:.4f}")
    for asked in given.asked:
        rows, sheet = [], [before]
        for name in given.methods:
            started = time.time()
            for setting, edit in EDITS[name](given, model, ws, asked, out, shared):
                after = edit().detach()
                rows.append({"asked": asked, "method": name, "setting": setting, "seconds": time.time() - started})
                rows[-1] |= rates(judge, before, after, asked)
                sheet.append(after)
                print(json.dumps(rows[-1]), flush=True)
                started = time.time()
        cells = torch.stack([to_uint8(images[:8].clamp(-1, 1)) for images in sheet])
        save_png(readable_grid(cells.flatten(0, 1), 8), out / f"{asked}-{'-'.join(given.methods)}.png")
        with (out / "rates.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


# ---- the edits: what was set, and what makes the images --------------------------------------------------------------

Edits = Iterator[tuple[str, Callable[[], Tensor]]]
Shared = dict[str, Any]  # image_text, identity, on_step


def optimised(given: argparse.Namespace, model: GAN, ws: Tensor, asked: str, out: Path, shared: Shared) -> Edits:
    for l2_weight in given.l2_weight:
        how = {"steps": given.optimisation_steps, "l2_weight": l2_weight}
        how["id_weight"] = 0.005 if shared["identity"] else 0.0
        moved = partial(optimize_latents, model, ws, ASKED[asked][0], **shared, **how)
        yield f"l2 {l2_weight}", lambda moved=moved: model.synthesize(moved().ws)


def of_mapper(given: argparse.Namespace, model: GAN, ws: Tensor, asked: str, out: Path, shared: Shared) -> Edits:
    how = {"steps": given.mapper_steps, "id_weight": 0.1 if shared["identity"] else 0.0}
    mapper = train_mapper(model, ASKED[asked][0], out / f"mapper-{asked}.safetensors", **shared, **how)
    for strength in (0.1, 0.2, 0.4):
        yield f"strength {strength}", lambda s=strength: model.synthesize(mapped(mapper, ws, strength=s))


def of_channels(given: argparse.Namespace, model: GAN, ws: Tensor, asked: str, out: Path, shared: Shared) -> Edits:
    file, pair = out / "effects.safetensors", shared["image_text"]
    if not file.exists():
        images = {"num_images": given.effect_images, "num_samples": 10_000}
        find_channel_effects(model, image_text=pair, **images, on_step=Lines("channels")).save(file)
    for threshold, alpha in ((0.1, 3.0), (0.1, 6.0), (0.25, 5.0), (0.25, 10.0)):
        shift = read_effects(file).shift(*ASKED[asked], image_text=pair, threshold=threshold)
        setting = f"beta {threshold}, alpha {alpha}, {shift.settings['channels']} channels"
        yield setting, partial(synthesize_shifted, model, ws, shift.times(alpha))


def of_stylemc(given: argparse.Namespace, model: GAN, ws: Tensor, asked: str, out: Path, shared: Shared) -> Edits:
    shift = find_direction(model, ASKED[asked][0], image_text=shared["image_text"], psi=0.7)
    for strength in (1.0, 2.0, 4.0):
        yield f"strength {strength}", partial(synthesize_shifted, model, ws, shift.times(strength))


EDITS = dict(zip(METHODS, (optimised, of_mapper, of_channels, of_stylemc), strict=True))


if __name__ == "__main__":
    main()
