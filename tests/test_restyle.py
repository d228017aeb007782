"""`lit-gans restyle`: files, messages, and what is read again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gans import edit
from lit_gans.base.images import to_uint8
from lit_gans.editing.found import write_found
from lit_gans.editing.projector import KIND, noise_maps
from lit_gans.editing.text import train_pair
from lit_gans.restyle import main
from lit_gans.runs.pretrained import save_pretrained
from tests.callbacks.common import tiny_gan
from tests.editing.test_image_text import colours
from tests.editing.text_models import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator, and a pair that knows colours."""
    folder = tmp_path_factory.mktemp("restyle")
    save_pretrained(tiny(), folder / "gan")
    images, captions = colours(48)
    how = {"features": "torchvision:squeezenet1_1", "weights": "random", "px": 32, "epochs": 2, "batch_size": 16}
    train_pair([images], captions, **how)[0].save(folder / "pair.safetensors")
    return folder


def restyled(folder: Path, *argv: str) -> int:
    pair = ["--image_text", str(folder / "pair.safetensors"), "--image_text_weights", "random", "--device", "cpu"]
    return main([str(folder / "gan"), "a red picture", *pair, *argv])


@pytest.mark.parametrize(
    "method, numbers, strengths",
    [
        ("latent", ["--steps", "2"], []),
        ("mapper", ["--steps", "2"], ["0.1", "0.2"]),
        ("global", [*"--effect_images 1 --samples 200 --threshold 0 --neutral".split(), "a blue picture"], ["-4", "4"]),
        ("stylemc", ["--samples", "9"], ["1"]),
    ],
)
def test_each_method_writes_a_sheet_and_keeps_what_it_finds(
    method: str, numbers: list[str], strengths: list[str], folder: Path, tmp_path: Path
) -> None:
    kept = [] if method == "latent" else ["--file", str(tmp_path / "kept.safetensors")]
    by = ["--by", *strengths] if strengths else []
    argv = ["--method", method, *kept, *numbers, *by, "--seeds", "0-1", "--output", str(tmp_path / "a.png")]
    assert restyled(folder, *argv) == 0
    sheet, columns = Image.open(tmp_path / "a.png"), 1 + max(len(strengths), 1)
    assert sheet.width * 2 > sheet.height * columns * 0.9 and sheet.width < sheet.height * columns
    before = (tmp_path / "a.png").read_bytes()
    assert restyled(folder, *argv) == 0 and (tmp_path / "a.png").read_bytes() == before
    assert edit.main([str(tmp_path / "a.yaml"), "--output", str(tmp_path / "b.png"), "--device", "cpu"]) == 0
    cell = (sheet.width + 2) // columns
    first = np.array(sheet)[:64, cell : cell + 64][::4, ::4]  # pixels are enlarged to 4 x 4
    assert (np.array(Image.open(tmp_path / "b.png")) == first).all()


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--method", "mapper"], "method 'mapper' keeps what it finds: give file=x.safetensors"),
        (["--file", "a.safetensors"], "method 'latent' keeps nothing: leave file out"),
        (["--method", "global", "--file", "a.bin"], "file a.bin is no .safetensors file"),
        (["--output", "a.jpg"], "output a.jpg is no .png file"),
    ],
)
def test_what_cannot_be_met(argv: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert restyled(folder, *argv) == 2
    assert message in capsys.readouterr().err


def test_other_models_and_texts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    places = ["--file", str(tmp_path / "a.safetensors"), "--output", str(tmp_path / "a.png")]
    kept = ["--method", "stylemc", "--samples", "9", *places]
    assert restyled(folder, *kept) == 0
    other = tiny()
    with torch.no_grad():
        other.generator_ema.synthesis.blocks["4"].const.add_(1)
    save_pretrained(other, tmp_path / "other")
    pair = ["--image_text", str(folder / "pair.safetensors"), "--image_text_weights", "random"]
    assert main([str(tmp_path / "other"), "a red picture", *pair, *kept]) == 2
    assert "was made with a generator of the weights" in capsys.readouterr().err
    assert main([str(folder / "gan"), "a blue picture", *pair, *kept]) == 2
    assert "leads to ['a red picture'], not to 'a blue picture'" in capsys.readouterr().err
    save_pretrained(tiny_gan(), tmp_path / "plain")
    assert main([str(tmp_path / "plain"), "a red picture", *pair]) == 2
    assert "editing by text needs a model that shows its layers, and a VanillaGAN does not" in capsys.readouterr().err


def test_a_projections_noise_maps_are_drawn(folder: Path, tmp_path: Path) -> None:
    gan = tiny()
    with torch.no_grad():
        for name, parameter in gan.named_parameters(remove_duplicate=False):
            if name.endswith("noise_strength"):
                parameter.fill_(1.0)
    save_pretrained(gan, tmp_path / "gan")
    ws = gan.styles(gan.seeded_latents([0]))
    noise = {f"noise.{name}": torch.ones_like(one) for name, one in noise_maps(gan).items()}
    write_found(tmp_path / "w.safetensors", KIND, {"ws": ws, **noise}, {})
    pair = ["--image_text", str(folder / "pair.safetensors"), "--image_text_weights", "random", "--device", "cpu"]
    argv = ["--latent", str(tmp_path / "w.safetensors"), "--steps", "1", "--by", "0", "--output"]
    assert main([str(tmp_path / "gan"), "a red picture", *pair, *argv, str(tmp_path / "a.png")]) == 0
    assert edit.main([str(tmp_path / "a.yaml"), "--output", str(tmp_path / "b.png"), "--device", "cpu"]) == 0
    sheet, own = np.array(Image.open(tmp_path / "a.png")), to_uint8(gan.synthesize(ws))[0].permute(1, 2, 0).numpy()
    drawn = np.array(Image.open(tmp_path / "b.png"))
    assert (sheet[:64:4, :64:4] == drawn).all() and (drawn != own).any()
