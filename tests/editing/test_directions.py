"""Directions of toy generators whose directions are known, and of tiny models that we have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lit_gans.adversarial.priors import Normal
from lit_gans.editing.direction_sheets import images_along, rates_along, save_sheet, table
from lit_gans.editing.directions import Directions, check_model, move, read_directions, without
from lit_gans.editing.finding import factorised, feature_modules, matrix_of, pca, pca_of_features, planes, sefa
from lit_gans.metrics.sources import StyleLayer
from tests.cases import CASES, each

W, LAYERS, PX = 6, 3, 4
STYLED = ("stylegan1", "stylegan2", "stylegan3-t", "stylegan-t", "stylegan-xl", "projected-gan-style")
FIRST = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5, 0.0, 1.0, 0.0]), dim=0)


class Toy(nn.Module):
    """A styled generator that is linear throughout: w = mix z, and images whose brightness is what lies along FIRST.

    Each pixel has a little of the other directions of w too. So the first principal component of W, the plane between
    bright and dark, and the eigenvectors of the style layers are known.
    """

    num_classes, resolution, channels, images_seen = 0, PX, 1, 0
    prior, generator_ema = Normal(), None
    device = torch.device("cpu")

    def __init__(self, *, spread: float = 3.0) -> None:
        super().__init__()
        basis = torch.linalg.qr(torch.cat([FIRST[:, None], draw(W, W - 1)], 1))[0]
        basis[:, 0] = FIRST
        self.mix = nn.Parameter(basis @ torch.diag(torch.tensor([spread, *[1.0] * (W - 1)])))
        self.rest = nn.Parameter(0.05 * draw(PX * PX, W, seed=1))
        self.affines = nn.ModuleList(nn.Linear(W, width) for width in (5, 4, 3, 1))
        self.map = nn.Identity()

    @property
    def generator(self) -> nn.Module:
        return self

    def seeded_latents(self, seeds: Sequence[int] | Tensor) -> Tensor:
        return self.prior.of_seeds(seeds, W, purpose="sample")

    def styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return psi * (z @ self.mix.T)[:, None].repeat(1, LAYERS, 1)

    def synthesize(self, ws: Tensor, *, ema: bool = True) -> Tensor:
        pixels = 0.1 * (ws.mean(1) @ FIRST)[:, None] + ws.mean(1) @ self.rest.T * 0.1
        return self.map(pixels.view(-1, 1, PX, PX))

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return self.synthesize(self.styles(z, psi=psi))

    def style_layers(self, *, ema: bool = True) -> dict[str, StyleLayer]:
        return {f"layer{i}": StyleLayer(a, min(i, 2), colours=i == 3) for i, a in enumerate(self.affines)}

    def feature_layers(self, *, ema: bool = True) -> dict[str, nn.Module]:
        return {"map": self.map}


class Plain(Toy):
    """The same generator without W."""

    styles = synthesize = style_layers = feature_layers = None

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return Toy.synthesize(self, Toy.styles(self, z, psi=psi))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def brightness(images: Tensor) -> Tensor:
    """A judge of one attribute: whether an image is brighter than grey."""
    return images.float().mean((1, 2, 3))[:, None] - 127.5


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()


@pytest.fixture(scope="module")
def toy() -> Toy:
    torch.manual_seed(0)  # of the style layers
    return Toy()


def test_the_plane_between_bright_and_dark_is_found_and_brightens(toy: Toy) -> None:
    found = planes(toy, brightness, ["bright"], samples=2000)
    assert cosine(found.vectors[0], FIRST) > 0.99  # towards the attribute, not away from it
    assert found.scores[0] > 0.99 and found.deviations[0] == pytest.approx(3, rel=0.05)
    rates = rates_along(toy, found, brightness, range(100), [-3.0, -1.0, 0.0, 1.0, 3.0])[0, :, 0]
    assert rates[0] < 0.05 and rates[-1] > 0.95 and (rates.diff() >= 0).all() and 0.3 < rates[2] < 0.7


def test_the_first_component_is_the_widest_direction_of_w(toy: Toy) -> None:
    found = pca(toy, samples=4000, count=3)
    assert abs(cosine(found.vectors[0], FIRST)) > 0.999
    assert found.explained[0] == pytest.approx(9 / 14, rel=0.05) and torch.allclose(found.explained, found.scores)
    assert found.deviations.diff().lt(0).all()
    largest = found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()  # one of the two signs, always the same


def test_components_of_features_are_regressed_to_the_latents_that_make_them(toy: Toy) -> None:
    """Of a linear generator the component's coordinate is linear in z, by M^T times its direction in pixels."""
    plain = Plain()
    plain.load_state_dict(toy.state_dict())
    made = torch.cat([FIRST[None] + row for row in toy.rest[:, None].detach()]) @ toy.mix.detach() * 0.1
    component = torch.linalg.svd(made)[2][0]
    found = pca_of_features(plain, "map", samples=4000, count=2)
    assert found.space == "z" and abs(cosine(found.vectors[0], component)) > 0.999
    of_w = pca_of_features(toy, "map", samples=4000, count=2)
    assert of_w.space == "w" and abs(cosine(of_w.vectors[0], FIRST)) > 0.99
    assert found.scores[0] > 0.9


def test_sefa_is_the_eigenvectors_of_the_normalised_weights(toy: Toy) -> None:
    """Rows of length 1, so that a strong channel counts as a weak one; of colours no layer whose row another reads."""
    with torch.no_grad():
        toy.affines[0].weight[0] *= 50
    weights = [affine.weight.detach().double() for affine in toy.affines]
    rows = torch.nn.functional.normalize(torch.cat(weights[:3]), dim=1)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    found = sefa(toy, count=W, samples=100)
    for number in range(W):
        assert abs(cosine(found.vectors[number], vectors[:, -1 - number])) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(found.scores.double(), values.flip(0) / values.sum(), atol=1e-5)
    last = sefa(toy, count=1, samples=100, layers=[2])
    own = torch.nn.functional.normalize(weights[2], dim=1)
    assert abs(cosine(last.vectors[0], torch.linalg.eigh(own.T @ own)[1][:, -1])) == pytest.approx(1, abs=1e-5)
    assert last.layers == (2,)


def test_the_last_layer_of_colours_counts_where_it_alone_reads_its_row(toy: Toy) -> None:
    alone = [StyleLayer(toy.affines[0], 0), StyleLayer(toy.affines[3], 0, True), StyleLayer(toy.affines[3], 1, True)]
    assert factorised(alone, None) == [alone[0], alone[2]] and factorised(alone, [0]) == [alone[0]]
    assert torch.allclose(matrix_of(toy.affines[1], W, device=toy.device), toy.affines[1].weight.double(), atol=1e-6)


# ---- moving ----------------------------------------------------------------------------------------------------------


def some(space: str = "w", shape: tuple[int, ...] = (2, W), **settings: Any) -> Directions:
    vectors = torch.nn.functional.normalize(draw(*shape, seed=5), dim=-1)
    figures = {name: torch.tensor([0.5, 0.25]) for name in ("deviations", "explained", "scores")}
    return Directions(space, ("a", "b"), vectors, **figures, **settings)


def test_a_move_is_so_many_deviations_of_the_layers_that_are_moved() -> None:
    ws, found = draw(2, LAYERS, W), some(layers=(1, 2))
    moved = move(ws, found["a"], 3)
    expected = ws.clone()
    expected[:, 1:] += 3 * 0.5 * found.vectors[0]
    assert torch.allclose(moved, expected, atol=1e-6)
    assert torch.equal(move(ws, found["a"], 0.0), ws)
    each = move(ws, found["b"], torch.tensor([1.0, -2.0]), layers=[0])
    assert torch.allclose(each[1, 0] - ws[1, 0], -2 * 0.25 * found.vectors[1], atol=1e-6)
    assert torch.equal(each[:, 1:], ws[:, 1:])
    z = draw(2, W)
    assert torch.allclose(move(z, some("z")["a"], 2), z + found.vectors[0], atol=1e-6)
    of_each = some(shape=(2, LAYERS, W))
    assert torch.allclose(move(ws, of_each["a"], 1) - ws, (0.5 * of_each.vectors[0]).expand_as(ws), atol=1e-6)


def test_a_move_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"latents \[1, 3, 5\] do not fit direction 'a', which is w of \[6\]"):
        move(draw(1, 3, 5), some()["a"], 1)
    with pytest.raises(ValueError, match=r"latents \[1, 6\] do not fit"):
        move(draw(1, W), some()["a"], 1)
    with pytest.raises(ValueError, match="layer 3 does not exist: there are the layers 0 to 2"):
        move(draw(1, 3, W), some()["a"], 1, layers=[3])
    with pytest.raises(ValueError, match="there is no direction 'c'; there are a, b"):
        some()["c"]


def test_what_is_kept_is_taken_out_of_a_direction() -> None:
    vector, others = draw(W).double(), draw(3, W, seed=1).double()
    left = without(vector, others)
    assert left.norm() == pytest.approx(1) and (others @ left).abs().max() < 1e-9
    beta = torch.linalg.lstsq(others.T, vector[:, None]).solution[:, 0]
    assert cosine(left, vector - beta @ others) == pytest.approx(1)
    with pytest.raises(ValueError, match="nothing is left of a direction without those that are to be kept"):
        without(others[0] + others[1], others)


def test_conditional_planes_leave_the_other_attribute_alone(toy: Toy) -> None:
    def judge(images: Tensor) -> Tensor:
        flat = images.float().flatten(1)
        return torch.stack([flat.mean(1) - 127.5, flat[:, :8].mean(1) - flat[:, 8:].mean(1)], 1)

    names = ["bright", "top"]
    plain, kept = planes(toy, judge, names, samples=2000), planes(toy, judge, names, keep=["top"], samples=2000)
    assert kept.names == ("bright | top",) and kept.settings["keep"] == ["top"]
    assert abs(cosine(kept.vectors[0], plain.vectors[1])) < 1e-6
    assert cosine(kept.vectors[0], plain.vectors[0]) > 0.5


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_file_keeps_everything(toy: Toy, tmp_path: Path) -> None:
    found = planes(toy, brightness, ["bright"], samples=200, layers=[0, 1])
    found.save(tmp_path / "a.safetensors")
    read = read_directions(tmp_path / "a.safetensors")
    for name in ("vectors", "deviations", "explained", "scores"):
        assert torch.equal(getattr(found, name), getattr(read, name))
    assert (read.space, read.names, read.layers, read.settings) == ("w", ("bright",), (0, 1), found.settings)
    assert read.settings["method"] == "svm" and read.settings["samples"] == 200
    check_model(read, toy)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="give a file of `lit-gans directions --method`"):
        read_directions(path)
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="is damaged, or no file of this package: give a file of `lit-gans directions"):
        read_directions(path)
    save_file({"ws": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="is damaged, or no file of this package"):
        read_directions(path)
    found = some()
    found.save(path)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="is damaged, or no file of this package"):
        read_directions(path)


def test_directions_of_other_weights_are_refused_unless_they_are_asked_for(toy: Toy) -> None:
    found, other = pca(toy, samples=100), Toy(spread=2)
    with pytest.raises(ValueError, match=r"are of Toy at 0 kimg \(weights \w+\), and this model is Toy .*other_model"):
        check_model(found, other)
    check_model(found, other, other_model=True)
    with pytest.raises(ValueError, match=r"the directions are w of \[5\], and this model's is of \[3, 6\]"):
        check_model(some(shape=(2, 5)), toy, other_model=True)


# ---- models that we have ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", each(STYLED, slow=("stylegan-t", "stylegan-xl", "projected-gan-style")))
def test_styled_models_have_factors_and_components(name: str, tmp_path: Path) -> None:
    model = CASES[name]()
    for found in (sefa(model, count=2, samples=50), pca(model, count=2, samples=50)):
        assert found.space == "w" and torch.allclose(found.vectors.norm(dim=1), torch.ones(2), atol=1e-5)
        images = images_along(model, found[found.names[0]], [0, 1], [-2.0, 0.0, 2.0])
        assert images.shape[:2] == (2, 3) and (images[:, 0] != images[:, 2]).any()
    before, after = (images_along(model, found[found.names[0]], [5], by) for by in ([0.0], [0.0, 9.0]))
    assert torch.equal(before[0, 0], after[0, 0])
    assert save_sheet(model, found, [0, 1], [-1.0, 1.0], tmp_path / "sheet.png").stat().st_size > 0
    assert table(found).splitlines()[1].startswith("pc0")


@pytest.mark.parametrize("name", ["dcgan", "fastgan", "cgan-conv"])
def test_models_without_styles_have_components_and_planes_in_z(name: str) -> None:
    model = CASES[name]()
    found = pca_of_features(model, count=2, samples=60)
    assert found.space == "z" and found.settings["features"] == next(iter(feature_modules(model)))
    assert found.vectors.shape == (2, model.z_dim) and torch.isfinite(found.vectors).all()
    sizes = []
    hook = feature_modules(model)[found.settings["features"]].register_forward_hook(
        lambda module, inputs, made: sizes.append(made.shape[-1])
    )
    model.sample([0])
    hook.remove()
    assert len(sizes) == 1 and sizes[0] <= model.resolution / 2  # a coarse map of the generator that draws
    plane = planes(model, brightness, ["bright"], samples=200)
    means = images_along(model, plane["bright"], range(20), [-3.0, 0.0, 3.0]).float().mean((0, 2, 3, 4))
    assert means[0] < means[1] < means[2]
    with pytest.raises(ValueError, match="SeFa needs a model that shows its layers"):
        sefa(model)
    with pytest.raises(ValueError, match="name features, whose components are taken"):
        pca(model)


def test_what_cannot_be_found_is_refused(toy: Toy) -> None:
    with pytest.raises(ValueError, match="share 0.1 of 50 samples is 5 on a side: give 10 or more"):
        planes(toy, brightness, ["bright"], samples=50)
    with pytest.raises(ValueError, match="keep names 'dark', and the attributes are bright"):
        planes(toy, brightness, ["bright"], keep=["dark"])
    with pytest.raises(ValueError, match="layer 7 does not exist: there are the layers 0 to 2"):
        sefa(toy, layers=[7])
    with pytest.raises(ValueError, match="layer 'none' does not exist: this model has map"):
        pca_of_features(toy, "none")
    with pytest.warns(UserWarning, match="none of the samples has bright by the classifier"):
        planes(toy, lambda images: brightness(images) - 1000, ["bright"], samples=200)
