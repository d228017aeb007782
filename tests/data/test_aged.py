"""Faces with ages: what file names and tables say, the groups made of it, and what is refused."""

import warnings
from pathlib import Path

import pytest
import torch

from lit_gans.data import AgedFaces
from lit_gans.data.ages import EDGES, age_of_name, check_edges, edges_of, group_names, group_of, read_ages
from lit_gans.papers import CGAN
from tests.cases import StopAt

from .common import real
from .test_images import folder, packed, png, values

DATE = "20170109142408075"
SIX = {f"{age}_0_1_{DATE}.jpg.chip.jpg": png(age) for age in (13, 20, 33, 44, 55, 66)}


def faces(path: Path, **options: object) -> AgedFaces:
    return AgedFaces(str(path), **{"batch_size": 2, "resolution": 4, **options})


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# ---- ages and groups -------------------------------------------------------------------------------------------------


def test_groups_are_the_published_ones() -> None:
    assert group_names() == ("0-18", "19-29", "30-39", "40-49", "50-59", "60+")
    ages = [0, 18, 18.9, 19, 29, 30, 39, 40, 49, 50, 59, 60, 116]
    assert [group_of(age) for age in ages] == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert edges_of(group_names()) == EDGES and edges_of(group_names([25])) == (25,)
    assert edges_of(("cat", "dog")) is None and edges_of(("0", "1")) is None and edges_of(()) is None
    assert edges_of(("0-18", "20-29", "30+")) is None, "a year is in no group"
    for wrong in ([], [0, 10], [30, 30], [40, 20]):
        with pytest.raises(ValueError, match="are not years that rise from 1 on"):
            check_edges(wrong)


@pytest.mark.parametrize(
    ("name", "age"),
    [
        (f"43_0_1_{DATE}.jpg", 43),
        (f"part1/116_1_3_{DATE}.jpg.chip.jpg", 116),
        (f"61_1_{DATE}.jpg.chip.jpg", 61),  # without a race, as published
        (f"53__0_{DATE}.jpg.chip.jpg", 53),  # without a gender
        ("01/nm0000001_rm124825600_1899-5-10_1968.jpg", 69),
        ("imdb/nm0000001_rm124825600_1899-8-10_1968.jpg", 68),  # not yet 69 in the middle of the year
        ("17/10000217_1981-05-05_2009.jpg", 28),
        ("holiday_2019.jpg", None),
        ("43.jpg", None),
        ("1234_0_1_20170109142408075.jpg", None),
        ("100_2023.png", None),
    ],
)
def test_names_tell_ages(name: str, age: int | None) -> None:
    assert age_of_name(name) == age


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [folder, packed])
def test_labels_are_groups(tmp_path: Path, make) -> None:
    data = faces(make(tmp_path / "faces.zip", SIX))
    data.setup()
    assert data.num_classes == 6 and data.class_names == group_names()
    assert values(data) == [13, 20, 33, 44, 55, 66] and data.dataset().labels.tolist() == [0, 1, 2, 3, 4, 5]
    batch = next(iter(data.train_dataloader()))
    assert batch["label"].dtype == torch.int64 and batch["image"].shape == (2, 3, 4, 4)
    lines = "\n".join(data.describe().lines())
    assert "0=0-18 (1), 1=19-29 (1)" in lines and "groups of the ages in file names" in lines


def test_other_edges_are_other_data(tmp_path: Path) -> None:
    folder(tmp_path, SIX)
    two, six = faces(tmp_path, edges=[40]), faces(tmp_path)
    assert two.class_names == ("0-39", "40+") and two.dataset().labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert two.fingerprint() != six.fingerprint()
    assert faces(tmp_path, edges=[40], test_path=str(tmp_path)).dataset("test").labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_table_tells_ages(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", {"a/1.png": png(1), "b/1.png": png(2), "c.png": png(3)})
    path = table(tmp_path / "ages.csv", "gender,filename,age\n0,a/1.png,7.5\n1,photos/b/1.png,41\n0,./c.png,70\n")
    data = faces(photos, table=str(path), edges=[40])
    data.setup()
    assert values(data) == [1, 2, 3] and data.dataset().labels.tolist() == [0, 1, 1]
    assert data.ages() == {"a/1.png": 7.5, "b/1.png": 41.0, "c.png": 70.0}
    assert "ages in ages.csv" in data.describe().layout
    table(tmp_path / "other.tsv", "who\tyears\tage\nc.png\t33\t1\n")
    tsv = read_ages(tmp_path / "other.tsv", file_column="who", age_column="years")
    assert tsv.of(["x/c.png", "d.png"]) == {"x/c.png": 33.0, "d.png": None}


def test_a_name_in_two_folders_is_not_guessed(tmp_path: Path) -> None:
    read = read_ages(table(tmp_path / "t.csv", "file,age\na/1.png,7\nb/1.png,41\n"))
    names = ["1.png", "c/1.png", "a/1.png", "photos/b/1.png"]
    assert list(read.of(names).values()) == [None, None, 7.0, 41.0]


def test_cleaned_lists_of_imdb_wiki_need_no_table(tmp_path: Path) -> None:
    names = ("00/nm1_rm2_1950-1-1_1960.jpg", "01/123_1950-01-01_2001.jpg")
    data = faces(folder(tmp_path, {name: png(i) for i, name in enumerate(names)}), edges=[30])
    assert data.ages() == {names[0]: 10.0, names[1]: 51.0}


# ---- what is refused, and left out -----------------------------------------------------------------------------------


def test_a_picture_without_an_age_is_named_or_left_out(tmp_path: Path) -> None:
    folder(tmp_path, {**SIX, "holiday.jpg": png(9), f"200_0_1_{DATE}.jpg": png(8)})
    with pytest.raises(ValueError, match="2 of 8 pictures .*: 200_0_1_.*: 200 years; holiday.jpg: no age. Mend them"):
        faces(tmp_path).setup()
    with pytest.warns(UserWarning, match="2 of 8 pictures .* They are left out"):
        data = faces(tmp_path, on_error="skip")
        data.setup()
    assert values(data) == [13, 20, 33, 44, 55, 66] and "2 without a plausible age" in data.describe().left


def test_no_age_at_all(tmp_path: Path) -> None:
    folder(tmp_path / "photos", {"a.png": png(1), "b.png": png(2)})
    for options in ({}, {"on_error": "skip"}):
        with pytest.raises(ValueError, match="2 of 2 pictures .* Give the table of these pictures, or name them"):
            faces(tmp_path / "photos", **options).setup()
    path = table(tmp_path / "t.csv", "file,age\na.png,\nb.png,-3\n")
    with pytest.raises(ValueError, match=r"in the ages in t.csv: a.png: no age; b.png: -3 years"):
        faces(tmp_path / "photos", table=str(path)).setup()


def test_a_group_that_is_never_seen_is_refused(tmp_path: Path) -> None:
    few = dict(list(SIX.items())[:4])
    with pytest.raises(ValueError, match="has no face of 50-59, 60\\+ years.*set edges"):
        faces(folder(tmp_path / "few", few)).setup()
    data = faces(folder(tmp_path / "all", SIX), test_path=str(tmp_path / "few"))
    assert data.dataset("test").labels.tolist() == [0, 1, 2, 3], "a test set may lack some"


def test_faces_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none is neither a folder nor a file"):
        faces(tmp_path / "none").setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no picture in"):
        faces(tmp_path / "empty").setup()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file,years\na.png,3\n", {}, "has the columns file, years, and none is called age: set age_column"),
        ("photo,age\na.png,3\n", {}, "none is called file or filename.*: set file_column"),
        ("file,age\na.png,3\n", {"age_column": "old"}, "has no column 'old'; it has file, age: set age_column"),
        ("file,age\n", {}, "has 1 lines: a table has a line of names"),
        ("file,age\na.png,3\na.png,4\n", {}, "row 3: 'a.png' is 4.0 years, and 3.0 in a row before"),
        ("age,file\n3\n", {}, "row 2: 1 values, and the first line names 2"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, options: dict[str, str], message: str) -> None:
    photos = folder(tmp_path / "photos", {"a.png": png(1)})
    path = table(tmp_path / "t.csv", text)
    with pytest.raises(ValueError, match=message):
        faces(photos, table=str(path), **options).setup()


def test_settings_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="t.csv does not exist: give a CSV file of pictures and ages"):
        read_ages(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ValueError, match="is no text, or no table"):
        read_ages(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="max_age 60 leaves the last group, 60 years and more, empty"):
        faces(tmp_path, max_age=60)
    with pytest.raises(ValueError, match="the column 'age' is of a table: set table"):
        faces(tmp_path, age_column="age")
    with pytest.raises(TypeError, match="tabel"):
        faces(tmp_path, tabel="t.csv")


def test_papers_with_classes_train_on_them(tmp_path: Path) -> None:
    """As on any labelled data; the model knows the groups' names afterwards."""
    import lightning.pytorch as pl

    folder(tmp_path / "faces", SIX)
    gan = CGAN(resolution=8, channels=3, num_classes=6, form="mlp", z_dim=4, total_kimg=1.0)
    trainer = pl.Trainer(
        max_epochs=-1, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=str(tmp_path), callbacks=[StopAt(2)],
    )  # fmt: skip
    trainer.fit(gan, datamodule=faces(tmp_path / "faces", resolution=8))
    assert gan.class_names == group_names()
    wrong = CGAN(resolution=8, channels=3, num_classes=5, form="mlp", z_dim=4)
    with pytest.raises(ValueError, match="num_classes 5, the data have 6 classes"):
        trainer.fit(wrong, datamodule=faces(tmp_path / "faces", resolution=8))


def test_utkface_itself() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = faces(real("UTKFace"), resolution=16)
        data.setup()
    assert len(data.dataset()) == 150 and min(data.dataset().labels.bincount()) >= 10
