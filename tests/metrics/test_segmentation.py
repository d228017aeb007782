"""Accuracy and IoU of label maps, beside scikit-learn."""

import warnings

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score
from torch import Tensor, nn
from torchmetrics.segmentation import MeanIoU

from lit_gans.metrics.segmentation import Segmentation, confusion, segment, segmentation_scores


def maps(*classes: int, seed: int = 0, shape: tuple[int, ...] = (5, 7, 9)) -> tuple[Tensor, Tensor]:
    """(found, truth) of these classes; three of four pixels are right."""
    generator = torch.Generator().manual_seed(seed)
    truth, other = (torch.tensor(classes)[torch.randint(len(classes), shape, generator=generator)] for _ in range(2))
    return torch.where(torch.rand(shape, generator=generator) < 0.75, truth, other), truth


@pytest.mark.parametrize("classes", [(0, 1, 2, 3), (0, 3), (1,)])
def test_scores_are_those_of_sklearn_also_where_classes_do_not_occur(classes: tuple[int, ...]) -> None:
    found, truth = maps(*classes)
    scores = segmentation_scores(confusion(found, truth, 4))
    y_true, y_pred = truth.flatten().numpy(), found.flatten().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert scores.class_accuracy.item() == pytest.approx(balanced_accuracy_score(y_true, y_pred), rel=1e-12)
    assert scores.pixel_accuracy.item() == pytest.approx(accuracy_score(y_true, y_pred), rel=1e-12)
    assert scores.mean_iou.item() == pytest.approx(jaccard_score(y_true, y_pred, average="macro"), rel=1e-12)
    per_class = jaccard_score(y_true, y_pred, average=None, labels=list(classes))
    assert scores.ious[list(classes)].tolist() == pytest.approx(per_class.tolist(), rel=1e-12)
    absent = [c for c in range(4) if c not in classes]
    assert scores.ious[absent].isnan().all() and scores.accuracies[absent].isnan().all()
    assert all(value.dtype == torch.float64 for value in scores)


def test_counts_are_those_of_sklearn_and_the_iou_is_torchmetrics_own() -> None:
    found, truth = maps(0, 1, 2, shape=(1, 40, 40))
    counts = confusion(found, truth, 3)
    assert counts.tolist() == confusion_matrix(truth.flatten(), found.flatten()).tolist()
    reference = MeanIoU(num_classes=3, input_format="index")
    reference.update(found, truth)
    assert segmentation_scores(counts).mean_iou.item() == pytest.approx(reference.compute().item(), rel=1e-6)


def test_a_class_found_but_not_there_lowers_the_iou_alone() -> None:
    scores = segmentation_scores(confusion(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]), 3))
    assert [value.item() for value in scores[:3]] == [3 / 4, (1 + 1 / 2) / 2, (1 + 1 / 2 + 0) / 3]
    assert scores.accuracies[2].isnan() and scores.ious[2] == 0


def test_pixels_of_the_ignored_class_are_not_judged() -> None:
    found, truth = maps(0, 1, 2)
    void = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    expected = confusion(found[~void], truth[~void], 3)
    assert torch.equal(confusion(found, truth.masked_fill(void, 255), 3), expected)
    assert torch.equal(confusion(found, truth.masked_fill(void, 9), 3, ignored=9), expected)


def test_batches_and_processes_add_up_to_the_last_pixel() -> None:
    found, truth = maps(0, 1, 2, 3, shape=(7, 6, 5))
    whole, parts = Segmentation(4), [Segmentation(4) for _ in range(3)]
    whole.update(found, truth)
    for metric, rows in zip(parts, ([0, 3, 6], [1, 4], []), strict=True):
        metric.update(found[rows], truth[rows])
    parts[2].update(found[[2, 5]], truth[[2, 5]])
    for metric in parts[1:]:
        parts[0].merge_state(metric)
    assert torch.equal(parts[0].counts, whole.counts)
    assert whole.settings == {"classes": 4, "ignored": 255, "mean": "over classes that occur"}


class Brightest(nn.Module):
    """Scores at half the size: a pixel's own channels."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, ::2, ::2].float()


def test_a_segmenter_gives_scores_of_any_size_or_classes() -> None:
    colours = torch.eye(3).mul(255).byte()
    truth = torch.tensor([[0, 1], [2, 0]]).repeat_interleave(4, 0).repeat_interleave(4, 1)[None]
    images = colours[truth].permute(0, 3, 1, 2)
    assert torch.equal(segment(Brightest(), images), truth)
    assert segment(Brightest(), images, size=(16, 16)).shape == (1, 16, 16)
    assert torch.equal(segment(lambda x: x.argmax(dim=1), images), truth)
    metric = Segmentation(3)
    metric.update(segment(Brightest(), images), truth)
    assert [value.item() for value in metric.compute()[:3]] == [1, 1, 1]


def test_bad_input_is_refused() -> None:
    found, truth = maps(0, 1)
    with pytest.raises(ValueError, match=r"found labels torch.int64 \[1, 7, 9\], true labels .*expected int64 of one"):
        confusion(found[:1], truth, 2)
    with pytest.raises(ValueError, match="found labels torch.uint8"):
        confusion(found.byte(), truth, 2)
    with pytest.raises(ValueError, match="a true label is 7; 2 classes are 0 to 1 or 255, which is not judged"):
        confusion(found, truth.masked_fill(truth == 1, 7), 2)
    with pytest.raises(ValueError, match="a found label is -1; 2 classes are 0 to 1$"):
        confusion(found - 1, truth, 2)
    empty = Segmentation(2)
    empty.update(found[:0], truth[:0])
    with pytest.raises(ValueError, match="no pixel was judged"):
        empty.compute()
    with pytest.raises(ValueError, match="num_classes is 1; a segmentation has 2 to 4096"):
        Segmentation(1)
    with pytest.raises(ValueError, match="ignored is 1, which is one of the 2 classes"):
        Segmentation(2, ignored=1)
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for given in (torch.zeros(2, 4, 4), torch.zeros(2, 3, 3, dtype=torch.int64), torch.zeros(1, 3, 4, 4)):
        with pytest.raises(ValueError, match=r"the segmenter gave .*expected scores float \[2, K, h, w\] or classes"):
            segment(lambda x, given=given: given, images)
