"""The fit verb: configs, run folders, resume, stops, and one clear message for everything that a user can get wrong."""

import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image

from lit_gans import fit as verb
from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.callbacks import checkpoint as checkpoint_module
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.folder import new_run_folder
from lit_gans.runs.load import load_run
from lit_gans.training.cli import parse, set_arithmetic
from lit_gans.training.place import TOLD, Place, as_process_zero_says
from tests.cases import largest_difference
from tests.distributed.launch import ROOT, free_port

CONFIG = {
    "model": {
        "class_path": "lit_gans.papers.CGAN",
        "init_args": {"resolution": 16, "channels": 1, "width": 4, "total_kimg": 0.16},
    },
    "data": {"class_path": "lit_gans.data.Digits", "init_args": {"resolution": 16, "batch_size": 16}},
    "image_grid": {"every_kimg": 0.08, "columns": 3},
    "checkpoint": {"every_kimg": 0.08},
    "report": {"every_kimg": 0.016},
    "health": {"diversity_every_kimg": 0},
    "logger": "none",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def run(config: Path, *arguments: str) -> int:
    return verb.main(["--config", str(config), *arguments])


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[tuple[float, float, float]]:
    return [(x["kimg"], x["loss_d"], x["loss_g"]) for x in lines(folder) if "loss_d" in x]


@pytest.mark.parametrize(("precision", "tf32"), [("highest", False), ("high", True)])
def test_float32_precision_is_also_of_convolutions(precision: str, tf32: bool, config: Path, tmp_path: Path) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    arguments = [f"--float32_matmul_precision={precision}", "--model.init_args.total_kimg=0.016"]
    try:
        torch.backends.cudnn.allow_tf32 = not tf32
        assert run(config, f"--run_folder={tmp_path / 'run'}", *arguments) == 0
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (precision, tf32)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(
    ("arguments", "searches"),
    [
        ([], True),
        (["--fade_in.start_px=4"], False),
        (["--trainer.benchmark=false"], False),
        (["--fade_in.start_px=4", "--trainer.benchmark=true"], True),
        (["--trainer.deterministic=true"], False),
    ],
)
def test_convolutions_are_searched_where_sizes_stay(arguments: list[str], searches: bool, config: Path) -> None:
    before = torch.backends.cudnn.benchmark
    try:
        set_arithmetic(parse(["--config", str(config), *arguments]))
        assert torch.backends.cudnn.benchmark is searches
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = before


def test_a_run_leaves_everything_in_its_folder(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "run"
    assert run(config, f"--run_folder={folder}", "--seed_everything=7") == 0
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {
        "config.yaml",
        "run.json",
        "metrics.jsonl",
        "index.html",
        "samples/latest.png",
        "samples/reals.png",
    } <= names
    assert [p.name for p in checkpoints(folder)] == ["kimg00000.080.ckpt", "kimg00000.160.ckpt"]
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    assert resolved["seed_everything"] == 7 and resolved["ema"]["half_life_kimg"] == 10
    assert read_checkpoint(checkpoints(folder)[-1])["hyper_parameters"]["seed"] == 7
    start = json.loads((folder / "run.json").read_text())["starts"][0]
    assert start["versions"]["torch"] == torch.__version__.split("+")[0] or start["versions"]["torch"]
    assert [line["kimg"] for line in lines(folder) if "loss_d" in line][-1] == 0.16
    assert Image.open(folder / "samples" / "latest.png").size[0] > 3 * 16
    page = (folder / "index.html").read_text()
    assert "<svg" in page and "data:image/png" in page
    assert 'src="http' not in page and 'href="http' not in page and "url(http" not in page
    printed = capsys.readouterr().out
    assert str(folder / "samples/latest.png") in printed and str(folder / "metrics.jsonl") in printed
    assert str(folder / "index.html") in printed


def test_ckpt_path_last_continues_the_same_run(config: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(config, f"--run_folder={whole}")
    run(config, f"--run_folder={halves}", "--model.init_args.total_kimg=0.08")
    run(config, f"--run_folder={halves}", "--ckpt_path=last")
    assert not (tmp_path / "halves-2").exists()
    a, b = (read_checkpoint(checkpoints(f)[-1]) for f in (whole, halves))
    assert largest_difference(a["state_dict"], b["state_dict"]) == 0.0
    assert len(json.loads((halves / "run.json").read_text())["starts"]) == 2
    assert losses(whole) == losses(halves)


def test_auto_starts_and_goes_on_in_one_folder(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command three times; the folder in the user's home, with curves as CSV; the second finds run.json empty, the
    third nothing left to train."""
    whole, home = tmp_path / "whole", tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    run(config, f"--run_folder={whole}", "--logger=csv")
    command = ["--run_folder=~/runs/x", "--ckpt_path=auto", "--logger=csv"]
    assert run(config, *command, "--model.init_args.total_kimg=0.08") == 0
    folder = home / "runs" / "x"
    (folder / "run.json").write_text("")
    with pytest.warns(UserWarning, match="run.json cannot be read"):
        assert run(config, *command) == 0
    assert run(config, *command) == 0
    assert sorted(p.name for p in folder.parent.iterdir()) == ["x"] and not (tmp_path / "~").exists()
    a, b = (read_checkpoint(checkpoints(f)[-1]) for f in (whole, folder))
    assert largest_difference(a["state_dict"], b["state_dict"]) == 0.0
    assert losses(whole) == losses(folder)
    tables = [(f / "csv" / "metrics.csv").read_text().splitlines() for f in (whole, folder)]
    column = tables[0][0].split(",").index("loss_d")
    assert tables[0][0] == tables[1][0]
    told = [[row.split(",")[column] for row in table] for table in tables]
    assert list(filter(None, told[0])) == list(filter(None, told[1])) and len(told[0]) > 10
    assert len(json.loads((folder / "run.json").read_text())["starts"]) == 1


def test_a_start_takes_its_folder_before_its_first_checkpoint(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("of another\n")
    assert run(config, f"--run_folder={folder}", "--model.init_args.total_kimg=0.016") == 0
    assert f"{folder} is there already: this start writes to {folder}-2" in capsys.readouterr().err
    assert [p.name for p in folder.iterdir()] == ["metrics.jsonl"]
    resolved = yaml.safe_load((tmp_path / "run-2" / "config.yaml").read_text())
    assert resolved["trainer"]["default_root_dir"] == str(tmp_path / "run-2")
    assert run(config, f"--run_folder={folder}", "--ckpt_path=last") == 1  # it means run, never run-2
    assert "nothing to resume" in capsys.readouterr().err


def test_a_start_that_fails_before_its_first_batch_leaves_no_folder(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert run(config, f"--run_folder={folder}", "--data.init_args.resolution=32") == 1
    assert not folder.exists()


@pytest.mark.slow
def test_going_on_from_an_older_checkpoint(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, short = tmp_path / "run", "--model.init_args.total_kimg=0.112"
    run(config, f"--run_folder={folder}")
    older = folder / "checkpoints" / "kimg00000.080.ckpt"
    assert run(config, f"--ckpt_path={older}", short) == 0
    assert [p.name for p in checkpoints(folder)] == ["kimg00000.080.ckpt", "kimg00000.112.ckpt"]
    apart = folder / "set_apart" / "after-kimg00000.080"
    assert f"kept in {apart}" in capsys.readouterr().err
    assert [p.name for p in checkpoints(apart)] == ["kimg00000.160.ckpt"]
    assert lines(apart)[0]["kimg"] == 0.096 and lines(folder)[-1]["kimg"] == 0.112


def test_a_strangers_link_is_not_followed(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "run"
    run(config, f"--run_folder={folder}", "--model.init_args.total_kimg=0.016")
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").symlink_to(tmp_path / "outside")
    assert run(config, f"--run_folder={folder}", "--ckpt_path=last") == 1
    assert "metrics.jsonl leads by a link" in capsys.readouterr().err and not (tmp_path / "outside").exists()


def test_the_others_are_told_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By their environment where Lightning starts them, else by a message; an error too."""

    def trainer(rank: int, told: dict | None = None) -> SimpleNamespace:
        strategy = SimpleNamespace(launcher=None, setup_environment=lambda: None, broadcast=lambda x: told or x)
        return SimpleNamespace(is_global_zero=rank == 0, world_size=2, num_nodes=1, strategy=strategy)

    place = Place(tmp_path, tmp_path / "x.ckpt")
    assert as_process_zero_says(trainer(0), lambda: place) == place
    assert as_process_zero_says(trainer(1), pytest.fail) == place  # from the environment
    monkeypatch.delenv(TOLD)
    assert as_process_zero_says(trainer(1, {"run": "x", "checkpoint": None}), pytest.fail) == Place(Path("x"))
    monkeypatch.delenv(TOLD)
    with pytest.raises(ValueError, match="nothing there"):
        as_process_zero_says(trainer(1, {"error": "nothing there"}), pytest.fail)
    monkeypatch.delenv(TOLD)


def test_a_second_run_does_not_touch_the_first(config: Path, tmp_path: Path) -> None:
    for name in ("run", "run-2"):
        assert new_run_folder(tmp_path / "run") == tmp_path / name
        run(config, f"--run_folder={tmp_path / 'run'}", "--model.init_args.total_kimg=0.016")
    assert len(checkpoints(tmp_path / "run")) == len(checkpoints(tmp_path / "run-2")) == 1


@pytest.mark.parametrize("kind", ["csv", "tensorboard", "wandb"])
def test_loggers(kind: str, config: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = tmp_path / "run"
    assert run(config, f"--run_folder={folder}", f"--logger={kind}", "--model.init_args.total_kimg=0.032") == 0
    if kind == "csv":
        assert "loss_d" in (folder / "csv" / "metrics.csv").read_text().splitlines()[0]
    if kind == "tensorboard":
        assert list((folder / "tensorboard").glob("events*"))
    if kind == "wandb":
        assert "offline" in capfd.readouterr().err
        assert len(list((folder / "wandb").glob("offline-run-*/*.wandb"))) == 1


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of an offline run's file: LevelDB's log format behind a header of 7 bytes."""
    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # too little for a header: the rest of the block is empty
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.slow
def test_wandb_file_has_kimg_curves_images_and_config(config: Path, tmp_path: Path) -> None:
    """Read back from the offline run's own file."""
    from wandb.proto import wandb_internal_pb2

    folder = tmp_path / "run"
    short = ["--logger=wandb", "--model.init_args.total_kimg=0.032", "--throughput.every_kimg=0.016"]
    short += ["--wandb.project=p", "--wandb.group=seeds", "--wandb.tags=[a, b]", "--wandb.name=first"]
    process = start("--config", str(config), f"--run_folder={folder}", *short)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output[-3000:]
    history, configs, metrics, places = [], set(), {}, []
    for data in wandb_records(next((folder / "wandb").glob("offline-run-*/*.wandb"))):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        history += [{".".join(i.nested_key) or i.key: i.value_json for i in record.history.item}]
        if record.HasField("run"):
            places.append((record.run.project, record.run.run_group, record.run.display_name, list(record.run.tags)))
        configs |= {i.key for i in record.config.update} | {i.key for i in record.run.config.update}
        if record.metric.glob_name or record.metric.name:
            metrics[record.metric.glob_name or record.metric.name] = record.metric.step_metric
    curves = [float(h["kimg"]) for h in history if "loss/loss_d" in h]
    assert curves == [0.016, 0.032] and any("speed/img_per_s" in h for h in history)
    assert places[0] == ("p", "seeds", "first", ["a", "b"])
    captions = [h[name] for h in history for name in h if name.startswith("fakes") and "kimg" in h[name]]
    assert "at 0.032 kimg" in captions[-1]
    assert metrics["*"] == "kimg"
    assert any("image-file" in h.get("fakes", "") + h.get("fakes._type", "") for h in history)
    assert any(key.startswith("model") for key in configs)


def test_every_shipped_config_parses_and_its_header_tells_a_claim() -> None:
    found = shipped_configs()
    assert {
        "cgan/digits",
        "gan/mnist",
        "dcgan/mnist",
        "dcgan/celeba64",
        "cgan/mnist",
        "wgan_gp/mnist",
        "wgan_gp/cifar10",
    } <= set(found)
    for name, path in found.items():
        header = [line for line in path.read_text().splitlines() if line.startswith("#")]
        text = "\n".join(header)
        assert f"--config experiments/{name}.yaml" in text and "measured" in text, name


@pytest.mark.parametrize(
    "name",
    [
        "gan/mnist",
        "dcgan/mnist",
        "cgan/mnist",
        "wgan_gp/mnist",
        "cgan/digits",
        "wgan_gp/cifar10",
        "dcgan/celeba64",
        "fastgan/folder64",
    ],  # fmt: skip
)
def test_every_shipped_config_trains_two_batches(name: str, tmp_path: Path) -> None:
    """On stand-in data of the same shape, with narrower networks."""
    argv = [
        "--config",
        f"experiments/{name}.yaml",
        "--logger=none",
        f"--run_folder={tmp_path / 'run'}",
        "--evaluate.every_kimg=0",
    ]
    plan = yaml.safe_load(shipped_configs()[name].read_text())
    model, data = plan["model"]["init_args"], plan["data"]["init_args"]
    argv += ["--data=lit_gans.data.Shapes" if model["channels"] == 3 else "--data=lit_gans.data.Digits"]
    argv += [f"--data.init_args.resolution={data['resolution']}", "--data.init_args.batch_size=4"]
    argv += ["--model.init_args.total_kimg=0.008", "--image_grid.columns=2", "--image_grid.rows=2"]
    argv += ["--model.init_args.width=4"] if "width" in model else ["--model.init_args.hidden=8"]
    assert verb.main(argv) == 0
    assert load_run(tmp_path / "run").images_seen == 8


# ---- bad input: one message, before training -------------------------------------------------------------------------


def refuse(config: Path, capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """The message that fit leaves with; training has not begun."""
    folder = config.parent / "refused"
    try:
        status = run(config, f"--run_folder={folder}", *arguments)
    except SystemExit as exit:
        status = exit.code
    assert status in (1, 2)
    assert not (folder / "metrics.jsonl").exists() and not checkpoints(folder)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.init_args.widht=8"], "model.init_args.width"),
        (["--trainer.max_epoks=3"], "trainer.max_epochs"),
        (["--ema.half_live_kimg=3"], "ema.half_life_kimg"),
        (["--config=experiments/cgan/digit.yaml"], "cgan/digits"),
        (["--model=CGN"], "nearest known classes: CGAN"),
        (["--model=lit_gans.papers.styleGAN"], "nearest known classes: StyleGANT, StyleGAN3, StyleGAN2"),
        (["--data=lit_gans.data.Digit"], "nearest known classes: Digits"),
        (["--model.init_args.resolution=48"], "lit-gans fit: resolution 48 is not a power of two"),
        (["--data.init_args.resolution=32"], "the model has resolution 16, the data have resolution 32"),
        (["--model.init_args.micro_batches=5"], "batch_size 16 (global) is not divisible by"),
        (["--data.init_args.batch_size=0"], "batch_size"),
        (["--data=lit_gans.data.Images", "--data.init_args.path=/no/such/folder"], "/no/such/folder"),
        (["--ckpt_path=last"], "nothing to resume"),
        (["--ckpt_path=/no/such.ckpt"], "/no/such.ckpt does not exist"),
        (["--trainer.precision=bf16-mixed"], "times slower than fp32"),
        (["--evaluate.every_kimg=1", "--evaluate.extractor=incepton"], "inception"),
        (["--checkpoint.keep_last=0"], "keep_last 0"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, config: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIT_GANS_ALLOW_SLOW_BF16", raising=False)
    monkeypatch.setattr("lit_gans.adversarial.checks.cpu_has_fast_bf16", lambda: False)
    assert message in refuse(config, capsys, *arguments)


def test_unknown_key_in_the_file_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "typo.yaml"
    model = {**CONFIG["model"], "init_args": {**CONFIG["model"]["init_args"], "r1_gama": 1.0}}
    path.write_text(yaml.safe_dump({**CONFIG, "model": model}))
    assert "model.init_args.r1_gamma" in refuse(path, capsys)
    path.write_text(yaml.safe_dump({**CONFIG, "checkpiont": {"every_kimg": 1}}))
    assert "checkpoint" in refuse(path, capsys).replace("checkpiont", "")


def images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), len(name) * 9).save(folder / name)
    return folder


def test_bad_folders(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def data(path: Path) -> list[str]:
        return ["--data=lit_gans.data.Images", f"--data.init_args.path={path}", "--data.init_args.resolution=16",
                "--data.init_args.batch_size=4", "--data.init_args.channels=1"]  # fmt: skip

    (tmp_path / "empty").mkdir()
    assert "empty" in refuse(config, capsys, *data(tmp_path / "empty"))
    flat = images(tmp_path / "flat", "a.png", "b.png")
    assert "no labels" in refuse(config, capsys, *data(flat))
    classes = images(tmp_path / "classes", *(f"{c}/{i}.png" for c in range(10) for i in range(2)))
    (classes / "3" / "broken.png").write_bytes(b"no picture")
    assert "broken.png" in refuse(config, capsys, *data(classes))


def test_checkpoint_of_another_architecture(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(config, f"--run_folder={tmp_path / 'run'}", "--model.init_args.total_kimg=0.016")
    left = checkpoints(tmp_path / "run")[-1]
    capsys.readouterr()
    assert "differ from the config's" in refuse(config, capsys, f"--ckpt_path={left}", "--model.init_args.width=8")
    other = ["--model=lit_gans.papers.DCGAN", "--model.init_args.resolution=16", "--model.init_args.channels=1"]
    assert "the checkpoint holds a lit_gans.papers.cgan.CGAN" in refuse(config, capsys, f"--ckpt_path={left}", *other)


def test_hostile_checkpoint_is_not_run(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"lit_gans": {}, "state_dict": Hostile()}, tmp_path / "hostile.ckpt")
    message = refuse(config, capsys, f"--ckpt_path={tmp_path / 'hostile.ckpt'}")
    assert "not a checkpoint that can be read safely" in message and not (tmp_path / "owned").exists()
    with pytest.raises(ValueError, match="read safely"):
        load_run(tmp_path / "hostile.ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_path": "subprocess.Popen"}, "not one of lit_gans.papers"),
        ({"class_path": "lit_gans.papers.cgan.math"}, "has no class"),
    ],
)
def test_checkpoint_that_names_foreign_code(change: dict, message: str, config: Path, tmp_path: Path) -> None:
    run(config, f"--run_folder={tmp_path / 'run'}", "--model.init_args.total_kimg=0.016")
    contents = read_checkpoint(checkpoints(tmp_path / "run")[-1])
    contents["lit_gans"] |= change
    torch.save(contents, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=message):
        load_run(tmp_path / "foreign.ckpt")
    contents["lit_gans"]["class_path"] = "lit_gans.papers.cgan.CGAN"
    contents["hyper_parameters"]["loss"] = "os.system"
    torch.save(contents, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="names the loss 'os.system'"):
        load_run(tmp_path / "foreign.ckpt")


def test_full_disk_before_training(
    config: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(checkpoint_module.shutil, "disk_usage", lambda path: usage)
    assert "free space, lower checkpoint.keep_last" in refuse(config, capsys)


def test_full_disk_in_training_keeps_the_previous_checkpoint(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, calls = checkpoint_module.flush_to_disk, []

    def full(path: Path) -> None:
        calls.append(path)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(checkpoint_module, "flush_to_disk", full)
    with pytest.warns(UserWarning, match=r"was not written \(.*No space left.*kimg00000.048.ckpt is intact"):
        status = run(config, f"--run_folder={tmp_path / 'run'}", "--checkpoint.every_kimg=0.048")
    assert status == 1 and "resume with --ckpt_path=last" in capsys.readouterr().err
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["kimg00000.048.ckpt"]
    monkeypatch.undo()
    assert run(config, f"--run_folder={tmp_path / 'run'}", "--ckpt_path=last") == 0


def test_nan_in_training(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    status = run(
        config, f"--run_folder={tmp_path / 'run'}", "--model.init_args.lr=1e30", "--checkpoint.every_kimg=0.016"
    )
    message = capsys.readouterr().err
    assert status == 1 and "training has diverged at" in message and "lower learning rate" in message


# ---- stops -----------------------------------------------------------------------------------------------------------


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "lit_gans.fit", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(folder: Path, kimg: float, process: subprocess.Popen, *, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if (folder / "metrics.jsonl").is_file() and any(x["kimg"] >= kimg for x in lines(folder)):
            return
        assert process.poll() is None, process.stdout.read()[-3000:]
        time.sleep(0.1)
    raise AssertionError(f"{kimg} kimg not reached")


@pytest.mark.parametrize(
    ("number", "devices"),
    [
        (signal.SIGTERM, 1),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
    ],
)
def test_stop_signals_save_and_the_run_continues_exactly(
    number: signal.Signals, devices: int, config: Path, tmp_path: Path
) -> None:
    folder, long = tmp_path / "stopped", ["--model.init_args.total_kimg=1000", f"--trainer.devices={devices}"]
    long += ["--trainer.accelerator=cpu", "--checkpoint.every_kimg=1000", "--image_grid.every_kimg=0"]
    process = start("--config", str(config), f"--run_folder={folder}", *long)
    wait_for(folder, 0.064, process)
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]
    assert "continue with --ckpt_path=last" in output, output[-3000:]
    left = checkpoints(folder)[-1]
    assert "interrupted" not in left.name
    kimg = read_checkpoint(left)["lit_gans"]["images_seen"] / 1000
    run(config, f"--run_folder={tmp_path / 'whole'}", *long[2:], f"--model.init_args.total_kimg={kimg}")
    whole, stopped = (read_checkpoint(checkpoints(f)[-1])["state_dict"] for f in (tmp_path / "whole", folder))
    assert largest_difference(whole, stopped) <= (0.0 if devices == 1 else 1e-5)


def launch_nodes(config: Path, folder: Path) -> tuple[bool, str]:
    """Whether two groups of one process each, as on two machines, trained; what they said. One that fails ends both."""
    port = free_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    nodes, logs = [], [folder.with_name(f"{folder.name}-{rank}.log") for rank in range(2)]
    for rank, log in enumerate(logs):
        launch = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}"]
        launch += ["--master-addr=127.0.0.1", f"--master-port={port}", "-m", "lit_gans.fit", "--config", str(config)]
        launch += [
            f"--run_folder={folder}",
            "--trainer.num_nodes=2",
            "--trainer.devices=1",
            "--trainer.accelerator=cpu",
        ]
        with log.open("w") as file:
            nodes.append(
                subprocess.Popen([sys.executable, *launch], cwd=ROOT, env=environment, stdout=file, stderr=file)
            )
    end = time.monotonic() + 200
    while time.monotonic() < end and any(n.poll() is None for n in nodes) and not any(n.poll() for n in nodes):
        time.sleep(0.2)
    for node in nodes:
        node.kill()
    return all(node.wait() == 0 for node in nodes), "\n".join(log.read_text()[-3000:] for log in logs)


@pytest.mark.slow
def test_two_nodes_by_torchrun(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nodes"
    trained, said = launch_nodes(config, folder)
    if not trained:  # the port was free when it was looked for, and is not reserved: once more on another
        folder = tmp_path / "nodes-again"
        trained, said = launch_nodes(config, folder)
    assert trained, said
    run(config, f"--run_folder={tmp_path / 'alone'}")
    both, alone = (read_checkpoint(checkpoints(f)[-1]) for f in (folder, tmp_path / "alone"))
    assert both["lit_gans"] == alone["lit_gans"]
    assert largest_difference(both["state_dict"], alone["state_dict"]) < 1e-5
