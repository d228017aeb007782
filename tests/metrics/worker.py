"""One of several processes that evaluate together and print what they found: see test_processes.py."""

import json
import os
import sys

import torch
import torch.distributed as dist

from lit_gans.base.processes import first_on_rank_zero
from lit_gans.data import Digits
from lit_gans.metrics import Plan, build_extractor, classifiers, evaluate_gan, extractors
from lit_gans.metrics.classifiers import Training
from lit_gans.metrics.equivariance import measure_equivariance

from .common import PixelFeatures, SpatialFeatures, brightness, conditional, digits, squared
from .waves import KINDS, Waves


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
        "few": {"num_images": 2, "metrics": ["frechet", "kid", "is", "class_accuracy", "torchmetrics_fid",
                                             "torchmetrics_is"], "num_real": 50},
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
            plan=Plan(batch_size=8, seed=1, **settings),
            rank=rank,
            world=world,
            cache_dir=folder,
        )
        gan.sample = sample
        found[name] = {"values": evaluation.values, "seeds": made, "extracted": extractor.images}
    found["all"] = everything(rank, world)
    found["classifier"] = train_one()
    try:
        first_on_rank_zero(fail)
    except (ValueError, RuntimeError) as error:
        found["failure"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def everything(rank: int = 0, world: int = 1) -> dict[str, float]:
    """Every metric that digits have, on numbers of images that 2 and 3 do not divide."""
    plan = Plan(
        metrics=["frechet", "sfid", "rfid", "intra_fid", "kid", "is", "precision", "recall", "density", "coverage",
                 "class_accuracy", "torchmetrics_fid", "torchmetrics_is", "swd",
                 "ppl_z_full", "ppl_z_end", "separability"],
        num_images=61, num_real=61, batch_size=8, neighbours=3, path_samples=35, separability_samples=49, seed=2,
    )  # fmt: skip
    extractors.RandomInception = lambda: PixelFeatures(
        name="random_inception", num_classes=0, seed=3
    )  # the real is slow
    seen = []
    evaluation = evaluate_gan(
        conditional(16), digits(16), extractor=SpatialFeatures(), plan=plan, distance=squared,
        attributes={"bright": brightness}, rank=rank, world=world, show=seen.append,
    )  # fmt: skip
    assert len(seen) == (rank == 0) and all(shown.images.shape == (61, 1, 16, 16) for shown in seen)
    pictures = {"pictures": float(seen[0].images.double().mean())} if seen else {}
    moves = {k: measure_equivariance(Waves(16, "stay"), k, num_samples=21, rank=rank, world=world) for k in KINDS}
    return {**evaluation.values, **pictures, **moves}


def train_one() -> str:
    """The fingerprint of a classifier that only process 0 may train."""
    if dist.get_rank() != 0:
        classifiers.train_classifier = None
    classifiers.DIGITS_TRAINING = Training(input_px=16, epochs=1)
    return build_extractor("digits", data=Digits(batch_size=1, resolution=8)).fingerprint


if __name__ == "__main__":
    assert os.environ["LIT_GANS_CACHE"]
    main(sys.argv[1])
