"""Several runs of one config, with settings that Optuna draws: resumable, by one process or by several.

All that a sweep is lies in its folder: `optuna.log`, the journal of what was drawn and how it ended, and a run folder
for each trial. A trial that no process works on any more is taken up, from its last checkpoint, by the next that looks
for work.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from lit_gans.base.random import derive_seed
from lit_gans.runs.comparison import Comparison, comparison_of
from lit_gans.runs.folder import is_taken
from lit_gans.runs.report import read_metrics, series
from lit_gans.runs.state import state_of
from lit_gans.training.stages import LOOK_S, waited_for
from lit_gans.training.sweep_file import SweepFile, options_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "optuna.log"


@dataclass(frozen=True)
class Sweep:
    """A sweep file, the folder of its trials, and further arguments of `fit` for all of them."""

    file: SweepFile
    folder: Path
    settings: Sequence[str] = ()

    def __post_init__(self) -> None:
        options_of(self.settings, self.file)

    # ---- the study ---------------------------------------------------------------------------------------------------

    def study(self) -> Study:
        """What was drawn until now, opened or made.

        Raises:
            ValueError: Optuna is missing, or the folder holds trials of another sweep.
        """
        optuna = _optuna()
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        self.folder.mkdir(parents=True, exist_ok=True)
        path = str(self.folder / JOURNAL)
        with self.choosing():
            study = optuna.create_study(
                storage=optuna.storages.JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path))),
                study_name="sweep", direction=self.file.goal, load_if_exists=True, pruner=self._pruner(),
            )  # fmt: skip
            now = {**self.file.identity(), "settings": list(self.settings)}
            before = study.user_attrs.get("sweep")
            if before is None:
                study.set_user_attr("sweep", now)
            elif changed := [name for name in now if now[name] != before.get(name)]:
                raise ValueError(
                    f"{self.folder} holds trials of another {', '.join(changed)}: give another --folder, or what it "
                    f"began with, which was {changed[0]} {before.get(changed[0])}"
                )
        return study

    def _pruner(self) -> Any:
        """W&B's Hyperband stops at each rung all but the best 1/eta; so does successive halving."""
        from optuna.pruners import NopPruner, SuccessiveHalvingPruner

        if self.file.early is None:
            return NopPruner()
        return SuccessiveHalvingPruner(self.file.early["min_iter"], reduction_factor=self.file.early["eta"])

    def space(self) -> dict[str, BaseDistribution]:
        """What is drawn from, by option; choices as JSON, which the command line reads."""
        of = _optuna().distributions
        found: dict[str, BaseDistribution] = {}
        for name, told in self.file.parameters.items():
            kind, low, high = told["distribution"], told.get("min"), told.get("max")
            if kind in ("constant", "categorical"):
                choices = told["values"] if kind == "categorical" else [told["value"]]
                found[name] = of.CategoricalDistribution([json.dumps(choice) for choice in choices])
            elif kind == "int_uniform":
                found[name] = of.IntDistribution(low, high)
            else:
                found[name] = of.FloatDistribution(low, high, log=kind == "log_uniform_values", step=told.get("q"))
        return found

    def sampler(self, number: int) -> BaseSampler:
        """Draws trial `number`; of its own seed, so that a sweep that goes on does not draw the same again."""
        from optuna.samplers import PartialFixedSampler, RandomSampler, TPESampler

        if self.file.method == "grid":  # Optuna's own ends a loop of its own with the last point, and fails in another
            return PartialFixedSampler(self.grid()[number], RandomSampler(seed=0))
        # Neighbouring seeds of NumPy draw alike: 0 and 3 begin with 0.55, 0.71.
        seed = derive_seed("sweep", number) % 2**32
        if self.file.method == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, constant_liar=True)  # several processes do not crowd in one place

    def grid(self) -> list[dict[str, str]]:
        """All its points, of a grid."""
        choices = {name: each.choices for name, each in self.space().items()}  # type: ignore[attr-defined]
        return [dict(zip(choices, point, strict=True)) for point in product(*choices.values())]

    # ---- a trial -----------------------------------------------------------------------------------------------------

    def arguments(self, drawn: Mapping[str, Any]) -> list[str]:
        """Of `fit`, without the run folder."""
        options = [f"--{name}={value}" for name, value in drawn.items()]
        return [*self.file.command, *options, *options_of(self.settings, self.file)]

    def run_of(self, trial: FrozenTrial) -> Path:
        """Its run folder, named by number and what was drawn, which is how comparisons name it."""
        drawn = [name for name in trial.params if self.file.parameters[name]["distribution"] != "constant"]
        told = (f"{name.rpartition('.')[2]}={_shown(trial.params[name])}" for name in drawn)
        return self.folder / "-".join([f"{trial.number:02d}", ",".join(told)])

    def choosing(self) -> FileLock:
        return FileLock(self.folder / ".choosing.lock")

    def claimed(self, number: int) -> FileLock | None:
        """The lock of a trial, this process's until it ends; None where another has it."""
        lock = FileLock(self.folder / f".{number}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            "a sweep on your own machines draws with Optuna, the extra 'sweep': pip install 'lit-gans[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _shown(value: Any) -> str:
    """For the name of a folder."""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


# ---- the work --------------------------------------------------------------------------------------------------------


def check(sweep: Sweep) -> None:
    """ValueError, with what `fit` says, where it does not accept the arguments of a trial; nothing is trained."""
    _optuna()
    drawn = {name: told.get("min", json.dumps(told.get("values", [told.get("value")])[0]))
             for name, told in sweep.file.parameters.items()}  # fmt: skip
    sweep.folder.mkdir(parents=True, exist_ok=True)
    log = sweep.folder / "check.log"
    refused = waited_for([*sweep.arguments(drawn), "--print_config"], log=log)
    said = _last_words(log)
    log.unlink()
    if refused:
        raise ValueError(f"{sweep.file.path}: {said}")


def work(sweep: Sweep, trials: int) -> None:
    """Draws and trains, until the study has so many trials; and takes up those that nobody works on any more."""
    study = sweep.study()
    while task := _next(sweep, study, trials):
        trial, lock = task
        try:
            _train(sweep, study, trial, of=trials)
        finally:
            lock.release()


def _next(sweep: Sweep, study: Study, trials: int) -> tuple[Trial, FileLock] | None:
    """The next trial and its lock: one that was left, else a new one; None where there is nothing left to do."""
    from optuna.trial import Trial, TrialState

    with sweep.choosing():
        known = study.get_trials(deepcopy=False)
        for left in (each for each in known if each.state == TrialState.RUNNING):
            lock = sweep.claimed(left.number)
            if lock is not None and left.params.keys() != sweep.space().keys():  # killed while it was drawn
                study.tell(left.number, state=TrialState.FAIL)
            elif lock is not None:
                return Trial(study, left._trial_id), lock
            if lock is not None:
                lock.release()
        if len(known) >= (min(trials, len(sweep.grid())) if sweep.file.method == "grid" else trials):
            return None
        study.sampler = sweep.sampler(len(known))
        trial = study.ask(sweep.space())
        lock = sweep.claimed(trial.number)
        assert lock is not None
        return trial, lock


def _train(sweep: Sweep, study: Study, trial: Trial, *, of: int) -> None:
    """Trains one to its end, or until its figures say that it is not worth it, and tells the study.

    Raises:
        KeyboardInterrupt: `fit` was stopped; ValueError: it was killed, or measures no such metric. The trial is taken
            up by the next start.
    """
    from optuna.trial import TrialState

    run, metric = sweep.run_of(study.trials[trial.number]), sweep.file.metric
    status, pruned = _fit(sweep, study, trial, run, of=of)
    values = values_of(run, metric)
    if status == 0 and not values:
        measured = sorted({name for line in read_metrics(run) for name in line} - {"kimg", "time_s", "protocol"})
        raise ValueError(f"{run} has measured no {metric}, which the sweep is ranked by: {', '.join(measured)}")
    _report(trial, study, values)
    if pruned:
        study.tell(trial.number, state=TrialState.PRUNED)
    elif status or not math.isfinite(values[-1]):
        study.tell(trial.number, state=TrialState.FAIL)
        why = _last_words(_log_of(run)) if status else f"{metric} is {values[-1]}"
        print(f"trial {trial.number + 1} failed: {why}; all it said: {_log_of(run)}", file=sys.stderr)
    else:
        study.tell(trial.number, values[-1])


def _fit(sweep: Sweep, study: Study, trial: Trial, run: Path, *, of: int) -> tuple[int, bool]:
    """The exit status of its training, and whether that was ended for its figures; raises as `_train` says."""
    pruned = False

    def hopeless() -> bool:
        nonlocal pruned
        _report(trial, study, values_of(run, sweep.file.metric))
        pruned = trial.should_prune()
        return pruned

    while is_taken(run):  # the sweep was killed, and `fit` was not
        time.sleep(LOOK_S)
    if state_of(run).word == "finished":  # the sweep was killed between the run's end and telling
        return 0, False
    environment = os.environ | {"WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", sweep.folder.name)}
    if "SLURM_JOB_NAME" in os.environ:
        environment |= {"SLURM_JOB_NAME": "interactive"}  # else Lightning takes the job's tasks for the run's processes
    argv = [*sweep.arguments(trial.params), f"--run_folder={run}", "--ckpt_path=auto"]
    print(f"trial {trial.number + 1} of {of}: {run}", file=sys.stderr)
    status = waited_for(argv, look=hopeless, log=_log_of(run), env=environment)
    if status < 128 or pruned:
        return status, pruned and status >= 128
    again = f"the same command goes on with {run}"
    if status in (130, 143):
        raise KeyboardInterrupt(again)
    raise ValueError(f"{run} was ended by signal {status - 128}, as for want of memory: {again}")


def _log_of(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def values_of(run: Path, metric: str) -> list[float]:
    """All that was measured, oldest first."""
    return series(read_metrics(run), metric)[1]


def _report(trial: Trial, study: Study, values: Sequence[float]) -> None:
    """What the study does not know yet; steps are counted, as W&B does."""
    known = study.trials[trial.number].intermediate_values
    for step, value in enumerate(values, 1):
        if step not in known and math.isfinite(value):
            trial.report(value, step)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    named = [i for i, line in enumerate(lines) if line.startswith("lit-gans fit:")]
    return " ".join(lines[named[-1] :] if named else lines[-1:]) or "it said nothing"


# ---- on a cluster ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worker:
    """What a job of a cluster does: `work`. Put back into the queue it is the same again: all is in the folder."""

    sweep: Sweep
    trials: int

    def __call__(self) -> None:
        work(self.sweep, self.trials)

    def checkpoint(self) -> Any:
        """What submitit puts into the queue when the job is preempted, or its time is over."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(sweep: Sweep, trials: int, *, cluster: str, workers: int, job: Mapping[str, Any]) -> list[Any]:
    """submitit's jobs, each of which works on the sweep.

    Args:
        job: submitit's parameters of a job, such as timeout_min, gpus_per_node, slurm_partition.
    """
    try:
        import submitit
    except ImportError as error:
        raise ValueError("--cluster needs submitit, the extra 'sweep': pip install 'lit-gans[sweep]'") from error
    limits = {f"{cluster}_max_num_timeout": 1000}  # a sweep is as long as it is: each time limit is a new job
    executor = submitit.AutoExecutor(folder=sweep.folder / "jobs", cluster=cluster, **limits)
    try:
        executor.update_parameters(name=sweep.folder.name, **{"timeout_min": 24 * 60, **job})
    except (NameError, TypeError, ValueError) as error:  # what submitit raises of unknown names
        raise ValueError(f"--job: {error}") from error
    return [executor.submit(Worker(sweep, trials)) for _ in range(workers)]


def wait_for(jobs: Sequence[Any]) -> None:
    """Returns when all jobs have ended. ValueError where one failed."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    for job in jobs:
        try:
            job.result()
        except (FailedJobError, UncompletedJobError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise ValueError(f"job {job.job_id}: {lines[-1].strip()}; all it said: {job.paths.stderr}") from error


# ---- its result ------------------------------------------------------------------------------------------------------


def compared(sweep: Sweep) -> Comparison | None:
    """The trials side by side, ranked by the sweep's metric; None where no evaluation measures it."""
    runs = [run for trial in sweep.study().trials if ((run := sweep.run_of(trial)) / "config.yaml").is_file()]
    if not runs:
        return None
    measured = [column.name for column in comparison_of(runs).columns]
    if sweep.file.metric not in measured:
        return None
    first = sweep.file.metric
    return comparison_of(runs, metrics=[first, *(name for name in measured if name != first)])


def ranked(sweep: Sweep) -> list[str]:
    """A line per trial, the best first: its value, or how it ended."""
    sign = 1 if sweep.file.goal == "minimize" else -1
    rows = [
        (each.value is None, sign * (each.value or 0), f"{_ended(each)}  {sweep.run_of(each).name}")
        for each in sweep.study().trials
    ]
    return [text for *_, text in sorted(rows)]


def _ended(trial: FrozenTrial) -> str:
    state = trial.state.name.lower()
    return f"{trial.value:<10.4g}" if state == "complete" and trial.value is not None else f"{state:<10}"
