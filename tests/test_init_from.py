"""`fit --init_from`: a new training begins with the weights of another, and with nothing else of it."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from lit_gans.adversarial import Game
from lit_gans.augment import AdaptiveAugment
from lit_gans.augment.image_pool import pool_buffers
from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.convert import convert
from lit_gans.fit import main
from lit_gans.papers import CGAN, CycleGAN, ProjectedGAN, StyleGAN2
from lit_gans.runs.initial import Initial, fit_of, read_initial, take
from lit_gans.runs.pretrained import save_pretrained
from lit_gans.training.cli import parse

from .cases import largest_difference

SIZE = {"resolution": 16, "z_dim": 8, "w_dim": 12, "channel_base": 128, "channel_max": 12, "num_layers": 2}
QUIET = ["--logger=none", "--evaluate=off", "--image_grid=off", "--health.diversity_every_kimg=0",
         "--trainer.accelerator=cpu", "--trainer.devices=1"]  # fmt: skip
STILL = ["--model.init_args.lr=0", "--ema.half_life_kimg=null", "--model.init_args.total_kimg=0.016"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    sizes = {"resolution": 16, "width": 4, "z_dim": 8, "channels": 1, "num_classes": 10, "total_kimg": 0.064}
    model = {"class_path": "lit_gans.papers.CGAN", "init_args": sizes}
    data = {"class_path": "lit_gans.data.Digits", "init_args": {"batch_size": 16, "resolution": 16}}
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump({"model": model, "data": data}))
    return tmp_path / "digits.yaml"


@pytest.fixture
def parent(config: Path, tmp_path: Path) -> Path:
    assert main(["--config", str(config), f"--run_folder={tmp_path / 'parent'}", *QUIET]) == 0
    return tmp_path / "parent"


def state_of(run: Path) -> dict[str, Tensor]:
    return read_checkpoint(checkpoints(run)[-1])["state_dict"]


def styled(seed: int, **arguments: object) -> StyleGAN2:
    """A StyleGAN2 all of whose tensors are random."""
    torch.manual_seed(seed)
    gan = StyleGAN2(**SIZE | arguments)
    with torch.no_grad():
        for tensor in gan.state_dict().values():
            tensor.copy_(torch.randn_like(tensor))
    return gan


def same(first: dict[str, Tensor], second: dict[str, Tensor], prefix: str) -> bool:
    names = [name for name in first if name.startswith(prefix)]
    return bool(names) and all(torch.equal(first[name], second[name]) for name in names)


# ---- through fit -----------------------------------------------------------------------------------------------------


def test_a_run_without_a_config_is_tuned_by_its_own(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([f"--init_from={parent}", *QUIET, *STILL]) == 0
    tuned = tmp_path / "runs" / "parent-tuned"
    checkpoint = read_checkpoint(checkpoints(tuned)[-1])
    assert checkpoint["lit_gans"]["images_seen"] == 16
    frozen = {name: t for name, t in state_of(parent).items() if "running" not in name and "num_batches" not in name}
    assert largest_difference(frozen, {name: checkpoint["state_dict"][name] for name in frozen}) == 0.0
    assert all(state["step"] == 1 for one in checkpoint["optimizer_states"] for state in one["state"].values())
    said = capsys.readouterr().err
    assert f"init_from: {parent}/checkpoints/kimg00000.064.ckpt, a CGAN at 0.064 kimg" in said
    assert "generator 13 of 13" in said and "clock and optimisers are new" in said
    begun = json.loads((tuned / "run.json").read_text())["starts"][0]["init_from"]
    assert begun["source"].endswith("a CGAN at 0.064 kimg") and len(begun["fingerprint"]) == 64


def test_a_resumed_one_is_an_unbroken_one(parent: Path, config: Path, tmp_path: Path) -> None:
    """The weights to begin with are not read again: their source may be gone."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    argv = ["--config", str(config), f"--init_from={parent}", *QUIET]
    assert main([*argv, f"--run_folder={whole}"]) == 0
    assert main([*argv, f"--run_folder={halves}", "--model.init_args.total_kimg=0.032"]) == 0
    parent.rename(tmp_path / "gone")
    assert main([*argv, f"--run_folder={halves}", "--ckpt_path=last"]) == 0
    assert largest_difference(state_of(whole), state_of(halves)) == 0.0
    assert not same(state_of(whole), state_of(tmp_path / "gone"), "generator.")


def test_other_classes_keep_what_fits(
    parent: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = ["--data=Images", f"--data.init_args.path={_pictures(tmp_path / 'pictures', classes=3)}",
            "--data.init_args.channels=1", "--data.init_args.resolution=16", "--data.init_args.batch_size=4",
            "--data.init_args.labels=folders"]  # fmt: skip
    argv = ["--config", str(config), f"--init_from={parent}", "--model.init_args.num_classes=3", *data, *QUIET]
    assert main([*argv, f"--run_folder={tmp_path / 'run'}", *STILL]) == 0
    said = capsys.readouterr().err
    assert "as at any start: generator.from_label.0.weight, (10, 50) there, (3, 50) here" in said
    assert "generator 12 of 13, discriminator 8 of 9" in said
    kept, found = state_of(parent), state_of(tmp_path / "run")
    assert same({name: kept[name] for name in kept if "from_z" in name}, found, "generator.")
    assert found["generator.from_label.0.weight"].shape == (3, 50)


def _pictures(folder: Path, *, classes: int) -> Path:
    from PIL import Image

    for number in range(classes):
        (folder / f"{number}").mkdir(parents=True)
        for turn in range(4):
            picture = Image.linear_gradient("L").rotate(40 * number + 5 * turn).resize((16, 16))
            picture.save(folder / f"{number}" / f"{turn}.png")
    return folder


def test_what_goes_with_it(tmp_path: Path) -> None:
    photos = ["--config", "stylegan2/photos", f"--data.init_args.path={_pictures(tmp_path / 'photos', classes=1)}"]
    save_pretrained(styled(1), tmp_path / "styled")
    cli = parse([*photos, f"--init_from={tmp_path / 'styled'}", *QUIET])
    assert (cli.config["adaptive_augmentation"]["speed_kimg"], cli.config["ema"]["ramp_up"]) == (100, 0.05)
    assert {name: cli.model.hparams[name] for name in SIZE} == SIZE and cli.datamodule.resolution == 16
    assert cli.model.generator.mapping.w_avg.shape == (12,)
    assert fit_of(cli.initial, cli.model).left == {"augment.p": "not there, () here"}


@pytest.mark.slow
def test_photographs_go_on_with_the_networks_that_they_began_with(tmp_path: Path) -> None:
    photos = ["--config", "stylegan2/photos", f"--data.init_args.path={_pictures(tmp_path / 'photos', classes=1)}"]
    save_pretrained(styled(1), tmp_path / "styled")
    begun = [*photos, *QUIET, f"--init_from={tmp_path / 'styled'}", f"--run_folder={tmp_path / 'photos-run'}"]
    assert main([*begun, "--model.init_args.total_kimg=0.016"]) == 0
    (tmp_path / "styled").rename(tmp_path / "gone")
    assert main([*begun, "--model.init_args.total_kimg=0.032", "--ckpt_path=last"]) == 0


def test_a_finished_run_has_nothing_left_to_train(parent: Path, config: Path, capsys: pytest.CaptureFixture) -> None:
    argv, before = ["--config", str(config), f"--run_folder={parent}", *QUIET], (parent / "run.json").read_text()
    assert main([*argv, "--ckpt_path=last", "--model.init_args.total_kimg=0.05"]) == 1
    said = capsys.readouterr().err
    assert "kimg00000.064.ckpt stands at 0.064 kimg of 0.05: nothing is left to train" in said
    assert f"--init_from={parent}" in said
    assert main([*argv, "--ckpt_path=last"]) == 1 and "0.064 kimg of 0.064" in capsys.readouterr().err
    assert main([*argv, "--ckpt_path=auto"]) == 0  # of a job that is started again by itself
    assert "nothing is left to train" in capsys.readouterr().err and (parent / "run.json").read_text() == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{tmp}/none", "is no run folder, .ckpt, folder of save_pretrained"),
        ("{tmp}/w.safetensors", "made a folder by lit-gans convert"),
        ("{tmp}/junk.ckpt", "is not a checkpoint that can be read safely"),
        ("{tmp}/junk.pkl", "junk.pkl is not read"),
        ("{tmp}/styled", "holds a lit_gans.papers.stylegan2.StyleGAN2, and the config trains a"),
        ("{tmp}/wide", "no weight of init_from"),
    ],
)
def test_what_cannot_begin_a_training(
    source: str, message: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("junk.ckpt", "junk.pkl", "w.safetensors"):
        (tmp_path / name).write_bytes(b"no such thing")
    save_pretrained(styled(1), tmp_path / "styled")
    wide = CGAN(form="mlp", resolution=8, z_dim=3, num_classes=2, channels=1)
    save_pretrained(wide, tmp_path / "wide")
    argv = ["--config", str(config), f"--init_from={source.format(tmp=tmp_path)}", *QUIET]
    assert main([*argv, f"--run_folder={tmp_path / 'run'}"]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_without_a_config_there_must_be_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_pretrained(styled(1), tmp_path / "styled")
    assert main([f"--init_from={tmp_path / 'styled'}"]) == 1
    assert "is no run with a config: give --config" in capsys.readouterr().err


# ---- of what else there is -------------------------------------------------------------------------------------------


def test_an_official_pickle_and_the_folder_it_is_converted_to(tmp_path: Path) -> None:
    """Both players and the average, each in its place."""
    theirs = styled(1, num_classes=2)
    save_pretrained(theirs, tmp_path / "whole")
    convert(tmp_path / "whole", tmp_path / "theirs.pkl", to="official")
    convert(tmp_path / "theirs.pkl", tmp_path / "folder")
    for source in ("theirs.pkl", "folder", "whole"):
        initial, ours = read_initial(str(tmp_path / source)), styled(2, num_classes=2)
        assert {name: initial.arguments[name] for name in SIZE} == SIZE
        take(fit_of(initial, ours), ours)
        kept, found = theirs.state_dict(), ours.state_dict()
        assert all(same(kept, found, f"{player}.") for player in ("generator", "generator_ema", "discriminator"))
        assert not torch.equal(kept["pl_mean"], found["pl_mean"])  # of the game as a whole: it begins anew


def test_a_generator_alone_is_both_and_the_discriminator_is_new(tmp_path: Path) -> None:
    theirs, ours = styled(1), styled(2)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    save_pretrained(theirs.generator_ema, tmp_path / "alone", arguments=SIZE)
    fit = fit_of(read_initial(str(tmp_path / "alone")), ours)
    take(fit, ours)
    found = ours.state_dict()
    for player in ("generator", "generator_ema"):
        prefix = f"{player}."
        own = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
        assert largest_difference(own, dict(theirs.generator_ema.state_dict())) == 0.0
    assert same(before, found, "discriminator.") and all(name.startswith("discriminator.") for name in fit.left)
    assert "discriminator 0 of" in str(fit) and "all in run.json" in str(fit)


def test_a_network_that_another_paper_has_too_is_taken_whole(tmp_path: Path) -> None:
    """Projected GAN with StyleGAN2's generator: both its players, the judges are its own; a wider one takes nothing."""
    theirs = styled(1)
    save_pretrained(theirs, tmp_path / "styled")
    sizes = {"generator": "stylegan2", "mapping_layers": 2, "features_px": 32, "features_weights": "random"}
    sizes |= {name: value for name, value in SIZE.items() if name != "num_layers"}
    ours = ProjectedGAN(**sizes, num_heads=1, mixed_channels=4)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    fit = fit_of(read_initial(str(tmp_path / "styled")), ours)
    take(fit, ours)
    kept, found = theirs.state_dict(), ours.state_dict()
    assert same(kept, found, "generator.") and same(kept, found, "generator_ema.")
    assert same(before, found, "discriminator.") and {name.split(".")[0] for name in fit.left} == {"discriminator"}
    with pytest.raises(ValueError, match="which has no network like one of its"):
        fit_of(read_initial(str(tmp_path / "styled")), ProjectedGAN(**sizes | {"w_dim": 13}, num_heads=1))


def test_larger_pictures_begin_with_all_of_the_smaller_ones(tmp_path: Path) -> None:
    theirs, ours = styled(1), styled(2, resolution=32)
    save_pretrained(theirs, tmp_path / "small")
    fit = fit_of(read_initial(str(tmp_path / "small")), ours)
    assert {name.split(".")[3] for name in fit.left if name.startswith("generator.")} == {"32"}
    take(fit, ours)
    (_, theirs_16), (_, ours_16) = ([*gan.generator.synthesis.blocks.items()][2] for gan in (theirs, ours))
    assert torch.equal(ours_16.conv1.weight, theirs_16.conv1.weight)


def in_memory(game: Game) -> Initial:
    cls = type(game)
    return Initial("here", "here", class_path=f"{cls.__module__}.{cls.__qualname__}", state=game.state_dict())


def test_the_strength_of_an_augmentation_is_taken() -> None:
    theirs, ours = (styled(seed, augment=AdaptiveAugment(xflip=1)) for seed in (1, 2))
    theirs.augment.p.fill_(0.7)
    take(fit_of(in_memory(theirs), ours), ours)
    assert ours.augment.p.item() == pytest.approx(0.7)


def test_pools_of_old_pictures_stay_behind() -> None:
    theirs, ours = (CycleGAN(width=4, blocks=1, discriminator_width=4) for _ in range(2))
    fit = fit_of(in_memory(theirs), ours)
    assert not fit.left and not pool_buffers(theirs) & fit.taken.keys() and pool_buffers(theirs)

