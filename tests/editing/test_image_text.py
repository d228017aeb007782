"""Models that compare images with texts, and the network of identities."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lit_gans.base.images import from_uint8
from lit_gans.data.attributes import attribute_captions, read_attributes
from lit_gans.editing.text.building import build_image_text
from lit_gans.editing.text.identity import _BLOCKS, FaceIdentity, FaceRecognition, build_identity
from lit_gans.editing.text.image_text import CLIP_TEMPLATES, CLIPImageText, ImageText, area_resized
from lit_gans.editing.text.pair import read_pair, train_pair
from lit_gans.papers import DAMSM, JointEmbedding
from lit_gans.runs.pretrained import save_pretrained
from tests.editing.text_models import tiny
from tests.metrics.test_text import NAME
from tests.metrics.test_text import tiny as clip_folder  # noqa: F401
from tests.papers.captioned import TINY


def test_area_resized_is_repeating_and_averaging() -> None:
    images = torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for size in (8, 20, 28):
        large = images.repeat_interleave(size, 2).repeat_interleave(size, 3)
        assert torch.allclose(area_resized(images, size), F.avg_pool2d(large, (16, 12)), atol=1e-12)


def test_templates_are_those_of_clip_without_many_things() -> None:
    assert len(set(CLIP_TEMPLATES)) == 79 and all(one.count("{}") == 1 for one in CLIP_TEMPLATES)
    some = {"a bad photo of the {}.", "itap of my {}.", "the origami {}.", "a jpeg corrupted photo of a {}."}
    assert some < set(CLIP_TEMPLATES)


# ---- encoders of runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["joint", "damsm"])
def test_runs_of_encoders_compare(kind: str, tmp_path: Path) -> None:
    sizes = {k: v for k, v in TINY.items() if k not in ("resolution", "encoder")}
    damsm = {**sizes, "image_encoder": "small", "image_px": 32, "image_width": 4}
    model = JointEmbedding(**TINY, width=4) if kind == "joint" else DAMSM(**damsm)
    assert isinstance(model, ImageText)
    images = torch.rand(2, 3, 24, 24, requires_grad=True)
    found = model.embed_images(images)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5) and found.shape == (2, 6)
    assert torch.autograd.grad(found[0, 0], images)[0][0].abs().max() > 0
    texts = model.embed_texts(["a red circle", "a blue square"])
    assert torch.allclose(texts.norm(dim=1), torch.ones(2), atol=1e-5) and not torch.allclose(*texts)
    assert len(model.fingerprint) == 16 and model.name and model.templates == ("{}",)


# ---- a pair of our own -----------------------------------------------------------------------------------------------


def colours(count: int) -> tuple[torch.Tensor, list[list[str]]]:
    """Plain red, green and blue pictures, with noise, by turns."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 60, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    kinds = torch.arange(count) % 3
    images[torch.arange(count), kinds] += 180
    names = ("red", "green", "blue")
    return images, [[f"a {names[kind]} picture", f"it is {names[kind]}"] for kind in kinds.tolist()]


def test_a_pair_is_trained_saved_and_read_back(tmp_path: Path) -> None:
    images, captions = colours(96)
    how = {"features": "torchvision:squeezenet1_1", "weights": "random", "px": 32, "epochs": 8, "batch_size": 16}
    told = []
    pair, _ = train_pair(images.split(40), captions, **how, on_step=lambda *step: told.append(step))
    assert [step[:2] for step in told[:4]] == [(40, 96), (80, 96), (96, 96), (1, 40)]
    assert told[-1][:2] == (40, 40) and told[-1][2] < told[3][2]
    texts = ["a red picture", "green", "blue"]
    assert ((pair.embed_images(from_uint8(images)) @ pair.embed_texts(texts).T).argmax(1) == torch.arange(96) % 3).all()
    again, _ = train_pair(images.split(96), captions, **how)
    assert again.fingerprint == pair.fingerprint
    pair.save(tmp_path / "pair.safetensors")
    read = read_pair(tmp_path / "pair.safetensors", weights="random")
    assert read.fingerprint == pair.fingerprint and isinstance(read, ImageText)
    assert torch.equal(read.embed_texts(texts), pair.embed_texts(texts))
    with pytest.warns(UserWarning, match="has not read 'yellow': left out"):
        assert torch.equal(read.embed_texts(["yellow blue"]), read.embed_texts(["blue"]))
    with pytest.raises(ValueError, match="'yellow' has no word of the vocabulary"):
        read.embed_texts(["yellow"])
    assert build_image_text(str(tmp_path / "pair.safetensors"), weights="random").fingerprint == pair.fingerprint
    with pytest.raises(ValueError, match="96 pictures, 86 of them to learn from, and captions of 95"):
        train_pair(images.split(40), captions[:-1], **how)


def test_names_that_are_no_image_text_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="names no model of images and texts: give clip:<owner>/<name>"):
        build_image_text("nothing")
    save_pretrained(tiny(), tmp_path / "gan")
    with pytest.raises(ValueError, match="is a StyleGAN2, which does not compare images with texts: give a run of"):
        build_image_text(str(tmp_path / "gan"))
    (tmp_path / "a.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="is damaged, or no file of this package: train one with train_pair"):
        build_image_text(str(tmp_path / "a.safetensors"))


# ---- captions of attributes ------------------------------------------------------------------------------------------

TABLE = """3
Male Smiling Young Eyeglasses Blond_Hair No_Beard Blurry
1.jpg -1 1 1 1 1 1 1
2.jpg 1 -1 -1 -1 -1 -1 -1
3.jpg 1 -1 1 -1 -1 1 -1
"""


def test_captions_are_written_from_a_table(tmp_path: Path) -> None:
    (tmp_path / "table.txt").write_text(TABLE)
    table = read_attributes(tmp_path / "table.txt")
    captions = attribute_captions(table, each=40, share=1.0)
    nouns = ("woman", "person", "face")
    assert set(captions[0]) == {f"a smiling young {noun} with blond hair and glasses" for noun in nouns}
    assert "a serious old man with a beard" in captions[1] and "a serious young man" in captions[2]
    some = attribute_captions(table, each=40)
    assert len(set(some[0])) > 8 and some == attribute_captions(table, each=40)
    assert some != attribute_captions(table, each=40, seed=1)
    assert attribute_captions(table.rows(["x/3.jpg", "1.jpg"]), each=1, share=1)[0][0].startswith("a serious young ")
    with pytest.raises(ValueError, match="no row for 1 of 1 pictures, first '4.jpg'"):
        table.rows(["4.jpg"])
    with pytest.raises(ValueError, match="no attribute 'Hat'; it has Male, Smiling"):
        table.column("Hat")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is no table of attributes: a line of names"),
        (TABLE.replace("3\n", "4\n", 1), "has 3 rows, and its first line says 4"),
        (TABLE.replace("1.jpg -1", "1.jpg -2"), "line 3: a picture and 7 values of -1, 0 or 1; found .'1.jpg', '-2'"),
    ],
)
def test_tables_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "table.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_attributes(tmp_path / "table.txt")
    with pytest.raises(FileNotFoundError, match="there is no table of attributes"):
        read_attributes(tmp_path / "none.txt")


# ---- CLIP ------------------------------------------------------------------------------------------------------------


def test_clip_compares_with_gradients(clip_folder: Path) -> None:  # noqa: F811
    model = build_image_text(f"clip:{NAME}", weights=clip_folder)
    assert isinstance(model, CLIPImageText) and isinstance(model, ImageText) and model.templates == CLIP_TEMPLATES
    size = model.clip.image_px
    pixels = torch.randint(256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = from_uint8(pixels).requires_grad_(True)
    found = model.embed_images(images)
    assert torch.allclose(found, F.normalize(model.clip.images(pixels)), atol=1e-5)
    assert torch.autograd.grad(found[0, 0], images)[0][0].abs().max() > 0
    assert torch.allclose(model.embed_texts(["a red bird"]).norm(), torch.ones(()))
    assert model.logit_scale == pytest.approx(model.clip.model.logit_scale.exp().item())


# ---- identity --------------------------------------------------------------------------------------------------------


def face_state() -> dict[str, torch.Tensor]:
    generator, state, maps = torch.Generator().manual_seed(0), {}, 3
    for block in ("conv32_down", *_BLOCKS):
        width = int(block.split("_")[0].removeprefix("conv"))
        for name in [block] if block == "conv32_down" else [f"{block}.conv1", f"{block}.conv2"]:
            side = 7 if block == "conv32_down" else 3
            fan_in = maps * side**2
            state[f"{name}.conv.weight"] = torch.randn(width, maps, side, side, generator=generator) / fan_in**0.5
            state |= {f"{name}.conv.bias": torch.zeros(width), f"{name}.scale.weight": torch.ones(width)}
            state[f"{name}.scale.bias"], maps = torch.zeros(width), width
    return state | {"fc.weight": torch.randn(128, 256, generator=generator) / 16}


def test_identity_is_read_crops_and_has_gradients(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.half() for name, tensor in face_state().items()}, tmp_path / "faces.safetensors")
    identity = build_identity(tmp_path / "faces.safetensors")
    images = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_(True)
    found = identity(images)
    assert found.shape == (2, 128) and torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.autograd.grad((found[0] * found[1].detach()).sum(), images)[0][0].abs().max() > 0
    outside = images.detach().clone()
    outside[:, :, :8] = outside[:, :, 56:] = 1  # beyond 35 and 223 of 256
    assert torch.allclose(identity(outside), found, atol=1e-5)
    with pytest.raises(ValueError, match=r"crop \[0, 300, 0, 256\] is no top, bottom, left and right within 256"):
        FaceIdentity(FaceRecognition(face_state()), crop=(0, 300, 0, 256))
    save_file({"fc.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors: not the face recognition network: 116 tensors"):
        build_identity(tmp_path / "other.safetensors")
