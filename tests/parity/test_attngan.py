"""AttnGAN against recorded values of the official code: attention, both players, the losses, names and sizes."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.adversarial.losses import divergence, is_fake, is_real
from lit_gans.official import apply_keys, invert
from lit_gans.papers.attngan.losses import (
    contrast,
    damsm_loss,
    discriminator_loss,
    region_attention,
)
from lit_gans.papers.attngan.matching import InceptionEncoder, SmallEncoder, load_image_encoder
from lit_gans.papers.attngan.networks import Discriminator, Drawn, Generator, WordAttention
from lit_gans.papers.attngan.official import OFFICIAL_KEYS, from_official_generator
from lit_gans.papers.text.networks import WordEncoder, word_mask
from tests.parity.golden import FOLDER, Golden, absent, assert_close, cases

ATTENTION = cases("GlobalAttention", "AttnGAN")
GENERATORS = cases("model.G_NET", "AttnGAN")
DISCRIMINATORS = cases("model.D_NET", "AttnGAN")
DAMSM_LOSSES = cases("words_loss", "AttnGAN")


def filled(network: nn.Module, golden: Golden) -> nn.Module:
    table = {r"conv_context\.weight": "project.weight", **OFFICIAL_KEYS}
    network.load_state_dict(apply_keys(golden.state, table, ours=network.state_dict()))
    return network


def assert_there_and_back(network: nn.Module, golden: Golden) -> None:
    state = golden.state
    back = invert(filled(network, golden).state_dict(), OFFICIAL_KEYS, official=state, dropped={})
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def mispaired(mask: Tensor, places: int) -> Tensor:
    """The official masks, bool [N, T] -> [N, places, T]: row n * places + place has the mask of sample row mod N."""
    rows = torch.arange(len(mask) * places) % len(mask)
    return mask[rows].unflatten(0, (len(mask), places))


def assert_buffers(network: nn.Module, golden: Golden, *, prefix: str = "train_state/") -> None:
    recorded = {n.removeprefix(prefix): t for n, t in golden.outputs.items() if n.startswith(prefix)}
    assert recorded, "no buffer was recorded"
    names, state = apply_keys(recorded, OFFICIAL_KEYS), network.state_dict()
    for name, expected in names.items():
        assert_close(state[name], expected, max(golden.tolerance["forward"], 1e-5), name)


# ---- attention -------------------------------------------------------------------------------------------------------


def attention(golden: Golden) -> WordAttention:
    return filled(WordAttention(golden.config["idf"], golden.config["cdf"]), golden)


@pytest.mark.parametrize("golden", ATTENTION)
def test_attention(golden: Golden) -> None:
    """Each sample by its own mask, as the recorded one of sample 0 alone; and by the official masks, the recorded."""
    inputs, outputs, tolerance = golden.inputs, golden.outputs, golden.tolerance["forward"]
    h, words, layer = inputs["h"].requires_grad_(), inputs["words"].transpose(1, 2), attention(golden)
    mask = ~inputs["mask"]
    context, maps = layer(h, words, mask)
    assert_close(context[:1], outputs["context_batch1"], tolerance, "context_batch1")
    assert_close(maps[:1], outputs["att_batch1"], tolerance, "att_batch1")
    assert maps.sum(1).allclose(torch.ones(())) and maps.masked_select(~mask[:, :, None, None]).eq(0).all()
    context, maps = layer(h, words)
    assert_close(context, outputs["context_nomask"], tolerance, "context_nomask")
    assert_close(maps, outputs["att_nomask"], tolerance, "att_nomask")
    context, maps = layer(h, words, mispaired(mask, h[0, 0].numel()))
    assert_close(context, outputs["context"], tolerance, "context")
    assert_close(maps, outputs["att"], tolerance, "att")


@pytest.mark.parametrize("golden", ATTENTION)
def test_gradients_of_attention(golden: Golden) -> None:
    inputs, outputs = golden.inputs, golden.outputs
    h, layer = inputs["h"].requires_grad_(), attention(golden)
    context, _ = layer(h, inputs["words"].transpose(1, 2), mispaired(~inputs["mask"], h[0, 0].numel()))
    (context * inputs["w_context"]).sum().backward()
    assert_close(h.grad, outputs["grad/h"], golden.tolerance["gradient"], "h")
    assert_close(layer.project.weight.grad, outputs["grad/conv_context.weight"], golden.tolerance["gradient"], "weight")


@pytest.mark.parametrize("golden", ATTENTION)
def test_attention_does_not_depend_on_the_batch(golden: Golden) -> None:
    """The deviation from the official code, whose maps of sample 1 and later have other samples' masks."""
    inputs, layer = golden.inputs, attention(golden)
    h, words, mask = inputs["h"], inputs["words"].transpose(1, 2), ~inputs["mask"]
    together = layer(h, words, mask)
    for i in range(len(h)):
        alone = layer(h[i : i + 1], words[i : i + 1], mask[i : i + 1])
        for one, many in zip(alone, together, strict=True):
            assert torch.allclose(one[0], many[i], atol=1e-6)


# ---- generator -------------------------------------------------------------------------------------------------------


def drawn(golden: Golden, *, train: bool) -> tuple[Generator, Drawn]:
    """A pass with the masks that the official code pairs places with."""
    generator = filled(Generator(**from_official_generator(golden.config)), golden).train(train)
    inputs = golden.inputs

    def pair(layer: WordAttention, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, words, mask = given
        return h, words, mispaired(mask, h[0, 0].numel())

    hooks = [m.register_forward_pre_hook(pair) for m in generator.modules() if isinstance(m, WordAttention)]
    words = inputs["words"].transpose(1, 2)
    result = generator(inputs["z"], inputs["sent"], words, ~inputs["mask"], eps=inputs["eps"])
    for hook in hooks:
        hook.remove()
    return generator, result


def reduced(tensor: Tensor, how: str) -> Tensor:
    """As the files store it: "pool<q>", "crop<c>", or "pool" alone, to 16 x 16."""
    kind, size = re.fullmatch(r"(pool|crop)(\d*)", how).groups()
    if kind == "pool":
        return F.avg_pool2d(tensor, int(size) if size else tensor.shape[-1] // 16)
    start = (tensor.shape[-1] - int(size)) // 2
    return tensor[..., start : start + int(size), start : start + int(size)]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("golden", GENERATORS)
def test_generator(golden: Golden, train: bool) -> None:
    _, result = drawn(golden, train=train)
    found: dict[str, Tensor] = {"mu": result.mu, "logvar": result.logvar}
    found["kl"] = divergence(result.mu, result.logvar)
    prefix, seen = "train/" if train else "eval/", 0
    for name, expected in golden.outputs.items():
        if not name.startswith(prefix):
            continue
        name, seen = name.removeprefix(prefix), seen + 1
        if match := re.fullmatch(r"(img|att)(\d+)_(\w+)", name):
            of_stage = (result.images if match[1] == "img" else result.maps)[int(match[2])]
            value = reduced(of_stage, match[3])
        else:
            value = found[name]
        assert_close(value, expected, golden.tolerance["forward"], name)
    assert seen >= 3 + 2 * len(result.images)


@pytest.mark.parametrize("golden", GENERATORS)
def test_buffers_of_the_generator(golden: Golden) -> None:
    generator, _ = drawn(golden, train=True)
    assert_buffers(generator, golden)


@pytest.mark.parametrize("golden", GENERATORS)
def test_official_names_of_the_generator(golden: Golden) -> None:
    assert_there_and_back(Generator(**from_official_generator(golden.config)), golden)


# ---- discriminators --------------------------------------------------------------------------------------------------


def discriminator(golden: Golden) -> Discriminator:
    resolution = int(re.search(r"D_NET(\d+)", golden.official_class)[1])
    joint = "b_jcu=False" not in golden.official_class
    sizes = {"width": golden.config["DF_DIM"], "embed_dim": golden.config["EMBEDDING_DIM"]}
    return Discriminator(resolution=resolution, joint=joint, **sizes)


def pictures(golden: Golden, name: str, resolution: int) -> Tensor:
    """in/<name>_<size>, enlarged pixel by pixel."""
    stored = next(t for key, t in golden.inputs.items() if re.fullmatch(rf"{name}_\d+", key))
    return F.interpolate(stored, size=(resolution, resolution), mode="nearest")


def both(golden: Golden) -> tuple[Tensor, Tensor]:
    resolution = int(re.search(r"D_NET(\d+)", golden.official_class)[1])
    return pictures(golden, "real", resolution), pictures(golden, "fake", resolution)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("golden", DISCRIMINATORS)
def test_discriminator(golden: Golden, mode: str) -> None:
    """The official heads end in a sigmoid."""
    d, outputs, tolerance = filled(discriminator(golden), golden), golden.outputs, golden.tolerance["forward"]
    d.train(mode == "train")
    features = d(both(golden)[0])
    found = {"features": features, "cond_logits": d.conditional(features, golden.inputs["sent"]).sigmoid()}
    if d.unconditional is not None:
        found["uncond_logits"] = d.unconditional(features).sigmoid()
    compared = {name for name in found if f"{mode}/{name}" in outputs}
    assert compared >= {"features", "cond_logits"}
    for name in compared:
        assert_close(found[name], outputs[f"{mode}/{name}"], tolerance, name)


@pytest.mark.parametrize("golden", DISCRIMINATORS)
def test_discriminator_loss(golden: Golden) -> None:
    """The recorded wrong pairs are pictures [:-1] with sentences [1:]."""
    d, (real, fake), sentence = filled(discriminator(golden), golden).train(), both(golden), golden.inputs["sent"]
    loss, _, _ = discriminator_loss(d, real, fake, sentence, sentence[1:])
    loss.backward()
    assert_close(loss, golden.outputs["errD"], golden.tolerance["forward"], "errD")
    recorded = {n.removeprefix("grad/"): t for n, t in golden.outputs.items() if n.startswith("grad/")}
    gradients = {name: p.grad for name, p in d.named_parameters()}
    assert recorded
    for name, expected in apply_keys(recorded, OFFICIAL_KEYS).items():
        assert_close(gradients[name], expected, golden.tolerance["gradient"], name)


@pytest.mark.parametrize("golden", DISCRIMINATORS)
def test_buffers_of_the_discriminator(golden: Golden) -> None:
    """After one pass over the pictures and their sentences."""
    d = filled(discriminator(golden), golden).train()
    d.conditional(d(both(golden)[0]), golden.inputs["sent"])
    assert_buffers(d, golden)


@pytest.mark.parametrize("golden", DISCRIMINATORS)
def test_official_names_of_the_discriminator(golden: Golden) -> None:
    assert_there_and_back(discriminator(golden), golden)


@pytest.mark.parametrize(
    ("resolution", "further"),
    [(64, ()), (128, ("s32", "s32_1")), (256, ("s32", "s64", "s64_1", "s64_2"))],
)
def test_official_names_of_every_size(resolution: int, further: tuple[str, ...]) -> None:
    """D_NET128 and D_NET256 have more blocks, each a convolution at place 0 and a batch norm at place 1."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    blocks = [*(f"img_code_{name}" for name in further), "COND_DNET.jointConv"]
    names = [f"img_code_s16.{place}.weight" for place in (0, 2, 5, 8)]
    names += [f"img_code_s16.{place}.{name}" for place in (3, 6, 9) for name in norm]
    names += [f"{block}.0.weight" for block in blocks] + [f"{block}.1.{name}" for block in blocks for name in norm]
    names += [f"{head}.outlogits.0.{name}" for head in ("COND_DNET", "UNCOND_DNET") for name in ("weight", "bias")]
    ours = Discriminator(resolution=resolution, width=1, embed_dim=2).state_dict()
    official = invert(ours, OFFICIAL_KEYS, official=names, dropped={})
    assert apply_keys(official, OFFICIAL_KEYS, ours=ours).keys() == ours.keys()


# ---- texts and images ------------------------------------------------------------------------------------------------


def terms(golden: Golden, inputs: dict[str, Tensor], *, classes: bool) -> dict[str, Tensor]:
    gammas = tuple(golden.config[f"GAMMA{i}"] for i in (1, 2, 3))
    words = inputs["words"].transpose(1, 2)
    matching = damsm_loss(
        inputs["img_features"],
        inputs["cnn_code"],
        words,
        inputs["sent"],
        word_mask(inputs["cap_lens"], words.shape[1]),
        classes=inputs["class_ids"] if classes else None,
        gammas=gammas,
    )
    return dict(zip(("w_loss0", "w_loss1", "s_loss0", "s_loss1"), matching, strict=True))


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("golden", DAMSM_LOSSES)
def test_damsm_losses(golden: Golden, classes: bool) -> None:
    for name, value in terms(golden, golden.inputs, classes=classes).items():
        name += "" if classes else "_noclass"
        assert_close(value, golden.outputs[name], golden.tolerance["forward"], name)


@pytest.mark.parametrize("golden", DAMSM_LOSSES)
def test_gradients_of_the_damsm_losses(golden: Golden) -> None:
    inputs = golden.inputs
    recorded = {n.removeprefix("grad/"): t for n, t in golden.outputs.items() if n.startswith("grad/")}
    for name in recorded:
        inputs[name].requires_grad_()
    sum(terms(golden, inputs, classes=True).values()).backward()
    for name, expected in recorded.items():
        assert_close(inputs[name].grad, expected, golden.tolerance["gradient"], name)


@pytest.mark.parametrize("golden", DAMSM_LOSSES)
def test_region_attention(golden: Golden) -> None:
    """Of the first caption on its own picture; att0 holds its real words alone."""
    inputs, expected = golden.inputs, golden.outputs["att0"]
    words, regions = inputs["words"].transpose(1, 2), inputs["img_features"]
    mask = word_mask(inputs["cap_lens"], words.shape[1])
    found = region_attention(regions.flatten(2)[:1], words[:1], mask[:1], gamma=golden.config["GAMMA1"])[0]
    found = found[:, : expected.shape[1]].unflatten(2, regions.shape[2:])
    assert_close(found, expected, golden.tolerance["forward"], "att0")


def official_image_encoder() -> dict[str, Tensor]:
    """Of CNN_ENCODER's names, as files of its time have them: without batch norm's counts."""
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    inception = inception_v3(weights=None, init_weights=False).state_dict()
    kept = {k: t for k, t in inception.items() if not k.startswith(("AuxLogits.", "fc."))}
    learned = {"emb_features.weight": (5, 768, 1, 1), "emb_cnn_code.weight": (5, 2048), "emb_cnn_code.bias": (5,)}
    state = kept | {name: torch.randn(shape) for name, shape in learned.items()}
    return {k: t for k, t in state.items() if not k.endswith("num_batches_tracked")}


def test_official_names_of_the_image_encoder(tmp_path: Path) -> None:
    encoder, state = InceptionEncoder(5), official_image_encoder()
    torch.save(state, tmp_path / "image_encoder.pth")
    load_image_encoder(encoder, tmp_path / "image_encoder.pth")
    ours = {k: t for k, t in encoder.state_dict().items() if not k.endswith("num_batches_tracked")}
    back = invert(ours, OFFICIAL_KEYS, official=state, dropped={})
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def test_the_image_encoder_computes_as_torchvisions_inception(tmp_path: Path) -> None:
    """The pooled features by torchvision's own forward pass, on images that need no scaling."""
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False, transform_input=False).eval()
    network.fc, network.dropout = nn.Identity(), nn.Identity()
    encoder, regions = InceptionEncoder(5), []
    encoder.trunk.load_state_dict({k: t for k, t in network.state_dict().items() if not k.startswith("AuxLogits.")})
    network.Mixed_6e.register_forward_hook(lambda module, inputs, output: regions.append(output))
    images = torch.rand(1, 3, 299, 299) * 2 - 1
    with torch.no_grad():
        pooled, (found_regions, found) = network(images), encoder(images)
        torch.testing.assert_close(found, encoder.to_image(pooled), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found_regions, encoder.to_regions(regions[0]), atol=1e-5, rtol=1e-4)


def test_other_files_are_no_image_encoder(tmp_path: Path) -> None:
    path = tmp_path / "image_encoder.pth"
    torch.save(official_image_encoder(), path)
    with pytest.raises(ValueError, match="does not fit in 3 tensors such as to_image.bias: sentence_dim must be"):
        load_image_encoder(InceptionEncoder(4), path)
    with pytest.raises(ValueError, match="is for image_encoder 'inception'; a small one comes with its run"):
        load_image_encoder(SmallEncoder(4), path)
    torch.save({"encoder.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is no image encoder of AttnGAN: 1 official names fit no entry"):
        load_image_encoder(InceptionEncoder(4), path)


def test_losses_of_logits_in_closed_form() -> None:
    logits = torch.tensor([0.3, -2.0])
    assert is_real(logits).item() == pytest.approx(F.binary_cross_entropy(logits.sigmoid(), torch.ones(2)).item())
    assert is_fake(logits).item() == pytest.approx(F.binary_cross_entropy(logits.sigmoid(), torch.zeros(2)).item())
    by_image, by_text = contrast(torch.tensor([[5.0, 1.0], [2.0, 4.0]]))
    assert by_image.item() == pytest.approx((F.softplus(torch.tensor([-4.0, -2.0]))).mean().item())
    assert by_text.item() == pytest.approx((F.softplus(torch.tensor([-3.0, -3.0]))).mean().item())
    assert [t.item() for t in contrast(torch.tensor([[5.0, 1.0], [2.0, 4.0]]), torch.tensor([7, 7]))] == [0, 0]


# ---- published sizes -------------------------------------------------------------------------------------------------


def counted(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build().parameters() if p.requires_grad)


SIZES: dict[str, Callable[[], nn.Module]] = {
    "attngan/G bird_attn2": lambda: Generator(),
    "attngan/G coco_attn2": lambda: Generator(width=48, blocks=3),
    **{
        f"attngan/D_NET{px} bird_attn2 (JCU)": lambda px=px: Discriminator(resolution=px, width=64)
        for px in (64, 128, 256)
    },
    **{
        f"attngan/D_NET{px} coco_attn2 (JCU)": lambda px=px: Discriminator(resolution=px, width=96)
        for px in (64, 128, 256)
    },
    "attngan/CNN_ENCODER trainable part (emb_features + emb_cnn_code, nef 256)": lambda: InceptionEncoder(256),
    "attngan/RNN_ENCODER without the word embedding (nhidden 256, ninput 300)": lambda: WordEncoder(1).rnn,
    "attngan/RNN_ENCODER word embedding per dictionary entry": lambda: WordEncoder(1).embedding,
}


def counts() -> list:
    path = FOLDER / "param_counts_other.json"
    if not path.is_file():
        return absent(f"no {path}")
    recorded = json.loads(path.read_text())["counts"]
    return [pytest.param(name, count, id=name) for name, count in recorded.items() if name.startswith("attngan/")]


@pytest.mark.parametrize(("name", "count"), counts())
def test_published_sizes(name: str, count: int) -> None:
    assert counted(SIZES[name]) == count
