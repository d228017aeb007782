"""`lit-gans <verb>`: the same functions as `python -m lit_gans.<verb>`."""

import contextlib
import io
import os
import re
import sys
from importlib import import_module

VERBS = {
    "fit": "train an architecture: lit-gans fit --config experiments/cgan/digits.yaml",
    "sweep": "runs of one config with settings that are drawn, ranked at the end",
    "sample": "images from a run or checkpoint, as files, grids or films",
    "translate": "pictures through a trained translator, in their own size",
    "evaluate": "measure a run, or one image folder against another",
    "truncation": "what a model's numbers become as its latents are truncated: a table and a curve",
    "modes": "how many modes of a ring or grid of Gaussians each GAN covers",
    "compare": "runs side by side, ranked only where they were measured alike",
    "dashboard": "a report at Weights & Biases made from runs: series, grids, ranks among equals",
    "project": "what a generator draws nearest to a picture: styles, noise maps, latents, tuned weights",
    "encode": "a small encoder for a generator, with which project begins",
    "age": "people on photographs in every class of a generator, as at six ages",
    "edit": "what an edit script makes of a picture: mixed, moved, dragged, told in words",
    "studio": "a page in the browser where models draw and pictures are changed",
    "directions": "ways through latent space along which images change in one respect: smiling, age, pose",
    "restyle": "images edited by a text: StyleCLIP's three methods, and StyleMC",
    "convert": "released weights (.pkl) to ours and back, read without running them",
    "export": "a generator as one ONNX or torch.export file that runs without this package",
    "push": "a trained model to the Hugging Face Hub, with a card",
    "prepare": "pictures from anywhere into StyleGAN's zip or memory-mapped shards",
    "new": "a GAN of your own to begin with: one file, and a config that trains it",
    "list": "papers, data sets and experiments, and what each experiment claims",
    "benchmark": "speed of a config, against a bare loop over the same networks",
}


def usage() -> str:
    from lit_gans import __version__

    lines = [f"lit-gans {__version__}: every landmark GAN, trained, measured and used in the same way.", ""]
    lines += ["usage: lit-gans <verb> [arguments]", ""]
    lines += [f"  {verb:<11}{text}" for verb, text in VERBS.items()]
    return "\n".join([*lines, "", "`lit-gans <verb> --help` tells a verb's arguments."])


def candidates(line: str) -> list[str]:
    """What may come next on a command line such as "lit-gans sample --s": verbs, options, or an option's choices."""
    _, *before, current = line.split(" ")
    found = [] if before else list(VERBS)
    if before and before[0] in VERBS:
        with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
            import_module(f"lit_gans.{before[0]}").main(["--help"])
        choices = re.search(rf"{re.escape(before[-1])} {{(.+?)}}", told.getvalue())
        found = choices[1].split(",") if choices else sorted(set(re.findall(r"--[a-z_]+\b", told.getvalue())))
    return [word for word in found if word.startswith(current)]


def main(argv: list[str] | None = None) -> int:
    """Runs a verb; the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        from lit_gans import __version__

        print(__version__)
        return 0
    if argv[0] == "--complete":  # as bash calls what `complete -C` names
        print("\n".join(candidates(os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])])))
        return 0
    if argv[0] not in VERBS:
        import difflib

        close = difflib.get_close_matches(argv[0], VERBS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        print(f"lit-gans: {argv[0]!r} is not a verb{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        return import_module(f"lit_gans.{argv[0]}").main(argv[1:]) or 0
    except KeyboardInterrupt:  # while it was still being loaded
        print(f"lit-gans {argv[0]}: broken off", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
