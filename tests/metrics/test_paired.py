"""Pairs of images; run as a program, one of several processes that measure a folder of pairs together."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as their_ms_ssim
from torchmetrics.functional.image import peak_signal_noise_ratio as their_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as their_ssim

from lit_gans.base.images import save_png
from lit_gans.metrics.folders import evaluate_pairs
from lit_gans.metrics.pair_mean import PairMean
from lit_gans.metrics.paired import PSNR, SSIM, MultiScaleSSIM, ms_ssim, pair_measures, psnr, ssim
from lit_gans.metrics.perceptual import PerceptualDistance
from tests.distributed.launch import run_processes


def pairs(
    n: int, height: int, width: int, *, channels: int = 3, noise: float = 30, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Smooth pictures, and the same with noise of that standard deviation, less on the later ones."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 4, 4, generator=generator) * 255
    real = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    levels = torch.linspace(noise, noise / 4, n).view(n, 1, 1, 1)
    fake = real * 0.9 + 10 + levels * torch.randn(real.shape, generator=generator)
    return fake.round().clamp(0, 255).byte(), real.round().clamp(0, 255).byte()


def scipy_similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean SSIM and mean contrast term of two planes, windows written out in two dimensions."""
    signal = pytest.importorskip("scipy.signal")
    at = np.arange(-5, 6)
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def average(x: np.ndarray) -> np.ndarray:
        return signal.correlate(x, window, mode="valid", method="direct")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = average(a), average(b)
    contrast = (2 * (average(a * b) - mean_a * mean_b) + c2) / (
        average(a * a) - mean_a**2 + average(b * b) - mean_b**2 + c2
    )
    return float((contrast * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)).mean()), float(contrast.mean())


def scipy_ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Halving as the authors do it: averages of 2 x 2 of the mirrored plane, every second one kept."""
    ndimage = pytest.importorskip("scipy.ndimage")
    value = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        whole, contrast = scipy_similarity(a, b)
        value *= (whole if scale == 4 else contrast) ** weight
        a, b = (ndimage.uniform_filter(x, 2, mode="reflect", origin=-1)[::2, ::2] for x in (a, b))
    return value


def test_psnr_in_closed_form() -> None:
    real = torch.full((3, 3, 8, 8), 100, dtype=torch.uint8)
    fake = real.clone()
    fake[0] += 5
    fake[1, 0, :4] -= 100
    expected = [20 * math.log10(255 / 5), 10 * math.log10(255**2 / (100**2 / 6)), math.inf]
    assert psnr(fake, real).tolist() == pytest.approx(expected, rel=1e-12)
    noisy, clean = pairs(4, 16, 20)
    theirs = their_psnr(noisy, clean, data_range=255.0, reduction="none", dim=(1, 2, 3))
    assert torch.allclose(psnr(noisy, clean).float(), theirs, rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "channels"), [(11, 11, 3), (32, 45, 3), (24, 17, 1)])
def test_ssim_is_the_published_one(height: int, width: int, channels: int) -> None:
    fake, real = pairs(3, height, width, channels=channels)
    a, b = fake.double().numpy(), real.double().numpy()
    expected = [np.mean([scipy_similarity(a[i, c], b[i, c])[0] for c in range(channels)]) for i in range(3)]
    assert ssim(fake, real).tolist() == pytest.approx(expected, rel=1e-9)
    _, everywhere = their_ssim(fake.double(), real.double(), data_range=255.0, return_full_image=True, reduction="none")
    assert ssim(fake, real).tolist() == pytest.approx(everywhere[..., 5:-5, 5:-5].mean((1, 2, 3)).tolist(), rel=1e-6)


@pytest.mark.parametrize(("height", "width", "channels"), [(161, 170, 1), (176, 163, 3)])
def test_ms_ssim_is_the_published_one(height: int, width: int, channels: int) -> None:
    fake, real = pairs(1, height, width, channels=channels)
    a, b = fake.double().numpy(), real.double().numpy()
    expected = [np.mean([scipy_ms_ssim(a[0, c], b[0, c]) for c in range(channels)])]
    assert ms_ssim(fake, real).tolist() == pytest.approx(expected, rel=1e-9)


def test_ms_ssim_is_near_torchmetrics_which_counts_a_border_at_the_coarsest_scale() -> None:
    fake, real = pairs(2, 192, 192, channels=1, noise=60)
    theirs = their_ms_ssim(fake.double(), real.double(), data_range=255.0, reduction="none")
    assert ms_ssim(fake, real).tolist() == pytest.approx(theirs.tolist(), rel=0.02)


def test_equal_images_reach_the_top_and_negatives_do_not_break_ms_ssim() -> None:
    fake, real = pairs(2, 170, 170, channels=1)
    assert ssim(real, real).tolist() == pytest.approx([1, 1], abs=1e-12)
    assert ms_ssim(real, real).tolist() == pytest.approx([1, 1], abs=1e-12)
    assert ssim(255 - fake, fake).max() < 0
    assert ms_ssim(255 - fake, fake).tolist() == [0, 0]


@pytest.mark.parametrize(("kind", "value", "side"), [(PSNR, psnr, 9), (SSIM, ssim, 16), (MultiScaleSSIM, ms_ssim, 161)])
def test_means_over_images_whatever_the_batches_and_processes(kind: type[PairMean], value, side: int) -> None:
    fake, real = pairs(5, side, side, channels=1)
    first, second = kind(), kind()
    first.update(fake[:1], real[:1])
    first.update(fake[:0], real[:0])
    second.update(fake[1:], real[1:])
    first.merge_state(second)
    assert first.compute().dtype == torch.float64
    assert first.compute().item() == pytest.approx(value(fake, real).mean().item(), rel=1e-12)
    assert kind.higher_is_better and kind.settings


def test_equal_pairs_make_the_mean_psnr_infinite_and_are_told() -> None:
    fake, real = pairs(3, 12, 12)
    metric = PSNR()
    metric.update(fake, real)
    expected = metric.compute().item()
    metric.update(real[:2], real[:2])
    with pytest.warns(UserWarning, match=rf"2 of 5 pairs are equal: .* over the other 3 it is {expected:.4f} dB"):
        assert metric.compute().item() == math.inf
    alone = PSNR()
    alone.update(real, real)
    with pytest.warns(UserWarning, match="3 of 3 pairs are equal: the mean PSNR is infinite$"):
        assert alone.compute().item() == math.inf


def test_images_that_are_no_pairs_are_refused() -> None:
    fake, real = pairs(2, 10, 12)
    with pytest.raises(ValueError, match=r"fake images \[2, 3, 10, 12\], real images \[1, 3, 10, 12\]"):
        psnr(fake, real[:1])
    with pytest.raises(ValueError, match=r"real images torch.float32 \[2, 3, 10, 12\], expected uint8"):
        PSNR().update(fake, real.float())
    with pytest.raises(ValueError, match=r"fake images torch.uint8 \[2, 2, 10, 12\], expected uint8 \[N, 1 or 3"):
        ssim(fake[:, :2], real[:, :2])
    with pytest.raises(ValueError, match="12 x 10 px are too small for a window of 11 x 11: .* must be 11 px or more"):
        SSIM().update(fake, real)
    with pytest.raises(ValueError, match="5 scales of a window of 11 x 11: their sides must be 161 px or more"):
        ms_ssim(*pairs(1, 160, 300, channels=1))
    with warnings.catch_warnings(), pytest.raises(ValueError, match="one pair or more, got none"):
        warnings.simplefilter("ignore")  # torchmetrics' own, that nothing was counted
        PSNR().compute()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Seven pairs of three sizes in folders; the names' endings differ."""
    from PIL import Image

    for i in range(7):
        fake, real = pairs(1, 24, 20 + 4 * (i // 3), seed=i)
        save_png(fake[0], tmp_path / "fakes" / "a" / f"{i}.png")
        (tmp_path / "reals" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(real[0].permute(1, 2, 0).numpy()).save(tmp_path / "reals" / "a" / f"{i}.bmp")
    return tmp_path / "fakes", tmp_path / "reals"


def tiny_distance() -> PerceptualDistance:
    generator = torch.Generator().manual_seed(0)
    shapes = {"0.weight": (64, 3, 3, 3), "0.bias": (64,)}
    state = {f"features.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return PerceptualDistance(state, layers=["relu1_1"])


def test_folders_are_matched_by_name(folders: tuple[Path, Path]) -> None:
    told, distance = [], tiny_distance()
    found = evaluate_pairs(
        *folders,
        metrics=["psnr", "ssim", "pd"],
        pd=distance,
        batch_size=2,
        progress=lambda *what: told.append(what),
    )
    images = [pairs(1, 24, 20 + 4 * (i // 3), seed=i) for i in range(7)]
    for name, value in (("psnr", psnr), ("ssim", ssim), ("pd_vgg16", distance)):
        assert found.pop(name) == pytest.approx(np.mean([value(*pair).item() for pair in images]), rel=1e-6)
    assert not found
    assert told == [("pairs", done, 7) for done in (2, 3, 5, 6, 7)]


def test_processes_share_the_pairs(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gans.metrics.evaluator.check_ranks", lambda rank, world: None)
    each = [psnr(*pairs(1, 24, 20 + 4 * (i // 3), seed=i)).item() for i in range(7)]
    for rank in range(3):
        found = evaluate_pairs(*folders, metrics=["psnr"], rank=rank, world=3)
        assert found["psnr"] == pytest.approx(np.mean(each[rank::3]), rel=1e-12)


def test_grey_pictures_and_zips_are_read_as_colour(tmp_path: Path) -> None:
    import shutil

    fake, real = pairs(1, 16, 16, channels=1)
    save_png(fake[0], tmp_path / "grey" / "x.png")
    save_png(real.expand(-1, 3, -1, -1)[0], tmp_path / "colour" / "x.png")
    zipped = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "colour")
    found = evaluate_pairs(str(tmp_path / "grey"), zipped)
    assert found == pytest.approx({"psnr": psnr(fake, real).item(), "ssim": ssim(fake, real).item()}, rel=1e-12)


def test_what_is_no_pair_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    fakes, reals = folders
    small = pairs(1, 10, 10)[0][0]
    save_png(small, fakes / "a" / "3.png")
    with pytest.raises(ValueError, match=r"a/3.png in .*fakes is 10 x 10 px, its partner in .*reals 24 x 24"):
        evaluate_pairs(fakes, reals)
    with pytest.raises(ValueError, match=r"a/3.png: images of 10 x 10 px are too small for a window"):
        evaluate_pairs(fakes, fakes, metrics=["ssim"])
    (fakes / "a" / "3.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a/3.png in .*fakes cannot be read"):
        evaluate_pairs(fakes, reals)
    for i in range(7):
        save_png(small, fakes / f"{i}.png")
    (reals / "a" / "6.bmp").rename(reals / "seven.bmp")
    with pytest.raises(
        ValueError,
        match=r"8 of 14 in .*fakes: 0.png, 1.png, 2.png, 3.png, 4.png and 3 more; 1 of 7 in .*reals: seven.bmp. Rename",
    ):
        evaluate_pairs(fakes, reals)
    save_png(small, reals / "seven.png")
    with pytest.raises(ValueError, match="reals has both seven.bmp and seven.png"):
        evaluate_pairs(fakes, reals)


def test_settings_that_cannot_be_met_are_refused(folders: tuple[Path, Path]) -> None:
    for metrics in (["fid"], []):
        with pytest.raises(ValueError, match="choose one or more of psnr, ssim, ms_ssim, lpips, pd"):
            evaluate_pairs(*folders, metrics=metrics)
    with pytest.raises(ValueError, match=r"pass lpips=build_lpips\('vgg'\)"):
        pair_measures(["psnr", "lpips"])
    with pytest.raises(ValueError, match=r"pass pd=build_perceptual_distance\(\)"):
        pair_measures(["pd"])
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluate_pairs(*folders, batch_size=0)
    with pytest.raises(ValueError, match="rank 1 of 2 was given, but this is process 0 of 1"):
        evaluate_pairs(*folders, rank=1, world=2)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_find_what_one_finds(world: int, folders: tuple[Path, Path], tmp_path: Path) -> None:
    fakes, reals = folders
    one = evaluate_pairs(fakes, reals, metrics=["psnr", "ssim", "pd"], pd=tiny_distance())
    for broken in (fakes / "a" / "0.png", reals / "a" / "0.png"):
        copy = tmp_path / "broken" / broken.parents[1].name / broken.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(b"no picture")
    outputs = run_processes(world, ["-m", "tests.metrics.test_paired", *map(str, (fakes, reals, tmp_path / "broken"))])
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    assert all(process["values"] == pytest.approx(one, rel=1e-6) for process in found)
    assert found[0]["failure"].startswith("ValueError: 0.png in ")
    for process in found[1:]:
        assert process["failure"].startswith("RuntimeError: process 0 failed: 0.png in ")


def main(fakes: str, reals: str, broken: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    share = {"rank": dist.get_rank(), "world": dist.get_world_size()}
    values = evaluate_pairs(fakes, reals, metrics=["psnr", "ssim", "pd"], pd=tiny_distance(), **share)
    try:
        evaluate_pairs(f"{broken}/fakes", f"{broken}/reals", **share)
    except (ValueError, RuntimeError) as error:
        print(json.dumps({"values": values, "failure": f"{type(error).__name__}: {error}"}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
