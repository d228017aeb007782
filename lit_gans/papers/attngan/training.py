"""How AttnGAN is trained and drawn from (Xu et al., 2018, Sec. 3)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_gans.adversarial import lazy_adam
from lit_gans.adversarial.losses import divergence
from lit_gans.base.checkpoints import open_checkpoint, under
from lit_gans.base.images import to_uint8
from lit_gans.base.processes import rank_and_world
from lit_gans.nn.mode import evaluating
from lit_gans.papers.attngan.damsm import check_word_data
from lit_gans.papers.attngan.losses import discriminator_loss, generator_loss
from lit_gans.papers.attngan.maps import WordMaps
from lit_gans.papers.attngan.matching import (
    ImageEncoder,
    ImageNetwork,
    build_image_encoder,
    global_damsm_loss,
    global_rows,
    load_image_encoder,
    processes,
)
from lit_gans.papers.attngan.networks import Discriminators, Drawn, Generator, scales
from lit_gans.papers.text.encoders import TextFeatures, WordReader, is_run
from lit_gans.papers.text.game import TextGAN, scaled_images

IMAGE_ARGUMENTS = ("image_encoder", "image_width", "image_px")


class AttnGAN(TextGAN):
    """Sec. 3: a generator of several stages that attends to words, a discriminator for each, and the DAMSM loss.

    Batches are those of `lit_gans.data.TextData` with encode="words"; the data's wrong="caption" brings sentences of
    other classes for the discriminators. With "none" they are those of the next pictures, of whatever class, as in the
    official code (which leaves out the last picture; ours has the first one's). Adam with lr 2e-4, constant.

    Args:
        encoder_weights: a run of `DAMSM`, which brings both encoders with their words and sizes; or a file of the text
            encoder, such as AttnGAN's.
        resolution, stages: of the finest images, and how many sizes there are: each is twice the one before.
        condition_dim: of the conditioning augmentation.
        width, blocks: N_g of the generator, and the residual blocks of each stage but the first.
        discriminator_width: N_d.
        joint: the joint conditional-unconditional loss of Eq. 4 and 5; without it, conditional alone.
        damsm_weight: lambda of Eq. 3: 5 for birds, 50 for COCO. 0 does without the image encoder.
        kl_weight: of the conditioning augmentation's divergence.
        image_encoder, image_width, image_px: as those of `DAMSM`, whose run they are taken from where there is one.
        image_encoder_weights: a file of AttnGAN's image encoder, where `encoder_weights` is no run.
        gammas: of the DAMSM loss.
        encoder: "words" alone: others know no words to attend to.
        **text: vocabulary, sentence_dim, max_words, total_kimg, micro_batches, ... of `TextGAN`.

    Raises:
        ValueError, FileNotFoundError: sizes that do not fit, an encoder of another kind, weights that are missing.
    """

    text_encoder: WordReader

    def __init__(
        self,
        *,
        encoder: str = "words",
        encoder_weights: str | None = None,
        resolution: int = 256,
        stages: int = 3,
        z_dim: int = 100,
        condition_dim: int = 100,
        width: int = 32,
        blocks: int = 2,
        discriminator_width: int = 64,
        joint: bool = True,
        damsm_weight: float = 5.0,
        kl_weight: float = 1.0,
        image_encoder: ImageNetwork = "inception",
        image_width: int = 32,
        image_px: int = 64,
        image_encoder_weights: str | None = None,
        gammas: tuple[float, float, float] = (4.0, 5.0, 10.0),
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        **text: Any,
    ) -> None:
        if encoder != "words":
            raise ValueError(f"encoder is {encoder!r}, and AttnGAN attends to words: use encoder='words'")
        channels = text.pop("channels", 3)
        super().__init__(
            encoder=encoder, encoder_weights=encoder_weights, resolution=resolution, channels=channels, z_dim=z_dim,
            noise_dim=condition_dim, **text,
        )  # fmt: skip
        self.save_hyperparameters()
        self.keep_encoder()
        if channels != 3 or self.num_classes:
            raise ValueError(
                f"channels {channels} and num_classes {self.num_classes}: AttnGAN draws colours of captions; use 3 and "
                "0, or leave them out"
            )
        self.sides = scales(resolution, stages)
        embed_dim = self.text_encoder.sentence_dim
        sizes = {"resolution": resolution, "stages": stages, "embed_dim": embed_dim}
        self.generator = Generator(**sizes, z_dim=z_dim, condition_dim=condition_dim, width=width, blocks=blocks)
        self.discriminator = Discriminators(**sizes, width=discriminator_width, joint=joint)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.damsm_weight, self.kl_weight, self.gammas = damsm_weight, kl_weight, tuple(gammas)
        self.lr, self.betas = lr, betas
        self.image_encoder: ImageEncoder | None = None
        if damsm_weight:
            arguments = {"image_encoder": image_encoder, "image_width": image_width, "image_px": image_px}
            self._build_image_encoder(arguments, encoder_weights, image_encoder_weights)
        self.hparams.update(image_encoder_weights=None)  # checkpoints keep them

    def _build_image_encoder(self, arguments: dict[str, Any], run: str | None, file: str | None) -> None:
        checkpoint = None
        if run is not None and is_run(run):
            checkpoint = _damsm_run(run)
            arguments = {name: checkpoint["hyper_parameters"][name] for name in IMAGE_ARGUMENTS}
            self.hparams.update(arguments)
        self.image_encoder = build_image_encoder(
            arguments["image_encoder"],
            embed_dim=self.text_encoder.sentence_dim,
            width=arguments["image_width"],
            input_px=arguments["image_px"],
        )
        if checkpoint is not None:
            self.image_encoder.load_state_dict(under(checkpoint["state_dict"], "image_encoder."))
        elif file is not None:
            load_image_encoder(self.image_encoder, file)
        self._random_images = checkpoint is None and file is None
        self.image_encoder.eval().requires_grad_(False)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        real, classes = batch["image"], batch.get("label")
        text = self.features(batch)
        wrong = self.wrong_sentences(batch, text.sentence)
        z, eps = self.latents(len(real), "z"), self.draws("eps").normal(len(real), self.noise_dim)
        # All players see the same fakes, as in the official code.
        fakes = self.for_both(self.draw, z, eps, *text)
        with self.updating(opt_d):
            for fake, parts in zip(fakes, self.split(real, text.sentence, wrong), strict=True):
                self.accumulate(self.judged(fake, *parts))
        with self.updating(opt_g):
            for fake, (sentence, words, mask, kinds) in zip(fakes, self.split(*text, classes), strict=True):
                g_loss = self.kl_weight * divergence(fake.mu, fake.logvar)
                for discriminator, images in zip(self.discriminator.at.values(), fake.images, strict=True):
                    g_loss = g_loss + generator_loss(discriminator, images, sentence)  # Eq. 4
                if self.image_encoder is not None:  # Eq. 3, of the finest images alone
                    g_loss = g_loss + self.damsm_weight * self.matching(
                        fake.images[-1], TextFeatures(sentence, words, mask), kinds
                    )
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    def draw(self, z: Tensor, eps: Tensor, sentence: Tensor, words: Tensor, mask: Tensor) -> Drawn:
        return self.generator(z, sentence, words, mask, eps=eps)

    def judged(self, fake: Drawn, real: Tensor, sentence: Tensor, wrong: Tensor) -> Tensor:
        """The sum of the losses of all discriminators."""
        losses = []
        for discriminator, shown, made in zip(
            self.discriminator.at.values(), scaled_images(real, self.sides), fake.images, strict=True
        ):
            loss, real_logits, fake_logits = discriminator_loss(discriminator, shown, made.detach(), sentence, wrong)
            losses.append(loss)
        self.report_discriminator(sum(losses), real_logits, fake_logits)  # logits of the finest images
        return sum(losses)

    def matching(self, images: Tensor, text: TextFeatures, classes: Tensor | None) -> Tensor:
        """L_DAMSM of generated images, whose gradient is right once averaged over processes."""
        regions, image = self.image_encoder(images)
        terms = global_damsm_loss(regions, image, text, classes=classes, gammas=self.gammas)
        self.report(damsm=sum(terms))
        value = sum(terms)
        # The value of all processes, with their number times the gradient of this one's rows.
        return value + (processes() - 1) * (value - value.detach())

    def wrong_sentences(self, batch: Mapping[str, Tensor], own: Tensor) -> Tensor:
        """[N, D]: sentences that the batch's pictures do not fit, whose `own` are [N, D]."""
        if "wrong_words" in batch:
            return self.features(batch, prefix="wrong_").sentence
        rank, _ = rank_and_world()
        return global_rows(own).roll(-1, 0)[rank * len(own) : (rank + 1) * len(own)]  # [world N, D] -> [N, D]

    # ---- what Lightning calls ----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]

    def discriminators(self) -> list[nn.Module]:
        return list(self.discriminator.at.values())

    def networks(self) -> list[nn.Module]:
        return [self.generator, *self.discriminator.at.values()]

    def train(self, mode: bool = True) -> AttnGAN:
        super().train(mode)
        if self.image_encoder is not None:
            self.image_encoder.eval()  # frozen
        return self

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        data = self.trainer.datamodule
        check_word_data(self, data, self.text_encoder)
        if data.wrong == "image":
            raise ValueError(
                "the data's wrong is 'image', and AttnGAN's discriminators see wrong captions: set "
                "data.init_args.wrong to 'caption' or 'none'"
            )
        if self.image_encoder is not None and self._random_images and self.images_seen == 0:
            rank_zero_warn(
                "the image encoder of the DAMSM loss has random weights and is not trained: give encoder_weights a run "
                "of lit_gans.papers.DAMSM or image_encoder_weights a file, or set damsm_weight=0"
            )

    # ---- drawing -----------------------------------------------------------------------------------------------------

    def scales(self, generator: nn.Module, z: Tensor, features: TextFeatures | None, *, noise: Tensor) -> list[Tensor]:
        return generator(z, features.sentence, features.words, features.mask, eps=noise).images

    @torch.no_grad()
    def attention(
        self,
        seeds: Sequence[int] | Tensor,
        captions: Sequence[str],
        *,
        stage: int = -1,
        psi: float = 1.0,
        ema: bool = True,
    ) -> WordMaps:
        """Images of seeds and captions, and where the words of each are drawn; see `lit_gans.papers.attngan.maps`.

        stage: 0 is the attention that the second images are made by, -1 that of the finest. psi, ema: as in `sample`.

        Raises:
            ValueError: no such stage, captions that cannot be read, or not one for each seed.
        """
        seeds = torch.as_tensor(seeds)
        if len(captions) != len(seeds):
            raise ValueError(f"{len(captions)} captions for {len(seeds)} seeds: give one for each")
        count = len(self.sides) - 1
        if not -count <= stage < count:
            raise ValueError(f"stage {stage}: this AttnGAN attends {count} times, so give 0 to {count - 1}, or -1")
        text = self.read(captions)
        network = self.generator_ema if ema else self.generator
        with evaluating(network):
            z, eps = self.seeded_latents(seeds), self.seeded_noise(seeds)
            drawn = network(psi * z, text.sentence, text.words, text.mask, eps=psi * eps)
        numbers = self.text_encoder.tensors(captions)
        vocabulary = self.text_encoder.vocabulary
        rows = zip(numbers["words"], numbers["lengths"].tolist(), strict=True)
        words = [[vocabulary.words[i] for i in row[:length].tolist()] for row, length in rows]
        return WordMaps(to_uint8(drawn.images[-1]).cpu(), drawn.maps[stage].cpu(), words)


def _damsm_run(path: str) -> dict[str, Any]:
    """The checkpoint of a run of `DAMSM`. ValueError for one of another class."""
    _, checkpoint = open_checkpoint(path)
    if not all(name in checkpoint["hyper_parameters"] for name in IMAGE_ARGUMENTS):
        raise ValueError(
            f"encoder_weights {path} is a {checkpoint['lit_gans']['class_path']}, which has no image encoder: give a "
            "run of lit_gans.papers.DAMSM, or set damsm_weight=0"
        )
    return checkpoint
