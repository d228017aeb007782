"""Zero-shot COCO of a text-to-image run (Sauer et al., 2023, Tables 2 and 3): FID and CLIP's agreement.

    python experiments/stylegan_t/zero_shot.py runs/stylegan_t-primary64 --coco data/coco

Sample i is drawn of a caption of val2014, and as many pictures of it, their shorter side scaled to the resolution by
Pillow's bilinear filter and their middle cut out, are what it is compared with. The official code cuts the middle out
first, and scales it to 256 pixels and from there to less.
"""

import argparse
import json
from pathlib import Path

import torch

from lit_gans.base.images import to_uint8
from lit_gans.base.processes import find_device
from lit_gans.data import CocoCaptions
from lit_gans.evaluate import evaluate
from lit_gans.metrics.text import CLIPScore
from lit_gans.nn.clip import build_clip
from lit_gans.papers.text.game import TextGAN
from lit_gans.runs.folder import run_config
from lit_gans.runs.load import load_run


def coco(folder: Path, run: Path, resolution: int) -> CocoCaptions:
    """val2014, its captions as the run's data have theirs."""
    own = run_config(run)["data"]["init_args"]
    names = ("encode", "embeddings", "vocabulary", "max_words")
    given = {name: own[name] for name in names if own.get(name) is not None}
    annotations = folder / "annotations" / "captions_val2014.json"
    return CocoCaptions(str(folder / "val2014"), str(annotations), resolution=resolution, batch_size=64, **given)


def agreement(model: TextGAN, data: CocoCaptions, *, clip: str, num_images: int, batch_size: int = 64) -> float:
    """The mean CLIP score of images of the data's captions, that of seed i by caption i."""
    score = CLIPScore(build_clip(clip).to(model.device))
    model.take_captions(data)
    for seeds in torch.arange(num_images).split(batch_size):
        texts, features = model.held_captions(seeds)
        images = model.generate(model.seeded_latents(seeds), features=features, noise=model.seeded_noise(seeds))
        score.update(to_uint8(images.detach()), texts)
    return score.compute().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--coco", type=Path, default=Path("data/coco"))
    parser.add_argument("--num_images", type=int, default=30_000)
    parser.add_argument("--clip", default="openai/clip-vit-large-patch14")
    asked = parser.parse_args()
    game = load_run(asked.run).to(find_device("auto"))
    pictures = coco(asked.coco, asked.run, game.resolution)
    sizes = {"num_images": asked.num_images, "num_real": asked.num_images}
    found = evaluate(asked.run, data=pictures, extractor="inception", metrics=["frechet"], **sizes)
    score = agreement(game, pictures, clip=asked.clip, num_images=asked.num_images)
    print(json.dumps({"values": found.values, "protocol": found.protocol, "clip_score": score}, indent=1, default=str))
