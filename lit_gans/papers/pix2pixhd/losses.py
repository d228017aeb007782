"""What pix2pixHD's players minimise (Wang et al., 2018, Sec. 3.2 and 3.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from lit_gans.base.checkpoints import read_weights
from lit_gans.base.download import weights_file
from lit_gans.papers.pix2pix import as_rgb
from lit_gans.papers.pix2pixhd.networks import Features


def least_squares(features: Features, target: float) -> Tensor:
    """Mean squared distance of the predictions from `target`, summed over the scales (Eq. 3), in single precision."""
    return torch.stack([(scale[-1].float() - target).square().mean() for scale in features]).sum()


def feature_matching(fake: Features, real: Features) -> Tensor:
    """Mean absolute difference of all features but the predictions (Eq. 4); reals are not to be learned from.

    The paper divides by the number of layers; the official code, and so we, weight each by 4 / that number, and take
    the mean over scales where the paper sums.
    """
    distances = [
        (4 / (len(f) - 1)) * (a.float() - b.detach().float()).abs().mean()
        for f, r in zip(fake, real, strict=True)
        for a, b in zip(f[:-1], r[:-1], strict=True)
    ]
    return torch.stack(distances).sum() / len(fake)


def predictions(features: Features) -> Tensor:
    """The logits of all scales in one row."""
    return torch.cat([scale[-1].flatten() for scale in features])


class PerceptualLoss(nn.Module):
    """Mean absolute difference of VGG19's features relu1_1 to relu5_1, weighted (Sec. 3.5, App. A).

    Images are fed as they are, in [-1, 1], as by the official code. The weights are not part of checkpoints.

    Args:
        weights_path: torchvision's vgg19 as .pth or .safetensors; None takes it from the cache folder, or downloads it.
    """

    url = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
    # torchvision's numbers of the convolutions, and where to pool; what is compared follows the first after a pooling.
    layers = ("0", "2", "M", "5", "7", "M", "10", "12", "14", "16", "M", "19", "21", "23", "25", "M", "28")
    weights = {"0": 1 / 32, "5": 1 / 16, "10": 1 / 8, "19": 1 / 4, "28": 1.0}

    def __init__(self, weights_path: str | None = None) -> None:
        """FileNotFoundError or ConnectionError without weights, ValueError for others than VGG19's."""
        super().__init__()
        hint = "or leave the perceptual loss out"
        path = weights_file(self.url, sha256_prefix="dcbb9e9d", path=weights_path, hint=hint)
        state = read_weights(path)
        for name in (f"{layer}.{kind}" for layer in self.layers if layer != "M" for kind in ("weight", "bias")):
            if f"features.{name}" not in state:
                raise ValueError(f"{path} does not hold the weights of torchvision's vgg19: no features.{name} in it")
            self.register_buffer(f"layer{name.replace('.', '_')}", state[f"features.{name}"], persistent=False)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """[N, 1 or 3, H, W] in [-1, 1], sides of 16 pixels or more -> feature maps by the keys of `weights`."""
        x, found = as_rgb(images), {}
        for layer in self.layers:
            if layer == "M":
                x = max_pool2d(x, 2)
                continue
            weight, bias = (self.get_buffer(f"layer{layer}_{kind}") for kind in ("weight", "bias"))
            x = relu(conv2d(x, weight, bias, padding=1))
            if layer in self.weights:
                found[layer] = x
        return found

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Images [N, 1 or 3, H, W] in [-1, 1] -> a scalar; gradients reach `fake` alone."""
        with torch.no_grad():
            targets = self.features(real)
        found = self.features(fake)
        distances = [w * (found[k].float() - targets[k].float()).abs().mean() for k, w in self.weights.items()]
        return torch.stack(distances).sum()
