import pytest

from lit_gans.metrics.classifiers import ClassifierFeatures, digits_classifier


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClassifierFeatures, str]:
    """The digits classifier, trained once for all tests, and the cache folder it lies in."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_GANS_CACHE", str(folder))
        return digits_classifier(), str(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """An empty cache folder for each test."""
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
