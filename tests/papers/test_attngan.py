"""AttnGAN and DAMSM: training, resuming, what runs take over from runs, attention sheets, errors."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from lit_gans import fit
from lit_gans.adversarial import Game
from lit_gans.callbacks import EMA, Checkpoint
from lit_gans.data import Digits, ShapeCaptions
from lit_gans.metrics.text import RPrecision
from lit_gans.papers import DAMSM, AttnGAN
from lit_gans.papers.attngan import attention_sheet, r_precision_of, save_attention_sheet
from lit_gans.papers.attngan.losses import damsm_loss, discriminator_loss
from lit_gans.papers.attngan.maps import LABEL_PX, most_attended, overlay
from lit_gans.papers.attngan.matching import SmallEncoder
from lit_gans.papers.attngan.networks import Discriminator, Discriminators, Generator, scales
from lit_gans.papers.attngan.retrieval import picture_groups
from lit_gans.papers.text.networks import word_mask
from lit_gans.runs.caption_fit import r_precision_of_run
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from lit_gans.sample import sample
from tests.adversarial.painter import Painter
from tests.cases import StopAt, largest_difference, state
from tests.distributed.launch import run_processes

BATCH = 8
RED, BLUE = "a small red circle at the top left on grey", "there is one square at the centre and its colour is blue"
SIZES = {"sentence_dim": 8, "word_dim": 4, "image_encoder": "small", "image_width": 4, "image_px": 32, "seed": 1}


def shapes(**options: Any) -> ShapeCaptions:
    chosen = {"batch_size": BATCH, "resolution": 32, "images": 64, "test_images": 16, "seed": 5, **options}
    return ShapeCaptions(**chosen)


def words() -> list[str]:
    return list(shapes().vocabulary.words)


def damsm(**options: Any) -> DAMSM:
    torch.manual_seed(0)
    return DAMSM(**{"vocabulary": words(), **SIZES, **options})


def attngan(**options: Any) -> AttnGAN:
    torch.manual_seed(0)
    small = {"resolution": 32, "stages": 2, "z_dim": 4, "condition_dim": 3, "width": 2, "blocks": 1}
    given = {} if "encoder_weights" in options else {"vocabulary": words(), **SIZES}
    return AttnGAN(**{**small, "discriminator_width": 4, "seed": 1, **given, **options})


BUILD: dict[str, Callable[..., Game]] = {"attngan": attngan, "damsm": damsm}


def train(
    game: Game,
    folder: Path,
    *,
    batches: int,
    stop_at: int | None = None,
    resume: Path | None = None,
    data: pl.LightningDataModule | None = None,
    **options: Any,
) -> pl.Trainer:
    """A run of `batches` batches that is stopped at `stop_at`."""
    game.total_kimg = batches * BATCH / 1000
    ema = [EMA(0.1)] if game.averages() else []
    trainer = pl.Trainer(
        max_epochs=-1, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, default_root_dir=str(folder),
        callbacks=[*ema, StopAt(stop_at), Checkpoint(0, 0, monitor=None)], **options,
    )  # fmt: skip
    trainer.fit(game, datamodule=data or shapes(), ckpt_path=resume, weights_only=True)
    return trainer


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of DAMSM."""
    folder = tmp_path_factory.mktemp("damsm")
    train(damsm(), folder, batches=3)
    return folder


pytestmark = pytest.mark.filterwarnings("ignore:.*random weights and is not trained.*")

# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["none", "caption"])
@pytest.mark.parametrize("name", BUILD)
def test_resumed_equals_unbroken(name: str, wrong: str, tmp_path: Path) -> None:
    data = lambda: shapes(wrong=wrong, label="shape")  # noqa: E731
    whole, first, second = (BUILD[name]() for _ in range(3))
    unbroken = state(whole, train(whole, tmp_path / "whole", batches=6, data=data()))
    train(first, tmp_path / "parts", batches=6, stop_at=3, data=data())
    resume = sorted((tmp_path / "parts" / "checkpoints").glob("*.ckpt"))[-1]
    resumed = state(second, train(second, tmp_path / "rest", batches=6, resume=resume, data=data()))
    assert unbroken["clock"] == (48, 6) and largest_difference(unbroken, resumed) == 0.0


@pytest.mark.parametrize("name", BUILD)
def test_training_leaves_torchs_generator_alone(name: str, tmp_path: Path) -> None:
    one, two = BUILD[name](), BUILD[name]()
    first = state(one, train(one, tmp_path / "a", batches=2))
    torch.manual_seed(99)
    ambient = torch.get_rng_state()
    second = state(two, train(two, tmp_path / "b", batches=2))
    assert torch.equal(torch.get_rng_state(), ambient) and largest_difference(first, second) == 0.0


@pytest.mark.parametrize("name", BUILD)
def test_micro_batches(name: str, tmp_path: Path) -> None:
    game = BUILD[name](micro_batches=2)
    before = {k: p.detach().clone() for k, p in game.named_parameters() if p.requires_grad}
    train(game, tmp_path, batches=2)
    after = dict(game.named_parameters())
    assert game.images_seen == 2 * BATCH and all(torch.isfinite(p).all() for p in after.values())
    assert all(not torch.equal(before[k], after[k]) for k in before if k.endswith("project.weight"))


@pytest.mark.parametrize("name", BUILD)
def test_half_precision(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_ALLOW_SLOW_BF16", "1")
    game = BUILD[name]()
    train(game, tmp_path, batches=2, precision="bf16-mixed")
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in game.parameters())


def test_players_step_in_order_and_encoders_stay(tmp_path: Path) -> None:
    """The discriminators first, then the generator, as in the official code; all their parameters have gradients."""
    gan, stepped = attngan(), []

    class Spy(AttnGAN):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            stepping = {id(p) for group in optimizer.param_groups for p in group["params"]}
            player = "generator" if id(next(self.generator.parameters())) in stepping else "discriminator"
            parameters = list(getattr(self, player).parameters())
            assert stepping == {id(p) for p in parameters} and all(p.grad is not None for p in parameters)
            stepped.append(player)

    gan.__class__ = Spy
    encoders = [gan.text_encoder, gan.image_encoder]
    before = [{k: v.clone() for k, v in e.state_dict().items()} for e in encoders]
    train(gan, tmp_path, batches=2)
    assert stepped == ["discriminator", "generator"] * 2
    assert largest_difference(before, [e.state_dict() for e in encoders]) == 0.0
    assert not any(m.training for e in encoders for m in e.modules())


def test_damsm_trains_both_encoders_and_clips_the_text_encoder(tmp_path: Path) -> None:
    game, norms = damsm(text_clip=0.01), []

    class Spy(DAMSM):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            for network in self.networks():
                norms.append(torch.stack([p.grad.norm() for p in network.parameters()]).norm().item())

    game.__class__ = Spy
    train(game, tmp_path, batches=1)
    assert norms[0] == pytest.approx(0.01, rel=1e-3) and norms[1] > 0.02


def test_the_learning_rate_of_damsm_falls_by_epochs_to_a_tenth(tmp_path: Path) -> None:
    game = damsm(lr=0.01, lr_decay=0.5, lr_decay_kimg=0.016)
    trainer = train(game, tmp_path, batches=4)  # the fourth batch begins at 0.024 kimg, in the second epoch
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.005)
    game.images_seen = 1000
    assert game.learning_rate_share() == 0.1


@pytest.mark.slow
def test_damsm_learns_to_tell_captions(tmp_path: Path) -> None:
    """Of a dozen pictures, by heart."""
    data = shapes(images=12, vocabulary=words())
    game = damsm(lr=0.005, lr_decay=1.0, text_clip=1.0, sentence_dim=16, word_dim=16, image_width=8)

    def share() -> float:
        pictures, metric = data.dataset("train"), RPrecision(16, candidates=10, folds=1)
        chosen = torch.arange(12)
        images, captions = pictures.fetch(chosen)["image"], data.captions(chosen)
        metric.update(game.images(images), game.texts(captions), index=chosen)
        return metric.compute()[0].item()

    data.setup("fit")
    before = share()
    train(game, tmp_path, batches=500, data=data)
    assert share() >= max(before + 0.3, 0.6)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["none", "caption"])
@pytest.mark.parametrize("name", BUILD)
def test_two_processes_equal_one(name: str, wrong: str, tmp_path: Path) -> None:
    """Mismatches in the batch are those of all processes, and so are the sentences of the next pictures."""
    run_processes(2, ["-m", "tests.papers.test_attngan", name, wrong, str(tmp_path / "two")])
    game = BUILD[name]()
    before = {k: v.clone() for k, v in game.state_dict().items()}
    alone = state(game, train(game, tmp_path / "one", batches=6, data=shapes(wrong=wrong, label="shape")))
    first, second = (torch.load(tmp_path / "two" / f"{rank}.pt") for rank in (0, 1))
    assert largest_difference(first, second) == 0.0, "the ranks differ"
    assert largest_difference(before, alone["state"]) > 1e-3, "nothing was learned"
    for key, tensor in alone["state"].items():
        assert largest_difference(tensor, first["state"][key]) < 2e-5 * max(1.0, tensor.abs().max().item()), key


# ---- the parts of a step ---------------------------------------------------------------------------------------------


def test_wrong_sentences_are_the_next_ones_or_those_of_the_data() -> None:
    gan, data = attngan(), shapes(wrong="caption")
    data.setup("fit")
    batch = {k: v for k, v in data.stream().batch(0).items() if k != "image"}
    own, wrong = gan.features(batch).sentence, gan.features(batch, prefix="wrong_").sentence
    assert torch.equal(gan.wrong_sentences(batch, own), wrong) and not torch.equal(own, wrong)
    batch = {k: v for k, v in batch.items() if not k.startswith("wrong_")}
    assert torch.equal(gan.wrong_sentences(batch, own), torch.cat([own[1:], own[:1]]))


def test_without_the_joint_loss_there_is_a_conditional_head_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    d = Discriminator(resolution=16, width=2, embed_dim=3, joint=False)
    assert d.unconditional is None
    real, fake, sentence = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16), torch.randn(4, 3)
    d.eval()
    loss, real_logits, fake_logits = discriminator_loss(d, real, fake, sentence, sentence.flip(0))
    wrong_logits = d.conditional(d(real), sentence.flip(0))
    entropies = [torch.nn.functional.softplus(x).mean() for x in (-real_logits, fake_logits, wrong_logits)]
    torch.testing.assert_close(loss, entropies[0] + (entropies[1] + entropies[2]) / 2)
    train(attngan(joint=False, damsm_weight=0.0), tmp_path, batches=1)


def test_the_damsm_loss_reaches_the_generator_and_is_weighed() -> None:
    gan, text = attngan(damsm_weight=3.0), None
    text = gan.read([RED, BLUE, "a large green star at the bottom on white"])
    z, eps = gan.seeded_latents([1, 2, 3]), gan.seeded_noise([1, 2, 3])
    fake = gan.draw(z, eps, *text)
    gan.matching(fake.images[-1], text, None).backward()
    assert gan.generator.stages["2"].attention.project.weight.grad.abs().max() > 0
    assert attngan(damsm_weight=0.0).image_encoder is None


def test_masked_words_change_nothing() -> None:
    torch.manual_seed(0)
    regions, image = torch.randn(3, 4, 2, 2), torch.randn(3, 4)
    features, sentence, mask = torch.randn(3, 5, 4), torch.randn(3, 4), word_mask(torch.tensor([5, 2, 3]), 5)
    changed = torch.where(mask[..., None], features, 100.0)
    for one, other in zip(
        damsm_loss(regions, image, features, sentence, mask),
        damsm_loss(regions, image, changed, sentence, mask),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_conditioning_augmentation_needs_its_noise() -> None:
    torch.manual_seed(0)
    g = Generator(resolution=32, stages=2, z_dim=3, condition_dim=2, embed_dim=4, width=2, blocks=1).eval()
    z, sentence, features = torch.randn(1, 3), torch.randn(1, 4), torch.randn(1, 5, 4)
    still, moved = (g(z, sentence, features, eps=eps).images[-1] for eps in (None, torch.ones(1, 2)))
    assert torch.equal(still, g(z, sentence, features, eps=torch.zeros(1, 2)).images[-1])
    assert not torch.allclose(still, moved)


def test_scales_and_shapes() -> None:
    assert scales(256, 3) == [64, 128, 256] and scales(64, 2) == [32, 64]
    gan = attngan(resolution=64, stages=3)
    images = gan.multi_scale([0, 1], captions=[RED, BLUE])
    assert [tuple(x.shape) for x in images] == [(2, 3, r, r) for r in (16, 32, 64)]
    d = Discriminators(resolution=64, stages=3, width=2, embed_dim=8, joint=True)
    assert all(d(x, torch.randn(2, 8)).shape == (2,) for x in images)


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_of_damsm_brings_both_encoders_and_is_not_needed_again(matched: Path, tmp_path: Path) -> None:
    first, gan = load_run(matched), attngan(encoder_weights=str(matched))
    assert gan.text_encoder.vocabulary.words == tuple(words()) and isinstance(gan.image_encoder, SmallEncoder)
    for name in ("text_encoder", "image_encoder"):
        assert largest_difference(getattr(first, name).state_dict(), getattr(gan, name).state_dict()) == 0.0
    train(gan, tmp_path, batches=1)
    loaded = load_run(tmp_path)
    assert loaded.hparams["encoder_weights"] is None and loaded.hparams["image_px"] == 32
    assert largest_difference(loaded.image_encoder.state_dict(), first.image_encoder.state_dict()) == 0.0
    assert torch.equal(loaded.sample([3], captions=[RED]), gan.sample([3], captions=[RED]))


def test_a_sample_depends_on_its_seed_and_caption_alone() -> None:
    gan = attngan()
    together = gan.sample([4, 5], captions=[RED, BLUE])
    torch.testing.assert_close(gan.sample([5], captions=[BLUE])[0], together[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(gan.sample([5], captions=[RED])[0], together[1], atol=1e-4)


def test_damsm_is_an_encoder_for_metrics(matched: Path) -> None:
    game = load_run(matched)
    pictures = torch.randint(256, (3, 3, 40, 40), dtype=torch.uint8)
    images, texts = game.images(pictures), game.texts([RED, BLUE, RED])
    assert images.shape == texts.shape == (3, 8) and torch.equal(texts[0], texts[2])
    torch.testing.assert_close(game.images(pictures[1:2])[0], images[1], atol=1e-5, rtol=1e-4)
    assert game.images(pictures[:, :1]).shape == (3, 8)
    assert game.name == "damsm_small" and len(game.fingerprint) == 16
    assert game.fingerprint == load_run(matched).fingerprint != damsm().fingerprint


def test_inception_encoder() -> None:
    """Its trunk stays in evaluation mode; 17 x 17 regions; nothing is drawn for its weights when it is built empty."""
    torch.manual_seed(0)
    game = damsm(image_encoder="inception").train()
    assert not any(m.training for m in game.image_encoder.trunk.modules())
    assert {n for n, p in game.image_encoder.named_parameters() if p.requires_grad} == {
        "to_regions.weight",
        "to_image.weight",
        "to_image.bias",
    }
    with torch.no_grad():
        regions, image = game.image_encoder(torch.zeros(1, 3, 32, 32))
    assert regions.shape == (1, 8, 17, 17) and image.shape == (1, 8)


def test_inception_takes_published_weights(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    published = inception_v3(weights=None, init_weights=False)
    torch.save(published.state_dict(), tmp_path / "inception.pth")
    encoder = damsm(image_encoder="inception").image_encoder
    encoder.load_published(str(tmp_path / "inception.pth"))
    for name, tensor in encoder.trunk.state_dict().items():
        assert torch.equal(tensor, published.state_dict()[name])
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is not torchvision's Inception v3: .* tensors such as Conv2d_1a_3x3"):
        encoder.load_published(str(tmp_path / "other.pth"))


# ---- R-precision -----------------------------------------------------------------------------------------------------


class Pasted(Painter):
    """Draws colour and shape of the caption as two numbers: images that its own encoder finds again."""

    def scales(self, generator: Any, z: Tensor, features: Any, *, noise: Tensor) -> list[Tensor]:
        told = features.sentence.tanh()[:, :3, None, None]
        return [told.expand(-1, -1, self.resolution, self.resolution)]


class Reader:
    """Embeds images by their mean colour, captions by the sentence that `Pasted` paints with."""

    def __init__(self, gan: Painter, *, wrong: bool = False) -> None:
        self.gan, self.wrong = gan, wrong

    def images(self, images: Tensor) -> Tensor:
        found = (images.float() / 127.5 - 1).mean((2, 3))
        return found.flip(0) if self.wrong else found

    def texts(self, captions: list[str]) -> Tensor:
        return self.gan.read(captions).sentence.tanh()[:, :3]


def test_r_precision_of_images_that_say_what_they_were_asked() -> None:
    torch.manual_seed(0)
    gan = Pasted(vocabulary=words(), sentence_dim=8, word_dim=4, resolution=32)
    gan.text_encoder.network.embedding.weight.data.normal_()
    data = shapes(test_images=60)
    groups = torch.arange(5 * 60)  # every caption its own
    settings = {"num_images": 60, "candidates": 5, "folds": 3, "batch_size": 60}
    right, deviation = r_precision_of(gan, Reader(gan), data, groups=groups, **settings)
    wrong, _ = r_precision_of(gan, Reader(gan, wrong=True), data, groups=groups, **settings)
    assert right > 0.7 > 0.4 > wrong and 0 <= deviation < 0.3
    assert r_precision_of(gan, Reader(gan), data, groups=groups, **{**settings, "batch_size": 7}) == (right, deviation)


def test_captions_have_the_groups_of_their_pictures() -> None:
    data = shapes()
    groups, pictures = picture_groups(data, "test"), data.dataset("test")
    assert torch.equal(groups, pictures.groups.repeat_interleave(5))


def test_r_precision_of_a_run(matched: Path, tmp_path: Path) -> None:
    plan = yaml.safe_load(shipped_configs()["attngan/shapes64"].read_text())
    data = {**plan["data"]["init_args"], "images": 64, "test_images": 64, "resolution": 32, "batch_size": 8}
    model = {"encoder_weights": str(matched), "resolution": 32, "width": 2, "discriminator_width": 4}
    plan["model"]["init_args"] |= {**model, "total_kimg": 0.008}
    plan["data"]["init_args"] = {**data, "vocabulary": words()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plan))
    argv = ["--config", str(tmp_path / "config.yaml"), "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    assert fit.main([*argv, "--image_grid.every_kimg=0"]) == 0
    mean, _ = r_precision_of_run(tmp_path / "run", matched, num_images=64, candidates=4)
    assert 0 <= mean <= 1
    with pytest.raises(ValueError, match="a run of DAMSM, found a AttnGAN in .* and a AttnGAN"):
        r_precision_of_run(tmp_path / "run", tmp_path / "run")


# ---- attention -------------------------------------------------------------------------------------------------------


def test_attention_maps_and_their_sheet(tmp_path: Path) -> None:
    gan = attngan(resolution=64, stages=3)
    found = gan.attention([0, 1], [RED, BLUE])
    assert found.images.shape == (2, 3, 64, 64) and found.maps.shape == (2, 18, 32, 32)
    assert found.words == [RED.split(), BLUE.split()]
    for maps, said in zip(found.maps, found.words, strict=True):
        torch.testing.assert_close(maps.sum(0), torch.ones(32, 32))
        assert maps[len(said) :].eq(0).all()
    assert gan.attention([0], [RED], stage=0).maps.shape[2:] == (16, 16)
    sheet = attention_sheet(found, top=3)
    assert sheet.shape == (3, 2 * (64 + 2 * LABEL_PX), 4 * 64) and sheet.dtype == torch.uint8
    assert torch.equal(sheet[:, LABEL_PX : LABEL_PX + 64, :64], found.images[0])
    words = sheet[:, LABEL_PX + 64 : 2 * LABEL_PX + 64, 64:]
    assert words.lt(100).any() and words.eq(255).any(), "the words are written"
    assert save_attention_sheet(found, tmp_path / "sheet.png", top=30).is_file()


def test_the_verb_draws_attention(matched: Path, tmp_path: Path) -> None:
    train(attngan(encoder_weights=str(matched)), tmp_path / "run", batches=1)
    asked = {"attention": True, "text": [RED, BLUE], "seeds": "3,5", "output": tmp_path}
    (path,) = sample(tmp_path / "run", **asked)
    sheet = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    expected = attention_sheet(load_run(tmp_path / "run").attention([3, 5, 3, 5], [RED, RED, BLUE, BLUE]))
    assert path.name == "attention.png" and torch.equal(sheet, expected)
    with pytest.raises(ValueError, match="a sheet from caption to caption and a sheet of attention were asked"):
        sample(tmp_path / "run", **asked, interpolate=3)


def test_most_attended_words() -> None:
    maps = torch.tensor([[[0.1, 0.1]], [[0.8, 0.2]], [[0.1, 0.7]]])
    assert most_attended(maps, 2) == [1, 2] and most_attended(maps, 9) == [1, 2, 0]
    bright = overlay(torch.full((3, 4, 4), 200, dtype=torch.uint8), torch.tensor([[0.0, 0.5]]))
    assert bright[0, 0].tolist() == sorted(bright[0, 0].tolist()) and bright.max() == 200 and bright.min() == 50


def test_previews() -> None:
    data = shapes()
    game, gan = damsm(), attngan()
    images, columns = game.preview(data, rows=2, columns=4)
    assert images.shape == (8, 3, 32, 32) and columns == 4 and images.dtype == torch.uint8
    images, columns = gan.preview(data, rows=2, columns=3, psi=1.0)
    assert images.shape == (6, 3, 32, 32) and columns == 3


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (attngan, {"encoder": "characters"}, "encoder is 'characters', and AttnGAN attends to words"),
        (attngan, {"resolution": 48}, "images of 48 pixels: .* give a power of two"),
        (attngan, {"resolution": 16}, "its smallest images have 32; give a power of two, 256 in the paper, or fewer"),
        (attngan, {"stages": 0}, "stages 0 is below 1"),
        (attngan, {"channels": 1}, "channels 1 and num_classes 0: AttnGAN draws colours"),
        (attngan, {"image_encoder": "vgg"}, "image_encoder is 'vgg'; it must be 'inception' .* or 'small'"),
        (attngan, {"vocabulary": None}, "encoder 'words' has no vocabulary"),
        (damsm, {"vocabulary": None}, "encoder 'words' has no vocabulary"),
        (damsm, {"image_px": 20}, "image_px 20 is no multiple of 16 from 32"),
        (damsm, {"lr_decay": 0.0}, "lr_decay 0.0 at every 8.855 kimg: give a factor in"),
    ],
)
def test_bad_arguments(build: Callable[..., Game], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("build", "data", "message"),
    [
        (attngan, {"wrong": "image"}, "AttnGAN's discriminators see wrong captions: set data.init_args.wrong"),
        (attngan, {"encode": "characters"}, "the model reads words, the data give characters"),
        (damsm, {"encode": "characters"}, "the model reads words, the data give characters"),
        (damsm, {"vocabulary": ["<end>", "<unk>", "a"]}, "the model's encoder knows 43 words and the data 3 others"),
        (damsm, {"batch_size": 1}, "batch_size 1: DAMSM tells each caption from others"),
    ],
)
def test_data_that_do_not_fit(build: Callable[..., Game], data: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train(build(), tmp_path, batches=1, data=shapes(**data))


def test_other_mistakes(tmp_path: Path, matched: Path) -> None:
    with pytest.raises(ValueError, match="DAMSM learns from captions, and Digits has none"):
        train(damsm(), tmp_path, batches=1, data=Digits(batch_size=8, resolution=32))
    with pytest.raises(ValueError, match="DAMSM's learning rate falls by lr_decay"):
        train(damsm(schedule="linear"), tmp_path, batches=1)
    gan = attngan()
    with pytest.raises(ValueError, match="stage 1: this AttnGAN attends 1 times, so give 0 to 0, or -1"):
        gan.attention([0], [RED], stage=1)
    with pytest.raises(ValueError, match="1 captions for 2 seeds"):
        gan.attention([0, 1], [RED])
    with pytest.raises(ValueError, match="top 0 is below 1"):
        attention_sheet(gan.attention([0], [RED]), top=0)
    train(gan, tmp_path, batches=1)
    without = attngan(encoder_weights=str(tmp_path))
    assert isinstance(without.image_encoder, SmallEncoder), "an AttnGAN's run has both encoders too"


def test_a_run_without_an_image_encoder_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    painter = Painter(vocabulary=words(), sentence_dim=8, word_dim=4, resolution=32)
    train(painter, tmp_path, batches=1)
    with pytest.raises(ValueError, match="has no image encoder: give a run of lit_gans.papers.DAMSM"):
        attngan(encoder_weights=str(tmp_path))


# ---- the shipped experiments -----------------------------------------------------------------------------------------

CONFIGS = ("attngan/coco", "attngan/cub", "attngan/cub_sample", "attngan/damsm_coco", "attngan/damsm_cub",
           "attngan/damsm_cub_sample", "attngan/damsm_shapes", "attngan/shapes64")  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_config_trains(name: str, matched: Path, tmp_path: Path) -> None:
    """On drawn shapes in place of its data, with narrow networks and the small image encoder."""
    plan: dict[str, Any] = yaml.safe_load(shipped_configs()[name].read_text())
    model, data = plan["model"]["init_args"], plan["data"]["init_args"]
    pretraining = plan["model"]["class_path"].endswith("DAMSM")
    if pretraining:
        model |= {"vocabulary": words(), "sentence_dim": 8, "image_encoder": "small", "image_width": 4, "image_px": 32}
    else:
        small = {
            "resolution": 16 << (model.get("stages", 3) - 1),
            "width": 2,
            "blocks": 1,
            "discriminator_width": 4,
        }
        model |= {"encoder_weights": str(matched), **small}
    resolution = 32 if pretraining else model["resolution"]
    kept = {k: v for k, v in data.items() if k in ("encode", "max_words", "wrong")}
    stand_in = {"batch_size": 4, "resolution": resolution, "images": 16, "test_images": 4, **kept}
    stand_in["vocabulary"] = words()
    plan["data"] = {"class_path": "lit_gans.data.ShapeCaptions", "init_args": stand_in}
    model["total_kimg"] = 0.008
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plan))
    argv = ["--config", str(tmp_path / "config.yaml"), "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += ["--image_grid.columns=3", "--image_grid.rows=2", "--evaluate.every_kimg=0"]
    assert fit.main(argv) == 0
    assert load_run(tmp_path / "run").images_seen == 8
    assert (tmp_path / "run" / "samples" / "latest.png").is_file()


def one_of_two(name: str, wrong: str, folder: Path) -> None:
    torch.set_num_threads(1)
    how = {"strategy": "sync_at_step", "devices": int(os.environ["WORLD_SIZE"])}
    game = BUILD[name]()
    trainer = train(game, folder, batches=6, data=shapes(wrong=wrong, label="shape"), **how)
    result: dict[str, Any] = state(game, trainer)
    torch.save(result, folder / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    one_of_two(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
