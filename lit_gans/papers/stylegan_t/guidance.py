"""What guides StyleGAN-T's generator by the captions (Sauer et al., 2023, Sec. 3.3): embeddings of its images.

A guide is any module that puts images [N, C, H, W] in [-1, 1] into the space of the text encoder's sentences, [N, D],
differentiably. Its weights are no part of checkpoints.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from lit_gans.base.cache import digest
from lit_gans.base.checkpoints import open_checkpoint, under
from lit_gans.nn.clip import CLIP_MEAN, CLIP_STD, CLIPEncoder, build_clip
from lit_gans.papers.joint_embedding import PictureEncoder
from lit_gans.papers.projected_gan.features import freeze

CROP_PX, SEEN_PX = 64, 224  # larger images are seen through a crop; all are enlarged by area
LEAST_ANGLE = 1e-6  # of 1 - cosine: at an angle of 0 its square root has no slope


def spherical_distance(x: Tensor, y: Tensor) -> Tensor:
    """x, y [N, D] -> [N]: the squares of the angles between them, in radians; in single precision."""
    cosines = (normalize(x.float(), dim=-1) * normalize(y.float(), dim=-1)).sum(-1)
    return cosines.clamp(LEAST_ANGLE - 1, 1 - LEAST_ANGLE).arccos().square()


class CLIPGuide(nn.Module):
    """The image side of CLIP, for a text encoder "clip:<the same name>".

    name: as Hugging Face calls it; folder: its files, see `build_clip`. Read before the first pass.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "openai/clip-vit-large-patch14", *, folder: str | None = None) -> None:
        super().__init__()
        self.name, self.folder, self._clip = name, folder, list[CLIPEncoder]()  # a list hides it from state dicts
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(3, 1, 1), persistent=False)

    def load(self) -> None:
        """Reads the weights, unless they are there; errors as `build_clip`."""
        if not self._clip:
            self._clip.append(build_clip(self.name, folder=self.folder).to(self.mean.device))

    def stamp(self) -> dict[str, object]:
        """Which network guides, with which weights."""
        self.load()
        weights = "published weights" if self.folder is None else self.folder
        return {"network": f"clip:{self.name}", "weights": weights, "fingerprint": self._clip[0].fingerprint}

    def forward(self, images: Tensor) -> Tensor:
        self.load()
        clip, x = self._clip[0].to(images.device), images.expand(-1, 3, -1, -1)
        if x.shape[2:] != (clip.image_px, clip.image_px):
            x = interpolate(x, (clip.image_px, clip.image_px), mode="bicubic", align_corners=False)
        pixels = (x / 2 + 0.5 - self.mean) / self.std
        return clip.model.get_image_features(pixel_values=pixels).pooler_output


class JointGuide(nn.Module):
    """The picture side of a run of `lit_gans.papers.JointEmbedding`, for the text encoder that this run trained."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run, (path, checkpoint) = run, open_checkpoint(Path(run))
        given, state = checkpoint["hyper_parameters"], under(checkpoint["state_dict"], "picture_encoder.")
        if not state:
            raise ValueError(f"{path} has no picture encoder: give a run of lit_gans.papers.JointEmbedding")
        self.px = given["resolution"]
        network = PictureEncoder(
            resolution=self.px, channels=given["channels"], width=given["width"], embed_dim=given["sentence_dim"]
        )
        network.load_state_dict(state)
        self.fingerprint = digest(state)[:16]
        self.reads = given.get("encoder", "words"), digest(under(checkpoint["state_dict"], "text_encoder."))
        self.network = freeze(network, saved=False)

    def check_text(self, encoder: str, network: nn.Module) -> None:
        """ValueError for another text encoder than the run's, whose sentences are of another space."""
        if (encoder, digest(network.state_dict())) != self.reads:
            raise ValueError(
                f"the guide {self.run} finds pictures by the text encoder {self.reads[0]!r} of its run, and captions "
                f"are read by {encoder!r} with other weights: set encoder={self.reads[0]} and "
                f"encoder_weights={self.run}"
            )

    def stamp(self) -> dict[str, object]:
        """Which network guides, with which weights."""
        return {"network": "joint_embedding", "weights": self.run, "fingerprint": self.fingerprint}

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.px:
            images = interpolate(images, (self.px, self.px), mode="area")
        return self.network(images)

    def train(self, mode: bool = True) -> JointGuide:
        return super().train(False)
