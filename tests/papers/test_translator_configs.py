"""The shipped configs of translators train, on stand-in data of the same kind, with narrower networks."""

from pathlib import Path

import pytest
import yaml

from lit_gans import fit
from lit_gans.adversarial import GAN
from lit_gans.runs.configs import shipped_configs
from lit_gans.runs.load import load_run
from tests.cases import each

NAMES = [name for name in shipped_configs() if name.split("/")[0] in ("pix2pix", "cyclegan", "pix2pixhd")]
LIKE_OTHERS = [
    "cyclegan/monet2photo", "cyclegan/young2old64", "cyclegan/horse2zebra", "pix2pixhd/cityscapes512",
    "pix2pixhd/cityscapes_1024_local", "pix2pix/maps", "pix2pix/edges2shoes",
]  # fmt: skip
LABELS = 11  # of ShapePairs' label maps


def arguments(name: str, *, folder: Path) -> list[str]:
    plan = yaml.safe_load(shipped_configs()[name].read_text())
    model = plan["model"]["init_args"]
    paper, resolution = (
        name.split("/")[0],
        64 if name.startswith("pix2pixhd") else plan["data"]["init_args"]["resolution"],
    )
    argv = ["--config", name, "--logger=none", f"--run_folder={folder}", "--model.init_args.width=2"]
    argv += ["--model.init_args.discriminator_width=2", "--model.init_args.total_kimg=0.004"]
    argv += ["--image_grid.columns=3", "--image_grid.rows=1"]
    argv += [f"--data=lit_gans.data.{'ShapeDomains' if paper == 'cyclegan' else 'ShapePairs'}"]
    argv += [f"--data.init_args.{k}={v}" for k, v in {"resolution": resolution, "images": 8, "test_images": 4}.items()]
    argv += ["--data.init_args.batch_size=2"]
    if paper == "pix2pixhd":
        argv += ["--data.init_args.inputs=labels", f"--model.init_args.num_labels={LABELS}"]
        argv += ["--model.init_args.perceptual=null", "--model.init_args.perceptual_weight=0"]
        argv += [f"--model.init_args.{k}=0" for k in ("global_kimg", "fix_global_kimg") if k in model]
        argv += ["--model.init_args.start_from=null"] if "start_from" in model else []
    return argv


@pytest.mark.parametrize("name", each(NAMES, slow=LIKE_OTHERS))
def test_every_shipped_config_trains_two_batches(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit.main(arguments(name, folder=tmp_path / "run")) == 0
    assert f"lit-gans translate {tmp_path / 'run'}" in capsys.readouterr().out
    found = load_run(tmp_path / "run")
    assert found.images_seen == 4 and not isinstance(found, GAN)
    assert (tmp_path / "run" / "samples" / "latest.png").is_file()


def test_all_that_were_announced_are_there() -> None:
    announced = {
        "pix2pix": ("facades", "edges2shoes", "maps", "shapes64"),
        "cyclegan": ("horse2zebra", "monet2photo", "shapes64", "young2old64"),
        "pix2pixhd": ("cityscapes512", "cityscapes_1024_local", "shapes64"),
    }
    assert {f"{paper}/{name}" for paper, names in announced.items() for name in names} <= set(NAMES)
