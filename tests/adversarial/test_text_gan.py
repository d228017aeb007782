"""What all text-to-image games share: captions of batches, of users and of the data; what is saved of their readers."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml

from lit_gans.base.images import to_uint8
from lit_gans.callbacks import Checkpoint
from lit_gans.data import CaptionFolder, ShapeCaptions
from lit_gans.data.captions import Vocabulary
from lit_gans.editing.captions import between, captioned_grid, captions_of, save_captioned
from lit_gans.papers import DCGAN
from lit_gans.papers.text.game import check_captions, scaled_images
from lit_gans.papers.text.networks import WordEncoder
from lit_gans.runs.load import load_run
from lit_gans.runs.vocabulary import share_vocabulary
from lit_gans.sample import main, sample
from tests.adversarial.painter import Painter
from tests.data.test_paired import picture, save

TINY = {"sentence_dim": 6, "word_dim": 4, "max_words": 18, "seed": 1}
RED, BLUE = "a small red circle at the top left on grey", "there is one square at the centre and its colour is blue"


def shapes(**options: Any) -> ShapeCaptions:
    return ShapeCaptions(**{"batch_size": 8, "resolution": 16, "images": 64, "test_images": 16, **options})


def words() -> list[str]:
    return list(shapes().vocabulary.words)


def painter(**options: Any) -> Painter:
    torch.manual_seed(0)
    return Painter(**{"vocabulary": words(), **TINY, **options})


def fitted(gan: Painter, folder: Path, data: ShapeCaptions | None = None, **options: Any) -> pl.Trainer:
    gan.total_kimg = 0.024
    trainer = pl.Trainer(
        max_epochs=-1, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, default_root_dir=str(folder), callbacks=[Checkpoint(0, 0, monitor=None)], **options,
    )  # fmt: skip
    trainer.fit(gan, datamodule=data or shapes())
    return trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("painter")
    with pytest.warns(UserWarning, match="random weights and is not trained"):
        fitted(painter(), folder)
    return folder


def test_an_image_follows_from_its_seed_and_its_caption() -> None:
    gan = painter()
    one = gan.sample([3, 4], captions=[RED, BLUE])
    assert one.shape == (2, 3, 16, 16)
    torch.testing.assert_close(gan.sample([4], captions=[BLUE])[0], one[1])
    assert not torch.equal(gan.sample([4], captions=[RED])[0], one[1])
    assert [x.shape[-1] for x in gan.multi_scale([3], captions=[RED])] == [8, 16]


def test_the_encoder_is_frozen_and_never_trains() -> None:
    gan = painter().train()
    assert not gan.text_encoder.training and not any(p.requires_grad for p in gan.text_encoder.parameters())


def test_a_saved_run_reads_text_without_its_data(run: Path) -> None:
    gan = load_run(run, trust="tests")
    assert gan.hparams["vocabulary"] == words()
    assert gan.sample([0], captions=[RED]).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="call take_captions with the data"):
        gan.sample([0])
    gan.take_captions(shapes())
    texts, _ = gan.held_captions(torch.tensor([5]))
    torch.testing.assert_close(gan.sample([5]), gan.sample([5], captions=texts))


def test_weights_come_from_a_run_or_from_official_files(run: Path, tmp_path: Path) -> None:
    of_run = Painter(encoder_weights=str(run))  # words and sizes are the run's
    saved = load_run(run, trust="tests").text_encoder.state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in of_run.text_encoder.state_dict().items())
    assert of_run.hparams["encoder_weights"] is None and of_run.hparams["sentence_dim"] == 6

    network = WordEncoder(len(words()), embed_dim=4, feature_dim=6)
    official = {name.replace("embedding.", "encoder."): tensor for name, tensor in network.state_dict().items()}
    torch.save(official, tmp_path / "text_encoder.pth")
    gan = painter(encoder_weights=str(tmp_path / "text_encoder.pth"))
    assert torch.equal(gan.text_encoder.network.embedding.weight, network.embedding.weight)
    with pytest.raises(ValueError, match="does not fit the encoder in .* tensors"):
        painter(encoder_weights=str(tmp_path / "text_encoder.pth"), sentence_dim=8)


def test_a_vocabulary_may_be_a_file(tmp_path: Path) -> None:
    Vocabulary(tuple(words())).save(tmp_path / "words.json")
    assert painter(vocabulary=str(tmp_path / "words.json")).hparams["vocabulary"] == words()


def test_characters_and_embeddings() -> None:
    gan = painter(encoder="characters", vocabulary=None, encoder_width=4, max_characters=60)
    assert gan.sample([0], captions=[RED]).isfinite().all()
    published = painter(encoder="embeddings", vocabulary=None)
    assert published.features({"embedding": torch.ones(2, 6)}).sentence.shape == (2, 6)
    with pytest.raises(ValueError, match="published embeddings, which cannot be made of text"):
        published.sample([0], captions=[RED])


def test_without_captions() -> None:
    gan = painter(encoder="none", vocabulary=None)
    assert gan.sample([0, 1]).shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="was trained without"):
        gan.sample([0], captions=[RED])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "signs"}, "encoder is 'signs'"),
        ({"vocabulary": None}, "has no vocabulary"),
        ({"encoder": "characters", "max_characters": 20}, "max_characters 20 is below 48"),
    ],
)
def test_encoders_that_there_are_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        painter(**options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"encode": "characters"}, "the model reads words, the data give characters"),
        ({"vocabulary": ["<end>", "<unk>", "a"]}, "the data 3 others"),
        ({"resolution": 32}, "the model has resolution 16"),
    ],
)
def test_data_that_do_not_fit(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(painter(), tmp_path, shapes(**data))


def test_caption_errors() -> None:
    gan = painter()
    with pytest.raises(ValueError, match="1 captions for 2 seeds"):
        gan.sample([0, 1], captions=[RED])
    with pytest.raises(ValueError, match="a latent says nothing of what Painter shall draw"):
        gan.generate(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="unconditional"):
        gan.sample([0], captions=[RED], labels=torch.tensor([0]))


FOREIGN = ["<end>", "<unk>", "red", "lgante", "élégante", "птица"]


def read_words(gan: Painter, text: str) -> list[str]:
    return gan.text_encoder.vocabulary.decode(gan.text_encoder.tensors([text])["words"][0].tolist()).split()


def test_unknown_words_are_named_and_captions_of_them_alone_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [str(run), "--output", str(tmp_path), "--seeds", "0", "--trust", "tests", "--text"]
    assert main([*arguments, "a red naïve zzz circle"]) == 0
    told = "lit-gans sample: words that this Painter never saw are not drawn: 'naïve', 'zzz'\n"
    assert capsys.readouterr().err == told
    assert main([*arguments, "a red circle"]) == 0 and capsys.readouterr().err == ""
    (tmp_path / "captions.txt").write_text("a red circle\nптица\n", encoding="utf-8")
    assert main([*arguments[:-1], "--captions", str(tmp_path / "captions.txt")]) == 2
    assert "the caption 'птица' has no word of the vocabulary: use some of its" in capsys.readouterr().err
    gan = painter(encoder="characters", vocabulary=None, encoder_width=4, max_characters=60)
    with pytest.warns(UserWarning, match="not drawn: 'ï'"):
        gan.read(["naïve"])
    with pytest.raises(ValueError, match="the caption '红鸟' has no character of the 70"):
        gan.read(["红鸟"])


def test_the_rule_of_letters_is_saved_and_older_checkpoints_have_the_published_one(tmp_path: Path) -> None:
    for letters, saved, read in ((None, "all", ["élégante"]), ("ascii", "ascii", ["lgante"])):
        gan = painter(vocabulary=FOREIGN, letters=letters)
        assert gan.hparams["letters"] == saved and read_words(gan, "Élégante") == read
        checkpoint = {"state_dict": gan.state_dict(), "hyper_parameters": dict(gan.hparams)}
        gan.on_save_checkpoint(checkpoint)
        path = tmp_path / saved / "checkpoints" / "kimg00000.000.ckpt"
        path.parent.mkdir(parents=True)
        torch.save(checkpoint, path)
        assert read_words(load_run(path, trust="tests"), "Élégante") == read
        assert Painter(encoder_weights=str(path)).hparams["letters"] == saved
        del checkpoint["hyper_parameters"]["letters"]
        torch.save(checkpoint, path)
        old = load_run(path, trust="tests")
        assert read_words(old, "Élégante") == ["lgante"] and old.hparams["letters"] == "ascii"
        assert Painter(encoder_weights=str(path)).hparams["letters"] == "ascii"


def test_a_checkpoint_of_other_words_is_not_continued() -> None:
    gan = painter(vocabulary=FOREIGN)
    checkpoint = {"state_dict": gan.state_dict(), "hyper_parameters": dict(gan.hparams)}
    gan.on_save_checkpoint(checkpoint)
    painter(vocabulary=FOREIGN, letters="ascii").on_load_checkpoint(checkpoint)  # what is set now holds
    with pytest.raises(ValueError, match="reads 6 words, and this one 6 others, such as .blue.: go on with the config"):
        painter(vocabulary=["<end>", "<unk>", "blue", *FOREIGN[3:]]).on_load_checkpoint(checkpoint)


def test_model_and_data_have_one_rule_of_letters(tmp_path: Path) -> None:
    for i, text in enumerate(["a red bird", "a naïve bird"]):
        save(tmp_path / f"{i}.png", picture(i, width=16))
        (tmp_path / f"{i}.txt").write_text(text, encoding="utf-8")
    described = {"path": str(tmp_path), "batch_size": 2, "resolution": 16, "vocabulary": None, "letters": None}

    def shared(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        model = {"class_path": "Painter", "init_args": {"vocabulary": None, "letters": None, **ours}}
        data = {"class_path": "lit_gans.data.CaptionFolder", "init_args": {**described, **theirs}}
        share_vocabulary(model, data)
        return model["init_args"], data["init_args"]

    for ours, theirs, letters, word in (
        ({}, {}, "all", "naïve"),
        ({"letters": "ascii"}, {}, "ascii", "nave"),
        ({}, {"letters": "ascii"}, "ascii", "nave"),
        ({"vocabulary": FOREIGN}, {}, "all", "élégante"),
        ({}, {"vocabulary": ["<end>", "nave"]}, "ascii", "nave"),
    ):
        model, data = shared(ours, theirs)
        assert (model["letters"], data["letters"]) == (letters, letters)
        assert word in model["vocabulary"] and data["vocabulary"] == model["vocabulary"]
        read = CaptionFolder(**data)
        assert read.vocabulary.letters == letters
        check_captions(painter(vocabulary=model["vocabulary"], letters=letters).text_encoder, read)
    with pytest.raises(ValueError, match="letters is 'ascii' in model.init_args, 'all' in data.init_args: .* one rule"):
        shared({"letters": "ascii"}, {"letters": "all"})
    data = CaptionFolder(**{**described, "vocabulary": ["<end>", "bird"], "letters": "all"})
    with pytest.raises(ValueError, match="by letters 'ascii', the data by 'all': set model.init_args.letters=all"):
        check_captions(painter(vocabulary=["<end>", "bird"]).text_encoder, data)


def config(**options: Any) -> dict[str, Any]:
    return {"class_path": "lit_gans.data.ShapeCaptions", "init_args": {"batch_size": 8, "images": 64, **options}}


def test_a_configs_model_and_data_have_the_same_words(run: Path) -> None:
    def shared(ours: dict[str, Any], theirs: list[str] | None) -> tuple[list[str], list[str]]:
        model, data = {"class_path": "Painter", "init_args": ours}, config(vocabulary=theirs)
        share_vocabulary(model, data)
        return model["init_args"]["vocabulary"], data["init_args"]["vocabulary"]

    nothing = {"encoder": "words", "vocabulary": None, "encoder_weights": None}
    assert shared(nothing.copy(), None) == (words(), words())  # the captions'
    assert shared(nothing.copy(), ["<end>", "red"]) == (["<end>", "red"], ["<end>", "red"])
    assert shared({**nothing, "vocabulary": ["<end>", "blue"]}, None) == (["<end>", "blue"], ["<end>", "blue"])
    assert shared({**nothing, "encoder_weights": str(run)}, None) == (None, words())  # the encoder brings its own
    assert shared({**nothing, "encoder": "characters"}, None) == (None, None)


def test_preview_shows_pictures_beside_fakes() -> None:
    gan, data = painter(), shapes()
    images, columns = gan.preview(data, rows=3, columns=4, psi=1.0)
    assert images.shape == (12, 3, 16, 16) and columns == 4
    pictures = data.dataset("test")
    assert torch.equal(images[4], pictures.fetch(torch.tensor([8]))["image"][0])  # of 16, the middle one
    again, _ = gan.preview(data, rows=3, columns=4, psi=1.0)
    assert torch.equal(images, again)


def test_smaller_scales_are_those_of_pillow() -> None:
    import numpy as np
    from PIL import Image

    pixels = torch.randint(0, 256, (1, 1, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    small, same = scaled_images(pixels, [16, 32])
    expected = Image.fromarray(pixels[0, 0].numpy(), mode="F").resize((16, 16), Image.Resampling.BILINEAR)
    torch.testing.assert_close(small[0, 0], torch.from_numpy(np.asarray(expected).copy()), atol=1e-3, rtol=1e-5)
    assert same is pixels


# ---- the verb --------------------------------------------------------------------------------------------------------


def test_files_of_captions(run: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text(f"{BLUE}\n\n")
    paths = sample(
        run, output=tmp_path / "out", seeds="0,7", text=[RED], captions=tmp_path / "captions.txt", trust="tests"
    )
    assert [p.name for p in paths] == [f"caption00{c}_seed000{s}.png" for c in (0, 1) for s in (0, 7)]
    assert BLUE in (tmp_path / "out" / "captions.json").read_text()


def test_without_text_a_run_draws_captions_of_its_data(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="draws what a caption says: give --text"):
        sample(run, output=tmp_path / "out", seeds="0", trust="tests")
    arguments = {"batch_size": 8, "resolution": 16, "images": 64, "test_images": 16, "vocabulary": words()}
    described = {"data": {"class_path": "lit_gans.data.ShapeCaptions", "init_args": arguments}}
    (run / "config.yaml").write_text(yaml.safe_dump(described))
    paths = sample(run, output=tmp_path / "out", seeds="0", trust="tests")
    (run / "config.yaml").unlink()
    told = json.loads((tmp_path / "out" / "captions.json").read_text())
    assert len(paths) == len(set(told.values())) == 8
    assert set(told.values()) <= set(shapes().split_captions("test").all)


def test_a_grid_has_a_row_for_each_caption(run: Path, tmp_path: Path) -> None:
    arguments = [str(run), "--output", str(tmp_path / "grid.png"), "--grid", "--seeds", "0-3", "--trust", "tests"]
    assert main([*arguments, "--text", RED, "--text", BLUE]) == 0
    from PIL import Image

    width, height = Image.open(tmp_path / "grid.png").size
    assert width == 4 * 64 and height > 2 * 64


def test_a_sheet_leads_from_caption_to_caption(run: Path, tmp_path: Path) -> None:
    arguments = [str(run), "--output", str(tmp_path), "--interpolate", "5", "--seeds", "0,3", "--trust", "tests"]
    assert main([*arguments, "--text", RED, "--text", BLUE, "--text", RED]) == 0
    from PIL import Image

    sheet = torch.from_numpy(np.array(Image.open(tmp_path / "sentences.png"))).permute(2, 0, 1)
    head = sheet.shape[1] // 2 - 2 * 64  # above the rows of a pair
    assert sheet.shape[2] == 5 * 64 and head > 0
    small = sheet[:, :, 2::4][:, head:][:, 2 : 2 * 64 : 4].unflatten(1, (2, 16)).unflatten(3, (5, 16))
    first, last = (load_run(run, trust="tests").sample([0, 3], captions=[text, text]) for text in (RED, BLUE))
    assert torch.equal(small[:, :, :, 0], to_uint8(first).transpose(0, 1))
    assert torch.equal(small[:, :, :, 4], to_uint8(last).transpose(0, 1))
    assert len({small[:, 0, :, k].numpy().tobytes() for k in range(5)}) == 5


def test_words_on_the_way_are_those_of_the_nearer_caption() -> None:
    features = painter().read([RED, BLUE, RED])
    walk = between(features, 5)
    assert len(walk.sentence) == 10
    torch.testing.assert_close(walk.sentence[1], features.sentence[0] * 0.75 + features.sentence[1] * 0.25)
    torch.testing.assert_close(walk.sentence[[0, 4, 5, 9]], features.sentence[[0, 1, 1, 2]])
    assert torch.equal(walk.words[1], features.words[0]) and torch.equal(walk.mask[3], features.mask[1])
    assert torch.equal(walk.words[6], features.words[1]) and torch.equal(walk.words[9], features.words[2])


def test_a_long_caption_is_broken_into_lines() -> None:
    images = torch.zeros(1, 2, 3, 16, 16, dtype=torch.uint8)
    short, long = (captioned_grid(images, [text]) for text in ("a bird", "a small red bird " * 9))
    assert short.shape[2] == long.shape[2] == 128 and long.shape[1] > short.shape[1]
    assert (long[:, : long.shape[1] - 64] == 0).any()  # letters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": [" "]}, "blank caption"),
        ({"captions": "nowhere.txt"}, "no file of captions nowhere.txt"),
        ({"text": [RED], "interpolate": 4}, "walks from caption to caption, and there is 1"),
        ({"text": [RED], "attention": True}, "needs a model that attends to the words of captions"),
        ({"text": [RED, BLUE], "interpolate": 1}, "there are 2 steps or more"),
        (
            {"text": [RED], "sticking": True},
            "captions go with single images, a grid or a sheet, not with a sheet of texture sticking",
        ),
    ],
)
def test_errors_of_the_verb(run: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sample(run, output=tmp_path / "out", trust="tests", **options)


def test_only_text_models_draw_text(tmp_path: Path) -> None:
    gan = DCGAN(resolution=16, width=4, z_dim=4, channels=1)
    with pytest.raises(ValueError, match="needs a model that draws what captions say, and a DCGAN does not"):
        save_captioned(gan, [0], captions_of([RED], None), tmp_path, grid=False)
