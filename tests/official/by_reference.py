"""Networks as Projected GAN and StyleGAN-XL pickle them: by reference to classes, with torch's spectral norm."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, interpolate, leaky_relu
from torch.nn.utils import spectral_norm

from lit_gans.papers.projected_gan.features import whole

from .layout import Named


def conv(*arguments: int, **options: Any) -> nn.Module:
    return spectral_norm(nn.Conv2d(*arguments, **options))


class GLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return glu(x, 1)


class NoiseInjection(nn.Module):
    """Its weight is 0, as it begins: images depend on latents alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight * torch.randn(1, 1, *x.shape[2:])


def up(fan_in: int, fan_out: int, *, lite: bool) -> nn.Module:
    layers: list[nn.Module] = [nn.Upsample(scale_factor=2)]
    for channels in (fan_in,) if lite else (fan_in, fan_out):
        noise = [] if lite else [NoiseInjection()]
        layers += [conv(channels, 2 * fan_out, 3, 1, 1, bias=False), *noise, nn.BatchNorm2d(2 * fan_out), GLU()]
    return nn.Sequential(*layers)


class SEBlock(nn.Module):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        first, second = conv(fan_in, fan_out, 4, bias=False), conv(fan_out, fan_out, 1, bias=False)
        self.main = nn.Sequential(nn.AdaptiveAvgPool2d(4), first, nn.SiLU(), second, nn.Sigmoid())

    def forward(self, low: Tensor, x: Tensor) -> Tensor:
        return x * self.main(low)


class InitLayer(nn.Module):
    def __init__(self, z_dim: int, width: int) -> None:
        super().__init__()
        first = spectral_norm(nn.ConvTranspose2d(z_dim, 2 * width, 4, bias=False))
        self.init = nn.Sequential(first, nn.BatchNorm2d(2 * width), GLU())


class FastganSynthesis(nn.Module):
    """Of 128 pixels, where the layers of 256 are there and without effect."""

    def __init__(self, *, ngf: int, z_dim: int, lite: bool) -> None:
        super().__init__()
        self.img_resolution, self.z_dim = 128, z_dim
        width = {4: 16 * ngf, 8: 8 * ngf, 16: 4 * ngf, 32: 2 * ngf, 64: 2 * ngf, 128: ngf, 256: ngf // 2}
        self.init = InitLayer(z_dim, width[4])
        for side in (8, 16, 32, 64, 128, 256):
            self.add_module(f"feat_{side}", up(width[side // 2], width[side], lite=lite))
        for side, low in ((64, 4), (128, 8), (256, 16)):
            self.add_module(f"se_{side}", SEBlock(width[low], width[side]))
        self.to_big = conv(width[128], 3, 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        maps = {4: self.init.init(z[:, :, None, None])}
        for side in (8, 16, 32, 64, 128):
            maps[side] = getattr(self, f"feat_{side}")(maps[side // 2])
            if side >= 64:
                maps[side] = getattr(self, f"se_{side}")(maps[side // 16], maps[side])
        return self.to_big(maps[128])


class Generator(nn.Module):
    def __init__(self, *, ngf: int = 4, z_dim: int = 8, lite: bool = False) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.img_resolution, self.img_channels = z_dim, 0, 0, 128, 3
        self.mapping, self.synthesis = nn.Module(), FastganSynthesis(ngf=ngf, z_dim=z_dim, lite=lite)

    def forward(self, z: Tensor) -> Tensor:
        return self.synthesis(z)


# ---- discriminators --------------------------------------------------------------------------------------------------


class DownBlock(nn.Module):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        layers = conv(fan_in, fan_out, 4, 2, 1), nn.BatchNorm2d(fan_out), nn.LeakyReLU(0.2, inplace=True)
        self.main = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


WIDTHS = {128: 64, 64: 64, 32: 128, 16: 256, 8: 512}


def down(channels: int, side: int) -> list[nn.Module]:
    widths = [channels, *(WIDTHS[s] for s in (64, 32, 16, 8) if s < side)]
    return [DownBlock(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)]


class SingleDisc(nn.Module):
    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.start_sz = side
        self.main = nn.Sequential(*down(channels, side), conv(512, 1, 4, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class SingleDiscCond(nn.Module):
    """As StyleGAN-XL has it: one layer of it is pickled with its source."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.start_sz, self.cmap_dim = side, 64
        self.main, self.cls = nn.Sequential(*down(channels, side)), conv(512, 64, 4, bias=False)
        self.embed, self.embed_proj = nn.Embedding(10, 32), Named("FullyConnectedLayer", {"activation": "lrelu"})
        self.embed_proj.weight, self.embed_proj.bias = nn.Parameter(torch.randn(64, 32)), nn.Parameter(torch.randn(64))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        y = self.embed(labels) @ self.embed_proj.weight.T / 32**0.5 + self.embed_proj.bias
        y = leaky_relu(y, 0.2) * 2**0.5
        return (self.cls(self.main(x)) * y[:, :, None, None]).sum(1, keepdim=True) / 8


class MultiScaleD(nn.Module):
    def __init__(self, channels: Sequence[int], *, cond: bool) -> None:
        super().__init__()
        self.disc_in_channels, self.disc_in_res = list(channels), [128, 64, 32, 16][: len(channels)]
        head = SingleDiscCond if cond else SingleDisc
        sizes = enumerate(zip(channels, self.disc_in_res, strict=True))
        self.mini_discs = nn.ModuleDict({str(i): head(c, side) for i, (c, side) in sizes})

    def forward(self, levels: Sequence[Tensor], *labels: Tensor) -> Tensor:
        heads = self.mini_discs.values()
        return torch.cat([head(x, *labels).flatten(1) for head, x in zip(heads, levels, strict=False)], 1)


class FeatureFusionBlock(nn.Module):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.expand, self.out_conv = fan_in != fan_out, nn.Conv2d(fan_in, fan_out, 1)
        self.skip_add = nn.quantized.FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        return self.out_conv(interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class F_RandomProj(nn.Module):  # noqa: N801
    def __init__(self, pretrained: nn.Module, channels: Sequence[int], *, cout: int) -> None:
        super().__init__()
        self.proj_type, self.cout, self.expand, self.normstats = 2, cout, True, {"mean": [0.5] * 3, "std": [0.5] * 3}
        self.pretrained, self.scratch = pretrained, nn.Module()
        widths = [cout << k for k in range(4)]
        for k, (a, b) in enumerate(zip(channels, widths, strict=True)):
            self.scratch.add_module(f"layer{k}_ccm", nn.Conv2d(a, b, 1))
        for k in (3, 2, 1, 0):
            self.scratch.add_module(f"layer{k}_csm", FeatureFusionBlock(widths[k], widths[max(k - 1, 0)]))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        maps = []
        for k in range(4):
            x = getattr(self.pretrained, f"layer{k}")(x)
            maps.append(getattr(self.scratch, f"layer{k}_ccm")(x))
        for k in (3, 2, 1, 0):
            mixed = maps[k] + levels[0] if levels else maps[k]
            levels.insert(0, getattr(self.scratch, f"layer{k}_csm")(mixed))
        return levels


def efficientnet() -> nn.Module:
    """timm's EfficientNet-lite0 cut in four, and never trained."""
    network: Any = whole("tf_efficientnet_lite0", "random")
    pretrained = nn.Module()
    pretrained.layer0 = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:2])
    for k, (start, end) in enumerate(((2, 3), (3, 5), (5, 7))):
        pretrained.add_module(f"layer{k + 1}", nn.Sequential(*network.blocks[start:end]))
    return pretrained


def transformer(width: int) -> nn.Module:
    """What StyleGAN-XL makes of one: the network, of which there are two tensors here, and maps of its tokens."""
    pretrained = nn.Module()
    pretrained.model = nn.Module()
    pretrained.model.cls_token, pretrained.model.norm = nn.Parameter(torch.randn(1, 1, width)), nn.LayerNorm(width)
    a, b, c, d = width // 8, width // 4, width // 2, width
    after = [nn.ConvTranspose2d(a, a, 4, 4)], [nn.ConvTranspose2d(b, b, 2, 2)], [], [nn.Conv2d(d, d, 3, 2, 1)]
    for k, (channels, more) in enumerate(zip((a, b, c, d), after, strict=True)):
        before = nn.Identity(), nn.Identity(), nn.Unflatten(2, torch.Size([14, 14]))
        pretrained.add_module(f"layer{k + 1}", nn.Sequential(*before, nn.Conv2d(width, channels, 1), *more))
    return pretrained


class ProjectedDiscriminator(nn.Module):
    """Of Projected GAN: images of 224 px -> logits."""

    def __init__(self) -> None:
        super().__init__()
        self.diffaug, self.interp224 = True, True
        self.feature_network = F_RandomProj(efficientnet(), [24, 40, 112, 320], cout=4)
        self.discriminator = MultiScaleD([4, 4], cond=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.discriminator(self.feature_network(images))


class Judges(nn.Module):
    """Of StyleGAN-XL, of a small transformer and of convolutions, which are nobody's: ours does not keep them."""

    def __init__(self) -> None:
        super().__init__()
        plain = nn.Module()
        plain.layer0 = nn.Sequential(nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24))
        networks = {
            "deit_tiny_distilled_patch16_224": F_RandomProj(transformer(192), [24, 48, 96, 192], cout=4),
            "tf_efficientnet_lite0": F_RandomProj(plain, [24, 40, 112, 320], cout=4),
        }
        self.backbones, self.diffaug, self.interp224 = list(networks), True, False
        self.feature_networks = nn.ModuleDict(networks)
        self.discriminators = nn.ModuleDict({name: MultiScaleD([4], cond=True) for name in networks})


Judges.__name__ = Judges.__qualname__ = "ProjectedDiscriminator"

SHARED = (
    ("pg_modules.blocks", GLU), ("pg_modules.blocks", NoiseInjection), ("pg_modules.blocks", SEBlock),
    ("pg_modules.blocks", InitLayer), ("pg_modules.blocks", DownBlock), ("pg_modules.blocks", FeatureFusionBlock),
    ("pg_modules.discriminator", SingleDisc), ("pg_modules.discriminator", SingleDiscCond),
    ("pg_modules.discriminator", MultiScaleD), ("pg_modules.projector", F_RandomProj),
    ("pg_modules.networks_fastgan", FastganSynthesis), ("pg_modules.networks_fastgan", Generator),
)  # fmt: skip
PROJECTED_GAN = (*SHARED, ("pg_modules.discriminator", ProjectedDiscriminator))
STYLEGAN_XL = (*SHARED, ("pg_modules.discriminator", Judges))


def stirred(network: nn.Module) -> nn.Module:
    """The network, evaluating, its statistics no longer those that it began with, and its spectral norms settled."""
    for module in network.modules():
        for hook in module._forward_pre_hooks.values():
            with torch.no_grad():
                module.weight = [hook.compute_weight(module, do_power_iteration=True) for _ in range(5)][-1]
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network.eval()
