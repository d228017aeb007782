from pathlib import Path

import pytest
import torch

from lit_gans.data import Digits
from lit_gans.metrics import reals
from lit_gans.metrics.manifold import neighbour_radii
from lit_gans.metrics.reals import real_indices, real_statistics, statistics_file

from .common import PixelFeatures, digits


def test_statistics_are_of_all_images_in_order() -> None:
    data, extractor = digits(), PixelFeatures()
    found = real_statistics(data, extractor, batch_size=100)
    whole = extractor(data.dataset().images(torch.arange(1797))).features
    count, mean, scatter = found.moments
    assert count == 1797 and torch.equal(found.features, whole) and found.spatial is None
    assert torch.allclose(mean, whole.double().mean(0), rtol=1e-12)
    assert torch.allclose(scatter / 1796, whole.double().T.cov(), rtol=1e-9)


def test_they_are_taken_once_and_sums_serve_where_features_are_kept(cache: Path) -> None:
    data, extractor = digits(), PixelFeatures()
    first = real_statistics(data, extractor)
    seen = extractor.images
    again, sums = real_statistics(data, extractor), real_statistics(data, extractor, whole=False)
    assert extractor.images == seen == 1797 and len(list(cache.iterdir())) == 1
    assert torch.equal(again.features, first.features) and torch.equal(sums.moments[2], first.moments[2])


def test_sums_alone_hold_no_features(cache: Path) -> None:
    assert real_statistics(digits(), PixelFeatures(), whole=False).features is None
    assert real_statistics(digits(), PixelFeatures()).features is not None
    assert len(list(cache.iterdir())) == 2


def test_damaged_file_is_made_again_with_a_warning(tmp_path: Path) -> None:
    data, extractor = digits(), PixelFeatures()
    first = real_statistics(data, extractor, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="is damaged .* and is made again"):
        second = real_statistics(data, extractor, folder=tmp_path)
    assert torch.equal(first.features, second.features) and extractor.images == 2 * 1797
    real_statistics(data, extractor, folder=tmp_path)
    assert extractor.images == 2 * 1797


def test_the_files_name_changes_with_whatever_changes_a_number() -> None:
    def name(data: Digits | None = None, extractor: PixelFeatures | None = None, **changes) -> str:
        settings = {"split": "train", "count": 1797, "whole": True, **changes}
        return statistics_file(data or digits(), extractor or PixelFeatures(), **settings).name

    resized = PixelFeatures()
    resized.resize = "nearest to 4"
    others = [
        name(Digits(batch_size=16, resolution=9)),
        name(Digits(batch_size=16, resolution=8, holdout=True)),
        name(Digits(batch_size=16, resolution=8, holdout=True), split="test"),
        name(extractor=PixelFeatures(seed=1)),
        name(extractor=PixelFeatures(name="others")),
        name(extractor=resized),
        name(count=1000),
        name(whole=False),
    ]
    assert len({name(), *others}) == 9
    assert name(Digits(batch_size=32, resolution=8, mirror=True, seed=4)) == name()


def test_radii_are_found_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = real_statistics(digits(), PixelFeatures(), num_real=50)
    radii = found.radii(k=5, device=torch.device("cpu"))
    assert torch.equal(radii, neighbour_radii(found.features, k=5))
    monkeypatch.setattr(reals, "neighbour_radii", None)
    again = real_statistics(digits(), PixelFeatures(), num_real=50)
    assert torch.equal(again.radii(k=5, device=torch.device("cpu")), radii)


def test_a_subset_is_drawn_once_and_for_all() -> None:
    chosen = real_indices(100, 10)
    assert torch.equal(chosen, real_indices(100, 10)) and len(chosen.unique()) == 10
    assert torch.equal(chosen, chosen.sort().values) and chosen.max() > 20
    assert real_statistics(digits(), PixelFeatures(), num_real=50).moments[0] == 50
    with pytest.raises(ValueError, match="num_real is 101; the split has 100 images: use 2 to 100"):
        real_indices(100, 101)
