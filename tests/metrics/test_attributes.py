"""Classifiers of attributes from a table, on the features of a small network."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_gans.base.images import save_png
from lit_gans.data import Digits, Images
from lit_gans.data.attributes import AttributeTable, read_attributes
from lit_gans.metrics.attributes import fit_logistic, together, train_attributes
from lit_gans.metrics.extractors import Extractor, Features
from lit_gans.metrics.separability import labelled_latents

from .common import unconditional

CELEBA = "3\nSmiling Male\n000001.jpg -1  1\n000002.jpg  1 -1\n000003.jpg  1  1\n"
CSV = "image_id,Smiling,Male\n000001.jpg,0,1\n000002.jpg,1,0\n000003.jpg,1,1\n"


class Corners(Extractor):
    """The brightness of the four quarters of an image, and its inverse."""

    name, resize, num_features, num_classes = "corners", "none", 5, 0

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.freeze()

    def forward(self, images: Tensor) -> Features:
        self.calls += 1
        quarters = torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 2).flatten(1) / 255
        return Features(torch.cat([quarters, 1 - quarters[:, :1]], 1), None)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Images, AttributeTable]:
    """60 pictures, whose left and right halves are bright or dark as their rows say; the table has one more."""
    values = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) > 0.5
    for number, (left, right) in enumerate(values.tolist()):
        halves = torch.tensor([200 if left else 40, 210 if right else 30], dtype=torch.uint8)
        save_png(halves.repeat_interleave(4).expand(1, 8, 8) + torch.tensor(number % 7, dtype=torch.uint8),
                 tmp_path / "own" / f"{number:03d}.png")  # fmt: skip
    files = (*(f"{number:03d}.png" for number in reversed(range(60))), "elsewhere.png")
    table = AttributeTable(files, ("left", "right"), torch.cat([values.flip(0), torch.ones(1, 2, dtype=torch.bool)]))
    data = Images(str(tmp_path / "own"), batch_size=4, resolution=8, channels=1, labels="none")
    return data, table


@pytest.mark.parametrize(("name", "text"), [("list_attr.txt", CELEBA), ("attr.csv", CSV)])
def test_tables_are_read_in_both_forms(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    table = read_attributes(tmp_path / name)
    assert table.files == ("000001.jpg", "000002.jpg", "000003.jpg") and table.attributes == ("Smiling", "Male")
    assert table.values.tolist() == [[False, True], [True, False], [True, True]]
    places, rows = table.rows_of(["x.jpg", "000003.jpg", "000001.jpg"])
    assert (places.tolist(), rows.tolist()) == ([1, 2], [2, 0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no table of attributes: a line of names, then a picture"),
        (b"\xff\xfe\x00", "is no text, and so no table of attributes"),
        (b"2\nSmiling Male\na.jpg -1 1\nb.jpg -1\n", r"line 4: a picture and 2 values of -1, 0 or 1; found \['b.jpg'"),
        (b"Smiling Male\na.jpg -1 2\n", r"line 2: a picture and 2 values of -1, 0 or 1; found \['a.jpg', '-1', '2'\]"),
    ],
)
def test_what_is_no_table_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    with pytest.raises(FileNotFoundError, match="give a file such as list_attr_celeba.txt"):
        read_attributes(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_attributes(path)


def test_attributes_are_learned_from_the_pictures_that_have_a_row(
    pictures: tuple[Images, AttributeTable], tmp_path: Path
) -> None:
    (data, table), extractor = pictures, Corners()
    judge = train_attributes(table, data, extractor, folder=tmp_path / "cache")
    assert judge.accuracy == {"left": 1.0, "right": 1.0}
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    images[0, :, :, :4], images[1, :, :, 4:] = 220, 220
    assert (judge(images) > 0).tolist() == [[True, False], [False, True]]
    assert torch.equal(judge.only(["right"])(images)[:, 0], judge(images)[:, 1])
    with pytest.raises(ValueError, match="there is no attribute 'up' in the table; it has left, right"):
        judge.only(["up"])
    calls = extractor.calls
    again = train_attributes(table, data, extractor, folder=tmp_path / "cache")
    assert extractor.calls == calls and torch.equal(again.weight, judge.weight)  # kept


def test_what_cannot_be_learned_is_refused(pictures: tuple[Images, AttributeTable], tmp_path: Path) -> None:
    data, table = pictures
    with pytest.raises(ValueError, match="the pictures of Digits have no file names, which the table goes by"):
        train_attributes(table, Digits(batch_size=4, resolution=8), Corners(), folder=tmp_path)
    elsewhere = AttributeTable(("a.jpg",), table.attributes, table.values[:1])
    with pytest.raises(ValueError, match=r"none of the 60 pictures \(such as 000.png\) has a row in the table"):
        train_attributes(elsewhere, data, Corners(), folder=tmp_path)
    values = table.values.clone()
    values[:, 1] = False
    with pytest.raises(ValueError, match="attribute 'right': 0 of 60 pictures have it; both kinds need two or more"):
        train_attributes(AttributeTable(table.files, table.attributes, values), data, Corners(), folder=tmp_path)


def test_the_regression_is_scikit_learns() -> None:
    """Of mean losses with weight decay 0.01 / 2 on standardised features: C = 1 / (0.01 N)."""
    from sklearn.linear_model import LogisticRegression

    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.2, 1.0]) + 3
    values = (x @ torch.tensor([1.0, -0.2, 4.0, 0.0]) > 14)[:, None]
    made = fit_logistic(x, values)
    kept = torch.randperm(500, generator=torch.Generator().manual_seed(0))[100:]
    scaled = (x - x[kept].mean(0)) / x[kept].std(0)
    theirs = LogisticRegression(C=1 / (0.01 * 400), tol=1e-10).fit(scaled[kept].double().numpy(), values[kept, 0])
    logits = x @ made["weight"].T + made["bias"]
    expected = torch.from_numpy(theirs.decision_function(scaled.double().numpy())).float()
    torch.testing.assert_close(logits[:, 0], expected, rtol=1e-3, atol=1e-3)
    assert made["accuracy"].item() > 0.9


def test_classifiers_go_where_separability_asks_for_them(
    pictures: tuple[Images, AttributeTable], tmp_path: Path
) -> None:
    (data, table), sampler = pictures, unconditional()
    judge = train_attributes(table, data, Corners(), folder=tmp_path)
    _, logits = labelled_latents(sampler, judge.classifiers(), torch.arange(3))
    assert logits.shape == (3, 2)
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    assert torch.equal(together(judge.classifiers())(images), judge(images))
