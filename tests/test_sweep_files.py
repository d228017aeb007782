"""The sweep files that are shipped: each for the config that it names, by options and numbers that `fit` has."""

import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_gans import sweep as verb
from lit_gans.base.command import parsed as command_line
from lit_gans.callbacks import Evaluate, EvaluateTranslation
from lit_gans.fit import main as fit
from lit_gans.metrics.catalog import metric_of
from lit_gans.metrics.measures import published_name
from lit_gans.runs.configs import find_config, find_sweep, shipped_configs, shipped_sweeps
from lit_gans.runs.report import read_metrics
from lit_gans.training import cli
from lit_gans.training.sweep_file import SweepFile, options_of, read_sweep

ROOT = Path(__file__).parents[1]
FAMILIES = sorted(shipped_sweeps())
OF_TRAINING = {"joint_embedding": "top1", "vqgan_tokenizer": "loss_l1"}  # nothing is sampled there to be evaluated


def ends(sweep: SweepFile) -> list[dict[str, Any]]:
    """What is drawn at one end of every range, and at the other."""
    low = {name: told.get("min", told.get("values", [None])[0]) for name, told in sweep.parameters.items()}
    return [low, {name: told.get("max", told.get("values", [None])[-1]) for name, told in sweep.parameters.items()}]


@pytest.fixture(scope="module")
def parser() -> Iterator[cli.Parser]:
    """What `fit` parses with."""
    path = list(sys.path)
    yield cli.parse(["--config", str(ROOT / "experiments/cgan/digits.yaml"), "--model.init_args.width=4"]).parser
    sys.path[:] = path


def parsed(parser: cli.Parser, sweep: SweepFile, drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    argv = cli._with_shipped_configs([*sweep.command, *(f"--{name}={value}" for name, value in drawn.items())])
    monkeypatch.syspath_prepend(str(Path(argv[argv.index("--config") + 1]).parent))
    return parser.parse_args(argv)


def test_every_family_has_one_and_no_config_is_one() -> None:
    assert set(FAMILIES) == {name.partition("/")[0] for name in shipped_configs()}
    assert not [name for name in shipped_configs() if "sweep" in name]
    assert find_sweep("cgan") == find_sweep("cgan/sweep.yaml") == ROOT / "experiments" / "cgan" / "sweep.yaml"
    with pytest.raises(ValueError, match="config cgan/sweep does not exist; shipped experiments: "):
        find_config("cgan/sweep")
    with pytest.raises(ValueError, match="sweep cgn does not exist; shipped sweeps: cgan"):
        find_sweep("cgn")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_it_draws_fit_accepts_and_what_it_is_ranked_by_fit_measures(
    family: str, parser: cli.Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    sweep, said = read_sweep(family), yaml.safe_load(find_sweep(family).read_text())
    assert said["command"][:3] == ["lit-gans", "fit", "--config"] and said["command"][3].startswith("experiments/")
    assert any(".lr" in name for name in sweep.parameters)
    drawn, config_file = ends(sweep)[0], find_config(sweep.command[1])
    config = parsed(parser, sweep, drawn, monkeypatch)
    assert {name: config[name] for name in drawn} == drawn
    assert config["model"]["class_path"] == yaml.safe_load(config_file.read_text())["model"]["class_path"]
    if family in OF_TRAINING:
        assert sweep.metric == OF_TRAINING[family]
    else:
        assert sweep.metric in measured(config)


def test_what_fit_does_not_accept_is_seen(parser: cli.Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for drawn in ({"model.init_args.lrr": 0.1}, {"model.init_args.lr": "high"}):
        with pytest.raises(SystemExit):
            parsed(parser, read_sweep("cgan"), drawn, monkeypatch)


def measured(config: Any) -> list[str]:
    """The numbers of an evaluation that is switched on: Fréchet distances by the extractor, others by their metric."""
    found = []
    for name, callback in (("evaluate", Evaluate), ("evaluate_translation", EvaluateTranslation)):
        settings = callback(**config[name].as_dict()).settings
        if config[name]["every_kimg"]:
            found += [*(settings.metrics or ())]
            found += [published_name("frechet", settings.extractor.rpartition(":")[2])] * ("frechet" in found)
    return found


def test_a_fall_of_the_metric_is_minimised_and_a_rise_maximised() -> None:
    for family in set(FAMILIES) - set(OF_TRAINING):
        sweep = read_sweep(family)
        better = metric_of(sweep.metric).numbers
        stem = max((stem for stem in better if sweep.metric.startswith(stem)), key=len)
        assert sweep.goal == {"lower": "minimize", "higher": "maximize"}[better[stem]], family


# ---- what cannot be run ----------------------------------------------------------------------------------------------


GOOD = {
    "command": ["lit-gans", "fit", "--config", "cgan/digits", "${args}"],
    "metric": {"name": "metrics/fid", "goal": "minimize"},
    "parameters": {"model.init_args.lr": {"min": 0.1, "max": 1}},
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"command": None}, "command must be a list such as"),
        ({"command": ["lit-gans", "fit"]}, "command must be a list such as"),
        ({"metric": {"name": "fid"}}, "metric 'fid': what `fit` measures as fid is called metrics/fid at W&B"),
        ({"metric": {"name": "metrics/fid", "goal": "lowest"}}, "goal is 'lowest'; here it is one of minimize, max"),
        ({"method": "bays"}, "method is 'bays'; here it is one of bayes, random, grid"),
        ({"method": "grid"}, "parameter model.init_args.lr is uniform; a grid needs value or values"),
        ({"parameters": {"a": 3}}, "parameter a is 3; give it value, values, or min and max"),
        ({"parameters": {"a": {"distribution": "beta"}}}, "parameter a: distribution is 'beta'; here it is one of"),
        (
            {"parameters": {"a": {"min": 1, "max": 2, "q": 1}}},
            "parameter a has max, min, q; int_uniform takes max, min",
        ),
        ({"parameters": {"a": {"min": "1e-4", "max": 2}}}, "min '1e-4' and max 2 are no range"),
        ({"parameters": {"a": {"min": 3, "max": 2}}}, "min 3 and max 2 are no range"),
        ({"parameters": {"a": {"distribution": "log_uniform_values", "min": 0, "max": 2}}}, "needs it above 0"),
        ({"parameters": {"a": {"values": []}}}, r"values is \[\]; give a list of one or more"),
        ({"early_terminate": {"type": "median"}}, "here it is type hyperband, with min_iter"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "min_iter is 1 or more, eta 2 or more"),
    ],
)
def test_what_cannot_be_run_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**GOOD, **changed}))
    with pytest.raises(ValueError, match=message):
        read_sweep(tmp_path / "a.yaml")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digits.yaml is no sweep file: it needs command, metric and parameters"):
        read_sweep(ROOT / "experiments/cgan/digits.yaml")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="a.yaml is no readable YAML"):
        read_sweep(tmp_path / "a.yaml")


def test_settings_are_of_all_trials() -> None:
    sweep = read_sweep("cgan")
    assert options_of(["logger=none", "--trainer.devices=2"], sweep) == ["--logger=none", "--trainer.devices=2"]
    for wrong, message in {
        "logger": "'logger' has no value; give NAME=VALUE",
        "run_folder=a": "run_folder is each trial's own: leave it out",
        "model.init_args.lr=1": "model.init_args.lr is drawn by .*sweep.yaml: leave it out",
    }.items():
        with pytest.raises(ValueError, match=message):
            options_of([wrong], sweep)


# ---- W&B's agent -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_wandbs_agent_trains_what_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own code builds the command and starts it; only the server, which draws, is left out."""
    agents = importlib.import_module("wandb.wandb_agent")
    command = tmp_path / "bin" / "lit-gans"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lit_gans "$@"\n')
    command.chmod(0o755)
    environment = {
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "WANDB_DIR": str(tmp_path),
        "WANDB_MODE": "offline",
        "WANDB_SWEEP_ID": "abc",
        "WANDB_RUN_ID": "",  # these two the agent sets
        "WANDB_SWEEP_PARAM_PATH": "",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    sweep, said = read_sweep("cgan"), yaml.safe_load(find_sweep("cgan").read_text())
    agent = agents.Agent(api=None, queue=None, sweep_id="abc")
    short = ["--model.init_args.total_kimg=0.064", "--evaluate.every_kimg=0.032", "--evaluate.num_images=100"]
    agent._sweep_command = [*said["command"][:-1], *short, said["command"][-1]]
    for number, drawn in enumerate(ends(sweep)):
        given = {name: {"value": value} for name, value in drawn.items()}
        ran = {"type": "run", "run_id": f"run{number}", "program": said["program"], "args": given}
        assert "exception" not in agent._process_command(ran)
        assert agent._run_processes[f"run{number}"].wait() == 0
        run = tmp_path / "runs" / ("cgan-digits" if number == 0 else f"cgan-digits-{number + 1}")
        config = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
        assert {f"model.init_args.{name}": config[name] for name in ("lr", "r1_gamma")} == drawn
        assert any(sweep.metric in line for line in read_metrics(run))
        (kept,) = (tmp_path / "wandb").glob(f"offline-run-*-run{number}/*.wandb")
        assert said["metric"]["name"].encode() in kept.read_bytes()


SHORT = {
    "joint_embedding": ["--model.init_args.total_kimg=0.256", "--report.every_kimg=0.128"],
    "vqgan_tokenizer": ["--model.init_args.total_kimg=0.128", "--report.every_kimg=0.064"],
    "pix2pix": ["--evaluate_translation.num_images=8"],
    "pix2pixhd": ["--evaluate_translation.num_images=8", "--model.init_args.global_kimg=0.016",
                  "--model.init_args.fix_global_kimg=0.016"],
    "cyclegan": ["--evaluate_translation.num_images=4", "--evaluate_translation.num_real=4"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    ["cyclegan", "joint_embedding", "pix2pix", "pix2pixhd", "stackgan2", "stylegan2", "stylegan3", "vqgan_tokenizer"],
)
def test_what_needs_no_download_measures_what_it_is_ranked_by(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sweep = read_sweep(family)
    argv = [*sweep.command, "--model.init_args.total_kimg=0.064", "--evaluate.num_images=64", "--logger=none"]
    argv += [f"--{name}={value}" for name, value in ends(sweep)[0].items()]
    argv += ["--image_grid=off", "--health.diversity_every_kimg=0", "--run_folder=run", *SHORT.get(family, ())]
    assert fit(argv) == 0
    assert any(sweep.metric in line for line in read_metrics(tmp_path / "run"))


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page_can_be_read_and_its_file_is_the_shipped_one() -> None:
    page = (ROOT / "docs" / "sweeps.md").read_text()
    commands = re.findall(r"^lit-gans sweep ([^#\n]*)", page, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        given = command_line(verb.sweep, shlex.split(command), show=verb.show)
        assert options_of(given.get("settings", ()), read_sweep(given["file"])) is not None
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert yaml.safe_load(example) == yaml.safe_load(find_sweep("cgan").read_text())
