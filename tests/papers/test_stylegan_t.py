"""StyleGAN-T: what its networks, phases and discriminators promise beyond the battery and the recorded values.

As a program: one of several processes that train the cases with captions.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

from lit_gans import fit as verb
from lit_gans import sample
from lit_gans.adversarial.losses import hinge
from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.convert import convert
from lit_gans.data import Shapes
from lit_gans.editing import truncation_sweep
from lit_gans.editing.captions import captioned_grid, draw_captions, save_truncated
from lit_gans.editing.exporting import save_exported
from lit_gans.editing.steps import FromCaption
from lit_gans.nn.clip import build_clip
from lit_gans.official import read_official
from lit_gans.papers import JointEmbedding
from lit_gans.papers.stylegan_t import (
    CLIPGuide,
    Discriminator,
    Generator,
    Head,
    JointGuide,
    LocalBatchNorm,
    StyleGANT,
    TokenNetwork,
)
from lit_gans.papers.stylegan_t.guidance import spherical_distance
from lit_gans.papers.stylegan_t.networks import Modulation, SynthesisLayer
from lit_gans.papers.text.encoders import TextFeatures
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained
from tests.cases import CASES as GANS
from tests.cases import STYLEGAN_T, largest_difference, state, train
from tests.distributed.launch import run_processes
from tests.metrics.test_text import tiny as clip_folder
from tests.official.layout import modules_of_pickles, official_modules, tree, written
from tests.papers.captioned import BATCH, BLUE, RED, TINY, check_resume, fit, shapes, steps_of
from tests.papers.replay import Replay, moved, replayed

__all__ = ["clip_folder", "official_modules"]

on = pytest.mark.parametrize
pytestmark = pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")


GROUPS = {"norm_group": BATCH // 2}  # which two processes, or micro-batches, have one of each


def tiny(**options: Any) -> StyleGANT:
    torch.manual_seed(0)
    small = {**STYLEGAN_T, **TINY, **GROUPS, "channel_base": 256, "z_dim": 4, "encoder_rnn": "bag"}
    return StyleGANT(**{**small, **options})


class Mean(nn.Module):
    """A guide: the mean colour of each of six fields."""

    def forward(self, images: Tensor) -> Tensor:
        return adaptive_avg_pool2d(images.mean(1, keepdim=True), (2, 3)).flatten(1)


CASES = {
    "captions": lambda **o: tiny(**{"guide": Mean(), "guidance_weight": 0.3, **o}),
    "none": lambda **o: tiny(**{"encoder": "none", "vocabulary": None, **o}),
}


def generator(**arguments: Any) -> Generator:
    torch.manual_seed(0)
    size = {"resolution": 16, "z_dim": 4, "c_dim": 3, "channel_base": 128, "channel_max": 8, "num_res_blocks": 2}
    network = Generator(**{**size, "gn_groups": 4, **arguments})
    network.mapping.x_avg.normal_()
    return network


# ---- the generator ---------------------------------------------------------------------------------------------------


def test_the_text_passes_beside_and_is_not_truncated() -> None:
    mapping, z, c = generator().mapping, torch.randn(3, 4), torch.randn(3, 3)
    whole, mean, half = (mapping(z, c, psi=psi) for psi in (1.0, 0.0, 0.5))
    for ws in (whole, mean, half):
        assert torch.equal(ws[..., 4:], c[:, None].expand(-1, mapping.num_ws, -1))
    assert torch.equal(mean[:, 0, :4], mapping.x_avg.expand(3, -1))
    assert torch.equal(mapping(z, -c)[..., :4], whole[..., :4])
    assert torch.allclose(half[:, 0, :4], (whole[:, 0, :4] + mapping.x_avg) / 2)
    some = mapping(z, c, psi=0.0, cutoff=2)
    assert torch.equal(some[:, :2], mean[:, :2]) and torch.equal(some[:, 2:], whole[:, 2:])
    before = mapping.x_avg.clone()
    mapping.track(torch.ones(4))
    assert torch.allclose(mapping.x_avg, 0.995 * before + 0.005)


def test_styles_are_of_second_order() -> None:
    torch.manual_seed(0)
    styles, w = Modulation(5, 2), torch.randn(3, 5)
    a, b, c = (w @ part.T / 5**0.5 + 1 for part in styles.proj.weight.split(2))
    assert torch.allclose(styles(w), a * b + c, atol=1e-6)


def test_a_residual_layer_starts_as_its_normalised_input() -> None:
    torch.manual_seed(0)
    layer = SynthesisLayer(8, 8, w_dim=4, resolution=8, residual=True, gn_groups=2)
    x, w = 3 * torch.randn(2, 8, 8, 8) + 1, torch.randn(2, 4)
    normal = nn.functional.group_norm(x, 2)
    assert torch.allclose(layer(x, w, noise=None), normal * 2**0.5, atol=1e-3)
    layer.gamma.data.fill_(1.0)
    assert not torch.allclose(layer(x, w, noise=None), normal * 2**0.5, atol=0.5)


@on("architecture", ["skip", "orig"])
def test_colours_and_rows(architecture: str) -> None:
    network = generator(resolution=32, architecture=architecture)
    assert [b.to_rgb is not None for b in network.synthesis.blocks.values()] == [architecture == "skip"] * 2 + [True]
    assert network.mapping.num_ws == 3 * 5 + 1
    images = network(torch.randn(2, 4), torch.randn(2, 3), noise="const")
    assert images.shape == (2, 3, 32, 32) and images.isfinite().all()


# ---- the discriminators ----------------------------------------------------------------------------------------------


def test_a_local_batch_norm_takes_neighbours_together() -> None:
    torch.manual_seed(0)
    norm, x = LocalBatchNorm(3, group=4), torch.randn(8, 3, 5) * 4 + 2
    y = norm(x)
    for group in (slice(0, 4), slice(4, 8)):
        assert y[group].mean((0, 2)).abs().max() < 1e-5 and (y[group].var((0, 2), correction=0) - 1).abs().max() < 1e-4
    assert torch.allclose(y[4:], norm(x[4:]), atol=1e-6) and torch.equal(norm.eval()(x), y)
    six = norm(torch.cat([x[:6]]))  # two groups of three
    assert six[:3].mean((0, 2)).abs().max() < 1e-5
    assert not norm.state_dict().keys() & {"running_mean", "running_var"}
    with pytest.raises(ValueError, match="a batch of 5 images does not divide into 2 groups.*of 4, or norm_group=1"):
        norm(x[:5])


@on(
    ("batch", "parts", "message"),
    [
        (14, 1, "batch_size 14 in 1 parts: one of 14 images does not divide into 5 groups .*of 3, or norm_group=2"),
        (16, 2, "batch_size 16 in 2 parts: one of 8 images does not divide into 3 groups .*of 3, or norm_group=2"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_before_training(
    batch: int, parts: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        fit(tiny(norm_group=3, micro_batches=parts), tmp_path, shapes(batch_size=batch), batches=1)


def test_tokens_of_a_transformer_are_read_out() -> None:
    torch.manual_seed(0)
    network, images = TokenNetwork("test_vit", px=64, weights="random"), torch.rand(2, 1, 64, 64) * 2 - 1
    found = network(images)
    told = list(zip(network.channels, network.tokens, strict=True))
    assert [tuple(x.shape[1:]) for x in found] == told == [(64, 16)] * 5
    vit = network.network.network
    x = (images.expand(-1, 3, -1, -1) - network.mean) / network.std
    maps = vit.forward_intermediates(
        x, indices=[0, 2, 3, 5], norm=False, intermediates_only=True, return_prefix_tokens=True, output_fmt="NLC"
    )
    for ours, (patches, prefix) in zip(found, maps, strict=False):
        assert torch.allclose(ours, (patches + prefix.mean(1, keepdim=True)).mT, atol=1e-5)
    first = vit._pos_embed(vit.patch_embed(x))
    assert torch.allclose(found[4], (first[:, 1:] + first[:, :1]).mT, atol=1e-5)
    assert not list(network.parameters()) and not network.state_dict()


def test_positions_of_convolutional_maps_are_tokens() -> None:
    network, small = TokenNetwork("test_resnet", px=64, weights="random"), torch.rand(2, 3, 16, 16) * 2 - 1
    maps = network.network if network.load() is None else None
    x = small.repeat_interleave(4, 2).repeat_interleave(4, 3)  # by area
    for tokens, one in zip(network(small), maps((x - network.mean) / network.std), strict=True):
        assert torch.allclose(tokens, one.flatten(2), atol=1e-5)
    assert network.tokens == [size**2 for size in network.sizes] and len(network.channels) == 4
    with pytest.raises(ValueError, match="32 px give 1 tokens by test_resnet.*set features_px to 64"):
        Discriminator("test_resnet", features_px=32, features_weights="random")


def test_one_crop_is_for_the_whole_batch_whoever_processes_it() -> None:
    gan, parts = tiny(resolution=128, crop_probability=0.5), tiny(resolution=128)
    parts._part, parts._parts = 1, 2
    places = []
    for gan.images_seen in range(0, 3200, BATCH):
        parts.images_seen = gan.images_seen
        places.append(gan.place("real", 128, 64, 0.5))
        assert parts.place("real", 128, 64, 0.5) == places[-1]
    share = sum(place is not None for place in places) / len(places)
    assert 0.4 < share < 0.6 and len({p for p in places if p}) > 0.9 * share * len(places)
    assert all(0 <= side <= 64 for p in places if p for side in p)
    assert gan.place("real", 64, 64, 1.0) is None and gan.place("real", 128, 64, 0.0) is None
    assert gan.place("real", 128, 64, 1.0) != gan.place("fake", 128, 64, 1.0)
    seen: list[Tensor] = []
    gan.discriminator.eval().features.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        gan.discriminator(images, torch.randn(2, 6), place=(3, 40))
    assert torch.equal(seen[0], images[:, :, 3:67, 40:104])


def test_blur_fades_and_larger_reals_are_made_smaller_first() -> None:
    gan, images = tiny(blur_sigma=2.0, blur_kimg=1.0), torch.rand(2, 3, 32, 32)
    assert not torch.allclose(gan.seen(images), images, atol=1e-2)
    gan.images_seen = 1000
    assert torch.equal(gan.seen(images), images)
    large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(gan.seen(large), images)


# ---- guidance --------------------------------------------------------------------------------------------------------


def test_the_guide_sees_crops_of_64_pixels_enlarged_and_not_blurred() -> None:
    seen: list[Tensor] = []
    gan = tiny(guide=Mean(), guidance_weight=0.5, resolution=128, blur_sigma=9.0)
    gan.guide.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    fake, told = torch.rand(2, 3, 128, 128), normalize(torch.randn(2, 6))
    loss = gan.guidance(fake, told)
    top, left = gan.place("guide", 128, 64, 1.0)
    crop = nn.functional.interpolate(fake[:, :, top : top + 64, left : left + 64], (224, 224), mode="area")
    assert torch.equal(seen[0], crop)
    angles = (normalize(Mean()(crop)) * told).sum(1).arccos()
    assert torch.allclose(loss, 0.5 * angles.square().mean(), atol=1e-5)
    gan.guidance_weight = 0.0
    assert gan.guidance(fake, told) == 0.0


def test_an_angle_of_nothing_has_a_finite_slope() -> None:
    x = torch.tensor([[3.0, 4.0]], requires_grad=True)
    distance = spherical_distance(x, x.detach())
    distance.sum().backward()
    assert distance < 1e-5 and x.grad.isfinite().all()


def test_a_joint_embedding_guides_by_its_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    joint = JointEmbedding(**TINY, width=4)
    fit(joint, tmp_path / "joint", shapes(), batches=1, average=False)
    guide, images = JointGuide(str(tmp_path / "joint")), torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.allclose(guide(images), joint.embed_images(images), atol=1e-5) and guide.train().training is False
    assert not guide.state_dict() and not list(guide.parameters())
    gan = tiny(encoder_weights=str(tmp_path / "joint"), guide=guide, guidance_weight=1.0)
    fit(gan, tmp_path / "gan", shapes(), batches=2)
    assert gan.frozen_networks()[-1]["fingerprint"] == guide.fingerprint
    assert load_run(tmp_path / "gan").guide is None
    with pytest.raises(ValueError, match="captions are read by 'words' with other weights: set encoder=words and"):
        fit(tiny(guide=guide, guidance_weight=1.0), tmp_path / "other", shapes(), batches=1)
    with pytest.raises(ValueError, match="has no picture encoder: give a run of lit_gans.papers.JointEmbedding"):
        JointGuide(str(tmp_path / "gan"))


@on(
    ("given", "message"),
    [
        ({"guidance_weight": 1.0}, "guidance needs captions and a guide"),
        ({"guidance_weight": 1.0, "guide": nn.Flatten()}, r"the guide makes \[1, 150528\] of an image, .* 6 numbers"),
        ({"phase": "freeze64", "primary_px": 16}, "phase 'freeze64' goes on from a run .* start_from"),
        ({"phase": "text_encoder"}, "phase 'text_encoder' goes on from a run"),
    ],
)
def test_what_cannot_be_trained(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fit(tiny(**given), tmp_path, shapes(), batches=1)


@on(
    ("options", "message"),
    [
        ({"phase": "freeze64"}, "resolution 32 has no blocks above primary_px 64"),
        ({"phase": "text_encoder", "encoder": "embeddings", "vocabulary": None}, "reads none of the captions' words"),
        ({"own_encoder": True, "encoder": "none", "vocabulary": None}, "cannot have a text encoder of its own"),
        ({"sentence_length": 0}, "sentence_length 0 must be positive; 1 as published"),
        ({"phase": "some"}, "phase 'some' is not one of all, text_encoder, freeze64"),
        ({"gn_groups": 3}, "8 channels at 8 px cannot be normalised in 3 groups"),
        ({"resolution": 48}, "resolution 48 is not a power of two from 8; blocks double it from 8"),
        ({"num_res_blocks": 0}, "num_res_blocks 0"),
        ({"norm_group": 0}, "norm_group 0 is below 1"),
        ({"at_once": 0}, "at_once 0 must be 1 or more"),
        ({"crop_probability": 1.5}, r"crop_probability 1.5 in \[0, 1\]"),
        ({"blur_kimg": 0.0}, "blur_kimg 0.0 be positive"),
        ({"num_classes": 3}, "num_classes"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tiny(**options)


def test_bad_calls() -> None:
    with pytest.raises(ValueError, match=r"conditional: give sentences \[N, 3\]; found none"):
        generator()(torch.randn(2, 4))
    with pytest.raises(ValueError, match=r"found of shape \(2, 4\)"):
        generator()(torch.randn(2, 4), torch.randn(2, 4))
    with pytest.raises(ValueError, match="this discriminator is conditional"):
        Head(4, c_dim=3)(torch.randn(4, 4, 9))
    with pytest.raises(ValueError, match="kernel_size 2 is even"):
        generator(kernel_size=2)


# ---- training --------------------------------------------------------------------------------------------------------


@on("name", CASES)
def test_players_step_in_order(name: str, tmp_path: Path) -> None:
    gan = CASES[name]()
    data = shapes() if name == "captions" else Shapes(batch_size=BATCH, resolution=32, images=64, seed=5)
    steps = steps_of(gan, lambda: fit(gan, tmp_path, data, batches=1))
    assert [player for player, _ in steps] == ["discriminator", "generator"]
    for player, changed in steps:
        assert changed and all(name.startswith(player) for name in changed)


@on("length", [1.0, 8.0])
def test_both_players_are_told_the_captions(tmp_path: Path, length: float) -> None:
    """Fakes and reals are judged beside the sentences of the batch, all of one length, and fakes drawn of them."""
    gan, told = tiny(sentence_length=length), list[Tensor]()
    gan.discriminator.register_forward_pre_hook(lambda module, given: told.append(given[1]))
    gan.generator.mapping.register_forward_pre_hook(lambda module, given: told.append(given[1]))

    def look(game: StyleGANT, batch: dict[str, Tensor]) -> None:
        told.clear()
        Replay(game, batch).fresh()
        wanted = length * normalize(game.features(batch).sentence)
        assert len(told) == 5 and all(torch.equal(c, wanted) for c in told)
        assert torch.allclose(wanted.norm(dim=1), torch.full((BATCH,), length))

    replayed(gan, shapes(), tmp_path, look)


def test_the_adversarial_loss_is_divided_beside_the_guide(tmp_path: Path) -> None:
    for at_once in (1, 8):

        def look(game: StyleGANT, batch: dict[str, Tensor], at_once: int = at_once) -> None:
            moved(game)
            run = Replay(game, batch).fresh()
            d_loss, _ = hinge(*run.judged[0])
            adversarial = d_loss.item() + run.reports["loss_g"]
            assert run.loss == pytest.approx(adversarial / at_once + 0.3 * run.reports["guidance"], rel=1e-4)

        replayed(CASES["captions"](at_once=at_once), shapes(), tmp_path / str(at_once), look)


def test_micro_batches_that_groups_fit_add_up_to_the_whole(tmp_path: Path) -> None:
    """With the vectors of spectral norms where they stay, gradients are those of the whole batch."""
    found: list[list[Tensor]] = []
    for parts in (1, 2):

        def look(game: StyleGANT, batch: dict[str, Tensor]) -> None:
            moved(game)
            for module in game.discriminator.heads.modules():
                if hasattr(module, "approach"):
                    module.approach(300)
            found.append(Replay(game, batch).fresh().gradients)

        replayed(CASES["captions"](micro_batches=parts, policy=["translation"]), shapes(), tmp_path / str(parts), look)
    for whole, together in zip(*found, strict=True):
        assert (whole - together).norm() < 1e-3 * whole.norm()


def test_averages_move_by_both_players_fakes(tmp_path: Path) -> None:
    gan, means = tiny(), list[Tensor]()
    track = gan.generator.mapping.track
    gan.generator.mapping.track = lambda mean: means.append(mean.clone()) or track(mean)
    fit(gan, tmp_path, shapes(), batches=1)
    assert len(means) == 2
    expected = torch.zeros(4)
    for mean in means:
        expected = expected.lerp(mean, 0.005)
    assert torch.allclose(gan.generator.mapping.x_avg, expected, atol=1e-7) and gan.text_avg.abs().max() > 0


def test_a_step_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    check_resume(CASES["captions"], tmp_path, lambda gan, folder, **o: fit(gan, folder, shapes(), **o), stop_at=3)


def test_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_ALLOW_SLOW_BF16", "1")
    gan = CASES["captions"]()
    before = [p.detach().clone() for p in gan.parameters()]
    fit(gan, tmp_path, shapes(), batches=2, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in gan.parameters())
    assert largest_difference(before, [p.detach() for p in gan.parameters()]) > 0


SLOWLY = {"lr_g": 2e-5, "lr_d": 2e-5}  # at the published rates Adam amplifies rounding


@pytest.mark.slow
def test_two_processes_equal_one_with_captions(tmp_path: Path) -> None:
    """Groups of local batch norms lie in one process: its rows are a multiple of them."""
    run_processes(2, ["-m", "tests.papers.test_stylegan_t", str(tmp_path)])
    gan = CASES["captions"](**SLOWLY)
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    alone = state(gan, fit(gan, tmp_path / "alone", shapes(), batches=4))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert largest_difference(first, second) == 0.0 and first["clock"] == alone["clock"]
    assert largest_difference(alone["state"], before) > 1e-4
    for key, tensor in alone["state"].items():
        assert largest_difference(tensor, first["state"][key]) < 1e-4 * max(1.0, tensor.abs().max().item()), key


# ---- phases ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("primary")
    fit(tiny(resolution=16, guide=None), folder, shapes(resolution=16), batches=2)
    return folder


def frozen_and_moved(gan: StyleGANT, folder: Path, data: Any, start: dict[str, Tensor]) -> set[str]:
    """The parameters that three batches changed; what a run begins with comes from `start`."""
    fit(gan, folder, data, batches=3)
    return {name for name, p in gan.named_parameters() if name not in start or not torch.equal(p, start[name])}


IDLE = {f"discriminator.heads.{k}.{block}.conv.bias" for k in range(4) for block in ("first", "second")}


def test_the_super_resolution_trains_new_blocks_and_colours_alone(primary: Path, tmp_path: Path) -> None:
    saved = read_checkpoint(checkpoints(primary)[-1])["state_dict"]
    gan = tiny(phase="freeze64", primary_px=16, start_from=str(primary), encoder_weights=str(primary))
    ema = "generator_ema."
    start = {k.replace(ema, "generator."): t for k, t in saved.items() if k.startswith(ema)}
    start |= {k: t for k, t in saved.items() if k.startswith(("generator_ema.", "discriminator.", "text_encoder."))}
    changed = frozen_and_moved(gan, tmp_path, shapes(), start)
    names = {name for name, _ in gan.generator.named_parameters()}
    trained = {n for n in names if n.startswith("synthesis.blocks.32.") or ".to_rgb." in n}
    assert {n.removeprefix("generator.") for n in changed if n.startswith("generator.")} == trained
    assert {n for n, p in gan.generator.named_parameters() if p.requires_grad} == trained == {
        n for n, _ in gan.generator.trained("freeze64", primary_px=16)
    }
    heads = {n for n, _ in gan.named_parameters() if n.startswith("discriminator.")}
    assert {n for n in changed if n.startswith("discriminator.")} == heads - IDLE
    assert not {n for n in changed if n.startswith(("text_encoder.", "reader"))}
    assert {n.removeprefix(ema) for n in changed if n.startswith(ema)} == trained
    assert load_run(tmp_path).sample([1], captions=[RED]).shape == (1, 3, 32, 32)


def test_all_goes_on_with_every_layer(primary: Path, tmp_path: Path) -> None:
    gan = tiny(start_from=str(primary), encoder_weights=str(primary))
    fit(gan, tmp_path, shapes(), batches=1)
    assert all(p.requires_grad for p in gan.generator.parameters())
    again = tiny()
    again.generator.take(load_run(primary).generator_ema.state_dict(), phase="all")
    assert torch.equal(again.generator.mapping.x_avg, load_run(primary).generator_ema.mapping.x_avg)


def test_the_text_encoder_is_trained_alone_and_read_by_from_then_on(primary: Path, tmp_path: Path) -> None:
    shared = {"resolution": 16, "encoder_weights": str(primary)}
    gan = tiny(phase="text_encoder", start_from=str(primary), lr_text=0.01, **shared)
    saved = read_checkpoint(checkpoints(primary)[-1])["state_dict"]
    start = {k: t for k, t in saved.items() if k.startswith(("generator_ema.", "discriminator.", "text_encoder."))}
    start |= {f"generator.{k.removeprefix('generator_ema.')}": t for k, t in start.items() if "generator_ema" in k}
    readers = {f"{own}.{k.removeprefix('text_encoder.')}": t for k, t in start.items() if k.startswith("text_encoder.")
               for own in ("reader", "reader_ema")}  # fmt: skip
    changed = frozen_and_moved(gan, tmp_path / "text", shapes(resolution=16), start | readers)
    heads = {n for n, _ in gan.named_parameters() if n.startswith("discriminator.")}
    own = {n for n, _ in gan.named_parameters() if n.startswith(("reader.", "reader_ema."))}
    assert changed == (heads - IDLE) | own and list(gan.trained()) == [n for n in readers if n.startswith("reader.")]
    read = gan.eval().read([RED]).sentence
    assert torch.equal(read, gan.reader_ema(tensors(gan, [RED])).sentence)
    assert not torch.equal(read, gan.text_encoder(tensors(gan, [RED])).sentence)
    # Another phase goes on with it.
    grown = tiny(phase="freeze64", primary_px=16, start_from=str(tmp_path / "text"), encoder_weights=str(primary),
                 own_encoder=True)  # fmt: skip
    fit(grown, tmp_path / "grown", shapes(), batches=1)
    for ours, theirs in zip(grown.reader.parameters(), gan.reader_ema.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="has a text encoder of its own: set own_encoder=true"):
        tiny(phase="freeze64", primary_px=16, encoder_weights=str(primary)).take_over(tmp_path / "text")


def tensors(gan: StyleGANT, texts: list[str]) -> dict[str, Tensor]:
    return gan.text_encoder.tensors(texts)


@pytest.mark.slow
def test_a_phase_is_resumed_without_the_run_before(primary: Path, tmp_path: Path) -> None:
    options = {"phase": "text_encoder", "resolution": 16, "encoder_weights": str(primary), "lr_text": 0.01}
    check_resume(
        lambda: tiny(start_from=str(primary), **options), tmp_path,
        lambda gan, folder, **o: fit(gan, folder, shapes(resolution=16), **o), stop_at=2,
    )  # fmt: skip


def test_a_phase_goes_on_from_its_like_alone(primary: Path, tmp_path: Path) -> None:
    other = tiny(phase="freeze64", primary_px=16)
    next(other.text_encoder.parameters()).data.add_(1)
    with pytest.raises(ValueError, match="the text encoder of start_from .* is another than this run's"):
        other.take_over(primary)
    known = {"encoder_weights": str(primary), "primary_px": 16, "phase": "freeze64"}
    with pytest.raises(ValueError, match=r"does not have \d+ tensors of this one .*num_res_blocks"):
        tiny(**known, num_res_blocks=2).take_over(primary)
    with pytest.raises(ValueError, match=r"was told sentences of length 1, .* of length 8: set sentence_length=1"):
        tiny(**known, sentence_length=8.0).take_over(primary)
    with pytest.raises(ValueError, match="look through another network, or are of another size: give features and"):
        tiny(**known, cmap_dim=5).take_over(primary)
    with pytest.raises(ValueError, match="new in phase 'text_encoder' may be blocks above 32 pixels alone"):
        tiny(**{**known, "phase": "text_encoder"}).take_over(primary)
    train(GANS["dcgan"](), tmp_path, batches=1)
    with pytest.raises(ValueError, match="holds a lit_gans.papers.dcgan.DCGAN, and must hold a .*StyleGANT"):
        tiny(**known).take_over(tmp_path)


# ---- captions, editing and files -------------------------------------------------------------------------------------


def prepared() -> StyleGANT:
    gan = tiny().eval()
    gan.generator_ema.mapping.x_avg.normal_()
    gan.text_avg.normal_()
    return gan


def test_captions_are_drawn_and_truncation_keeps_them() -> None:
    gan = prepared()
    red, blue = gan.sample([3, 4], captions=[RED, RED]), gan.sample([3, 4], captions=[BLUE, BLUE])
    assert not torch.equal(red, blue) and not torch.equal(red[0], red[1])
    mean = gan.sample([3, 4], captions=[RED, BLUE], psi=0.0)
    again = gan.sample([7, 8], captions=[RED, BLUE], psi=0.0)
    assert torch.allclose(mean, again, atol=1e-5) and not torch.allclose(mean[0], mean[1], atol=1e-4)


def test_styles_are_of_a_caption_or_of_the_mean_of_all() -> None:
    gan = prepared()
    z, features = gan.seeded_latents([3, 4]), gan.read([RED, BLUE])
    ws = gan.styles(z, features=features, psi=0.5)
    assert torch.allclose(gan.synthesize(ws).clamp(-1, 1), gan.generate(z, features=features, psi=0.5), atol=1e-5)
    assert torch.equal(ws[:, 0, 4:], normalize(features.sentence))
    assert torch.equal(gan.styles(z)[0, 0, 4:], gan.text_avg)
    edited = FromCaption(RED, seed=3, psi=0.5).begin(gan, Path(), ema=True)
    assert torch.allclose(edited.image().clamp(-1, 1), gan.sample([3], captions=[RED], psi=0.5), atol=1e-5)
    assert edited.styled("an edit").shape == ws[:1].shape


def test_a_sheet_of_variation_against_agreement(tmp_path: Path) -> None:
    gan = prepared()
    path = save_truncated(gan, [4, 5], [RED, BLUE], tmp_path / "sheet.png", psi=[0.0, 1.0])
    with Image.open(path) as file:
        found = torch.tensor(np.array(file)).permute(2, 0, 1)
    rows = torch.cat([draw_captions(gan, [4, 5], [RED, BLUE], psi=psi) for psi in (0.0, 1.0)], 1)
    assert torch.equal(found, captioned_grid(rows, [f"{text} (psi 0, 1, 2 seeds each)" for text in (RED, BLUE)]))
    assert (rows[:, 0].int() - rows[:, 1].int()).abs().max() <= 1 and (rows[:, 2] != rows[:, 3]).any()


def test_a_saved_run_draws_sweeps_and_says_what_reads(tmp_path: Path) -> None:
    gan = CASES["captions"]()
    fit(gan, tmp_path, shapes(), batches=2)
    loaded = load_run(tmp_path)
    assert torch.equal(loaded.sample([3, 4], captions=[RED, BLUE]), gan.eval().sample([3, 4], captions=[RED, BLUE]))
    images, columns = loaded.preview(shapes(), rows=2, columns=3, psi=1.0)
    assert images.shape == (6, 3, 32, 32) and columns == 3
    argv = ["--psi", "0", "1", "--text", RED, "--seeds", "4,5", "--output", str(tmp_path / "sheet.png")]
    assert sample.main([str(tmp_path), *argv]) == 0 and (tmp_path / "sheet.png").stat().st_size > 0
    features, text = gan.frozen_networks()[:2]
    assert features["network"] == "test_resnet" and features["fingerprint"] == gan.hparams["features_fingerprint"]
    assert text["network"] == "text encoder words" and "sentences of 6 numbers" in text["weights"]


@pytest.mark.slow
def test_a_model_with_captions_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    told = save_exported(prepared(), tmp_path / "t.onnx").told
    assert {"z", "sentence"} <= told["inputs"].keys() and max(told["largest_difference"].values()) <= 1e-4


def test_without_captions_it_is_a_styled_gan() -> None:
    gan = CASES["none"]().eval()
    gan.generator_ema.mapping.x_avg.normal_()
    sheet = truncation_sweep(gan, [4, 5], psi=[0, 1])
    assert sheet.shape == (2, 2, 3, 32, 32) and (sheet[0, 0].int() - sheet[0, 1].int()).abs().max() <= 1
    z = gan.seeded_latents([5])
    turned = gan.synthesize_transformed(gan.styles(z), torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
    assert torch.equal(gan.synthesize_transformed(gan.styles(z), torch.eye(3)), gan.synthesize(gan.styles(z)))
    assert not torch.allclose(turned, gan.synthesize(gan.styles(z)), atol=1e-3)


def test_a_generator_alone_is_a_model() -> None:
    network = generator(channels=1)
    gan = StyleGANT.from_generator(network)
    assert (gan.resolution, gan.channels, gan.z_dim, gan.reads_captions) == (16, 1, 4, True)
    z, c = gan.seeded_latents([5]), normalize(torch.randn(1, 3))
    drawn = gan.generate(z, features=TextFeatures(c), psi=0.5)
    assert torch.allclose(drawn, network(z, c, psi=0.5, noise="const").clamp(-1, 1), atol=1e-6)
    assert not StyleGANT.from_generator(generator(c_dim=0)).reads_captions


def test_clip_guides_as_it_embeds(clip_folder: Path) -> None:  # noqa: F811
    guide, clip = CLIPGuide("some/clip", folder=str(clip_folder)), build_clip("some/clip", folder=clip_folder)
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    seen = (images / 127.5 - 1).requires_grad_()
    found = guide(seen)
    assert torch.allclose(found, clip.images(images), atol=1e-4)
    found.sum().backward()
    assert seen.grad.abs().max() > 0 and not guide.state_dict() and not list(guide.parameters())
    assert guide(torch.zeros(1, 1, 224, 224)).shape == (1, 8)
    assert guide.stamp() == {"network": "clip:some/clip", "weights": str(clip_folder), "fingerprint": clip.fingerprint}


# ---- files of the official code --------------------------------------------------------------------------------------

BUFFERS = ("freqs", "phases", "transform", "x_avg", "noise_const", "resample_filter")


def official_state(network: Generator) -> dict[str, Tensor]:
    """Our tensors under the official names, with the filters that every layer and block keeps there."""
    found: dict[str, Tensor] = {}
    every = dict(network.state_dict()) | {n: b for n, b in network.named_buffers() if n.endswith("resample_filter")}
    for name, tensor in every.items():
        renamed = {"blocks.": "b", "convs.": "convs1.", "to_rgb": "torgb", "mapping.layers.": "mapping.mlp.fc"}
        for ours, theirs in renamed.items():
            name = name.replace(ours, theirs)
        found[name] = tensor
    return found


ARGUMENTS = {"z_dim": 4, "conditional": True, "img_resolution": 16, "img_channels": 3, "train_mode": "all"}
SYNTHESIS = {"channel_base": 128, "channel_max": 8, "num_res_blocks": 2, "architecture": "skip", "gn_groups": 4}
SYNTHESIS |= {"num_fp16_res": 0}


@on("conditional", [True, False])
def test_a_generator_of_the_official_code_goes_both_ways(
    conditional: bool, tmp_path: Path, official_modules: None
) -> None:
    """With CLIP in it, which ours does not keep, and which comes back."""
    network = generator(c_dim=3 if conditional else 0)
    names = official_state(network) | ({"mapping.clip.model.ln_final.weight": torch.randn(3)} if conditional else {})
    arguments = {**ARGUMENTS, "conditional": conditional, "synthesis_kwargs": SYNTHESIS}
    contents = {"G_ema": tree("Generator", names, buffers=BUFFERS.__contains__, arguments=arguments)}
    convert(written(tmp_path / "official.pkl", contents), tmp_path / "ours")
    z, c = torch.randn(2, 4), torch.randn(2, 3) if conditional else None
    ours = from_pretrained(tmp_path / "ours")
    assert torch.allclose(ours(z, c, psi=0.5, noise="const"), network(z, c, psi=0.5, noise="const"), atol=1e-5)
    convert(tmp_path / "ours", tmp_path / "again.pkl", to="official")
    first, second = (read_official(tmp_path / f"{name}.pkl").networks["G_ema"] for name in ("official", "again"))
    assert list(second.state) == list(first.state) and second.fingerprint == first.fingerprint
    assert isinstance(load_run(tmp_path / "ours"), StyleGANT)


class Part(nn.Module):
    """A module of the official code, whose pickle names its class and holds its attributes."""


class Official(nn.Module):
    """The root of a network there."""


Part.__name__ = Part.__qualname__ = "SynthesisLayer"
Official.__name__ = Official.__qualname__ = "Generator"


def by_reference(root: nn.Module, names: dict[str, Tensor]) -> nn.Module:
    for name, tensor in names.items():
        module = root
        for part in name.split(".")[:-1]:
            if part not in module._modules:
                module.add_module(part, Part())
            module = module._modules[part]
        own = name.rpartition(".")[2]
        if own in BUFFERS or own.endswith(("_u", "_v")):
            module.register_buffer(own, tensor)
        else:
            module.register_parameter(own, nn.Parameter(tensor))
    return root


class Judges(nn.Module):
    """A discriminator there."""


HEAD_NAMES = {
    "first.conv.": "main.0.0.", "first.norm.": "main.0.1.", "second.conv.": "main.1.fn.0.",
    "second.norm.": "main.1.fn.1.", "classify.": "cls.", "condition.": "cmapper.",
}  # fmt: skip


Judges.__name__ = Judges.__qualname__ = "ProjectedDiscriminator"


def test_a_generator_by_reference_is_read_by_its_shapes(tmp_path: Path) -> None:
    """As the official training saves it, without arguments: groups of norms are the 32 that it has."""
    network = generator(channel_base=1024, channel_max=64, gn_groups=32)
    root = by_reference(Official(), official_state(network))
    root.z_dim, root.img_resolution, root.conditional, root.train_mode = 4, 16, True, "all"
    with modules_of_pickles(("networks.generator", Part), ("networks.generator", Official)):
        path = written(tmp_path / "official.pkl", {"G_ema": root, "training_set_kwargs": {"path": "x"}})
    convert(path, tmp_path / "ours")
    z, c = torch.randn(2, 4), torch.randn(2, 3)
    ours = from_pretrained(tmp_path / "ours")
    assert torch.allclose(ours(z, c, noise="const"), network(z, c, noise="const"), atol=1e-5)
    assert_the_way_back(tmp_path, path)


def assert_the_way_back(tmp_path: Path, path: Path) -> None:
    convert(tmp_path / "ours", tmp_path / "again.pkl", to="official")
    first, second = read_official(path), read_official(tmp_path / "again.pkl")
    for name, one in first.networks.items():
        assert second.networks[name].fingerprint == one.fingerprint and second.networks[name].modules == one.modules


@pytest.mark.slow
def test_discriminators_by_reference_are_read_without_the_network_that_they_look_through(tmp_path: Path) -> None:
    torch.manual_seed(1)
    judges, heads = Discriminator(c_dim=3, cmap_dim=5), dict[str, Tensor]()
    for name, tensor in judges.heads.state_dict().items():
        k, _, own = name.partition(".")
        for ours, theirs in HEAD_NAMES.items():
            own = own.replace(ours, theirs)
        normed = own.startswith(("main.0.0.", "main.1.fn.0.", "cls."))
        own = own.replace(".weight", ".weight_orig") if normed else own
        own = own[:-1] + f"weight_{own[-1]}" if normed and own[-2:] in (".u", ".v") else own
        heads[f"heads.{k}.{own}"] = tensor
    d = by_reference(Judges(), heads | {"dino.model.model.cls_token": torch.randn(1, 1, 384)})
    d.c_dim, d.diffaug, d.p_crop = 3, True, 0.5
    root = by_reference(Official(), official_state(generator(channel_base=1024, channel_max=64, gn_groups=32)))
    classes = ("networks.generator", Part), ("networks.generator", Official), ("networks.discriminator", Judges)
    with modules_of_pickles(*classes):
        path = written(tmp_path / "official.pkl", {"G_ema": root, "D": d})
    convert(path, tmp_path / "ours")
    found = from_pretrained(tmp_path / "ours" / "D").heads.state_dict()
    assert largest_difference(dict(found), dict(judges.heads.state_dict())) == 0
    assert_the_way_back(tmp_path, path)


# ---- experiments -----------------------------------------------------------------------------------------------------


def plan(name: str) -> dict[str, Any]:
    return yaml.safe_load(shipped_configs()[f"stylegan_t/{name}"].read_text(encoding="utf-8"))


@on(("name", "px"), [("primary64", 64), ("superres256", 256), ("superres512", 512)])
def test_published_experiments(name: str, px: int) -> None:
    config = plan(name)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert model["resolution"] == data["resolution"] == px
    assert config["ema"]["half_life_kimg"] == data["batch_size"] * 10 / 32
    assert data["embeddings"] == model.get("encoder", "clip:openai/clip-vit-large-patch14")
    with torch.device("meta"):
        gan = StyleGANT(**{k: v for k, v in model.items() if k != "guide"})
    assert gan.generator.mapping.c_dim == 768 and gan.discriminator.features.name == "vit_small_patch16_224.dino"
    assert data["batch_size"] // 64 // model["micro_batches"] == gan.at_once  # images at once on each of 64 GPUs
    frozen = {n for n, p in gan.generator.named_parameters() if not p.requires_grad}
    assert (not frozen) == (px == 64) and not any(".to_rgb." in n for n in frozen)
    assert not any(f"blocks.{r}." in n for n in frozen for r in (128, 256, 512))


@on("guided", [False, True])
def test_the_small_experiment_trains(tmp_path: Path, guided: bool) -> None:
    joint, run = tmp_path / "joint", tmp_path / "run"
    small = ["--logger=none", "--model.init_args.total_kimg=0.016", "--data.init_args.images=64"]
    small += ["--data.init_args.test_images=16", "--data.init_args.batch_size=8", "--image_grid.columns=2"]
    argv = ["--config", "stylegan_t/shapes64", f"--run_folder={run}", *small, "--image_grid.rows=2"]
    argv += ["--model.init_args.features=test_resnet", "--model.init_args.features_weights=random"]
    argv += ["--model.init_args.channel_max=8", "--model.init_args.gn_groups=2"]
    if guided:
        assert verb.main(["--config", "joint_embedding/shapes64_bag", f"--run_folder={joint}", *small]) == 0
        argv += [f"--model.init_args.encoder_weights={joint}", "--model.init_args.guidance_weight=0.2"]
        argv += ["--model.init_args.guide=lit_gans.papers.stylegan_t.JointGuide"]
        argv += [f"--model.init_args.guide.init_args.run={joint}"]
    assert verb.main(argv) == 0
    (start,) = json.loads((run / "run.json").read_text(encoding="utf-8"))["starts"]
    networks = ["test_resnet", "text encoder words", *["joint_embedding"] * guided]
    assert [one["network"] for one in start["networks"]] == networks
    drawn = load_run(run).sample([0], captions=["a large red circle in the centre on white"])
    assert drawn.shape == (1, 3, 64, 64)


if __name__ == "__main__":
    torch.set_num_threads(1)
    target, rank = Path(sys.argv[1]), os.environ["RANK"]
    game = CASES["captions"](**SLOWLY)
    how = {"strategy": "sync_at_step", "devices": int(os.environ["WORLD_SIZE"])}
    torch.save(state(game, fit(game, target / "two", shapes(), batches=4, **how)), target / f"{rank}.pt")
