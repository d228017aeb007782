"""StyleGAN-XL's networks against recorded values of autonomousvision/stylegan-xl."""

from typing import Any

import pytest
import torch

from lit_gans.official import apply_keys, invert
from lit_gans.papers.stylegan3.networks import SynthesisLayer
from lit_gans.papers.stylegan_xl import OFFICIAL, Generator, from_official_config
from tests.official.layout import stylegan3_state
from tests.parity.golden import Golden, assert_close, cases, count_parameters, published, translated

SOURCE = "autonomousvision/stylegan-xl"
STEM, SUPERRES = OFFICIAL
CALL = STEM.call
GENERATORS = cases("networks_stylegan3_resetting", SOURCE)
on = pytest.mark.parametrize


def loaded(golden: Golden) -> Generator:
    """With the official weights; strict both ways."""
    network = Generator(**from_official_config(golden.config))
    network.load_state_dict(apply_keys(golden.state, STEM.table(golden.state)))
    return network.eval()


@on("golden", GENERATORS)
def test_generator(golden: Golden) -> None:
    """Where averages are recorded after the call, each moves before it is used, as it does there."""
    network, leaves, call = loaded(golden), golden.leaves, dict(golden.call.get("kwargs", {}))
    moves, call = call.pop("update_emas", False), translated(call, CALL)
    z, c, keys = leaves["z"], leaves.get("c"), STEM.table(golden.state)
    if moves:
        network.mapping.track(network.mapping(z, c)[:, 0].detach(), c)
        decay = golden.config.get("stem", golden.config).get("magnitude_ema_beta", 0.999)
        for i, layer in enumerate(network.synthesis.layers.values()):
            own = 0.999 if 0 < network.synthesis.frozen <= i else decay
            layer.register_forward_pre_hook(
                lambda layer, given, decay=own: layer.track(given[0].detach().square().mean(), decay=decay)
            )
    truncation = {name: call[name] for name in ("psi", "cutoff") if name in call}
    found = {"img": network(z, c, **call), "ws": network.mapping(z, c, **truncation)}
    found |= golden.gradients(golden.scalar(found["img"]), leaves, network, keys=keys)
    golden.compare(found | golden.buffers(network, keys, prefix="after/"))


@on("golden", GENERATORS)
def test_names_go_both_ways(golden: Golden) -> None:
    """The filters, which the table drops, are those of the file."""
    network, keys = loaded(golden), STEM.table(golden.state)
    back = stylegan3_state(network)
    if "layer_names" in golden.call:
        assert list(dict.fromkeys(name.split(".")[1] for name in back if ".L" in name)) == golden.call["layer_names"]
    unused = {name: t for name, t in golden.state.items() if name == "mapping.embed.weight" and name not in back}
    assert back.keys() | unused.keys() == golden.state.keys()
    for name, tensor in golden.state.items():
        assert_close((back | unused)[name], tensor, 1e-6, name)
    dropped = {name: t for name, t in back.items() if name.endswith("_filter")} | unused
    again = invert(network.state_dict(), keys, official=golden.state, dropped=dropped)
    assert list(again) == list(golden.state)


# ---- numbers ---------------------------------------------------------------------------------------------------------

HEADS = [[32, 7], [64, 7], [128, 7], [256, 7], [512, 7], [1024, 5]]


def specification(network: Generator) -> list[dict[str, Any]]:
    """Of the layers, as the official code has it."""
    synthesis, found = network.synthesis, []
    ends = zip([synthesis.signals[0], *synthesis.signals[:-1]], synthesis.signals, strict=True)
    for (name, layer), (before, after) in zip(synthesis.layers.items(), ends, strict=True):
        spec: dict[str, Any] = {"name": f"L{name}_{after.size}_{after.channels}"}
        for end, signal in {"in": before, "out": after}.items():
            numbers = ("size", "channels", "sampling_rate", "cutoff", "half_width")
            spec |= {f"{end}_{number}": getattr(signal, number) for number in numbers}
        filtered = isinstance(layer, SynthesisLayer)
        spec |= {"up_factor": layer.up if filtered else 1, "down_factor": layer.down if filtered else 1}
        spec |= {"padding": [*layer.padding] if filtered else [0] * 4, "is_critically_sampled": after.critical}
        found.append(spec)
    return found


@on("case", published("param_counts.json", "stylegan-xl_imagenet"))
def test_parameter_counts_and_layers(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    resolution = int(name.split("_")[1].removeprefix("imagenet"))
    with torch.device("meta"):
        network = Generator(c_dim=1000, heads=[head for head in HEADS if head[0] <= resolution])
    embedding = network.mapping.embed.weight.numel()
    found: dict[str, Any] = {"generator": count_parameters(network), "mapping": count_parameters(network.mapping)}
    found |= {"synthesis": count_parameters(network.synthesis), "num_ws": network.mapping.num_ws}
    found |= {"mapping_without_embedding_table": found["mapping"] - embedding}
    found |= {"trainable_head": sum(p.numel() for p in network.trained())} if resolution > 16 else {}
    layers = expected.pop("layers")
    assert found == expected
    for ours, theirs in zip(specification(network), layers, strict=True):
        assert ours == {key: pytest.approx(v, rel=1e-12) if type(v) is float else v for key, v in theirs.items()}
