"""pix2pixHD's phases, instances, clusters and manipulation, tiny. Run as a program, it is one of two processes."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from lit_gans.base.checkpoints import checkpoints
from lit_gans.base.random import Draws
from lit_gans.callbacks import Checkpoint
from lit_gans.data.paired import Paired
from lit_gans.papers.pix2pixhd import Encoder, LocalEnhancer, MultiscaleDiscriminator, PerceptualLoss, Pix2PixHD
from lit_gans.papers.pix2pixhd.clusters import Clusters, class_of
from lit_gans.papers.pix2pixhd.instances import (
    averaged,
    edges,
    instance_means,
    label_colours,
    label_ids,
    number_instances,
    one_hot,
    restyle,
    spread_over,
)
from lit_gans.papers.pix2pixhd.losses import feature_matching
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from tests.cases import StopAt, largest_difference, state
from tests.distributed.launch import run_processes

LABELS, SIZE, BATCH = 4, 16, 2
PHASES = {"enhancers": 1, "global_kimg": 2 * BATCH / 1000, "fix_global_kimg": 2 * BATCH / 1000}


def tiny(**overrides: Any) -> Pix2PixHD:
    torch.manual_seed(0)
    arguments = {"num_labels": LABELS, "width": 2, "downsamplings": 1, "blocks": 1, "local_blocks": 1, "seed": 3}
    arguments |= {"discriminator_width": 2, "discriminator_layers": 2, "scales": 2, "num_clusters": 3, "features": 2}
    arguments |= {"encoder_width": 2, "encoder_downsamplings": 2, "perceptual_weight": 0.0, "lr": 0.002}
    return Pix2PixHD(**arguments | overrides)


def write_pictures(folder: Path, count: int = 6) -> Path:
    """Label maps of stripes, two instances on each, and photographs that depend on the instances."""
    for i in range(count):
        rows, columns = np.indices((SIZE, SIZE))
        label = (rows // 4 + i) % LABELS
        instance = label * 1000 + (columns > 4 + i)
        photo = np.stack([instance % 251, 40 * label, rows * 8 + 13 * i], -1) % 256
        kinds = {"label": (label, np.uint8), "inst": (instance, np.uint16), "img": (photo, np.uint8)}
        for kind, (pixels, depth) in kinds.items():
            for split in ("train", "test"):
                place = folder / f"{split}_{kind}"
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(depth)).save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def data(folder: Path, **overrides: Any) -> Paired:
    arguments = {"num_labels": LABELS, "resolution": SIZE, "batch_size": BATCH, "mirror": True, "seed": 5}
    return Paired(str(folder), **arguments | overrides)


def whole_batch(folder: Path) -> dict[str, Tensor]:
    source = data(folder)
    return source.on_after_batch_transfer(source.dataset("test").fetch(torch.arange(6)), 0)


def train(
    game: Pix2PixHD,
    source: Path,
    folder: Path,
    *,
    batches: int,
    stop_at: int | None = None,
    resume: Path | None = None,
    callbacks: tuple[pl.Callback, ...] = (),
    **trainer: Any,
) -> pl.Trainer:
    game.total_kimg = batches * BATCH / 1000
    arguments = {"max_epochs": -1, "limit_val_batches": 0, "logger": False, "accelerator": "cpu"}
    arguments |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(folder)}
    watching = [StopAt(stop_at), *callbacks, Checkpoint(0, 0, monitor=None)]
    fitting = pl.Trainer(**(arguments | trainer), callbacks=watching)
    fitting.fit(game, datamodule=data(source), ckpt_path=resume, weights_only=True)
    return fitting


# ---- training --------------------------------------------------------------------------------------------------------


CASES: dict[str, Callable[..., Pix2PixHD]] = {
    "global": tiny,
    "three-phases": lambda **overrides: tiny(**PHASES | overrides),
    "classes": lambda **overrides: tiny(instances=False, enhancers=1, **overrides),
}


@pytest.mark.parametrize("name", ["global", "classes"])
def test_every_parameter_gets_a_gradient_and_each_update_changes_one_player(
    name: str, pictures: Path, tmp_path: Path
) -> None:
    game = CASES[name]()
    players = {"generator": game.makers(), "discriminator": [game.discriminator]}
    seen: list[tuple[str, dict[str, list[Tensor]]]] = []

    def weights() -> dict[str, list[Tensor]]:
        return {k: [p.detach().clone() for m in modules for p in m.parameters()] for k, modules in players.items()}

    class Spy(type(game)):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            player = list(players)[self.trainer.optimizers.index(optimizer)]
            assert all(p.grad is not None for m in players[player] for p in m.parameters())
            seen.append((player, weights()))

    game.__class__ = Spy
    train(game, pictures, tmp_path, batches=1)
    assert [player for player, _ in seen] == ["generator", "discriminator"], "the generator steps first"
    after = [state for _, state in seen[1:]] + [weights()]
    for (player, before), now in zip(seen, after, strict=True):
        other = {"generator": "discriminator", "discriminator": "generator"}[player]
        assert largest_difference(before[other], now[other]) == 0.0
        assert largest_difference(before[player], now[player]) > 0.0


def test_the_losses_of_a_step(pictures: Path, tmp_path: Path) -> None:
    """With learning rate 0, both players are judged as they were."""
    game = tiny(lr=0.0, matching_weight=7.0, perceptual=nn.MSELoss(), perceptual_weight=3.0)
    train(game, pictures, tmp_path, batches=1)
    ((inputs, real, features),) = game.parts(next(on_device(data(pictures))))
    fake = game.draw(inputs, features)
    fakes, reals = game.judge(inputs, fake), game.judge(inputs, real)
    adversarial = sum((scale[-1] - 1).square().mean() for scale in fakes)
    d_loss = sum(f[-1].square().mean() + (r[-1] - 1).square().mean() for f, r in zip(fakes, reals, strict=True)) / 2
    g_loss = adversarial + 7 * feature_matching(fakes, reals) + 3 * (fake - real).square().mean()
    found = game.reports.means()
    assert torch.allclose(found["loss_g"], g_loss, rtol=1e-5) and torch.allclose(found["loss_d"], d_loss, rtol=1e-5)
    logits = torch.cat([scale[-1].flatten() for scale in reals])
    assert torch.allclose(found["real_logits"], logits.mean(), atol=1e-6)


def on_device(source: Paired) -> Iterator[dict[str, Tensor]]:
    """Training's batches."""
    for batch in source.stream():
        yield source.on_after_batch_transfer(batch, 0)


class Recorder(pl.Callback):
    """Which modules a batch changed, and how many steps Adam has made of each."""

    parts = ("generator.layers.", "generator.enhancers.", "global_end.", "encoder.")

    def __init__(self) -> None:
        self.changed: list[set[str]] = []
        self.phases: list[str] = []
        self.steps: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Pix2PixHD, *args: Any) -> None:
        self.before = {k: v.clone() for k, v in pl_module.state_dict().items()}
        self.phases.append(pl_module.phase)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Pix2PixHD, *args: Any) -> None:
        now = pl_module.state_dict()
        self.changed.append(
            {p for p in self.parts for k in now if k.startswith(p) and (now[k] != self.before[k]).any()}
        )
        self.steps.append(int(max(s["step"] for s in trainer.optimizers[0].state.values())))


def test_phases_switch_which_parameters_train(pictures: Path, tmp_path: Path) -> None:
    game, recorder = CASES["three-phases"](), Recorder()
    train(game, pictures, tmp_path, batches=6, callbacks=(recorder,))
    assert recorder.phases == ["global"] * 2 + ["enhancer"] * 2 + ["joint"] * 2
    alone, joint = {"generator.enhancers.", "encoder."}, {"generator.layers.", "generator.enhancers.", "encoder."}
    assert recorder.changed == [{"generator.layers.", "global_end.", "encoder."}] * 2 + [alone] * 2 + [joint] * 2
    assert recorder.steps == [1, 2] * 3, "each phase begins with a new Adam"


def test_of_several_enhancers_the_finest_is_tuned_first(pictures: Path, tmp_path: Path) -> None:
    game = tiny(enhancers=2, fix_global_kimg=1.0, features=0)
    before = {k: v.clone() for k, v in game.state_dict().items()}
    train(game, pictures, tmp_path, batches=1)
    changed = {k.split(".down")[0].split(".up")[0] for k, v in game.state_dict().items() if (v != before[k]).any()}
    assert {k for k in changed if k.startswith("generator")} == {"generator.enhancers.2"}


def test_the_global_phase_draws_at_its_own_size(pictures: Path) -> None:
    game, batch = CASES["three-phases"](), whole_batch(pictures)
    ((inputs, real, features),) = game.parts(batch)
    assert inputs.shape == (6, LABELS + 1, 8, 8) and real.shape == (6, 3, 8, 8) and features.shape == (6, 2, 8, 8)
    assert game.draw(inputs, features).shape == real.shape
    game.images_seen = 4 * BATCH
    ((inputs, real, features),) = game.parts(batch)
    assert game.phase == "joint" and inputs.shape[-1] == SIZE and game.draw(inputs, features).shape == batch["b"].shape


@pytest.mark.parametrize("stop_at", [2, 3, 4])
@pytest.mark.parametrize("name", ["three-phases", "classes"])
def test_a_resumed_run_equals_an_unbroken_one(name: str, stop_at: int, pictures: Path, tmp_path: Path) -> None:
    whole, resumed = CASES[name](), CASES[name]()
    unbroken = state(whole, train(whole, pictures, tmp_path / "whole", batches=6))
    train(CASES[name](), pictures, tmp_path / "half", batches=6, stop_at=stop_at)
    left = checkpoints(tmp_path / "half")[-1]
    trainer = train(resumed, pictures, tmp_path / "half", batches=6, resume=left)
    assert largest_difference(unbroken, state(resumed, trainer)) == 0.0


def felt(game: Pix2PixHD) -> dict[str, Tensor]:
    """The state but for biases that instance norm takes away: their gradients are noise, which Adam makes steps of."""
    void = {
        f"{name}.{i}.bias"
        for name, module in game.named_modules()
        if isinstance(module, nn.Sequential)
        for i, norm in enumerate(module[1:])
        if isinstance(norm, nn.InstanceNorm2d)
    }
    assert void <= game.state_dict().keys()
    return {name: tensor.clone() for name, tensor in game.state_dict().items() if name not in void}


@pytest.mark.slow
def test_two_processes_equal_one(pictures: Path, tmp_path: Path) -> None:
    run_processes(2, ["-m", "tests.papers.test_pix2pixhd", str(pictures), str(tmp_path)])
    for name, build in CASES.items():
        game = build()
        before = felt(game)
        alone = state(game, train(game, pictures, tmp_path / "alone" / name, batches=6))
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt") for rank in (0, 1))
        assert largest_difference(first, second) == 0.0, "the ranks differ"
        assert alone["clock"] == first["clock"] == (6 * BATCH, 6)
        assert largest_difference(before, felt(game)) > 1e-3, "nothing was learned"
        assert largest_difference(felt(game), {k: first["state"][k] for k in before}) < 1e-5, name


def test_micro_batches_add_up_to_the_whole_batch(pictures: Path, tmp_path: Path) -> None:
    whole, parts = CASES["three-phases"](), CASES["three-phases"](micro_batches=2)
    train(whole, pictures, tmp_path / "a", batches=6)
    train(parts, pictures, tmp_path / "b", batches=6)
    assert largest_difference(felt(whole), felt(parts)) < 1e-5


def test_bfloat16(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GANS_ALLOW_SLOW_BF16", "1")
    game = tiny(perceptual=nn.L1Loss(), perceptual_weight=1.0)
    before = [p.detach().clone() for p in game.parameters()]
    train(game, pictures, tmp_path, batches=2, precision="bf16-mixed")
    after = list(game.parameters())
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in after)
    assert largest_difference(before, [p.detach() for p in after]) > 0


def test_a_run_of_the_global_generator_is_taken_over(pictures: Path, tmp_path: Path) -> None:
    coarse = tiny(width=4)
    train(coarse, pictures, tmp_path / "global", batches=1)
    fine = tiny(enhancers=1, fix_global_kimg=1.0, scales=3, start_from=str(tmp_path / "global"))
    fine.take_over(fine.start_from)
    theirs, ours = coarse.state_dict(), fine.state_dict()
    taken = [k for k in ours if k in theirs and ours[k].shape == theirs[k].shape]
    assert all(torch.equal(ours[k], theirs[k]) for k in taken)
    assert {k.split(".")[0] for k in taken} == {"generator", "discriminator", "encoder", "clusters"}
    assert [k for k in ours if k.startswith("generator.layers.")] == [k for k in taken if k.startswith("generator.")]
    train(fine, pictures, tmp_path / "local", batches=1)
    assert torch.equal(fine.generator.layers[1].weight, coarse.generator.layers[1].weight), "frozen, and not drawn anew"
    again = tiny(enhancers=1, fix_global_kimg=1.0, scales=3, start_from=str(tmp_path / "gone"))
    train(again, pictures, tmp_path / "local", batches=2, resume=checkpoints(tmp_path / "local")[-1])  # not read
    with pytest.raises(ValueError, match="is not this one's in .* tensors .*: width must be half"):
        tiny(enhancers=1, width=3).take_over(tmp_path / "global")
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        train(tiny(enhancers=1, start_from=str(tmp_path / "gone")), pictures, tmp_path / "x", batches=1)


def test_a_saved_run_translates_the_same(pictures: Path, tmp_path: Path) -> None:
    game = tiny(enhancers=1, perceptual=Learned(), perceptual_weight=1.0)
    train(game, pictures, tmp_path, batches=2)
    loaded = load_run(tmp_path)
    assert isinstance(loaded, Pix2PixHD) and loaded.images_seen == 2 * BATCH and loaded.perceptual is None
    batch = whole_batch(pictures)
    images, instance = label_images(batch["label"]), batch["instance"]
    features = game.encode(batch["b"], instance)
    found = loaded.translate(images, instance=instance, features=features)
    assert torch.equal(found, game.translate(images, instance=instance, features=features))
    assert found.shape == batch["b"].shape and found.abs().max() <= 1


class Learned(nn.Module):
    """A perceptual loss of somebody else's, with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        return (self.layer(fake) - self.layer(real)).abs().mean()


def test_a_perceptual_loss_is_frozen_and_reaches_the_generator(pictures: Path, tmp_path: Path) -> None:
    perceptual = Learned()
    without, game = tiny(), tiny(perceptual=perceptual, perceptual_weight=5.0)
    before = perceptual.layer.weight.detach().clone()
    train(without, pictures, tmp_path / "a", batches=1)
    trainer = train(game, pictures, tmp_path / "b", batches=1)
    assert torch.equal(perceptual.layer.weight, before) and game.take_reports()["perceptual"] > 0
    assert len(trainer.optimizers[0].param_groups[0]["params"]) == len(
        [p for m in game.makers() for p in m.parameters()]
    )
    assert largest_difference(without.generator.state_dict(), game.generator.state_dict()) > 0


def test_training_without_the_perceptual_loss_says_so(pictures: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="without the perceptual loss.*PerceptualLoss, or set perceptual_weight=0"):
        train(tiny(perceptual_weight=10.0), pictures, tmp_path / "a", batches=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*perceptual.*")
        train(tiny(), pictures, tmp_path / "b", batches=1)


def test_images_are_translated_without_label_maps(pictures: Path, tmp_path: Path) -> None:
    game = tiny(num_labels=0, instances=False, features=0, in_channels=1)
    source = data(pictures / "train_label", path_b=str(pictures / "train_img"), layout="folders", a_channels=1)
    fitting = pl.Trainer(max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, limit_val_batches=0, accelerator="cpu")  # fmt: skip
    game.total_kimg = BATCH / 1000
    fitting.fit(game, datamodule=source)
    assert game.images_seen == BATCH
    assert game.translate(torch.zeros(1, 1, 8, 12)).shape == (1, 3, 8, 12)
    shown, columns = game.preview(source, rows=1, columns=3, psi=1.0)
    assert shown.shape == (3, 3, SIZE, SIZE) and columns == 3


# ---- networks and losses ---------------------------------------------------------------------------------------------


def test_initial_weights_leave_biases_alone() -> None:
    network = LocalEnhancer(in_channels=4, width=16, downsamplings=1, blocks=1, norm="batch")
    conv, norm = network.layers[1], network.layers[2]
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.05) and conv.bias.std() > 0.01
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.02) and norm.bias.abs().max() == 0


def test_feature_matching_leaves_predictions_and_reals_alone() -> None:
    torch.manual_seed(0)
    fake, real = ([[torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(5)] for _ in range(3)] for _ in "ab")
    found = feature_matching(fake, real)
    by_hand = sum((fake[i][j] - real[i][j]).abs().mean() for i in range(3) for j in range(4)) * 4 / (3 + 1) / 3
    assert torch.allclose(found, by_hand)
    found.backward()
    assert all(t.grad is None for scale in real for t in scale) and all(scale[-1].grad is None for scale in fake)


def test_scales_are_of_halved_images() -> None:
    network = MultiscaleDiscriminator(channels=1, width=2, layers=2, scales=3)
    found = network(torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert [scale[0].shape[-1] for scale in found] == [17, 9, 5] and len(found[0]) == 4
    assert all(
        g.abs().max() > 0 for g in torch.autograd.grad(found[0][-1].sum(), network.scales[2].groups[0].parameters())
    )


def vgg19_features() -> nn.Sequential:
    from torchvision import models

    with torch.device("meta"):
        features = models.vgg19().features
    features = features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for p in features.parameters():
        p.data.normal_(0, 0.05, generator=generator)
    return features.requires_grad_(False)


def test_perceptual_loss_equals_torchvisions_network(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network, path = vgg19_features(), tmp_path / "vgg19.safetensors"
    save_file({f"features.{k}": v for k, v in network[:30].state_dict().items()}, path)
    loss, (fake, real) = PerceptualLoss(str(path)), torch.rand(2, 1, 3, 16, 16) * 2 - 1
    fake.requires_grad_()
    expected, (x, y) = 0.0, (fake, real)
    for number, layer in enumerate(network[:30]):
        x, y = layer(x.clone()), layer(y.clone())
        if number in (1, 6, 11, 20, 29):  # relu1_1, ..., relu5_1
            expected = expected + {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}[number] * (x - y).abs().mean()
    found = loss(fake, real)
    assert torch.allclose(found, expected, rtol=1e-4)
    grads = [torch.autograd.grad(v, fake, retain_graph=True)[0] for v in (found, expected)]
    assert torch.allclose(*grads, rtol=1e-3, atol=1e-6 * grads[1].abs().max().item())
    assert loss.state_dict() == {} and not list(loss.parameters())
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(ValueError, match="does not hold the weights of torchvision's vgg19: no features.0.bias"):
        PerceptualLoss(str(path))
    with pytest.raises(FileNotFoundError, match="no weights at"):
        PerceptualLoss(str(tmp_path / "none.pth"))


# ---- instances -------------------------------------------------------------------------------------------------------


def random_maps(n: int = 3) -> tuple[Tensor, Tensor]:
    """Features [n, 2, 6, 7] and ids [n, 6, 7] that several images share."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 2, 6, 7, generator=generator), torch.randint(7, 11, (n, 6, 7), generator=generator)


def test_means_are_of_each_instance_of_each_image() -> None:
    features, instance = random_maps()
    numbers, images = number_instances(instance)
    found = spread_over(instance_means(features, numbers), numbers)
    assert torch.equal(averaged(features, instance), found)
    for i in range(len(instance)):
        for chosen in instance[i].unique():
            where = instance[i] == chosen
            assert torch.allclose(found[i][:, where], features[i][:, where].mean(1, keepdim=True), atol=1e-6)
    assert images.tolist() == [i for i in range(3) for _ in instance[i].unique()]


def test_edges_are_where_a_neighbour_is_of_another_instance() -> None:
    _, instance = random_maps()
    instance[0] = 5  # one instance alone has no edge, not even at the border
    instance[1, :3, :3] = 8
    found = edges(instance)
    for n, y, x in np.ndindex(*instance.shape):
        near = [(y + dy, x + dx) for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))]
        near = [(v, u) for v, u in near if 0 <= v < 6 and 0 <= u < 7]
        assert found[n, 0, y, x] == float(any(instance[n, v, u] != instance[n, y, x] for v, u in near))


def test_label_maps() -> None:
    label = torch.arange(6).view(1, 2, 3)
    hot = one_hot(label, 7)
    assert torch.equal(hot.argmax(1), label) and torch.equal(hot.sum(1), torch.ones(1, 2, 3))
    assert torch.equal(label_ids(label_images(label).expand(-1, 3, -1, -1), 6), label)
    colours = label_colours(torch.arange(256).view(1, 16, 16)).flatten(2)[0].T
    assert len(set(map(tuple, colours.tolist()))) == 256 and colours[:4].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0],
    ]  # fmt: skip


def label_images(label: Tensor) -> Tensor:
    """A label map as a file of it is read."""
    return label[:, None] / 127.5 - 1


def test_the_encoder_learns_through_the_mean() -> None:
    torch.manual_seed(0)
    encoder = Encoder(channels=1, features=2, width=2, downsamplings=1)
    image, instance = torch.randn(1, 1, 8, 8, requires_grad=True), torch.zeros(1, 8, 8, dtype=torch.int64)
    instance[..., 4:] = 1
    found = encoder(image, instance)
    assert (found[0, :, :, :4] - found[0, :, :1, :1]).abs().max() == 0
    assert torch.autograd.grad(found[0, 0, 0, 0], image)[0].abs().max() > 0


# ---- clusters and manipulation ---------------------------------------------------------------------------------------


def test_clusters_are_the_centres_of_each_class(tmp_path: Path) -> None:
    clusters = Clusters(num_labels=3, num_clusters=2, features=2)
    noise = 0.01 * torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    centres = torch.tensor([[5.0, 5.0]] * 2 + [[-5.0, 0.0]] * 6 + [[1.0, 2.0]])
    features, classes = centres + noise, torch.tensor([2] * 8 + [0])
    clusters.fit(features, classes)
    assert clusters.counts.tolist() == [1, 0, 2]
    assert torch.allclose(clusters.centres[2], torch.stack([features[2:8].mean(0), features[:2].mean(0)]), atol=1e-6)
    assert torch.allclose(clusters.centres[0, 0], features[8]) and clusters.centres[1].abs().max() == 0
    clusters.save(tmp_path / "clusters.safetensors")
    other = Clusters(num_labels=3, num_clusters=2, features=2)
    other.load(tmp_path / "clusters.safetensors")
    assert torch.equal(other.centres, clusters.centres) and torch.equal(other.counts, clusters.counts)
    with pytest.raises(ValueError, match="does not hold this model's clusters"):
        Clusters(num_labels=3, num_clusters=4, features=2).load(tmp_path / "clusters.safetensors")


def test_features_are_chosen_for_each_instance_from_its_class() -> None:
    clusters = Clusters(num_labels=2, num_clusters=4, features=1)
    clusters.centres.copy_(torch.arange(8.0).view(2, 4, 1))
    clusters.counts.copy_(torch.tensor([4, 2]))
    instance = torch.arange(64).view(1, 8, 8).repeat(2, 1, 1) // 2
    label = instance % 2
    largest = clusters.sample(label, instance)
    assert torch.equal(largest[:, 0], 4.0 * label)
    found = clusters.sample(label, instance, draws=Draws(0))
    assert torch.equal(found, clusters.sample(label, instance, draws=Draws(0)))
    assert {*found[:, 0][label == 0].tolist()} == {0, 1, 2, 3} and {*found[:, 0][label == 1].tolist()} == {4, 5}
    assert torch.equal(found[..., 0::2], found[..., 1::2]), "an instance has one style"
    assert not torch.equal(found[0], found[1]), "images have styles of their own"
    second = clusters.sample(label[1:], instance[1:], draws=Draws(0, share=1, shares=2))
    assert torch.equal(second[0], found[1]), "the same on any number of processes"


def test_clusters_of_a_data_set(pictures: Path) -> None:
    game, batch = tiny(), whole_batch(pictures)
    with pytest.warns(UserWarning, match="no clusters to choose styles from: train to the end, or call cluster_featur"):
        found = game.translate(label_images(batch["label"]), instance=batch["instance"])
    middle = torch.zeros_like(game.encode(batch["b"], batch["instance"]))
    assert torch.equal(found, game.render(game.inputs(batch["label"], batch["instance"]), middle))
    game.cluster_features([{k: v[:4] for k, v in batch.items()}, {k: v[4:] for k, v in batch.items()}])
    assert game.clusters.counts.tolist() == [3] * LABELS
    numbers, _ = number_instances(batch["instance"])
    features = instance_means(game.encode(batch["b"], batch["instance"]), numbers).T
    for label in range(LABELS):
        own = features[class_of(batch["label"], numbers) == label]
        centres = game.clusters.centres[label]
        nearest = torch.cdist(own, centres).argmin(1)
        for k in range(3):  # k-means has converged: a centre is the mean of those nearest to it
            assert torch.allclose(centres[k], own[nearest == k].mean(0), atol=1e-5)
    found = game.translate(label_images(batch["label"]), instance=batch["instance"], draws=Draws(1))
    assert not torch.equal(found, game.translate(label_images(batch["label"]), instance=batch["instance"]))
    with pytest.raises(ValueError, match="no instance covers more than 0.9 of its image"):
        game.cluster_features([batch], least_share=0.9)
    with pytest.raises(ValueError, match="no instance features .features=0."):
        tiny(features=0).cluster_features([batch])


def test_training_ends_with_clusters_in_the_last_checkpoint(pictures: Path, tmp_path: Path) -> None:
    game = tiny()
    train(game, pictures, tmp_path, batches=3)
    assert game.clusters.counts.tolist() == [3] * LABELS
    assert torch.equal(load_run(tmp_path).clusters.centres, game.clusters.centres)
    found = game.clusters.centres.clone()
    game.cluster_features(on_whole(pictures))
    assert torch.equal(found, game.clusters.centres)
    stopped = tiny()
    train(stopped, pictures, tmp_path / "stopped", batches=3, stop_at=2)
    assert not stopped.clusters.counts.any()


def on_whole(folder: Path) -> Iterator[dict[str, Tensor]]:
    source = data(folder)
    return (source.on_after_batch_transfer(batch, 0) for batch in source.batches("train", 4))


def test_manipulation_changes_the_chosen_instance_alone(pictures: Path) -> None:
    game, batch = tiny(), whole_batch(pictures)
    images, instance, chosen = label_images(batch["label"]), batch["instance"], 2001
    features, style, inside = game.encode(batch["b"], instance), torch.tensor([0.9, -0.9]), batch["instance"] == chosen
    changed = restyle(features, instance, chosen=chosen, style=style)
    assert torch.equal(changed.transpose(0, 1)[:, ~inside], features.transpose(0, 1)[:, ~inside])
    assert torch.equal(changed.transpose(0, 1)[:, inside], style[:, None].expand(-1, int(inside.sum())))
    arguments = {"instance": instance, "features": features, "chosen": chosen, "style": style}
    before, after = game.translate(images, instance=instance, features=features), game.manipulate(images, **arguments)
    differs = (before != after).any(1)
    assert not differs[~inside].any() and differs[inside].float().mean() > 0.9
    everywhere = game.manipulate(images, **arguments, keep_rest=False)
    assert torch.equal(everywhere[:, :, :][inside[:, None].expand_as(after)], after[inside[:, None].expand_as(after)])
    assert (everywhere != before).any(1)[~inside].any(), "the networks' own output reaches further"
    with pytest.raises(ValueError, match="no instance 77 in this map; it has 0, 1, 1000"):
        game.manipulate(images, **arguments | {"chosen": 77})


def test_without_instances_classes_are_told_apart(pictures: Path) -> None:
    game, batch = tiny(features=0), whole_batch(pictures)
    images = label_images(batch["label"])
    assert torch.equal(game.translate(images), game.translate(images, instance=batch["label"]))
    assert not torch.equal(game.translate(images), game.translate(images, instance=batch["instance"]))
    alone = game.translate(images[2:3])
    assert torch.allclose(game.translate(images)[2:3], alone, atol=1e-5), "an image depends on its map alone"


def test_preview_shows_input_output_and_target(pictures: Path) -> None:
    game, source, batch = CASES["three-phases"](), data(pictures), whole_batch(pictures)
    shown, columns = game.preview(source, rows=2, columns=7, psi=1.0)
    assert shown.shape == (2 * 2 * 3, 3, SIZE, SIZE) and shown.dtype == torch.uint8 and columns == 6
    assert torch.equal(shown[0], label_colours(batch["label"][:1])[0])
    assert torch.equal(shown[-1], source.dataset("test").fetch(torch.tensor([3]))["b"][0])


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_labels": 0}, "instances and features belong to label maps"),
        ({"fix_global_kimg": 1.0}, "are about enhancers: set enhancers=1"),
        ({"enhancers": 2, "global_kimg": 1.0}, "2 enhancers are trained one by one: give start_from"),
        ({"enhancers": 1, "global_kimg": 1.0, "start_from": "x"}, "start_from brings a trained global generator"),
        ({"norm": "layer"}, "norm 'layer' is unknown"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


@pytest.mark.parametrize(
    ("model", "source", "message"),
    [
        (
            {"downsamplings": 3, "encoder_downsamplings": 5},
            {},
            "pictures of 16x16 px do not fit.*multiples of 32 from 64",
        ),
        ({"downsamplings": 4, "features": 0}, {}, "pictures of 16x16 px do not fit.*multiples of 16 from 32"),
        ({"num_labels": 5}, {}, "the model has num_labels 5, the data need num_labels 4"),
        ({"out_channels": 1}, {}, "the model has out_channels 1, the data need out_channels 3"),
        ({}, {"instances": False}, "learns from label, instance, b, and the data have label, b: .*instances=false"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_training(
    model: dict[str, Any], source: dict[str, Any], message: str, pictures: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**model).check_data(data(pictures, **source))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (label_images(torch.full((1, 8, 8), 4)), "classes from 4 to 4, the model's are 0 to 3"),
        (torch.rand(1, 3, 8, 8), "a label map is grey"),
        (torch.zeros(1, 1, 7, 8), "images of 8x7 px do not fit the generator, which needs multiples of 2"),
    ],
)
def test_images_that_cannot_be_translated(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(features=0).translate(images)
    with pytest.raises(ValueError, match="direction 'ba' is none of this translator's, which are ab"):
        tiny(features=0).translate(torch.full((1, 1, 8, 8), -1.0), direction="ba")


# ---- experiments -----------------------------------------------------------------------------------------------------


def plan(name: str) -> dict[str, Any]:
    return yaml.safe_load(shipped_configs()[f"pix2pixhd/{name}"].read_text())


def test_cityscapes_has_the_published_numbers() -> None:
    """2,975 training images; 200 epochs of the global generator, 100 of the enhancer, 10 of these with G1 frozen."""
    coarse, fine = plan("cityscapes512"), plan("cityscapes_1024_local")
    for config, epochs in ((coarse, 200), (fine, 100)):
        assert config["model"]["init_args"]["total_kimg"] == pytest.approx(2.975 * epochs)
        assert config["data"]["init_args"]["batch_size"] == 1 and config["data"]["init_args"]["mirror"]
    assert fine["model"]["init_args"]["fix_global_kimg"] == pytest.approx(2.975 * 10)
    models = {}
    for name, config in (("coarse", coarse), ("fine", fine)):
        arguments = {k: v for k, v in config["model"]["init_args"].items() if k != "perceptual"}
        with torch.device("meta"):
            models[name] = Pix2PixHD(**arguments)
        assert models[name].decay_from_kimg == models[name].total_kimg / 2 and models[name].lr == 2e-4
        sides = config["data"]["init_args"]["resolution"], config["data"]["init_args"]["height"]
        assert all(side % models[name].stride == 0 for side in sides)
    assert models["fine"].generator.layers[1].weight.shape == models["coarse"].generator.layers[1].weight.shape


def test_the_small_experiment_trains_all_phases(tmp_path: Path) -> None:
    from lit_gans import fit  # here, since a process of two would wait for it

    argv = ["--config", "experiments/pix2pixhd/shapes64.yaml", "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += ["--data.init_args.batch_size=4", "--data.init_args.images=64"]
    argv += ["--model.init_args.global_kimg=0.004", "--model.init_args.fix_global_kimg=0.004"]
    argv += ["--model.init_args.total_kimg=0.012", "--image_grid.columns=3", "--image_grid.rows=1"]
    assert fit.main(argv) == 0
    found = load_run(tmp_path / "run")
    assert isinstance(found, Pix2PixHD) and found.images_seen == 12 and found.phase == "joint"
    assert (tmp_path / "run" / "samples" / "fakes-00000.012.png").is_file()


def main(pictures: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    how = {"strategy": "sync_at_step", "devices": int(os.environ["WORLD_SIZE"])}
    for name, build in CASES.items():
        game = build()
        trainer = train(game, pictures, folder / name, batches=6, **how)
        torch.save(state(game, trainer), folder / f"{name}-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
