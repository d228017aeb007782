from collections.abc import Iterator

import pytest
import torch

from lit_gans.base.precision import exact_float32, set_float32_precision

CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul


def switches() -> list[object]:
    """All that there are; reading the older ones raises where they are out of step with the newer."""
    older = [torch.get_float32_matmul_precision(), MATMUL.allow_tf32, CUDNN.allow_tf32]
    return [*older, MATMUL.fp32_precision, CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), CUDNN.allow_tf32, CUDNN.benchmark
    yield
    torch.set_float32_matmul_precision(before[0])
    CUDNN.allow_tf32, CUDNN.benchmark = before[1:]


@pytest.mark.parametrize(("precision", "tf32"), [("highest", False), ("high", True), ("medium", True)])
def test_convolutions_follow_the_products_of_matrices(precision: str, tf32: bool) -> None:
    for before in ("high", "highest"):
        set_float32_precision(before)
        set_float32_precision(precision)
        assert switches()[:3] == [precision, tf32, tf32]
        assert ["tf32" in str(newer) for newer in switches()[3:]] == [tf32] * 3


@pytest.mark.parametrize("convolutions", [True, False])
@pytest.mark.parametrize("matmul", ["highest", "high"])
def test_exactness_is_for_a_while(matmul: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    CUDNN.allow_tf32 = convolutions
    CUDNN.benchmark, before = convolutions, [*switches(), convolutions]
    with pytest.raises(KeyError), exact_float32(torch.device("cpu")):
        assert [*switches()[:3], CUDNN.benchmark] == ["highest", False, False, False]
        raise KeyError
    assert [*switches(), CUDNN.benchmark] == before
