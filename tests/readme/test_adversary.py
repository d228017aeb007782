"""The page on modules of one's own: its code runs as it stands."""

import builtins
import re
import shlex
from pathlib import Path

import pytest
import torch
from lightning.pytorch import callbacks

from lit_gans import adversarial, cli
from lit_gans.adversarial import Game
from lit_gans.adversarial.capabilities import Previews
from lit_gans.adversarial.checks import UNCALLED_HOOKS
from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from tests.cases import largest_difference

FILE = Path(__file__).parents[2] / "docs" / "adversary.md"
PAGE = FILE.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_trains_resumes_and_is_the_same_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (model, by_hand), (config,), (commands,) = blocks("python"), blocks("yaml"), blocks("bash")
    Path("denoiser.py").write_text(model)
    Path("denoiser.yaml").write_text(config)
    for command in commands.splitlines():
        assert cli.main([*shlex.split(command)[1:], "--trainer.accelerator=cpu"]) == 0
    assert [path.stem for path in checkpoints(Path("runs/denoiser"))] == ["kimg00002.048", "kimg00003.008"]
    assert "loss_d" in Path("runs/denoiser/csv/metrics.csv").read_text().splitlines()[0]
    torch.manual_seed(0)
    exec(by_hand, {})
    ours = read_checkpoint(checkpoints(Path("runs/denoiser"))[0])
    theirs = read_checkpoint(checkpoints(Path("runs/by-hand"))[-1])
    assert ours["lit_gans"] == theirs["lit_gans"]
    assert largest_difference(ours["state_dict"], theirs["state_dict"]) == 0.0


def test_all_that_is_named_exists() -> None:
    for name in re.findall(r"`(?:self\.)?(\w+)\(", PAGE):
        assert any(hasattr(place, name) for place in (Game, Previews, adversarial, callbacks, builtins)), name
    assert all(f"`{hook}`" in PAGE for hook in UNCALLED_HOOKS)
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert targets and all((FILE.parent / target).exists() for target in targets)
