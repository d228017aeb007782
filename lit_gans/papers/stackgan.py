"""StackGAN (Zhang et al., 2017), https://arxiv.org/abs/1612.03242: a sketch of 64 pixels from text, then 256."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_gans.adversarial import lazy_adam
from lit_gans.adversarial.losses import divergence, is_fake, is_real
from lit_gans.adversarial.progressive import enlarged
from lit_gans.data import TextData
from lit_gans.nn import BatchNorm
from lit_gans.papers.text.encoders import TextFeatures
from lit_gans.papers.text.game import TextGAN, scaled_images

Stage = Literal["stage1", "stage2"]


def doublings(small_px: int, large_px: int) -> int:
    """How often `small_px` is doubled to `large_px`. ValueError where it is not, or never."""
    count = (large_px // small_px).bit_length() - 1
    if count < 1 or small_px * 2**count != large_px:
        raise ValueError(
            f"{large_px} pixels are not {small_px} doubled once or more; the stages double sides: use a power of two, "
            "such as 256"
        )
    return count


def conv3(fan_in: int, fan_out: int) -> nn.Conv2d:
    return nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)


def init_weights(network: nn.Module) -> None:
    """N(0, 0.02) in convolutions and linear layers, N(1, 0.02) in norms, biases of both 0, as the official code."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, BatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# ---- conditioning augmentation (Sec. 3.2) ----------------------------------------------------------------------------


def augmented(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """mu, logvar, noise [N, C] -> conditions [N, C] from N(mu, exp(logvar)), differentiable."""
    return mu + (0.5 * logvar).exp() * noise


class ConditioningAugmentation(nn.Module):
    """sentence [N, D] -> mu, logvar [N, C]. Both pass a rectifier, so that neither is negative, as in the code."""

    def __init__(self, *, sentence_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(sentence_dim, 2 * condition_dim)

    def forward(self, sentence: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.fc(sentence).relu().chunk(2, 1)  # [N, 2 C] -> 2 of [N, C]
        return mu, logvar


# ---- generators (Sec. 3.3 and 3.4) -----------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """image [N, C, H, W] in [-1, 1]; mu, logvar [N, C] of the condition that it was drawn from."""

    image: Tensor
    mu: Tensor
    logvar: Tensor


def up_block(fan_in: int, fan_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2), conv3(fan_in, fan_out), BatchNorm(fan_out), nn.ReLU())


def to_image(width: int, channels: int) -> nn.Sequential:
    return nn.Sequential(conv3(width, channels), nn.Tanh())


class Stage1Generator(nn.Module):
    """z [N, Z], sentence [N, D], noise [N, C] -> a sketch (Sec. 3.3); `width` / 2 maps at its full size."""

    def __init__(
        self, *, resolution: int, channels: int, z_dim: int, sentence_dim: int, condition_dim: int, width: int
    ) -> None:
        super().__init__()
        ups = doublings(4, resolution)
        start = width * 2 ** (ups - 1)
        self.augment = ConditioningAugmentation(sentence_dim=sentence_dim, condition_dim=condition_dim)
        self.fc = nn.Sequential(
            nn.Linear(z_dim + condition_dim, start * 16, bias=False), BatchNorm(start * 16), nn.ReLU()
        )
        self.ups = nn.Sequential(*(up_block(start >> k, start >> (k + 1)) for k in range(ups)))
        self.to_image = to_image(start >> ups, channels)

    def forward(self, z: Tensor, sentence: Tensor, noise: Tensor) -> Drawn:
        mu, logvar = self.augment(sentence)
        c = augmented(mu, logvar, noise)
        x = self.fc(torch.cat([z, c], 1)).unflatten(1, (-1, 4, 4))  # [N, Z + C] -> [N, 16 start] -> [N, start, 4, 4]
        return Drawn(self.to_image(self.ups(x)), mu, logvar)


class Residual(nn.Module):
    """[N, W, H, H] -> the same, rectified after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            conv3(width, width), BatchNorm(width), nn.ReLU(), conv3(width, width), BatchNorm(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.block(x) + x).relu()


class Stage2Generator(nn.Module):
    """sketch [N, C, H, H], sentence, noise -> images [N, C, 4H, 4H] (Sec. 3.4); a condition of its own, and no z."""

    def __init__(self, *, channels: int, sentence_dim: int, condition_dim: int, width: int, residuals: int) -> None:
        super().__init__()
        self.augment = ConditioningAugmentation(sentence_dim=sentence_dim, condition_dim=condition_dim)
        wide = 4 * width
        self.encoder = nn.Sequential(
            conv3(channels, width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False), BatchNorm(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, wide, 4, stride=2, padding=1, bias=False), BatchNorm(wide), nn.ReLU(),
        )  # fmt: skip
        self.joint = nn.Sequential(conv3(wide + condition_dim, wide), BatchNorm(wide), nn.ReLU())
        self.residuals = nn.Sequential(*(Residual(wide) for _ in range(residuals)))
        self.ups = nn.Sequential(*(up_block(wide >> k, wide >> (k + 1)) for k in range(4)))
        self.to_image = to_image(width // 4, channels)

    def forward(self, sketch: Tensor, sentence: Tensor, noise: Tensor) -> Drawn:
        mu, logvar = self.augment(sentence)
        h = self.encoder(sketch)
        c = augmented(mu, logvar, noise)[:, :, None, None].expand(-1, -1, *h.shape[2:])  # [N, C] -> [N, C, H, W]
        return Drawn(self.to_image(self.ups(self.residuals(self.joint(torch.cat([h, c], 1))))), mu, logvar)


class Generator(nn.Module):
    """Both stages. z [N, Z], sentence [N, D], noise [N, 2 C], half for each stage's condition."""

    def __init__(
        self, *, resolution: int, channels: int, z_dim: int, sentence_dim: int, condition_dim: int, width: int,
        residuals: int,
    ) -> None:  # fmt: skip
        super().__init__()
        known = {"channels": channels, "sentence_dim": sentence_dim, "condition_dim": condition_dim, "width": width}
        self.stage1 = Stage1Generator(resolution=resolution // 4, z_dim=z_dim, **known)
        self.stage2 = Stage2Generator(residuals=residuals, **known)
        init_weights(self)

    def forward(self, z: Tensor, sentence: Tensor, noise: Tensor) -> tuple[Drawn, Drawn]:
        first, second = noise.chunk(2, 1)  # [N, 2 C] -> 2 of [N, C]
        sketch = self.stage1(z, sentence, first)
        return sketch, self.stage2(sketch.image, sentence, second)


# ---- discriminators (Sec. 3.3 and 3.4) -------------------------------------------------------------------------------


class ImageEncoder(nn.Module):
    """images [N, C, R, R] -> features [N, F, 4, 4], whose F is that of a discriminator of `base_px`.

    Convolutions halve `base_px` to 4 pixels, from `width` maps on, twice as many each time; larger images are halved
    further, and then convolutions of 3 pixels make the maps as many as at `base_px` again. `norm`: of batches, or none.
    """

    def __init__(self, *, resolution: int, base_px: int, channels: int, width: int, norm: bool = True) -> None:
        super().__init__()
        halvings = doublings(4, resolution)
        self.features = width * 2 ** (doublings(4, base_px) - 1)
        widths = [channels, *(width * 2**k for k in range(halvings))]
        layers: list[nn.Module] = []
        for k, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False)):
            after = [normed(fan_out, norm)] if k else []  # none on the image itself
            conv = nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1, bias=False)
            layers.append(nn.Sequential(conv, *after, nn.LeakyReLU(0.2)))
        self.down = nn.Sequential(*layers)
        narrow = []
        while (wide := widths[-1] >> len(narrow)) > self.features:
            narrow.append(mixed(wide, wide // 2, norm))
        self.narrow = nn.Sequential(*narrow)

    def forward(self, images: Tensor) -> Tensor:
        return self.narrow(self.down(images))


def normed(maps: int, norm: bool) -> nn.Module:
    """Without a norm something that does nothing, so that parameters keep their names."""
    return BatchNorm(maps) if norm else nn.Identity()


def mixed(fan_in: int, fan_out: int, norm: bool = True) -> nn.Sequential:
    """What mixes features with a condition, which is the same at each of the 4 x 4 places."""
    return nn.Sequential(conv3(fan_in, fan_out), normed(fan_out, norm), nn.LeakyReLU(0.2))


class Discriminator(nn.Module):
    """Sec. 3.3 and 3.4: features of an image, judged together with a condition; those of stage II also alone."""

    def __init__(
        self, *, resolution: int, base_px: int, channels: int, condition_dim: int, width: int, alone: bool
    ) -> None:
        super().__init__()
        self.encoder = ImageEncoder(resolution=resolution, base_px=base_px, channels=channels, width=width)
        size = self.encoder.features
        self.joint, self.logits = mixed(size + condition_dim, size), nn.Conv2d(size, 1, 4)
        self.alone = nn.Conv2d(size, 1, 4) if alone else None

    def forward(self, images: Tensor) -> Tensor:
        """images [N, C, R, R] -> features [N, F, 4, 4]."""
        return self.encoder(images)

    def conditional(self, h: Tensor, c: Tensor) -> Tensor:
        """features [N, F, 4, 4], conditions [N, C] -> logits [N]."""
        c = c[:, :, None, None].expand(-1, -1, *h.shape[2:])  # [N, C] -> [N, C, 4, 4]
        return self.logits(self.joint(torch.cat([h, c], 1))).flatten()  # [N, F + C, 4, 4] -> [N, 1, 1, 1] -> [N]

    def unconditional(self, h: Tensor) -> Tensor | None:
        """features [N, F, 4, 4] -> logits [N]; None in stage I."""
        return None if self.alone is None else self.alone(h).flatten()  # [N, 1, 1, 1] -> [N]


# ---- losses (Sec. 3.3 and 3.4) ---------------------------------------------------------------------------------------


class Judgement(NamedTuple):
    """The discriminator's loss and the logits of right and of fake pairs [N]."""

    loss: Tensor
    real: Tensor
    fake: Tensor


def discriminator_loss(
    discriminator: Discriminator, real: Tensor, fake: Tensor, c: Tensor, *, wrong: Tensor | None = None
) -> Judgement:
    """Matching-aware (Sec. 3.3): right pairs are real; fakes, and real images with wrong conditions, are fake.

    c [N, C] of the images; wrong [N, C] of other captions: None takes each image's right neighbour's in the batch, as
    the official code does. All conditions without gradient. In stage I both fake terms count half; in stage II the
    means of two real and of three fake terms are added.
    """
    real_h, fake_h = discriminator(real), discriminator(fake.detach())
    real_logits = discriminator.conditional(real_h, c)
    wrong_logits = discriminator.conditional(
        real_h if wrong is not None else real_h[:-1], c[1:] if wrong is None else wrong
    )
    fake_logits = discriminator.conditional(fake_h, c)
    right, others = is_real(real_logits), is_fake(fake_logits) + is_fake(wrong_logits)
    real_alone, fake_alone = discriminator.unconditional(real_h), discriminator.unconditional(fake_h)
    if real_alone is None or fake_alone is None:
        return Judgement(right + 0.5 * others, real_logits, fake_logits)  # stage I
    loss = (right + is_real(real_alone)) / 2 + (others + is_fake(fake_alone)) / 3
    return Judgement(loss, real_logits, fake_logits)


def generator_loss(discriminator: Discriminator, fake: Tensor, c: Tensor) -> Tensor:
    """The fakes shall pass as real, with their condition and, in stage II, alone; without the divergence."""
    h = discriminator(fake)
    loss, alone = is_real(discriminator.conditional(h, c)), discriminator.unconditional(h)
    return loss if alone is None else loss + is_real(alone)


# ---- training --------------------------------------------------------------------------------------------------------


class StackGAN(TextGAN):
    """Sec. 3: stage I for `stage1_kimg`, then stage II on sketches of the frozen stage I (Sec. 3.5).

    Batches are those of `lit_gans.data.TextData`; with `wrong` "caption" they bring wrong captions of other classes
    for certain. Without, each image has its neighbour's, which is only defined in one process. The official code trains
    the stages in two runs, with pictures loaded at 76 and 64; here one run cuts crops for both out of `load_px`.

    Args:
        resolution: of stage II; stage I has a quarter.
        condition_dim: C, of each stage's condition.
        width, discriminator_width: 128 and 64 on CUB, 192 and 96 in the official code's COCO.
        residuals: blocks of stage II: 4, or 2 on COCO.
        kl_weight: lambda of Eq. 4 and 6, 2 in the code for the mean over dimensions.
        halve_every_kimg: both learning rates halve so often, counted from each stage's start; 0 never.
        **text: encoder, total_kimg, ... of `TextGAN`.

    Raises:
        ValueError: arguments that contradict each other.
    """

    def __init__(
        self,
        *,
        resolution: int = 256,
        channels: int = 3,
        z_dim: int = 100,
        condition_dim: int = 128,
        width: int = 128,
        discriminator_width: int = 64,
        residuals: int = 4,
        kl_weight: float = 2.0,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        stage1_kimg: float = 5313.0,
        halve_every_kimg: float = 885.5,
        encoder: str = "embeddings",
        sentence_dim: int = 1024,
        **text: Any,
    ) -> None:
        super().__init__(
            resolution=resolution, channels=channels, z_dim=z_dim, encoder=encoder, sentence_dim=sentence_dim,
            noise_dim=2 * condition_dim, **text,
        )  # fmt: skip
        self.save_hyperparameters()
        self.keep_encoder()
        if self.text_encoder is None:
            raise ValueError("StackGAN draws captions: give it an encoder, or use lit_gans.papers.StackGAN2")
        if resolution % 32 or doublings(4, resolution) < 3:
            raise ValueError(f"resolution {resolution} is not 32, 64, 128, 256, ...: stage I has a quarter of it")
        if width % 4:
            raise ValueError(f"width {width} is not divisible by 4, as stage II's last layers need")
        if self.schedule != "constant" or self.warmup_kimg:
            raise ValueError("StackGAN halves its learning rates: set halve_every_kimg, not schedule or warmup_kimg")
        self.generator = Generator(
            resolution=resolution, channels=channels, z_dim=z_dim, sentence_dim=self.text_encoder.sentence_dim,
            condition_dim=condition_dim, width=width, residuals=residuals,
        )  # fmt: skip
        judge = {"channels": channels, "condition_dim": condition_dim, "width": discriminator_width}
        judge["base_px"] = resolution // 4
        self.discriminator = nn.ModuleDict({
            "stage1": Discriminator(resolution=resolution // 4, alone=False, **judge),
            "stage2": Discriminator(resolution=resolution, alone=True, **judge),
        })  # fmt: skip
        init_weights(self.discriminator)
        self.generator_ema = None  # as published
        self.kl_weight, self.lr, self.betas = kl_weight, lr, betas
        self.stage1_kimg, self.halve_every_kimg = stage1_kimg, halve_every_kimg
        self._last_stage: Stage | None = None  # of the batch before

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        self.enter_stage(opt_g, opt_d)
        discriminator, n = self.discriminator[self.stage], len(batch["image"])
        (real,) = scaled_images(batch["image"], [self.stage_px])
        wrong = self.features(batch, prefix="wrong_").sentence if self.data_wrong(batch) else None
        inputs = self.latents(n, "z"), self.features(batch).sentence, self.draws("noise").normal(n, self.noise_dim)
        fakes = self.for_both(self.drawn, *inputs)
        with self.updating(opt_d):
            for fake, (real_part, wrong_part) in zip(fakes, self.split(real, wrong), strict=True):
                wrong_mu = None if wrong_part is None else self.condition(wrong_part)
                judged = discriminator_loss(discriminator, real_part, fake.image, fake.mu.detach(), wrong=wrong_mu)
                self.accumulate(judged.loss)
                self.report_discriminator(judged.loss, judged.real, judged.fake)
        with self.updating(opt_g):
            for fake in fakes:
                adversarial = generator_loss(discriminator, fake.image, fake.mu.detach())
                kl = divergence(fake.mu, fake.logvar)
                self.accumulate(adversarial + self.kl_weight * kl)  # Eq. 4 and 6
                self.report(loss_g=adversarial, kl=kl)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = self.generator, self.discriminator
        return [lazy_adam(p.parameters(), lr=self.lr, betas=self.betas, fused=self.fused) for p in players]

    def discriminators(self) -> list[nn.Module]:
        return list(self.discriminator.values())

    def networks(self) -> list[nn.Module]:
        return [self.generator.stage1, self.generator.stage2, *self.discriminator.values()]

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    def drawn(self, z: Tensor, sentence: Tensor, noise: Tensor) -> Drawn:
        """What this stage draws. In stage II, stage I stays in training mode: its norms go on, as in the code."""
        if self.stage == "stage2":
            return self.generator(z, sentence, noise)[1]
        return self.generator.stage1(z, sentence, noise.chunk(2, 1)[0])  # the first half of [N, 2 C] is stage I's

    @torch.no_grad()
    def condition(self, sentence: Tensor) -> Tensor:
        """mu [N, C] by this stage's own layers."""
        return getattr(self.generator, self.stage).augment(sentence)[0]

    @staticmethod
    def data_wrong(batch: dict[str, Tensor]) -> bool:
        """Whether a batch brings wrong captions."""
        return any(name.startswith("wrong_") for name in batch)

    def scales(self, generator: nn.Module, z: Tensor, features: TextFeatures | None, *, noise: Tensor) -> list[Tensor]:
        """The sketch and the image; while stage I is trained the image is the sketch, enlarged."""
        if self.stage == "stage1":
            sketch = generator.stage1(z, features.sentence, noise.chunk(2, 1)[0]).image
            return [sketch, enlarged(sketch, self.resolution)]
        return [drawn.image for drawn in generator(z, features.sentence, noise)]

    # ---- stages ------------------------------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        """Of the batch that comes next, or is being trained on."""
        return "stage1" if self.kimg < self.stage1_kimg else "stage2"

    @property
    def stage_px(self) -> int:
        return self.resolution // 4 if self.stage == "stage1" else self.resolution

    def enter_stage(self, *optimizers: torch.optim.Optimizer) -> None:
        """At a stage's first batch: only its networks learn from now on, with new moments."""
        if self.stage != self._last_stage:
            for optimizer in optimizers:
                optimizer.state.clear()
            self._freeze()
            self._last_stage = self.stage

    def _freeze(self) -> None:
        for stage in ("stage1", "stage2"):
            getattr(self.generator, stage).requires_grad_(stage == self.stage)
            self.discriminator[stage].requires_grad_(stage == self.stage)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        if self.halve_every_kimg:
            since = self.kimg - (self.stage1_kimg if self.stage == "stage2" else 0)
            for optimizer in self.trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * 0.5 ** int(since / self.halve_every_kimg)
        return super().on_train_batch_start(batch, batch_idx)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._freeze()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self._trainer.datamodule if self._trainer is not None else None
        if stage == "fit" and isinstance(data, TextData):
            if data.wrong == "image":
                raise ValueError("StackGAN pairs images with wrong captions: set data.init_args.wrong=caption")
            if data.wrong == "none" and data.batch_size // self.micro_batches < 2:
                raise ValueError(
                    f"without wrong captions each image has its neighbour's, and a part of {data.batch_size} images in "
                    f"{self.micro_batches} has none: set data.init_args.wrong=caption, or larger parts"
                )
            if data.wrong == "none" and self.trainer.world_size > 1:
                raise ValueError(
                    "without wrong captions each image has its neighbour's, and several processes have other "
                    "neighbours than one: set data.init_args.wrong=caption"
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["lit_gans"]["stage"] = self._last_stage

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._last_stage = checkpoint["lit_gans"].get("stage")  # not in converted weights


# ---- official names --------------------------------------------------------------------------------------------------

_STAGE1 = {
    r"ca_net\.fc\.(weight|bias)": r"augment.fc.\1",
    r"fc\.(.+)": r"fc.\1",
    r"img\.0\.weight": "to_image.0.weight",
    **{rf"upsample{k + 1}\.(.+)": rf"ups.{k}.\1" for k in range(8)},
}
_STAGE2 = {
    r"encoder\.(.+)": r"encoder.\1",
    r"hr_joint\.(.+)": r"joint.\1",
    r"residual\.(.+)": r"residuals.\1",
    **{pattern: name for pattern, name in _STAGE1.items() if not pattern.startswith("fc")},
}
STAGE1_KEYS = _STAGE1
OFFICIAL_KEYS = {
    **{rf"STAGE1_G\.{pattern}": f"stage1.{name}" for pattern, name in _STAGE1.items()},
    **{pattern: f"stage2.{name}" for pattern, name in _STAGE2.items()},
}


def encoder_keys(halvings: int, narrowings: int, *, ours: str = "encoder") -> dict[str, str]:
    """Names of `encode_img`, whose layers are numbered through, of a discriminator with so many convolutions."""
    keys = {r"encode_img\.0\.weight": f"{ours}.down.0.0.weight"}
    for k in range(1, halvings + narrowings):
        place = f"down.{k}" if k < halvings else f"narrow.{k - halvings}"
        keys[rf"encode_img\.{3 * k - 1}\.weight"] = f"{ours}.{place}.0.weight"
        keys[rf"encode_img\.{3 * k}\.(.+)"] = rf"{ours}.{place}.1.\1"
    return keys


_HEADS = {
    r"get_cond_logits\.outlogits\.([01])\.(.+)": r"joint.\1.\2",
    r"get_cond_logits\.outlogits\.3\.(.+)": r"logits.\1",
    r"get_uncond_logits\.outlogits\.0\.(.+)": r"alone.\1",
}
DISCRIMINATOR_KEYS: dict[Stage, dict[str, str]] = {
    "stage1": {**encoder_keys(4, 0), **_HEADS},
    "stage2": {**encoder_keys(6, 2), **_HEADS},
}
