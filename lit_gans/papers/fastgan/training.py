"""How FastGAN is trained (Liu et al., 2021, Sec. 3.2): hinge loss, and a discriminator that must know what it saw."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import hinge
from lit_gans.metrics.perceptual import LPIPS, LPIPS_NETS, build_lpips
from lit_gans.nn.spectral_norm import SpectralLayer
from lit_gans.papers.dcgan import init_weights
from lit_gans.papers.fastgan.networks import Discriminator, Generator, quarter

Reconstruction = Literal["lpips", "l1", "mse"]


def initialise(network: nn.Module) -> None:
    """All weights from N(0, 0.02), gains of batch norms from N(1, 0.02), as in the official code."""
    init_weights(network)
    for layer in network.modules():
        if isinstance(layer, SpectralLayer):
            layer.approach()


class FastGAN(GAN):
    """Hinge loss; the discriminator also makes the reals again from its features (Eq. 3 and 4).

    Adam with lr 2e-4 and beta1 0.5, 8 images a batch, an average of the generator whose half-life is 5.5 kimg (0.999 a
    step), differentiable augmentation of all images.

    Two things differ from the official code, which the paper does not speak of: margins of the hinge loss are 1, where
    the code draws them from 0.8 to 1, and each image has a quarter of its own made again, where the code takes the same
    of all. The generator is that of Projected GAN's code, which has no hyperbolic tangent at its end, and no image of
    128 pixels beside the large one.

    Args:
        resolution: a power of two from 32 to 1024.
        width, lite: of the generator, see `Generator`. discriminator_width: feature maps of its blocks at 64 pixels.
        reconstruction: distance of what is made again, "lpips" as published; "l1" and "mse" need no weights.
        reconstruction_weight: of the two distances' sum. Eq. 3 has 1; the official code adds up over its batch of 8,
            and so do we by weighing the mean.
        perceptual_net: "vgg" as published, "alex" or "squeeze". weights_path: a file of this network's weights by
            torchvision's names, where they shall not be downloaded or are not to be had.
        augment: applied to all images that the discriminator sees, such as lit_gans.augment.DiffAugment.
        **game: channels, total_kimg, ... of `GAN`.
    """

    only_in_training = ("augment",)

    def __init__(
        self,
        *,
        resolution: int = 256,
        channels: int = 3,
        z_dim: int = 256,
        width: int = 64,
        lite: bool = False,
        discriminator_width: int = 64,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        reconstruction: Reconstruction = "lpips",
        reconstruction_weight: float = 8.0,
        perceptual_net: str = "vgg",
        weights_path: str | None = None,
        augment: nn.Module | None = None,
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, z_dim=z_dim, **game)
        self.save_hyperparameters(ignore=["augment"])  # sampling needs none; training takes it from the config
        if self.num_classes:
            raise ValueError("FastGAN's discriminator is unconditional: set num_classes=0")
        if reconstruction not in get_args(Reconstruction):
            raise ValueError(f"reconstruction {reconstruction!r} is not one of {', '.join(get_args(Reconstruction))}")
        if perceptual_net not in LPIPS_NETS:
            raise ValueError(f"perceptual_net {perceptual_net!r} is not one of {', '.join(LPIPS_NETS)}")
        size = {"resolution": resolution, "channels": channels}
        self.generator = Generator(z_dim=z_dim, width=width, lite=lite, **size)
        self.discriminator = Discriminator(width=discriminator_width, **size)
        for network in (self.generator, self.discriminator):
            initialise(network)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.augment, self.lr, self.betas = augment, lr, betas
        self.reconstruction, self.reconstruction_weight = reconstruction, reconstruction_weight
        self.perceptual_net, self.weights_path = perceptual_net, weights_path
        self._lpips: tuple[LPIPS, ...] = ()  # in a tuple it is no part of the model, nor of its checkpoints

    @classmethod
    def from_generator(cls, generator: Generator) -> FastGAN:
        """A generator alone, such as a released one, for sampling, measuring and editing.

        It takes both the averaged generator's place and the other's; the discriminator is a tiny one, never trained.
        """
        size = {"resolution": generator.resolution, "channels": generator.channels, "z_dim": generator.z_dim}
        gan = cls(**size, width=1, lite=True, discriminator_width=1, reconstruction="l1")
        gan.generator = gan.generator_ema = generator
        gan.num_classes = generator.num_classes
        return gan

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        # Both players see the same fakes, augmented alike, as in the official code.
        real, fakes = batch["image"], self.for_both(self.fake, self.latents(len(batch["image"]), "z"))
        quarters = (4 * self.draws("quarters").uniform(len(real))).long()
        with self.updating(opt_d):
            for fake, (x, of_each) in zip(fakes, self.split(real, quarters), strict=True):
                x = self.seen(x)
                real_logits, whole, part = self.discriminator(x, of_each)
                fake_logits = self.discriminator(fake.detach())
                d_loss, _ = hinge(real_logits, fake_logits)
                self.report_discriminator(d_loss, real_logits, fake_logits)
                if self.reconstruction_weight:
                    rebuilt = self.distance(whole, x) + self.distance(part, quarter(x, of_each))
                    d_loss = d_loss + self.reconstruction_weight * rebuilt
                    self.report(reconstruction=rebuilt)
                self.accumulate(d_loss)
        with self.updating(opt_g):
            for fake in fakes:
                fake_logits = self.discriminator(fake)
                _, g_loss = hinge(fake_logits, fake_logits)
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    def fake(self, z: Tensor) -> Tensor:
        """As the discriminator is shown it."""
        return self.seen(self.generator(z))

    def seen(self, images: Tensor) -> Tensor:
        return images if self.augment is None else self.augment(images)

    def distance(self, rebuilt: Tensor, images: Tensor) -> Tensor:
        """Mean over the batch of how far images made again are from those, brought to their size (Eq. 4)."""
        images = interpolate(images, rebuilt.shape[2:])
        if self.reconstruction == "lpips":
            return self._lpips[0](rebuilt, images).mean()
        difference = rebuilt - images
        return difference.abs().mean() if self.reconstruction == "l1" else difference.square().mean()

    # ---- what Lightning calls ----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and self.reconstruction == "lpips" and self.reconstruction_weight:
            self._lpips = (self._perceptual_network(),)

    def frozen_networks(self) -> list[dict[str, object]]:
        weights = "published weights" if self.weights_path is None else str(self.weights_path)
        return [{"network": n.name, "weights": weights, "fingerprint": n.fingerprint} for n in self._lpips]

    def _perceptual_network(self) -> LPIPS:
        """Raises ValueError, before anything is trained, where its weights cannot be had."""
        try:
            return build_lpips(self.perceptual_net, weights_path=self.weights_path)
        except (FileNotFoundError, ConnectionError) as error:
            raise ValueError(
                f"the discriminator's reconstructions are compared by LPIPS, and {error}. Without these weights "
                "reconstruction=l1 or mse compares them by pixels, which is not what the paper has"
            ) from error

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._lpips = tuple(network.to(self.device) for network in self._lpips)

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> images [N, C, H, W] in [-1, 1], with the layers' own noise.

        Raises:
            ValueError: psi is not 1; latents are normalised, so that their scale changes nothing.
        """
        if psi != 1:
            raise ValueError(f"psi {psi} would change nothing: FastGAN normalises its latents; leave it at 1")
        with self.sampling(ema=ema) as network:
            return network(z, labels).clamp(-1, 1)
