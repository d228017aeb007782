import math

import pytest
import torch

from lit_gans.metrics import ClassScore, class_score


def test_is_one_for_equal_and_the_number_of_classes_for_certain_and_even_predictions() -> None:
    assert class_score(torch.randn(1, 7).repeat(50, 1)).item() == pytest.approx(1)
    certain = 1000 * torch.eye(5).repeat(20, 1)
    assert class_score(certain).item() == pytest.approx(5)  # exp(0 * -inf) would be NaN


def test_splits_are_consecutive_and_uneven_where_they_must_be() -> None:
    logits = torch.randn(23, 4, generator=torch.Generator().manual_seed(0))
    p = logits.double().softmax(1)
    parts = [p[i * 23 // 10 : (i + 1) * 23 // 10] for i in range(10)]
    scores = [math.exp((part * (part / part.mean(0)).log()).sum(1).mean()) for part in parts]
    metric = ClassScore(4)
    rows = torch.randperm(23)
    metric.update(logits[rows], rows)
    assert metric.compute().tolist() == pytest.approx(scores, rel=1e-12)
    assert class_score(logits).item() == pytest.approx(sum(scores) / 10, rel=1e-12)


def test_needs_an_image() -> None:
    with pytest.raises(ValueError, match="one image or more"):
        class_score(torch.empty(0, 3))
