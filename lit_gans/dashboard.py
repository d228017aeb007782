"""`lit-gans dashboard`: a report at Weights & Biases, made from what runs logged there."""

import os
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path

from lit_gans.base.command import run_verb


def dashboard(
    runs: Sequence[str | Path],
    *,
    project: str | None = None,
    entity: str | None = None,
    metrics: Sequence[str] | None = None,
    title: str = "",
    to: str | Path | None = None,
) -> str:
    """A report on a project's runs: series in sections, grids, the table of samples, and ranks among equal protocols.

    It is made of what run folders hold and shows all runs of the project. Needs the extra `dashboards`.

    Args:
        runs: run folders, logged to the project; their series, metrics and protocols are shown.
        project: default $WANDB_PROJECT, else lit_gans.
        entity: the user or team; default $WANDB_ENTITY, else the account's.
        metrics: to rank by; by default the Fréchet distance, or else the first that was measured.
        title: of the report; by default the project's name.
        to: a JSON file to write the report to; nothing is sent then.
    """
    from lit_gans.base.files import replacing
    from lit_gans.runs.dashboard import account, report_of, send, spec_of

    project = project or os.environ.get("WANDB_PROJECT") or "lit_gans"
    report = report_of([Path(run) for run in runs], project=project, entity="", metrics=metrics, title=title)
    report.entity = entity or os.environ.get("WANDB_ENTITY") or ("" if to else account())
    if to is None:
        return send(report)
    with replacing(to) as unfinished:
        unfinished.write_text(dumps(spec_of(report), indent=1) + "\n", encoding="utf-8")
    return f"{to}: the report as JSON; without --to it is sent to Weights & Biases"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(dashboard, argv)


if __name__ == "__main__":
    sys.exit(main())
