"""The verb that shows people at other ages: `lit-gans age runs/age_cgan-utkface64 photos --identity FILE`."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lit_gans.base.command import run_verb


def age(
    run: str | os.PathLike,
    photos: str | os.PathLike,
    *,
    output: str | os.PathLike = "aged",
    method: Literal["encoder", "pixel", "identity"] = "identity",
    identity: str | os.PathLike | None = None,
    crop: tuple[int, int, int, int] = (0, 256, 0, 256),
    age: float | None = None,
    group: str | None = None,
    age_network: str | os.PathLike | None = None,
    encoder: str | os.PathLike | None = None,
    steps: int = 50,
    seed: int = 0,
    raw: bool = False,
    device: str = "auto",
    trust: str | None = None,
) -> Path:
    """The people on photographs in every class of a generator, as at six ages: a sheet with a row for each.

    Its columns are the photograph, what the generator draws nearest to it in the person's own group, and that latent in
    all groups (Antipov et al., 2017). Any generator with classes will do. Beside sheet.png stand table.csv and
    settings.json; of each photograph, in a folder of its name where there are several, aged.png with all groups,
    z.safetensors, log.jsonl, and edit.yaml, which `lit-gans edit --sheet` replays to aged.png.

    Args:
        run: run folder, .ckpt file or saved folder of a generator with classes, such as AgeCGAN.
        photos: a picture file, or a folder of them; faces cut out as those that the generator was trained on.
        output: the folder.
        method: "identity" optimises the latent until the same person is recognised, "pixel" until pixels are the same,
            "encoder" takes what the encoder says as it is.
        identity: weights of face-api's face_recognition_model, for method identity.
        crop: where the face is, for that network: top, bottom, left and right of 256.
        age: years of all people; by default what the names of files say, as 43_0_1_... of UTKFace.
        group: their group instead, as 40-49.
        age_network: weights of face-api's age_gender_model, which is asked where no name says it.
        encoder: file of `lit-gans encode`, for a generator that was trained without an encoder.
        steps: of L-BFGS.
        seed: of the latents to begin with, where there is no encoder.
        raw: the generator as trained, not its average.
        device: cpu, cuda, cuda:1, ...; "auto" is the accelerator where there is one.
        trust: another package whose classes and losses the checkpoint may name.

    Raises:
        ValueError, FileNotFoundError: no run or photographs, an age that is not known, or a setting that cannot be met.
    """
    from lit_gans.adversarial.capabilities import FromLatents, require
    from lit_gans.base.images import from_uint8
    from lit_gans.base.processes import find_device
    from lit_gans.editing import ageing_files as files
    from lit_gans.editing.ageing import reconstruct
    from lit_gans.editing.encoder import read_encoder
    from lit_gans.editing.projection_files import reporter
    from lit_gans.editing.text import build_identity
    from lit_gans.metrics.ages import build_ages
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_run

    folder, run = Path(output), Path(run)
    check_output(folder)
    if folder.is_file():
        raise ValueError(f"output {folder} is a file: give a folder")
    if method == "identity" and identity is None:
        raise ValueError(
            "method 'identity' needs --identity, the .safetensors file of face-api's face_recognition_model; or use "
            "--method pixel or --method encoder"
        )
    gan = require(load_run(run, trust=trust), FromLatents, "ageing").to(find_device(device))
    seen = None if method != "identity" or identity is None else build_identity(identity, crop=crop).to(gan.device)
    asked = None if age_network is None else build_ages(age_network).to(gan.device)
    given = None if encoder is None else read_encoder(encoder, gan)[0]
    people = files.read_people(Path(photos), gan, age=age, group=group, estimate=asked)
    numbers = {"method": method, "steps": steps, "seed": seed, "ema": not raw}
    groups, rows, shown = files.groups_of(gan), [], []
    for person in people:
        own, began, where = folder / person.name, time.monotonic(), groups[person.label]
        print(f"lit-gans age: {person.path.name}: {where}, {person.said}", file=sys.stderr)
        found = reconstruct(
            gan, from_uint8(person.pixels), label=person.label, identity=seen, start=given, **numbers,
            on_step=reporter(own / "log.jsonl", steps),
        )  # fmt: skip
        shown.append(files.save_aged(found, gan, person, own, run=run, ema=not raw))
        figures = float(found.settings["start_distance"]), found.distance, found.psnr_db
        rows.append(files.Row(person.path.name, where, person.said, *figures, time.monotonic() - began))
    said = {"run": str(run), "photos": str(photos), **numbers, "identity": identity and str(identity), "crop": crop}
    said |= {"age": age, "group": group, "age_network": age_network and str(age_network)}
    said |= {"encoder": encoder and str(encoder), "groups": groups, "columns": ["photograph", "found", *groups]}
    return files.save_all(rows, shown, said, folder)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(age, argv)


if __name__ == "__main__":
    sys.exit(main())
