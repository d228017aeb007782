"""How old a face looks: the small Xception of face-api, which tells years and sex at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.cache import digest
from lit_gans.base.checkpoints import read_weights
from lit_gans.base.files import check_regular

INPUT_PX = 112
MEAN = (122.782, 117.001, 104.298)  # of R, G, B, of all networks of face-api
_REDUCTIONS = ("entry_flow.reduction_block_0", "entry_flow.reduction_block_1", "exit_flow.reduction_block")
_MAIN = ("middle_flow.main_block_0", "middle_flow.main_block_1")
_PLAIN = ("entry_flow.conv_in", *(f"{name}.expansion_conv" for name in _REDUCTIONS), "fc.age", "fc.gender")
_SEPARABLE = (
    *(f"{name}.separable_conv{i}" for name in _REDUCTIONS for i in (0, 1)),
    *(f"{name}.separable_conv{i}" for name in _MAIN for i in (0, 1, 2)), "exit_flow.separable_conv",
)  # fmt: skip


class AgeGender(nn.Module):
    """images [N, 3, 112, 112] RGB in [0, 255] -> (years [N], probability of male [N])."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state`: face-api's names. ValueError for tensors of another network."""
        super().__init__()
        wanted = {f"{name}.{part}" for name in _PLAIN for part in ("weight", "bias")}
        wanted |= {f"{n}.{part}" for n in _SEPARABLE for part in ("depthwise.weight", "pointwise.weight", "bias")}
        if state.keys() != wanted:
            odd = sorted(state.keys() ^ wanted)
            raise ValueError(f"not the age and gender network: {len(odd)} tensors lack or are others, as {odd[0]}")
        for name, tensor in state.items():
            self.register_buffer(name.replace(".", "/"), tensor.float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = (images - images.new_tensor(MEAN).view(3, 1, 1)) / 255
        x = F.relu(self._conv(x, "entry_flow.conv_in", stride=2))  # 56 px
        x = self._reduced(x, _REDUCTIONS[0])
        x = self._reduced(F.relu(x), _REDUCTIONS[1], expanded=x)
        for name in _MAIN:
            y = x
            for i in (0, 1, 2):
                y = self._separable(F.relu(y), f"{name}.separable_conv{i}")
            x = x + y
        x = self._reduced(F.relu(x), _REDUCTIONS[2], expanded=x)
        x = F.relu(self._separable(x, "exit_flow.separable_conv")).mean((2, 3))  # [N, 512, 7, 7] -> [N, 512]
        years = F.linear(x, self._of("fc.age.weight"), self._of("fc.age.bias")).flatten()
        return years, F.linear(x, self._of("fc.gender.weight"), self._of("fc.gender.bias")).softmax(1)[:, 0]

    def _of(self, name: str) -> Tensor:
        return self.get_buffer(name.replace(".", "/"))

    def _conv(self, x: Tensor, name: str, *, stride: int) -> Tensor:
        weight = self._of(f"{name}.weight")
        return F.conv2d(same(x, weight.shape[-1], stride), weight, self._of(f"{name}.bias"), stride)

    def _separable(self, x: Tensor, name: str) -> Tensor:
        x = F.conv2d(same(x, 3, 1), self._of(f"{name}.depthwise.weight"), groups=x.shape[1])
        return F.conv2d(x, self._of(f"{name}.pointwise.weight"), self._of(f"{name}.bias"))

    def _reduced(self, x: Tensor, name: str, *, expanded: Tensor | None = None) -> Tensor:
        """At half the size; what is added is made of `expanded`, which no rectifier has seen."""
        y = F.relu(self._separable(x, f"{name}.separable_conv0"))
        y = self._separable(y, f"{name}.separable_conv1")
        pooled = F.max_pool2d(same(y, 3, 2, value=float("-inf")), 3, 2)
        return pooled + self._conv(x if expanded is None else expanded, f"{name}.expansion_conv", stride=2)


def same(x: Tensor, kernel_size: int, stride: int, *, value: float = 0.0) -> Tensor:
    """[N, C, H, W] padded as TensorFlow's SAME: to ceil(size / stride) outputs, the odd pixel right and below."""
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


class AgeEstimator(nn.Module):
    """images [N, 1 or 3, R, R] in [-1, 1], faces that fill the picture -> years [N]; never trained."""

    def __init__(self, network: AgeGender) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.name, self.fingerprint = "age_gender", digest(network.state_dict())[:16]

    def forward(self, images: Tensor) -> Tensor:
        size = (INPUT_PX, INPUT_PX)
        faces = F.interpolate(images.expand(-1, 3, -1, -1), size, mode="bilinear", antialias=True)
        years: Tensor = self.network(faces.clamp(-1, 1) * 127.5 + 127.5)[0]
        return years


def build_ages(path: str | Path) -> AgeEstimator:
    """The estimator of a .safetensors file with face-api's names (age_gender_model).

    FileNotFoundError; ValueError for a file of another network.
    """
    path = Path(path)
    check_regular(path, "give the .safetensors file of face-api's age_gender_model")
    try:
        return AgeEstimator(AgeGender(read_weights(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
