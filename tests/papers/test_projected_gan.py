"""Projected GAN: what its feature networks and its training promise beyond the battery and the recorded values."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lit_gans import fit as verb
from lit_gans.base.checkpoints import checkpoints
from lit_gans.papers import ProjectedGAN
from lit_gans.papers.projected_gan import Discriminator, FeatureNetwork, Projector
from lit_gans.papers.projected_gan.discriminators import nominal_sides
from lit_gans.papers.projected_gan.features import cut, folded, whole
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from tests.cases import CASES, train
from tests.papers.games import GANS
from tests.papers.replay import Replay, replayed, watched

NAMES = ["test_efficientnet", "test_resnet", "test_vit", "torchvision:squeezenet1_1", "torchvision:resnet18"]


def tiny(**arguments: Any) -> ProjectedGAN:
    return CASES["projected-gan"](**{"num_classes": 0, **arguments})


def weights_of(name: str, path: Path, *, seed: int = 0) -> str:
    """A file of a network that nobody trained."""
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    save_file({k: v.contiguous() for k, v in whole(name, "random").state_dict().items()}, path)
    return str(path)


# ---- feature networks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_cut_in_four_and_frozen(name: str) -> None:
    network = FeatureNetwork(name, px=64, weights="random").train()
    images = torch.rand(2, 1, 32, 32).requires_grad_()
    maps = network(images)
    assert [tuple(x.shape) for x in maps] == [
        (2, c, s, s) for c, s in zip(network.channels, network.sizes, strict=True)
    ]
    assert all(a > b for a, b in zip(network.sizes[:-1], network.sizes[1:], strict=True))
    assert not list(network.parameters()) and not any(m.training for m in network.modules())
    assert torch.autograd.grad(sum(x.square().mean() for x in maps), images)[0].abs().max() > 0
    assert {n.split(".")[0] for n in network.state_dict()} == ({"maps"} if name == "test_vit" else set())


def test_the_first_stages_of_a_network_are_the_whole_networks_own() -> None:
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    network = FeatureNetwork("tf_efficientnet_lite0", px=64, weights="random", seed=3)
    found = network(images)
    torch.random.manual_seed(3)
    full = whole("tf_efficientnet_lite0", "random").eval()
    stages = full.blocks[:2], full.blocks[2:3], full.blocks[3:5], full.blocks[5:7]
    x = full.bn1(full.conv_stem(images))
    for stage, expected in zip(stages, found, strict=True):
        x = stage(x)
        assert torch.allclose(x, expected, rtol=1e-4, atol=1e-5 * float(x.detach().abs().max()))
    assert network.channels == [24, 40, 112, 320] and network.sizes == [16, 8, 4, 2]


@pytest.mark.parametrize("name", ["test_efficientnet", "tf_efficientnet_lite0", "test_resnet", "torchvision:resnet18"])
def test_batch_norms_are_in_the_weights(name: str) -> None:
    torch.manual_seed(0)
    network = cut(whole(name, "random"), name).eval()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        for value in (norm.running_var, norm.running_mean, norm.weight, norm.bias):
            value.data.uniform_(0.5, 1.5)
    images = torch.rand(2, 3, 64, 64).requires_grad_()
    before = network(images)
    grads = torch.autograd.grad(sum(x.square().mean() for x in before), images)
    after = folded(network, px=64)(images)
    assert norms and not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.detach().abs().max()))
    other_grads = torch.autograd.grad(sum(x.square().mean() for x in after), images)
    assert torch.allclose(grads[0], other_grads[0], rtol=1e-3, atol=1e-4 * float(grads[0].abs().max()))


def test_images_are_resized_and_normalised_as_told() -> None:
    seen: list[Tensor] = []
    network = FeatureNetwork("test_resnet", px=64, weights="random", normalise=((0.5, 0.25, 0), (1.0, 0.5, 0.25)))
    network.load()
    network.network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = torch.rand(1, 3, 48, 48) * 2 - 1
    network(images)
    resized = interpolate(images, (64, 64), mode="bilinear") / 2 + 0.5
    expected = (resized - torch.tensor([0.5, 0.25, 0]).view(3, 1, 1)) / torch.tensor([1, 0.5, 0.25]).view(3, 1, 1)
    assert torch.allclose(seen[0], expected, atol=1e-6)
    own = FeatureNetwork("torchvision:squeezenet1_1", px=64, weights="random", normalise=True)
    assert torch.allclose(own.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]) * 2 - 1)


def test_weights_are_named_by_their_digits(tmp_path: Path) -> None:
    a, b = (weights_of("test_resnet", tmp_path / f"{i}.safetensors", seed=i) for i in range(2))
    first, again, other = (FeatureNetwork("test_resnet", px=64, weights=w) for w in (a, a, b))
    for network in (first, again, other):
        network.load()
    assert first.fingerprint == again.fingerprint != other.fingerprint and len(first.fingerprint) == 16
    pinned = FeatureNetwork("test_resnet", px=64, weights=b, fingerprint=first.fingerprint)
    with pytest.raises(ValueError, match=f"have fingerprint {other.fingerprint}, and {first.fingerprint} is expected"):
        pinned.load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "test_resnett"}, "timm has no model 'test_resnett'; near it are .*test_resnet"),
        ({"name": "hub:resnet18"}, "'hub:resnet18' are of no known family: give a model of timm, or torchvision:"),
        ({"name": "torchvision:resnet19"}, "torchvision has no classifier 'resnet19'"),
        ({"name": "test_convnext"}, "ConvNeXt is not cut here; EfficientNets, ResNets and vision transformers"),
        (
            {"name": "torchvision:squeezenet1_1", "px": 9},
            "images of 9 px do not pass through torchvision:squeezenet1_1",
        ),
    ],
)
def test_networks_that_there_are_not(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureNetwork(**{"px": 64, "weights": "random", **arguments})


# ---- projections and discriminators ----------------------------------------------------------------------------------


def test_mixing_is_of_the_seed_alone_and_of_uneven_maps_too() -> None:
    first, again, other = (Projector([4, 6, 8], out_channels=4, seed=s) for s in (1, 1, 2))
    maps = [torch.randn(2, c, s, s) for c, s in zip((4, 6, 8), (31, 15, 7), strict=True)]
    levels = [p(maps) for p in (first, again, other)]
    assert [x.shape[-1] for x in levels[0]] == first.sizes([31, 15, 7]) == [62, 31, 15]
    assert all(map(torch.equal, levels[0], levels[1])) and not any(map(torch.equal, levels[0], levels[2]))


def test_mixing_before_enlarging_is_mixing_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the authors, in the same weights."""
    network, maps = Projector([6, 8], out_channels=4), [torch.randn(2, 6, 8, 8), torch.randn(2, 8, 4, 4)]
    coarse = network.csm[1](interpolate(network.ccm[1](maps[1]), (8, 8), mode="bilinear", align_corners=True))
    x = interpolate(network.ccm[0](maps[0]) + coarse, (16, 16), mode="bilinear", align_corners=True)
    for found, expected in zip(network(maps), (network.csm[0](x), coarse), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "finest", "sides"),
    [
        ([128, 64, 32, 16], 128, [128, 64, 32, 16]),  # of 256 px
        ([112, 56, 28, 14], 128, [128, 64, 32, 16]),  # of 224 px, as published
        ([64, 32, 16, 8], 128, [128, 64, 32, 16]),
        ([32, 16, 8, 4], 128, [64, 32, 16, 8]),
        ([16, 8, 4, 2], 128, None),
        ([16, 8, 4], 128, [32, 16, 8]),
    ],
)
def test_blocks_follow_the_published_sides_as_long_as_they_fit(
    sizes: list[int], finest: int, sides: list[int] | None
) -> None:
    assert nominal_sides(sizes, finest=finest) == sides


@pytest.mark.parametrize(
    ("px", "form"), [(64, {}), (64, {"separable": True}), (128, {"patch": True}), (224, {}), (160, {"separable": True})]
)
def test_every_size_and_form_has_logits(px: int, form: dict[str, bool]) -> None:
    judge = Discriminator("test_resnet", features_px=px, features_weights="random", mixed_channels=2, width=2, **form)
    assert judge(torch.rand(1, 3, 32, 32)).isfinite().all()


# ---- training --------------------------------------------------------------------------------------------------------


def test_no_graph_is_kept_that_nobody_needs(tmp_path: Path) -> None:
    """Fakes of the discriminator's step, and features there, have none; heads get no gradients in the generator's."""

    def look(game: ProjectedGAN, batch: dict[str, Tensor]) -> None:
        with watched(game, "generator", "discriminator.features", "discriminator.heads") as calls:
            run = Replay(game, batch).fresh()
        assert run.steps == [0, 1]
        for call in calls:
            tensors = call.out if isinstance(call.out, list) else [call.out]
            heads = call.network == "discriminator.heads"
            assert all(x.requires_grad == (heads or call.step == 0) for x in tensors)
            assert not heads or all(x.requires_grad == (call.step == 0) for x in call.args[0])
        assert [c.step for c in calls if c.network == "discriminator.features"] == [0, 1, 1]

    replayed(tiny(), GANS["projected-gan"][1](tmp_path), tmp_path, look)


def test_statistics_of_reals_and_fakes_and_only_they_move(tmp_path: Path) -> None:
    gan = tiny()
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    train(gan, tmp_path, batches=1)
    after = gan.state_dict()
    moved = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert not any("projector" in k for k in moved)
    norms = [k for k in after if k.startswith("discriminator") and k.endswith("num_batches_tracked")]
    assert all(after[k] == 3 for k in norms) and norms  # the generator's fakes, the discriminator's, the reals
    assert not any(k.endswith(".0.bias") for k in moved if k.startswith("discriminator")), "they have no effect"


def test_style_averages_move_in_the_discriminators_step(tmp_path: Path) -> None:
    gan = CASES["projected-gan-style"]()
    gan.generator.mapping.w_avg_decay = 0.0
    seen: list[Tensor] = []
    gan.generator.mapping.register_forward_hook(lambda module, given, ws: seen.append(ws[:, 0].detach()))
    train(gan, tmp_path, batches=1)
    assert len(seen) == 3 and torch.allclose(gan.generator.mapping.w_avg, seen[2].mean(0), atol=1e-6)
    assert torch.equal(seen[1], seen[2]) and not torch.equal(seen[0], seen[1])


def test_a_run_says_its_weights_keeps_their_digits_and_takes_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (weights_of("test_resnet", tmp_path / f"{i}.safetensors", seed=i) for i in range(2))
    gan = tiny(features_weights=a)
    train(gan, tmp_path / "run", batches=4, stop_at=2)
    digits = gan.discriminator.features.fingerprint
    assert f"features: test_resnet at 32 px, {a} ({digits})" in capsys.readouterr().err
    said = {"network": "test_resnet", "px": 32, "weights": a, "fingerprint": digits}
    assert gan.frozen_networks() == [said]
    Path(a).rename(tmp_path / "moved.safetensors")
    loaded = load_run(tmp_path / "run")  # sampling needs no weights of features
    assert torch.equal(loaded.sample([1, 2]), gan.sample([1, 2]))
    assert loaded.hparams["features_fingerprint"] == digits
    checkpoint = checkpoints(tmp_path / "run")[-1]
    with pytest.raises(ValueError, match=f"fingerprint {digits}, and these have .*: give features_weights"):
        train(tiny(features_weights=b), tmp_path / "run", batches=4, resume=checkpoint)
    train(tiny(features_weights=str(tmp_path / "moved.safetensors")), tmp_path / "run", batches=4, resume=checkpoint)


@pytest.mark.parametrize("features", ["test_resnet", "torchvision:squeezenet1_1"])
def test_missing_weights_are_told_before_training_starts(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timm import create_model as factory

    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no network")

    def create(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
        return offline() if pretrained else factory(name, **options)

    monkeypatch.setattr("timm.create_model", create)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    gan = tiny(features=features, features_weights=None, features_px=64)
    with pytest.raises(ConnectionError, match=r"no network.*or pass features_weights, .*features_weights=random"):
        train(gan, tmp_path, batches=1)
    assert gan.images_seen == 0
    if features == "test_resnet":
        command = r"`hf download timm/test_resnet\S* model.safetensors --local-dir \S*cache/timm/test_resnet`"
        with pytest.raises(FileNotFoundError, match=rf"no weights .* at \S*lost.safetensors: .*{command}"):
            train(tiny(features_weights=str(tmp_path / "lost.safetensors")), tmp_path, batches=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"generator": "stylegan"}, "generator 'stylegan' is not one of fastgan, fastgan_lite, stylegan2"),
        ({"num_heads": 5}, "num_heads 5: there are levels for 1 to 4"),
        (
            {"num_heads": 4},
            "images of 32 px give levels of 16, 8, 4, 2 px by test_resnet, too small.*features_px to 64",
        ),
        ({"mixing": "all"}, "mixing 'all' is not one of none, channels, scales"),
        ({"resolution": 48}, "resolution 48 is not a power of two"),
        ({"policy": ["colour"]}, "policy .*colour.* is not a list of color"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_published_sizes() -> None:
    """224 px are shown of smaller images, and larger ones as they are."""
    assert [tiny(features_px=None, resolution=r).discriminator.features.px for r in (64, 256)] == [224, 256]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faces64", "flowers64", "fewshot256", "ffhq256", "ffhq256_stylegan2", "church256"])
def test_experiments_train(name: str, tmp_path: Path) -> None:
    plan = yaml.safe_load(shipped_configs()[f"projected_gan/{name}"].read_text())
    argv = ["--config", f"experiments/projected_gan/{name}.yaml", "--logger=none", f"--run_folder={tmp_path / 'run'}"]
    argv += ["--evaluate.every_kimg=0", "--image_grid.columns=2", "--image_grid.rows=2"]
    argv += ["--model.init_args.features_weights=random", "--model.init_args.head_width=2"]
    argv += ["--model.init_args.width=1", "--model.init_args.channel_max=4", "--model.init_args.total_kimg=0.008"]
    argv += ["--data=lit_gans.data.Shapes", f"--data.init_args.resolution={plan['data']['init_args']['resolution']}"]
    argv += ["--data.init_args.batch_size=4"]
    assert verb.main(argv) == 0
    assert load_run(tmp_path / "run").images_seen == 8
