"""StackGAN++: what a step does, its ablations, resuming, processes, bad input, and the shipped experiments.

As a program: one of several processes that train the cases.
"""

import os
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch import nn

from lit_gans import papers
from lit_gans.data import ShapeCaptions, Shapes
from lit_gans.evaluate import evaluate
from lit_gans.metrics import building
from lit_gans.nn import BatchNorm
from lit_gans.papers import JointEmbedding, StackGAN2
from lit_gans.papers.stackgan2 import (
    TOPOLOGIES,
    Logits,
    colour_consistency,
    colour_statistics,
    discriminator_loss,
    generator_loss,
)
from lit_gans.papers.text.game import scaled_images
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import build_data, load_run
from tests.cases import largest_difference, state
from tests.distributed.launch import run_processes
from tests.metrics.common import PixelFeatures
from tests.papers.captioned import BATCH, BLUE, RED, TINY, WORDS, check_resume, fit, shapes, steps_of


def tiny(**options: Any) -> StackGAN2:
    torch.manual_seed(0)
    plain = {"branches": 2, "z_dim": 4, "condition_dim": 3, "width": 4, "discriminator_width": 2, "residuals": 1}
    return StackGAN2(**{**TINY, **plain, **options})


CASES = {
    "captions": lambda **o: tiny(**o),
    "colours": lambda **o: tiny(alone_weight=0.0, colour_weight=5.0, **o),
    "none": lambda **o: tiny(encoder="none", vocabulary=None, colour_weight=50.0, **o),
    "stack": lambda **o: tiny(topology="stack", **o),
    "smooth": lambda **o: tiny(
        **{"discriminator_norm": False, "r1_gamma": 1.0, "r1_interval": 2, "detach_condition": True, **o}
    ),
}


def data(name: str) -> Shapes | ShapeCaptions:
    if name == "none":
        return Shapes(batch_size=BATCH, resolution=32, images=64, seed=5)
    return shapes(wrong="image")


def trained(name: str) -> Any:
    return lambda gan, folder, **options: fit(gan, folder, data(name), **options)


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topology", "sides", "trees", "heads"),
    [
        ("tree", [8, 16, 32], 1, ["0", "1", "2"]),
        ("last", [32], 1, ["2"]),
        ("parallel", [32, 32, 32], 3, ["2"]),
        ("stack", [32, 32, 32], 1, ["0", "1", "2"]),
    ],
)
def test_topologies(topology: str, sides: list[int], trees: int, heads: list[str]) -> None:
    gan = tiny(topology=topology, branches=3)
    images = gan.multi_scale([0, 1], captions=[RED, BLUE])
    assert [x.shape for x in images] == [(2, 3, side, side) for side in sides]
    assert len(gan.generator.trees) == trees and all(list(t.heads) == heads for t in gan.generator.trees)
    assert len(gan.discriminator) == len(sides) == len(gan.sides)
    widths = [head[0].in_channels for tree in gan.generator.trees for head in tree.heads.values()]
    assert widths[-1] == 1 and (widths == [4, 2, 1] if topology == "tree" else set(widths) == {1})


def test_every_branch_judges_at_its_own_scale() -> None:
    gan = tiny(branches=3)
    assert [len(d.encoder.down) for d in gan.discriminator] == [1, 2, 3]
    assert [len(d.encoder.narrow) for d in gan.discriminator] == [0, 1, 2]
    assert {d.encoder.features for d in gan.discriminator} == {2}


# ---- losses ----------------------------------------------------------------------------------------------------------


def logits(*values: float) -> Logits:
    return Logits(*(torch.full((2,), value) for value in values))


def test_wrong_images_are_real_when_alone() -> None:
    sure = {"real": logits(30, 30), "wrong": logits(-30, 30), "fake": logits(-30, -30)}
    assert discriminator_loss(*sure.values(), alone_weight=1.0).item() == pytest.approx(0, abs=1e-6)
    doubted = {**sure, "wrong": logits(-30, -30)}
    assert discriminator_loss(*doubted.values(), alone_weight=0.5).item() == pytest.approx(15, rel=1e-5)
    assert discriminator_loss(*doubted.values(), alone_weight=0.0).item() == pytest.approx(0, abs=1e-6)


def test_without_the_joint_part_both_fake_terms_count_half() -> None:
    loss = discriminator_loss(logits(30, 0), logits(30, 0), logits(30, 0), alone_weight=0.0)
    assert loss.item() == pytest.approx(0.5 * (30 + 30), rel=1e-5)
    assert generator_loss(logits(-30, -30), alone_weight=0.5).item() == pytest.approx(45, rel=1e-5)
    assert generator_loss(logits(-30, -30), alone_weight=0.0).item() == pytest.approx(30, rel=1e-5)


def test_colours_are_those_of_the_pixels() -> None:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64).float()
    mean, covariance = colour_statistics(images)
    pixels = images[1].flatten(1)
    torch.testing.assert_close(mean[1, :, 0, 0], pixels.mean(1))
    torch.testing.assert_close(covariance[1], torch.cov(pixels, correction=0))


def test_colours_are_drawn_to_the_coarser_image() -> None:
    coarse, fine = torch.rand(2, 3, 4, 4).requires_grad_(), torch.rand(2, 3, 8, 8).requires_grad_()
    assert colour_consistency([coarse, coarse.repeat_interleave(2, -1)]).item() == pytest.approx(0, abs=1e-10)
    colour_consistency([coarse, fine]).backward()
    assert coarse.grad is None and fine.grad.abs().sum() > 0


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_players_step_in_order(name: str, tmp_path: Path) -> None:
    gan = CASES[name]()
    steps = steps_of(gan, lambda: fit(gan, tmp_path, data(name), batches=1))
    assert [player for player, _ in steps] == ["discriminator", "generator"]
    for player, changed in steps:
        own = {n for n, p in gan.named_parameters() if n.startswith(f"{player}.")}
        unused = {n for n in own if ".alone." in n} if name == "colours" else set()  # without the joint part
        assert changed == own - unused, player


@pytest.mark.parametrize("name", ["captions", "none"])
def test_the_losses_of_a_step(name: str, tmp_path: Path) -> None:
    """With learning rate 0 the players are judged as they were."""
    gan = CASES[name](lr=0.0)
    fit(gan, tmp_path, data(name), batches=1)
    gan.images_seen = gan.batches_seen = 0
    source = data(name)
    batch = source.on_after_batch_transfer(source.stream().batch(0), 0)
    gan.train()
    fake = gan.generator(*gan.inputs(batch))
    found = gan.reports.means()
    losses = []
    for k, (d, image) in enumerate(zip(gan.discriminator, fake.images, strict=True)):
        real = d(scaled_images(batch["image"], gan.sides)[k], fake.mu)
        wrong = None if name == "none" else d(scaled_images(batch["wrong"], gan.sides)[k], fake.mu)
        of_fake = d(image, fake.mu)
        losses.append(generator_loss(of_fake, alone_weight=1.0))
        torch.testing.assert_close(
            found[f"loss_d{k}"], discriminator_loss(real, wrong, of_fake, alone_weight=1.0), rtol=1e-5, atol=1e-6
        )
    torch.testing.assert_close(found["loss_g"], sum(losses), rtol=1e-5, atol=1e-6)
    assert ("kl" in found) == (name == "captions") and ("colour" in found) == (name == "none")


def test_the_condition_moves_by_what_it_draws_or_also_by_how_it_is_judged(tmp_path: Path) -> None:
    """The last layer of the heads at 0: images do not depend on the condition any more, its judgement does."""
    for detached in (True, False):
        gan = tiny(detach_condition=detached, kl_weight=0.0, resolution=32)
        for head in gan.generator.trees[0].heads.values():
            nn.init.zeros_(head[0].weight)
        before = gan.generator.augment.fc.weight.clone()
        fit(gan, tmp_path / str(detached), data("captions"), batches=1)
        assert torch.equal(before, gan.generator.augment.fc.weight) == detached


def test_r1_is_the_squared_slope_of_all_logits_of_all_scales() -> None:
    gan = CASES["smooth"]()
    real, c = torch.randn(3, 3, 32, 32), torch.randn(3, 3)
    expected = 0.0
    for discriminator, images in zip(gan.discriminator, scaled_images(real, gan.sides), strict=True):
        images = images.requires_grad_(True)
        of_real = discriminator(images, c)
        (slope,) = torch.autograd.grad((of_real.pair + of_real.alone).sum(), images)
        expected += slope.square().sum() / 3
    torch.testing.assert_close(gan.r1_penalty(real, c), expected)


def test_without_norm_a_discriminator_judges_each_pair_alone() -> None:
    judge = CASES["smooth"]().discriminator[1]
    images, c = torch.randn(4, 3, 32, 32), torch.randn(4, 3)
    assert not any(isinstance(m, BatchNorm) for m in judge.modules())
    torch.testing.assert_close(judge(images, c).pair[:1], judge(images[:1], c[:1]).pair)


@pytest.mark.parametrize("stop_at", [1, 4])
@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_equals_an_unbroken_one(name: str, stop_at: int, tmp_path: Path) -> None:
    check_resume(CASES[name], tmp_path, trained(name), stop_at=stop_at)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    run_processes(2, ["-m", "tests.papers.test_stackgan2", str(tmp_path)])
    for name, build in CASES.items():
        gan = build()
        before = {k: v.clone() for k, v in gan.state_dict().items()}
        alone = state(gan, fit(gan, tmp_path / "alone" / name, data(name), batches=4))
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt") for rank in (0, 1))
        assert largest_difference(first, second) == 0.0, "the ranks differ"
        assert largest_difference(alone["state"], before) > 1e-4, "nothing was learned"
        assert largest_difference(alone["state"], first["state"]) < 2e-5, name


def test_micro_batches(tmp_path: Path) -> None:
    """Each part has batch statistics of its own, so that the whole batch's gradient is another."""
    gan = tiny(micro_batches=2)
    before = [p.detach().clone() for p in gan.parameters()]
    fit(gan, tmp_path, data("captions"), batches=2)
    assert all(torch.isfinite(p).all() for p in gan.parameters())
    assert largest_difference(before, [p.detach() for p in gan.parameters()]) > 0 and gan.images_seen == 2 * BATCH


@pytest.mark.parametrize("name", ["captions", "none"])
def test_bfloat16(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_ALLOW_SLOW_BF16", "1")
    gan = CASES[name]()
    before = [p.detach().clone() for p in gan.parameters()]
    fit(gan, tmp_path, data(name), batches=2, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in gan.parameters())
    assert largest_difference(before, [p.detach() for p in gan.parameters()]) > 0


def test_a_saved_run_draws_the_same(tmp_path: Path) -> None:
    gan = tiny()
    fit(gan, tmp_path, data("captions"), batches=2)
    loaded = load_run(tmp_path)
    assert torch.equal(loaded.sample([3, 4], captions=[RED, BLUE]), gan.eval().sample([3, 4], captions=[RED, BLUE]))
    images, columns = loaded.preview(data("captions"), rows=2, columns=3, psi=1.0)
    assert images.shape == (6, 3, 32, 32) and columns == 3


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topology": "bush"}, "topology is 'bush'; it must be one of tree, last, parallel, stack"),
        ({"branches": 0}, "0 branches"),
        ({"branches": 3, "width": 6}, "width that 4 divides"),
        ({"branches": 4, "width": 8}, "resolution 32 is not a power of two from 64; the first of 4 branches"),
        ({"resolution": 48}, "resolution 48 is not a power of two from 16; the first of 2 branches"),
        ({"colour_weight": 1.0, "topology": "last"}, "colour_weight is about neighbouring branches"),
        ({"num_classes": 3}, "num_classes"),
        ({"r1_gamma": -1.0}, "r1_gamma -1.0"),
        ({"r1_interval": 0}, "in every 0 batches"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tiny(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrong": "none"}, "the data have wrong 'none': set data.init_args.wrong=image"),
        ({"wrong": "image", "resolution": 64}, "the model has resolution 32"),
    ],
)
def test_data_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fit(tiny(), tmp_path, shapes(**options), batches=1)


def test_pictures_without_captions_need_encoder_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Shapes has none.*encoder='none'"):
        fit(tiny(), tmp_path, data("none"), batches=1)


# ---- experiments -----------------------------------------------------------------------------------------------------


def plan(name: str) -> dict[str, Any]:
    return yaml.safe_load(shipped_configs()[name].read_text())


def test_published_experiments() -> None:
    cub, bedroom = plan("stackgan2/cub"), plan("stackgan2/lsun_bedroom")
    assert cub["data"]["init_args"]["batch_size"] == bedroom["data"]["init_args"]["batch_size"] == 24
    assert cub["model"]["init_args"]["total_kimg"] == pytest.approx(8.855 * 600)
    assert bedroom["model"]["init_args"]["colour_weight"] == 50 and bedroom["model"]["init_args"]["encoder"] == "none"
    with torch.device("meta"):
        for config in (cub, bedroom):
            gan = StackGAN2(**config["model"]["init_args"])
            assert gan.sides == [64, 128, 256] and gan.lr == 2e-4 and gan.betas == (0.5, 0.999)
    # 0.999 of the average stays after each batch of 24
    assert 0.5 ** (24 / (1000 * cub["ema"]["half_life_kimg"])) == pytest.approx(0.999, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("stackgan2/cub_no_jcu", {"alone_weight": 0.0}),
        ("stackgan2/cub_last", {"topology": "last"}),
        ("stackgan2/cub_parallel", {"topology": "parallel"}),
        ("stackgan2/cub_stack", {"topology": "stack"}),
        ("stackgan2/lsun_bedroom_no_colour", {"colour_weight": 0.0}),
        ("stackgan2/shapes64_no_jcu", {"alone_weight": 0.0}),
        ("stackgan2/shapes64_no_colour", {"colour_weight": 0.0}),
    ],
)
def test_an_ablation_changes_one_thing(name: str, changed: dict[str, Any]) -> None:
    base = plan(
        "stackgan2/" + name.split("/")[1].split("_no_")[0].split("_last")[0].split("_par")[0].split("_stack")[0]
    )
    ours = plan(name)
    assert ours["model"]["init_args"] == base["model"]["init_args"] | changed
    assert ours["data"] == base["data"] and ours["ema"] == base["ema"]


WHOLE = [
    name
    for name in shipped_configs()
    if name.startswith(("stackgan/", "stackgan2/")) and not name.endswith(("cub_sample",)) and "shapes64" not in name
]


@pytest.mark.parametrize("name", WHOLE)
def test_large_experiments_build(name: str) -> None:
    config = plan(name)
    with torch.device("meta"):
        gan = getattr(papers, config["model"]["class_path"].rpartition(".")[2])(**config["model"]["init_args"])
    data = config["data"]["init_args"]
    assert gan.resolution == data["resolution"] == 256 and gan.total_kimg == config["model"]["init_args"]["total_kimg"]
    if gan.text_encoder is not None:
        source = build_data(config)
        assert source.encode == gan.text_encoder.reads and source.wrong in ("image", "caption")
        assert gan.text_encoder.maker is None or source.embeddings == gan.text_encoder.maker
    else:
        assert config["data"]["class_path"] == "lit_gans.data.Images"


@pytest.mark.parametrize("name", ["shapes64", "shapes64_no_jcu", "shapes64_no_colour"])
@pytest.mark.slow
def test_small_experiments_train(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from lit_gans import fit as verb  # here, since a process of two would wait for it

    first = ["--config", "experiments/joint_embedding/shapes64.yaml", "--logger=none"]
    first += [f"--run_folder={tmp_path / 'encoder'}", "--model.init_args.total_kimg=0.016"]
    first += ["--model.init_args.sentence_dim=6", "--data.init_args.batch_size=8", "--data.init_args.images=64"]
    first += ["--image_grid.columns=3", "--image_grid.rows=2"]
    assert verb.main(first) == 0
    argv = ["--config", f"experiments/stackgan2/{name}.yaml", "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += [f"--model.init_args.encoder_weights={tmp_path / 'encoder'}", "--model.init_args.total_kimg=0.016"]
    argv += ["--model.init_args.width=4", "--model.init_args.discriminator_width=2", "--data.init_args.batch_size=8"]
    argv += ["--data.init_args.images=64", "--evaluate.every_kimg=0", "--image_grid.columns=3", "--image_grid.rows=2"]
    assert "lit-gans" not in capsys.readouterr().out, "an encoder draws nothing"
    assert verb.main(argv) == 0
    assert f"lit-gans sample {tmp_path / 'run'} --text" in capsys.readouterr().out
    gan = load_run(tmp_path / "run")
    assert gan.images_seen == 16 and gan.sides == [32, 64]
    assert gan.sample([0], captions=[RED]).shape == (1, 3, 64, 64)
    assert (tmp_path / "run" / "samples" / "latest.png").is_file()
    monkeypatch.setattr(building, "build_extractor", lambda spec, **options: PixelFeatures())
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    found = evaluate(tmp_path / "run", metrics=["kid"], extractor="pixels", num_images=8, num_real=16, split="test")
    assert found.protocol["n_fake"] == 8 and found.values.keys() == {"kernel_pixels"}


# ---- the text encoder's own training ---------------------------------------------------------------------------------


def embedding(**options: Any) -> JointEmbedding:
    torch.manual_seed(0)
    return JointEmbedding(**{**TINY, "width": 4, **options})


def test_joint_embeddings_resume(tmp_path: Path) -> None:
    def run(game: pl.LightningModule, folder: Path, **options: Any) -> pl.Trainer:
        return fit(game, folder, shapes(), average=False, **options)

    check_resume(embedding, tmp_path, run, stop_at=3)


def test_pictures_alone_learn_where_texts_are_frozen(tmp_path: Path) -> None:
    trained = embedding()
    fit(trained, tmp_path / "first", shapes(), batches=1, average=False)
    game = embedding(encoder_weights=str(tmp_path / "first"), freeze_text=True)
    torch.testing.assert_close(game.text_encoder.state_dict(), trained.text_encoder.state_dict(), rtol=0, atol=0)
    networks = game.picture_encoder, game.text_encoder
    pictures, texts = ({name: p.clone() for name, p in n.named_parameters()} for n in networks)
    fit(game, tmp_path / "second", shapes(), batches=2, average=False)
    assert not game.text_encoder.training and game.hparams["encoder_weights"] is None
    assert all(torch.equal(p, texts[k]) for k, p in game.text_encoder.named_parameters())
    assert not any(torch.equal(p, pictures[k]) for k, p in game.picture_encoder.named_parameters())
    (stamp,) = game.frozen_networks()
    assert stamp["weights"] == str(tmp_path / "first") and len(str(stamp["fingerprint"])) == 16
    batch = game.text_encoder.tensors([RED, RED.replace("red", "blue")])
    assert torch.allclose(game.sentences(batch).norm(dim=1), torch.tensor(6.0).sqrt())
    again = tiny(encoder_weights=str(tmp_path / "second"))
    torch.testing.assert_close(again.text_encoder.state_dict(), trained.text_encoder.state_dict(), rtol=0, atol=0)
    loaded = load_run(tmp_path / "second")
    assert loaded.freeze_text and torch.equal(loaded.embed_texts([RED]), game.embed_texts([RED]))
    assert {id(p) for g in game.optimizers().param_groups for p in g["params"]} == {
        id(p) for p in game.picture_encoder.parameters()
    }
    assert embedding(encoder="embeddings", freeze_text=True).picture_encoder.to_embedding.out_features == 6


def test_a_frozen_encoder_that_reads_by_chance_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has random weights and stays so: give encoder_weights, or encoder_rnn=bag"):
        fit(embedding(freeze_text=True), tmp_path, shapes(), batches=1, average=False)


def test_joint_embeddings_with_frozen_text_resume(tmp_path: Path) -> None:
    def run(game: pl.LightningModule, folder: Path, **options: Any) -> pl.Trainer:
        return fit(game, folder, shapes(), average=False, **options)

    check_resume(lambda: embedding(freeze_text=True, encoder_rnn="bag"), tmp_path, run, stop_at=3)


@pytest.mark.slow
def test_joint_embeddings_learn_to_find_pictures(tmp_path: Path) -> None:
    game = embedding(width=16, sentence_dim=32, word_dim=16, lr=3e-3)
    batch = shapes(images=256).dataset("train").fetch(torch.arange(48))

    def score() -> float:
        pictures, texts = game.embed(batch)
        return ((texts @ pictures.T).argmax(1) == torch.arange(48)).float().mean().item()

    before = score()
    fit(game, tmp_path, shapes(images=1024, batch_size=64), batches=2400, average=False)  # 300 of 64
    assert before < 0.1 and score() > 0.3
    images, columns = game.preview(shapes(), rows=2, columns=4, psi=1.0)
    assert images.shape == (8, 3, 32, 32) and columns == 4
    gan = tiny(encoder_weights=str(tmp_path), sentence_dim=99)  # the run's size counts
    assert gan.hparams["vocabulary"] == WORDS and gan.text_encoder.sentence_dim == 32
    torch.testing.assert_close(
        gan.read([RED]).sentence, game.text_encoder.eval()(game.text_encoder.tensors([RED])).sentence
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "embeddings"}, "has nothing to train"),
        ({"micro_batches": 2}, "all pairs of a batch are compared"),
        ({"resolution": 48}, "resolution 48 is not a power of two"),
    ],
)
def test_bad_arguments_of_joint_embeddings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embedding(**options)


def test_all_topologies_are_tested() -> None:
    assert TOPOLOGIES == ("tree", "last", "parallel", "stack")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    how = {"strategy": "sync_at_step", "devices": int(os.environ["WORLD_SIZE"])}
    for name, build in CASES.items():
        gan = build()
        trainer = fit(gan, folder / name, data(name), batches=4, **how)
        torch.save(state(gan, trainer), folder / f"{name}-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
