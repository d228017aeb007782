"""How old drawn faces look, and whether people stay who they are (Antipov et al., 2017, Sec. 3): a table and a sheet.

python experiments/age_cgan/measure.py runs/faces --photos UTKFace --age_network FILE --identity FILE --output aged

Ages: `--samples` images of each group are looked at by the age network; told are the mean age of each group, whether it
rises from group to group, and the mean absolute error against the middle of the group (of the last one: ten years after
it begins). The same network says the same of the photographs, which were not trained on: what it is worth.

People: of `--count` photographs each is reconstructed in its own group by the encoder alone, by pixels and by identity.
A reconstruction is the same person where its descriptor is nearer than 0.6 to the photograph's. The network that judges
is the one that the method "identity" makes small: that row is an upper bound. The paper judges by OpenFace what FaceNet
led. For comparison: the share of photographs of OTHER people that pass for the same person.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from lit_gans.adversarial.capabilities import FromLatents, require
from lit_gans.base.grids import readable_grid
from lit_gans.base.images import from_uint8, save_png, to_uint8
from lit_gans.base.numbers import parse_numbers
from lit_gans.data import AgedFaces
from lit_gans.data.ages import edges_of
from lit_gans.editing import reconstruct
from lit_gans.editing.ageing_files import groups_of
from lit_gans.editing.state import Edited
from lit_gans.editing.text.identity import SAME_PERSON, WHOLE, build_identity
from lit_gans.metrics.ages import AgeEstimator, build_ages
from lit_gans.runs.load import load_run

METHODS = ("encoder", "pixel", "identity")
SHOWN = 10  # people on the sheet


def middles(edges: tuple[int, ...]) -> Tensor:
    """[Y]: the middle of each group in years; of the last, ten years after it begins."""
    lows, highs = (0, *edges), (*(edge - 1 for edge in edges), edges[-1] + 20)
    return torch.tensor([(low + high) / 2 for low, high in zip(lows, highs, strict=True)])


@torch.no_grad()
def ages_of(estimator: AgeEstimator, images: Tensor) -> Tensor:
    """images [N, C, R, R] in [-1, 1] -> years [N]."""
    return torch.cat([estimator(part) for part in images.split(50)])


def told_ages(years: Tensor, labels: Tensor, centres: Tensor) -> dict[str, object]:
    """What years [N] of the groups [N] come to."""
    means = [round(years[labels == group].mean().item(), 1) for group in range(len(centres))]
    error = (years - centres[labels]).abs().mean().item()
    rises = all(low < high for low, high in zip(means, means[1:], strict=False))
    return {"mean_age_by_group": means, "rises_in_each_step": rises, "mean_absolute_error_years": round(error, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--photos", required=True, help="a folder of faces with ages, see lit_gans.data.AgedFaces")
    parser.add_argument("--table", help="their ages, where file names do not say them")
    parser.add_argument("--age_network", required=True)
    parser.add_argument("--identity", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=100, help="images of each group")
    parser.add_argument("--count", type=int, default=50, help="photographs that are reconstructed")
    parser.add_argument("--steps", type=int, default=50, help="of L-BFGS")
    parser.add_argument("--people", default=f"0-{SHOWN - 1}", help="which of the photographs are on the sheet")
    given = parser.parse_args()
    model = require(load_run(given.run), FromLatents, "ageing")
    edges = edges_of(groups_of(model))
    if edges is None:
        raise SystemExit(f"the classes of {given.run} are no groups of ages: {', '.join(groups_of(model))}")
    estimator, identity = build_ages(given.age_network), build_identity(given.identity, crop=WHOLE)
    centres, result = middles(edges), dict[str, object](run=given.run, kimg=model.images_seen / 1000)

    labels = torch.arange(len(centres)).repeat_interleave(given.samples)
    drawn = torch.cat([model.sample(range(given.samples), labels=some) for some in labels.split(given.samples)])
    result["drawn"] = told_ages(ages_of(estimator, drawn), labels, centres)

    data = AgedFaces(
        given.photos, table=given.table, edges=edges, batch_size=1, resolution=model.resolution, channels=model.channels
    )
    photos = data.dataset()
    chosen = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0))[: given.count]
    whole = photos.fetch(torch.arange(len(photos)))
    images, groups = from_uint8(whole["image"]), whole["label"]
    result["photographs"] = told_ages(ages_of(estimator, images), groups, centres) | {"count": len(photos)}

    images, groups = images[chosen], groups[chosen]
    with torch.no_grad():
        wanted = torch.cat([identity.descriptors(part) for part in images.split(10)])
    others = torch.cdist(wanted, wanted)[~torch.eye(len(wanted), dtype=torch.bool)]
    result["others_taken_for_the_same_person_%"] = round(100 * (others < SAME_PERSON).float().mean().item(), 1)
    sheet: list[Tensor] = []
    for method in METHODS:
        began, near, db = time.process_time(), [], []
        for number, (image, group) in enumerate(zip(images, groups.tolist(), strict=True)):
            found = reconstruct(model, image, label=group, method=method, identity=identity, steps=given.steps)
            with torch.no_grad():
                near.append((identity.descriptors(found.image) - wanted[number]).norm().item())
            db.append(found.psnr_db)
            if method == "identity" and number in parse_numbers(given.people, "people"):
                start = Edited.from_latent(model, found.code, label=0)
                aged = [start.in_class(label).picture() for label in range(len(centres))]
                sheet += [to_uint8(image), to_uint8(found.image)[0], *aged]
                save_png(readable_grid(torch.stack(sheet), 2 + len(centres)), given.output / "people.png")
        near_by = torch.tensor(near)
        result[method] = {
            "same_person_%": round(100 * (near_by < SAME_PERSON).float().mean().item(), 1),
            "mean_distance": round(near_by.mean().item(), 3), "psnr_db": round(sum(db) / len(db), 1),
            "s_per_photograph": round((time.process_time() - began) / len(db), 2),
        }  # fmt: skip
        print(json.dumps({method: result[method]}), flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "measured.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
