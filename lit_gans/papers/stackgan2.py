"""StackGAN++ (Zhang et al., 2018), https://arxiv.org/abs/1710.10916: images of several scales from one tree."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, mse_loss

from lit_gans.adversarial import lazy_adam
from lit_gans.adversarial.losses import divergence, is_fake, is_real
from lit_gans.adversarial.penalties import r1
from lit_gans.base.checks import power_of_two
from lit_gans.data import TextData
from lit_gans.nn import BatchNorm
from lit_gans.papers.stackgan import ImageEncoder, augmented, conv3, doublings, mixed
from lit_gans.papers.text.encoders import TextFeatures
from lit_gans.papers.text.game import TextGAN, scaled_images

Topology = Literal["tree", "last", "parallel", "stack"]
TOPOLOGIES = ("tree", "last", "parallel", "stack")


# ---- conditioning augmentation ---------------------------------------------------------------------------------------


class ConditioningAugmentation(nn.Module):
    """sentence [N, D] -> mu, logvar [N, C] through a gated linear unit, where StackGAN has a rectifier."""

    def __init__(self, *, sentence_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(sentence_dim, 4 * condition_dim)

    def forward(self, sentence: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = glu(self.fc(sentence), 1).chunk(2, 1)  # [N, 4 C] -> [N, 2 C] -> 2 of [N, C]
        return mu, logvar


# ---- generator ------------------------------------------------------------------------------------------------------


def gated(fan_in: int, fan_out: int, *, up: bool = False) -> nn.Sequential:
    """A convolution of 3 pixels, normalised and gated; after doubling the sides with `up`."""
    first = [nn.Upsample(scale_factor=2)] if up else []
    return nn.Sequential(*first, conv3(fan_in, 2 * fan_out), BatchNorm(2 * fan_out), nn.GLU(1))


class FirstStage(nn.Module):
    """code [N, Q] -> hidden features [N, width, R, R]: from 4 pixels, of twice as many maps for each doubling."""

    def __init__(self, *, resolution: int, code_dim: int, width: int) -> None:
        super().__init__()
        ups = doublings(4, resolution)
        start = width * 2**ups
        self.fc = nn.Sequential(nn.Linear(code_dim, 2 * start * 16, bias=False), BatchNorm(2 * start * 16), nn.GLU(1))
        self.ups = nn.Sequential(*(gated(start >> k, start >> (k + 1), up=True) for k in range(ups)))

    def forward(self, code: Tensor) -> Tensor:
        return self.ups(self.fc(code).unflatten(1, (-1, 4, 4)))  # [N, Q] -> [N, 16 start] -> [N, start, 4, 4]


class Residual(nn.Module):
    """[N, W, H, H] -> the same; nothing after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*gated(width, width), conv3(width, width), BatchNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x


class NextStage(nn.Module):
    """features [N, W, H, H] and c [N, C] -> [N, width, ...]: of twice the sides, or of the same without `up`."""

    def __init__(self, *, fan_in: int, code_dim: int, width: int, residuals: int, up: bool = True) -> None:
        super().__init__()
        self.joint = gated(code_dim + fan_in, fan_in)
        self.residuals = nn.Sequential(*(Residual(fan_in) for _ in range(residuals)))
        self.last = gated(fan_in, width, up=up)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        c = c[:, :, None, None].expand(-1, -1, *h.shape[2:])  # [N, C] -> [N, C, H, H]
        return self.last(self.residuals(self.joint(torch.cat([c, h], 1))))


class Tree(nn.Module):
    """code [N, Q], c [N, C] -> one image for each head, in the order of the stages; None is a stage without a head."""

    def __init__(
        self, *, stages: int, start_px: int, channels: int, code_dim: int, later_dim: int, width: int, residuals: int,
        grows: bool, heads: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [width >> k if grows else width for k in range(stages)]
        self.first = FirstStage(resolution=start_px, code_dim=code_dim, width=width)
        self.later = nn.ModuleList(
            NextStage(fan_in=fan_in, code_dim=later_dim, width=fan_out, residuals=residuals, up=grows)
            for fan_in, fan_out in zip(widths, widths[1:], strict=False)
        )
        self.heads = nn.ModuleDict({str(k): nn.Sequential(conv3(widths[k], channels), nn.Tanh()) for k in heads})

    def forward(self, code: Tensor, c: Tensor) -> list[Tensor]:
        h, images = self.first(code), []
        for k in range(len(self.later) + 1):
            h = h if k == 0 else self.later[k - 1](h, c)
            if str(k) in self.heads:
                images.append(self.heads[str(k)](h))
        return images


class Drawn(NamedTuple):
    """images [N, C, H, W] in [-1, 1], one per branch; mu, logvar [N, C] of the condition, None without captions."""

    images: list[Tensor]
    mu: Tensor | None
    logvar: Tensor | None


class Generator(nn.Module):
    """z [N, Z], and sentence [N, D] with noise [N, C] where there are captions -> an image per branch.

    Without captions z itself is what later stages see again. `topology` as in `StackGAN2`. Weights as in the code:
    orthogonal, norms N(1, 0.02).
    """

    def __init__(
        self, *, resolution: int, branches: int, channels: int, z_dim: int, sentence_dim: int, condition_dim: int,
        width: int, residuals: int = 2, topology: Topology = "tree",
    ) -> None:  # fmt: skip
        super().__init__()
        captions = sentence_dim > 0
        self.augment = (
            ConditioningAugmentation(sentence_dim=sentence_dim, condition_dim=condition_dim) if captions else None
        )
        grows = topology != "stack"
        shape = {"stages": branches, "channels": channels, "residuals": residuals, "grows": grows}
        shape |= {"start_px": resolution >> (branches - 1) if grows else resolution}
        shape |= {
            "code_dim": z_dim + condition_dim if captions else z_dim,
            "later_dim": condition_dim if captions else z_dim,
        }
        shape |= {"width": width if grows else width >> (branches - 1)}  # so many maps at full size in any topology
        heads = range(branches) if topology in ("tree", "stack") else [branches - 1]
        self.trees = nn.ModuleList(Tree(heads=heads, **shape) for _ in range(branches if topology == "parallel" else 1))
        init_weights(self)

    def forward(self, z: Tensor, sentence: Tensor | None = None, noise: Tensor | None = None) -> Drawn:
        if self.augment is None:
            return Drawn([image for tree in self.trees for image in tree(z, z)], None, None)
        mu, logvar = self.augment(sentence)
        c = augmented(mu, logvar, noise)
        code = torch.cat([c, z], 1)
        return Drawn([image for tree in self.trees for image in tree(code, c)], mu, logvar)


def init_weights(network: nn.Module) -> None:
    """Orthogonal convolutions and linear layers, norms N(1, 0.02), biases of linear layers 0, as the official code."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(module.weight)
        elif isinstance(module, BatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# ---- discriminators --------------------------------------------------------------------------------------------------


class Logits(NamedTuple):
    """[N] each: of the image with its condition, and of the image alone; without captions there is only `pair`."""

    pair: Tensor
    alone: Tensor | None


class Discriminator(nn.Module):
    """images [N, C, R, R], c [N, C] or None -> `Logits`; condition_dim 0: without captions."""

    def __init__(
        self, *, resolution: int, base_px: int, channels: int, condition_dim: int, width: int, norm: bool = True
    ) -> None:
        super().__init__()
        self.encoder = ImageEncoder(resolution=resolution, base_px=base_px, channels=channels, width=width, norm=norm)
        size = self.encoder.features
        self.logits = nn.Conv2d(size, 1, 4)
        self.joint = mixed(size + condition_dim, size, norm) if condition_dim else None
        self.alone = nn.Conv2d(size, 1, 4) if condition_dim else None
        init_weights(self)

    def forward(self, images: Tensor, c: Tensor | None = None) -> Logits:
        h = self.encoder(images)
        if self.joint is None or self.alone is None or c is None:
            return Logits(self.logits(h).flatten(), None)  # [N, 1, 1, 1] -> [N]
        both = torch.cat([c[:, :, None, None].expand(-1, -1, *h.shape[2:]), h], 1)  # [N, C] -> [N, C + F, 4, 4]
        return Logits(self.logits(self.joint(both)).flatten(), self.alone(h).flatten())


# ---- losses (Sec. 4.2 and 4.3) ---------------------------------------------------------------------------------------


def discriminator_loss(real: Logits, wrong: Logits | None, fake: Logits, *, alone_weight: float) -> Tensor:
    """Of one branch (Sec. 4.2); `wrong` are real images of other captions, None without captions.

    With an unconditional part nothing is halved, and wrong images, which are real, pass as real when alone. With
    alone_weight 0 it is StackGAN's conditional loss, both fake terms half, as in the code.
    """
    if wrong is None or real.alone is None or fake.alone is None or wrong.alone is None:
        return is_real(real.pair) + is_fake(fake.pair)
    if not alone_weight:
        return is_real(real.pair) + 0.5 * (is_fake(wrong.pair) + is_fake(fake.pair))
    pairs = is_real(real.pair) + is_fake(wrong.pair) + is_fake(fake.pair)
    return pairs + alone_weight * (is_real(real.alone) + is_real(wrong.alone) + is_fake(fake.alone))


def generator_loss(fake: Logits, *, alone_weight: float) -> Tensor:
    """Of one branch (Sec. 4.2), without the divergence."""
    loss = is_real(fake.pair)
    return loss if fake.alone is None or not alone_weight else loss + alone_weight * is_real(fake.alone)


def colour_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """images [N, C, H, W] -> mean [N, C, 1, 1] and covariance [N, C, C] of their pixels, in single precision."""
    pixels = images.float().flatten(2)  # [N, C, H W]
    mean = pixels.mean(2, keepdim=True)
    centred = pixels - mean
    return mean[..., None], centred @ centred.transpose(1, 2) / pixels.shape[2]  # over H W, not H W - 1


def colour_consistency(images: Sequence[Tensor]) -> Tensor:
    """Sec. 4.3: distances of each branch's colour statistics to those of the one before, which takes no gradient.

    The covariances count 5 times. Means over all elements, where the paper sums: we follow the code.
    """
    terms = []
    for coarse, fine in zip(images, images[1:], strict=False):
        with torch.no_grad():
            old_mean, old_covariance = colour_statistics(coarse)
        mean, covariance = colour_statistics(fine)
        terms.append(mse_loss(mean, old_mean) + 5 * mse_loss(covariance, old_covariance))
    return torch.stack(terms).sum()


# ---- training --------------------------------------------------------------------------------------------------------


class StackGAN2(TextGAN):
    """Sec. 4: a tree of generators and a discriminator at each scale, with captions or (encoder "none") without.

    With captions the data bring wrong images (`wrong` "image"), of other classes for certain; the official code redraws
    one of the same class once. The average of the generator copies the live norms' statistics, as the code does, which
    every 2000 batches also overwrites the live weights by the average: a slip that is not repeated here.

    Args:
        branches: scales, each with twice the sides of the one before; the last has `resolution`.
        topology: "tree"; or, for ablation, "last": only the last branch has an image and a discriminator;
            "parallel": as many such generators side by side, all of full size; "stack": each after the other, all of
            full size.
        condition_dim: C of the condition that the discriminators see.
        width, discriminator_width: maps of the first branch, and of a discriminator's first layer.
        discriminator_norm: of batches, as published. Right, wrong and generated pairs are batches of their own, and
            each is centred: how well a whole batch matches is lost. Without it R1 keeps the discriminators smooth.
        residuals: blocks of each later stage.
        alone_weight: of the unconditional part of both losses; 0 is without it (no JCU).
        colour_weight: of the colour consistency between neighbouring branches: 50 in the code without captions, 0
            on CUB, where captions say what colours there are.
        kl_weight: of the divergence of the conditions, 2 in the code.
        detach_condition: the generator cannot win by moving the condition: its losses take it as given, as StackGAN's
            do; the code of StackGAN++ lets their gradient in. Short runs of narrow networks learned colours only so.
        r1_gamma, r1_interval: weight of R1 on all logits of real images, in every so many batches; 0 as published.
        **text: encoder, total_kimg, ... of `TextGAN`.

    Raises:
        ValueError: arguments that contradict each other.
    """

    def __init__(
        self,
        *,
        resolution: int = 256,
        channels: int = 3,
        branches: int = 3,
        topology: Topology = "tree",
        z_dim: int = 100,
        condition_dim: int = 128,
        width: int = 64,
        discriminator_width: int = 64,
        discriminator_norm: bool = True,
        residuals: int = 2,
        alone_weight: float = 1.0,
        colour_weight: float = 0.0,
        kl_weight: float = 2.0,
        detach_condition: bool = False,
        r1_gamma: float = 0.0,
        r1_interval: int = 8,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        encoder: str = "embeddings",
        sentence_dim: int = 1024,
        **text: Any,
    ) -> None:
        super().__init__(
            resolution=resolution, channels=channels, z_dim=z_dim, encoder=encoder, sentence_dim=sentence_dim,
            noise_dim=0 if encoder == "none" else condition_dim, **text,
        )  # fmt: skip
        self.save_hyperparameters()
        self.keep_encoder()
        if topology not in TOPOLOGIES:
            raise ValueError(f"topology is {topology!r}; it must be one of {', '.join(TOPOLOGIES)}")
        if branches < 1 or width % 2 ** (branches - 1):
            raise ValueError(
                f"{branches} branches of width {width}: each has half the maps of the one before, so give a width "
                f"that {2 ** max(branches - 1, 0)} divides, and a branch or more"
            )
        if colour_weight and (branches == 1 or topology == "last"):
            raise ValueError("colour_weight is about neighbouring branches: set it to 0, or give two branches or more")
        if r1_gamma < 0 or r1_interval < 1:
            raise ValueError(
                f"r1_gamma {r1_gamma} in every {r1_interval} batches: give a weight, 0 for none, and 1 batch or more"
            )
        base_px = resolution >> (branches - 1)
        why = f"the first of {branches} branches has 8 pixels or more, and each next one twice as many"
        power_of_two("resolution", resolution, least=8 << (branches - 1), why=why)
        captions = self.text_encoder is not None
        self.generator = Generator(
            resolution=resolution, branches=branches, channels=channels, z_dim=z_dim, width=width,
            sentence_dim=self.text_encoder.sentence_dim if captions else 0, condition_dim=condition_dim,
            residuals=residuals, topology=topology,
        )  # fmt: skip
        self.sides = {"tree": [base_px << k for k in range(branches)], "last": [resolution]}.get(
            topology, [resolution] * branches
        )
        self.discriminator = nn.ModuleList(
            Discriminator(
                resolution=side, base_px=base_px, channels=channels, width=discriminator_width, norm=discriminator_norm,
                condition_dim=condition_dim if captions else 0,
            )
            for side in self.sides
        )  # fmt: skip
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.alone_weight, self.colour_weight, self.kl_weight = alone_weight, colour_weight, kl_weight
        self.detach_condition, self.r1_gamma, self.r1_interval = detach_condition, r1_gamma, r1_interval
        self.lr, self.betas = lr, betas

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        fakes = self.for_both(self.generator, *self.inputs(batch))  # both players see the same
        with self.updating(opt_d):
            for fake, (real, wrong) in zip(fakes, self.split(batch["image"], batch.get("wrong")), strict=True):
                self.accumulate(self.judged(real, wrong, fake))
                if self.r1_gamma and self.every(self.r1_interval):
                    self.accumulate(self.r1_gamma / 2 * self.r1_interval * self.r1_penalty(real, fake.mu))
        with self.updating(opt_g):
            for fake in fakes:
                branches = zip(self.discriminator, fake.images, strict=True)
                # The condition is mu; as published, the layers that make it learn from the discriminators too.
                c = fake.mu.detach() if self.detach_condition and fake.mu is not None else fake.mu
                losses = [generator_loss(d(x, c), alone_weight=self.alone_weight) for d, x in branches]
                g_loss = torch.stack(losses).sum()
                self.report(loss_g=g_loss)
                if fake.mu is not None:
                    kl = divergence(fake.mu, fake.logvar)
                    g_loss = g_loss + self.kl_weight * kl
                    self.report(kl=kl)
                if self.colour_weight:
                    colour = colour_consistency(fake.images)
                    g_loss = g_loss + self.colour_weight * colour
                    self.report(colour=colour)
                self.accumulate(g_loss)

    def inputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """z, sentences and noise of a batch; the latter None without captions."""
        n, features = len(batch["image"]), self.features(batch)
        noise = None if features is None else self.draws("noise").normal(n, self.noise_dim)
        return self.latents(n, "z"), None if features is None else features.sentence, noise

    def judged(self, real: Tensor, wrong: Tensor | None, fake: Drawn) -> Tensor:
        """The sum of all discriminators' losses, each of its own scale."""
        c = None if fake.mu is None else fake.mu.detach()
        reals, losses = scaled_images(real, self.sides), []
        wrongs = [None] * len(reals) if c is None else scaled_images(wrong, self.sides)
        for k, discriminator in enumerate(self.discriminator):
            of_real = discriminator(reals[k], c)
            of_wrong = None if wrongs[k] is None else discriminator(wrongs[k], c)
            of_fake = discriminator(fake.images[k].detach(), c)
            losses.append(discriminator_loss(of_real, of_wrong, of_fake, alone_weight=self.alone_weight))
            self.report(**{f"loss_d{k}": losses[-1]})
        d_loss = torch.stack(losses).sum()
        self.report_discriminator(d_loss, of_real.pair, of_fake.pair)  # logits of the finest
        return d_loss

    def r1_penalty(self, real: Tensor, mu: Tensor | None) -> Tensor:
        """The sum over all scales, of all logits in use of real images [N, C, R, R] with their own conditions."""
        c = None if mu is None else mu.detach().float()
        penalties = []
        for discriminator, images in zip(self.discriminator, scaled_images(real, self.sides), strict=True):
            judge = partial(_summed, discriminator.forward, c=c, alone=self.alone_weight > 0)
            penalties.append(r1(judge, images))
        penalty = torch.stack(penalties).sum()
        self.report(r1=penalty)
        return penalty

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for the generators, one for all discriminators: Adam treats each parameter for itself."""
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]

    def discriminators(self) -> list[nn.Module]:
        return list(self.discriminator)

    def networks(self) -> list[nn.Module]:
        return [self.generator, *self.discriminator]

    def scales(self, generator: nn.Module, z: Tensor, features: TextFeatures | None, *, noise: Tensor) -> list[Tensor]:
        return generator(z, None if features is None else features.sentence, noise).images

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self._trainer.datamodule if self._trainer is not None else None
        if stage == "fit" and self.text_encoder is not None and isinstance(data, TextData) and data.wrong != "image":
            raise ValueError(
                f"StackGAN++ learns from wrong images beside the right ones, and the data have wrong {data.wrong!r}: "
                "set data.init_args.wrong=image"
            )


def _summed(judge: Callable[..., Logits], images: Tensor, *, c: Tensor | None, alone: bool) -> Tensor:
    """[N]: the logits of the pairs and, with `alone` where there are any, those of the images alone."""
    logits = judge(images, c)
    return logits.pair if logits.alone is None or not alone else logits.pair + logits.alone


# ---- official names --------------------------------------------------------------------------------------------------

_MOST = 6  # branches
OFFICIAL_KEYS = {
    r"ca_net\.fc\.(weight|bias)": r"augment.fc.\1",
    r"h_net1\.fc\.(.+)": r"trees.0.first.fc.\1",
    **{rf"h_net1\.upsample{k + 1}\.(.+)": rf"trees.0.first.ups.{k}.\1" for k in range(8)},
}
for _k in range(_MOST):
    OFFICIAL_KEYS |= {
        rf"h_net{_k + 2}\.jointConv\.(.+)": rf"trees.0.later.{_k}.joint.\1",
        rf"h_net{_k + 2}\.residual\.(.+)": rf"trees.0.later.{_k}.residuals.\1",
        rf"h_net{_k + 2}\.upsample\.(.+)": rf"trees.0.later.{_k}.last.\1",
        rf"img_net{_k + 1}\.img\.0\.weight": f"trees.0.heads.{_k}.0.weight",
    }
DISCRIMINATOR_KEYS = {
    r"img_code_s16\.0\.weight": "encoder.down.0.0.weight",
    **{rf"img_code_s16\.{3 * k - 1}\.weight": f"encoder.down.{k}.0.weight" for k in (1, 2, 3)},
    **{rf"img_code_s16\.{3 * k}\.(.+)": rf"encoder.down.{k}.1.\1" for k in (1, 2, 3)},
    **{rf"img_code_s{16 << k}\.(.+)": rf"encoder.down.{3 + k}.\1" for k in range(1, _MOST)},
    **{rf"img_code_s\d+_{k + 1}\.(.+)": rf"encoder.narrow.{k}.\1" for k in range(_MOST)},
    r"jointConv\.(.+)": r"joint.\1",
    r"logits\.0\.(.+)": r"logits.\1",
    r"uncond_logits\.0\.(.+)": r"alone.\1",
}
