"""StyleGAN3's operations, networks and blur against recorded values of NVlabs/stylegan3."""

from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lit_gans.official import apply_keys, invert
from lit_gans.papers.stylegan2 import Discriminator
from lit_gans.papers.stylegan3 import (
    OFFICIAL,
    OFFICIAL_KEYS,
    Generator,
    StyleGAN3,
    SynthesisInput,
    SynthesisNetwork,
    from_official_config,
)
from lit_gans.papers.stylegan3.filtered_lrelu import filtered_lrelu, plain
from lit_gans.papers.stylegan3.networks import Signal, SynthesisLayer, modulated
from lit_gans.papers.stylegan3.training import MAGNITUDE_HALF_LIFE_KIMG, blurred
from lit_gans.runs.configs import shipped_configs
from tests.official.layout import stylegan3_state
from tests.parity.golden import Golden, assert_close, cases, count_parameters, facts, published, translated
from tests.parity.test_stylegan_ops import Arguments, Tensors, check

SOURCE = "NVlabs/stylegan3"
CALL = OFFICIAL[0].call
GENERATORS = cases("training.networks_stylegan3.Generator", SOURCE, without="equivariance")
on = pytest.mark.parametrize


# ---- operations ------------------------------------------------------------------------------------------------------


@on("form", [filtered_lrelu, plain])
@on("golden", cases("ops.filtered_lrelu", SOURCE))
def test_filtered_lrelu(golden: Golden, form: Any) -> None:
    def run(arguments: Arguments, inputs: Tensors) -> tuple[Tensor, Tensors]:
        x, b = inputs[arguments.pop("x", "x")], inputs[arguments.pop("b", "b")]
        fu, fd = (None if (name := arguments.pop(f)) == "none" else inputs[name].detach() for f in ("fu", "fd"))
        defaults = {"up": 1, "down": 1, "padding": 0, "gain": 2**0.5, "slope": 0.2, "clamp": None, "flip_filter": False}
        return form(x, fu, fd, b, **defaults | arguments), {"x": x, "b": b}

    check(golden, run)


@on("golden", cases("modulated_conv2d", SOURCE))
def test_modulated_conv2d(golden: Golden) -> None:
    def run(arguments: Arguments, inputs: Tensors) -> tuple[Tensor, Tensors]:
        x, w, s = inputs[arguments.pop("x", "x")], inputs[arguments.pop("w")], inputs[arguments.pop("s", "s")]
        gain = inputs[name] if (name := arguments.pop("ig", None)) else torch.ones(())
        return modulated(x, w, s, gain=gain, **arguments), {"x": x, "w": w, "s": s}

    check(golden, run)


@on("golden", cases("StyleGAN2Loss.run_D", SOURCE))
def test_blur(golden: Golden) -> None:
    image = golden.inputs["img"]
    golden.compare({f"sigma_{sigma}": blurred(image, sigma) for sigma in golden.config["sigmas"]})


# ---- networks --------------------------------------------------------------------------------------------------------


def loaded(golden: Golden) -> Generator:
    """With the official weights; strict both ways."""
    network = Generator(**from_official_config(golden.config))
    network.load_state_dict(apply_keys(golden.state, OFFICIAL_KEYS))
    return network.eval()


@on("golden", GENERATORS)
def test_generator(golden: Golden) -> None:
    """Where averages are recorded after the call, each moves before it is used, as it does there."""
    network, leaves, call = loaded(golden), golden.leaves, dict(golden.call.get("kwargs", {}))
    moves, call = call.pop("update_emas", False), translated(call, CALL)
    z, c = leaves["z"], leaves.get("c")
    if moves:
        network.mapping.track(network.mapping(z, c)[:, 0].detach().mean(0))
        decay = golden.config.get("magnitude_ema_beta", 0.999)
        for layer in network.synthesis.layers:
            layer.register_forward_pre_hook(
                lambda layer, given, decay=decay: layer.track(given[0].detach().square().mean(), decay=decay)
            )
    truncation = {name: call[name] for name in ("psi", "cutoff") if name in call}
    found = {"img": network(z, c, **call), "ws": network.mapping(z, c, **truncation)}
    found |= golden.gradients(golden.scalar(found["img"]), leaves, network, keys=OFFICIAL_KEYS)
    golden.compare(found | golden.buffers(network, OFFICIAL_KEYS, prefix="after/"))


@on("golden", GENERATORS)
def test_names_go_both_ways(golden: Golden) -> None:
    """The filters, which the table drops, are those of the file."""
    network = loaded(golden)
    back = stylegan3_state(network)
    assert back.keys() == golden.state.keys()
    for name, tensor in golden.state.items():
        assert_close(back[name], tensor, 1e-6, name)
    dropped = {name: t for name, t in back.items() if name.endswith("_filter")}
    again = invert(network.state_dict(), OFFICIAL_KEYS, official=golden.state, dropped=dropped)
    assert list(again) == list(golden.state)


@on("golden", cases("training.networks_stylegan3.SynthesisInput", SOURCE))
def test_input(golden: Golden) -> None:
    given, leaves = golden.config, golden.leaves
    bands = {"cutoff": given["bandwidth"], "half_width": 1.0, "critical": False}
    signal = Signal(given["channels"], given["size"], given["sampling_rate"], **bands)
    network = SynthesisInput(given["w_dim"], signal)
    network.load_state_dict(golden.state)
    x = network(leaves["w"])
    golden.compare({"x": x} | golden.gradients(golden.scalar(x), leaves, network, keys={"(.+)": r"\1"}))


def specification(network: SynthesisNetwork) -> list[dict[str, Any]]:
    """Of the layers, as the official code has it."""
    signals, bands = network.signals, network.input
    first = signals[0]
    found: list[dict[str, Any]] = [{"layer": "input", "channels": first.channels, "size": [first.size] * 2}]
    found[0] |= {"sampling_rate": bands.sampling_rate, "bandwidth": bands.bandwidth}
    for i, (layer, after) in enumerate(zip(network.layers, signals, strict=True)):
        ends = {"in": signals[max(i - 1, 0)], "out": after}
        spec = {"layer": f"L{i}_{after.size}_{after.channels}", "is_torgb": not isinstance(layer, SynthesisLayer)}
        spec |= {"is_critically_sampled": after.critical, "use_fp16": layer.half is not None}
        for end, signal in ends.items():
            spec |= {f"{end}_size": [signal.size] * 2, f"{end}_channels": signal.channels}
            spec |= {f"{end}_{name}": getattr(signal, name) for name in ("sampling_rate", "cutoff", "half_width")}
        filters = {"up": getattr(layer, "up_filter", None), "down": getattr(layer, "down_filter", None)}
        for name, f in filters.items():
            spec |= {f"{name}_factor": getattr(layer, name, 1), f"{name}_taps": 1 if f is None else len(f)}
        spec |= {"tmp_sampling_rate": spec["in_sampling_rate"] * spec["up_factor"]}
        spec |= {"down_radial": getattr(layer, "radial", False), "padding": [*getattr(layer, "padding", [0] * 4)]}
        found.append(spec | {"conv_kernel": layer.weight.shape[-1]})
    return found


@on("golden", cases("SynthesisNetwork (filter design only)", SOURCE))
def test_filters_and_layers(golden: Golden) -> None:
    configs, found = golden.config, {}
    specs = configs.pop("spec")
    for name, config in configs.items():
        network = SynthesisNetwork(**from_official_config(config))
        found |= {f"{name}/{key}": f for key, f in official_filters(network).items()}
        for ours, theirs in zip(specification(network), specs[name], strict=True):
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                same = pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
                assert ours[key] == same, f"{key} of {theirs['layer']}"
    golden.compare(found)


def official_filters(network: SynthesisNetwork) -> Tensors:
    spec = specification(network)[1:]
    return {
        f"{layer['layer']}/{name}": f
        for layer, module in zip(spec, network.layers, strict=True)
        for name, f in module.named_buffers()
        if name.endswith("_filter")
    }


# ---- numbers ---------------------------------------------------------------------------------------------------------


@on("case", published("param_counts.json", "stylegan3"))
def test_parameter_counts(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    resolution = int(name.split("_")[1])
    sizes = {"resolution": resolution, "configuration": name[len("stylegan3-")].upper()}
    if "cbase" in name:
        sizes["channel_base"] = int(name.rpartition("cbase")[2])
    with torch.device("meta"):
        gan = StyleGAN3(**sizes)
    g = gan.generator
    assert type(gan.discriminator) is Discriminator
    parts = {"generator": g, "mapping": g.mapping, "synthesis": g.synthesis, "discriminator": gan.discriminator}
    found: dict[str, Any] = {part: count_parameters(network) for part, network in parts.items()}
    names = [layer["layer"] for layer in specification(g.synthesis)[1:]]
    assert found | {"num_ws": g.mapping.num_ws, "layer_names": names} == expected


FORMULAS = "stylegan-training-formulas.json"


def test_schedules_are_as_published() -> None:
    expected = facts(FORMULAS)["stylegan3"]
    for batch, beta in expected["magnitude_ema_beta"].items():
        assert 0.5 ** (int(batch) / 1000 / MAGNITUDE_HALF_LIFE_KIMG) == pytest.approx(beta, rel=1e-12)
    gan = StyleGAN3(resolution=16, channel_base=16, channel_max=1, blur_sigma=10)
    assert gan.blur_kimg == expected["R_blur_fade_kimg"]["32"]
    for case in expected["blur_examples_R_batch32"]:
        gan.images_seen = case["cur_nimg"]
        assert gan.sigma == pytest.approx(case["sigma"], abs=1e-9)
        assert int(3 * gan.sigma) == case["half_width"]
    assert (gan.lr_g, gan.lr_d) == (expected["G_lr"], expected["D_lr"])
    assert len(gan.generator.mapping.layers) == expected["map_layers"]
    assert gan.generator.mapping.w_avg_decay == expected["w_avg_beta"]


PUBLISHED = [name for name in shipped_configs() if name.startswith("stylegan3/") and not name.endswith("32")]


@on("name", PUBLISHED)
def test_experiments_have_the_published_numbers(name: str) -> None:
    plan, expected = yaml.safe_load(shipped_configs()[name].read_text()), facts(FORMULAS)["stylegan3"]
    model, data = plan["model"]["init_args"], plan["data"]["init_args"]
    batch = str(data["batch_size"])
    assert model["resolution"] == data["resolution"] and data["mirror"]
    assert plan["ema"]["half_life_kimg"] == expected["ema_kimg"][batch]
    assert model["total_kimg"] == 25000 and model["mapping_layers"] == expected["map_layers"]
    assert (model["lr_g"], model["lr_d"]) == (expected["G_lr"], 0.0025 if "256" in name else expected["D_lr"])
    assert model.get("blur_sigma", 0) == (10 if model["configuration"] == "R" else 0)
    assert model.get("blur_kimg", int(batch) * 200 / 32) == int(batch) * 200 / 32
