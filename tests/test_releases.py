"""Releases: a paper that says of its official networks what they are is converted, without a word of it elsewhere."""

import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_gans import papers
from lit_gans.adversarial import GAN
from lit_gans.convert import convert
from lit_gans.official import (
    OfficialNetwork,
    Release,
    fingerprint,
    of_pickle,
    of_state,
    read_official,
    renaming,
    write_official,
    write_state_dict,
)
from lit_gans.runs.load import load_run
from lit_gans.runs.releases import releases

MODULE = "lit_gans.papers.throwaway"


class Painter(nn.Module):
    """z [N, Z] -> images [N, 1, R, R]."""

    def __init__(self, *, z_dim: int, resolution: int) -> None:
        super().__init__()
        self.z_dim, self.resolution, self.paint = z_dim, resolution, nn.Linear(z_dim, resolution**2)

    def forward(self, z: Tensor) -> Tensor:
        return self.paint(z).view(-1, 1, self.resolution, self.resolution).tanh()


class Throwaway(GAN):
    def __init__(self, *, resolution: int = 4, z_dim: int = 2) -> None:
        super().__init__(resolution=resolution, channels=1, z_dim=z_dim)
        self.generator = self.generator_ema = Painter(z_dim=z_dim, resolution=resolution)

    @classmethod
    def from_generator(cls, generator: Painter) -> "Throwaway":
        gan = cls(resolution=generator.resolution, z_dim=generator.z_dim)
        gan.generator = gan.generator_ema = generator
        return gan

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return self.generator(z)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        raise AssertionError

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        raise AssertionError


PICKLED = Release(
    "a/throwaway",
    "OilPainter",
    Painter,
    {r"brush\.(weight|bias)": r"paint.\1", "seen": None},
    renaming({"latents": "z_dim", "size": "resolution"}),
    model=Throwaway,
)


def told(state: dict[str, Tensor]) -> dict[str, int]:
    pixels, latents = state["brush.weight"].shape
    return {"latents": latents, "size": int(pixels**0.5)}


NAMED = replace(PICKLED, class_name="InkPainter", config=told, begins={"brush.weight": ()})


@pytest.fixture(autouse=True)
def paper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of lit_gans.papers, as one more line in its `__init__` makes it known."""
    module = types.ModuleType(MODULE)
    module.OFFICIAL, module.Painter, module.Throwaway = [PICKLED, NAMED], Painter, Throwaway
    for cls in (Painter, Throwaway):
        monkeypatch.setattr(cls, "__module__", MODULE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr(papers, "Throwaway", Throwaway, raising=False)
    monkeypatch.setattr(papers, "__all__", [*papers.__all__, "Throwaway"])
    yield


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"brush.weight": torch.randn(9, 2), "brush.bias": torch.randn(9), "seen": torch.tensor(7)}


def check_ours(folder: Path, given: dict[str, Tensor]) -> None:
    gan = load_run(folder)
    assert isinstance(gan, Throwaway) and gan.sample([0, 1]).shape == (2, 1, 3, 3)
    assert torch.equal(gan.generator.paint.weight, given["brush.weight"])


def test_state_dicts_go_there_and_back(tmp_path: Path) -> None:
    given = state()
    convert(write_state_dict(tmp_path / "ink.pth", given), tmp_path / "ours")
    check_ours(tmp_path / "ours", given)
    convert(tmp_path / "ours", tmp_path / "back.pth", to="official")
    assert fingerprint(torch.load(tmp_path / "back.pth", weights_only=True)) == fingerprint(given)


def test_pickles_go_there_and_back(tmp_path: Path) -> None:
    arguments, modules = {"latents": 2, "size": 3}, {"": "OilPainter", "brush": "Linear"}
    network = OfficialNetwork("OilPainter", (), arguments, state(), frozenset({"seen"}), modules, "")
    write_official(tmp_path / "oil.pkl", {"G_ema": network})
    convert(tmp_path / "oil.pkl", tmp_path / "ours")
    check_ours(tmp_path / "ours", network.state)
    convert(tmp_path / "ours", tmp_path / "back.pkl", to="official")
    (back,) = read_official(tmp_path / "back.pkl").networks.values()
    assert (back.fingerprint, back.init_kwargs, back.class_name) == (network.fingerprint, arguments, "OilPainter")


def test_networks_of_two_releases_are_refused() -> None:
    others = [replace(each, repository="b/copy") for each in (PICKLED, NAMED)]
    both = "the {0} of a/throwaway and the {0} of b/copy alike"
    with pytest.raises(ValueError, match=f"its names fit {both.format('InkPainter')}"):
        of_state(state(), [*releases(), *others])
    network = OfficialNetwork("OilPainter", (), {}, state(), frozenset(), {}, "")
    with pytest.raises(ValueError, match=f"G's names fit {both.format('OilPainter')}"):
        of_pickle(network, "G", [*releases(), *others])


def test_networks_of_a_release_that_lack_or_add_something_are_named() -> None:
    with pytest.raises(ValueError, match=r"a network, a InkPainter: .*1 of ours are not filled: paint.bias"):
        given = {name: tensor for name, tensor in state().items() if name != "brush.bias"}
        NAMED.build(NAMED.read(given))
    network = OfficialNetwork("OilPainter", (), {"latents": 2, "colour": 3}, state(), frozenset(), {}, "")
    with pytest.raises(ValueError, match="'colour' is no argument of the official network, which has latents, size"):
        PICKLED.build(network)
    with pytest.raises(ValueError, match=r"G was built from arguments without names, \(3,\)"):
        PICKLED.build(replace(network, init_args=(3,)), "G")
