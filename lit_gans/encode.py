"""The verb that makes an encoder for a generator: `lit-gans encode runs/stylegan2-faces`, for `project --start`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lit_gans.base.command import run_verb


def encode(
    run: str | os.PathLike,
    *,
    output: str | os.PathLike | None = None,
    steps: int = 400,
    batch_size: int = 16,
    lr: float = 1e-3,
    width: int = 32,
    pixel_weight: float = 1.0,
    seed: int = 0,
    raw: bool = False,
    device: str = "auto",
    trust: str | None = None,
) -> Path:
    """A small encoder from pictures to a generator's styles, or latents, as a .safetensors file.

    It learns from the generator's own images: no data is read. `lit-gans project --start encoder:FILE` begins with what
    it says of a picture.

    Args:
        run: run folder or .ckpt file of a generator.
        output: the file; by default encoder.safetensors in the run's folder.
        steps: of training. batch_size: images in each.
        lr: learning rate of Adam at the start; it falls to 0.
        width: channels at the pictures' own size, or at 64 pixels where they are larger.
        pixel_weight: of the difference of pixels beside that of styles.
        seed: of all that is random.
        raw: the generator as trained, not its average.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        trust: another package whose classes and losses the checkpoint may name.

    Raises:
        ValueError, FileNotFoundError: no run, or a setting that cannot be met.
    """
    from lit_gans.adversarial.capabilities import FromLatents, require
    from lit_gans.base.processes import find_device
    from lit_gans.base.progress import Lines
    from lit_gans.editing.encoder import EncoderStep, save_encoder, train_encoder
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_run

    run = Path(run)
    path = Path(output) if output is not None else (run if run.is_dir() else run.parent) / "encoder.safetensors"
    if output is not None:
        check_output(path)
    if path.is_dir() or path.suffix != ".safetensors":
        raise ValueError(f"output {path} is no file of the ending .safetensors: give one, such as encoder.safetensors")
    gan = require(load_run(run, trust=trust), FromLatents, "an encoder")
    gan, lines = gan.to(find_device(device)), Lines()

    def told(step: EncoderStep) -> None:
        lines(step.step + 1, steps, f"code {step.code:.4f}, pixels {step.pixels:.4f}")

    numbers = {"steps": steps, "batch_size": batch_size, "lr": lr, "width": width, "pixel_weight": pixel_weight}
    encoder, settings = train_encoder(gan, **numbers, seed=seed, ema=not raw, on_step=told)
    save_encoder(encoder, settings, path)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(encode, argv)


if __name__ == "__main__":
    sys.exit(main())
