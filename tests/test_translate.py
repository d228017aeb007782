"""Pictures through translators, in their own size."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Input
from lit_gans.base.images import from_uint8, to_pil, to_uint8
from lit_gans.base.progress import Lines
from lit_gans.editing.translation import read_ids, read_picture, thumbnail, translate_picture
from lit_gans.nn import Draws
from lit_gans.papers.cyclegan import CycleGAN, ResNet
from lit_gans.papers.pix2pix import PatchGAN, Pix2Pix
from lit_gans.papers.pix2pixhd import GlobalGenerator, Pix2PixHD
from lit_gans.runs.pretrained import save_pretrained
from lit_gans.translate import main, translate

from .callbacks.common import tiny_gan

RED = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]


class Stand(Game):
    """A game without training."""

    directions: tuple[str, ...] = ("ab",)

    def __init__(self, *, stride: int = 8, in_channels: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.stride = stride
        self.sizes: list[tuple[int, int]] = []

    def networks(self) -> list[nn.Module]:
        return []

    def takes(self, direction: str) -> Input:
        return Input(self.hparams["in_channels"])

    def preview(self, data: Any, *, rows: int, columns: int, psi: float) -> tuple[Tensor, int]:
        raise AssertionError

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        raise AssertionError

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        raise AssertionError

    def check(self, images: Tensor) -> None:
        assert images.shape[-2] % self.stride == images.shape[-1] % self.stride == 0
        assert images.min() >= -1 and images.max() <= 1 and not torch.is_grad_enabled()
        self.sizes.append(tuple(images.shape[-2:]))


class Negative(Stand):
    """Ink to paper and back: "ba" is darker by half. A picture that is red all over is beyond it."""

    directions = ("ab", "ba")

    def translate(self, images: Tensor, *, direction: str = "ab", draws: Draws | None = None) -> Tensor:
        self.check(images)
        made = -images if direction == "ab" else (images - 1) / 2
        return torch.where((images[:, :1].amin() == 1) & (images[:, 1:].amax() == -1), torch.nan, made)


class Fussy(Stand):
    """Takes pictures of 16 px and more, and loses a row of them."""

    def translate(self, images: Tensor, *, direction: str = "ab", draws: Draws | None = None) -> Tensor:
        return nn.functional.pad(images, (9, 9, 9, 9), mode="reflect")[:, :, 9:-10, 9:-9]


class Noise(Stand):
    """Nothing but noise."""

    def translate(self, images: Tensor, *, direction: str = "ab", draws: Draws | None = None) -> Tensor:
        return 2 * draws.uniform(*images.shape) - 1


def saved(folder: Path, game: Any) -> Path:
    """A run folder with one checkpoint."""
    checkpoint = {"state_dict": game.state_dict(), "hyper_parameters": dict(game.hparams)}
    game.on_save_checkpoint(checkpoint)
    path = folder / "checkpoints" / "kimg00000.000.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(checkpoint, path)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("negative"), Negative())


def picture(height: int, width: int, *, seed: int = 0, channels: int = 3) -> Tensor:
    """uint8 [C, H, W], smooth enough for any file format."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 3, 3, generator=generator)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0].mul(200).add(20).byte()


def write(path: Path, image: Tensor) -> Tensor:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil(image).save(path)
    return image


def pixels(path: Path) -> Tensor:
    array = np.array(Image.open(path))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_a_photo_of_1000_by_700_px_keeps_its_size_also_in_tiles(run: Path, tmp_path: Path) -> None:
    photo = write(tmp_path / "photo.png", picture(700, 1000))
    told: list[tuple[float, int]] = []
    done = translate(run, tmp_path / "photo.png", tile=512, trust="tests", progress=lambda *at: told.append(at))
    assert done.files == [tmp_path / "photo-ab" / "photo.png"] and done.sheets == [] and done.failed == {}
    assert (pixels(done.files[0]).int() + photo.int() - 255).abs().max() <= 1
    assert told[-1] == (1, 1) and len(told) == 2 * 3 and told == sorted(told)
    back = translate(run, tmp_path / "photo.png", direction="ba", output=tmp_path / "back", tile=0, trust="tests")
    assert pixels(back.files[0]).equal(to_uint8((from_uint8(photo) - 1) / 2))


def test_what_the_model_sees_is_reflected_to_its_stride_and_no_larger_than_a_tile() -> None:
    model = Negative(stride=16)
    small = picture(5, 40)
    assert translate_picture(model, small).equal(255 - small) and model.sizes == [(16, 48)]
    model.sizes.clear()
    translate_picture(model, picture(100, 40), tile=48, overlap=16)
    assert set(model.sizes) == {(48, 48)} and len(model.sizes) == 3


def test_a_folder_with_broken_files_all_others_are_done(run: Path, tmp_path: Path, capsys: Any) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    whole = {name: write(folder / name, picture(20, 30, seed=i)) for i, name in enumerate(["a.png", "deep/b.png"])}
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    (folder / "notes.txt").write_text("no picture")
    write(folder / "cut.png", picture(64, 64))
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:200])
    write(folder / "red.png", RED.expand(3, 12, 12))
    command = [str(run), str(folder), "--output", str(output), "--trust", "tests"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert out == f"2 pictures in {output}\n"
    said, lines = err.splitlines()[:-4], err.splitlines()[-4:]
    assert said[1:3] == ["  used     5 pictures (4 .png, 1 .jpg)", "  left out 1 .txt, 1 that cannot be used"]
    assert len(lines) == 4 and lines[0].startswith("lit-gans translate: broken.jpg: cannot be read: ")
    assert lines[1].startswith("lit-gans translate: cut.png: cannot be read: ")
    assert lines[2] == "lit-gans translate: red.png: the model gives NaN or infinity for it: use an earlier checkpoint"
    assert lines[3] == "lit-gans translate: 3 of 5 pictures were passed over"
    assert sorted(p.relative_to(output).as_posix() for p in output.rglob("*.*")) == ["a.png", "deep/b.png"]
    assert all(pixels(output / name).equal(255 - image) for name, image in whole.items())
    for name in ("broken.jpg", "cut.png", "red.png"):
        (folder / name).unlink()
    assert main(command) == 0 and "lit-gans translate:" not in capsys.readouterr().err


def test_what_a_model_raises_is_the_failure_of_that_picture(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    run = saved(tmp_path / "run", CycleGAN(width=2, blocks=1, discriminator_width=2))
    for name, size in (("a.png", (16, 20)), ("thin.png", (120, 4)), ("z.png", (20, 16))):
        write(tmp_path / "in" / name, picture(*size))
    assert main([str(run), str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--sheet"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("2 pictures in ") and sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [
        "a.png", "z.png",
    ]  # fmt: skip
    first, last = (line for line in err.splitlines() if line.startswith("lit-gans translate: "))
    assert first.startswith("lit-gans translate: thin.png: the model fails at 4 x 120 px of it with RuntimeError: ")
    assert first.endswith("(LIT_GANS_TRACEBACK=1 shows where)")
    assert last == "lit-gans translate: 1 of 3 pictures were passed over"
    with pytest.raises(ValueError, match="the model fails at 8 x 8 px of it with RuntimeError"):
        translate_picture(Fussy(), picture(8, 8))
    with pytest.raises(ValueError, match=r"makes \[1, 3, 15, 16\] of \[1, 3, 16, 16\], and no picture of its size"):
        translate_picture(Fussy(), picture(16, 16))
    monkeypatch.setenv("LIT_GANS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="the model fails"):
        translate(run, tmp_path / "in", output=tmp_path / "out")


def test_the_thinnest_picture_has_a_thumbnail() -> None:
    for height, width in ((1, 3000), (3000, 1)):
        assert thumbnail(torch.zeros(3, height, width, dtype=torch.uint8)).unique().tolist() == [0, 128]


def test_nothing_is_written_through_a_link_out_of_a_run(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "photo.png", picture(16, 16))
    (tmp_path / "theirs" / "checkpoints").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "theirs" / "out").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="out leads by a link to .*outside, out of"):
        translate(run, tmp_path / "photo.png", output=tmp_path / "theirs" / "out", trust="tests")
    assert not list((tmp_path / "outside").iterdir())


def test_files_are_turned_upright_and_named_apart(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    turned = Image.new("RGB", (30, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "x.jpg", exif=exif)
    Image.new("RGBA", (9, 9)).save(folder / "x.png")
    Image.new("L", (8, 8), 7).save(folder / "y.webp", lossless=True)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    for source in (folder, tmp_path / "in.zip"):
        done = translate(run, source, output=tmp_path / f"{source.name}-out", trust="tests")
        assert [path.name for path in done.files] == ["x.jpg.png", "x.png.png", "y.png"] and not done.failed
        assert pixels(done.files[0]).shape == (3, 30, 20)
        assert pixels(done.files[1]).unique().tolist() == [0]  # transparency was laid on white
        assert pixels(done.files[2]).unique().tolist() == [248]


def test_sheets_show_input_beside_output(run: Path, tmp_path: Path) -> None:
    for i in range(17):
        write(tmp_path / "in" / f"{i:02d}.png", picture(256, 256, seed=i))
    done = translate(run, tmp_path / "in", output=tmp_path / "out", sheet=True, trust="tests")
    assert done.sheets == [tmp_path / "out" / "sheets" / name for name in ("001.png", "002.png")]
    first, second = map(pixels, done.sheets)
    assert first.shape == (3, 4 * 256, 8 * 256) and second.shape == (3, 256, 512)
    assert first[:, 256:512, 512:768].equal(picture(256, 256, seed=5))
    assert first[:, 256:512, 768:1024].equal(255 - picture(256, 256, seed=5))
    wide = thumbnail(torch.zeros(1, 10, 40, dtype=torch.uint8))
    assert wide.shape == (3, 256, 256) and wide[0, :96].unique().tolist() == [128] and wide[:, 128].max() == 0


def test_noise_follows_from_the_seed_alone(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", Noise())
    for name in ("a.png", "b.png"):
        write(tmp_path / "in" / name, picture(16, 16))
    a, b = map(pixels, translate(run, tmp_path / "in", output=tmp_path / "1", trust="tests").files)
    (other,) = translate(run, tmp_path / "in" / "a.png", output=tmp_path / "2", seed=1, trust="tests").files
    assert a.equal(b) and a.float().std() > 50 and not pixels(other).equal(a)


def test_grey_models_take_grey_pictures(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", Noise(in_channels=1))
    write(tmp_path / "in" / "a.png", picture(16, 16))
    (path,) = translate(run, tmp_path / "in", output=tmp_path / "out", trust="tests").files
    assert Image.open(path).mode == "L"


# ---- models ----------------------------------------------------------------------------------------------------------


def test_cyclegan_translates_there_and_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    game = CycleGAN(width=2, blocks=1, discriminator_width=2, channels_b=1, identity_weight=0)
    photo, run = write(tmp_path / "photo.png", picture(18, 23)), saved(tmp_path / "run", game)
    (path,) = translate(run, tmp_path / "photo.png", output=tmp_path / "out").files
    assert pixels(path).shape == (1, 18, 23) and pixels(path).equal(translate_picture(game, photo))
    (path,) = translate(run, path, direction="ba", output=tmp_path / "back").files
    assert pixels(path).shape == (3, 18, 23)


def test_models_that_do_not_translate_say_so(tmp_path: Path) -> None:
    write(tmp_path / "photo.png", picture(8, 8))
    pix2pix = saved(tmp_path / "pix2pix", Pix2Pix(width=2, levels=3, discriminator_width=2))
    with pytest.raises(ValueError, match="direction 'ba': .*pix2pix translates only ab"):
        translate(pix2pix, tmp_path / "photo.png", direction="ba")
    with pytest.raises(ValueError, match="holds a VanillaGAN, which translates nothing: see lit-gans sample"):
        translate(saved(tmp_path / "gan", tiny_gan()), tmp_path / "photo.png")
    save_pretrained(PatchGAN(width=2), tmp_path / "d", arguments={"width": 2})
    with pytest.raises(ValueError, match="d holds a PatchGAN alone, which makes no images: give a run"):
        translate(tmp_path / "d", tmp_path / "photo.png")
    size = {"width": 2, "blocks": 1, "in_channels": 4}
    save_pretrained(ResNet(**size), tmp_path / "g", arguments=size)
    with pytest.raises(ValueError, match="g takes 4 channels, and pictures have 1 or 3"):
        translate(tmp_path / "g", tmp_path / "photo.png")


def test_converted_generators_translate_each_in_its_direction(tmp_path: Path) -> None:
    torch.manual_seed(0)
    photo = write(tmp_path / "photo.png", picture(12, 16))
    networks = {}
    for name, folder in (("G_A", tmp_path / "ours"), ("G_B", tmp_path / "ours" / "G_B")):
        networks[name] = ResNet(width=2, blocks=1).eval()
        save_pretrained(networks[name], folder, arguments={"width": 2, "blocks": 1})
        (folder / "official.json").write_text(json.dumps({"name": name}))
    for direction, name in (("ab", "G_A"), ("ba", "G_B")):
        done = translate(tmp_path / "ours", tmp_path / "photo.png", direction=direction)
        assert pixels(done.files[0]).equal(to_uint8(networks[name](from_uint8(photo)[None])[0]))
    (tmp_path / "ours" / "G_B" / "official.json").unlink()
    with pytest.raises(ValueError, match="direction 'ba': .*G_B translates only ab"):
        translate(tmp_path / "ours" / "G_B", tmp_path / "photo.png", direction="ba")


LABELS = np.array([[0, 1, 1], [2, 1, 0]], dtype=np.uint8).repeat(4, 0).repeat(4, 1)
IDS = np.array([[0, 26001, 26002], [7, 26002, 0]], dtype=np.uint16).repeat(4, 0).repeat(4, 1)


def label_maps(folder: Path) -> tuple[Path, Path]:
    """Folders of labels, one with a palette, and of instances."""
    indexed = Image.fromarray(LABELS, "P")
    indexed.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    for name in ("label", "inst"):
        (folder / name).mkdir()
    indexed.save(folder / "label" / "x_gtFine_labelIds.png")
    Image.fromarray(LABELS).save(folder / "label" / "y.png")
    for name in ("x_gtFine_instanceIds.png", "y.png"):
        Image.fromarray(IDS).save(folder / "inst" / name)
    return folder / "label", folder / "inst"


def test_label_maps_are_translated_with_their_instances(tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = {"width": 2, "downsamplings": 1, "blocks": 1}
    game = Pix2PixHD(num_labels=3, discriminator_width=2, scales=1, perceptual_weight=0, **size)
    run, (labels, ids) = saved(tmp_path / "run", game), label_maps(tmp_path)
    images, instance = from_uint8(torch.from_numpy(LABELS))[None, None], torch.from_numpy(IDS.astype(np.int64))[None]
    done = translate(run, labels, instances=ids, output=tmp_path / "out")
    expected = to_uint8(game.translate(images, instance=instance)[0])
    assert len(done.files) == 2 and all(pixels(path).equal(expected) for path in done.files)
    (path,) = translate(
        run, labels / "y.png", instances=ids / "y.png", output=tmp_path / "one", tile=8, overlap=2
    ).files
    assert pixels(path).shape == expected.shape
    plain = translate(run, labels, output=tmp_path / "plain").files
    assert pixels(plain[0]).equal(to_uint8(game.translate(images)[0])) and not pixels(plain[0]).equal(expected)
    for path in (labels / "x_gtFine_labelIds.png", labels / "y.png"):  # as training reads them too
        Image.fromarray(LABELS.astype(np.uint16)).save(path)
    deep = translate(run, labels, instances=ids, output=tmp_path / "deep").files
    assert len(deep) == 2 and all(pixels(path).equal(expected) for path in deep)
    told = {"num_labels": 3, "instances": True}
    save_pretrained(game.generator, tmp_path / "converted", arguments={"in_channels": 4, **size}, told=told)
    again = translate(tmp_path / "converted", labels, instances=ids, output=tmp_path / "again")
    assert pixels(again.files[0]).equal(expected)


def test_label_maps_that_cannot_be_used(tmp_path: Path) -> None:
    labels, ids = label_maps(tmp_path)
    taken = Input(1, labels=True)
    photo = tmp_path / "photo.png"
    write(photo, picture(8, 8))
    with pytest.raises(ValueError, match="cannot be read: is in mode RGB; a map has one number per pixel"):
        read_picture(lambda: photo.open("rb"), taken)
    Image.fromarray(IDS).save(tmp_path / "many.png")
    with pytest.raises(ValueError, match="cannot be read: has the label 26001, and labels run to 255 at most"):
        read_picture(lambda: (tmp_path / "many.png").open("rb"), taken)
    with pytest.raises(ValueError, match="its instances cannot be read: is in mode RGB"):
        read_ids(lambda: photo.open("rb"))
    with pytest.raises(ValueError, match="is 8 x 8 px, its instances 9 x 8"):
        translate_picture(Negative(), picture(8, 8), instance=torch.zeros(8, 9, dtype=torch.int64))
    (ids / "y.png").unlink()
    network, size = tmp_path / "network", {"in_channels": 4, "width": 2, "downsamplings": 1, "blocks": 1}
    save_pretrained(GlobalGenerator(**size), network, arguments=size, told={"num_labels": 3, "instances": True})
    with pytest.raises(ValueError, match="files without a partner of the same name: .*y.png"):
        translate(network, labels, instances=ids)
    for told, message in (
        ({}, r"takes 4 channels, and pictures have 1 or 3: .* lit-gans convert --num_labels 3 --instances"),
        ({"num_labels": 2, "instances": True}, "1 of the 4 channels .* are an encoder's features"),
        ({"num_labels": 4, "instances": True}, "takes 4 channels, and 4 labels and the edges are 5"),
        ({"classes": 3}, "unexpected keyword argument 'classes'"),
    ):
        save_pretrained(GlobalGenerator(**size), network, arguments=size, told=told)
        with pytest.raises(ValueError, match=message):
            translate(network, labels)
    with pytest.raises(ValueError, match="run translates pictures, which have no instances"):
        translate(saved(tmp_path / "run", Noise()), photo, instances=photo, trust="tests")


# ---- arguments and the command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile": 12}, "tile 12 is no multiple of the model's stride of 8 px: use 72"),
        ({"overlap": -1}, "overlap is -1"),
        ({"source": "nothing.png"}, "nothing.png is neither a folder nor a file"),
        ({"output": "in"}, "is where the pictures are, or below it"),
        ({"output": "in/deep"}, "is where the pictures are, or below it"),
        (
            {"source": "in/a.png", "output": "in"},
            "a.png would be written over: give an output folder other than its own",
        ),
        ({"output": "in/a.png"}, "is a file: give a folder"),
        ({"run": "in"}, "no checkpoint in .*: is .* a run folder"),
        ({"trust": None}, "'tests.test_translate.Negative' is not one of lit_gans.papers"),
        ({"sheet": True}, "has a folder 'sheets', which is where sheets go"),
    ],
)
def test_arguments_that_cannot_be_met(run: Path, tmp_path: Path, arguments: dict, message: str) -> None:
    write(tmp_path / "in" / "a.png", picture(8, 8))
    write(tmp_path / "in" / "sheets" / "a.png", picture(8, 8))
    paths = {name: tmp_path / arguments[name] for name in ("run", "source", "output") if name in arguments}
    given = {"run": run, "source": tmp_path / "in", "output": tmp_path / "out", "trust": "tests"} | arguments | paths
    with pytest.raises((ValueError, OSError), match=message):
        translate(given.pop("run"), given.pop("source"), **given)
    assert not (tmp_path / "out").exists()


def test_the_command_tells_files_and_mistakes(
    run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.1" / "a.png", picture(8, 8))
    monkeypatch.chdir(tmp_path / "in.1")
    for source, folder in ((str(tmp_path / "in.1"), tmp_path / "in.1-ab"), (".", tmp_path / "in.1-ab")):
        assert main([str(run), source, "--trust", "tests", "--sheet", "--tile", "0"]) == 0
        assert capsys.readouterr().out == f"{folder / 'a.png'}\nsheets: {folder / 'sheets' / '001.png'}\n"
    assert main([str(tmp_path / "nothing"), str(tmp_path / "in.1")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lit-gans translate: ") and "does not exist" in error and error.count("\n") == 1


def test_lines_tell_the_time_left(capsys: Any) -> None:
    times = iter([0.0, 5.0, 30.0, 35.0])
    lines = Lines("pictures", now=lambda: next(times))
    for done in (0.5, 2.0, 2.5):
        lines(done, 8)
    assert capsys.readouterr().err == "2/8 pictures  25%  0:00:30 < 0:01:30\n"
