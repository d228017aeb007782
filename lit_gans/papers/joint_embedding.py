"""Structured joint embeddings of pictures and captions (Reed et al., 2016), https://arxiv.org/abs/1605.05395.

What it trains is a text encoder for text-to-image models: give them its run as `encoder_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from lit_gans.adversarial import Game, lazy_adam
from lit_gans.base.cache import digest, key_of
from lit_gans.base.checks import power_of_two
from lit_gans.base.grids import MAX_SIDE_PX, spread
from lit_gans.base.images import from_uint8
from lit_gans.data import TextData
from lit_gans.data.captions import Letters
from lit_gans.nn import BatchNorm
from lit_gans.nn.mode import evaluating
from lit_gans.papers.text.encoders import EmbeddingReader, as_then, build_encoder, encoder_arguments, load_encoder
from lit_gans.papers.text.game import check_captions, held_out
from lit_gans.papers.text.networks import joint_embedding_loss

CANDIDATES = 100


class PictureEncoder(nn.Module):
    """images [N, C, R, R] -> embeddings [N, E] of length 1, by convolutions that halve R to 4.

    The paper has GoogLeNet, and leaves lengths free. Then those of captions may be so small that the noise of a
    generator's conditions drowns them: with pictures of length 1, captions must be long to pass the margin of 1.
    """

    def __init__(self, *, resolution: int, channels: int, width: int, embed_dim: int) -> None:
        super().__init__()
        halvings = power_of_two("resolution", resolution, least=8, why="use 32, 64, ...") - 2
        layers: list[nn.Module] = []
        for k in range(halvings):
            fan_in, fan_out = (width * 2 ** min(k - 1, 3) if k else channels), width * 2 ** min(k, 3)
            conv = nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1, bias=False)
            layers += [conv, BatchNorm(fan_out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.to_embedding = nn.Linear(16 * fan_out, embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        return normalize(self.to_embedding(self.layers(images).flatten(1)))  # [N, C, 4, 4] -> [N, 16 C] -> [N, E]


class JointEmbedding(Game):
    """Eq. 2: pictures and captions of a batch shall find each other; pairs of one class do not count.

    All pairs of a batch are compared, so that it is trained whole, in one process. Batches are those of
    `lit_gans.data.TextData`, encoded as the text encoder reads them. Reports `top1`, how often a caption of the batch
    finds its own picture.

    Args:
        resolution, channels: of the pictures; width: maps of the first convolution, which see them.
        encoder, encoder_weights, vocabulary, letters, sentence_dim, max_words, max_characters, word_dim, encoder_rnn,
            encoder_width: of the text encoder; see `lit_gans.papers.text.game.TextGAN`. Text-to-image models take
            them over.
        freeze_text: the text encoder stays as its weights are, or as chance made it (a bag of words tells all words
            apart from the beginning), and pictures alone are learned; with it "embeddings", "clip:" and "sentences:"
            can be encoders too. Its sentences are brought to the root of their dimension: of length 1, as pictures
            are, they could hardly pass the margin.
        lr: of Adam; the official code has RMSProp with 7e-4.
        **game: total_kimg, schedule, seed, ... of `Game`.

    Raises:
        ValueError, FileNotFoundError: an encoder that cannot be trained or that there is not, or other weights.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 3,
        width: int = 32,
        encoder: str = "words",
        encoder_weights: str | None = None,
        vocabulary: list[str] | str | None = None,
        letters: Letters | None = None,
        sentence_dim: int = 256,
        max_words: int = 18,
        max_characters: int = 201,
        word_dim: int = 300,
        encoder_rnn: str | None = None,
        encoder_width: int = 512,
        freeze_text: bool = False,
        lr: float = 7e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        **game: Any,
    ) -> None:
        super().__init__(**game)
        self.save_hyperparameters()
        arguments = encoder_arguments(
            encoder=encoder, weights=encoder_weights, vocabulary=vocabulary, letters=letters, sentence_dim=sentence_dim,
            max_words=max_words, max_characters=max_characters, word_dim=word_dim, encoder_rnn=encoder_rnn,
            encoder_width=encoder_width,
        )  # fmt: skip
        self.hparams.update({**arguments, "encoder_weights": None})  # with the words themselves
        self.text_encoder = build_encoder(**arguments)
        if encoder_weights is not None:
            load_encoder(self.text_encoder, encoder_weights)
        self.freeze_text, self._weights = freeze_text, encoder_weights
        if isinstance(self.text_encoder, EmbeddingReader) and not freeze_text:
            raise ValueError(
                f"encoder {encoder!r} has nothing to train: use 'words' or 'characters', or freeze_text=true, with "
                "which pictures alone are learned"
            )
        if freeze_text:
            self.text_encoder.eval().requires_grad_(False)
        if self.micro_batches > 1:
            raise ValueError(f"micro_batches {self.micro_batches}: all pairs of a batch are compared, so use 1")
        self.picture_encoder = PictureEncoder(
            resolution=resolution, channels=channels, width=width, embed_dim=self.text_encoder.sentence_dim
        )
        self.resolution, self.channels, self.lr, self.betas = resolution, channels, lr, betas

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt = self.optimizers()
        with self.updating(opt):  # a frozen encoder's parameters take no gradient
            pictures, texts = self.picture_encoder(batch["image"]).float(), self.sentences(batch)
            loss = joint_embedding_loss(pictures, texts, labels=batch.get("label"))  # Eq. 2
            self.accumulate(loss)
        found = (texts @ pictures.T).detach().argmax(1)  # [N]: the number of the picture that each text is nearest to
        own = torch.arange(len(found), device=found.device)
        self.report(loss=loss, top1=(found == own).float().mean())

    def sentences(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Embeddings [N, E] of a batch's captions."""
        if not self.freeze_text:
            return self.text_encoder(batch).sentence.float()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            texts = self.text_encoder(batch).sentence.float()
        return normalize(texts) * math.sqrt(texts.shape[1])

    def frozen_networks(self) -> list[dict[str, object]]:
        if not self.freeze_text:
            return []
        weights, encoder = self.text_encoder.state_dict(), self.hparams["encoder"]
        fingerprint = digest(weights)[:16] if weights else None
        built = "as it was built" if weights else "of what the data bring"
        said = {"weights": self._weights or built, "fingerprint": fingerprint}
        return [{"network": f"text encoder {encoder}", **said}]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        learned = [p for network in self.networks() for p in network.parameters()]
        return lazy_adam(learned, lr=self.lr, betas=self.betas, fused=self.fused)

    def networks(self) -> list[nn.Module]:
        return [self.picture_encoder] if self.freeze_text else [self.picture_encoder, self.text_encoder]

    def train(self, mode: bool = True) -> JointEmbedding:
        super().train(mode)
        if self.freeze_text:
            self.text_encoder.eval()  # no dropout
        return self

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        as_then(self, checkpoint)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        data = self.trainer.datamodule
        if self.trainer.world_size > 1:
            raise ValueError("all pairs of a batch are compared: train in one process (--trainer.devices=1)")
        if not isinstance(data, TextData):
            raise ValueError(f"JointEmbedding learns from captions, and {type(data).__name__} has none")
        if (self.resolution, self.channels) != (data.resolution, data.channels):
            raise ValueError(
                f"the model sees {self.channels} channels of {self.resolution} pixels, the data have {data.channels} "
                f"of {data.resolution}: set model.init_args.resolution={data.resolution}"
            )
        check_captions(self.text_encoder, data)
        if self.freeze_text and self._weights is None and self.text_encoder.needs_training and not self.images_seen:
            rank_zero_warn(
                "the text encoder of this JointEmbedding has random weights and stays so: give encoder_weights, or "
                "encoder_rnn=bag, which tells words apart without training"
            )

    @torch.no_grad()
    def preview(
        self, data: pl.LightningDataModule | None, *, rows: int, columns: int, psi: float = 1.0
    ) -> tuple[Tensor, int]:
        """A held-out picture in each row, then those of 100 that its caption finds first. No use for psi."""
        if not isinstance(data, TextData):
            raise ValueError(f"a preview needs data with captions, found {type(data).__name__}")
        most = max(MAX_SIDE_PX // self.resolution, 1)
        pictures = data.dataset(held_out(data))
        batch = pictures.fetch(spread(len(pictures), CANDIDATES))
        images, texts = self.embed(batch)
        rows, columns = min(rows, most, len(images)), min(columns, most, len(images) + 1)
        best = (
            (texts @ images.T).topk(columns - 1, 1).indices[:rows].cpu() if columns > 1 else torch.empty(rows, 0).long()
        )
        shown = torch.cat([torch.arange(rows)[:, None], best], 1)  # [rows, columns]
        return batch["image"][shown.flatten()], columns

    @torch.no_grad()
    def embed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings of pictures uint8 [N, C, R, R] and of their captions, [N, E] each."""
        there = {name: tensor.to(self.device) for name, tensor in batch.items()}
        with evaluating(self.picture_encoder, self.text_encoder):
            return self.picture_encoder(from_uint8(there["image"])), self.text_encoder(there).sentence

    # What editing by text asks for: `lit_gans.editing.text.ImageText`.
    name = "joint_embedding"
    logit_scale = 100.0
    templates = ("{}",)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of weights and words, when first asked for."""
        return key_of(weights=digest(self.state_dict()), vocabulary=self.hparams["vocabulary"])

    def embed_images(self, images: Tensor) -> Tensor:
        """images [N, C, H, W] in [-1, 1] -> [N, E] of length 1; differentiable."""
        size = (self.resolution, self.resolution)
        if images.shape[2:] != size:
            images = interpolate(images, size=size, mode="bilinear", antialias=True)
        with evaluating(self.picture_encoder):
            return self.picture_encoder(images)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """N texts -> [N, E] of length 1. ValueError for one that it cannot read."""
        batch = {name: tensor.to(self.device) for name, tensor in self.text_encoder.tensors(texts).items()}
        with evaluating(self.text_encoder):
            return normalize(self.text_encoder(batch).sentence)
