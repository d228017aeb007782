"""Age-cGAN (Antipov, Baccouche and Dugelay, 2017), https://arxiv.org/abs/1702.01983: one person's face at six ages.

A DCGAN whose condition y is a group of ages (Sec. 2.1); then an encoder E, which learns from what the generator draws
(Sec. 2.2). It says where the search for a photograph's latent begins; the search itself (Sec. 2.3) and ageing are done
to a trained generator, of whatever paper.
"""

import copy
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import loss_by_path
from lit_gans.adversarial.penalties import r1
from lit_gans.data.stream import permutation
from lit_gans.nn import BatchNorm
from lit_gans.nn.mode import evaluating
from lit_gans.papers import dcgan
from lit_gans.papers.dcgan import halving, init_weights, widths


class Generator(nn.Module):
    """DCGAN's, y one-hot beside z at its input: z [N, Z], labels [N] -> images [N, C, R, R] in [-1, 1]."""

    def __init__(
        self, *, z_dim: int, num_classes: int, width: int, kernel_size: int, channels: int, resolution: int
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        network = {"width": width, "kernel_size": kernel_size, "channels": channels, "resolution": resolution}
        self.layers = dcgan.Generator(z_dim=z_dim + num_classes, **network)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.layers(torch.cat([z, one_hot(labels, self.num_classes).to(z.dtype)], dim=1))  # [N, Z + Y]


class Discriminator(nn.Module):
    """DCGAN's, y as constant maps behind its first convolution (Perarnau et al., 2016): images [N, C, R, R] -> [N]."""

    def __init__(self, *, num_classes: int, width: int, kernel_size: int, channels: int, resolution: int) -> None:
        super().__init__()
        w = widths(resolution, width=width)[::-1]
        self.num_classes, self.first = num_classes, halving(channels, w[0], kernel_size)
        inputs, layers = [w[0] + num_classes, *w[1:]], list[nn.Module]()
        for fan_in, fan_out in zip(inputs[:-1], w[1:], strict=True):
            layers += [halving(fan_in, fan_out, kernel_size, bias=False), BatchNorm(fan_out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs[-1] * 16, 1))
        init_weights(self)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        x = leaky_relu(self.first(images), 0.2)  # [N, C, R, R] -> [N, w, R / 2, R / 2]
        y = one_hot(labels, self.num_classes).to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.layers(torch.cat([x, y], dim=1)).flatten()


class Encoder(nn.Module):
    """E (Sec. 2.2): 5x5 convolutions of stride 2 down to 4 pixels, two linear layers: images [N, C, R, R] -> z [N, Z].

    Four convolutions at 64 pixels, as published. Widths and activations are not: they are those of the encoder that the
    paper follows (Perarnau et al., 2016): 32, 64, 128, 256 channels and 4096 units with rectifiers.
    `pairs_seen` counts what it has learned from.
    """

    pairs_seen: Tensor

    def __init__(self, *, z_dim: int, width: int, hidden: int, channels: int, resolution: int) -> None:
        super().__init__()
        w, layers = widths(resolution, width=width)[::-1], list[nn.Module]()
        for fan_in, fan_out in pairwise([channels, *w]):
            layers += [halving(fan_in, fan_out, 5, bias=False), BatchNorm(fan_out), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(w[-1] * 16, hidden, bias=False), BatchNorm(hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, z_dim))
        self.register_buffer("pairs_seen", torch.zeros((), dtype=torch.int64))
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def latent_distance(found: Tensor, z: Tensor) -> Tensor:
    """Mean over N of the Euclidean distance of latents [N, Z], a scalar in single precision (Sec. 2.2)."""
    return torch.linalg.vector_norm(found.float() - z.float(), dim=1).mean()


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, pairs: int) -> np.ndarray:
    return permutation(seed, epoch, pairs)


class AgeCGAN(GAN):
    """Adam with lr 2e-4 and beta1 0.5, z of 100 normal values, 100 epochs of about 120,000 faces (Sec. 3.1).

    Args:
        num_classes: groups of ages, as `lit_gans.data.AgedFaces` has them.
        width, kernel_size: of both players, see `DCGAN`.
        encoder_share: the last part of total_kimg, in which E learns and both players stand still; 0 is no encoder.
            How long E was trained is not published.
        encoder_pairs: how many pairs of a latent and its image E sees, again and again.
        encoder_width, encoder_hidden: see `Encoder`.
        loss: import path of an adversarial loss; the paper's is logistic (Eq. 1).
        r1_gamma: weight of an R1 penalty in every step of the discriminator; 0 as published.
        **game: micro_batches, schedule, seed, ... of `GAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 3,
        num_classes: int = 6,
        z_dim: int = 100,
        width: int = 128,
        kernel_size: int = 5,
        encoder_share: float = 0.1,
        encoder_pairs: int = 100_000,
        encoder_width: int = 32,
        encoder_hidden: int = 4096,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        loss: str = "lit_gans.adversarial.losses.non_saturating",
        r1_gamma: float = 0.0,
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, **game)
        self.save_hyperparameters()
        if num_classes < 2:
            raise ValueError(f"num_classes {num_classes}: ageing needs 2 groups of ages or more, the paper has 6")
        if not 0 <= encoder_share < 1:
            raise ValueError(f"encoder_share {encoder_share} is not in [0, 1): 0.1 is the last tenth, 0 no encoder")
        if encoder_pairs < 1:
            raise ValueError(f"encoder_pairs {encoder_pairs} is below 1; the paper has 100000")
        shape = {"channels": channels, "resolution": resolution}
        player = {"num_classes": num_classes, "width": width, "kernel_size": kernel_size, **shape}
        self.generator, self.discriminator = Generator(z_dim=z_dim, **player), Discriminator(**player)
        self.generator_ema: Generator = copy.deepcopy(self.generator).requires_grad_(False)
        self.encoder: Encoder | None = None
        if encoder_share:
            self.encoder = Encoder(z_dim=z_dim, width=encoder_width, hidden=encoder_hidden, **shape)
        self.encoder_share, self.encoder_pairs = encoder_share, encoder_pairs
        self.lr, self.betas, self.loss, self.r1_gamma = lr, betas, loss_by_path(loss), r1_gamma
        self._settled = False

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if self.encoder is not None and self.kimg >= self.encoder_from_kimg:
            return self.encoder_step(self.encoder, len(batch["image"]))
        self._settled = False
        opt_g, opt_d, *_ = self.optimizers()
        image, label = batch["image"], batch["label"]  # fakes have the groups of the reals: y of the data (Eq. 1)
        fakes = self.for_both(self.generator, self.latents(len(image), "z"), label)
        real_logits = []
        with self.updating(opt_d):
            for fake, (real, y) in zip(fakes, self.split(image, label), strict=True):
                # Reals and fakes pass separately: batch norm must see each alone, as in DCGAN.
                real_logits.append(self.discriminator(real, y))
                fake_logits = self.discriminator(fake.detach(), y)
                d_loss, _ = self.loss(real_logits[-1], fake_logits)  # Eq. 1
                self.report_discriminator(d_loss, real_logits[-1], fake_logits)
                if self.r1_gamma:
                    penalty = r1(partial(self.discriminator.forward, labels=y), real)
                    d_loss = d_loss + self.r1_gamma / 2 * penalty
                    self.report(r1=penalty)
                self.accumulate(d_loss)
        with self.updating(opt_g):
            for fake, real_part, (y,) in zip(fakes, real_logits, self.split(label), strict=True):
                _, g_loss = self.loss(real_part.detach(), self.discriminator(fake, y))
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Of the generator, the discriminator and the encoder, whose own is not published: Adam as they have it."""
        return [lazy_adam(n.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for n in self.networks()]

    def networks(self) -> list[nn.Module]:
        return [self.generator, self.discriminator, *([] if self.encoder is None else [self.encoder])]

    # ---- the encoder (Sec. 2.2) --------------------------------------------------------------------------------------

    @property
    def encoder_from_kimg(self) -> float:
        """When the game is over and E begins to learn."""
        return (1 - self.encoder_share) * self.total_kimg

    def encoder_step(self, encoder: Encoder, n: int) -> None:
        """One update of E, by n pairs of this process."""
        self.settle()
        _, _, opt_e = self.optimizers()
        with self.updating(opt_e):
            for z, y in self.split(*self.pairs(self.pair_numbers(n))):
                with torch.no_grad():
                    images = self.generate(z, labels=y)
                distance = latent_distance(encoder(images), z)
                self.accumulate(distance)
                self.report(loss_e=distance)
        encoder.pairs_seen += n * self.trainer.world_size

    def settle(self) -> None:
        """The generator becomes its average, from which images are drawn, so that that stands still while E learns it.

        Where no average was kept it is the other way round. In a resumed run they are one already.
        """
        if self._settled:
            return
        pair = [self.generator, self.generator_ema]
        if self.generator_ema.layers.norm.num_batches_tracked == 0:  # statistics go with an average
            pair.reverse()
        pair[0].load_state_dict(pair[1].state_dict())
        self._settled = True

    def pair_numbers(self, n: int) -> Tensor:
        """int64 [n]: which of all pairs this process sees now; every pair once in an epoch, in an order of its own."""
        first = self.images_seen + self.global_rank * n
        places = (divmod(place, self.encoder_pairs) for place in range(first, first + n))
        return torch.tensor([int(_order(self.seed, epoch, self.encoder_pairs)[place]) for epoch, place in places])

    def pairs(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """(z [n, Z] of N(0, I), y [n], of every group equally many) of the pairs of these numbers."""
        z = self.prior.of_seeds(numbers, self.z_dim, purpose=f"pairs of {self.seed}")
        return z.to(self.device), (numbers % self.num_classes).to(self.device)

    @property
    def encodes(self) -> bool:
        """Whether E has begun to learn."""
        return self.encoder is not None and bool(self.encoder.pairs_seen)

    def encode(self, images: Tensor) -> Tensor:
        """images [N, C, R, R] in [-1, 1] -> z [N, Z], by E in evaluation mode; differentiable.

        ValueError without an encoder.
        """
        if self.encoder is None:
            raise ValueError("this AgeCGAN was trained with encoder_share 0, which is no encoder")
        with evaluating(self.encoder):
            return self.encoder(images)
