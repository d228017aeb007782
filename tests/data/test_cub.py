"""CUB in its published layout: boxes, splits, captions; and every way in which a copy of it can be broken."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image

from lit_gans.data import CUB, ImageData
from lit_gans.data.captioned_files import BoxCrop, scaled
from lit_gans.papers import DCGAN

from .common import assert_worlds_agree, taken
from .test_embeddings import dump
from .test_paired import picture, save

CLASSES = [f"{i:03d}.Bird_{i}" for i in range(1, 9)]


def written(root: Path, *, classes: int = 8, each: int = 2) -> Path:
    """A small tree: picture k has its number in the red channel of its box, and 255 outside of the published square."""
    tables: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "bounding_boxes", "train_test_split")
    }
    number = 0
    for place, name in enumerate(CLASSES[:classes], 1):
        for j in range(each):
            number += 1
            identity = number * 3  # ids have gaps
            file = f"{name}/Bird_{number:04d}"
            save(root / f"images/{file}.jpg", large(number))
            (root / f"text/{name}").mkdir(parents=True, exist_ok=True)
            texts = [f"bird n{number} of class c{place}, caption {k}." for k in range(10)]
            (root / f"text/{file}.txt").write_text("\n".join(texts) + "\n")
            tables["images"].append(f"{identity} {file}.jpg")
            tables["image_class_labels"].append(f"{identity} {place}")
            tables["bounding_boxes"].append(f"{identity} 20.7 10.0 16.9 24.0")
            tables["train_test_split"].append(f"{identity} {int(j == 0)}")
    tables["classes"] = [f"{i} {name}" for i, name in enumerate(CLASSES[:classes], 1)]
    for name, lines in tables.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def large(number: int) -> np.ndarray:
    """64 wide, 48 high: `number` within the square of half side 18 around (28, 22), white outside."""
    pixels = np.full((48, 64, 3), 255, np.uint8)
    pixels[4:40, 10:46] = number
    return pixels


def data(root: Path, **options: object) -> CUB:
    return CUB(str(root), **{"batch_size": 6, "resolution": 16, **options})


def refused(root: Path, error: type[Exception] = ValueError, **options: object) -> str:
    with pytest.raises(error) as info:
        data(root, **options).setup()
    return str(info.value)


def broken(root: Path, file: str, old: str, new: str) -> None:
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))


def test_the_square_around_the_box_is_cut_out_as_published(tmp_path: Path) -> None:
    cub = data(written(tmp_path))
    image = cub.dataset().fetch(torch.arange(12))["image"]
    assert ((image.float() - torch.arange(1, 13)[:, None, None, None]).abs() < 4).all()  # JPEG, and not a white pixel
    whole = data(tmp_path, crop="none").dataset().fetch(torch.arange(12))["image"]
    assert (whole > 200).flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((20.7, 10.0, 16.9, 24.9), (4, 40), (10, 46)),  # numbers lose their fractions before anything else
        ((0.0, 0.0, 40.0, 20.0), (0, 40), (0, 50)),  # 30 either side of (20, 10), cut at two borders
        ((50.0, 30.0, 14.0, 18.0), (26, 48), (44, 64)),  # and at the other two
    ],
)
def test_square(box: tuple[float, ...], rows: tuple[int, int], columns: tuple[int, int]) -> None:
    y, x = np.mgrid[:48, :64]
    cut = BoxCrop(np.array([box])).cut(np.stack([y, x], -1), 0)
    assert (cut[0, 0].tolist(), cut[-1, -1].tolist()) == ([rows[0], columns[0]], [rows[1] - 1, columns[1] - 1])


def test_scaling_is_that_of_torchvision() -> None:
    from torchvision.transforms.functional import resize

    pixels = picture(3, width=50, height=37)
    expected = np.asarray(resize(Image.fromarray(pixels), 19))
    assert np.array_equal(scaled(pixels, 19, resize="shorter"), expected) and expected.shape == (19, 25, 3)
    assert scaled(pixels, 19, resize="stretch").shape == (19, 19, 3)


def test_classes_of_the_test_split_are_not_seen_in_training(tmp_path: Path) -> None:
    cub = data(written(tmp_path))
    train, test = (cub.dataset(split) for split in ("train", "test"))
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5] and test.labels.tolist() == [6, 6, 7, 7]
    assert cub.class_names == tuple(CLASSES) and cub.num_classes == 8
    assert cub.fingerprint("train") != cub.fingerprint("test")


def test_published_splits_come_first(tmp_path: Path) -> None:
    root = written(tmp_path / "birds/CUB_200_2011")
    (root.parent / "testclasses.txt").write_text(f"{CLASSES[1]}\n{CLASSES[4]}\n")
    assert data(root).dataset("test").labels.tolist() == [1, 1, 4, 4]
    dump(root.parent / "test/filenames.pickle", [f"{CLASSES[0]}/x"], 0)
    assert data(root).dataset("test").labels.tolist() == [0, 0]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/testclasses.txt").write_text(CLASSES[2])
    assert data(root, split_files=str(tmp_path / "other")).dataset("test").labels.tolist() == [2, 2]
    assert "neither test/filenames.pickle nor testclasses.txt" in refused(
        root, FileNotFoundError, split_files=str(root)
    )


def test_official_split_shares_classes(tmp_path: Path) -> None:
    cub = data(written(tmp_path), division="official")
    assert cub.dataset().labels.tolist() == cub.dataset("test").labels.tolist() == list(range(8))
    assert not set(cub.split_captions("train").names) & set(cub.split_captions("test").names)


def test_captions_are_those_of_the_picture_and_wrong_ones_of_another_class(tmp_path: Path) -> None:
    cub = data(written(tmp_path), wrong="caption")
    batch = taken(cub, 40)
    seen = set()
    for label, words, wrong in zip(batch["label"].tolist(), batch["words"], batch["wrong_words"], strict=True):
        text, other = (cub.vocabulary.decode(row.tolist()) for row in (words, wrong))
        seen.add(text.split()[-1])
        assert f"c{label + 1} " in text and f"c{label + 1} " not in other
    assert seen == set("0123456789")


def test_processes_workers_and_restarts_change_nothing(tmp_path: Path) -> None:
    root = written(tmp_path)
    assert_worlds_agree(lambda: data(root, load_px=20, mirror=True, wrong="image", seed=2))  # type: ignore[arg-type, return-value]


def test_embeddings_as_published(tmp_path: Path) -> None:
    root = written(tmp_path / "birds/CUB_200_2011")
    for split, first, count in (("train", 0, 12), ("test", 12, 4)):
        names = [f"{CLASSES[i // 2]}/Bird_{i + 1:04d}" for i in range(first, first + count)][::-1]
        vectors = [np.full((10, 4), float(name[-4:]), np.float32) for name in names]
        dump(root.parent / split / "filenames.pickle", names, 0)
        dump(root.parent / split / "class_info.pickle", [1] * count, 0)
        dump(root.parent / split / "char-CNN-RNN-embeddings.pickle", vectors, 2)
    cub = data(root, encode="embeddings", embeddings=str(root.parent))
    batch = taken(cub, 4)
    assert ((batch["image"][:, 0, 8, 8] - batch["embedding"][:, 0]).abs() < 4).all() and cub.embedding_dim == 4
    assert cub.dataset("test").fetch(torch.arange(4))["embedding"][:, 0].tolist() == [13, 14, 15, 16]


@pytest.mark.parametrize(
    "box", ["20.7 10.0 60.0 24.0", "-9.0 10.0 16.9 24.0", "20.7 10.0 16.9 0.0", "20.7 nan 9.0 9.0"]
)
def test_boxes_outside_of_the_picture(box: str, tmp_path: Path) -> None:
    root = written(tmp_path)
    broken(root, "bounding_boxes.txt", "9 20.7 10.0 16.9 24.0", f"9 {box}")
    found = refused(root)
    assert "1 of 12 pictures" in found and "002.Bird_2/Bird_0003.jpg has the box x" in found and "64 x 48" in found
    data(root, crop="none").setup()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("bounding_boxes.txt", "3 20.7 10.0 16.9 24.0\n", "", "bounding_boxes.txt has no line for picture 3"),
        ("bounding_boxes.txt", "20.7 10.0", "20.7", "line 1 of .*bounding_boxes.txt is '3 20.7 16.9 24.0'.*4 values"),
        ("bounding_boxes.txt", "20.7", "left", "bounding_boxes.txt has 'left' where a number should stand"),
        ("images.txt", "6 001", "3 001", "line 2 of .*images.txt has id 3 a second time"),
        ("image_class_labels.txt", "3 1", "3 77", "has class '77', which classes.txt does not have"),
        ("image_class_labels.txt", "3 1\n", "", "image_class_labels.txt has no line for picture 3"),
    ],
)
def test_tables_that_do_not_fit(file: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    root = written(tmp_path)
    broken(root, file, old, new)
    with pytest.raises(ValueError, match=message):
        data(root).setup()


def test_files_that_are_missing(tmp_path: Path) -> None:
    root = written(tmp_path)
    (root / f"text/{CLASSES[0]}/Bird_0001.txt").unlink()
    assert "1 of 12 pictures have no caption: 001.Bird_1/Bird_0001.jpg" in refused(root)
    (root / "text").rename(root / "elsewhere")
    assert "set text to the folder" in refused(root, FileNotFoundError)
    assert "there is no folder" in refused(root, FileNotFoundError, text=str(root / "nowhere"))
    (root / f"elsewhere/{CLASSES[0]}/Bird_0001.txt").write_text("back\n")
    data(root, text=str(root / "elsewhere")).setup()
    (root / f"images/{CLASSES[0]}/Bird_0001.jpg").unlink()
    assert "1 of 12 pictures of images.txt are not in" in refused(root, FileNotFoundError, text=str(root / "elsewhere"))
    (root / "classes.txt").unlink()
    assert "classes.txt: set root" in refused(root, FileNotFoundError, text=str(root / "elsewhere"))
    assert "set root to the folder CUB_200_2011" in refused(tmp_path / "nowhere", FileNotFoundError)


def test_names_do_not_lead_out_of_the_folders(tmp_path: Path) -> None:
    root = written(tmp_path / "root")
    broken(root, "images.txt", f"{CLASSES[0]}/Bird_0001.jpg", "../../secret.jpg")
    (tmp_path / "secret.txt").write_text("secret\n")
    assert "would lie outside" in refused(root)


def test_options_from_a_command_line(tmp_path: Path) -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(ImageData, "data")
    where = ["--data=lit_gans.data.CUB", f"--data.root={written(tmp_path)}", "--data.batch_size=4"]
    for words, expected in (
        ('--data.vocabulary=["<end>","bird"]', ["<end>", "bird"]),
        ("--data.vocabulary=w.json", "w.json"),
    ):
        found = parser.parse_args([*where, words])
        assert found.data.init_args.vocabulary == expected
    built = parser.instantiate_classes(parser.parse_args([*where, '--data.vocabulary=["<end>","bird","class"]']))
    assert len(built.data.vocabulary) == 3 and len(built.data.dataset()) == 12


def test_training_takes_the_pictures_and_a_resumed_stream_goes_on(tmp_path: Path) -> None:
    gan = DCGAN(resolution=16, channels=3, z_dim=4, width=4, total_kimg=0.012)
    cub = data(written(tmp_path / "cub"), wrong="caption", mirror=True)
    trainer = pl.Trainer(
        max_epochs=-1, limit_val_batches=0, logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=str(tmp_path),
    )  # fmt: skip
    trainer.fit(gan, datamodule=cub)
    assert gan.images_seen == 12
    resumed, fresh = next(iter(cub.train_dataloader())), data(tmp_path / "cub", wrong="caption", mirror=True)
    expected = fresh.stream().batch(2)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_the_real_sample(real_data: Path) -> None:
    cub = data(real_data / "CUB_200_2011", resolution=32, load_px=38, mirror=True, wrong="image")
    cub.setup()
    train, test = cub.dataset(), cub.dataset("test")
    assert (len(train), len(test)) == (192, 48) and set(test.labels.tolist()) == {8, 9}
    assert (train.captions.counts == 10).all() and 700 < len(cub.vocabulary) < 915
    batch = taken(cub, 3)
    assert batch["image"].shape == batch["wrong"].shape == (18, 3, 32, 32)
    assert batch["image"].float().flatten(1).std(1).min() > 5
    assert (batch["lengths"] >= 3).all() and (batch["lengths"] <= 18).all()
    official = data(real_data / "CUB_200_2011", division="official")
    assert len(official.dataset()) == 136 and len(official.dataset("test")) == 104
