"""The verb that makes a model a file of its own: `lit-gans export runs/faces --output faces.onnx`."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lit_gans.base.command import run_verb
from lit_gans.base.files import user_path

if TYPE_CHECKING:
    from lit_gans.editing.exporting import Exported


def export(
    run: str | os.PathLike,
    *,
    output: str | os.PathLike,
    raw: bool = False,
    direction: Literal["ab", "ba"] = "ab",
    size: Sequence[int] | None = None,
    seed: int = 0,
    trust: str | None = None,
) -> "Exported":
    """A generator as one file that runs without this package, with any number of images in a batch, and a card.

    The file is a function: of latents z [N, Z], of classes where there are some, of the truncation psi where there are
    styles; of text models, of z, noise and the features of captions; of translators, of pictures of one size. It is run
    at batches of 1, 3 and 16 before it takes its name, and may differ from the model by 1e-4 at most. The card
    `<output>.json` says what goes in and comes out.

    Args:
        run: run folder, .ckpt file, or folder of `lit-gans convert` or `save_pretrained`.
        output: a file .onnx (extra `onnx`), or .pt2 for torch.export.
        raw: the generator as trained, not its average.
        direction: of translators; "ba" is CycleGAN's way back.
        size: of the pictures of translators, height and width in px, or one number for both; by default 256.
        seed: of the noise of translators that have some (pix2pix's dropout): it is fixed in the file, for all images
            alike, as `lit-gans translate --seed` draws it.
        trust: another package whose classes and losses the checkpoint may name.

    Raises:
        ValueError, FileNotFoundError: an argument that cannot be met, or no run there; each says the way out.
    """
    from lit_gans.editing.exporting import save_exported
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_run

    target = user_path(output)
    check_output(target)
    model = load_run(run, trust=trust)
    return save_exported(model, target, ema=not raw, direction=direction, size=size, seed=seed)


def show(done: "Exported") -> None:
    """Prints what the file takes and gives, how near to the model it is, and where the card is."""
    parts = {**done.told["inputs"], **done.told["output"]}
    *given, images = (f"{name} {[*part['shape']]} {part['dtype']}".replace("'", "") for name, part in parts.items())
    found = done.told["largest_difference"]
    print(f"{done.file}: {', '.join(given)} -> {images}")
    print(f"fixed: {done.told['fixed']}")
    print(f"differs from the model by {max(found.values()):.1e} at most, at batches of {', '.join(found)}")
    print(f"card: {done.card}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(export, argv, show=show)


if __name__ == "__main__":
    sys.exit(main())
