"""How BigGAN and BigGAN-deep are trained and sampled (Brock et al., 2019, Sec. 3 and 4, App. C)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import loss_by_path
from lit_gans.adversarial.penalties import orthogonality
from lit_gans.adversarial.priors import Normal, truncated
from lit_gans.base.random import Draws
from lit_gans.data.base import ImageData
from lit_gans.papers.biggan.deep import DeepDiscriminator, DeepGenerator
from lit_gans.papers.biggan.layers import (
    Init,
    Norm,
    Statistics,
    StatisticsTable,
    WeightNorm,
    gather,
    norms_of,
    standing_in,
    vectors_kept,
)
from lit_gans.papers.biggan.networks import Discriminator, Generator

Truncation = Literal["scaled", "resampled", "hub"]


class LargeScaleGAN(GAN):
    """What BigGAN and BigGAN-deep have in common: the recipe of Sec. 3, and what is done before sampling.

    Args:
        d_steps: of the discriminator in each batch, before one of the generator. Each has reals of its own: a batch of
            the data is `d_steps` times what a step sees.
        lr_g, lr_d, betas, adam_eps: of the players' Adam.
        loss: import path of an adversarial loss; the paper's is the hinge.
        ortho_g, ortho_d: weight of orthogonal regularisation of each player (Eq. 3): 1e-4 of the generator in the
            paper, 0 in the official scripts. Embeddings that norms share have none. ortho_norms: rows have length 1 too
            (Eq. 2).
        augment: applied to all images that the discriminator sees, such as lit_gans.augment.DiffAugment.
        truncation: what psi does to latents of N(0, 1), see `truncate`.
        standing_passes, standing_images: before it samples, the generator takes for its norms the mean statistics of so
            many passes with so many images each; 0 passes: the running statistics of training.
        **game: total_kimg, micro_batches, prior, ... of `GAN`.
    """

    generator: Generator | DeepGenerator
    truncations: tuple[str, ...] = get_args(Truncation)
    only_in_training = ("augment",)

    def __init__(
        self,
        *,
        d_steps: int = 1,
        lr_g: float = 1e-4,
        lr_d: float = 4e-4,
        betas: tuple[float, float] = (0.0, 0.999),
        adam_eps: float = 1e-6,
        loss: str = "lit_gans.adversarial.losses.hinge",
        ortho_g: float = 0.0,
        ortho_d: float = 0.0,
        ortho_norms: bool = False,
        augment: nn.Module | None = None,
        truncation: Truncation = "scaled",
        standing_passes: int = 16,
        standing_images: int = 64,
        **game: Any,
    ) -> None:
        super().__init__(**game)
        if d_steps < 1:
            raise ValueError(f"d_steps {d_steps} is below 1: the discriminator would never learn")
        if standing_passes < 0 or standing_images < 2:
            raise ValueError(
                f"standing_passes {standing_passes} of standing_images {standing_images}: statistics are of 2 images "
                "or more in each pass; 0 passes take those that training kept"
            )
        if truncation not in self.truncations:
            raise ValueError(f"truncation {truncation!r} is not one of {', '.join(self.truncations)}")
        self.d_steps, self.lr_g, self.lr_d, self.betas, self.adam_eps = d_steps, lr_g, lr_d, betas, adam_eps
        self.loss, self.augment = loss_by_path(loss), augment
        self.ortho_g, self.ortho_d, self.ortho_norms = ortho_g, ortho_d, ortho_norms
        self.truncation: str = truncation
        self.standing_passes, self.standing_images = standing_passes, standing_images
        self._standing: dict[tuple[object, ...], tuple[tuple[object, ...], list[Statistics]]] = {}

    # ---- training ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        label, n = batch["label"] if self.num_classes else None, len(batch["image"]) // self.d_steps
        for step in range(self.d_steps):
            # Every d_steps-th image: so the processes' parts are those of the same step's images of one process.
            mine, real_logits = slice(step, None, self.d_steps), list[Tensor]()
            reals = batch["image"][mine], None if label is None else label[mine]
            with self.updating(opt_d):
                for x, y, z, c in self.split(*reals, *self.drawn(n, f"d{step}")):
                    with torch.no_grad():
                        fake = self.generator(z, c)
                    fake_logits, real = self.judge_both(fake, x, c, y)
                    real_logits.append(real.detach())
                    d_loss, _ = self.loss(real, fake_logits)
                    self.accumulate(d_loss)
                    self.report_discriminator(d_loss, real, fake_logits)
                self.regularise("d", self.discriminator.parameters(), self.ortho_d)
        with self.updating(opt_g):
            for z, c, real in self.split(*self.drawn(n, "g"), torch.cat(real_logits)):
                _, g_loss = self.loss(real, self.discriminator(self.seen(self.generator(z, c)), c))
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)
            self.regularise("g", self.regularised(), self.ortho_g)

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    def drawn(self, n: int, purpose: str) -> tuple[Tensor, Tensor | None]:
        """Latents [n, Z] and classes [n], all equally likely, of n fakes."""
        z = self.latents(n, purpose)
        if not self.num_classes:
            return z, None
        labels = (self.draws("label", purpose).uniform(n) * self.num_classes).long()
        return z, labels.clamp(max=self.num_classes - 1)

    def judge_both(self, fake: Tensor, real: Tensor, c: Tensor | None, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits of fakes and reals, from one pass: so power iteration makes one step, as in the official code."""
        images = torch.cat([self.seen(fake), self.seen(real)])
        logits = self.discriminator(images, None if c is None or y is None else torch.cat([c, y]))
        fake_logits, real_logits = logits.chunk(2)
        return fake_logits, real_logits

    def seen(self, images: Tensor) -> Tensor:
        return images if self.augment is None else self.augment(images)

    def regularise(self, player: str, weights: Iterator[nn.Parameter], weight: float) -> None:
        """Adds orthogonal regularisation to the step, once for all of its micro-batches."""
        if weight:
            penalty = orthogonality(weights, norms=self.ortho_norms)
            self.accumulate(self.micro_batches * weight * penalty)
            self.report(**{f"ortho_{player}": penalty})

    def regularised(self) -> Iterator[nn.Parameter]:
        """The generator's parameters but for the embedding that its norms share."""
        shared = self.generator.shared
        return (p for p in self.generator.parameters() if shared is None or p is not shared.weight)

    # ---- what Lightning calls ----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = (self.generator, self.lr_g), (self.discriminator, self.lr_d)
        return [
            lazy_adam(player.parameters(), lr=lr, betas=self.betas, eps=self.adam_eps, fused=self.fused)
            for player, lr in players
        ]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        # Before a batch norm a bias changes nothing; of what rounding leaves in its gradient Adam makes whole steps.
        for bias in self.generator.idle_biases():
            if bias.grad is not None:
                bias.grad.zero_()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        parts = self.trainer.world_size * self.micro_batches
        if stage == "fit" and isinstance(data, ImageData) and data.batch_size % (parts * self.d_steps):
            raise ValueError(
                f"batch_size {data.batch_size} (global) is not divisible by {self.d_steps} d_steps x "
                f"{self.trainer.world_size} processes x {self.micro_batches} micro-batches: use a multiple of "
                f"{parts * self.d_steps}"
            )

    # ---- sampling (Sec. 3.1) -----------------------------------------------------------------------------------------

    def truncate(self, z: Tensor, psi: float) -> Tensor:
        """z of the prior, [N, Z], truncated: more typical and less varied images for smaller psi.

        "scaled": psi z, as BigGAN-PyTorch's `z_var`, which it takes for a deviation; of any prior, and 1 is none.
        "resampled": N(0, 1) whose numbers beyond psi are drawn again (Sec. 3.1); the paper has 2 down to 0.04, and 1 is
        not none. "hub": psi times N(0, 1) within 2, of the modules that the authors released.
        """
        if self.truncation == "scaled":
            return psi * z
        if not isinstance(self.prior, Normal):
            name = type(self.prior).__name__
            raise ValueError(f"truncation {self.truncation!r} is of N(0, 1), and the prior is {name}: use 'scaled'")
        return truncated(z, psi) if self.truncation == "resampled" else psi * truncated(z, 2.0)

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N], or weights of classes [N, C]) -> images [N, C, H, W] in [-1, 1].

        psi: see `truncate`. In evaluation mode, by standing statistics; differentiable.
        """
        with self.sampling(ema=ema, psi=psi) as network:
            return network(self.truncate(z, psi), labels)

    @contextmanager
    def sampling(self, *, ema: bool = True, psi: float = 1.0) -> Iterator[nn.Module]:
        """The network that images are drawn from, with statistics of its norms for latents truncated by psi."""
        with super().sampling(ema=ema) as network, standing_in(network, self._statistics(network, psi)):
            tables = [module for module in network.modules() if isinstance(module, StatisticsTable)]
            if tables and not 0 <= psi <= 1:
                raise ValueError(f"psi {psi}: the released statistics are of truncations from 0 to 1")
            for table in tables:
                table.psi = psi
            try:
                yield network
            finally:
                for table in tables:
                    table.psi = 1.0

    def _statistics(self, network: nn.Module, psi: float) -> list[Statistics] | None:
        """Gathered once for the weights as they are (App. C.1): of the same latents and classes in every process."""
        if not self.standing_passes or not norms_of(network):
            return None
        now = (self.images_seen, self.device, *((id(p), p._version) for p in network.parameters()))
        key = (id(network), psi, self.truncation)
        traced = torch.compiler.is_compiling() and key in self._standing  # then parameters are not themselves
        if self._standing.get(key, (None, None))[0] != now and not traced:
            inputs = [self._standing_inputs(number, psi) for number in range(self.standing_passes)]
            with torch.autocast(self.device.type, enabled=False), vectors_kept(network):
                found = gather(network, inputs)
            self._standing = {k: v for k, v in self._standing.items() if k[0] != id(network) or v[0] == now}
            self._standing[key] = now, found
        return self._standing[key][1]

    def _standing_inputs(self, number: int, psi: float) -> tuple[Tensor, Tensor | None]:
        draws = Draws("standing", number)  # on the CPU, so that all devices have the same
        z = self.truncate(self.prior.draw(draws, self.standing_images, self.z_dim), psi).to(self.device)
        if not self.num_classes:
            return z, None
        labels = (draws.uniform(self.standing_images) * self.num_classes).long().clamp(max=self.num_classes - 1)
        return z, labels.to(self.device)


class BigGAN(LargeScaleGAN):
    """BigGAN, and by its parts its ancestors: a shared embedding, hierarchical latents, attention, wide discriminators.

    SA-GAN has neither the embedding's parts of latents nor orthogonal weights; SN-GAN has no attention, and spectral
    normalisation in the discriminator alone. `experiments/biggan` has their settings.

    Args:
        resolution: 32, 64, 128, 256 or 512; num_classes: 0 for an unconditional model.
        width, discriminator_width: feature maps are multiples of these. discriminator_width None: as the generator's.
        attention: sides in px of the maps that it looks at, of both players; [] for none.
        shared, shared_dim, hierarchical, norm, bn_eps, biased: of the generator, see `Generator`.
        generator_norm: of its weights; "spectral", or "none" as in SN-GAN.
        wide: see `DownBlock`.
        sn_eps, sn_vectors, sn_steps: see `PowerIteration`. init: of weights, see `Generator`.
        **recipe: d_steps, lr_g, truncation, ... of `LargeScaleGAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 128,
        channels: int = 3,
        num_classes: int = 1000,
        z_dim: int = 120,
        width: int = 96,
        discriminator_width: int | None = None,
        attention: Sequence[int] = (64,),
        shared: bool = True,
        shared_dim: int = 128,
        hierarchical: bool = True,
        generator_norm: WeightNorm = "spectral",
        norm: Norm = "batch",
        bn_eps: float = 1e-5,
        biased: bool = False,
        wide: bool = True,
        sn_eps: float = 1e-6,
        sn_vectors: int = 1,
        sn_steps: int = 1,
        init: Init = "orthogonal",
        **recipe: Any,
    ) -> None:
        both: dict[str, Any] = {"resolution": resolution, "channels": channels, "num_classes": num_classes}
        both |= {"attention": attention, "sn_eps": sn_eps, "sn_vectors": sn_vectors, "sn_steps": sn_steps, "init": init}
        generator = Generator(
            **both,
            z_dim=z_dim,
            width=width,
            shared=shared,
            shared_dim=shared_dim,
            hierarchical=hierarchical,
            weight_norm=generator_norm,
            norm=norm,
            bn_eps=bn_eps,
            biased=biased,
        )
        super().__init__(
            resolution=resolution, channels=channels, num_classes=num_classes, z_dim=generator.z_dim, **recipe
        )
        self.save_hyperparameters(ignore=["augment"])  # sampling needs none; training takes it from the config
        self.generator = generator
        self.discriminator = Discriminator(**both, width=discriminator_width or width, wide=wide)
        self.generator_ema = copy.deepcopy(generator).requires_grad_(False)

    @classmethod
    def from_generator(cls, generator: Generator) -> BigGAN:
        """A generator alone, such as a released one, for sampling, measuring and editing, by its own statistics."""
        return _around(cls, generator, truncation="scaled")


class BigGANDeep(LargeScaleGAN):
    """BigGAN-deep (App. B, Figure 16): bottlenecks, the whole latent in every norm, shortcuts without weights.

    Args:
        depth: blocks at each resolution, of both players; the arguments not named here are those of `BigGAN`.
        **recipe: d_steps, lr_g, truncation, ... of `LargeScaleGAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 128,
        channels: int = 3,
        num_classes: int = 1000,
        z_dim: int = 128,
        width: int = 128,
        discriminator_width: int | None = None,
        depth: int = 2,
        attention: Sequence[int] = (64,),
        shared_dim: int = 128,
        norm: Norm = "batch",
        bn_eps: float = 1e-5,
        biased: bool = False,
        sn_eps: float = 1e-6,
        sn_vectors: int = 1,
        sn_steps: int = 1,
        init: Init = "orthogonal",
        **recipe: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, **recipe)
        self.save_hyperparameters(ignore=["augment"])
        both: dict[str, Any] = {"resolution": resolution, "channels": channels, "num_classes": num_classes}
        both |= {"attention": attention, "sn_eps": sn_eps, "sn_vectors": sn_vectors, "sn_steps": sn_steps}
        both |= {"init": init, "depth": depth}
        norms: dict[str, Any] = {"norm": norm, "bn_eps": bn_eps, "biased": biased}
        self.generator = DeepGenerator(**both, **norms, z_dim=z_dim, shared_dim=shared_dim, width=width)
        self.discriminator = DeepDiscriminator(**both, width=discriminator_width or width)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)

    @classmethod
    def from_generator(cls, generator: DeepGenerator) -> BigGANDeep:
        """As `BigGAN.from_generator`; one with statistics of many truncations is truncated as the released modules."""
        tables = any(isinstance(module, StatisticsTable) for module in generator.modules())
        return _around(cls, generator, truncation="hub" if tables else "scaled")


def _around(cls: type[Any], generator: Generator | DeepGenerator, *, truncation: Truncation) -> Any:
    """The generator takes the averaged one's place and the other's; the discriminator is a tiny one, never trained."""
    size = {"resolution": generator.resolution, "channels": generator.channels, "num_classes": generator.num_classes}
    gan = cls(**size, z_dim=len(generator.blocks) + 1, width=1, attention=[], truncation=truncation, standing_passes=0)
    gan.generator = gan.generator_ema = generator
    gan.z_dim = generator.z_dim
    return gan
