"""How well a text-to-image run's pictures agree with held-out captions, by encoders that it has not seen: a table.

    python experiments/stylegan_t/agreement.py runs/stylegan_t-flickr64 --features_weights squeezenet1_1.safetensors

An image-text pair (`lit_gans.editing.text.train_pair`: a linear map of SqueezeNet's features, a bag of words) is
trained on the training pictures, as small as the model draws. Told are, for the pictures of split "test" and for
samples of their first captions: the mean cosine with the own caption, with the others, and how many captions find
their own picture among all. Numbers made with it are none of CLIP's.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from lit_gans.base.images import from_uint8, to_uint8
from lit_gans.editing.text.pair import FeaturePair, train_pair
from lit_gans.papers.text.game import held_out
from lit_gans.runs.folder import run_config
from lit_gans.runs.load import build_data, load_run


def told(pair: FeaturePair, images: Tensor, texts: list[str]) -> dict[str, float]:
    """images uint8 [N, 3, R, R], image i of text i."""
    pictures = torch.cat([pair.embed_images(from_uint8(some)) for some in images.split(50)])
    scores = pair.embed_texts(texts) @ pictures.T  # [N, N]: a row for each text
    own = torch.eye(len(texts), dtype=torch.bool)
    return {
        "own": scores[own].mean().item(),
        "others": scores[~own].mean().item(),
        "found": (scores.argmax(1) == torch.arange(len(texts))).double().mean().item(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--features", default="torchvision:squeezenet1_1")
    parser.add_argument("--features_weights", help="file of its weights; by default they are downloaded")
    parser.add_argument("--px", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--psis", type=float, nargs="+", default=[0.5, 1.0])
    asked = parser.parse_args()

    model, data = load_run(asked.run), build_data(run_config(asked.run))
    data.prepare_data()
    if held_out(data) == data.train_split:
        raise SystemExit(f"the data of {asked.run} have no pictures that are held out")
    learned, kept = data.dataset(data.train_split), data.dataset(held_out(data))
    captions = data.split_captions(data.train_split)
    each = [captions.of(index) for index in range(len(captions))]
    batches = (learned.images(rows) for rows in torch.arange(len(learned)).split(64))
    how = {"features": asked.features, "weights": asked.features_weights, "px": asked.px, "epochs": asked.epochs}
    pair, found = train_pair(batches, each, batch_size=128, **how)
    with torch.no_grad():
        texts = data.captions(torch.arange(len(kept)), held_out(data))
        rows = {"held-out captions of training pictures, among 100": found}
        rows |= {"pictures": told(pair, kept.images(torch.arange(len(kept))), texts)}
        seeds = torch.arange(len(kept))
        for psi in asked.psis:
            drawn = torch.cat(
                [
                    to_uint8(model.sample(some, captions=[texts[i] for i in some.tolist()], psi=psi))
                    for some in seeds.split(20)
                ]
            )
            rows[f"samples, psi {psi:g}"] = told(pair, drawn, texts)
    judge = {**pair.network.stamp(), "px": asked.px, "epochs": asked.epochs}
    print(json.dumps({**rows, "protocol": {"judge": judge, "kimg": model.images_seen / 1000}}, indent=1))
