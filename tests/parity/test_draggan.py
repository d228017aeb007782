"""Dragging against recorded values of XingangPan/DragGAN: its renderer on a generator that is linear in w."""

import pytest
import torch
from torch import Tensor

from lit_gans.editing import Drag
from tests.parity.golden import Golden, cases, translated

KNOWN = {"r1": "r1", "r2": "r2", "lambda_mask": "mask_weight", "reg": "reg", "lr": "lr"}
KNOWN |= dict.fromkeys(("res", "feat_res", "channels", "points", "targets", "steps"))  # of the case, and its tensors


@pytest.mark.parametrize("golden", cases("_render_drag_impl", "XingangPan/DragGAN"))
def test_steps(golden: Golden) -> None:
    """Points (row, column) after tracking, loss, gradient, and w after the update, at every step."""
    config, given, state = golden.config, golden.inputs, golden.state

    def features(ws: Tensor) -> tuple[Tensor, Tensor]:
        k = state["toy.A"].shape[-1]
        maps = (state["toy.A"] * ws.flatten(1)[0, :k]).sum(-1) + state["toy.b"]
        return torch.zeros(1, 3, config["res"], config["res"]), maps[None]

    going = Drag(
        features, given["w0"], handles=given["points"].flip(1), targets=given["targets"].flip(1),
        mask=given.get("mask"), rows=state["toy.A"].shape[-1] // given["w0"].shape[-1], **translated(config, KNOWN),
    )  # fmt: skip
    found = {}
    for i in range(config["steps"]):
        step = going.step()
        gradient = torch.zeros_like(going.ws)
        gradient[:, : going.w.shape[1]] = 0 if step.arrived else going.w.grad
        found[f"step{i}/points"] = step.handles.flip(1)
        found[f"step{i}/stop"] = torch.tensor(int(step.arrived))
        found[f"step{i}/loss"] = torch.tensor(step.loss)
        found[f"step{i}/grad_w"] = gradient
        found[f"step{i}/w_after"] = going.ws
    golden.compare(found, tolerance=1e-5)
