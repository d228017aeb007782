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

from .golden import Golden, cases, translated, weighted_sum

STYLEGAN2 = "stylegan2-ada-pytorch"
FUNCTIONS = {name: getattr(resample, name) for name in ("upfirdn2d", "filter2d", "upsample2d", "downsample2d")}
FILTER = {name: name for name in ("taps", "normalize", "gain", "separable")} | {"flip_filter": "flip"}
on = pytest.mark.parametrize
Arguments, Tensors = dict[str, Any], dict[str, Tensor]
Case = Callable[[Arguments, Tensors], tuple[Tensor, Tensors]]  # -> output, and inputs by the names that gradients have


def make_filter(spec: Any) -> Tensor | None:
    """Of the arguments of the official setup_filter, or of its taps alone; None for no filter."""
    if not isinstance(spec, dict):
        return None if spec is None else resample.fir_filter(spec)
    return resample.fir_filter(**translated(spec, FILTER))


def check(
    golden: Golden,
    run: Case,
    *,
    scalar: Callable[[Tensor], Tensor] = weighted_sum,
    recorded: Callable[[Tensor, Arguments], Tensor] = lambda y, arguments: y,
    also: Tensors | None = None,
) -> None:
    """The `recorded` part of each case's output, and the gradients of its `scalar`.

    These are called grad/<input>/<case>, or grad/<case> for the case's x.
    """
    outputs, found = golden.outputs, dict(also or {})
    for case, arguments in golden.config["cases"].items():
        y, inputs = run(dict(arguments), golden.leaves)
        found[case] = recorded(y, arguments)
        of = {f"grad/{name}/{case}": x for name, x in inputs.items()} | {f"grad/{case}": inputs["x"]}
        of = {name: x for name, x in of.items() if name in outputs}
        if of:
            found |= zip(of, torch.autograd.grad(scalar(y), list(of.values())), strict=True)
    golden.compare(found)


@on("golden", cases("ops.upfirdn2d"))
def test_upfirdn2d(golden: Golden) -> None:
    def run(arguments: Arguments, inputs: Tensors) -> tuple[Tensor, Tensors]:
        function, x = FUNCTIONS[arguments.pop("fn")], inputs[arguments.pop("x", "x")]
        return function(x, make_filter(arguments.pop("filter")), **arguments), {"x": x}

    filters = golden.config.get("filters", {})
    check(golden, run, also={f"filter/{name}": make_filter(spec) for name, spec in filters.items()})


@on("golden", cases("ops.bias_act"))
def test_bias_act(golden: Golden) -> None:
    def run(arguments: Arguments, inputs: Tensors) -> tuple[Tensor, Tensors]:
        x, dim = inputs[arguments.pop("x", "x")], arguments.get("dim", 1)
        b = inputs[arguments.pop("b", f"b{dim}" if f"b{dim}" in inputs else "b")]
        return bias_act(x, None if arguments.pop("nobias", False) else b, **arguments), {"x": x, "b": b}

    check(golden, run, scalar=lambda y: (y * golden.inputs["gw"]).sum())


@on("golden", cases("ops.conv2d_resample"))
def test_conv2d_resample(golden: Golden) -> None:
    def run(arguments: Arguments, inputs: Tensors) -> tuple[Tensor, Tensors]:
        x, w = inputs[arguments.pop("x", "x")], inputs[arguments.pop("w")]
        f = make_filter(arguments.pop("f", None))
        return resample.conv2d_resample(x, w, f, **arguments), {"x": x, "w": w}

    check(golden, run)


@on("golden", cases("modulated_conv2d", STYLEGAN2))
def test_modulated_conv2d(golden: Golden) -> None:
    half = "float16" in golden.official_class
    taps = golden.config.get("resample_filter", [1, 3, 3, 1])  # so says the note of the file without

    def run(arguments: Arguments, inputs: Tensors) -> tuple[Tensor, Tensors]:
        arguments.pop("fused_modconv", None)  # two official forms of one function
        x, w, s = inputs[arguments.pop("x", "x")], inputs[arguments.pop("w", "w3")], inputs[arguments.pop("s", "s")]
        noise, scale = arguments.pop("noise", None), arguments.pop("sscale", 1)
        f = make_filter(arguments.pop("resample_filter", taps))
        noise = None if noise is None else inputs[noise]
        y = modulated_conv2d(x.half() if half else x, w, s * scale, noise=noise, resample_filter=f, **arguments)
        assert y.dtype == (torch.half if half else x.dtype)
        return y.float(), {"x": x, "w": w, "s": s} | ({} if noise is None else {"noise": noise})

    check(golden, run)


@on("golden", cases("FullyConnectedLayer", STYLEGAN2))
def test_equalized_linear(golden: Golden) -> None:
    layer = EqualizedLinear(**golden.config)
    layer.load_state_dict(golden.state, strict=True)
    leaves = golden.leaves
    y = layer(leaves["x"])
    golden.compare({"y": y} | golden.gradients(y.square().sum(), leaves, layer, keys={"(.+)": r"\1"}))


@on("golden", cases("MinibatchStdLayer", STYLEGAN2))
def test_minibatch_std(golden: Golden) -> None:
    def run(arguments: Arguments, inputs: Tensors) -> tuple[Tensor, Tensors]:
        x = inputs[arguments.pop("x")]
        y = MinibatchStd(arguments.pop("g"), arguments.pop("f"))(x)
        assert not arguments, f"no argument {', '.join(arguments)} is known here"
        assert torch.equal(y[:, : x.shape[1]], x)
        return y, {"x": x}

    # The files hold the appended channels only, but gradients of all.
    check(golden, run, recorded=lambda y, arguments: y[:, -arguments["f"] :])
