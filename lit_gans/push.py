"""`lit-gans push`: a trained model to a model hub, with a card that says how its numbers were measured."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lit_gans.base.command import run_verb


def push(
    run: str | Path,
    repo: str,
    *,
    license: str,
    data: str = "",
    to: str | Path | None = None,
    public: bool = False,
    trust: str | None = None,
) -> str:
    """A trained model as a repository of the Hugging Face Hub: weights, arguments, a card, a picture of samples.

    The card names class, arguments, what is known of the data, the numbers with their protocols, and the lines that
    use the model. Uploading needs the extra `hub`, and a token (`hf auth login`, or the variable HF_TOKEN).

    Args:
        run: run folder, .ckpt file, or folder of `save_pretrained` or `lit-gans convert`.
        repo: owner/name; made if it is not there.
        license: of the weights, as the hub calls it: mit, cc-by-4.0, other, ...; it follows from yours and the data's.
        data: a line for the card on what the model was trained with.
        to: a new folder in which all is written, to be looked at; nothing is uploaded then.
        public: a repository that is made is one for everybody; by default it is private.
        trust: another package whose classes the run may name.
    """
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.pretrained import push_to_hub
    from lit_gans.runs.sharing import check_told, write_shared

    check_told(repo, license)
    check_output(to)
    if to is not None:
        folder = write_shared(Path(run), Path(to), repo=repo, license=license, data=data, trust=trust)
        return f"{folder}: look at its README.md; without --to it goes to https://huggingface.co/{repo}"
    with tempfile.TemporaryDirectory() as place:
        folder = write_shared(Path(run), Path(place) / "model", repo=repo, license=license, data=data, trust=trust)
        return push_to_hub(folder, repo, private=not public)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(push, argv)


if __name__ == "__main__":
    sys.exit(main())
