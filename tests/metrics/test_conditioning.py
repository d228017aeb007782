import torch

from lit_gans.metrics import ClassAgreement


def test_accuracy_and_shares() -> None:
    metric = ClassAgreement(4)
    predicted = torch.tensor([0, 0, 1, 3, 3])
    metric.update(torch.eye(4)[predicted][:3], torch.tensor([0, 1, 1]))
    metric.update(torch.eye(4)[predicted][3:], torch.tensor([3, 0]))
    accuracy, shares = metric.compute()
    assert accuracy == 3 / 5
    assert torch.equal(shares, torch.tensor([0.4, 0.2, 0.0, 0.4], dtype=torch.float64))


def test_without_intended_classes_there_are_shares_only() -> None:
    metric = ClassAgreement(2)
    metric.update(torch.eye(2))
    accuracy, shares = metric.compute()
    assert accuracy.isnan() and shares.tolist() == [0.5, 0.5]
