"""Dragging: on a generator whose image is known in closed form, and on every styled one of the package."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import HasMargins, can
from lit_gans.editing import Drag, DragStep, begin_drag, channel_styles, drag, styles_of
from lit_gans.editing.drag import drawn, features_of, layer_of, radius_px
from lit_gans.editing.state import Edited
from lit_gans.papers import StyleGAN2
from tests.cases import CASES
from tests.editing.test_layers import STYLED, styled

SIDE = 64
SETTINGS = {"lr": 0.2, "r1": 24, "r2": 48}  # a step moves a spot by about 0.2 pixels
NEAR = 2.8  # 2 pixels, and half a pixel each way: points are whole pixels


def spots(ws: Tensor) -> tuple[Tensor, Tensor]:
    """Two bright spots on grey, at (20, 24) and (44, 40) but for rows 0 and 1 of ws [1, L, 2], in pixels.

    The map shows either spot in channels of its own, a narrow and a wide one.
    """
    y, x = torch.meshgrid(torch.arange(float(SIDE)), torch.arange(float(SIDE)), indexing="ij")
    maps = []
    for row, (at_x, at_y) in enumerate([(20, 24), (44, 40)]):
        far = (x - at_x - ws[0, row, 0]).square() + (y - at_y - ws[0, row, 1]).square()
        maps += [(1 - far / radius**2).clamp(min=0) for radius in (5, 10)]
    features = torch.stack(maps)[None]
    return features[:, ::2].sum(1, keepdim=True), features


def place(ws: Tensor, spot: int) -> Tensor:
    """(x, y) of a spot."""
    return torch.tensor([(20.0, 24.0), (44.0, 40.0)][spot]) + ws[0, spot]


def dragged(**settings: Any) -> tuple[Drag, list[DragStep]]:
    going, steps = Drag(spots, torch.zeros(1, 8, 2), **{**SETTINGS, **settings}), list[DragStep]()
    while not steps or not (steps[-1].arrived or len(steps) == 40):
        steps.append(going.step())
    return going, steps


# ---- in closed form --------------------------------------------------------------------------------------------------


def test_the_point_and_what_is_there_come_to_the_target() -> None:
    going, steps = dragged(handles=[(20, 24)], targets=[(25, 21)])
    assert steps[-1].arrived and 5 < len(steps) < 40
    assert (place(going.ws, 0) - torch.tensor([25, 21])).norm() < NEAR
    assert (place(going.ws, 0) - going.handles[0]).abs().max() < 1  # the tracked point is on the spot
    assert going.ws[0, 1:].abs().max() == 0  # the other spot, which was not asked for, stays


def test_x_is_to_the_right_and_y_down() -> None:
    going, _ = dragged(handles=[(20, 24)], targets=[(27, 24)])
    assert going.ws[0, 0, 0] > 3 and going.ws[0, 0, 1].abs() < 1


def test_several_points_go_their_own_ways() -> None:
    going, steps = dragged(handles=[(20, 24), (44, 40)], targets=[(26, 24), (44, 33)])
    assert steps[-1].arrived and bool((steps[-1].distances <= 2).all())
    for spot, target in enumerate([(26, 24), (44, 33)]):
        assert (place(going.ws, spot) - torch.tensor(target)).norm() < NEAR


def test_one_that_has_not_arrived_keeps_all_going() -> None:
    """The stop rule is of all points; one within a pixel of its target is not pulled."""
    going = Drag(spots, torch.zeros(1, 8, 2), handles=[(20, 24), (44, 40)], targets=[(30, 24), (44, 41)], **SETTINGS)
    first = going.step()
    assert not first.arrived and first.distances.tolist() == [10, 1]
    assert going.ws[0, 0].abs().max() > 0 and going.ws[0, 1].abs().max() == 0


def test_how_near_is_near_enough() -> None:
    """2 pixels, of larger images as many as 2 of 512; another distance is an argument."""
    points = {"handles": [(20, 24)], "targets": [(21, 25)]}
    assert Drag(spots, torch.zeros(1, 8, 2), **points).stop_px == 2
    large = Drag(lambda ws: (torch.zeros(1, 3, 1024, 1024), torch.zeros(1, 2, 8, 8)), torch.zeros(1, 8, 2), **points)
    assert large.stop_px == 4
    going, steps = dragged(handles=[(20, 24)], targets=[(25, 24)], stop_px=1)
    assert steps[-1].arrived and steps[-1].distances.tolist() == [1] and going.ws[0, 0, 0] > 3.4


def test_where_the_target_is_at_hand_nothing_moves() -> None:
    going = Drag(spots, torch.zeros(1, 8, 2), handles=[(20, 24)], targets=[(21, 25)], **SETTINGS)
    assert going.step().arrived and torch.equal(going.ws, torch.zeros(1, 8, 2))


def test_what_the_mask_keeps_stays() -> None:
    """Both spots are pulled to the right; the second stands where the mask is 1."""
    mask = torch.zeros(SIDE, SIDE)
    mask[:, 32:] = 1
    settings = {"handles": [(20, 24), (44, 40)], "targets": [(26, 24), (50, 40)]}
    free, _ = dragged(**settings)
    kept, _ = dragged(**settings, mask=mask, mask_weight=100)
    assert free.ws[0, 1, 0] > 3 and kept.ws[0, 1, 0].abs() < 1 and kept.ws[0, 0, 0] > 3


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_of_one_kind_has_no_effect(value: float) -> None:
    """As in the official code; `begin_drag` refuses one that keeps all."""
    settings = {"handles": [(20, 24)], "targets": [(26, 24)]}
    with_mask, plain = dragged(**settings, mask=torch.full((SIDE, SIDE), value))[0], dragged(**settings)[0]
    assert torch.equal(with_mask.ws, plain.ws)


def test_only_the_first_rows_move_and_reg_holds_them() -> None:
    going, _ = dragged(handles=[(20, 24)], targets=[(26, 24)], rows=1)
    assert going.ws[0, 1:].abs().max() == 0 and going.ws[0, 0, 0] > 3
    held, _ = dragged(handles=[(20, 24)], targets=[(26, 24)], reg=1000)
    assert held.ws.abs().max() < 0.5


def test_looking_moves_nothing() -> None:
    going = Drag(spots, torch.zeros(1, 8, 2), handles=[(20, 24)], targets=[(30, 24)], **SETTINGS)
    looks = [going.step(move=False) for _ in range(2)]
    assert [look.step for look in looks] == [0, 1] and looks[0].loss == looks[1].loss
    assert torch.equal(going.ws, torch.zeros(1, 8, 2))


def test_a_point_is_told_by_the_first_image_and_not_the_last() -> None:
    """The features are those of step 0: without, what is followed drifts with the picture."""
    going = Drag(spots, torch.zeros(1, 8, 2), handles=[(20, 24)], targets=[(30, 24)], **SETTINGS)
    with torch.no_grad():
        going.w[0, 0] = torch.tensor([4.0, -2.0])
    assert going.step(move=False).handles.tolist() == [[24, 22]]


def test_radii_are_the_papers_where_the_map_is() -> None:
    """Smaller maps have as many of their own pixels: 3 / 4 and 3."""
    assert [radius_px("r", None, r, side=128, resolution=512) for r in (3, 12)] == [3, 12]
    assert [radius_px("r", None, r, side=128, resolution=1024) for r in (3, 12)] == [6, 24]
    assert [radius_px("r", None, r, side=32, resolution=64) for r in (3, 12)] == [2, 6]
    assert [radius_px("r", r, 3, side=32, resolution=64) for r in (8, 24)] == [1, 3]


# ---- on every styled generator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STYLED)
def test_every_styled_generator(name: str) -> None:
    """Its first rows of ws move, and nothing else of it does; the map has no margin that the image has not."""
    model, ws = styled(name)
    before = {key: t.clone() for key, t in model.state_dict().items()}
    model.train()
    found = drag(model, ws[:1], handles=[(3, 4)], targets=[(9, 10)], max_steps=1)
    assert found.reason == "steps" and [step.step for step in found.steps] == [0, 1]
    assert found.frames.shape == (2, 3, 256, 256) and found.frames.dtype == torch.uint8
    assert 0 < (found.ws - ws[:1]).abs().amax() <= 0.0011 and torch.equal(found.ws[:, 6:], ws[:1, 6:])
    assert model.training and all(torch.equal(t, before[key]) for key, t in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    image, features = features_of(model, layer_of(model, ws))(ws[:1])
    assert image.shape[-1] in (features.shape[-1], 2 * features.shape[-1])


def test_margins_are_stylegan3s() -> None:
    """4 pixels a side at this size, 10 in the paper; the last layers have cut them off."""
    model, _ = styled("stylegan3-t")
    assert can(model, HasMargins) and not can(CASES["stylegan2"](), HasMargins)
    assert model.feature_margins() == {"0": 4, "1": 4, "2": 4, "3": 0, "4": 0}


def test_layer_of_is_the_papers_at_256_pixels() -> None:
    model = StyleGAN2(resolution=256, z_dim=4, w_dim=4, num_layers=1, channel_base=256, channel_max=2).eval()
    ws = styles_of(model, [0])
    assert layer_of(model, ws) == "128" == list(model.feature_layers())[5]


def test_steps_one_by_one_are_those_of_a_whole_drag() -> None:
    model, ws = styled("stylegan2")
    settings = {"handles": [(3, 4)], "targets": [(9, 10)]}
    going = begin_drag(model, ws[:1], **settings)
    for _ in range(2):
        going.step()
    told = list[int]()
    whole = drag(model, ws[:1], **settings, max_steps=2, on_step=lambda step: told.append(step.step))
    assert torch.equal(going.ws, whole.ws) and told == [0, 1, 2]
    again = drag(model, ws[:1], **settings, max_steps=2, frames=False)
    assert torch.equal(again.ws, whole.ws) and not len(again.frames)


def test_what_was_edited_before_stays_edited() -> None:
    """Shifted channels: the drag sees the image that they make, and its layers."""
    model, ws = styled("stylegan2")
    shifted = Edited(model, ws[:1], shifts={"8.conv0": torch.ones_like(channel_styles(model, ws)["8.conv0"][0])})
    settings = {"handles": [(3, 4)], "targets": [(9, 10)], "max_steps": 1}
    found = drag(model, ws[:1], **settings, draw=lambda ws: replace(shifted, ws=ws).image())
    torch.testing.assert_close(found.steps[0].image, shifted.image())
    assert found.steps[0].loss != drag(model, ws[:1], **settings).steps[0].loss


def test_frames_show_points_where_they_are() -> None:
    frame = drawn(torch.zeros(1, 1, 64, 64), torch.tensor([[8, 40]]), torch.tensor([[30.0, 40.0]]))
    red, blue = frame[0].int() - frame[2], frame[2].int() - frame[0]
    assert frame.shape == (3, 256, 256)
    for colour, x in ((red, 8), (blue, 30)):
        row, column = torch.where(colour > 100)
        assert (row.float().mean() - 40.5 * 4).abs() < 1 and (column.float().mean() - (x + 0.5) * 4).abs() < 1
    assert drawn(torch.zeros(1, 3, 512, 512), torch.tensor([[8, 40]]), torch.tensor([[30.0, 40.0]])).shape[-1] == 256


# ---- what cannot be --------------------------------------------------------------------------------------------------


def wrong(**settings: Any) -> None:
    model: GAN = CASES["stylegan2"]()
    ws = styles_of(model, [0])
    begin_drag(model, settings.pop("ws", ws), **{"handles": [(3, 4)], "targets": [(9, 10)], **settings})


MISTAKES = [
    ({"handles": [(16, 4)]}, r"handle \(16, 4\) is outside the image: x \(to the right\) and y \(down\) are .* 15"),
    ({"targets": [(3, -1)]}, r"target \(3, -1\) is outside the image"),
    ({"targets": [(3, float("nan"))]}, r"target \(3, nan\) is outside the image"),
    ({"targets": [(3, 4), (5, 6)]}, "1 handles and 2 targets: give a target to each"),
    ({"handles": [], "targets": []}, r"handles of shape \[0\]: give a list of points \(x, y\)"),
    ({"handles": [3, 4]}, r"handles of shape \[2\]: give a list of points \(x, y\)"),
    ({"mask": torch.zeros(8, 8)}, r"mask of shape \[8, 8\]: the image's is \[16, 16\]"),
    ({"mask": torch.full((16, 16), 255.0).tril()}, "mask from 0 to 255: 1 is where the image shall stay"),
    ({"mask": torch.ones(16, 16)}, "the mask keeps every pixel, so that nothing could move"),
    ({"mask": torch.ones(16, 16).bool()}, "the mask keeps every pixel, so that nothing could move"),
    ({"layer": "7"}, "layer '7' does not exist: this model has 4, 8, 16"),
    ({"r1": 3}, "r1 3 is 0.094 pixels at 16: .* give at least 32, or leave it out"),
    ({"stop_px": 0.5}, "stop_px is 0.5: a point within 1 pixel is not pulled any more, so give 1 or more"),
    ({"rows": 0}, "rows is 0: give 1 or more of the 6 rows of ws"),
    ({"ws": torch.zeros(2, 6, 8)}, r"ws of shape \[2, 6, 8\]: one image is dragged, whose styles are \[1, L, W\]"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_mistakes_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong(**settings)


def test_models_without_styles_and_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="dragging points needs a model that shows its layers, and a ProjectedGAN"):
        begin_drag(CASES["projected-gan"](), torch.zeros(1, 1, 1), handles=[(1, 1)], targets=[(2, 2)])
    model, ws = styled("stylegan2")
    with pytest.raises(ValueError, match="max_steps is 0: give 1 or more"):
        drag(model, ws[:1], handles=[(3, 4)], targets=[(9, 10)], max_steps=0)


def test_a_loss_that_is_not_finite_ends_it() -> None:
    def unknown(ws: Tensor) -> tuple[Tensor, Tensor]:
        image, features = spots(ws)
        return image, features * float("nan")

    going = Drag(unknown, torch.zeros(1, 8, 2), handles=[(20, 24)], targets=[(30, 24)], lr=0.5)
    with pytest.raises(ValueError, match="step 0 has the loss nan: lower lr, which is 0.5"):
        going.step()
