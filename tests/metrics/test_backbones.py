import sys
import types
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP, build_model
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from lit_gans.metrics import build_extractor
from lit_gans.metrics.backbones import CLIP_MODELS, DINOV2_MODELS, ModuleFeatures, VisionTransformer
from lit_gans.metrics.extractors import IMAGENET_MEAN, IMAGENET_STD

IMAGES = torch.randint(256, (3, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
HALF = (0.5, 0.5, 0.5)
TINY_CLIP = {"ViT-B-32": (6, 32, 2, 64, 8), "RN50": (6, 64, (1, 1, 1, 1), 8, None)}
TINY_DINO = (24, 2, 3)


def module_features(module: nn.Module, **settings: object) -> ModuleFeatures:
    return ModuleFeatures(module, **{"name": "mine", "resize_px": 8, "mean": HALF, "std": HALF, **settings})


def drawn(module: nn.Module) -> nn.Module:
    """The module with every parameter random, also those that begin at 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return module.eval()


def test_module_features_are_the_modules_on_normalised_images() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.Flatten(), nn.Linear(45, 4))
    extractor = module_features(module)
    x = F.interpolate(IMAGES / 255, size=8, mode="bilinear", antialias=True)
    features, logits = extractor(IMAGES)
    assert torch.allclose(features, module(2 * x - 1), atol=1e-5) and logits is None
    assert (extractor.num_features, extractor.num_classes) == (4, 0) and len(extractor.fingerprint) == 16
    assert (extractor.name, extractor.resize) == ("mine", "antialiased bilinear to 8")
    assert not any(p.requires_grad for p in module.parameters()) and not module.training
    assert torch.equal(extractor(IMAGES[:, :1]).features, extractor(IMAGES[:, :1].repeat(1, 3, 1, 1)).features)


def test_module_features_average_maps_and_refuse_anything_else() -> None:
    conv = nn.Conv2d(3, 5, 3).half()
    extractor = module_features(conv)
    assert extractor.num_features == 5 and conv.weight.dtype == torch.float32
    same = module_features(nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert torch.allclose(extractor(IMAGES).features, same(IMAGES).features, atol=1e-6)
    with pytest.raises(ValueError, match=r"mine gives \[1, 5, 36\], expected a tensor \[N, D\] or \[N, D, H, W\]"):
        module_features(nn.Sequential(conv, nn.Flatten(2)))
    with pytest.raises(ValueError, match="mine gives 5 features, expected 7"):
        module_features(conv, num_features=7)(IMAGES)


def test_tensorflows_resize_takes_corners_and_averages_nothing() -> None:
    extractor = module_features(nn.Identity(), resize_px=10, tensorflow_resize=True, mean=(0, 0, 0), std=(1, 1, 1))
    assert extractor.resize == "TensorFlow 1 bilinear to 10"
    every_second = IMAGES[:, :, ::2, ::2].float().mean(dim=(2, 3)) / 255  # 20 pixels to 10: no antialiasing
    assert torch.allclose(extractor(IMAGES).features, every_second, atol=1e-6)


@pytest.mark.parametrize("model", TINY_CLIP)
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_clip_is_torch_fidelitys(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIP_MODELS, model, TINY_CLIP[model])
    network = drawn(CLIPVisual(*TINY_CLIP[model]))
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()  # as published
    state = network.state_dict()
    size = TINY_CLIP[model][1]
    archive, plain = tmp_path / "clip.pt", tmp_path / "clip.pth"
    whole = nn.ModuleDict({"visual": network.visual, "transformer": nn.Linear(2, 2)})
    whole.forward = lambda x: whole["visual"](x)
    torch.jit.trace(whole, torch.zeros(1, 3, size, size), check_trace=False).save(str(archive))
    torch.save(state, plain)
    theirs = FeatureExtractorCLIP.__new__(FeatureExtractorCLIP)
    nn.Module.__init__(theirs)
    theirs.features_list, theirs.feature_extractor_internal_dtype = ["clip"], torch.float32
    theirs.model, theirs.resolution = build_model({**state, "text_projection": torch.ones(1, 6)}, torch.float32), size
    for path in (archive, plain):
        ours = build_extractor(f"clip:{model}", weights_path=path)
        assert torch.allclose(ours(IMAGES).features, theirs(IMAGES)[0], rtol=1e-4, atol=1e-5), path
    assert ours.name == {"ViT-B-32": "clip_vit_b_32", "RN50": "clip_rn50"}[model] and ours.num_features == 6
    assert ours.resize == f"TensorFlow 1 bilinear to {size}"


@pytest.mark.parametrize(
    ("model", "parameters"), [("ViT-B-32", 87_849_216), ("ViT-L-14", 303_966_208), ("RN50", 38_316_896)]
)
def test_clip_has_the_published_sizes(model: str, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in CLIPVisual(*CLIP_MODELS[model]).parameters()) == parameters


def attention_again(attn: nn.Module, x: Tensor, width: int, heads: int) -> Tensor:
    theirs = nn.MultiheadAttention(width, heads, batch_first=True)
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias", "out_proj.weight": "proj.weight"}
    state = attn.state_dict()
    theirs.load_state_dict({**{k: state[v] for k, v in names.items()}, "out_proj.bias": state["proj.bias"]})
    return theirs(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("gated", [False, True])
def test_dinov2_against_torchs_attention(gated: bool) -> None:
    width, depth, heads = TINY_DINO
    network = drawn(VisionTransformer(width, depth, heads=heads, gated=gated, grid=2))
    x = torch.randn(3, 3, 28, 28)
    patches = x.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    projection = network.patch_embed["proj"]
    tokens = patches @ projection.weight.flatten(1).T + projection.bias
    tokens = torch.cat([network.cls_token.repeat(3, 1, 1), tokens], dim=1) + network.pos_embed
    for block in network.blocks:
        tokens = tokens + block.ls1.gamma * attention_again(block.attn, block.norm1(tokens), width, heads)
        y = block.norm2(tokens)
        if gated:
            gate, value = (y @ block.mlp.w12.weight.T + block.mlp.w12.bias).split(64, dim=-1)  # 4 * 24 * 2 / 3
            y = block.mlp.w3(gate * gate.sigmoid() * value)
        else:
            y = block.mlp.fc2(F.gelu(block.mlp.fc1(y)))
        tokens = tokens + block.ls2.gamma * y
    assert torch.allclose(network(x), F.layer_norm(tokens, (width,), *network.norm.parameters(), 1e-6)[:, 0], atol=1e-5)


def test_dinov2_positions_are_interpolated_to_the_patches() -> None:
    network = VisionTransformer(4, 1, heads=1, grid=37)
    ramp = torch.arange(37.0).expand(37, 37).flatten()
    network.pos_embed.data[0, 1:, 0], network.pos_embed.data[0, :, 1] = ramp, 5.0
    made = network._positions(16, 16)
    assert made.shape == (1, 257, 4) and torch.allclose(made[0, :, 1], torch.tensor(5.0), atol=1e-5)
    # Column i lies at (i + 1/2) * 37 / 16.1 - 1/2; torch's cubic is within 0.08 of a ramp there, 37 / 16 is not.
    columns, found = torch.arange(1, 15) + 0.5, made[0, 1:, 0].view(16, 16)[7, 1:15]
    assert (found - (columns * 37 / 16.1 - 0.5)).abs().max() < 0.08 < (found - (columns * 37 / 16 - 0.5)).abs().max()


def test_dinov2_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DINOV2_MODELS, "vit-s-14", TINY_DINO)
    network = drawn(VisionTransformer(24, 2, heads=3))
    torch.save({**network.state_dict(), "mask_token": torch.zeros(1, 24)}, tmp_path / "dinov2.pth")
    extractor = build_extractor("dinov2:vit-s-14", weights_path=tmp_path / "dinov2.pth")
    assert (extractor.name, extractor.num_features) == ("dinov2_vit_s_14", 24)
    assert extractor.resize == "TensorFlow 1 bilinear to 224"
    direct = ModuleFeatures(
        network, name="x", resize_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD, tensorflow_resize=True
    )
    assert torch.equal(extractor(IMAGES).features, direct(IMAGES).features)


@pytest.mark.parametrize(
    ("model", "parameters"), [("vit-s-14", 22_056_192), ("vit-b-14", 86_579_712), ("vit-g-14", 1_136_479_232)]
)
def test_dinov2_has_the_published_sizes(model: str, parameters: int) -> None:
    width, depth, heads = DINOV2_MODELS[model]
    with torch.device("meta"):
        network = VisionTransformer(width, depth, heads=heads, gated=model == "vit-g-14")
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.slow
def test_vgg16_is_torch_fidelitys(tmp_path: Path) -> None:
    from torchvision.models import vgg16

    torch.save(vgg16().state_dict(), tmp_path / "vgg16.pth")
    ours = build_extractor("vgg16", weights_path=tmp_path / "vgg16.pth")
    theirs = FeatureExtractorVGG16("theirs", ["fc2_relu"], str(tmp_path / "vgg16.pth"))
    assert torch.equal(ours(IMAGES).features, theirs(IMAGES)[0])
    assert (ours.name, ours.num_features) == ("vgg16_fc2", 4096)


SPECS = {
    "vgg16": "torchvision's vgg16", "clip:ViT-B-32": "CLIP's ViT-B-32", "dinov2:vit-s-14": "DINOv2's vit-s-14"
}  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_other_weights_are_refused_and_missing_ones_say_what_to_fetch(
    spec: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    torch.save({"w": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"other.pth does not hold the weights of {SPECS[spec]}: Error") as caught:
        build_extractor(spec, weights_path=tmp_path / "other.pth")
    assert len(str(caught.value)) < 700
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(ConnectionError, match=rf"not at {cache}.*no network.*fetch https://.*weights_path"):
        build_extractor(spec)


def test_unknown_models_say_what_there_is() -> None:
    with pytest.raises(ValueError, match="no CLIP model 'ViT-S'; there are RN50, RN101"):
        build_extractor("clip:ViT-S")
    with pytest.raises(ValueError, match="no DINOv2 model 'vits14'; there are vit-s-14"):
        build_extractor("dinov2:vits14")


class FakeTimm(types.ModuleType):
    """As much of timm as is called, with one network; `online` says whether it can fetch weights."""

    online = True

    def __init__(self) -> None:
        super().__init__("timm")
        self.data = types.SimpleNamespace(
            resolve_model_data_config=lambda network: {"input_size": (3, 12, 12), "mean": HALF, "std": HALF}
        )

    def is_model(self, name: str) -> bool:
        return name == "tiny"

    def list_models(self) -> list[str]:
        return ["large", "tiny"]

    def create_model(self, name: str, *, pretrained: bool) -> nn.Module:
        if pretrained and not self.online:
            raise FileNotFoundError("cannot reach the hub")
        return Tiny()


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def reset_classifier(self, num_classes: int) -> None:
        self.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean(dim=(2, 3)))


def test_timm_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, trained = FakeTimm(), Tiny()
    monkeypatch.setitem(sys.modules, "timm", fake)
    torch.save(trained.state_dict(), tmp_path / "tiny.pth")
    extractor = build_extractor("timm:tiny", weights_path=tmp_path / "tiny.pth")
    assert (extractor.name, extractor.num_features, extractor.resize_px) == ("timm_tiny", 4, 12)
    assert torch.equal(extractor.network.body.weight, trained.body.weight)
    assert build_extractor("timm:tiny").fingerprint != extractor.fingerprint
    torch.save({"w": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth does not hold the weights of timm's tiny"):
        build_extractor("timm:tiny", weights_path=tmp_path / "other.pth")
    with pytest.raises(ValueError, match="timm has no model 'tinier'; near it are tiny"):
        build_extractor("timm:tinier")
    fake.online = False
    with pytest.raises(ConnectionError, match=r"weights of tiny \(cannot reach the hub\): pass weights_path"):
        build_extractor("timm:tiny")


def test_missing_timm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"'timm:resnet18' needs timm: pip install 'lit-gans\[timm\]'"):
        build_extractor("timm:resnet18")
