"""AttnGAN against recorded values of the official code: attention, both players, the losses, names and sizes."""

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
from lit_gans.papers.attngan.networks import Discriminator, Generator, WordAttention
from lit_gans.papers.attngan.official import OFFICIAL_KEYS, from_official_generator
from lit_gans.papers.text.networks import WordEncoder, word_mask
from tests.parity.golden import Golden, cases, published, translated, under
from tests.parity.recorded_images import as_recorded, weighted_terms
from tests.parity.test_stackgan import pictures

KEYS = {r"conv_context\.weight": "project.weight", **OFFICIAL_KEYS}  # of an attention alone, too


def filled(network: nn.Module, golden: Golden) -> nn.Module:
    """The network with the official weights, strict both ways; back again they are what they were."""
    state = golden.state
    network.load_state_dict(apply_keys(state, KEYS, ours=network.state_dict()))
    back = invert(network.state_dict(), KEYS, official=state, dropped={})
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    return network


def mispaired(mask: Tensor, places: int) -> Tensor:
    """The official masks, bool [N, T] -> [N, places, T]: row n * places + place has the mask of sample row mod N."""
    rows = torch.arange(len(mask) * places) % len(mask)
    return mask[rows].unflatten(0, (len(mask), places))


# ---- attention -------------------------------------------------------------------------------------------------------

ATTENTION = cases("GlobalAttention", "AttnGAN")


def attention(golden: Golden) -> WordAttention:
    names = {"idf": "channels", "cdf": "word_dim"}
    return filled(WordAttention(**translated(golden.config, names)), golden)


@pytest.mark.parametrize("golden", ATTENTION)
def test_attention(golden: Golden) -> None:
    """Each sample by its own mask, as the recorded one of sample 0 alone; and by the official masks, the recorded."""
    leaves, layer, found = golden.leaves, attention(golden), {}
    h, words, mask = leaves["h"], leaves["words"].transpose(1, 2), ~leaves["mask"]
    context, maps = layer(h, words, mask)
    assert maps.sum(1).allclose(torch.ones(())) and maps.masked_select(~mask[:, :, None, None]).eq(0).all()
    found |= {"context_batch1": context[:1], "att_batch1": maps[:1]}
    found["context_nomask"], found["att_nomask"] = layer(h, words)
    found["context"], found["att"] = layer(h, words, mispaired(mask, h[0, 0].numel()))
    if under(leaves, "w_"):
        found |= golden.gradients(weighted_terms(found, leaves).sum(), leaves, layer, keys=KEYS)
    golden.compare(found)


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


# ---- the players -----------------------------------------------------------------------------------------------------


def drawn(generator: Generator, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """All outputs of a pass with the masks that the official code pairs places with."""

    def pair(layer: WordAttention, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, words, mask = given
        return h, words, mispaired(mask, h[0, 0].numel())

    hooks = [m.register_forward_pre_hook(pair) for m in generator.modules() if isinstance(m, WordAttention)]
    words = leaves["words"].transpose(1, 2)
    result = generator(leaves["z"], leaves["sent"], words, ~leaves["mask"], eps=leaves["eps"])
    for hook in hooks:
        hook.remove()
    found = {f"img{i}": image for i, image in enumerate(result.images)}
    found |= {f"att{i}": maps for i, maps in enumerate(result.maps)}
    return found | {"mu": result.mu, "logvar": result.logvar, "kl": divergence(result.mu, result.logvar)}


@pytest.mark.parametrize("golden", cases("model.G_NET", "AttnGAN"))
def test_generator(golden: Golden) -> None:
    network, leaves = filled(Generator(**from_official_generator(golden.config)), golden), golden.leaves
    found: dict[str, Tensor] = {}
    for mode in ("eval", "train"):  # evaluation has the buffers as they were
        whole = drawn(network.train(mode == "train"), leaves)
        found |= as_recorded(whole, golden, f"{mode}/")
    found |= golden.buffers(network, KEYS)
    scales = {}
    if under(leaves, "w_"):
        terms = weighted_terms(whole, leaves)
        found |= {"scalar": terms.sum()} | golden.gradients(terms.sum(), leaves, network, keys=KEYS)
        scales = {"scalar": terms.norm()}
    golden.compare(found, scales=scales)


def discriminator(golden: Golden, resolution: int) -> Discriminator:
    sizes = translated(golden.config, JUDGE)
    sizes = {"joint": "b_jcu=False" not in golden.official_class} | sizes
    return filled(Discriminator(resolution=resolution, **sizes), golden).train()


# The official discriminator reads these two values of its configuration alone.
JUDGE = {"DF_DIM": "width", "EMBEDDING_DIM": "embed_dim", "b_jcu": "joint"}
JUDGE |= dict.fromkeys(("GF_DIM", "Z_DIM", "CONDITION_DIM", "R_NUM", "BRANCH_NUM"))


@pytest.mark.parametrize("golden", cases("model.D_NET", "AttnGAN"))
def test_discriminator_and_loss(golden: Golden) -> None:
    """The official heads end in a sigmoid; the recorded wrong pairs are pictures [:-1] with sentences [1:]."""
    side, leaves, found = int(re.search(r"D_NET(\d+)", golden.official_class)[1]), golden.leaves, {}
    d, images, sentence = discriminator(golden, side), pictures(leaves, side), leaves["sent"]
    for mode in ("eval", "train"):
        features = d.train(mode == "train")(images["real"])
        found |= {f"{mode}/features": features, f"{mode}/cond_logits": d.conditional(features, sentence).sigmoid()}
        if d.unconditional is not None:
            found[f"{mode}/uncond_logits"] = d.unconditional(features).sigmoid()
    found |= golden.buffers(d, KEYS)
    d = discriminator(golden, side)
    found["errD"] = discriminator_loss(d, images["real"], images["fake"], sentence, sentence[1:]).loss
    golden.compare(found | golden.gradients(found["errD"], leaves, d, keys=KEYS))


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


@pytest.mark.parametrize("golden", cases("words_loss", "AttnGAN"))
def test_damsm(golden: Golden) -> None:
    """The losses with and without classes; the attention of the first caption on its own picture, to its real words."""
    leaves, found = golden.leaves, {}
    names = {f"GAMMA{i}": f"{i}" for i in (1, 2, 3)}
    gammas = tuple(({"1": 4.0, "2": 5.0, "3": 10.0} | translated(golden.config, names)).values())
    regions, words, lengths = leaves["img_features"], leaves["words"].transpose(1, 2), leaves["cap_lens"]
    mask = word_mask(lengths, words.shape[1])
    for suffix, classes in {"": leaves.get("class_ids"), "_noclass": None}.items():
        terms = damsm_loss(
            regions, leaves["cnn_code"], words, leaves["sent"], mask, classes=classes, gammas=gammas
        )  # fmt: skip
        found |= zip((f"{kind}_loss{i}{suffix}" for kind in "ws" for i in (0, 1)), terms, strict=True)
    maps = region_attention(regions.flatten(2)[:1], words[:1], mask[:1], gamma=gammas[0])[0]
    found["att0"] = maps[:, : int(lengths[0])].unflatten(2, regions.shape[2:])
    suffix = "_noclass" if "without class" in golden.call.get("grad", "") else ""
    total = torch.stack([found[f"{kind}_loss{i}{suffix}"] for kind in "ws" for i in (0, 1)]).sum()
    golden.compare(found | golden.gradients(total, leaves))


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


@pytest.mark.parametrize("case", published("param_counts_other.json", "attngan/"))
def test_published_sizes(case: tuple[str, int]) -> None:
    name, expected = case
    assert name in SIZES, f"{name!r} is no network that is known here"
    with torch.device("meta"):
        assert sum(p.numel() for p in SIZES[name]().parameters() if p.requires_grad) == expected
