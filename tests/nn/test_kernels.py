"""Triton kernels against the plain forms in double precision, on a GPU, or without one in Triton's interpreter.

The interpreter shows indices, masks, arithmetic and derivatives. It does not show the rounding to bfloat16, which it
cuts off, nor races, speed or what the compiler does; that the kernels compile is tested apart from it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx

from lit_gans.nn import kernels
from lit_gans.nn.bias_act import bias_act
from lit_gans.nn.resample import upfirdn2d

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
runs = pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="needs a CUDA device")
plain = pytest.mark.skipif(INTERPRETED, reason="the interpreter is for the kernels alone")

TAPS = [[1.0, 2.0, 0.5], [3.0, 4.0, 1.0]]  # neither symmetric nor square nor of rank one
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@contextmanager
def standing_in() -> Iterator[None]:
    """The kernels run wherever `resample` asks for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "available", lambda x, f=None: f is not None)
        yield


def filtered(x: Tensor, f: Tensor, **geometry: Any) -> Tensor:
    return upfirdn2d(x, f, flip_filter=True, **geometry)


def interpreted(*options: str) -> str:
    """The report of this file's tests, run in Triton's interpreter."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, __file__]
    variables = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@plain
@pytest.mark.slow
def test_derivatives_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    report = interpreted(
        "-k", "test_bias_act_and_its_derivatives and lrelu or test_filter_and_its_derivatives and geometry3"
    )
    assert " passed" in report and " failed" not in report


@plain
@pytest.mark.slow
def test_this_file_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    report = interpreted()
    assert " passed" in report and " failed" not in report


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def double(*tensors: Tensor) -> list[Tensor]:
    """Copies on the CPU, where the plain forms run."""
    return [t.detach().cpu().double().requires_grad_() for t in tensors]


def derivatives(y: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """y, the gradients of sum(sin(y)), and the gradients of the sum of the squares of those."""
    first = torch.autograd.grad(y.sin().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
    return [y, *first, *second]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a.cpu().double() - b).abs().max() <= tolerance * b.abs().max()


@runs
@pytest.mark.parametrize("act", kernels.ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_bias_act_and_its_derivatives(act: str, clamp: float | None) -> None:
    settings = {"act": act, "gain": -1.3, "clamp": clamp, "alpha": 0.3}
    for shape, dim in [((2, 3, 5, 7), 1), ((2, 5, 1, 1), 1), ((3, 5), -1), ((4, 3, 2), 0), ((6,), 0), ((2, 1, 3), 1)]:
        x, b = normal(*shape).requires_grad_(), normal(shape[dim], seed=1).requires_grad_()
        found = derivatives(kernels.bias_act(x, b, dim=dim, **settings), [x, b])
        assert_close(found, derivatives(bias_act(*(same := double(x, b)), dim=dim, **settings), same), 1e-6)
        found = derivatives(kernels.bias_act(x, **settings), [x])
        assert_close(found, derivatives(bias_act(*(same := double(x)), **settings), same), 1e-6)


@runs
@pytest.mark.parametrize("shape", [(2, 3, 20, 30), (3, 1100), (1, 2, 33, 32)])
def test_bias_act_in_many_programs_and_layouts(shape: tuple[int, ...]) -> None:
    x, b = normal(*shape), normal(shape[1], seed=1)
    expected = bias_act(x.cpu(), b.cpu(), act="lrelu", gain=1.0)
    layouts = [x, x.transpose(0, -1).contiguous().transpose(0, -1)]
    layouts += [x.to(memory_format=torch.channels_last)] if x.dim() == 4 else []
    for same in layouts:
        assert_close([kernels.bias_act(same, b, act="lrelu")], [expected], 1e-6)
    assert layouts[-1].stride() == kernels.bias_act(layouts[-1], b).stride() or x.dim() == 2


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_bias_act_in_each_dtype(dtype: torch.dtype) -> None:
    x, b = normal(2, 4, 3, 5, dtype=dtype), normal(4, seed=1, dtype=torch.float32)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    y = kernels.bias_act(x, b.requires_grad_(), act="lrelu", gain=1.5, clamp=1.0)
    grad = normal(*y.shape, seed=2, dtype=dtype)  # contiguous, while x is not
    found = [y, *torch.autograd.grad(y, (x, b), grad)]
    same = double(x, b)
    expected = bias_act(*same, act="lrelu", gain=1.5, clamp=1.0)
    assert_close(
        found, [expected, *torch.autograd.grad(expected, same, grad.cpu().double())], 3 * torch.finfo(dtype).eps
    )
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32]
    assert found[0].stride() == found[1].stride() == x.stride()


@runs
@pytest.mark.parametrize("act", kernels.ACTIVATIONS)
def test_bias_act_at_the_corners(act: str) -> None:
    """Zero, the limit itself, infinities and NaN: values, and gradients but that at NaN, are those of torch."""
    corners = [-torch.inf, -2.0, -0.5, -0.0, 0.0, 0.5, 0.6, torch.inf]
    x = torch.tensor(corners, device=DEVICE, requires_grad=True)
    for clamp in (None, 1.0, 0.0):
        settings = {"act": act, "alpha": 0.25, "gain": 2.0, "clamp": clamp}
        y, expected = kernels.bias_act(x, **settings), bias_act(*(same := double(x)), **settings)
        assert torch.equal(y.cpu().double(), expected)
        (found,), (expected,) = torch.autograd.grad(y.sum(), x), torch.autograd.grad(expected.sum(), same)
        at_the_limit = y.detach().cpu().abs() == (torch.inf if clamp is None else clamp)
        assert torch.equal(found.cpu().double(), expected.where(~at_the_limit | (clamp is None), 0))
        assert kernels.bias_act(torch.full_like(x, torch.nan), act=act, clamp=clamp).isnan().all()


@runs
def test_memory_for_the_backward_pass() -> None:
    x = normal(2, 3, 4, 4, dtype=torch.float32).requires_grad_()

    def saved(**settings: Any) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel() * t.itemsize), lambda t: t):
            kernels.bias_act(x, **settings)
        return sum(sizes)

    assert saved(act="lrelu", clamp=1.0) == x.numel()
    assert saved(act="linear", gain=2.0) == 0


GEOMETRIES = [
    {"padding": (1, 1, 1, 1)},
    {"up": (2, 2), "padding": (2, 1, 2, 1)},
    {"down": (2, 2), "padding": (1, 1, 2, 0)},
    {"up": (3, 1), "down": (2, 2), "padding": (3, -1, 0, 6)},
    {"up": (2, 2), "padding": (-4, 3, -1, -2)},
    {"up": (1, 2), "down": (2, 1), "padding": (-1, 0, 5, 0)},
]


@runs
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_filter_and_its_derivatives(geometry: dict[str, Any], layout: torch.memory_format) -> None:
    x, f = normal(2, 2, 5, 4).to(memory_format=layout).requires_grad_(), torch.tensor(TAPS, device=DEVICE)
    with standing_in():
        y = filtered(x, f, **geometry)
        found = derivatives(y, [x])
    assert y.is_contiguous(memory_format=layout)
    for taps, flip_filter in ((f, True), (f.flip((0, 1)), False)):
        (same,) = double(x)
        plain = upfirdn2d(same, taps.cpu().double(), flip_filter=flip_filter, **geometry)
        assert_close(found, derivatives(plain, [same]), 1e-12)


@runs
@pytest.mark.parametrize(
    ("shape", "size", "up"),
    [((1, 2, 3, 70), (2, 3), 1), ((1, 35, 3, 5), (3, 4), 2), ((1, 1, 9, 9), (8, 8), 1), ((1, 2, 2, 9), (1, 12), 2)],
)
def test_filter_in_many_programs(shape: tuple[int, ...], size: tuple[int, int], up: int) -> None:
    x, f = normal(*shape).to(memory_format=torch.channels_last), normal(*size, seed=1)
    found = kernels.fir(x if shape[1] > 2 else x.contiguous(), f, up=(up, up), padding=(3, 5, 4, 2))
    expected = upfirdn2d(x.cpu(), f.cpu(), up=up, padding=(3, 5, 4, 2), flip_filter=True)
    assert_close([found], [expected], 1e-12)


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_filter_in_each_dtype(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x, f = normal(1, 2, 4, 3, dtype=dtype).to(memory_format=layout), torch.tensor([1.0, 3, 3, 1], device=DEVICE) / 4
    x, f = x.requires_grad_(), f.outer(f)
    (same,) = double(x)
    expected = upfirdn2d(same, f.cpu().double(), up=2, padding=(2, 1, 2, 1))
    with standing_in():
        found = filtered(x, f, up=2, padding=(2, 1, 2, 1))
        grad = normal(*found.shape, seed=1, dtype=dtype)
        (dx,) = torch.autograd.grad(found, x, grad)
    assert found.dtype == dtype and found.shape == (1, 2, 8, 6)
    (expected_dx,) = torch.autograd.grad(expected, same, grad.cpu().double())
    assert_close([found, dx], [expected, expected_dx], torch.finfo(dtype).eps)


@runs
def test_filter_forward_mode_and_one_dimension() -> None:
    x, t = normal(2, 2, 5, 4), normal(2, 2, 5, 4, seed=1)
    f, row = torch.tensor(TAPS, device=DEVICE), normal(8, seed=2)
    with standing_in(), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(filtered(forward_ad.make_dual(x, t), f, up=2, padding=3)).tangent
        found = [tangent, filtered(x, row, padding=4), *derivatives(filtered(x.requires_grad_(), row, padding=4), [x])]
    (same,) = double(x)
    expected = [filtered(t.cpu(), f.cpu().double(), up=2, padding=3), filtered(x.detach().cpu(), row.cpu(), padding=4)]
    assert_close(found, [*expected, *derivatives(filtered(same, row.cpu(), padding=4), [same])], 1e-12)


@pytest.mark.gpu
@plain
@runs
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_finite_differences(geometry: dict[str, Any]) -> None:
    x, f = normal(1, 2, 4, 4).requires_grad_(), torch.tensor(TAPS, device=DEVICE)
    run = lambda x: filtered(x, f, **geometry).sin()  # noqa: E731
    with standing_in():
        assert gradcheck(run, x) and gradgradcheck(run, x)
    b = normal(2, seed=1).requires_grad_()
    for act in kernels.ACTIVATIONS:
        run = lambda x, b, act=act: kernels.bias_act(x, b, act=act, gain=0.7, clamp=1.1).square()  # noqa: E731
        assert gradcheck(run, (x, b)) and gradgradcheck(run, (x, b))


@runs
def test_operators_keep_torch_s_rules() -> None:
    """Schemas, and shapes and layouts without data."""
    x, b = normal(2, 3, 4, 5, dtype=torch.float32), normal(3, seed=1, dtype=torch.float32)
    x, mask = x.to(memory_format=torch.channels_last), torch.ones(2, 3, 4, 5, dtype=torch.int8, device=DEVICE)
    rules = ("test_schema", "test_faketensor")
    for t in (x, x.transpose(1, 3)):
        torch.library.opcheck(kernels._bias_act, (t, None, 0, False, 1.0, 1.5, None, False), test_utils=rules)
        torch.library.opcheck(
            kernels._fir, (t, torch.tensor(TAPS, device=DEVICE), (2, 1), (1, 2), (2, 1, 0, 3)), test_utils=rules
        )
    torch.library.opcheck(kernels._bias_act, (x, b, 1, False, 0.2, 1.5, 1.0, True), test_utils=rules)
    torch.library.opcheck(kernels._scale, (x, mask, 1.5, 0.3), test_utils=rules)


@runs
def test_a_traced_penalty_is_exact() -> None:
    x, b, f = normal(1, 2, 4, 4).requires_grad_(), normal(2, seed=1).requires_grad_(), torch.tensor(TAPS, device=DEVICE)

    def step(x: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        y = kernels.bias_act(filtered(x, f, up=2), b, act="lrelu", clamp=2.0)
        (grad,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), (x, b))

    with standing_in():
        traced = make_fx(step)(x, b)
    assert sum("lit_gans" in str(node.target) for node in traced.graph.nodes) >= 6
    other = normal(1, 2, 4, 4, seed=2).requires_grad_()
    assert_close(list(traced(other, b)), double(*step(other, b)), 1e-12)


@runs
def test_function_transforms() -> None:
    x, f, b = normal(3, 2, 1, 4, 4), torch.tensor(TAPS, device=DEVICE), normal(1, seed=1)

    def energy(x: Tensor) -> Tensor:
        return kernels.bias_act(filtered(x, f, up=2), b, act="lrelu", clamp=2.0).square().sum()

    with standing_in():
        each = torch.vmap(torch.func.grad(energy), in_dims=1, out_dims=1)(x)
    assert torch.allclose(each, torch.func.grad(energy)(x.flatten(0, 1)).reshape(x.shape))
    rows = torch.eye(2, device=DEVICE)
    y = kernels.bias_act(leaf := normal(2).requires_grad_(), act="relu")
    (jacobian,) = torch.autograd.grad(y, leaf, rows, is_grads_batched=True)
    assert torch.allclose(jacobian, torch.diag((leaf > 0).double()))
    with pytest.raises(ValueError, match="one bias for all"):
        torch.vmap(lambda b: kernels.bias_act(x[0], b))(torch.stack([b, b]))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward"):
        kernels.bias_act(forward_ad.make_dual(x[0], x[0]), b)


@pytest.mark.parametrize("layout", LAYOUTS)
@plain
def test_kernels_compile(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To machine code of a GPU that need not be there, without memory outside the registers."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches: list[tuple] = []
    monkeypatch.setattr(kernels, "_launch", lambda kernel, x, n, *args, **rest: launches.append((kernel, args, rest)))
    x = torch.zeros(2, 64, 16, 16, dtype=torch.bfloat16).to(memory_format=layout).requires_grad_()
    kernels.bias_act(x, torch.zeros(64), act="lrelu", clamp=256.0).sum().backward()
    kernels.fir(x, torch.zeros(4, 4), up=(2, 2), padding=(2, 1, 2, 1))
    types = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int8: "*i8", int: "i32", float: "fp32"}
    assert [kernel.__name__ for kernel, *_ in launches] == ["_bias_act_kernel", "_scale_kernel", "_fir_kernel"]
    for kernel, args, constants in launches:
        options = {"num_warps": constants.pop("num_warps", 4)}
        function = kernels._jitted(kernel)
        signature = {n: types[getattr(a, "dtype", type(a))] for n, a in zip(function.arg_names, args, strict=False)}
        source = ASTSource(function, signature | dict.fromkeys(constants, "constexpr"), constants)
        code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert len(code.asm["cubin"]) > 0 and ".local" not in code.asm["ptx"]


def on_gpu(**changes: Any) -> Any:
    x = {"is_cuda": True, "dtype": torch.float16, "numel": lambda: 8, "device": torch.device("cuda", 0)}
    return SimpleNamespace(**(x | changes))


@plain
def test_when_the_kernels_are_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_usable", lambda device: device == 0)
    monkeypatch.setenv("LIT_GANS_KERNELS", "1")
    f = torch.ones(8, 8)
    assert kernels.available(on_gpu()) and kernels.available(on_gpu(), f)
    assert not kernels.available(torch.zeros(3))
    for changes in ({"dtype": torch.float64}, {"numel": lambda: 0}, {"device": torch.device("cuda", 1)}):
        assert not kernels.available(on_gpu(**changes))
    assert not kernels.available(on_gpu(), torch.ones(9, 8))
    assert not kernels.available(on_gpu(), f.requires_grad_())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not kernels.available(on_gpu())
    with pytest.raises(RuntimeError, match="not for torch.compile"):
        kernels.bias_act(torch.zeros(1, 1))
    monkeypatch.undo()
    monkeypatch.delenv("LIT_GANS_KERNELS", raising=False)
    monkeypatch.setattr(kernels, "_usable", lambda device: True)
    assert not kernels.available(on_gpu()), "they are asked for"


@plain
def test_what_the_kernels_need(monkeypatch: pytest.MonkeyPatch) -> None:
    usable = kernels._usable.__wrapped__
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(kernels.sysconfig, "get_config_var", lambda name: str(headers))
    headers = Path(__file__).parent
    monkeypatch.setenv("CC", "cc")
    assert not usable(0)  # no headers of Python here
    monkeypatch.setattr(kernels.Path, "exists", lambda path: path.name == "Python.h")
    assert usable(0)
    monkeypatch.delenv("CC")
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    assert not usable(0)
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not usable(0)


@plain
def test_what_is_refused() -> None:
    x, f = torch.zeros(1, 1, 4, 4), torch.ones(2, 2)
    with pytest.raises(ValueError, match="activation 'swish' has no kernel: use one of linear, relu, lrelu"):
        kernels.bias_act(x, act="swish")
    with pytest.raises(ValueError, match=r"bias of shape \(4,\) does not fit dimension 1"):
        kernels.bias_act(x, torch.zeros(4))
    with pytest.raises(ValueError, match="x is on cpu: kernels need a CUDA device"):
        kernels.bias_act(x)
    with pytest.raises(ValueError, match="the kernel takes 64 taps at most"):
        kernels.fir(x, torch.ones(9, 8))
    with standing_in(), pytest.raises(ValueError, match="smaller than the filter"):
        filtered(x, f, padding=(-3, 0, 0, 0))
