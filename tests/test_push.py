"""The verb that shares a model: the folder, its card, and what is asked of the hub, without a network."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from lit_gans.papers import DCGAN
from lit_gans.papers.stylegan2 import Generator
from lit_gans.push import main
from lit_gans.runs.pretrained import from_pretrained, save_pretrained
from lit_gans.runs.sharing import _use
from tests.test_compare import PROTOCOL


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_pretrained(DCGAN(resolution=16, width=4, channels=1), tmp_path / "saved")


def test_a_folder_to_look_at(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    target = tmp_path / "shared"
    assert main([str(saved), "me/digits", "--license", "mit", "--data", "Drawings of mine.", "--to", str(target)]) == 0
    assert "look at its README.md" in capsys.readouterr().out
    assert sorted(p.name for p in target.iterdir()) == ["README.md", "config.json", "model.safetensors", "samples.png"]
    card = (target / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {
        "license": "mit", "library_name": "lit-gans", "pipeline_tag": "unconditional-image-generation",
        "tags": ["gan", "image-generation", "dcgan"],
    }  # fmt: skip
    for wanted in ("Drawings of mine.", "None measured.", 'from_pretrained("me/digits")', "![Samples](samples.png)"):
        assert wanted in card
    assert "lit-gans sample digits --seeds 0-63 --output out" in card
    assert Image.open(target / "samples.png").size == (256, 256)
    state = from_pretrained(saved).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in from_pretrained(target).state_dict().items())
    assert main([str(saved), "me/digits", "--license", "mit", "--to", str(target)]) == 2
    assert "holds something: give a new folder" in capsys.readouterr().err


def test_a_generator_alone_is_shared_as_it_is(tmp_path: Path) -> None:
    arguments = {"resolution": 8, "z_dim": 4, "w_dim": 4, "num_layers": 1, "channel_max": 4}
    save_pretrained(Generator(**arguments), tmp_path / "g", arguments=arguments)
    assert main([str(tmp_path / "g"), "me/g", "--license", "mit", "--to", str(tmp_path / "shared")]) == 0
    assert type(from_pretrained(tmp_path / "shared")) is Generator
    assert (tmp_path / "shared" / "samples.png").is_file()


def test_a_runs_card_has_its_numbers_with_their_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_gans.runs import sharing

    gan = DCGAN(resolution=16, width=4, channels=1)
    gan.images_seen = 2000
    monkeypatch.setattr(sharing, "load_run", lambda *_, **__: gan)
    run = tmp_path / "run"
    run.mkdir()
    stamp = {**PROTOCOL, "images_seen": 2000}
    lines = [{"kimg": k, "time_s": k, "fid": 10.0 - k, "protocol": stamp} for k in (1.0, 2.0)]
    lines += [{"kimg": 1.0, "time_s": 3.0, "fid": 5.0, "protocol": {**stamp, "n_fake": 50_000}}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {"data": {"class_path": "lit_gans.data.Folder", "init_args": {"path": "/home/me/secret/cats"}}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    folder = sharing.write_shared(run, tmp_path / "out", repo="me/cats", license="other", data="", trust=None)
    card = (folder / "README.md").read_text()
    assert "| fid | 8 | 2 | 2 |" in card and "| fid | 5 | 1 | 1 |" in card and "secret" not in card
    assert "Folder cats." in card and "2. extractor digits; n_fake 1000; n_real 1797; split train; seed 0" in card
    (model,) = yaml.safe_load(card.split("---")[1])["model-index"]
    (result,) = model["results"]
    assert model["name"] == "cats" and result["dataset"] == {"name": "Folder cats", "type": "folder-cats"}
    assert [metric["value"] for metric in result["metrics"]] == [8.0]  # the other is of other weights


def test_translators_are_used_by_their_own_verb() -> None:
    lines = _use({"class_path": "mine.Model"}, "me/maps", "image-to-image")
    assert "lit-gans translate maps photos --output out --trust mine" in lines


def test_what_is_asked_of_the_hub(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked: list[tuple] = []
    fake = types.ModuleType("huggingface_hub")
    fake.create_repo = lambda repo_id, *, private, exist_ok: asked.append((repo_id, private, exist_ok))

    def upload_folder(*, repo_id: str, folder_path: str, commit_message: str) -> None:
        shutil.copytree(folder_path, tmp_path / "hub")
        asked.append((repo_id, commit_message))

    fake.upload_folder = upload_folder
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert main([str(saved), "me/digits", "--license", "cc-by-4.0"]) == 0
    assert capsys.readouterr().out == "https://huggingface.co/me/digits\n"
    assert asked == [("me/digits", True, True), ("me/digits", "Upload a DCGAN of lit_gans")]
    assert 'license: "cc-by-4.0"' in (tmp_path / "hub" / "README.md").read_text()

    def refused(*_: object, **__: object) -> None:
        raise OSError("no token\nand more")

    fake.create_repo = refused
    assert main([str(saved), "me/digits", "--license", "mit", "--public"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "could not be written to (no token): it needs the network and a token" in told


def test_what_must_be_told(saved: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([str(saved), "me/digits"])
    assert "--license" in capsys.readouterr().err
    assert main([str(saved), "digits", "--license", "mit"]) == 2
    assert "'digits' is not of the form owner/name" in capsys.readouterr().err
    assert main([str(saved), "me/digits", "--license", "My Own"]) == 2
    assert "'My Own' is no name of the hub's" in capsys.readouterr().err


@pytest.mark.slow
def test_the_true_library_without_a_network(saved: Path) -> None:
    pytest.importorskip("huggingface_hub")
    command = [sys.executable, "-m", "lit_gans.push", str(saved), "me/digits", "--license", "mit"]
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_none"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "me/digits could not be written to" in done.stderr
    assert "Traceback" not in done.stderr
