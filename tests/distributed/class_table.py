"""One of several processes that each make a share of StyleGAN-XL's table of classes, and have all of it."""

import os

import torch
import torch.distributed as dist

from lit_gans.data import Digits
from lit_gans.papers.projected_gan.features import FeatureNetwork
from lit_gans.papers.stylegan_xl.discriminators import class_features


def main() -> None:
    network, data = FeatureNetwork("test_resnet", px=32, weights="random"), Digits(resolution=16, batch_size=4)
    network.load()
    given = {"classes": data.class_names, "most": 5}
    alone = class_features(network, data.dataset(), **given)
    dist.init_process_group("gloo")
    seen: list[int] = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    together = class_features(network, data.dataset(), **given)
    assert torch.equal(together, alone) and together.abs().amax(1).min() > 0
    assert seen == [5] * (10 // int(os.environ["WORLD_SIZE"]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
