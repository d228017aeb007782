"""The verb that edits by text: `lit-gans restyle runs/faces "a smiling face" --image_text faces.safetensors ...`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lit_gans.base.command import run_verb


def restyle(
    run: str | os.PathLike,
    to: str,
    *,
    image_text: str,
    image_text_weights: str | os.PathLike | None = None,
    method: Literal["latent", "mapper", "global", "stylemc"] = "latent",
    file: str | os.PathLike | None = None,
    output: str | os.PathLike = "restyled.png",
    by: float | Sequence[float] | None = None,
    seeds: str | Sequence[int] = "0-3",
    latent: str | os.PathLike | None = None,
    label: int | None = None,
    psi: float = 0.7,
    neutral: str = "a face",
    threshold: float = 0.1,
    steps: int | None = None,
    l2_weight: float | None = None,
    id_weight: float | None = None,
    identity: str | os.PathLike | None = None,
    effect_images: int = 100,
    samples: int | None = None,
    seed: int = 0,
    raw: bool = False,
    device: str = "auto",
    trust: str | None = None,
) -> Path:
    """Images of a style-based generator edited by a text: a sheet with a row for each, the image itself first.

    StyleCLIP's three methods (Patashnik et al., 2021), and StyleMC's (Kocasari et al., 2022).

    Args:
        run: run folder, .ckpt file, or folder of `lit-gans convert`.
        to: the text, such as "a smiling face".
        image_text: what compares images with texts: clip:<owner>/<name>, the file of a pair (see
            `lit_gans.editing.text.train_face_pair`), or a run of DAMSM or JointEmbedding.
        image_text_weights: folder of CLIP's files, or file of the pair's feature network.
        method: "latent" optimises each latent for itself; "mapper" trains a network for the text, once; "global" and
            "stylemc" find a direction in style space.
        file: a .safetensors file where the mapper, the effects of channels (global: for any text) or the direction is
            kept; what is there is read, and a mapper's training goes on. Of all methods but latent.
        output: the .png file; beside it are written the edit script of the first image with the first strength, as
            .yaml, and of global the direction, as .safetensors.
        by: strengths, a column each; by default 1 (latent, stylemc), 0.1 (mapper), 4 (global: alpha).
        seeds: of the images, as 0-3,7.
        latent: the w.safetensors of `lit-gans project` in place of seeds.
        label: class of all; by default each seed's remainder.
        psi: truncation of the images and of all that is drawn.
        neutral: of global: what `to` is compared with.
        threshold: of global: beta, below which channels do not move.
        steps: of latent (300) and mapper (50000).
        l2_weight: of latent (0.008, of a sum) and mapper (0.8, of a mean).
        id_weight: of who is seen, with identity: of latent (0.005) and mapper (0.1).
        identity: weights of face-api's face_recognition_model.
        effect_images: of global: so many images show what a channel does.
        samples: latents that global (100,000) takes deviations of, and stylemc (128) its steps.
        seed: of all that is random.
        raw: the generator as trained, not its average.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        trust: another package whose classes and losses the checkpoint may name.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: an argument that cannot be met; each says the way out.
    """
    import torch
    from torch import nn

    from lit_gans.adversarial.capabilities import HasLayers, require
    from lit_gans.base.grids import readable_grid
    from lit_gans.base.images import save_png
    from lit_gans.base.numbers import numbers_of
    from lit_gans.base.processes import find_device
    from lit_gans.base.progress import Lines
    from lit_gans.editing import read_projection, styles_of
    from lit_gans.editing.text import build_identity, build_image_text
    from lit_gans.editing.text import restyling as texts
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_run

    picture, file = Path(output), None if file is None else Path(file)
    if picture.suffix != ".png":
        raise ValueError(f"output {output} is no .png file: name one")
    texts.check_file(file, method)
    check_output(picture, *([] if file is None else [file]))
    strengths = [texts.STRENGTHS[method]] if by is None else [by] if isinstance(by, int | float) else list(by)
    gan = require(load_run(run, trust=trust), HasLayers, "editing by text").to(find_device(device))
    judge = build_image_text(image_text, weights=image_text_weights, trust=trust)
    seen = None if identity is None else build_identity(identity).to(gan.device)
    if isinstance(judge, nn.Module):
        judge.to(gan.device)
    if latent is None:
        ws, noise = styles_of(gan, numbers_of(seeds, "seeds"), label=label, psi=psi, ema=not raw), {}
    else:
        ws, noise, _ = read_projection(latent)
        ws = ws.to(gan.device)
    if method == "latent" and seen is not None and id_weight is None:
        id_weight = 0.005
    drawing = {"psi": psi, "label": label, "seed": seed}
    own = {
        "latent": {"steps": steps, "l2_weight": l2_weight, "id_weight": id_weight},
        "mapper": {"steps": steps, "l2_weight": l2_weight, "id_weight": id_weight, **drawing},
        "global": {"num_images": effect_images, "num_samples": samples, **drawing},
        "stylemc": {"num_samples": samples, **drawing},
    }
    numbers = {name: value for name, value in own[method].items() if value is not None or name == "label"}
    lines = Lines()

    def tell(done: int, total: int, loss: float | None = None) -> None:
        lines(done, total, "" if loss is None else f"loss {loss:.4f}")

    found = texts.restyle_latents(
        gan, ws, to, method=method, image_text=judge, by=strengths, file=file, neutral=neutral, threshold=threshold,
        direction=picture.with_suffix(texts.SUFFIX), identity=seen, ema=not raw, on_step=tell, **numbers,
    )  # fmt: skip
    step = texts.step_of(
        method, to, by=strengths[0], image_text=image_text, weights=image_text_weights, file=file,
        direction=picture.with_suffix(texts.SUFFIX), identity=identity, **numbers,
    )  # fmt: skip
    first = None if latent is not None else numbers_of(seeds, "seeds")[0]
    texts.save_script(picture, gan, run, step, seed=first, latent=latent, label=label, psi=psi, ema=not raw)
    columns = [texts.drawn(gan, one, noise, ema=not raw) for one in (texts.Restyled(ws, {}), *found)]
    return save_png(readable_grid(torch.stack(columns, 1).flatten(0, 1), len(columns)), picture)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(restyle, argv)


if __name__ == "__main__":
    sys.exit(main())
