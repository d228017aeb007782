"""Captions as numbers: the words, the vocabulary, what is cut, what is told, and what is refused."""

import json
import shutil
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_gans.data import CaptionFolder, CocoCaptions, Vocabulary
from lit_gans.data.captions import (
    ALPHABET,
    Captions,
    CharacterEncoding,
    WordEncoding,
    characters,
    report_characters,
    report_words,
    tokenize,
)
from lit_gans.data.embeddings import vocabulary_of

from .common import assert_worlds_agree, taken
from .test_embeddings import dump
from .test_paired import picture, save

NUMBERS = np.arange(40)


def captions(*texts: str, each: int = 1) -> Captions:
    grouped = [texts[i : i + each] for i in range(0, len(texts), each)]
    return Captions(grouped, [f"{i}.jpg" for i in range(len(grouped))])


def test_words_are_lower_case_runs_of_letters_and_digits() -> None:
    assert tokenize("The bird's wing-bars, 2 of them: BLACK & white.") == [
        "the", "bird", "s", "wing", "bars", "2", "of", "them", "black", "white",
    ]  # fmt: skip
    assert tokenize("a\ufffd\ufffdlong beak") == ["a", "long", "beak"]
    assert tokenize("größe ¾ 鳥", "ascii") == ["gre"]
    assert tokenize("... - !") == []


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("Une plume élégante, à ŒIL", ["une", "plume", "élégante", "à", "œil"]),
        ("une e\u0301le\u0301gante", ["une", "élégante"]),  # in parts, as macOS writes names
        ("красная птица", ["красная", "птица"]),
        ("κόκκινο ΠΟΥΛΊ", ["κόκκινο", "πουλί"]),
        ("लाल चिड़िया", ["लाल", "चिड़िया"]),  # vowels are marks
        ("طائرٌ أحمر", ["طائرٌ", "أحمر"]),
        ("می\u200cپرد", ["می\u200cپرد"]),
        ("一只红色的鸟, 2只", ["一", "只", "红", "色", "的", "鸟", "2", "只"]),
        ("빨간 새", ["빨간", "새"]),
        ("a bird \u2764\ufe0f – “red”", ["a", "bird", "red"]),
        ("a\ufffd\ufffdlong beak", ["a", "long", "beak"]),
    ],
)
def test_words_keep_the_letters_of_all_alphabets(caption: str, words: list[str]) -> None:
    assert tokenize(caption) == [unicodedata.normalize("NFC", word) for word in words]


def test_the_rule_of_a_vocabulary_is_said_or_that_of_its_words(tmp_path: Path) -> None:
    plain, foreign = ("<end>", "lgante", "bird"), ("<end>", "élégante")
    assert Vocabulary(plain).letters == "ascii" and Vocabulary(foreign).letters == "all"
    assert Vocabulary(plain).batch(["Élégante!"], max_words=1)[0].tolist() == [[1]]  # as published
    assert Vocabulary(foreign).batch(["Élégante!"], max_words=1)[0].tolist() == [[1]]
    with pytest.raises(ValueError, match="no word of the vocabulary"):
        Vocabulary(plain, "all").batch(["Élégante!"], max_words=1)
    with pytest.raises(ValueError, match="letters is 'latin'; it must be one of 'all', 'ascii'"):
        Vocabulary(plain, "latin")  # type: ignore[arg-type]
    dump(tmp_path / "captions.pickle", [[], [], dict(enumerate(plain)), {}], 2)
    assert vocabulary_of(str(tmp_path / "captions.pickle"), None).letters == "ascii"
    assert vocabulary_of(str(tmp_path / "captions.pickle"), "all").letters == "all"


def test_what_of_a_caption_is_unknown() -> None:
    vocabulary = Vocabulary(("<end>", "<unk>", "a", "bird", "lgante"))
    assert vocabulary.unknown(["a blue bird", "blue élégante птица"]) == ["blue", "птица"]
    for caption in ("zzz qqq", "птица", "..."):
        with pytest.raises(ValueError, match="no word of the vocabulary: use some of its 5, such as a, bird, lgante"):
            vocabulary.unknown(["a bird", caption])


@pytest.mark.parametrize(
    ("encode", "text", "options", "message"),
    [
        ("characters", "красная птица", {}, "2 of 12 say nothing .* 'красная птица'; they are of a/0.png. Words"),
        ("words", "красная птица", {"letters": "ascii"}, "no caption of a/0.png .* letters 'all' keeps them"),
        ("words", "...\n- !", {}, "no caption of a/0.png has a word of the vocabulary, such as '...': mend it"),
        ("words", "owl", {"vocabulary": ["<end>", "<unk>", "it"]}, "1 of 11 say nothing .* they are of a/0.png"),
        ("words", "owl", {"min_count": 2}, "1 of 11 say nothing .* min_count 1"),
    ],
)
def test_captions_that_are_blank_to_the_encoder_are_refused(
    encode: str, text: str, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    lines = text if "\n" in text or text == "owl" else f"{text}\n{text}"
    (captioned_folder(tmp_path) / "a/0.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        folder_data(tmp_path, encode=encode, **options).setup()
    if encode == "words" and "птица" in text:
        assert "птица" in folder_data(tmp_path).vocabulary.words


def test_vocabulary_does_not_depend_on_the_order_and_keeps_frequent_words() -> None:
    texts = [["red", "bird"], ["blue", "bird"], ["bird", "red"]]
    vocabulary = Vocabulary.build(texts)
    assert vocabulary.words == ("<end>", "<unk>", "bird", "red", "blue")
    assert Vocabulary.build(texts[::-1]) == vocabulary
    assert Vocabulary.build(texts, min_count=2).words == ("<end>", "<unk>", "bird", "red")
    assert vocabulary.encode(["red", "owl", "bird"]) == [3, 1, 2]
    assert vocabulary.decode([3, 2, 0, 4]) == "red bird"


def test_published_vocabularies_have_no_unknown_word_and_leave_those_out() -> None:
    vocabulary = Vocabulary(("<end>", "red", "bird"))
    assert vocabulary.encode(["a", "red", "owl", "bird"]) == [1, 2]
    words, lengths = vocabulary.batch(["a red bird", "Bird!"], max_words=4)
    assert words.tolist() == [[1, 2, 0, 0], [2, 0, 0, 0]] and lengths.tolist() == [2, 1]
    with pytest.raises(ValueError, match="the caption 'an owl' has no word of the vocabulary"):
        vocabulary.batch(["red", "an owl"], max_words=4)


def test_vocabulary_is_saved_and_read(tmp_path: Path) -> None:
    vocabulary = Vocabulary(("<end>", "<unk>", "bird"))
    vocabulary.save(tmp_path / "words.json")
    assert Vocabulary.read(tmp_path / "words.json") == vocabulary
    (tmp_path / "bad.json").write_text('{"bird": 1}')
    with pytest.raises(ValueError, match="found dict"):
        Vocabulary.read(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError, match="no vocabulary at"):
        Vocabulary.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("words", "message"), [((), "no word at all"), (("a",), "with 'a'"), (("<end>", "a", "a"), "twice")]
)
def test_no_other_vocabulary(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary(words)


def test_short_captions_are_filled_up_and_long_ones_keep_words_in_their_order() -> None:
    long = " ".join(f"w{i:02d}" for i in range(30))
    both = captions(long, "w03 w07")
    encoding = WordEncoding(both, Vocabulary.build(both.tokens), max_words=8)
    batch = encoding.encode(np.zeros(40, np.int64), 5, "caption", NUMBERS)
    words, lengths = batch["words"], batch["lengths"]
    assert (lengths == 8).all() and words.dtype == lengths.dtype == torch.int64
    kept = [encoding.vocabulary.decode(row.tolist()).split() for row in words]
    assert all(row == sorted(set(row)) for row in kept)
    assert len({tuple(row) for row in kept}) == 40  # drawn anew for each sample
    assert {word for row in kept for word in row} == set(long.split())
    short = encoding.encode(np.ones(1, np.int64), 5, "caption", NUMBERS[:1])
    assert encoding.vocabulary.decode(short["words"][0].tolist()) == "w03 w07" and short["lengths"].tolist() == [2]
    assert short["words"][0, 2:].eq(0).all()


def test_what_is_drawn_depends_on_seed_and_number_alone() -> None:
    texts = captions(*(f"w{i} " * 3 + " ".join(f"x{j}" for j in range(12)) for i in range(20)), each=5)
    encoding = WordEncoding(texts, Vocabulary.build(texts.tokens), max_words=6)

    def drawn(seed: int, positions: np.ndarray) -> Tensor:
        numbers = texts.drawn(positions % 4, seed, "caption", positions)
        return encoding.encode(numbers, seed, "caption", positions)["words"]

    whole = drawn(1, NUMBERS)
    assert torch.equal(torch.cat([drawn(1, part) for part in np.split(NUMBERS, 8)]), whole)
    assert not torch.equal(drawn(2, NUMBERS), whole)


def test_every_caption_of_a_picture_is_drawn_and_none_of_another() -> None:
    texts = Captions([["a"], ["b", "c", "d"], ["e", "f"]], ["0", "1", "2"])
    positions = np.arange(600)
    numbers = texts.drawn(positions % 3, 0, "caption", positions)
    seen = [set(numbers[positions % 3 == i].tolist()) for i in range(3)]
    assert seen == [{0}, {1, 2, 3}, {4, 5}]
    assert texts.of(1) == ["b", "c", "d"] and texts.owner(3) == "1" and texts.owner(4) == "2"


def test_characters_are_those_of_the_alphabet() -> None:
    assert len(ALPHABET) == 70
    found = characters(["Ab-z9 é", "x" * 300], max_characters=8)
    number = {c: i for i, c in enumerate(ALPHABET, 1)}
    assert found[0].tolist() == [1, 2, number["-"], 26, 36, 70, 70, 0] and number["-"] == 60
    assert found[1].tolist() == [24] * 8
    batch = CharacterEncoding(captions("ab")).encode(np.zeros(2, np.int64), 0, "caption", NUMBERS[:2])
    assert batch["characters"].shape == (2, 201)


def warned(report: object) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report()  # type: ignore[operator]
    return [str(each.message) for each in caught]


def test_what_the_numbers_do_not_tell_is_told() -> None:
    vocabulary = Vocabulary(("<end>", "<unk>", "a", "bird"))
    texts = captions("a bird", "an owl", "an owl", "a größe", "bird " * 300)
    told = warned(lambda: report_words(texts, vocabulary, max_words=18, where="here"))
    assert len(told) == 3
    assert "5 words, 3 different ones, are not in the vocabulary of 4 and become <unk>: an, owl, gre" in told[0]
    assert "2 letters beyond ASCII" in told[1] and "ö" in told[1]
    assert "1 of 5 captions have more than max_words 18 words, the longest 300 (4.jpg)" in told[2]
    assert not warned(lambda: report_words(captions("a bird"), vocabulary, max_words=18, where="here"))
    told = warned(lambda: report_characters(texts, max_characters=201, where="here"))
    assert "2 characters are not among the 70 of the encoder and become spaces: 'ö', 'ß'" in told[0]
    assert "1 of 5 captions have more than 201 characters, the longest 1500" in told[1]
    own = captions("a größe", "a 鳥")
    assert not warned(lambda: report_words(own, Vocabulary.build(own.tokens), max_words=18, where="here"))


def test_another_caption_takes_the_place_of_one_without_words() -> None:
    texts = Captions([["red"], ["...", "an owl", "blue owl"]], ["0.jpg", "1.jpg"])
    with pytest.warns(UserWarning, match=r"2 of 4 captions have no word of the vocabulary, such as '...' of 1.jpg"):
        encoding = WordEncoding(texts, Vocabulary(("<end>", "red", "blue")), max_words=3)
    batch = encoding.encode(np.arange(4), 0, "caption", NUMBERS[:4])
    assert batch["words"].tolist() == [[1, 0, 0], [2, 0, 0], [2, 0, 0], [2, 0, 0]]
    assert batch["lengths"].tolist() == [1, 1, 1, 1]


def test_captions_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 of 3 pictures have no caption: a.jpg, c.jpg"):
        Captions([[], ["x"], []], ["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(ValueError, match="1 of 2 captions are empty, of b.jpg"):
        Captions([["x"], [" "]], ["a.jpg", "b.jpg"])
    with pytest.raises(ValueError, match="5000 words, more than 4096"):
        Captions([["x " * 5000]], ["a.jpg"])
    with pytest.raises(ValueError, match="no caption of 1.jpg has a word of the vocabulary, such as 'owl'"):
        WordEncoding(captions("red", "owl"), Vocabulary(("<end>", "red")), max_words=3)


# ---- folders and COCO ------------------------------------------------------------------------------------------------


def captioned_folder(path: Path, count: int = 6, *, width: int = 16) -> Path:
    for i in range(count):
        save(path / f"{'ab'[i % 2]}/{i}.png", picture(i, width=width))
        (path / f"{'ab'[i % 2]}/{i}.txt").write_text(f"picture number n{i}\n\nit is {'ab'[i % 2]} and n{i}\n")
    return path


def folder_data(path: Path, **options: object) -> CaptionFolder:
    return CaptionFolder(str(path), **{"batch_size": 6, "resolution": 16, **options})


@pytest.mark.parametrize("wrong", ["none", "image", "caption"])
def test_pictures_have_their_own_captions_and_partners_of_another_class(wrong: str, tmp_path: Path) -> None:
    data = folder_data(captioned_folder(tmp_path), wrong=wrong)
    assert data.class_names == ("a", "b")
    batch = taken(data, 10)
    numbers = [row[0, 0, 0].item() for row in batch["image"]]
    for number, words, label in zip(numbers, batch["words"], batch["label"], strict=True):
        assert f"n{number}" in data.vocabulary.decode(words.tolist()) and label == number % 2
    if wrong == "image":
        others = batch["wrong"][:, 0, 0, 0].long()
    elif wrong == "caption":
        found = [data.vocabulary.decode(row.tolist()) for row in batch["wrong_words"]]
        others = torch.tensor([int(text.split("n")[-1]) for text in found])
        assert set(batch["wrong_lengths"].tolist()) == {3, 5}
    else:
        assert not any(name.startswith("wrong") for name in batch)
        return
    own = torch.tensor(numbers)
    assert (others % 2 != own % 2).all() and len(set(zip(numbers, others.tolist(), strict=True))) == 18


def test_a_zip_gives_what_its_folder_does(tmp_path: Path) -> None:
    folder = captioned_folder(tmp_path / "pictures")
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    packed, plain = (taken(folder_data(path), 2) for path in (tmp_path / "packed.zip", folder))
    assert all(torch.equal(packed[name], plain[name]) for name in plain)


def test_the_margin_grows_with_the_resolution(tmp_path: Path) -> None:
    data = folder_data(captioned_folder(tmp_path), load_px=19)
    data.resolution = 32
    assert data.load_px == 38 and data.stream().batch(0)["image"].shape[-1] == 32


def test_without_classes_any_other_picture_is_wrong(tmp_path: Path) -> None:
    data = folder_data(captioned_folder(tmp_path), wrong="image", labels="none")
    batch = taken(data, 30)
    own, others = batch["image"][:, 0, 0, 0], batch["wrong"][:, 0, 0, 0]
    assert "label" not in batch and (own != others).all() and len(set(others.tolist())) == 6


@pytest.mark.parametrize("wrong", ["image", "caption"])
@pytest.mark.parametrize("cache_mb", [0, 1024])
def test_processes_workers_and_restarts_change_nothing(wrong: str, cache_mb: int, tmp_path: Path) -> None:
    folder = captioned_folder(tmp_path, 7, width=24)
    assert_worlds_agree(
        lambda: folder_data(  # type: ignore[arg-type, return-value]
            folder, load_px=20, mirror=True, wrong=wrong, max_words=3, cache_mb=cache_mb, seed=3
        )
    )


def test_crops_cover_the_whole_margin_and_evaluation_sees_the_middle(tmp_path: Path) -> None:
    pixels = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None] * 4, (20, 40, 3)).copy()
    save(tmp_path / "x.png", pixels)
    (tmp_path / "x.txt").write_text("a ramp")
    data = folder_data(tmp_path, load_px=20)
    starts = taken(data, 60)["image"][:, 0, 0, 0] // 4
    assert set(starts.tolist()) == set(range(25))  # 40 wide: the longer side is not cut before
    whole = data.dataset().fetch(torch.tensor([0]))["image"][0, 0, 0].float() / 4
    assert whole[0] == pytest.approx(10, abs=1) and whole[-1] == pytest.approx(29.5, abs=1)  # the middle half
    stretched = folder_data(tmp_path, load_px=20, resize="stretch")
    assert set((taken(stretched, 60)["image"][:, 0, 0, 0] // 4).tolist()) <= set(range(9))


def test_on_the_device_pictures_become_float(tmp_path: Path) -> None:
    data = folder_data(captioned_folder(tmp_path), wrong="image")
    batch = data.on_after_batch_transfer(data.stream().batch(0), 0)
    assert batch["image"].dtype == batch["wrong"].dtype == torch.float32 and batch["image"].abs().max() <= 1
    assert batch["words"].dtype == torch.int64


def test_embeddings_and_characters_as_captions(tmp_path: Path) -> None:
    captioned_folder(tmp_path / "pictures")
    stems = [f"{'ab'[i % 2]}/{i}" for i in range(6)]
    vectors = np.random.default_rng(1).standard_normal((6, 2, 5)).astype(np.float32)
    dump(tmp_path / "e/train/filenames.pickle", stems, 2)
    dump(tmp_path / "e/train/char-CNN-RNN-embeddings.pickle", list(vectors), 2)
    data = folder_data(tmp_path / "pictures", encode="embeddings", embeddings=str(tmp_path / "e"), wrong="caption")
    assert data.embedding_dim == 5
    batch = taken(data, 5)
    own = vectors[batch["image"][:, 0, 0, 0].long()]
    assert (np.abs(own - batch["embedding"].numpy()[:, None]).max(2).min(1) == 0).all()
    assert batch["wrong_embedding"].shape == (30, 5)
    batch = taken(folder_data(tmp_path / "pictures", encode="characters", max_characters=30), 1)
    assert batch["characters"].shape == (6, 30) and "words" not in batch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encode": "letters"}, "encode is 'letters'"),
        ({"wrong": "both"}, "wrong is 'both'"),
        ({"load_px": 8}, "load_px 8 is smaller than resolution 16"),
        ({"encode": "embeddings"}, "give encode='embeddings' and a folder"),
        ({"embeddings": "x"}, "give encode='embeddings' and a folder"),
        ({"max_words": 0}, "max_words is 0"),
        ({"labels": "json"}, "labels is 'json'"),
        ({"resize": "crop"}, "resize is 'crop'"),
    ],
)
def test_options_are_checked_at_once(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        folder_data(tmp_path, **options)


def test_bad_folders_are_refused_before_training(tmp_path: Path) -> None:
    folder = captioned_folder(tmp_path)
    (folder / "a/0.txt").unlink()
    with pytest.raises(ValueError, match="1 of 6 pictures have no caption: a/0.png"):
        folder_data(folder).setup()
    (folder / "a/0.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="a/0.txt is empty"):
        folder_data(folder).setup()
    (folder / "a/0.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="a/0.txt is not UTF-8"):
        folder_data(folder).setup()
    (folder / "a/0.txt").write_text("fine")
    (folder / "b/1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="1 of 6 pictures .* cannot be used: b/1.png"):
        folder_data(folder).setup()
    with pytest.raises(ValueError, match="set test_path"):
        folder_data(folder).dataset("test")


def test_one_class_has_no_wrong_partners(tmp_path: Path) -> None:
    save(tmp_path / "x.png", picture(1))
    (tmp_path / "x.txt").write_text("one")
    with pytest.raises(ValueError, match="all 1 pictures are of one"):
        folder_data(tmp_path, wrong="image").setup()
    folder_data(tmp_path).setup()


def coco(path: Path) -> dict[str, list]:
    images = [{"id": 10 + i, "file_name": f"{i}.png", "width": 16} for i in range(3)]
    texts = [(10, "A red  bird.\n"), (12, "two birds"), (11, "no bird"), (10, "red again")]
    for i in range(3):
        save(path / f"images/{i}.png", picture(i))
    save(path / "images/spare.png", picture(9))
    return {"images": images, "annotations": [{"image_id": i, "caption": t, "id": k} for k, (i, t) in enumerate(texts)]}


def coco_data(path: Path, table: object, **options: object) -> CocoCaptions:
    (path / "captions.json").write_text(json.dumps(table))
    images = str(path / "images")
    return CocoCaptions(images, str(path / "captions.json"), **{"batch_size": 3, "resolution": 16, **options})


def test_coco(tmp_path: Path) -> None:
    data = coco_data(tmp_path, coco(tmp_path), wrong="image")
    assert [data.split_captions("train").of(i) for i in range(3)] == [
        ["A red bird.", "red again"], ["no bird"], ["two birds"],
    ]  # fmt: skip
    assert data.captions(torch.tensor([2, 0])) == ["two birds", "A red bird."]
    batch = taken(data, 8)
    assert "label" not in batch and (batch["image"] != batch["wrong"]).flatten(1).any(1).all()
    texts = {
        (i, data.vocabulary.decode(w))
        for i, w in zip(batch["image"][:, 0, 0, 0].tolist(), batch["words"].tolist(), strict=True)
    }
    assert texts == {(0, "a red bird"), (0, "red again"), (1, "no bird"), (2, "two birds")}


def test_other_json_is_refused(tmp_path: Path) -> None:
    whole = coco(tmp_path)
    for change, message in (
        ({"annotations": {}}, 'must read {"images"'),
        ({"images": [{"id": "x"}]}, "has the image {'id': 'x'}"),
        ({"annotations": [{"image_id": 99, "caption": "x"}]}, "has the annotation"),
        ({"annotations": whole["annotations"][:2]}, "1 of 3 pictures have no caption: 1.png"),
        (
            {"annotations": [*whole["annotations"], {"image_id": 10, "caption": ""}]},
            "1 of 5 captions are empty, of 0.png",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            coco_data(tmp_path, {**whole, **change}).setup()
    missing = {**whole, "images": [*whole["images"], {"id": 1, "file_name": "y.png"}]}
    missing["annotations"] = [*whole["annotations"], {"image_id": 1, "caption": "x"}]
    with pytest.raises(FileNotFoundError, match="1 of 4 pictures .* are not in .*: y.png"):
        coco_data(tmp_path, missing).setup()
    (tmp_path / "captions.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        CocoCaptions(str(tmp_path), str(tmp_path / "captions.json"), batch_size=1).setup()
