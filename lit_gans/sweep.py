"""`lit-gans sweep`: runs of one config with settings that are drawn, ranked at the end."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lit_gans.base.command import run_verb

if TYPE_CHECKING:
    from lit_gans.runs.comparison import Comparison


class Result(NamedTuple):
    """`comparison` is None where the metric is of no evaluation; `lines`: a line per trial, the best first."""

    folder: Path
    comparison: "Comparison | None"
    lines: list[str]
    jobs: list[str]


def sweep(
    file: str | Path,
    *,
    trials: int = 20,
    folder: str | Path | None = None,
    settings: Sequence[str] = (),
    cluster: Literal["local", "slurm"] | None = None,
    workers: int = 1,
    job: Sequence[str] = (),
) -> Result:
    """Runs of one config with settings that Optuna draws as a W&B sweep file says, ranked at the end.

    Every trial is a run of `lit-gans fit` in a process and a folder of its own. Given again after a stop or a kill the
    command goes on with the trials that were not finished, each from its last checkpoint. Needs the extra `sweep`.

    Args:
        file: a sweep file, or the shipped one of a paper: cgan.
        trials: how many there are to be at the end, with those of earlier starts.
        folder: of all trials; default runs/sweep-<the file's folder>.
        settings: for all trials, as NAME=VALUE: model.init_args.total_kimg=20 logger=none.
        cluster: submit `workers` jobs, which share the trials, to SLURM (and return), or to this machine.
        workers: how many jobs.
        job: of submitit, as NAME=VALUE: timeout_min=240 gpus_per_node=1 slurm_partition=gpu.
    """
    from lit_gans.training.sweep_file import read_sweep
    from lit_gans.training.sweeps import JOURNAL, Sweep, check, compared, ranked, submit, wait_for, work

    if trials < 1 or workers < 1:
        raise ValueError(f"trials is {trials} and workers {workers}; each must be 1 or more")
    if cluster is None and (workers > 1 or job):
        raise ValueError("workers and job are of a cluster's jobs: add --cluster=slurm, or local")
    told, options = read_sweep(file), _values(job)
    where = Path(folder) if folder is not None else Path("runs") / f"sweep-{told.path.absolute().parent.name}"
    plan = Sweep(told, where, tuple(settings))
    if not (where / JOURNAL).is_file():
        check(plan)
    plan.study()
    jobs = submit(plan, trials, cluster=cluster, workers=workers, job=options) if cluster else []
    if cluster == "slurm":
        return Result(where, None, [], [each.job_id for each in jobs])
    wait_for(jobs) if jobs else work(plan, trials)
    return Result(where, compared(plan), ranked(plan), [])


def _values(job: Sequence[str]) -> dict[str, Any]:
    import yaml

    if wrong := [word for word in job if "=" not in word]:
        raise ValueError(f"job: {wrong[0]!r} has no value; give NAME=VALUE, as timeout_min=240")
    return {name: yaml.safe_load(value) for name, _, value in (word.partition("=") for word in job)}


def show(result: Result) -> None:
    """Prints the ranked table, in Markdown."""
    from lit_gans.runs.comparison_table import TABLES

    if result.jobs:
        print(f"submitted: {', '.join(result.jobs)}; the same command without --cluster tells the table at the end")
        return
    if result.comparison is None:
        print("\n".join(result.lines))
        return
    print(TABLES["markdown"](result.comparison), end="")
    print("\n".join(["how the trials ended, the best first:", *result.lines]), file=sys.stderr)
    print(f"a page with curves and samples: lit-gans compare {result.folder}/*/ --output compare.html", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(sweep, argv, show=show)


if __name__ == "__main__":
    sys.exit(main())
