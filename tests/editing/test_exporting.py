"""Generators as files of their own: what goes in and out, at any batch, and that nothing of this package is needed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_gans import export as verb
from lit_gans.adversarial.capabilities import Grows, Translates, can
from lit_gans.base.images import from_uint8
from lit_gans.editing import exporting
from lit_gans.editing.exporting import BATCHES, TOLERANCE, Exported, save_exported
from lit_gans.editing.translation import translate_picture
from lit_gans.nn.resample import upsample2d
from lit_gans.papers import CycleGAN
from lit_gans.papers.pix2pixhd.clusters import class_of
from lit_gans.papers.pix2pixhd.instances import lowest_label, number_instances
from lit_gans.runs.pretrained import save_pretrained
from tests.adversarial.tiny import build
from tests.cases import CASES
from tests.papers import test_attngan, test_pix2pix, test_pix2pixhd, test_stackgan
from tests.papers.games import GANS, OTHERS
from tests.strangers.styled import Styled

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "export.md"
FINISHED = {
    "stackgan-whole": lambda: test_stackgan.tiny(stage1_kimg=0.0),
    "pix2pixhd-whole": lambda: test_pix2pixhd.tiny(enhancers=1, global_kimg=0.0, fix_global_kimg=0.0),
    "pix2pixhd-edges": lambda: test_pix2pixhd.tiny(features=0, instances=True),
    "pix2pixhd-pictures": lambda: test_pix2pixhd.tiny(num_labels=0, features=0, instances=False),
}  # fmt: skip
FAMILIES = {name: build for name, (build, _) in (GANS | OTHERS).items() if "damsm" not in name and "joint" not in name}
FAMILIES |= FINISHED
PX = 32


def styled() -> Styled:
    torch.manual_seed(0)
    model = Styled(resolution=8, channels=3)
    model.generator_ema.w_mean.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small styled generator under the name that the page's lines read."""
    return save_exported(styled(), tmp_path_factory.mktemp("onnx") / "digits.onnx")


# ---- what is written -------------------------------------------------------------------------------------------------


def test_the_card_says_what_goes_in_and_comes_out(digits: Exported) -> None:
    card = json.loads(digits.card.read_text())
    assert card == digits.told and digits.card.name == "digits.onnx.json"
    assert {name: (one["shape"], one["dtype"]) for name, one in card["inputs"].items()} == {
        "z": (["N", 4], "float32"), "psi": ([], "float32"),
    }  # fmt: skip
    assert card["inputs"]["z"]["meaning"] == "latents, Normal: N(0, 1)."
    assert card["output"]["images"]["shape"] == ["N", 3, 8, 8]
    assert card["largest_difference"].keys() == {"1", "3", "16"}
    assert max(card["largest_difference"].values()) <= TOLERANCE
    assert card["versions"].keys() == {"lit_gans", "torch", "onnx", "onnxscript", "onnxruntime"}
    assert card["opset"] == 18 and len(card["weights_sha256"]) == 64
    assert card["licence"].startswith("The weights are under the terms of those who trained or released them")


def test_the_file_is_the_generator_alone_and_tells_no_paths(digits: Exported) -> None:
    import onnx

    model, proto = styled(), onnx.load(digits.file)
    onnx.checker.check_model(proto, full_check=True)
    weights = sum(p.numel() for p in model.generator.parameters())
    assert 4 * weights < digits.file.stat().st_size < 4 * weights + 10_000  # and not the discriminator's too
    assert str(Path(exporting.__file__).parents[1]).encode() not in digits.file.read_bytes()
    assert [one.name for one in proto.graph.input] == ["z", "psi"]
    assert [one.name for one in proto.graph.output] == ["images"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_psi_is_an_input(digits: Exported) -> None:
    model, run = styled(), exporting._onnx_run(digits.file)
    z = model.seeded_latents(range(5))
    for psi in (0.0, 0.5, 1.0):
        assert torch.allclose(run(z=z, psi=torch.tensor(psi)), model.generate(z, psi=psi), atol=1e-5)


@pytest.mark.slow
def test_weights_are_averaged_unless_raw(digits: Exported, tmp_path: Path) -> None:
    model = styled()
    nn.init.normal_(model.generator.to_image.bias)
    z = model.seeded_latents(range(5))
    raw = save_exported(model, tmp_path / "raw.onnx", ema=False)
    assert raw.told["weights"] == "as trained, not averaged"
    assert raw.told["weights_sha256"] != digits.told["weights_sha256"]
    drawn = exporting._onnx_run(raw.file)(z=z, psi=torch.tensor(1.0))
    assert torch.allclose(drawn, model.generate(z, ema=False), atol=1e-5)
    assert not torch.allclose(drawn, model.generate(z), atol=1e-2)


def test_the_lines_of_the_page_run_without_this_package(digits: Exported) -> None:
    snippet = re.search(r"```python\n(import json\n.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert len(snippet.splitlines()) <= 20
    hidden = "import sys\nfor name in ('torch', 'lit_gans'): sys.modules[name] = None\n"
    subprocess.run([sys.executable, "-c", hidden + snippet], cwd=digits.file.parent, check=True, capture_output=True)
    import PIL.Image

    sheet = from_uint8(torch.from_numpy(np.array(PIL.Image.open(digits.file.parent / "digits.png"))))
    z = np.random.default_rng(seed=0).standard_normal((16, 4), dtype=np.float32)
    expected = styled().generate(torch.from_numpy(z), psi=0.7)
    shown = sheet.unflatten(0, (4, 8)).unflatten(2, (4, 8)).permute(0, 2, 4, 1, 3).flatten(0, 1)
    assert (shown - expected).abs().max() <= 1.01 / 127.5


@pytest.mark.slow
def test_the_verb_writes_a_run_for_torch_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_pretrained(CASES["gan"](), tmp_path / "gan")
    file = tmp_path / "gan.pt2"
    assert verb.main([str(tmp_path / "gan"), "--output", str(file)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{file}: z [N, 8] float32 -> images [N, 1, 8, 8] float32"
    assert printed[-1] == f"card: {file}.json"
    code = (
        "import sys, torch\nsys.modules['lit_gans'] = None\n"
        f"print(tuple(torch.export.load({str(file)!r}).module()(z=torch.zeros(7, 8)).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(7, 1, 8, 8)"
    assert str(Path(exporting.__file__).parents[1]).encode() not in file.read_bytes()


# ---- parts of graphs -------------------------------------------------------------------------------------------------


class Filter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return upsample2d(x, torch.tensor([1.0, 3.0, 3.0, 1.0]))


def test_a_filter_of_colours_leaves_the_batch_open() -> None:
    """Elsewhere it takes a batch of few channels for one image of many."""
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(Filter(), (torch.randn(3, 3, 8, 8),), dynamic_shapes=shapes)
    x = torch.randn(5, 3, 8, 8)
    assert torch.allclose(program.module()(x), Filter()(x), atol=1e-6)


def test_the_lowest_class_of_an_instance_is_found_without_counting_them() -> None:
    label, instance = torch.randint(5, (2, 3, 4, 6)).unbind(), torch.randint(4, (3, 4, 6))
    numbers, _ = number_instances(instance)
    assert torch.equal(lowest_label(label[0], instance), class_of(label[0], numbers)[numbers])


@pytest.mark.parametrize("encoder", ["words", "embeddings"])
def test_made_up_features_have_the_form_of_those_that_are_read(encoder: str) -> None:
    model = test_attngan.attngan() if encoder == "words" else OTHERS["stackgan"][0](encoder=encoder)
    made = model.made_up_features(range(4))
    if encoder == "words":
        read = model.read(["a red circle"] * 4)
        assert [(t.shape, t.dtype) for t in made] == [(t.shape, t.dtype) for t in read]
        assert made.mask.sum(1).tolist() == [1, 2, 3, 4] and not made.words[0, 1:].any()
    assert torch.equal(made.sentence[2:], model.made_up_features([2, 3]).sentence)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_arguments_that_have_no_place(tmp_path: Path) -> None:
    model = styled()
    with pytest.raises(ValueError, match=r"ends with neither .pt2 \(torch.export\) nor .onnx: give a file that does"):
        save_exported(model, tmp_path / "model.pb")
    with pytest.raises(ValueError, match="size and direction are of translators, and a Styled is none: leave them out"):
        save_exported(model, tmp_path / "model.pt2", size=[64])
    translator = CycleGAN(width=2, blocks=1, discriminator_width=2)
    with pytest.raises(ValueError, match=r"size \[30\] of pictures: .* this model's stride of 4 px divides"):
        save_exported(translator, tmp_path / "model.pt2", size=[30])
    with pytest.raises(ValueError, match="direction 'c': this model translates only ab and ba"):
        save_exported(translator, tmp_path / "model.pt2", direction="c")
    with pytest.raises(ValueError, match="lit-gans export needs a model that draws images of latents, and a TinyTrans"):
        save_exported(build(), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"the extra 'onnx': pip install 'lit-gans\[onnx\]'; or give .* \.pt2"):
        save_exported(styled(), tmp_path / "model.onnx")


def test_a_file_that_draws_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "traced", lambda *given: None)
    monkeypatch.setattr(exporting, "_write_pt2", lambda program, path, names: path.write_text("a new one"))
    monkeypatch.setattr(exporting, "_pt2_run", lambda path: lambda z, psi: styled().generate(z, psi=0.6))
    (tmp_path / "model.pt2").write_text("an earlier one")
    with pytest.raises(ValueError, match="differs from the model by .*'16': .* nothing is written; try the other"):
        save_exported(styled(), tmp_path / "model.pt2")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier one"]


# ---- every family ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_at_any_batch(name: str, suffix: str, tmp_path: Path) -> None:
    """Compared with the model at batches of 1, 3 and 16 when it is written, and at another one here."""
    model, size = FAMILIES[name]().eval().requires_grad_(False), None
    if can(model, Grows):
        model.set_progress(model.resolution, 0.5)
    for direction in getattr(model, "directions", ("ab",)):
        size = [max(PX, model.stride)] if can(model, Translates) else None
        done = save_exported(model, tmp_path / f"model{suffix}", direction=direction, size=size)
        assert max(done.told["largest_difference"].values()) <= TOLERANCE and 5 not in BATCHES
        sides = exporting.sides(model, size) if size else None
        function = exporting.function_of(model, ema=True, direction=direction, size=sides, seed=0)
        given = exporting.examples(function.inputs, 5)
        run = (exporting._onnx_run if suffix == ".onnx" else exporting._pt2_run)(done.file)
        made = run(**{key: one for key, one in given.items() if key in done.told["inputs"]})
        assert (made - function.model(**given)).abs().max() <= TOLERANCE


@pytest.mark.slow
def test_pix2pixs_noise_is_that_of_a_translation_with_the_seed(tmp_path: Path) -> None:
    model = test_pix2pix.CASES["batch"]().eval()
    px = model.stride
    done = save_exported(model, tmp_path / "model.onnx", size=[px], seed=7)
    assert done.told["fixed"] == "the size of pictures, and the noise (dropout), to the masks of seed 7"
    picture = torch.randint(256, (model.channels[0], px, px), dtype=torch.uint8)
    made = exporting._onnx_run(done.file)(image=from_uint8(picture)[None])[0]
    assert (made - from_uint8(translate_picture(model, picture, seed=7))).abs().max() <= 1 / 127.5
    assert (made - from_uint8(translate_picture(model, picture, seed=8))).abs().max() > 2 / 127.5


@pytest.mark.slow
def test_pix2pixhd_is_told_instances_where_it_looks_at_them(tmp_path: Path) -> None:
    model = test_pix2pixhd.tiny().eval()
    model.clusters.centres.normal_()
    model.clusters.counts.fill_(1)
    done = save_exported(model, tmp_path / "model.onnx", size=[PX, 2 * PX])
    assert done.told["inputs"].keys() == {"image", "instance"}
    assert done.told["inputs"]["instance"]["shape"] == ["N", PX, 2 * PX]
