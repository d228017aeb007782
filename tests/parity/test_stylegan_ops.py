"""Low-level operations of the StyleGAN family against values of the official code.

Which function, arguments and inputs a case has stands in the files; an argument that is not known here fails.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gans.nn import resample
from lit_gans.nn.bias_act import bias_act
from lit_gans.nn.equalized import EqualizedLinear
from lit_gans.nn.minibatch_std import MinibatchStd
from lit_gans.nn.modulated import modulated_conv2d

from .golden import Golden, assert_close, cases, weighted_sum

STYLEGAN2 = "stylegan2-ada-pytorch"
FUNCTIONS = {name: getattr(resample, name) for name in ("upfirdn2d", "filter2d", "upsample2d", "downsample2d")}
on = pytest.mark.parametrize
Case = Callable[[dict[str, Any], dict[str, Tensor]], Tensor]  # (arguments of the case, inputs) -> output


def make_filter(arguments: dict[str, Any]) -> Tensor:
    names = {"flip_filter": "flip"}
    return resample.fir_filter(**{names.get(name, name): value for name, value in arguments.items()})


def check(
    golden: Golden,
    run: Case,
    *,
    scalar: Callable[[Tensor], Tensor] = weighted_sum,
    recorded: Callable[[Tensor, dict[str, Any]], Tensor] = lambda y, arguments: y,
    also: frozenset[str] = frozenset(),
) -> None:
    """Every output of the file but `also` is the `recorded` part of a case's, every gradient that of its `scalar`.

    Gradients are called grad/<input>/<case>, or grad/<case> for the case's x.
    """
    outputs, checked = golden.outputs, set(also)
    for case, arguments in golden.config["cases"].items():
        inputs = {name: t.requires_grad_() for name, t in golden.inputs.items()}
        y = run(dict(arguments), inputs)
        assert_close(recorded(y, arguments), outputs[case], golden.tolerance["forward"], case)
        checked.add(case)
        for name in (n for n in outputs if n.startswith("grad/") and n.split("/")[-1] == case):
            of = wanted(name.split("/")[1:-1], arguments, inputs)
            (found,) = torch.autograd.grad(scalar(y), of, retain_graph=True)
            assert_close(found, outputs[name], golden.tolerance["gradient"], name)
            checked.add(name)
    assert checked == set(outputs), f"not compared: {sorted(set(outputs) - checked)}"


def wanted(path: list[str], arguments: dict[str, Any], inputs: dict[str, Tensor]) -> Tensor:
    """The input that a gradient's name means: `w` is the weight that the case names, for instance."""
    assert len(path) <= 1, path
    name = path[0] if path else "x"
    return inputs[arguments.get(name, name) if name in ("x", "w") else name]


@on("golden", cases("ops.upfirdn2d"))
def test_upfirdn2d(golden: Golden) -> None:
    def run(arguments: dict[str, Any], inputs: dict[str, Tensor]) -> Tensor:
        f = arguments.pop("filter")
        return FUNCTIONS[arguments.pop("fn")](inputs["x"], None if f is None else make_filter(f), **arguments)

    filters = {f"filter/{name}": make_filter(arguments) for name, arguments in golden.config["filters"].items()}
    for name, f in filters.items():
        assert_close(f, golden.outputs[name], golden.tolerance["forward"], name)
    check(golden, run, also=frozenset(filters))


@on("golden", cases("ops.bias_act"))
def test_bias_act(golden: Golden) -> None:
    def run(arguments: dict[str, Any], inputs: dict[str, Tensor]) -> Tensor:
        b = inputs["b" if arguments.get("dim", 1) == 1 else f"b{arguments['dim']}"]
        return bias_act(inputs["x"], None if arguments.pop("nobias", False) else b, **arguments)

    check(golden, run, scalar=lambda y: (y * golden.inputs["gw"]).sum())


@on("golden", cases("ops.conv2d_resample"))
def test_conv2d_resample(golden: Golden) -> None:
    def run(arguments: dict[str, Any], inputs: dict[str, Tensor]) -> Tensor:
        w, f = inputs[arguments.pop("w")], arguments.pop("f", None)
        return resample.conv2d_resample(inputs["x"], w, None if f is None else resample.fir_filter(f), **arguments)

    check(golden, run)


@on("golden", cases("modulated_conv2d", STYLEGAN2))
def test_modulated_conv2d(golden: Golden) -> None:
    half = "float16" in golden.official_class
    f = resample.fir_filter([1, 3, 3, 1])  # so says the note of the float32 file

    def run(arguments: dict[str, Any], inputs: dict[str, Tensor]) -> Tensor:
        arguments.pop("fused_modconv", None)  # two official forms of one function
        weight = inputs[arguments.pop("w", "w3")]
        styles = inputs["s"] * arguments.pop("sscale", 1)
        noise = inputs[arguments.pop("noise")] if "noise" in arguments else None
        x = inputs["x"].half() if half else inputs["x"]
        y = modulated_conv2d(x, weight, styles, noise=noise, resample_filter=f, **arguments)
        assert y.dtype == x.dtype
        return y.float()

    check(golden, run)


@on("golden", cases("FullyConnectedLayer", STYLEGAN2))
def test_equalized_linear(golden: Golden) -> None:
    layer = EqualizedLinear(**golden.config)
    layer.load_state_dict(golden.state, strict=True)
    x = golden.inputs["x"].requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    found = {"y": y, "grad/x": x.grad} | {f"grad/{name}": p.grad for name, p in layer.named_parameters()}
    assert found.keys() == golden.outputs.keys()
    for name, expected in golden.outputs.items():
        kind = "gradient" if name.startswith("grad/") else "forward"
        assert_close(found[name], expected, golden.tolerance[kind], name)


@on("golden", cases("MinibatchStdLayer", STYLEGAN2))
def test_minibatch_std(golden: Golden) -> None:
    def run(arguments: dict[str, Any], inputs: dict[str, Tensor]) -> Tensor:
        x = inputs[arguments.pop("x")]
        y = MinibatchStd(arguments.pop("g"), arguments.pop("f"))(x)
        assert not arguments and torch.equal(y[:, : x.shape[1]], x)
        return y

    # The files hold the appended channels only, but gradients of all.
    check(golden, run, recorded=lambda y, arguments: y[:, -arguments["f"] :])
