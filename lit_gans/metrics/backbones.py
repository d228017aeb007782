"""Other networks that features are taken of: any module, timm's models, VGG-16, CLIP and DINOv2.

VGG-16, CLIP and DINOv2 give what torch-fidelity gives under these names: its resize, its layers, the published weights.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.download import weights_file
from lit_gans.base.images import as_channels
from lit_gans.base.processes import first_on_rank_zero
from lit_gans.metrics.extractors import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Extractor,
    Features,
    ambient_randomness_kept,
    opening,
)
from lit_gans.nn.clip import CLIP_MEAN, CLIP_STD
from lit_gans.official.weights import read_published

N = TypeVar("N", bound=nn.Module)
_HINT = "or pass weights_path, a file of its weights"

# Radford et al. (2021), Tables 19 and 20: embedding width, input_px, layers, width, patch_px (None: a ResNet).
CLIP_MODELS: dict[str, tuple[int, int, int | tuple[int, ...], int, int | None]] = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None),
    "ViT-B-32": (512, 224, 12, 768, 32),
    "ViT-B-16": (512, 224, 12, 768, 16),
    "ViT-L-14": (768, 224, 24, 1024, 14),
    "ViT-L-14-336px": (768, 336, 24, 1024, 14),
}
# Oquab et al. (2023), Table 17: width, depth, heads.
DINOV2_MODELS = {
    "vit-s-14": (384, 12, 6),
    "vit-b-14": (768, 12, 12),
    "vit-l-14": (1024, 24, 16),
    "vit-g-14": (1536, 40, 24),
}


class ModuleFeatures(Extractor):
    """Features of any module that maps normalised images [N, 3, R, R] to [N, D], or to [N, D, H, W] (spatial mean).

    The module is frozen and made float32 in place. Images in [0, 1] are resized to `resize_px`, antialiased or as
    TensorFlow 1 did (`tensorflow_resize`), less `mean`, over `std`. D is found with one blank image unless
    `num_features` says it. ValueError where the module gives anything else.
    """

    num_classes = 0
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        resize_px: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        num_features: int | None = None,
        tensorflow_resize: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.network = name, module
        self.resize_px, self.tensorflow_resize = resize_px, tensorflow_resize
        self.resize = f"{'TensorFlow 1' if tensorflow_resize else 'antialiased'} bilinear to {resize_px}"
        self.register_buffer("mean", torch.tensor([255 * v for v in mean]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([255 * v for v in std]).view(3, 1, 1), persistent=False)
        self.to(device=next((p.device for p in module.parameters()), None), dtype=torch.float32)
        self.freeze()
        if num_features is None:
            blank = torch.zeros(1, 3, resize_px, resize_px, dtype=torch.uint8, device=self.mean.device)
            num_features = self._features(blank).shape[1]
        self.num_features = num_features

    def forward(self, images: Tensor) -> Features:
        features = self._features(images)
        if features.shape[1] != self.num_features:
            raise ValueError(f"{self.name} gives {features.shape[1]} features, expected {self.num_features}")
        return Features(features, None)

    def _features(self, images: Tensor) -> Tensor:
        made = self.network((self._resized(as_channels(images, 3).float()) - self.mean) / self.std)
        if not isinstance(made, Tensor) or made.ndim not in (2, 4):
            found = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(f"{self.name} gives {found}, expected a tensor [N, D] or [N, D, H, W]")
        return made.mean(dim=(2, 3)) if made.ndim == 4 else made

    def _resized(self, images: Tensor) -> Tensor:
        size = (self.resize_px, self.resize_px)
        if not self.tensorflow_resize:
            return F.interpolate(images, size=size, mode="bilinear", antialias=True)
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        return interpolate_bilinear_2d_like_tensorflow1x(images, size=size, align_corners=False)


def vgg16_features(weights_path: str | Path | None = None) -> ModuleFeatures:
    """torchvision's VGG-16 up to the ReLU of its second hidden layer: 4096 features.

    The network of Kynkäänniemi et al. (2019) for precision and recall; theirs has other weights, so their numbers are
    near these and not equal.
    """
    from torchvision.models import VGG16_Weights, vgg16

    url = VGG16_Weights.IMAGENET1K_V1.url
    path = weights_file(url, what="VGG-16", sha256_prefix="397923af", path=weights_path, hint=_HINT)
    network = _filled(vgg16, read_published(path), path=path, what="torchvision's vgg16")
    network.classifier = network.classifier[:5]
    return ModuleFeatures(
        network, name="vgg16_fc2", resize_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD, tensorflow_resize=True
    )


def clip_features(model: str, weights_path: str | Path | None = None) -> ModuleFeatures:
    """The image embedding of OpenAI's CLIP (Radford et al., 2021), not normalised; `model` is a key of CLIP_MODELS.

    The weights are the published TorchScript archive, or a .safetensors or .pth state dict with its names; of either
    only the tensors "visual.*" are taken, and no code is run.
    """
    from torch_fidelity.feature_extractor_clip import MODEL_URLS, CLIPVisual

    _check_model("CLIP", model, CLIP_MODELS)
    key = f"clip-{model.lower()}"
    sha256 = MODEL_URLS[key].split("/")[-2]
    path = weights_file(
        MODEL_URLS[key], what=key, name=f"{key}-{sha256}.pt", sha256_prefix=sha256, path=weights_path, hint=_HINT
    )  # the name under which torch-fidelity keeps it too
    state = {name: tensor for name, tensor in read_published(path).items() if name.startswith("visual.")}
    network = _filled(lambda: CLIPVisual(*CLIP_MODELS[model]), state, path=path, what=f"CLIP's {model}").visual
    return ModuleFeatures(
        network, name=key.replace("-", "_"), resize_px=CLIP_MODELS[model][1], mean=CLIP_MEAN, std=CLIP_STD,
        tensorflow_resize=True,
    )  # fmt: skip


def dinov2_features(model: str, weights_path: str | Path | None = None) -> ModuleFeatures:
    """The class token of DINOv2 (Oquab et al., 2023) without registers; `model` is a key of DINOV2_MODELS."""
    _check_model("DINOv2", model, DINOV2_MODELS)
    published = f"dinov2_{model.replace('-', '')}"
    url = f"https://dl.fbaipublicfiles.com/dinov2/{published}/{published}_pretrain.pth"
    path = weights_file(url, what=f"dinov2-{model}", path=weights_path, hint=_HINT)
    state = {name: tensor for name, tensor in read_published(path).items() if name != "mask_token"}  # of training only
    width, depth, heads = DINOV2_MODELS[model]
    network = _filled(
        lambda: VisionTransformer(width, depth, heads=heads, gated=model == "vit-g-14"),
        state, path=path, what=f"DINOv2's {model}",
    )  # fmt: skip
    return ModuleFeatures(
        network, name=f"dinov2_{model.replace('-', '_')}", resize_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD,
        tensorflow_resize=True,
    )  # fmt: skip


def timm_features(model: str, weights_path: str | Path | None = None) -> ModuleFeatures:
    """The pooled features of a model of timm, at the size, mean and standard deviation that timm gives with it.

    `weights_path` is a file of the whole model, classifier included; without it timm fetches its own.
    ValueError where timm is not installed or has no such model.
    """
    timm = timm_with(model, what=f"extractor 'timm:{model}'")
    path = None if weights_path is None else Path(weights_path)
    network: Any = from_timm(timm.create_model, model, path, hint="pass weights_path, a file of them")
    settings = timm.data.resolve_model_data_config(network)
    network.reset_classifier(0)
    return ModuleFeatures(
        network, name=f"timm_{model}", resize_px=settings["input_size"][-1], mean=settings["mean"], std=settings["std"]
    )


def timm_with(model: str, *, what: str) -> Any:
    """The package timm. ValueError where it is not installed, which `what` needs, or has no such model."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError(f"{what} needs timm: pip install 'lit-gans[timm]'") from error
    if not timm.is_model(model):
        near = ", ".join(get_close_matches(model, timm.list_models())) or "none: see timm.list_models()"
        raise ValueError(f"timm has no model {model!r}; near it are {near}")
    return timm


def from_timm(create: Callable[..., nn.Module], model: str, path: Path | None, *, hint: str) -> nn.Module:
    """The whole model with the weights of a file, else with those that timm fetches; messages end with `hint`."""
    state = None if path is None else read_published(path)
    with ambient_randomness_kept():
        try:
            network = first_on_rank_zero(lambda: create(model, pretrained=path is None))
        except (OSError, RuntimeError) as error:  # no network, no huggingface_hub, or no published weights
            raise ConnectionError(f"timm could not fetch the weights of {model} ({opening(error)}): {hint}") from error
    if state is not None:
        _load(network, state, path=path, what=f"timm's {model}", assign=False)
    return network


def _check_model(family: str, model: str, known: dict) -> None:
    if model not in known:
        raise ValueError(f"there is no {family} model {model!r}; there are {', '.join(known)}")


def _filled(make: Callable[[], N], state: dict[str, Tensor], *, path: Path, what: str) -> N:
    """The network with these tensors as its parameters: none is ever drawn. ValueError where they do not fit."""
    with torch.device("meta"):
        network = make()
    _load(network, state, path=path, what=what, assign=True)
    return network


def _load(network: nn.Module, state: dict[str, Tensor], *, path: Path | None, what: str, assign: bool) -> None:
    try:
        network.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of {what}: {opening(error)}") from error


class VisionTransformer(nn.Module):
    """DINOv2's network (Oquab et al., 2023, Table 17): normalised [N, 3, R, R] -> the class token [N, width].

    R is a multiple of `patch_px`. Position embeddings are learnt for `grid` x `grid` patches and interpolated to other
    counts. Parameters are named as in the published files. `gated` is the SwiGLU form of vit-g-14.
    """

    def __init__(
        self, width: int, depth: int, *, heads: int, gated: bool = False, grid: int = 37, patch_px: int = 14
    ) -> None:
        super().__init__()
        self.grid = grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid**2 + 1, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_px, stride=patch_px)})
        self.blocks = nn.Sequential(*(_Block(width, heads, gated) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](x)
        position = self._positions(*patches.shape[2:])
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches.flatten(2).mT], dim=1) + position
        return self.norm(self.blocks(tokens)[:, 0])

    def _positions(self, height: int, width: int) -> Tensor:
        if height == width == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].mT.unflatten(2, (self.grid, self.grid))
        # The official code adds 0.1 patches before it divides, and samples with that ratio: we follow the code.
        ratios = (height + 0.1) / self.grid, (width + 0.1) / self.grid
        resized = F.interpolate(square, scale_factor=ratios, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).mT], dim=1)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.mlp = _GatedMLP(width) if gated else _MLP(width)
        self.ls1, self.ls2 = _LayerScale(width), _LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _GatedMLP(nn.Module):
    """SwiGLU (Shazeer, 2020) with two thirds of the hidden width, rounded up to a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = -(-(4 * width * 2 // 3) // 8) * 8
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class _LayerScale(nn.Module):
    """Touvron et al. (2021), "Going deeper with image transformers", Eq. 5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x
