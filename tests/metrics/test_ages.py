"""The age network: its layers against what was recorded of the package itself, what it takes and refuses."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from lit_gans.metrics.ages import _PLAIN, _SEPARABLE, AgeGender, build_ages, same

WEIGHTS = Path(os.environ.get("LIT_GANS_WEIGHTS") or Path(__file__).parents[3] / "shared" / "weights")
WIDTHS = {"conv_in": (3, 32), "reduction_block_0": (32, 64), "reduction_block_1": (64, 128), "main_block": (128, 128)}
WIDTHS |= {"exit_flow.reduction_block": (128, 256), "exit_flow.separable_conv": (256, 512)}


def widths(name: str) -> tuple[int, int]:
    if name.startswith("fc"):
        return 512, 1 if "age" in name else 2
    inner = next(pair for key, pair in WIDTHS.items() if key in name)
    return (inner[1], inner[1]) if name.endswith("separable_conv1") else inner


def age_state() -> dict[str, torch.Tensor]:
    """Random weights under face-api's names."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name in (*_PLAIN, *_SEPARABLE):
        fan_in, fan_out = widths(name)
        side = 3 if name.endswith("conv_in") else 1
        kernel = () if name.startswith("fc") else (side, side)
        weight = torch.randn(fan_out, fan_in, *kernel, generator=generator) / (fan_in * side**2) ** 0.5
        state[f"{name}.bias"] = torch.zeros(fan_out)
        if name in _SEPARABLE:
            state[f"{name}.depthwise.weight"] = torch.randn(fan_in, 1, 3, 3, generator=generator) / 3
            state[f"{name}.pointwise.weight"] = weight
        else:
            state[f"{name}.weight"] = weight
    return state


def test_padding_is_tensorflows() -> None:
    x = torch.arange(1.0, 6).view(1, 1, 1, 5)
    assert same(x, 3, 2)[0, 0, 1].tolist() == [0, 1, 2, 3, 4, 5, 0] and same(x, 3, 2).shape[2] == 3
    assert same(x[..., :4], 3, 2)[0, 0, 1].tolist() == [1, 2, 3, 4, 0], "the odd pixel is at the end"
    for size in range(3, 12):
        for stride in (1, 2, 3):
            image = torch.zeros(1, 1, size, size)
            assert F.max_pool2d(same(image, 3, stride), 3, stride).shape[-1] == -(-size // stride)
    assert F.max_pool2d(same(-torch.ones(1, 1, 4, 4), 3, 2, value=float("-inf")), 3, 2).max() == -1


def test_pictures_of_any_size_in_either_mode(tmp_path: Path) -> None:
    save_file(age_state(), tmp_path / "age.safetensors")
    ages = build_ages(tmp_path / "age.safetensors")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = ages(images)
    assert found.shape == (2,) and torch.allclose(ages(images[1:]), found[1:], atol=1e-4)
    assert torch.allclose(ages(images.mean(1, keepdim=True)), ages(images.mean(1, keepdim=True).expand(-1, 3, -1, -1)))
    large = F.interpolate(images, (448, 448), mode="bilinear", antialias=True)
    assert torch.allclose(ages(large), found, rtol=0.1, atol=0.1)
    years, male = ages.network(torch.rand(3, 3, 112, 112) * 255)
    assert years.shape == male.shape == (3,) and 0 <= male.min() and male.max() <= 1
    assert not any(parameter.requires_grad for parameter in ages.parameters())


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.safetensors does not exist: give the .safetensors file"):
        build_ages(tmp_path / "none.safetensors")
    save_file({"fc.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors: not the age and gender network: 5[0-9] tensors"):
        build_ages(tmp_path / "other.safetensors")


def test_the_package_itself_says_the_same() -> None:
    """Recorded of it on four faces, in the folder of weights beside the golden files."""
    files = [WEIGHTS / name for name in ("age_gender_model_fp16.safetensors", "face_nets_golden.safetensors")]
    if not all(file.is_file() for file in files):
        assert not (os.environ.get("LIT_GANS_REQUIRE_GOLDEN") == "1" and WEIGHTS.is_dir()), f"{WEIGHTS} lacks them"
        pytest.skip(f"no age network in {WEIGHTS}: set LIT_GANS_WEIGHTS")
    network, recorded = AgeGender(load_file(files[0])), load_file(files[1])
    years, male = network(recorded["small_input"].permute(0, 3, 1, 2).float())
    assert (years - recorded["age_output"]).abs().max() < 0.011
    assert (male - recorded["male_output"]).abs().max() < 6e-4
