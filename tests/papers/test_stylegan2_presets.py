"""What the presets compute; numbers of "auto" are those of ADA's published training script."""

import pytest

from lit_gans.adversarial.preset import Facts
from lit_gans.papers.stylegan2.presets import auto, photos


def facts(resolution: int, devices: int = 1, *, side_px: int = 0, cuda: bool = True) -> Facts:
    return Facts(resolution, 60, side_px, devices, cuda)


@pytest.mark.parametrize(
    ("resolution", "devices", "batch", "group", "base", "lr", "gamma", "half_life"),
    [
        (256, 1, 16, 4, 16384, 0.0025, 0.8192, 5),
        (1024, 8, 32, 4, 32768, 0.002, 6.5536, 10),
        (512, 2, 16, 4, 32768, 0.0025, 3.2768, 5),
        (32, 4, 64, 4, 16384, 0.0025, 0.0032, 20),
        (1024, 1, 4, 4, 32768, 0.002, 52.4288, 1.25),
        (2048, 1, 2, 2, 32768, 0.002, 419.4304, 0.625),
    ],
)
def test_auto(
    resolution: int, devices: int, batch: int, group: int, base: int, lr: float, gamma: float, half_life: float
) -> None:
    found = auto(facts(resolution, devices))
    assert found["data.init_args.batch_size"] == batch and found["data.init_args.resolution"] == resolution
    model = {name.rpartition(".")[2]: value for name, value in found.items() if name.startswith("model.")}
    assert (model["mbstd_group_size"], model["channel_base"], model["lr"]) == (group, base, lr)
    assert model["r1_gamma"] == pytest.approx(gamma) and found["ema.half_life_kimg"] == half_life


def test_photos_are_256_px_at_most_and_on_a_cpu_64_of_narrow_networks() -> None:
    gpu, cpu = photos(facts(256, side_px=1000)), photos(facts(64, side_px=1000, cuda=False))
    assert (gpu["model.init_args.resolution"], cpu["model.init_args.resolution"]) == (256, 64)
    assert auto(facts(256)).items() <= gpu.items()
    assert (cpu["data.init_args.batch_size"], cpu["model.init_args.channel_base"]) == (16, 1024)
    assert cpu["model.init_args.r1_gamma"] == pytest.approx(0.0512)
    assert photos(facts(64, 3, cuda=False))["data.init_args.batch_size"] == 18  # divides into the processes


def test_photos_are_not_enlarged_as_a_whole() -> None:
    assert photos(facts(256, side_px=200))["model.init_args.resolution"] == 128
    assert photos(facts(256, side_px=5))["model.init_args.resolution"] == 8
