"""How many images of a class-conditional run are of the class that was asked for, at several truncations: a table.

    python experiments/biggan/classes.py runs/biggan-flowers32 --judge_weights FILE --psis 0.25 0.5 0.75 1

Seeds 0, 1, 2, ... with the classes in turn. The judge is a logistic regression for each class, on the outputs of an
ImageNet classifier that sees the images enlarged. It learns from the run's own data, but for a fifth of them, from
which it is told what it is worth (and a fifth of the rest, which its fitting holds out too). A feature network that the
run was trained by would be no judge, and is refused.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from lit_gans.adversarial.capabilities import Truncates, can, truncate_by
from lit_gans.base.images import from_uint8, to_uint8
from lit_gans.metrics.attributes import fit_logistic
from lit_gans.papers.stylegan_xl.discriminators import Classifier
from lit_gans.runs.folder import run_config
from lit_gans.runs.load import build_data, load_run

AT_ONCE = 50


@torch.no_grad()
def outputs(judge: Classifier, images: Tensor) -> Tensor:
    """images uint8 [N, C, R, R] -> the judge's outputs [N, K]."""
    return torch.cat([judge.outputs(from_uint8(part)) for part in images.split(AT_ONCE)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--judge", default="tf_efficientnet_lite0", help="a model of timm")
    parser.add_argument("--judge_weights", help="file of its weights; by default they are downloaded")
    parser.add_argument("--judge_px", type=int, default=96)
    parser.add_argument("--psis", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--truncation", help="of BigGAN, by which of its ways; by default as it was built")
    parser.add_argument("--num_images", type=int, default=1000)
    asked = parser.parse_args()

    model, data = load_run(asked.run), build_data(run_config(asked.run))
    if not model.num_classes:
        raise SystemExit(f"{asked.run} draws no classes that could be asked for")
    if asked.judge in str(dict(model.hparams)):
        raise SystemExit(f"{asked.run} was trained by {asked.judge}: give another --judge")
    truncate_by(model, asked.truncation)
    data.prepare_data()
    reals = data.dataset(data.train_split)
    judge = Classifier(asked.judge, weights=asked.judge_weights, px=asked.judge_px)
    order = torch.randperm(len(reals), generator=torch.Generator().manual_seed(0))
    labels, seen = reals.labels[order], outputs(judge, torch.cat([reals.images(p) for p in order.split(AT_ONCE)]))
    learned = len(order) * 4 // 5
    every = torch.arange(model.num_classes)
    found = fit_logistic(seen[:learned], labels[:learned, None] == every)

    def read(told: Tensor) -> Tensor:
        """Outputs [N, K] -> the class of each [N]."""
        return (told @ found["weight"].T.to(told) + found["bias"].to(told)).argmax(1)

    reals_right = (read(seen[learned:]) == labels[learned:]).double().mean().item()
    shares = {}
    for psi in asked.psis:
        right = []
        for seeds in torch.arange(asked.num_images).split(AT_ONCE):
            wanted = seeds % model.num_classes
            right.append(read(outputs(judge, to_uint8(model.sample(seeds, labels=wanted, psi=psi)))) == wanted)
        shares[psi] = torch.cat(right).double().mean().item()
    protocol = {"judge": judge.stamp(), "num_images": asked.num_images, "kimg": model.images_seen / 1000}
    protocol["truncation"] = model.truncation if can(model, Truncates) else None
    print(json.dumps({"held_out_reals": reals_right, "share_by_psi": shares, "protocol": protocol}, indent=1))
