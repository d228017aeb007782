"""Models and data of strangers' files live in the house as ours do, without an edit of it."""

import json
from pathlib import Path

import pytest
import torch

from lit_gans import fit as fitting
from lit_gans import sample as sampling
from lit_gans.adversarial.capabilities import FromLatents, HasStyles, Samples, can
from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.compare import compare
from lit_gans.editing.styles import style_mixing
from lit_gans.evaluate import evaluate
from lit_gans.runs.load import load_run
from lit_gans.runs.pretrained import from_pretrained, save_pretrained
from tests.cases import largest_difference
from tests.strangers.big import Big

TRUST, SWD = "tests.strangers", "swd"
ABLE = {"styled": {Samples, FromLatents, HasStyles}, "big": {Samples, FromLatents}, "diffusing": {Samples}}
LOSSES = {"styled": {"loss_d", "loss_g"}, "big": {"loss_d", "loss_g"}, "diffusing": {"loss"}}


def fit(name: str, folder: Path, *arguments: str) -> Path:
    """Trained by the verb, from its config and with all callbacks that the verb has."""
    config = Path(__file__).with_name(f"{name}.yaml")
    assert fitting.main(["--config", str(config), f"--run_folder={folder}", *arguments]) == 0
    return folder


@pytest.fixture(scope="module", params=list(ABLE))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(request.param, tmp_path_factory.mktemp("strangers") / request.param)


def test_training_leaves_what_it_leaves_of_ours(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = {name for line in lines for name in line}
    assert {"diversity", SWD, "img_per_s", *LOSSES[run.name]} <= figures
    assert ("d_win_rate" in figures) == ("real_logits" in figures) == (run.name != "diffusing")
    assert {"latest.png", "reals.png"} <= {path.name for path in (run / "samples").iterdir()}
    assert "<svg" in (run / "index.html").read_text()
    able = {each for each in (Samples, FromLatents, HasStyles) if can(load_run(run, trust=TRUST), each)}
    assert able == ABLE[run.name]


def test_a_resumed_run_is_the_unbroken_one(run: Path, tmp_path: Path) -> None:
    halves = fit(run.name, tmp_path / "halves", "--model.init_args.total_kimg=0.032")
    fit(run.name, halves, "--ckpt_path=last")
    whole, resumed = (read_checkpoint(checkpoints(folder)[-1]) for folder in (run, halves))
    assert largest_difference(whole["state_dict"], resumed["state_dict"]) == 0.0
    ranked = compare([run, halves])
    assert not ranked.refusals and {row.label for row in ranked.targets} == {run.name, "halves"}


def test_it_is_sampled_and_measured(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    to = ["--output", str(tmp_path / "out"), "--seeds", "0-3"]
    assert sampling.main([str(run), *to]) == 2
    assert "if you trust its package, name it: trust= (--trust)" in capsys.readouterr().err
    assert sampling.main([str(run), *to, "--trust", TRUST]) == 0
    assert sampling.main([str(run), *to, "--trust", TRUST, "--grid"]) == 0
    assert len(list((tmp_path / "out").glob("seed*.png"))) == 4 and (tmp_path / "out" / "grid.png").is_file()
    measured = evaluate(run, trust=TRUST, device="cpu", output=tmp_path / "measured.jsonl")
    trained = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert measured.values[SWD] == [x[SWD] for x in trained if SWD in x][-1]
    assert measured.protocol["generator"] == "ema"


def test_it_is_saved_and_loaded(run: Path, tmp_path: Path) -> None:
    model = load_run(run, trust=TRUST)
    folder = save_pretrained(model, tmp_path / "saved")
    assert 'trust="tests"' in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="if you trust its package"):
        from_pretrained(folder)
    for loaded in (from_pretrained(folder, trust=TRUST), load_run(folder, trust=TRUST)):
        assert torch.equal(loaded.sample([1, 2]), model.sample([1, 2])) and loaded.images_seen == 64


def test_a_strangers_styles_are_mixed(tmp_path: Path) -> None:
    model = load_run(fit("styled", tmp_path, "--model.init_args.total_kimg=0.016"), trust=TRUST)
    table = style_mixing(model, [1, 2], [3], layers=[0])
    assert table.shape == (3, 2, 1, 16, 16) and not torch.equal(table[1, 1], table[1, 0])


def test_standing_statistics_are_of_what_is_sampled_and_change_no_weight() -> None:
    torch.manual_seed(0)
    model = Big().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.seeded_latents(range(50)).abs().max() <= 1 < model.latents(50, "d").abs().max()
    with model.sampling() as generator:
        assert 0 < generator.norm.running_var.mean() != before["generator_ema.norm.running_var"].mean()
    assert largest_difference(before, model.state_dict()) == 0.0
