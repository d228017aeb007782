"""Pre-training of AttnGAN's encoders: Deep Attentional Multimodal Similarity Model (Xu et al., 2018, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_gans.adversarial.game import Game
from lit_gans.adversarial.optim import lazy_adam
from lit_gans.base.cache import digest, key_of
from lit_gans.base.grids import MAX_SIDE_PX, spread
from lit_gans.base.images import as_channels, from_uint8
from lit_gans.base.precision import exact_float32
from lit_gans.data import TextData
from lit_gans.data.captions import Letters
from lit_gans.nn.mode import evaluating
from lit_gans.papers.attngan.losses import region_attention
from lit_gans.papers.attngan.maps import most_attended, overlay
from lit_gans.papers.attngan.matching import (
    ImageNetwork,
    InceptionEncoder,
    build_image_encoder,
    global_damsm_loss,
    processes,
)
from lit_gans.papers.text.encoders import TextFeatures, WordReader, as_then, words_of
from lit_gans.papers.text.game import check_captions, held_out

LEAST_SHARE = 0.1  # of the learning rate, below which it does not fall


class DAMSM(Game):
    """Sec. 3.2: captions and pictures learn one space, from words and regions and from sentences and pictures.

    Batches are those of `lit_gans.data.TextData` with encode="words". Where the data have classes, pictures of one
    class do not serve as each other's mismatches. With micro-batches, mismatches come from the own micro-batch alone.
    Adam with lr 2e-3, times 0.98 per epoch down to a tenth. The official code makes a new Adam in every epoch, which
    forgets its moments; here it goes on.

    A run of it is the `encoder_weights` of `AttnGAN`, and the model itself is an encoder for
    `lit_gans.metrics.text.RPrecision`: see `images` and `texts`.

    Args:
        vocabulary: the words that captions are read with: a list, or the path of one (JSON, or captions.pickle). The
            command line fills it with those of the data's captions.
        letters: by which captions are parted into these words; see `lit_gans.papers.text.game.TextGAN`.
        sentence_dim: D, of words, sentences, regions and pictures.
        max_words: of longer captions only so many are read.
        word_dim, encoder_rnn: of the LSTM; see `WordEncoder`.
        image_encoder: "inception", frozen but for two layers, as published; or "small", which learns from scratch.
        image_width, image_px: of the small one.
        image_weights: a file of torchvision's Inception v3; None looks where weights are kept, or downloads them. Read
            before the first batch only: a run saved here keeps them.
        gammas: of Eq. 9 to 11.
        text_clip: largest gradient norm of the text encoder.
        lr_decay, lr_decay_kimg: the learning rate is multiplied by the one at each multiple of the other, an epoch.
        **game: total_kimg, micro_batches, seed, ... of `Game`.

    Raises:
        ValueError, FileNotFoundError: no vocabulary, or an unknown encoder.
    """

    resize = "bilinear, of images in [-1, 1]"

    def __init__(
        self,
        *,
        vocabulary: list[str] | str | None = None,
        letters: Letters | None = None,
        sentence_dim: int = 256,
        max_words: int = 18,
        word_dim: int = 300,
        encoder_rnn: str = "lstm",
        image_encoder: ImageNetwork = "inception",
        image_width: int = 32,
        image_px: int = 64,
        image_weights: str | None = None,
        gammas: tuple[float, float, float] = (4.0, 5.0, 10.0),
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.5, 0.999),
        text_clip: float = 0.25,
        lr_decay: float = 0.98,
        lr_decay_kimg: float = 8.855,
        **game: Any,
    ) -> None:
        super().__init__(**game)
        self.save_hyperparameters()
        if not 0 < lr_decay <= 1 or lr_decay_kimg <= 0:
            raise ValueError(
                f"lr_decay {lr_decay} at every {lr_decay_kimg} kimg: give a factor in (0, 1], 1 for a constant rate, "
                "and the thousands of images of an epoch"
            )
        sizes = {"sentence_dim": sentence_dim, "max_words": max_words, "word_dim": word_dim}
        words = words_of(vocabulary, letters)
        self.hparams.update(**words, image_weights=None)
        self.text_encoder = WordReader(**words, **sizes, rnn=encoder_rnn)
        self.image_encoder = build_image_encoder(
            image_encoder, embed_dim=sentence_dim, width=image_width, input_px=image_px
        )
        self.name, self.gammas, self.image_weights = f"damsm_{image_encoder}", tuple(gammas), image_weights
        self.lr, self.betas, self.text_clip = lr, betas, text_clip
        self.lr_decay, self.lr_decay_kimg = lr_decay, lr_decay_kimg

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        with self.updating(optimizer):
            parts = self.split(batch["image"], batch["words"], batch["lengths"], batch.get("label"))
            for images, words, lengths, classes in parts:
                text = self.text_encoder({"words": words, "lengths": lengths})
                regions, image = self.image_encoder(images)
                terms = global_damsm_loss(regions, image, text, classes=classes, gammas=self.gammas)
                loss = sum(terms)  # Eq. 13
                self.accumulate(loss * processes())
                self.report(loss=loss, **terms._asdict())

    def configure_optimizers(self) -> Optimizer:
        learning = [p for network in self.networks() for p in network.parameters() if p.requires_grad]
        return lazy_adam(learning, lr=self.lr, betas=self.betas, fused=self.fused)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.text_clip > 0:
            nn.utils.clip_grad_norm_(self.text_encoder.parameters(), self.text_clip)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        stop = super().on_train_batch_start(batch, batch_idx)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.learning_rate_share()
        return stop

    def learning_rate_share(self) -> float:
        """Of the first learning rate, at this moment of the clock."""
        return max(self.lr_decay ** int(self.kimg / self.lr_decay_kimg), LEAST_SHARE)

    def networks(self) -> list[nn.Module]:
        return [self.text_encoder, self.image_encoder]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        as_then(self, checkpoint)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            check_word_data(self, self.trainer.datamodule, self.text_encoder)
            if self.schedule != "constant" or self.warmup_kimg:
                raise ValueError("schedule and warmup_kimg: DAMSM's learning rate falls by lr_decay; leave them out")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        # By now a resumed run has its weights and its clock back.
        if isinstance(self.image_encoder, InceptionEncoder) and self.images_seen == 0:
            self.image_encoder.load_published(self.image_weights)

    # ---- as an encoder of metrics ------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of weights and vocabulary, when first asked for."""
        known = self.text_encoder.vocabulary
        rule = {} if known.letters == "ascii" else {"letters": known.letters}
        return key_of(weights=digest(self.state_dict()), vocabulary=list(known.words), **rule)

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 or 3, H, W] -> float32 [N, D], in evaluation mode."""
        with evaluating(self.image_encoder), exact_float32(self.device):
            return self.image_encoder(from_uint8(as_channels(images, 3).to(self.device)))[1]

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """N captions -> float32 [N, D], in evaluation mode. ValueError for one without a word that is known."""
        return self._read(captions).sentence

    def _read(self, captions: Sequence[str]) -> TextFeatures:
        batch = {name: tensor.to(self.device) for name, tensor in self.text_encoder.tensors(captions).items()}
        with evaluating(self.text_encoder), exact_float32(self.device):
            return self.text_encoder(batch)

    # What editing by text asks for: `lit_gans.editing.text.ImageText`.
    logit_scale = 100.0
    templates = ("{}",)

    def embed_images(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] in [-1, 1] -> [N, D] of length 1; differentiable."""
        with evaluating(self.image_encoder), exact_float32(self.device):
            return F.normalize(self.image_encoder(images)[1])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """N texts -> [N, D] of length 1. ValueError for one without a word that is known."""
        return F.normalize(self.texts(texts))

    # ---- what it has come to -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def region_maps(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """images [N, 3, R, R] in [-1, 1] and their captions -> [N, T, H, W]: where each word looks; 0 past the last."""
        text = self._read(captions)
        with evaluating(self.image_encoder):
            regions, _ = self.image_encoder(images.to(self.device))
        return torch.stack(
            [
                region_attention(regions[i].flatten(1)[None], words[None], mask[None], gamma=self.gammas[0])[0, 0]
                .unflatten(1, regions.shape[2:])  # [T, S] -> [T, H, W]
                .mul(mask[:, None, None])
                for i, (words, mask) in enumerate(zip(text.words, text.mask, strict=True))
            ]
        )

    def preview(
        self, data: pl.LightningDataModule | None, *, rows: int, columns: int, psi: float = 1.0
    ) -> tuple[Tensor, int]:
        """A held-out picture in each row, then the same where each of its most attended words looks. No use for psi."""
        check_word_data(self, data, self.text_encoder)
        split, most = held_out(data), max(MAX_SIDE_PX // data.resolution, 2)
        pictures = data.dataset(split)
        shown = spread(len(pictures), min(rows, most))
        images, captions = pictures.fetch(shown)["image"], data.captions(shown, split)
        columns = min(max(columns, 2), most, 1 + self.text_encoder.max_words)
        cells = []
        for image, maps in zip(images, self.region_maps(from_uint8(images), captions).cpu(), strict=True):
            chosen = most_attended(maps, columns - 1)
            cells += [image, *(overlay(image, maps[word]) for word in chosen)]
        return torch.stack(cells), columns


def check_word_data(game: Game, data: pl.LightningDataModule | None, encoder: WordReader) -> None:
    """ValueError where the data are not captions in words of the encoder's vocabulary."""
    if not isinstance(data, TextData):
        raise ValueError(
            f"{type(game).__name__} learns from captions, and {type(data).__name__} has none: use data such as "
            "lit_gans.data.CaptionFolder"
        )
    check_captions(encoder, data)
    if data.batch_size < 2:
        raise ValueError(
            f"batch_size {data.batch_size}: {type(game).__name__} tells each caption from others of its batch, so use "
            "2 or more"
        )
