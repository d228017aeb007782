"""Who is seen on a face: dlib's recognition network (King, 2017) as face-api has it, for identity losses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.cache import digest
from lit_gans.base.checkpoints import read_weights
from lit_gans.base.files import check_regular
from lit_gans.editing.text.image_text import area_resized
from lit_gans.metrics.ages import MEAN

INPUT_PX, AREA_PX = 150, 256
SAME_PERSON = 0.6  # descriptors of one person are nearer than this (King, 2017)
WHOLE = (0, 256, 0, 256)  # of pictures that are faces and nothing else
ARCFACE_CROP = (35, 223, 32, 220)  # top, bottom, left, right of 256: what StyleCLIP's code cuts out of FFHQ's faces
CELEBA_CROP = (52, 247, 29, 224)  # of the middle 89 x 89 of CelebA at half size: 68 x 68 of 89 x 109, at (10, 28)
_BLOCKS = (
    "conv32_1", "conv32_2", "conv32_3", "conv64_down", "conv64_1", "conv64_2", "conv64_3", "conv128_down", "conv128_1",
    "conv128_2", "conv256_down", "conv256_1", "conv256_2", "conv256_down_out",
)  # fmt: skip


class FaceRecognition(nn.Module):
    """images [N, 3, 150, 150] RGB in [0, 255] -> descriptors [N, 128], not normalised; two of one person are near.

    A residual network whose batch norms are folded into a scale and a bias of each channel.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state`: face-api's names. ValueError for tensors of another network."""
        super().__init__()
        names = ["conv32_down", *(f"{block}.conv{i}" for block in _BLOCKS for i in (1, 2))]
        parts = ("conv.weight", "conv.bias", "scale.weight", "scale.bias")
        wanted = {"fc.weight", *(f"{name}.{part}" for name in names for part in parts)}
        if state.keys() != wanted:
            odd = sorted(state.keys() ^ wanted)
            raise ValueError(f"not the face recognition network: {len(odd)} tensors lack or are others, as {odd[0]}")
        for name, tensor in state.items():
            self.register_buffer(name.replace(".", "/"), tensor.float())

    def forward(self, images: Tensor) -> Tensor:
        x = (images - images.new_tensor(MEAN).view(3, 1, 1)) / 255
        x = F.max_pool2d(F.relu(self._layer(x, "conv32_down", stride=2, padding=0)), 3, 2)
        for block in _BLOCKS:
            x = self._halved(x, block) if "down" in block else F.relu(x + self._two(x, block))
        return F.linear(x.mean((2, 3)), self._of("fc.weight"))

    def _of(self, name: str) -> Tensor:
        return self.get_buffer(name.replace(".", "/"))

    def _layer(self, x: Tensor, name: str, *, stride: int = 1, padding: int = 1) -> Tensor:
        x = F.conv2d(x, self._of(f"{name}.conv.weight"), self._of(f"{name}.conv.bias"), stride, padding)
        return x * self._of(f"{name}.scale.weight")[:, None, None] + self._of(f"{name}.scale.bias")[:, None, None]

    def _two(self, x: Tensor, block: str, **first: int) -> Tensor:
        return self._layer(F.relu(self._layer(x, f"{block}.conv1", **first)), f"{block}.conv2")

    def _halved(self, x: Tensor, block: str) -> Tensor:
        """At half the size; what is smaller or has fewer channels is filled up with zeros, right, below and behind."""
        pooled, y = F.avg_pool2d(x, 2), self._two(x, block, stride=2, padding=0)
        y = F.pad(y, (0, pooled.shape[3] - y.shape[3], 0, pooled.shape[2] - y.shape[2]))
        return F.relu(y + F.pad(pooled, (0, 0, 0, 0, 0, y.shape[1] - pooled.shape[1])))


class FaceIdentity(nn.Module):
    """images [N, 3, H, W] in [-1, 1] -> [N, 128] of length 1; differentiable, never trained.

    crop: top, bottom, left, right of 256, where the face is; the same for all pictures that are compared. StyleCLIP has
    ArcFace's IR-SE50, which is not free to use; the loss of it has the same form.
    """

    def __init__(self, network: FaceRecognition, *, crop: tuple[int, int, int, int] = ARCFACE_CROP) -> None:
        super().__init__()
        top, bottom, left, right = crop
        if not (0 <= top < bottom <= AREA_PX and 0 <= left < right <= AREA_PX):
            raise ValueError(f"crop {list(crop)} is no top, bottom, left and right within {AREA_PX}")
        self.network, self.crop = network.requires_grad_(False).eval(), tuple(crop)
        self.name, self.fingerprint = "face_recognition", digest(network.state_dict())[:16]

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.descriptors(images))

    def descriptors(self, images: Tensor) -> Tensor:
        """The same as the network has them, not normalised: one person's are nearer than SAME_PERSON."""
        top, bottom, left, right = self.crop
        faces = area_resized(images.expand(-1, 3, -1, -1), AREA_PX)[:, :, top:bottom, left:right]
        faces = F.interpolate(faces, size=(INPUT_PX, INPUT_PX), mode="bilinear", align_corners=False)
        found: Tensor = self.network(faces.clamp(-1, 1) * 127.5 + 127.5)
        return found


def build_identity(path: str | Path, *, crop: tuple[int, int, int, int] = ARCFACE_CROP) -> FaceIdentity:
    """The identity network of a .safetensors file with face-api's names (face_recognition_model).

    FileNotFoundError; ValueError for a file of another network.
    """
    path = Path(path)
    check_regular(path, "give the .safetensors file of face-api's face_recognition_model")
    try:
        return FaceIdentity(FaceRecognition(read_weights(path)), crop=crop)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
