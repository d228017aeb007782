"""StyleCLIP's three methods and StyleMC on a tiny generator, with a model of colours."""

from pathlib import Path

import pytest
import torch

from lit_gans.editing.layers import channel_styles, synthesize_shifted
from lit_gans.editing.text import (
    StyleShift,
    find_channel_effects,
    find_direction,
    mapped,
    optimize_latents,
    read_effects,
    read_mapper,
    read_shift,
    text_direction,
    train_mapper,
)
from lit_gans.editing.text.channels import seeded_styles, style_statistics
from lit_gans.editing.text.mapper import LatentMapper
from lit_gans.editing.text.optimization import without_colours
from tests.callbacks.common import tiny_gan
from tests.cases import CASES
from tests.editing.text_models import Colours, redness, tiny


def latents(model, count: int = 3):
    return model.styles(model.seeded_latents(range(count)))


# ---- latent optimisation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["w+", "s"])
def test_optimisation_leads_to_the_text_and_l2_holds_it_back(space: str) -> None:
    model, colours = tiny(), Colours()
    ws = latents(model)
    how = {"image_text": colours, "space": space, "steps": 15}
    told = []
    free = optimize_latents(model, ws, "red", **how, l2_weight=0.0, on_step=lambda *step: told.append(step))
    held = optimize_latents(model, ws, "red", **how, l2_weight=1e4)
    before = redness(model.synthesize(ws))
    assert (redness(synthesize_shifted(model, free.ws, free.shifts)) > before + 0.01).all()
    assert torch.allclose(redness(synthesize_shifted(model, held.ws, held.shifts)), before, atol=0.02)
    assert [step[:2] for step in told] == [(i + 1, 15) for i in range(15)] and free.losses.shape == (15,)
    assert told[-1][2] == pytest.approx(free.losses[-1].item()) and free.losses[-1] < free.losses[0]
    assert all(name.endswith("to_rgb") is False for name in free.shifts)
    assert torch.equal(free.ws, ws) is (space == "s")


def test_rows_are_optimised_as_if_alone() -> None:
    model = tiny()
    ws = latents(model)
    how = {"image_text": Colours(), "steps": 4}
    together = optimize_latents(model, ws, "blue", **how).ws
    alone = torch.cat([optimize_latents(model, ws[i : i + 1], "blue", **how).ws for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_identity_holds_back_what_it_sees() -> None:
    """Someone who is known by their redness stays red; the learning rate is 0 in the first step."""
    model, ws = tiny(), latents(tiny())
    how = {"image_text": Colours(), "steps": 6, "l2_weight": 0.0}
    free = optimize_latents(model, ws, "green", **how)
    held = optimize_latents(model, ws, "green", **how, identity=Colours().embed_images, id_weight=100.0)
    before, *after = (Colours().embed_images(model.synthesize(one)) for one in (ws, free.ws, held.ws))
    assert ((after[1] - before).norm(dim=1) < (after[0] - before).norm(dim=1) / 2).all()
    assert torch.equal(optimize_latents(model, ws, "green", image_text=Colours(), steps=1).ws, ws)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"space": "z"}, r"space 'z' is neither 'w\+' nor 's'"),
        ({"steps": 0}, "steps is 0: give 1 or more"),
        ({"id_weight": 0.1}, "id_weight is 0.1 and there is no identity network"),
        ({"text": "yellow"}, "'yellow' names no colour"),
    ],
)
def test_optimisation_says_what_is_wrong(options: dict, message: str) -> None:
    model = tiny()
    with pytest.raises(ValueError, match=message):
        optimize_latents(model, latents(model), **{"text": "red", "image_text": Colours(), **options})


def test_a_model_without_styles_says_so() -> None:
    for call in (
        lambda model: optimize_latents(model, torch.zeros(1, 1, 1), "red", image_text=Colours()),
        lambda model: find_channel_effects(model, image_text=Colours()),
        lambda model: find_direction(model, "red", image_text=Colours()),
        lambda model: train_mapper(model, "red", "unused.safetensors", image_text=Colours()),
    ):
        with pytest.raises(ValueError, match="needs a model that .* and a VanillaGAN does not"):
            call(tiny_gan())


# ---- latent mapper ---------------------------------------------------------------------------------------------------


def trained(path: Path, *, steps: int = 9, **options):
    how = {"image_text": Colours(), "steps": steps, "l2_weight": 0.0, "id_weight": 0.0, "save_every": 4, **options}
    return train_mapper(tiny(), "red", path, **how)


class Stopped(Exception):
    pass


def stop_at(step: int):
    def on_step(done: int, steps: int, loss: float) -> None:
        if done == step:
            raise Stopped

    return on_step


def test_a_mapper_is_trained_stopped_gone_on_with_and_read_back(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole.safetensors")
    with pytest.raises(Stopped):
        trained(tmp_path / "parts.safetensors", on_step=stop_at(6))
    half, said = read_mapper(tmp_path / "parts.safetensors")
    assert said["steps"] == 4 and said["text"] == "red"
    seen = []
    trained(tmp_path / "parts.safetensors", on_step=lambda done, *_: seen.append(done))
    assert seen[0] == 5
    parts, said = read_mapper(tmp_path / "parts.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), half.parameters(), strict=True))
    assert said["steps"] == 9 and (tmp_path / "parts.safetensors").stat().st_size < 9_000  # without the optimiser
    model = tiny()
    ws = latents(model, 8)
    assert (redness(model.synthesize(mapped(parts, ws))) - redness(model.synthesize(ws))).mean() > 0.003
    again = trained(tmp_path / "whole.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))


def test_a_mapper_of_some_levels_leaves_the_other_rows(tmp_path: Path) -> None:
    mapper = trained(tmp_path / "coarse.safetensors", steps=2, levels=["coarse"])
    delta = mapper(latents(tiny()))
    assert delta[:, :4].abs().min() > 0 and not delta[:, 4:].any() and delta.shape == latents(tiny()).shape
    assert read_mapper(tmp_path / "coarse.safetensors")[0].levels.keys() == {"coarse"}


def test_mappers_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    trained(path, steps=2)
    with pytest.raises(ValueError, match=r"is a mapper of other settings \(lr 0.5, not 0.1\): give another path"):
        trained(path, steps=2, lr=0.1)
    with pytest.raises(ValueError, match="has 2 steps behind it, and 3 are asked for"):
        trained(path, steps=3)
    with pytest.raises(ValueError, match="a mapper of 8 channels: it is of another model"):
        mapped(read_mapper(path)[0], torch.zeros(1, 6, 9))
    with pytest.raises(ValueError, match=r"levels \['high'\]: give one or more of coarse, medium, fine"):
        LatentMapper(8, levels=["high"])
    with pytest.raises(ValueError, match="steps 0, batch_size 2 and save_every 4: give 1 or more"):
        trained(path, steps=0)
    StyleShift({"a": torch.zeros(2)}).save(path)
    with pytest.raises(ValueError, match="holds a direction in style space, expected a latent mapper: train one"):
        read_mapper(path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="is damaged, or no file of this package"):
        read_mapper(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_mapper(tmp_path / "b.safetensors")


# ---- global directions -----------------------------------------------------------------------------------------------


def effects_of(model, **options):
    return find_channel_effects(model, image_text=Colours(), **{"num_images": 4, "num_samples": 500, **options})


def test_global_directions_lead_to_the_text_and_back(tmp_path: Path) -> None:
    model, colours, told = tiny(), Colours(), []
    effects = effects_of(model, on_step=lambda *step: told.append(step))
    shift = effects.shift("red", "green", image_text=colours, threshold=0.3)
    ws = latents(model, 8)
    low, high = (redness(synthesize_shifted(model, ws, shift.times(alpha))) for alpha in (-5, 5))
    assert (high - low).mean() > 0.02
    sizes = {name: one.shape[1] for name, one in channel_styles(model, ws).items()}
    channels = sum(sizes[name] for name in without_colours(model))
    assert told[-1] == (channels, channels) and len(effects.effects) == channels
    moving = torch.cat(list(shift.offsets.values())).count_nonzero()
    assert 0 < moving == shift.settings["channels"] < channels
    assert shift.offsets.keys() == sizes.keys() and not shift.offsets["16.to_rgb"].any()
    effects.save(tmp_path / "effects.safetensors")
    again = read_effects(tmp_path / "effects.safetensors").shift("red", "green", image_text=colours, threshold=0.3)
    again.save(tmp_path / "red.safetensors")
    kept = read_shift(tmp_path / "red.safetensors")
    assert kept.settings == shift.settings | {"target": "red"}
    assert all(torch.equal(kept.offsets[name], one) for name, one in shift.offsets.items())


def test_an_effect_is_what_the_channel_does_between_its_extremes() -> None:
    """The first channel of a layer, by hand; batches cut images and channels anywhere without changing anything."""
    model, colours = tiny(), Colours()
    effects, again = effects_of(model, layers=["8.conv1"]), effects_of(model, layers=["8.conv1"], batch_size=3)
    assert torch.allclose(effects.effects, again.effects, atol=1e-5)
    mean, std = style_statistics(model, num_samples=500)
    ws = seeded_styles(model, torch.arange(4), purpose="effects", psi=0.7, label=None, seed=0, ema=True)
    styles = channel_styles(model, ws)["8.conv1"]
    seen = []
    for sign in (-1, 1):
        shift = torch.zeros_like(styles)
        shift[:, 0] = mean["8.conv1"][0] + sign * 5 * std["8.conv1"][0] - styles[:, 0]
        seen.append(colours.embed_images(synthesize_shifted(model, ws, {"8.conv1": shift}).clamp(-1, 1)))
    by_hand = torch.nn.functional.normalize(torch.nn.functional.normalize(seen[1] - seen[0]).mean(0), dim=0)
    assert torch.allclose(effects.effects[0], by_hand, atol=1e-5)


def test_text_directions_average_templates_and_say_what_is_wrong() -> None:
    colours = Colours()
    found = text_direction(colours, "red", "green")
    assert torch.allclose(found, torch.tensor([0.5**0.5, -(0.5**0.5), 0.0]))
    mixed = text_direction(colours, "red", "green", ["{}", "{} and blue"])
    assert mixed[0] == -mixed[1] > 0 and abs(mixed[2]) < 1e-6
    with pytest.raises(ValueError, match="'red' and 'a red' are the same to colours"):
        text_direction(colours, "red", "a red")
    with pytest.raises(ValueError, match=r"templates \['a photo'\]: give one or more sentences with a \{\}"):
        text_direction(colours, "red", "green", ["a photo"])


def test_global_directions_say_what_is_wrong() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="StyleGAN2 has no layer '32.conv0'; it has 4.conv1, 4.to_rgb"):
        effects_of(model, layers=["32.conv0"])
    effects = effects_of(model, layers=["4.conv1"], num_images=1)
    with pytest.raises(ValueError, match="threshold 1.5 leaves no channel: the largest relevance is 0"):
        effects.shift("red", "green", image_text=Colours(), threshold=1.5)
    other = Colours()
    other.fingerprint = "1" * 16
    with pytest.raises(ValueError, match=r"these effects are of colours \(0000000000000000\), and colours \(1111"):
        effects.shift("red", "green", image_text=other, threshold=0.1)


# ---- StyleMC ---------------------------------------------------------------------------------------------------------


def test_stylemc_finds_a_direction_for_one_text_and_for_several() -> None:
    model, how = tiny(), {"image_text": Colours(), "num_samples": 16, "batch_size": 4}
    shift = find_direction(model, "red", **how)
    ws = latents(model, 8)
    away = redness(synthesize_shifted(model, ws, shift.times(3))) - redness(model.synthesize(ws))
    assert away.mean() > 0.02 and shift.settings["method"] == "StyleMC"
    assert shift.offsets.keys() == set(without_colours(model))
    some = find_direction(model, ["red", "blue"], **how, layers=["8.conv0"])
    assert some.offsets.keys() == {"8.conv0"} and some.settings["texts"] == ["red", "blue"]
    assert torch.equal(find_direction(model, "red", **how).offsets["4.conv1"], shift.offsets["4.conv1"])


def test_stylemc_says_what_is_wrong() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="StyleGAN2 has no layer 'x'"):
        find_direction(model, "red", image_text=Colours(), layers=["x"], num_samples=1)
    with pytest.raises(ValueError, match="0 texts, 128 samples, batch_size 8: give 1 or more of each"):
        find_direction(model, [], image_text=Colours())


def test_conditional_models_are_edited_by_class() -> None:
    model = tiny(num_classes=2)
    ws = model.styles(model.seeded_latents([1]), labels=torch.tensor([1]))
    assert optimize_latents(model, ws, "red", image_text=Colours(), steps=2).ws.shape == ws.shape
    a, b = (find_direction(model, "red", image_text=Colours(), num_samples=3, label=label) for label in (0, 1))
    assert not torch.equal(a.offsets["4.conv1"], b.offsets["4.conv1"])


@pytest.mark.parametrize("name", ["stylegan3-t", "stylegan-t", "stylegan-xl"])
def test_stylemc_works_on_later_generators(name: str) -> None:
    """By class where there are some; the directions of two texts differ, and the images move."""
    model = CASES[name](channels=3).eval().requires_grad_(False)
    label = 1 if model.num_classes else None
    how = {"image_text": Colours(), "num_samples": 5, "batch_size": 2, "label": label}
    red, blue = (find_direction(model, text, **how) for text in ("red", "blue"))
    assert any(not torch.equal(red.offsets[layer], blue.offsets[layer]) for layer in red.offsets)
    ws = model.styles(model.seeded_latents([3]), labels=None if label is None else torch.tensor([label]))
    assert not torch.equal(synthesize_shifted(model, ws, red.times(2)), model.synthesize(ws))
