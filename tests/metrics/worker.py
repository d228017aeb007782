"""One of several processes that evaluate together and print what they found: see test_processes.py."""

import json
import os
import sys

import torch
import torch.distributed as dist

from lit_gans.data import Digits
from lit_gans.metrics import build_extractor, classifiers, evaluate_gan
from lit_gans.metrics.classifiers import Training
from lit_gans.metrics.ranks import first_on_rank_zero

from .common import PixelFeatures, conditional, digits


def fail() -> None:
    raise ValueError("nothing there")


def main(folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    gan, found = conditional(), {}
    for name, settings in {
        "odd": {"num_images": 61},  # the kernel distance draws 61 of the 1,797 reals
        "kept": {"num_images": 61},
        "few": {"num_images": 2, "metrics": ["frechet", "kid", "is", "class_accuracy"], "num_real": 50},
    }.items():
        made, extractor = [], PixelFeatures()
        sample = gan.sample
        gan.sample = lambda seeds, made=made, sample=sample, **rest: (
            made.extend(seeds.tolist()) or sample(seeds, **rest)
        )
        evaluation = evaluate_gan(
            gan,
            digits(),
            extractor=extractor,
            batch_size=8,
            seed=1,
            rank=rank,
            world=world,
            cache_dir=folder,
            **settings,
        )
        gan.sample = sample
        found[name] = {"values": evaluation.values, "seeds": made, "extracted": extractor.images}
    found["classifier"] = train_one()
    try:
        first_on_rank_zero(fail)
    except (ValueError, RuntimeError) as error:
        found["failure"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def train_one() -> str:
    """The fingerprint of a classifier that only process 0 may train."""
    if dist.get_rank() != 0:
        classifiers.train_classifier = None
    classifiers.DIGITS_TRAINING = Training(input_px=16, epochs=1)
    return build_extractor("digits", data=Digits(batch_size=1, resolution=8)).fingerprint


if __name__ == "__main__":
    assert os.environ["LIT_GANS_CACHE"]
    main(sys.argv[1])
