"""Conditional GAN (Mirza and Osindero, 2014), https://arxiv.org/abs/1411.1784, and its convolutional form.

`form="mlp"` is the paper's MNIST experiment (Sec. 4.1): both players see the label through a layer of their own.
`form="conv"` is the form that the field settled on: the label is embedded, drawn as one more map, and joined to the
first feature map of the generator and to the image of the discriminator.
"""

import copy
import math
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot, relu

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.losses import loss_by_path
from lit_gans.adversarial.penalties import r1
from lit_gans.adversarial.priors import Normal, Uniform
from lit_gans.nn import BatchNorm, Dropout, Maxout
from lit_gans.papers.dcgan import doubling, halving, init_weights, widths


class MLPGenerator(nn.Module):
    """z [N, Z] through 200 rectifiers, labels [N] through 1000, joined through 1200 -> images in [-1, 1]."""

    def __init__(self, *, z_dim: int, num_classes: int, channels: int, resolution: int, dropout: float) -> None:
        super().__init__()
        self.shape = (channels, resolution, resolution)
        self.from_z, self.from_label = nn.Linear(z_dim, 200), nn.Linear(num_classes, 1000)
        self.join, self.out = nn.Linear(1200, 1200), nn.Linear(1200, math.prod(self.shape))
        self.dropout = Dropout(dropout)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        label = one_hot(labels, self.from_label.in_features).to(z.dtype)
        x = torch.cat([relu(self.from_z(z)), relu(self.from_label(label))], dim=1)  # [N, 200 + 1000]
        x = relu(self.join(self.dropout(x)))
        return torch.tanh(self.out(self.dropout(x)) / 2).unflatten(1, self.shape)  # a sigmoid scaled to [-1, 1]


class MLPDiscriminator(nn.Module):
    """Maxout layers of 240x5 for the image, 50x5 for the label, 240x4 for both -> logits [N]."""

    def __init__(self, *, num_classes: int, channels: int, resolution: int, dropout: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.from_image = Maxout(channels * resolution**2, 240, pieces=5)
        self.from_label = Maxout(num_classes, 50, pieces=5)
        self.join, self.out = Maxout(290, 240, pieces=4), nn.Linear(240, 1)
        self.dropout = Dropout(dropout)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        label = self.from_label(one_hot(labels, self.num_classes).to(images.dtype))
        x = torch.cat([self.from_image(images.flatten(1)), label], dim=1)  # [N, C R R] -> [N, 240], joined to [N, 50]
        return self.out(self.dropout(self.join(self.dropout(x)))).flatten()


class ConvGenerator(nn.Module):
    """z to 4x4 maps, the label's own 4x4 map joined, transposed convolutions to the image in [-1, 1].

    At 64 pixels and width 128: 4x4x1024, joined to 4x4x1025, then 512, 256, 128 channels, kernels 5, stride 2.
    """

    def __init__(
        self, *, z_dim: int, num_classes: int, embed_dim: int, width: int, channels: int, resolution: int
    ) -> None:
        super().__init__()
        w = widths(resolution, width=width)
        self.from_z = nn.Linear(z_dim, w[0] * 16)
        self.from_label = nn.Sequential(nn.Embedding(num_classes, embed_dim), nn.Linear(embed_dim, 16))
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip([w[0] + 1, *w[1:-1]], w[1:], strict=True):
            layers += [doubling(fan_in, fan_out, 5, bias=False), BatchNorm(fan_out), nn.ReLU()]
        last = w[-1] if len(w) > 1 else w[0] + 1
        self.layers = nn.Sequential(*layers, doubling(last, channels, 5), nn.Tanh())
        init_weights(self)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = relu(self.from_z(z)).unflatten(1, (-1, 4, 4))  # [N, 16 w] -> [N, w, 4, 4], w of 4 px
        label = self.from_label(labels).unflatten(1, (1, 4, 4))  # [N] -> [N, 16] -> [N, 1, 4, 4]
        return self.layers(torch.cat([x, label], dim=1))


class ConvDiscriminator(nn.Module):
    """The label as one more channel of the image, strided convolutions without norm, dropout -> logits [N]."""

    def __init__(
        self, *, num_classes: int, embed_dim: int, width: int, channels: int, resolution: int, dropout: float
    ) -> None:
        super().__init__()
        w = widths(resolution, width=width)[::-1]
        self.from_label = nn.Sequential(nn.Embedding(num_classes, embed_dim), nn.Linear(embed_dim, resolution**2))
        self.convs = nn.ModuleList(
            halving(fan_in, fan_out, 5) for fan_in, fan_out in zip([channels + 1, *w[:-1]], w, strict=True)
        )
        self.dropout, self.out = Dropout(dropout), nn.Linear(w[-1] * 16, 1)
        init_weights(self)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        label = self.from_label(labels).view(-1, 1, *images.shape[2:])  # [N] -> [N, R R] -> [N, 1, R, R]
        x = torch.cat([images, label], dim=1)
        for conv in self.convs:
            x = self.dropout(leaky_relu(conv(x), 0.2))
        return self.out(x.flatten(1)).flatten()  # [N, w, 4, 4] -> [N, 16 w] -> [N]


class CGAN(GAN):
    """Eq. 2: both players are conditioned on the label.

    Args:
        form: "conv" or "mlp"; see the module's docstring. The paper's MLP was trained with `optimizer="sgd"`, lr 0.1
            and momentum 0.5 rising to 0.7, on 100 samples at a time, with dropout 0.5 in both players.
        width: channels at half the resolution (conv); 128 gives 1024, 512, 256, 128 at 64 pixels.
        embed_dim: size of the label's embedding (conv).
        dropout: of the discriminator, and of the MLP generator.
        label_flip: probability that a pair of real and fake swap places before the discriminator's loss.
        lr, betas: Adam's; under "sgd" lr and momentum betas[0].
        loss: import path of an adversarial loss; the paper's is logistic.
        r1_gamma: weight of an R1 penalty in every step; 0 as published.
        **game: total_kimg, micro_batches, ... of `GAN`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 3,
        num_classes: int = 10,
        z_dim: int = 100,
        form: Literal["conv", "mlp"] = "conv",
        width: int = 128,
        embed_dim: int = 50,
        dropout: float = 0.4,
        label_flip: float = 0.05,
        optimizer: Literal["adam", "sgd"] = "adam",
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        loss: str = "lit_gans.adversarial.losses.non_saturating",
        r1_gamma: float = 0.0,
        **game: Any,
    ) -> None:
        prior = Uniform() if form == "mlp" else Normal()
        super().__init__(
            resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, prior=prior, **game
        )
        self.save_hyperparameters()
        if num_classes < 2:
            raise ValueError(f"num_classes {num_classes}: a conditional GAN needs 2 classes or more; else use DCGAN")
        if not 0 <= label_flip < 0.5:
            raise ValueError(f"label_flip {label_flip} is not in [0, 0.5): at 0.5 the discriminator learns nothing")
        shape = {"num_classes": num_classes, "channels": channels, "resolution": resolution}
        if form == "mlp":
            self.generator = MLPGenerator(z_dim=z_dim, dropout=dropout, **shape)
            self.discriminator = MLPDiscriminator(dropout=dropout, **shape)
        else:
            self.generator = ConvGenerator(z_dim=z_dim, embed_dim=embed_dim, width=width, **shape)
            self.discriminator = ConvDiscriminator(embed_dim=embed_dim, width=width, dropout=dropout, **shape)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizer, self.lr, self.betas = optimizer, lr, betas
        self.loss, self.r1_gamma, self.label_flip = loss_by_path(loss), r1_gamma, label_flip

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        image, label, n = batch["image"], batch["label"], len(batch["image"])
        flips = self.draws("flip").uniform(n) < self.label_flip
        real_logits = []
        with self.updating(opt_d):
            for real, c, z, flip in self.split(image, label, self.latents(n, "d"), flips):
                real_logits.append(self.discriminator(real, c))
                fake_logits = self.discriminator(self.generator(z, c), c)
                taken_for_real = torch.where(flip, fake_logits, real_logits[-1])
                taken_for_fake = torch.where(flip, real_logits[-1], fake_logits)
                d_loss, _ = self.loss(taken_for_real, taken_for_fake)  # Eq. 2
                self.report_discriminator(d_loss, real_logits[-1], fake_logits)
                if self.r1_gamma:
                    penalty = r1(partial(self.discriminator.forward, labels=c), real)
                    d_loss = d_loss + self.r1_gamma / 2 * penalty
                    self.report(r1=penalty)
                self.accumulate(d_loss)
        with self.updating(opt_g):
            for z, c, real_part in self.split(self.latents(n, "g"), label, torch.cat(real_logits).detach()):
                _, g_loss = self.loss(real_part, self.discriminator(self.generator(z, c), c))
                self.accumulate(g_loss)
                self.report(loss_g=g_loss)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        if self.optimizer == "sgd":
            return [torch.optim.SGD(p.parameters(), lr=self.lr, momentum=self.betas[0]) for p in players]
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]
