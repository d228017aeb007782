"""Configs that are trained one after the other by one command, such as stages that each stand on the one before."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import yaml

from lit_gans.base.checkpoints import CHECKPOINT_NAME, checkpoints
from lit_gans.runs.configs import experiment_name, find_config

TOTAL = "--model.init_args.total_kimg="
LOOK_S = 2.0
OF_ONE_RUN = ("--config", "-c", "--run_folder", "--ckpt_path")


def fit_stages(argv: Sequence[str]) -> int:
    """`--stages A.yaml B.yaml ... [options of all]`: `fit` of each in turn; the exit status of the first that fails.

    Each has a process and, by its name, a run folder of its own, in which it goes on or starts. A finished one is
    passed over, so that the same command goes on where it was stopped or killed.

    Raises:
        ValueError: no configs, one that does not exist, or an option that cannot be the same for all.
    """
    configs, options = split_stages(argv)
    found = [find_config(config) for config in configs]
    for number, (config, file) in enumerate(zip(configs, found, strict=True), 1):
        stage, total, reached = f"stage {number} of {len(configs)}, {config}", wanted_kimg(file, options), kimg_of(file)
        if total is not None and reached >= total:
            print(f"{stage}: finished, {reached:g} kimg in {run_of(file)}", file=sys.stderr)
            continue
        print(stage, file=sys.stderr)
        if status := waited_for(["--config", config, "--ckpt_path=auto", *options]):
            print(f"{stage}: ended with status {status}; the same command goes on from there", file=sys.stderr)
            return status
    return 0


def split_stages(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(configs, options of all): the words behind --stages up to the next option, and all others."""
    start = next(i for i, word in enumerate(argv) if word.partition("=")[0] == "--stages")
    first = [*filter(None, [argv[start].partition("=")[2]])]
    end = next((i for i in range(start + 1, len(argv)) if argv[i].startswith("-")), len(argv))
    configs, options = [*first, *argv[start + 1 : end]], [*argv[:start], *argv[end:]]
    if not configs:
        raise ValueError("--stages names no configs: give those to train in turn, as --stages A.yaml B.yaml")
    for word in options:
        if word.partition("=")[0] in OF_ONE_RUN:
            raise ValueError(f"{word} is of one run, and each of the stages has its own: leave it out")
    return configs, options


def run_of(config: Path) -> Path:
    """The run folder that `fit` chooses for a config."""
    return Path("runs") / experiment_name(config)


def kimg_of(config: Path) -> float:
    """How far its run has come, by its newest checkpoint in whole steps."""
    named = [CHECKPOINT_NAME.fullmatch(path.name) for path in checkpoints(run_of(config))]
    return max((float(match[1]) for match in named if match and not match[2]), default=0.0)


def wanted_kimg(config: Path, options: Sequence[str]) -> float | None:
    """How long it is to be trained; None where only `fit` itself can tell."""
    try:
        given = [option.removeprefix(TOTAL) for option in options if "total_kimg" in option]
        plan = yaml.safe_load(config.read_text(encoding="utf-8"))
        return float(given[-1] if given else plan["model"]["init_args"]["total_kimg"])
    except (KeyError, TypeError, ValueError, yaml.YAMLError):  # a default, or what `fit` refuses with a message
        return None


def waited_for(
    argv: Sequence[str],
    *,
    look: Callable[[], bool] | None = None,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """The exit status of `fit` in a process of its own; what asks this process to stop is passed on to it.

    Ctrl-C at a terminal goes to both, and that process answers it. What is handled here already, as a cluster's engine
    does, stays here: SLURM sends its signals to all processes of a job.

    Args:
        look: is called every `LOOK_S` and says whether to stop it.
        log: where what it prints goes, behind what is there.
    """
    windows = sys.platform == "win32"
    passed_on = [signal.SIGTERM] + ([] if windows else [signal.SIGUSR1])
    passed_on = [each for each in passed_on if signal.getsignal(each) in (signal.SIG_DFL, None)]
    kept = [] if windows or signal.getsignal(signal.SIGUSR2) in (signal.SIG_DFL, None) else [signal.SIGUSR2]
    with _not_for_children(kept), log.open("ab") if log else nullcontext() as output:
        command = [sys.executable, "-m", "lit_gans.fit", *argv]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env)
    before = {each: signal.signal(each, lambda number, frame: process.send_signal(number)) for each in passed_on}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    asked, status = False, None
    try:
        while status is None:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(LOOK_S if look and not asked else None)
            if status is None and look and look():
                asked = True
                process.terminate()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if process.poll() is None:  # what ended the waiting ends it, with a checkpoint
            process.terminate()
            process.wait()
    return status if status >= 0 else 128 - status  # ended by a signal, as shells say it


@contextmanager
def _not_for_children(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Processes that are started inside never see these signals."""
    if not numbers:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
