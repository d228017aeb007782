"""The example outside the package: a tokenizer on the ritual, as a user's file beside its config."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lit_gans import fit as verb
from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.base.images import from_uint8, to_uint8
from lit_gans.data import Digits
from lit_gans.runs.load import load_run
from tests.cases import largest_difference
from tests.distributed.launch import ROOT, run_processes

FOLDER = ROOT / "experiments" / "vqgan_tokenizer"
CONFIG = str(FOLDER / "digits.yaml")
# Ten batches of 16, the discriminator from the fourth on. At a width of 8 each channel is a group of its own, biases
# before which have gradients of rounding errors alone, of which Adam makes whole steps.
SMALL = [
    "--model.init_args.width=16", "--model.init_args.codes=16", "--model.init_args.gan_from_kimg=0.048",
    "--data.init_args.batch_size=16", "--data.init_args.resolution=8", "--report.every_kimg=0.016",
    "--image_grid.every_kimg=0.08", "--image_grid.columns=5", "--logger=none", "--trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def example_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def train(folder: Path, *, kimg: float = 0.16, more: list[str] | None = None) -> dict[str, Any]:
    arguments = [*SMALL, f"--model.init_args.total_kimg={kimg}", f"--run_folder={folder}", *(more or [])]
    assert verb.main(["--config", CONFIG, *arguments]) == 0
    return read_checkpoint(checkpoints(folder)[-1])


def difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    states = [(c["state_dict"], [o["state"] for o in c["optimizer_states"]], c["lit_gans"]) for c in (a, b)]
    return largest_difference(*states)


@pytest.mark.slow
def test_it_trains_and_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    for stop in (0.032, 0.08):  # before and after the discriminator joins
        halves = tmp_path / f"halves-{stop}"
        train(halves, kimg=stop)
        assert difference(whole, train(halves, more=["--ckpt_path=last"])) == 0.0
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert ["loss_d" in line for line in lines if "loss_l1" in line] == [False] * 3 + [True] * 7
    assert Image.open(tmp_path / "whole" / "samples" / "latest.png").size[0] > 5 * 64


@pytest.mark.slow  # two processes take their time to start
def test_two_processes_equal_one(tmp_path: Path) -> None:
    alone = train(tmp_path / "alone")
    arguments = [*SMALL, "--model.init_args.total_kimg=0.16", f"--run_folder={tmp_path / 'two'}", "--trainer.devices=2"]
    run_processes(2, ["-m", "lit_gans.fit", "--config", CONFIG, *arguments])
    both = read_checkpoint(checkpoints(tmp_path / "two")[-1])
    assert alone["lit_gans"] == both["lit_gans"]
    assert largest_difference(alone["state_dict"], both["state_dict"]) < 1e-5


def built(**arguments: Any) -> Any:
    from vqgan_tokenizer import VQGAN

    torch.manual_seed(0)
    return VQGAN(**{"width": 8, "codes": 16, **arguments})


def test_tokens_name_the_nearest_codes() -> None:
    quantiser = built().quantiser
    z = torch.randn(2, 16, 3, 3)
    quantised, loss, tokens = quantiser(z)
    distances = torch.cdist(z.movedim(1, -1).reshape(-1, 16), quantiser.codebook.weight)
    assert torch.equal(tokens.flatten(), distances.argmin(1))
    assert torch.allclose(quantised.movedim(1, -1), quantiser.codebook(tokens), atol=1e-6)
    assert loss.item() == pytest.approx(1.25 * (quantised - z).square().mean().item(), rel=1e-4)


def test_gradients_pass_straight_through_to_the_encoder() -> None:
    z = torch.randn(2, 16, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(built().quantiser(z)[0].sum(), z)
    assert torch.equal(gradient, torch.ones_like(z))


def test_the_weight_of_the_critic_balances_the_last_layer() -> None:
    game, x = built(), torch.rand(4, 1, 8, 8) * 2 - 1
    fake, _, _ = game(x)
    assert game.balance((fake - x).abs().mean(), 4 * (fake - x).abs().mean()).item() == pytest.approx(0.25, rel=1e-4)
    assert game.balance((fake - x).abs().mean(), 0 * fake.sum()).item() == 1e4


def test_the_preview_shows_reconstructions_below_held_out_pictures(tmp_path: Path) -> None:
    train(tmp_path, kimg=0.016)
    game, data = load_run(tmp_path, trust="vqgan_tokenizer"), Digits(batch_size=16, resolution=8, holdout=True)
    images, columns = game.preview(data, rows=4, columns=3, psi=1.0)
    assert images.shape == (12, 1, 8, 8) and columns == 3
    held_out = data.dataset("test").fetch(torch.tensor([0]))["image"]
    assert torch.equal(images[0], held_out[0])
    assert torch.equal(images[3], to_uint8(game(from_uint8(held_out))[0])[0])
