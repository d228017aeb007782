"""StyleCLIP's three methods and StyleMC on generated faces: how often an edit does what it is asked, and nothing else.

    python experiments/styleclip/faces.py RUN --pictures img_align_celeba --table list_attr_celeba.txt \
        --features-weights tf_efficientnet_lite0.safetensors --judge-weights squeezenet1_1.safetensors --output OUT

An image-text pair is trained on captions written from the table, or read from --pair. The judge is a logistic
regression on the features of SqueezeNet, which the pair, of EfficientNet-lite0, knows nothing of, trained on the last
pictures of the table, where the pair has the first. Of faces that lack the asked attribute by the judge, "changed" is
the share that has it after the edit; "kept" is the share of the other attributes, over all faces and attributes, of
which the judge says the same as before.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.base.cache import read_tensors, write_tensors
from lit_gans.base.grids import readable_grid
from lit_gans.base.images import from_uint8, save_png, to_uint8
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
from lit_gans.papers.projected_gan.features import FeatureNetwork
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


class Judge:
    """uint8 [N, 3, R, R] -> logits [N, A] of OTHERS, by logistic regression on SqueezeNet's features."""

    def __init__(self, weights: Path) -> None:
        self.network = FeatureNetwork("torchvision:squeezenet1_1", px=96, weights=weights, normalise=True)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(x, 3).flatten(1) for x in self.network(from_uint8(images))[1:]], 1)

    def fit(self, kept: Path, pictures: str, table: Path, *, crop_px: int, first: int) -> dict[str, float]:
        """Accuracy of each attribute on the last fifth of the pictures; `kept` is the file it is kept in."""
        if not kept.exists():
            write_tensors(kept, self._found(pictures, table, crop_px=crop_px, first=first), {})
        found = read_tensors(kept)
        assert found is not None, kept
        self.mean, self.std, self.weight, self.bias = (found[0][name] for name in ("mean", "std", "weight", "bias"))
        return dict(zip(OTHERS, found[0]["accuracy"].tolist(), strict=True))

    def _found(self, pictures: str, table: Path, *, crop_px: int, first: int) -> dict[str, Tensor]:
        data = Images(pictures, batch_size=128, resolution=64, labels="none", crop_px=crop_px, num_workers=0)
        names = data.dataset("train").names[-first:]
        rows = torch.arange(len(data.dataset("train")))[-first:]
        known = read_attributes(table).rows(names)
        labels = torch.stack([known.column(name) for name in OTHERS], 1).double()
        x = torch.cat([self.features(batch["image"]) for batch in data.batches("train", 128, indices=rows)]).double()
        kept = len(x) * 4 // 5
        mean, std = x[:kept].mean(0), x[:kept].std(0) + 1e-6
        x = (x - mean) / std
        weight = torch.zeros(len(OTHERS), x.shape[1], dtype=x.dtype, requires_grad=True)
        bias = torch.zeros(len(OTHERS), dtype=x.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            wrong = F.binary_cross_entropy_with_logits(F.linear(x[:kept], weight, bias), labels[:kept])
            total = wrong + 0.003 * weight.square().sum()
            total.backward()
            return total

        optimizer.step(loss)
        right = (F.linear(x[kept:], weight, bias) > 0) == (labels[kept:] > 0)
        return {"mean": mean, "std": std, "weight": weight, "bias": bias, "accuracy": right.double().mean(0)}

    def __call__(self, images: Tensor) -> Tensor:
        x = torch.cat([self.features(part) for part in images.split(64)]).double()
        return F.linear((x - self.mean) / self.std, self.weight, self.bias)


def rates(judge: Judge, before: Tensor, after: Tensor, asked: str) -> dict[str, float]:
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
    judge = Judge(Path(given.judge_weights))
    accuracy = judge.fit(out / "judge.safetensors", given.pictures, Path(given.table), **framing)
    print("judge, held out:", ", ".join(f"{name} {one:.3f}" for name, one in accuracy.items()), flush=True)
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
    shared = {"image_text": pair, "identity": identity}
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


def optimised(given, model, ws, asked: str, out: Path, shared: dict) -> Edits:
    for l2_weight in given.l2_weight:
        how = {"steps": given.optimisation_steps, "l2_weight": l2_weight}
        how["id_weight"] = 0.005 if shared["identity"] else 0.0
        moved = partial(optimize_latents, model, ws, ASKED[asked][0], **shared, **how)
        yield f"l2 {l2_weight}", lambda moved=moved: model.synthesize(moved().ws)


def of_mapper(given, model, ws, asked: str, out: Path, shared: dict) -> Edits:
    how = {"steps": given.mapper_steps, "id_weight": 0.1 if shared["identity"] else 0.0}
    mapper = train_mapper(model, ASKED[asked][0], out / f"mapper-{asked}.safetensors", **shared, **how)
    for strength in (0.1, 0.2, 0.4):
        yield f"strength {strength}", lambda s=strength: model.synthesize(mapped(mapper, ws, strength=s))


def of_channels(given, model, ws, asked: str, out: Path, shared: dict) -> Edits:
    file, pair = out / "effects.safetensors", shared["image_text"]
    if not file.exists():
        images = {"num_images": given.effect_images, "num_samples": 10_000}
        find_channel_effects(model, image_text=pair, **images, on_step=Lines("channels")).save(file)
    for threshold, alpha in ((0.1, 3.0), (0.1, 6.0), (0.25, 5.0), (0.25, 10.0)):
        shift = read_effects(file).shift(*ASKED[asked], image_text=pair, threshold=threshold)
        setting = f"beta {threshold}, alpha {alpha}, {shift.settings['channels']} channels"
        yield setting, partial(synthesize_shifted, model, ws, shift.times(alpha))


def of_stylemc(given, model, ws, asked: str, out: Path, shared: dict) -> Edits:
    shift = find_direction(model, ASKED[asked][0], image_text=shared["image_text"], psi=0.7)
    for strength in (1.0, 2.0, 4.0):
        yield f"strength {strength}", partial(synthesize_shifted, model, ws, shift.times(strength))


EDITS = dict(zip(METHODS, (optimised, of_mapper, of_channels, of_stylemc), strict=True))


if __name__ == "__main__":
    main()
