"""What can be done with a run: the commands that go on with it, by what its model can do."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from lit_gans.adversarial.capabilities import Captioned, Samples, Translates, can
from lit_gans.runs.classes import to_trust

OF_A_START = ("--ckpt_path", "--run_folder")


def commands(run: Path, game: object) -> dict[str, str]:
    """{"sample": "lit-gans sample ...", ...}: to look at it and to measure it; {} of what makes nothing."""
    output, name = shlex.quote(f"{run / 'out'}"), shlex.quote(f"{run}")
    package = to_trust(f"{type(game).__module__}.{type(game).__qualname__}")
    trust = f" --trust {package}" if package else ""
    if can(game, Captioned):
        made = {"sample": f"lit-gans sample {name} --text 'WHAT TO DRAW' --seeds 0-7 --output {output}{trust}"}
    elif can(game, Samples):
        made = {"sample": f"lit-gans sample {name} --seeds 0-63 --output {output}{trust}"}
    elif can(game, Translates):
        made = {"translate": f"lit-gans translate {name} PICTURES --output {output}{trust}"}
    else:
        return {}
    return {**made, "evaluate": f"lit-gans evaluate {name}{trust}"}


def resuming(run: Path) -> str | None:
    """The command of a run's last start, to go on from its last checkpoint; None where it is not known."""
    try:
        starts = json.loads((run / "run.json").read_text(encoding="utf-8"))["starts"]
        words = [str(word) for word in starts[-1]["command"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    kept, rest = [], iter(words)
    for word in rest:
        if word in OF_A_START:
            next(rest, None)
        elif not word.startswith(tuple(f"{option}=" for option in OF_A_START)):
            kept.append(word)
    return shlex.join([*kept, f"--run_folder={run}", "--ckpt_path=last"])
