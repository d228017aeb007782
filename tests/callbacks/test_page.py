"""The page while a run trains, and what it says of how the run stands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer

from lit_gans.adversarial import Game
from lit_gans.callbacks import page
from lit_gans.callbacks.image_grid import ImageGrid
from lit_gans.callbacks.page import Page
from lit_gans.fit import main
from lit_gans.runs.folder import LOCK
from lit_gans.runs.report import write_page
from lit_gans.runs.state import record_end, state_of
from tests.test_compare_page import Reader

from .common import fit, tiny_gan


class Looks(Callback):
    """Reads the page after every batch."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Game, *_: object) -> None:
        self.seen.append((Path(trainer.default_root_dir) / "index.html").read_text())


def grids(page: str) -> int:
    return page.count('alt="samples')


def test_it_is_there_from_the_first_grid_on_and_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "COSTS", 0)
    looks = Looks()
    fit(tmp_path, tiny_gan(total_kimg=0.064), ImageGrid(0.032, columns=2, rows=1, walks=1), Page(), looks)
    assert [grids(each) for each in looks.seen] == [1, 2, 2, 3]
    last = Reader(looks.seen[-1])
    assert "Training when this page was written" in last.text and "from one seed to another" in last.text
    assert f"lit-gans sample {tmp_path} --seeds 0-63" in last.text
    assert ("http-equiv", "refresh") in last.attributes and "script" not in last.tags
    assert f"page: {tmp_path / 'index.html'} shows how it goes" in capsys.readouterr().err


def test_a_page_that_costs_much_is_left_to_the_next_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "COSTS", 1e9)
    looks = Looks()
    fit(tmp_path, tiny_gan(total_kimg=0.064), ImageGrid(0.016, columns=2, rows=1), Page(), looks)
    assert {grids(each) for each in looks.seen} == {1}
    monkeypatch.setattr(page, "HEARTBEAT_S", 0)
    fit(tmp_path / "b", tiny_gan(total_kimg=0.032), ImageGrid(0.016, columns=2, rows=1), Page(), looks)
    assert [grids(each) for each in looks.seen[-2:]] == [2, 3]


def test_a_run_says_how_it_ended_and_how_to_go_on(tmp_path: Path) -> None:
    argv = ["--config=cgan/digits", "--model.init_args.total_kimg=0.064", "--evaluate=off", "--logger=none",
            "--image_grid.columns=2", "--trainer.accelerator=cpu", "--run_folder", f"{tmp_path / 'run'}"]  # fmt: skip
    assert main(argv) == 0
    text = Reader((tmp_path / "run" / "index.html").read_text()).text
    assert "finished" in text and "0.064 of 0.064 kimg" in text and "resume" not in text
    assert json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]["ended"]["word"] == "finished"
    record_end(tmp_path / "run", "failed", "the disk is <full>")
    text = Reader(write_page(tmp_path / "run").read_text()).text
    assert "Ended by an error. the disk is <full>" in text
    assert f"lit-gans fit {' '.join(argv[:-2])} --run_folder={tmp_path / 'run'} --ckpt_path=last" in text


HOLDS = "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); "
HOLDS += "print('held', flush=True); time.sleep(60)"


def test_a_killed_run_is_not_said_to_train(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"starts": [{"command": ["lit-gans", "fit"], "ended": null}]}')
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / LOCK)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert state_of(tmp_path).word == "training"
    holder.kill()
    holder.wait()
    assert state_of(tmp_path).word == "killed"
    assert "as a killed process does" in write_page(tmp_path).read_text()


@pytest.mark.parametrize(
    "text", ['{"starts": [{}]}', "", '{"starts": []}', '{"starts": [{"ended": 3}]}', '{"starts": [{"ended": {}}]}']
)
def test_a_run_whose_record_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert state_of(tmp_path).word == "unknown"


@pytest.mark.parametrize("ended", [{"word": "gone"}, {"word": ["failed"]}, {"at": "noon"}, {"at": 1e300}, "stopped"])
def test_what_a_stranger_writes_of_the_end_is_not_believed(ended: dict[str, object] | str, tmp_path: Path) -> None:
    told = {"word": "stopped", "why": "", "at": 1.0}
    ended = told | ended if isinstance(ended, dict) else ended
    for each, word in ((told, "stopped"), (ended, "unknown")):
        (tmp_path / "run.json").write_text(json.dumps({"starts": [{"command": [], "ended": each}]}))
        assert state_of(tmp_path).word == word
        assert write_page(tmp_path).is_file()
