"""How StyleGAN-T is trained (Sauer et al., 2023, Sec. 3): primary at 64 pixels, then text encoder or more pixels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate, normalize

from lit_gans.adversarial import lazy_adam
from lit_gans.adversarial.checks import open_earlier, say
from lit_gans.adversarial.losses import hinge
from lit_gans.augment.diffaug import POLICIES
from lit_gans.base.cache import digest
from lit_gans.base.checkpoints import under
from lit_gans.base.processes import mean_over_processes
from lit_gans.base.random import derive_seed
from lit_gans.metrics.sources import StyleLayer
from lit_gans.nn.mode import evaluating
from lit_gans.papers.projected_gan.features import PUBLISHED_PX
from lit_gans.papers.stylegan2.networks import Half, Noise, check_choice
from lit_gans.papers.stylegan3.training import blurred
from lit_gans.papers.stylegan_t.discriminators import GROUP, Discriminator, check_groups, cropped
from lit_gans.papers.stylegan_t.features import DINO
from lit_gans.papers.stylegan_t.guidance import CROP_PX, SEEN_PX, CLIPGuide, JointGuide, spherical_distance
from lit_gans.papers.stylegan_t.networks import Generator, Phase
from lit_gans.papers.text.encoders import CharacterReader, TextFeatures, WordReader
from lit_gans.papers.text.game import TextGAN


class StyleGANT(TextGAN):
    """Sec. 3: hinge loss of discriminators on frozen tokens, without a penalty; a guide towards the captions.

    Every phase is a run, and goes on from one by `start_from`. "all" trains the primary network, or a larger one from
    it, as in the paper; "freeze64", which is the official code's, the blocks above 64 pixels and the colours of all;
    "text_encoder" the generator's own text encoder and nothing else of it (Sec. 3.3). The discriminators are trained in
    all of them, and are always told what the frozen encoder reads.

    Sentences are brought to one length, 1 as published. Fakes have the captions of the batch's reals. The official
    code decides on crops in each process's micro-batch and moves `x_avg` there; here all of a batch have one decision,
    and the average moves by all of it once per player: processes and micro-batches change nothing. Outside of phase
    "text_encoder" it trains with what the frozen encoder reads even where the generator has an encoder of its own, by
    which it samples; here the generator is always told what its own one reads. Each pass in training moves the vectors
    of spectral norms: micro-batches, of which each is a pass, train a little differently.

    Args:
        resolution: a power of two from 8; primary_px: that of the primary network, for "freeze64".
        phase: "all", "text_encoder" or "freeze64"; start_from: the run folder or .ckpt before it, which is read before
            the first batch only; "all" can do without.
        sentence_length: that sentences are brought to. 1 is little beside mapped z, which has about the root of z_dim:
            small networks that learn for a short time follow captions sooner with the root of sentence_dim.
        own_encoder: the generator has a text encoder of its own: where the run before trained one, or this does.
        channel_base, channel_max, num_res_blocks, gn_groups, conv_clamp: see `SynthesisNetwork`; 65536, 2048 and 3 are
            the published "full", 32768, 512 and 2 "lite".
        num_half_res, half_dtype: so many top resolutions in half precision; 4 in the official code.
        features: what the discriminators look through: a model of timm, or "torchvision:<model>"; see `TokenNetwork`.
        features_weights: a file of its weights; None takes the published ones, "random" draws them.
        features_fingerprint: of the weights, 16 hex digits; others are refused. Checkpoints keep those of the run.
        features_px: the side that it sees; crop_probability: of batches of larger images, so many are seen through a
            crop of that side.
        cmap_dim, policy: see `Discriminator`. norm_group: images that share the statistics of a norm; a micro-batch is
            divided into groups of that size.
        at_once: adversarial losses are their mean over this many. The official code divides by what a GPU processes at
            once, 8 unless it is told otherwise; only beside the guide it matters.
        guide: images [N, C, H, W] in [-1, 1] -> [N, sentence_dim], in one space with the sentences: `CLIPGuide`, ...
        guidance_weight: of the squared angle between image and sentence; 0 in the official code, 0.2 in the paper.
        lr_g, lr_d, lr_text, betas: of Adam, of the generator, the discriminators, and the generator's text encoder.
        blur_sigma, blur_kimg: images are blurred with so many pixels at first, linearly less until blur_kimg.
        **text: encoder, encoder_weights, total_kimg, ... of `TextGAN`.

    Raises:
        ValueError: arguments that contradict each other.
    """

    text_avg: Tensor | None
    only_in_training = ("guide",)

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 3,
        encoder: str = "clip:openai/clip-vit-large-patch14",
        sentence_dim: int = 768,
        sentence_length: float = 1.0,
        phase: Phase = "all",
        start_from: str | None = None,
        primary_px: int = 64,
        own_encoder: bool = False,
        z_dim: int = 64,
        mapping_layers: int = 2,
        channel_base: int = 65536,
        channel_max: int = 2048,
        num_res_blocks: int = 3,
        gn_groups: int = 32,
        conv_clamp: float | None = 256,
        num_half_res: int = 0,
        half_dtype: Half = "float16",
        features: str = DINO,
        features_weights: str | None = None,
        features_fingerprint: str | None = None,
        features_px: int = PUBLISHED_PX,
        crop_probability: float = 0.5,
        cmap_dim: int = 64,
        norm_group: int = GROUP,
        policy: Sequence[str] = POLICIES,
        at_once: int = 8,
        guide: nn.Module | None = None,
        guidance_weight: float = 0.0,
        lr_g: float = 0.002,
        lr_d: float = 0.002,
        lr_text: float = 3e-6,
        betas: tuple[float, float] = (0.0, 0.99),
        blur_sigma: float = 32.0,
        blur_kimg: float = 1000.0,
        **text: Any,
    ) -> None:
        super().__init__(
            resolution=resolution, channels=channels, z_dim=z_dim, encoder=encoder, sentence_dim=sentence_dim, **text
        )
        self.save_hyperparameters(ignore=["guide"])  # sampling needs none; training takes it from the config
        self.keep_encoder()
        check_choice("phase", phase, Phase)
        own_encoder |= phase == "text_encoder"
        if own_encoder and not isinstance(self.text_encoder, (WordReader, CharacterReader)):
            raise ValueError(
                f"the generator cannot have a text encoder of its own: encoder {encoder!r} reads none of the captions' "
                "words or characters in training; use 'words' or 'characters', or phase 'all' or 'freeze64'"
            )
        c_dim = 0 if self.text_encoder is None else self.text_encoder.sentence_dim
        self.generator = Generator(
            resolution=resolution,
            channels=channels,
            z_dim=z_dim,
            c_dim=c_dim,
            mapping_layers=mapping_layers,
            channel_base=channel_base,
            channel_max=channel_max,
            num_res_blocks=num_res_blocks,
            gn_groups=gn_groups,
            conv_clamp=conv_clamp,
            num_half_res=num_half_res,
            half_dtype=half_dtype,
        )
        self.discriminator = Discriminator(
            features,
            features_px=features_px,
            features_weights=features_weights,
            fingerprint=features_fingerprint,
            c_dim=c_dim,
            cmap_dim=cmap_dim,
            group=norm_group,
            policy=policy,
            seed=derive_seed(self.seed, "features"),
        )
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.reader = copy.deepcopy(self.text_encoder) if own_encoder else None
        self.reader_ema = copy.deepcopy(self.text_encoder) if own_encoder else None
        self.register_buffer("text_avg", torch.zeros(c_dim) if c_dim else None)  # of sentences: styles without one's
        self.guide = None if guide is None else guide.requires_grad_(False).eval()
        self.phase, self.start_from, self.primary_px = phase, start_from, primary_px
        self.sentence_length = sentence_length
        self.at_once, self.guidance_weight, self.crop_probability = at_once, guidance_weight, crop_probability
        self.lr_g, self.lr_d, self.lr_text, self.betas = lr_g, lr_d, lr_text, betas
        self.blur_sigma, self.blur_kimg = blur_sigma, blur_kimg
        self.check_arguments()
        self.generator.requires_grad_(False)
        for parameter in self.trained().values():
            parameter.requires_grad_(True)

    def check_arguments(self) -> None:
        """ValueError for those that contradict each other."""
        if self.phase == "freeze64" and self.resolution <= self.primary_px:
            raise ValueError(
                f"resolution {self.resolution} has no blocks above primary_px {self.primary_px}, which phase "
                "'freeze64' trains: give a larger resolution"
            )
        if self.sentence_length <= 0:
            raise ValueError(f"sentence_length {self.sentence_length} must be positive; 1 as published")
        if self.at_once < 1 or not 0 <= self.crop_probability <= 1:
            raise ValueError(
                f"at_once {self.at_once} must be 1 or more, and crop_probability {self.crop_probability} in [0, 1]"
            )
        if self.blur_sigma < 0 or self.blur_kimg <= 0:
            raise ValueError(
                f"blur_sigma {self.blur_sigma} must not be negative, and blur_kimg {self.blur_kimg} be positive; "
                "blur_sigma=0 blurs nothing"
            )

    @classmethod
    def from_generator(cls, generator: Generator) -> StyleGANT:
        """A generator alone, such as an official one, for sampling, measuring and editing; nothing judges it.

        One of sentences draws those of CLIP, by which the official code conditions.
        """
        blocks, mapping = generator.synthesis.blocks, generator.mapping
        resolution, rgb = max(map(int, blocks)), blocks[str(max(map(int, blocks)))].to_rgb
        size: dict[str, Any] = {"resolution": resolution, "channels": len(rgb.bias), "z_dim": mapping.z_dim}
        size |= {"sentence_dim": mapping.c_dim} if mapping.c_dim else {"encoder": "none"}
        small = {"channel_base": 8 * resolution, "channel_max": 1, "num_res_blocks": 1, "gn_groups": 1, "cmap_dim": 1}
        gan = cls(**size, **small, features="torchvision:squeezenet1_1", features_px=64)
        gan.generator = gan.generator_ema = generator
        return gan

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        real, c, means = batch["image"], self.sentences(self.features(batch)), list[Tensor]()
        words = [batch[name] for name in self.read_tensors]  # for the generator's own text encoder
        with self.updating(opt_d):
            for x, z, told, *read in self.split(real, self.latents(len(real), "d"), c, *words):
                with torch.no_grad():
                    fake = self.drawn(z, told, read, means)
                # One after the other: norms must see each alone.
                fake_logits, real_logits = self.judged(fake, told, "fake"), self.judged(x, told, "real")
                d_loss, _ = hinge(real_logits, fake_logits)
                self.accumulate(d_loss / self.at_once)
                self.report_discriminator(d_loss, real_logits, fake_logits)
        self.move_average(means)
        with self.updating(opt_g):
            for z, told, *read in self.split(self.latents(len(real), "g"), c, *words):
                fake = self.drawn(z, told, read, means)
                fake_logits = self.judged(fake, told, "pass")
                _, g_loss = hinge(fake_logits, fake_logits)
                self.accumulate(g_loss / self.at_once + self.guidance(fake, told))
                self.report(loss_g=g_loss)
        self.move_average(means)

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    def sentences(self, features: TextFeatures | None) -> Tensor | None:
        """Sentences [N, D] of `sentence_length`; None without captions."""
        return None if features is None else self.sentence_length * normalize(features.sentence.float(), dim=1)

    @property
    def read_tensors(self) -> tuple[str, ...]:
        """Of a batch, what the generator's own text encoder reads; () where it has none."""
        if self.reader is None:
            return ()
        return ("words", "lengths") if self.reader.reads == "words" else ("characters",)

    def drawn(self, z: Tensor, told: Tensor | None, read: Sequence[Tensor], means: list[Tensor]) -> Tensor:
        """Fakes of sentences, or of what the generator's own encoder reads; means takes that of mapped z and text."""
        if self.reader is not None:
            told = self.sentences(self.reader(dict(zip(self.read_tensors, read, strict=True))))
        ws = self.generator.mapping(z, told)
        means.append(ws[:, 0].detach().mean(0, dtype=torch.float32))
        return self.generator.synthesis(ws)

    def judged(self, images: Tensor, told: Tensor | None, purpose: str) -> Tensor:
        """Logits [N, L] of images as the discriminators are shown them; purpose: whose crop it is."""
        images = self.seen(images)
        place = self.place(purpose, images.shape[-1], self.discriminator.features.px, self.crop_probability)
        return self.discriminator(images, told, place=place)

    def seen(self, images: Tensor) -> Tensor:
        """Images at the generator's resolution, blurred as at this moment of the clock."""
        if images.shape[-1] > self.resolution:
            images = interpolate(images, (self.resolution, self.resolution), mode="area")
        return blurred(images, self.blur_sigma * max(1 - self.kimg / self.blur_kimg, 0.0))

    def place(self, purpose: str, side: int, px: int, probability: float) -> tuple[int, int] | None:
        """Top and left of a crop of `px` of images of this side, one for the whole batch; None where there is none."""
        key = (self.seed, self.images_seen, "crop", purpose)
        if side <= px or derive_seed(*key, "whether") >= probability * 2**63:
            return None
        return derive_seed(*key, "top") % (side - px + 1), derive_seed(*key, "left") % (side - px + 1)

    def guidance(self, fake: Tensor, told: Tensor | None) -> Tensor | float:
        """The weighted mean squared angle to the captions (Sec. 3.3), of images neither blurred nor augmented.

        Of more than 64 pixels through a crop of 64; all enlarged to 224.
        """
        if not self.guidance_weight or self.guide is None or told is None:
            return 0.0
        place = self.place("guide", fake.shape[-1], CROP_PX, 1.0)
        fake = fake if place is None else cropped(fake, place, px=CROP_PX)
        loss = spherical_distance(self.guide(interpolate(fake, (SEEN_PX, SEEN_PX), mode="area")), told).mean()
        self.report(guidance=loss)
        return self.guidance_weight * loss

    @torch.no_grad()
    def move_average(self, means: list[Tensor]) -> None:
        """x_avg and the mean sentence, by the means [Z + C] of micro-batches, which are then taken out."""
        mapping, mean = self.generator.mapping, mean_over_processes(torch.stack(means).mean(0))
        mapping.track(mean[: self.z_dim])
        if self.text_avg is not None:
            self.text_avg.lerp_(mean[self.z_dim :], 1 - mapping.x_avg_decay)
        means.clear()

    # ---- phases ------------------------------------------------------------------------------------------------------

    def trained(self) -> dict[str, nn.Parameter]:
        """What this phase trains of the generator and its own text encoder, by their names in this module."""
        if self.phase == "text_encoder":
            assert self.reader is not None
            return {f"reader.{name}": p for name, p in self.reader.named_parameters()}
        found = self.generator.trained(self.phase, primary_px=self.primary_px)
        return {f"generator.{name}": p for name, p in found}

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self._compile:  # training calls the generator's two halves
            self.generator.mapping.compile(dynamic=False)
            self.generator.synthesis.compile(dynamic=False)
        if (self.start_from is not None or self.phase != "all") and not self.images_seen:
            self.take_over(self.start_from)  # a resumed run has its weights back by now

    def take_over(self, run: str | Path | None) -> None:
        """All that there is of it from the phase before: the averaged generator, its text encoder, the discriminators.

        Raises:
            FileNotFoundError, ValueError: there is no such run, or it is none that this phase goes on from.
        """
        if run is None:
            raise ValueError(f"phase {self.phase!r} goes on from a run that was trained before: give it as start_from")
        path, checkpoint = open_earlier(self, run)
        saved = checkpoint["state_dict"]
        reads, own = under(saved, "text_encoder."), under(saved, "reader_ema.")
        known = {} if self.text_encoder is None else self.text_encoder.state_dict()
        if reads.keys() != known.keys() or any(not torch.equal(reads[k], known[k].cpu()) for k in known):
            raise ValueError(
                f"the text encoder of start_from {path} is another than this run's, so that sentences would come to "
                f"mean something else: give encoder_weights={run} too"
            )
        if (length := checkpoint["hyper_parameters"].get("sentence_length", 1.0)) != self.sentence_length:
            raise ValueError(
                f"start_from {path} was told sentences of length {length:g}, and this run tells its networks those of "
                f"length {self.sentence_length:g}: set sentence_length={length:g}"
            )
        if self.reader is None and own:
            raise ValueError(f"start_from {path} has a text encoder of its own: set own_encoder=true")
        heads = under(saved, "discriminator.")
        if _shapes(heads) != _shapes(self.discriminator.state_dict()):
            raise ValueError(
                f"the discriminators of start_from {path} look through another network, or are of another size: give "
                "features and cmap_dim as there"
            )
        for network in (self.generator, self.generator_ema):
            network.take(under(saved, "generator_ema."), phase=self.phase, primary_px=self.primary_px)
        for reader in (self.reader, self.reader_ema):
            if reader is not None:
                reader.load_state_dict(own or reads)
        self.discriminator.load_state_dict(heads)
        if self.text_avg is not None:
            self.text_avg.copy_(saved["text_avg"])

    # ---- what Lightning calls ----------------------------------------------------------------------------------------

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        # Before a norm a bias changes nothing; of what rounding leaves in its gradient Adam makes whole steps.
        for bias in self.discriminator.idle_biases():
            if bias.grad is not None:
                bias.grad.zero_()

    def train(self, mode: bool = True) -> StyleGANT:
        super().train(mode)
        for frozen in (self.guide, self.reader if self.phase != "text_encoder" else None):
            if frozen is not None:
                frozen.eval()
        return self

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        lr_g = self.lr_text if self.phase == "text_encoder" else self.lr_g
        players = ((self.trained().values(), lr_g), (self.discriminator.parameters(), self.lr_d))
        return [lazy_adam(p, lr=lr, betas=self.betas, fused=self.fused) for p, lr in players]

    def discriminators(self) -> list[nn.Module]:
        """The heads; what they look through is frozen as it is."""
        return list(self.discriminator.heads)

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        readers = [] if self.reader is None or self.reader_ema is None else [(self.reader_ema, self.reader)]
        return [*super().averages(), *readers]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        rows, whole = getattr(self.trainer.datamodule, "batch_size", None), self.trainer.world_size * self.micro_batches
        if isinstance(rows, int) and rows % whole == 0:
            what = f"batch_size {rows} in {whole} parts: one"
            check_groups(rows // whole, self.hparams["norm_group"], what=what)
        if self.guidance_weight and (self.guide is None or self.text_encoder is None):
            raise ValueError("guidance needs captions and a guide: set guidance_weight=0, or give both")
        network = self.discriminator.features
        network.load()
        self.hparams["features_fingerprint"] = network.fingerprint
        say(self.trainer, network.told() + ("" if self.text_encoder is None else f"; {self.told_text()}"))
        if self.guidance_weight:
            self.check_guide()

    def told_text(self) -> str:
        """What reads the captions, in a line."""
        assert self.text_encoder is not None
        own = "" if self.reader is None else ", the generator's its own"
        kind, size = type(self.text_encoder).__name__, self.text_encoder.sentence_dim
        return f"captions: encoder {self.hparams['encoder']} ({kind}), sentences of {size} numbers{own}"

    @torch.no_grad()
    def check_guide(self) -> None:
        """ValueError where what it makes of an image is not of the size of sentences, or of another space."""
        assert self.guide is not None and self.text_encoder is not None
        if isinstance(self.guide, JointGuide):
            self.guide.check_text(self.hparams["encoder"], self.text_encoder)
        seen = torch.zeros(1, self.channels, SEEN_PX, SEEN_PX, device=self.device)
        shape, size = tuple(self.guide(seen).shape), self.text_encoder.sentence_dim
        if shape != (1, size):
            raise ValueError(
                f"the guide makes {list(shape)} of an image, and sentences have {size} numbers: give the guide that "
                "shares a space with the text encoder"
            )

    def frozen_networks(self) -> list[dict[str, object]]:
        stamps = [self.discriminator.features.stamp()]
        if self.text_encoder is not None:
            weights = self.text_encoder.state_dict()  # none of what the data bring
            said = {"weights": self.told_text(), "fingerprint": digest(weights)[:16] if weights else None}
            stamps.append({"network": f"text encoder {self.hparams['encoder']}", **said})
        if self.guidance_weight and isinstance(self.guide, (CLIPGuide, JointGuide)):
            stamps.append(self.guide.stamp())
        return stamps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.discriminator.features.check_trained_with(checkpoint["hyper_parameters"].get("features_fingerprint"))
        super().on_load_checkpoint(checkpoint)

    # ---- sampling and editing ----------------------------------------------------------------------------------------

    def player(self, *, ema: bool = True) -> Generator:
        """The averaged generator, or the one that is trained."""
        return self.generator_ema if ema else self.generator

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Captions are read by the generator's own text encoder, where it has one: by its average."""
        frozen = self.text_encoder
        try:
            self.text_encoder = frozen if self.reader_ema is None else self.reader_ema.eval()
            yield
        finally:
            self.text_encoder = frozen

    def read(self, captions: Sequence[str]) -> TextFeatures:
        with self.reading():
            return super().read(captions)

    def held_captions(self, numbers: Tensor) -> tuple[list[str], TextFeatures]:
        with self.reading():
            return super().held_captions(numbers)

    def preview(
        self, data: pl.LightningDataModule | None, *, rows: int, columns: int, psi: float
    ) -> tuple[Tensor, int]:
        with self.reading():
            return super().preview(data, rows=rows, columns=columns, psi=psi)

    def scales(self, generator: nn.Module, z: Tensor, features: TextFeatures | None, *, noise: Tensor) -> list[Tensor]:
        return [generator(z, self.sentences(features), noise="const").clamp(-1, 1)]

    def _drawn(self, z: Tensor, features: TextFeatures | None, noise: Tensor, *, psi: float, ema: bool) -> list[Tensor]:
        """With psi truncating mapped z, and not the text."""
        network = self.player(ema=ema)
        with evaluating(network):
            return [network(z, self.sentences(features), psi=psi, noise="const").clamp(-1, 1)]

    def styles(
        self,
        z: Tensor,
        *,
        labels: Tensor | None = None,
        psi: float = 1.0,
        ema: bool = True,
        features: TextFeatures | None = None,
    ) -> Tensor:
        """z [N, z_dim] -> ws [N, L, W] of captions that were read before, or of the mean of all captions; psi truncates
        mapped z; differentiable."""
        self.sample_labels(torch.arange(z.shape[0]), labels)
        mean = None if self.text_avg is None else self.text_avg.expand(z.shape[0], -1)
        return self.player(ema=ema).mapping(z, mean if features is None else self.sentences(features), psi=psi)

    def synthesize(self, ws: Tensor, *, ema: bool = True, noise: Noise = "const") -> Tensor:
        """ws [N, L, W] -> images [N, C, H, W] in single precision, not clamped; differentiable."""
        return self.player(ema=ema).synthesis(ws, noise=noise, force_fp32=True)

    def style_layers(self, *, ema: bool = True) -> dict[str, StyleLayer]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.style_layers()

    def feature_layers(self, *, ema: bool = True) -> dict[str, nn.Module]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.feature_layers()

    def synthesize_transformed(self, ws: Tensor, transform: Tensor, *, ema: bool = True) -> Tensor:
        """As `synthesize`, with `transform` [3, 3] in place of the input's own: see `SynthesisInput`. Noise stays."""
        synthesis = self.player(ema=ema).synthesis
        moved = {f"blocks.{synthesis.base_px}.input.transform": transform.to(ws)}
        return functional_call(synthesis, moved, ws, {"noise": "const", "force_fp32": True})


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
