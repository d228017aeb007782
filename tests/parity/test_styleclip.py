"""StyleCLIP's three methods and StyleMC against recorded values of the official code."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_gans.editing.projector import learning_rate_share
from lit_gans.editing.text.channels import boundary, channel_effects, moved_styles, relevance
from lit_gans.editing.text.identity import FaceRecognition
from lit_gans.editing.text.image_text import area_resized
from lit_gans.editing.text.losses import spherical_distance, squared_shift
from lit_gans.editing.text.mapper import OFFICIAL_KEYS, STRENGTH, LatentMapper, mapped, mapper_loss
from lit_gans.editing.text.stylemc import search_direction
from lit_gans.official import apply_keys, invert
from tests.parity.golden import REQUIRED, Golden, cases


def numbered(tensors: dict[str, Tensor], prefix: str) -> list[Tensor]:
    """prefix0, prefix1, ..., in their order."""
    found = [int(name.removeprefix(prefix)) for name in tensors if name.removeprefix(prefix).isdecimal()]
    return [tensors[f"{prefix}{i}"] for i in sorted(found) if f"{prefix}{i}" in tensors]


@pytest.mark.parametrize("golden", cases("optimization.run_optimization", "StyleCLIP"))
def test_optimization(golden: Golden) -> None:
    leaves, config = golden.leaves, golden.config
    s, start = ({str(i): one for i, one in enumerate(numbered(leaves, prefix))} for prefix in ("s", "s_init"))
    l2_w = squared_shift(leaves["w"], leaves["w_init"]).sum()
    loss = leaves["c_loss"] + config["l2_lambda"] * l2_w
    steps = config["step"]
    schedule = [config["lr"] * learning_rate_share(i / steps) for i in range(steps)]
    seen = area_resized(leaves["img"], 7 * 32)
    mean = mapper_loss(leaves["w_init"], leaves["w"], loss.new_zeros(1), clip_weight=0, l2_weight=1)
    golden.compare(
        {
            "clip_input_pool8": torch.nn.functional.avg_pool2d(seen, 8),
            "l2_w": l2_w, "l2_s": squared_shift(s, start).sum(), "loss": loss, "mapper_l2_mse": mean,
            f"lr_schedule_{steps}": torch.tensor(schedule, dtype=torch.float64),
            **golden.gradients(loss, leaves),
        },
        tolerance=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("golden", cases("LevelsMapper", "StyleCLIP"))
def test_mapper(golden: Golden) -> None:
    config, leaves, state = golden.config, golden.leaves, golden.state
    levels = [level for level in ("coarse", "medium", "fine") if not config[f"no_{level}_mapper"]]
    mapper = LatentMapper(config["latent_dim"], levels=levels)
    mapper.load_state_dict(apply_keys(state, OFFICIAL_KEYS, ours=mapper.state_dict()))
    back = invert(mapper.state_dict(), OFFICIAL_KEYS, official=state, dropped={})
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    w = leaves["w"]
    w_hat = mapped(mapper, w, strength=STRENGTH)
    gradients = golden.gradients(golden.scalar(mapper(w)), leaves, mapper, keys=OFFICIAL_KEYS)
    l2 = mapper_loss(w, w_hat, w.new_zeros(1), clip_weight=0, l2_weight=1)
    golden.compare({"delta": mapper(w), "w_hat": w_hat, "latent_l2": l2, **gradients})


@pytest.mark.parametrize("golden", cases("MapTS.GetBoundary", "StyleCLIP"))
def test_global_direction(golden: Golden) -> None:
    config, inputs = golden.config, golden.inputs
    names, moved = config["s_names"], [config["s_names"][i] for i in config["non_torgb_layers"]]
    std, styles = (dict(zip(names, numbered(inputs, prefix), strict=True)) for prefix in ("code_std", "s"))
    assert [len(one) for one in std.values()] == config["dims"]
    effects = channel_effects(inputs["features"])
    share, count = relevance(effects, inputs["dt_raw"], threshold=inputs["threshold"].item())
    direction = boundary(share, std, moved)
    codes = moved_styles(styles, direction, inputs["alpha"])
    found = {"delta_i_c": effects, "num_channels": torch.tensor(count)}
    found["relevance"] = effects @ torch.nn.functional.normalize(inputs["dt_raw"], dim=0)
    found |= {f"boundary{i}": direction[name] for i, name in enumerate(names)}
    golden.compare(found | {f"codes{i}": codes[name] for i, name in enumerate(names)}, tolerance=1e-6)


@pytest.mark.parametrize("golden", cases("run_stylemc.find_direction"))
def test_stylemc(golden: Golden) -> None:
    inputs, layers = golden.inputs, golden.config["layers"]
    styles, weights = inputs["styles"], inputs["W"]

    def distance(numbers: Tensor, direction: dict[str, Tensor]) -> Tensor:
        moved = [one + direction[str(i)] if i in layers else one for i, one in enumerate(styles[numbers].unbind(1))]
        embedded = torch.tanh(torch.einsum("dlc,nlc->nd", weights, torch.stack(moved, 1)))
        return spherical_distance(embedded, inputs["targets"])

    sizes = {str(layer): styles.shape[2] for layer in layers}
    found = search_direction(distance, sizes, num_samples=len(styles), batch_size=golden.config["batch_size"])

    def stacked(parts: dict[str, Tensor]) -> Tensor:
        return torch.stack([parts.get(str(i), torch.zeros(styles.shape[2])) for i in range(styles.shape[1])])[None]

    golden.compare(
        {
            "direction": stacked(found.direction), "direction_raw": stacked(found.raw),
            "fluctuations": stacked(found.turns), "losses": found.losses,
        }
    )  # fmt: skip


def test_face_recognition() -> None:
    """Beside the golden files, in ../weights: the network, and what the package itself made of four faces."""
    from safetensors.torch import load_file

    folder = Path(os.environ.get("LIT_GANS_WEIGHTS") or Path(__file__).parents[3] / "shared" / "weights")
    files = [folder / name for name in ("face_recognition_model_fp16.safetensors", "face_nets_golden.safetensors")]
    if not all(file.is_file() for file in files):
        assert not (REQUIRED and folder.is_dir()), f"{folder} has no face networks"
        pytest.skip(f"no face networks in {folder}: set LIT_GANS_WEIGHTS")
    network, recorded = FaceRecognition(load_file(files[0])), load_file(files[1])
    found = network(recorded["recognition_input"].permute(0, 3, 1, 2).float())
    assert (found - recorded["recognition_output"]).abs().max() < 3e-4
