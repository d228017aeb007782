"""torch.compile of the players beside eager penalties."""

from pathlib import Path

import pytest
import torch

from tests.cases import CASES, largest_difference, state, train


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcgan-r1", "wgan-gp-mlp", "stylegan2", "pggan", "stylegan1"])
def test_compiled_training_equals_eager(name: str, tmp_path: Path) -> None:
    eager, compiled = CASES[name](), CASES[name](compile=True)
    one = state(eager, train(eager, tmp_path / "a", batches=4))
    two = state(compiled, train(compiled, tmp_path / "b", batches=4))
    assert compiled.generator._compiled_call_impl is not None
    assert one["state"].keys() == two["state"].keys()
    assert largest_difference(one["state"], two["state"]) < 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("name", CASES)
def test_precisions_on_a_gpu(name: str, precision: str, tmp_path: Path) -> None:
    gan = CASES[name]()
    train(gan, tmp_path, batches=4, precision=precision, accelerator="gpu", devices=1)
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in gan.parameters())
