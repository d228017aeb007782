"""The game whose images are of captions: a frozen encoder reads them, and any text can be asked for afterwards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_gans.adversarial.gan import GAN
from lit_gans.adversarial.priors import Normal
from lit_gans.base.grids import MAX_SIDE_PX, spread
from lit_gans.base.images import to_uint8
from lit_gans.data import TextData
from lit_gans.data.captions import Letters
from lit_gans.nn.mode import evaluating
from lit_gans.papers.text.encoders import (
    CaptionEncoder,
    EmbeddingReader,
    TextFeatures,
    WordReader,
    as_then,
    build_encoder,
    encoder_arguments,
    load_encoder,
)

if TYPE_CHECKING:
    from lit_gans.data import TextData

NO_ENCODER = "none"
_NAMED = 20


class TextGAN(GAN):
    """A game of pictures with captions; batches are those of `lit_gans.data.TextData`.

    A paper calls `features` for what its networks know of a batch's captions, and says in `scales` how its generator
    is drawn from. The encoder's weights are part of every checkpoint, its words and sizes of the hyper-parameters:
    a saved run reads text by itself.

    Args:
        encoder: "words" (AttnGAN's LSTM), "characters" (Reed et al.'s network), "embeddings" (published ones, which the
            data bring), "clip:<owner>/<name>" of Hugging Face, "sentences:<folder>" (a sentence encoder in
            transformers' files, such as all-MiniLM-L6-v2), or "none": pictures without captions.
        encoder_weights: a .pth or .safetensors file of the encoder, or the run that trained it, whose words and sizes
            then count instead of those below. Read when the model is built; a run saved here keeps the weights itself.
        vocabulary: of encoder "words": a list, or the path of one; see `lit_gans.data.captions.Vocabulary`.
        letters: by which captions are parted into these words: "all" those of all alphabets, or "ascii", the published
            rule; None is that of the vocabulary.
        sentence_dim: D, of sentences and words: 256 in AttnGAN, 1024 in published embeddings.
        max_words, max_characters: of longer captions only so many are read.
        word_dim, encoder_rnn, encoder_width: of the encoder's network; see `WordEncoder` and `CharCNNRNN`.
        noise_dim: normal numbers beside z that an image is made from, such as those of conditioning augmentation.
        **game: resolution, z_dim, total_kimg, ... of `GAN`.

    Raises:
        ValueError, FileNotFoundError: an encoder that there is not, or weights that do not fit it.
    """

    text_encoder: CaptionEncoder | None

    def __init__(
        self,
        *,
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
        noise_dim: int = 0,
        **game: Any,
    ) -> None:
        super().__init__(**game)
        if self.num_classes:
            raise ValueError(f"{type(self).__name__} draws captions, not classes: set num_classes=0")
        self.noise_dim, self.text_encoder, self._source = noise_dim, None, None
        self._random_encoder = False
        self.encoder_arguments: dict[str, Any] = {}
        if encoder == NO_ENCODER:
            return
        self.encoder_arguments = encoder_arguments(
            encoder=encoder, weights=encoder_weights, vocabulary=vocabulary, letters=letters,
            sentence_dim=sentence_dim, max_words=max_words, max_characters=max_characters, word_dim=word_dim,
            encoder_rnn=encoder_rnn, encoder_width=encoder_width,
        )  # fmt: skip
        self.text_encoder = build_encoder(**self.encoder_arguments)
        if encoder_weights is not None:
            load_encoder(self.text_encoder, encoder_weights)
        self._random_encoder = encoder_weights is None and self.text_encoder.needs_training
        self.text_encoder.eval().requires_grad_(False)

    @property
    def reads_captions(self) -> bool:
        """Whether it was trained with captions, and not as a model of pictures alone."""
        return self.text_encoder is not None

    def keep_encoder(self) -> None:
        """Puts the encoder's words and sizes into the hyper-parameters, in the place of the files that told them.

        A paper calls it after `save_hyperparameters`: a checkpoint then needs none of these files.
        """
        if self.text_encoder is not None:
            self.hparams.update({**self.encoder_arguments, "encoder_weights": None})

    @abstractmethod
    def scales(self, generator: nn.Module, z: Tensor, features: TextFeatures | None, *, noise: Tensor) -> list[Tensor]:
        """z [N, Z], noise [N, noise_dim] -> the generator's images [N, C, H, W] in [-1, 1], smallest first."""

    # ---- training ----------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> TextGAN:
        super().train(mode)
        if self.text_encoder is not None:
            self.text_encoder.eval()  # frozen: no dropout
        return self

    @torch.no_grad()
    def features(self, batch: Mapping[str, Tensor], *, prefix: str = "") -> TextFeatures | None:
        """Of a batch's captions, in single precision; of its wrong ones with prefix "wrong_". None without encoder."""
        if self.text_encoder is None:
            return None
        with torch.autocast(self.device.type, enabled=False):
            return self.text_encoder(batch, prefix=prefix)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        as_then(self, checkpoint)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        self.take_captions(self.trainer.datamodule)
        if self._random_encoder and self.images_seen == 0:
            rank_zero_warn(
                f"the text encoder of this {type(self).__name__} has random weights and is not trained: give "
                "encoder_weights a file, or a run of lit_gans.papers.JointEmbedding or DAMSM"
            )

    # ---- captions ----------------------------------------------------------------------------------------------------

    def take_captions(self, data: pl.LightningDataModule | None) -> None:
        """From now on, what is sampled without a caption has one of `data`: of split "test" where there is one.

        Raises:
            ValueError: the data have captions of another kind, or other words, than the encoder reads.
        """
        if self.text_encoder is None or data is None:
            return
        if not isinstance(data, TextData):
            raise ValueError(
                f"{type(self).__name__} learns from captions, and {type(data).__name__} has none: use data such as "
                "lit_gans.data.CaptionFolder, or encoder='none' where the model can do without"
            )
        check_captions(self.text_encoder, data)
        self._source = data, held_out(data)

    def held_captions(self, numbers: Tensor) -> tuple[list[str], TextFeatures]:
        """numbers int64 [N] >= 0 -> captions of the data, each its number modulo their count, and their features.

        Raises:
            ValueError: the model knows no data.
        """
        if self._source is None:
            raise ValueError(
                f"this {type(self).__name__} draws what a caption says, and has none: give captions, or call "
                "take_captions with the data"
            )
        data, split = self._source
        pictures = data.dataset(split)
        chosen = (numbers % len(pictures.captions.all)).cpu().numpy().astype(np.int64)
        encoded = pictures.encoding.encode(chosen, 0, "sample", chosen)  # type: ignore[attr-defined]
        batch = {name: tensor.to(self.device) for name, tensor in encoded.items()}
        return [pictures.captions.all[number] for number in chosen], self.features(batch)

    def spread_captions(self, count: int) -> list[str]:
        """The first captions of `count` pictures of the data, evenly chosen; see `take_captions`."""
        assert self._source is not None
        data, split = self._source
        return data.captions(spread(len(data.dataset(split)), count), split)

    def read(self, captions: Sequence[str]) -> TextFeatures:
        """N captions as a user types them -> their features, on the model's device. Warns of words that are not known.

        Raises:
            ValueError: a caption without a word that is known, published embeddings, or a model without captions.
        """
        if self.text_encoder is None:
            raise ValueError(
                f"captions were given, but this {type(self).__name__} was trained without (encoder 'none')"
            )
        if unknown := self.text_encoder.unknown(captions):
            named = ", ".join(map(repr, unknown[:_NAMED])) + (", ..." if len(unknown) > _NAMED else "")
            rank_zero_warn(f"words that this {type(self).__name__} never saw are not drawn: {named}")
        batch = self.text_encoder.tensors(captions)
        return self.features({name: tensor.to(self.device) for name, tensor in batch.items()})

    def made_up_features(self, seeds: Sequence[int] | Tensor) -> TextFeatures:
        """See `ReadsFeatures`."""
        assert self.text_encoder is not None
        return self.text_encoder.made_up(seeds).to(self.device)

    def _asked(self, seeds: Tensor, captions: Sequence[str] | None) -> TextFeatures | None:
        if captions is None:
            return None if self.text_encoder is None else self.held_captions(seeds)[1]
        if len(captions) != len(seeds):
            raise ValueError(f"{len(captions)} captions for {len(seeds)} seeds: give one for each")
        return self.read(captions)

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def seeded_noise(self, seeds: Sequence[int] | Tensor) -> Tensor:
        """[N, noise_dim] of N(0, 1); row i depends on seeds[i] alone, and is the same on every device."""
        return Normal().of_seeds(seeds, self.noise_dim, purpose="sample noise").to(self.device)

    @torch.no_grad()
    def sample(
        self,
        seeds: Sequence[int] | Tensor,
        *,
        labels: Tensor | None = None,
        psi: float = 1.0,
        ema: bool = True,
        captions: Sequence[str] | None = None,
    ) -> Tensor:
        """Images [N, C, H, W] in [-1, 1]; image i depends on seeds[i] and captions[i] only.

        captions: None takes those of the data, of each seed its own; see `take_captions`. labels: there are none.
        Otherwise as `GAN.sample`.
        """
        self.sample_labels(seeds, labels)
        return self.multi_scale(seeds, captions=captions, psi=psi, ema=ema)[-1]

    @torch.no_grad()
    def multi_scale(
        self,
        seeds: Sequence[int] | Tensor,
        *,
        captions: Sequence[str] | None = None,
        psi: float = 1.0,
        ema: bool = True,
    ) -> list[Tensor]:
        """As `sample`, the images of every scale, smallest first."""
        seeds = torch.as_tensor(seeds)
        return self._drawn(
            self.seeded_latents(seeds), self._asked(seeds, captions), self.seeded_noise(seeds), psi=psi, ema=ema
        )

    def generate(
        self,
        z: Tensor,
        *,
        labels: Tensor | None = None,
        psi: float = 1.0,
        ema: bool = True,
        captions: Sequence[str] | None = None,
        features: TextFeatures | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """z [N, z_dim] -> images [N, C, H, W] in [-1, 1] of `captions`, or of `features` that were read before.

        noise [N, noise_dim]: None is 0, the mean of every condition.

        Raises:
            ValueError: neither captions nor features, since a latent says nothing of them; or not as many as latents.
        """
        self.sample_labels(torch.arange(z.shape[0]), labels)
        if features is None and captions is None and self.text_encoder is not None:
            raise ValueError(f"a latent says nothing of what {type(self).__name__} shall draw: give captions")
        if features is None:
            features = self._asked(torch.arange(z.shape[0]), captions)
        noise = z.new_zeros(z.shape[0], self.noise_dim) if noise is None else noise
        return self._drawn(z, features, noise, psi=psi, ema=ema)[-1]

    def _drawn(self, z: Tensor, features: TextFeatures | None, noise: Tensor, *, psi: float, ema: bool) -> list[Tensor]:
        network = self.generator_ema if ema and self.generator_ema is not None else self.generator
        with evaluating(network):
            return self.scales(network, psi * z, features, noise=psi * noise)

    def preview(
        self, data: pl.LightningDataModule | None, *, rows: int, columns: int, psi: float
    ) -> tuple[Tensor, int]:
        """A held-out caption in each row: its picture in the data, then fakes of fixed seeds."""
        if self.text_encoder is None:
            return super().preview(data, rows=rows, columns=columns, psi=psi)
        if not isinstance(data, TextData):
            raise ValueError(f"a preview needs data with captions, found {type(data).__name__}")
        most = max(MAX_SIDE_PX // self.resolution, 1)
        split, columns = held_out(data), max(min(columns, most), 2)
        pictures = data.dataset(split)
        shown = spread(len(pictures), min(rows, most))
        batch = pictures.fetch(shown)
        features = self.features({k: t.to(self.device) for k, t in batch.items() if k not in ("image", "label")})
        seeds = torch.arange(columns - 1)
        z, noise = self.seeded_latents(seeds), self.seeded_noise(seeds)
        lines = []
        for row, target in enumerate(batch["image"]):
            asked = features.rows(torch.full((len(seeds),), row))  # this row's caption for each seed
            fakes = to_uint8(self._drawn(z, asked, noise, psi=psi, ema=True)[-1]).cpu()
            lines.append(torch.cat([target[None], fakes]))  # [columns, C, R, R]
        return torch.cat(lines), columns


def held_out(data: TextData) -> str:
    """The split whose captions are shown: "test", or the training split where there is no other."""
    try:
        data.split_captions("test")  # without looking at any picture
    except (ValueError, FileNotFoundError):
        return data.train_split
    return "test"


def check_captions(encoder: CaptionEncoder, data: TextData) -> None:
    """ValueError where the data's captions are not what the encoder reads, each with the way out."""
    if data.encode != encoder.reads:
        raise ValueError(
            f"the model reads {encoder.reads}, the data give {data.encode}: set data.init_args.encode={encoder.reads}"
        )
    if isinstance(encoder, WordReader) and data.vocabulary.words != encoder.vocabulary.words:
        raise ValueError(
            f"the model's encoder knows {len(encoder.vocabulary)} words and the data {len(data.vocabulary)} others: "
            "their numbers must mean the same, so set data.init_args.vocabulary to the model's words (or their file; "
            "Vocabulary.save writes one)"
        )
    if isinstance(encoder, WordReader) and data.vocabulary.letters != encoder.vocabulary.letters:
        captions = data.split_captions(data.train_split)
        if captions.words(data.vocabulary.letters) != captions.words(encoder.vocabulary.letters):
            raise ValueError(
                f"the model parts captions into words by letters {encoder.vocabulary.letters!r}, the data by "
                f"{data.vocabulary.letters!r}: set model.init_args.letters={data.vocabulary.letters}"
            )
    if isinstance(encoder, EmbeddingReader):
        if encoder.maker is not None and data.embeddings != encoder.maker:
            raise ValueError(
                f"the model reads embeddings of {encoder.maker}, the data give those of {data.embeddings}: set "
                f"data.init_args.embeddings={encoder.maker}"
            )
        if data.embedding_dim != encoder.sentence_dim:
            raise ValueError(
                f"the data's embeddings have {data.embedding_dim} numbers, the model reads {encoder.sentence_dim}: set "
                f"model.init_args.sentence_dim={data.embedding_dim}"
            )


def scaled_images(images: Tensor, sides: Sequence[int]) -> list[Tensor]:
    """images [N, C, R, R] -> those of each of `sides`, by the bilinear filter that widens as Pillow's does.

    As the official code makes a picture's smaller scales.
    """
    return [
        images
        if side == images.shape[-1]
        else F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        for side in sides
    ]
