"""The tests of this folder on other files than the golden ones: what they find out, and what they refuse by name."""

import json
import os
import pkgutil
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests import parity
from tests.parity.golden import COMPARED, FOLDER, files
from tests.parity.variants import Recorder, biggan, grown, measures, r3gan, stylegan, text, translators

ROOT = Path(__file__).parents[2]
VARIANTS = (stylegan, biggan, grown, translators, text, measures, r3gan)
WRITERS = [write for module in VARIANTS for write in module.FAMILIES]
Outcomes = dict[str, tuple[str, str]]  # what happened, and what was said of it, by "<test>[<file>]"


def outcomes(folder: Path, *options: str, required: bool = False) -> Outcomes:
    """Of all tests of this folder but those here, on the files of another one."""
    report = folder.parent / "report.xml"
    command = [sys.executable, "-m", "pytest", "tests/parity", f"--ignore={Path(__file__)}", f"--junitxml={report}"]
    environment = os.environ | {"LIT_GANS_GOLDEN": str(folder), "LIT_GANS_REQUIRE_GOLDEN": str(int(required))}
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout  # no error of collection
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        said = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = ("passed", "") if said is None else (said.tag, said.get("message", ""))
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all variants."""
    recorder = Recorder(tmp_path_factory.mktemp("variants") / "golden")
    for write in WRITERS:
        write(recorder)
    return recorder.folder


@pytest.mark.slow
def test_other_configurations_are_found_in_the_metadata(written: Path) -> None:
    found = outcomes(written)
    assert not {name: said for name, said in found.items() if said[0] not in ("passed", "skipped")}
    compared = [name.partition("[")[2] for name, said in found.items() if said[0] == "passed"]
    for path in written.iterdir():
        assert any(case.startswith(path.stem) for case in compared), f"{path.stem} was compared by no test"


# What is changed in the configuration of a file, and what must be said of it.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("ada-alone", {"stretch_std": 0.2}, "stretch_std"),
    ("ada-alone", {"groups": {"geometry": ["noise"], "hue": ["hue"]}}, "noise"),
    ("ops-up", {"cases": {"a": {"fn": "upfirdn2d", "filter": None, "dilate": 2}}}, "dilate"),
    ("ops-fc", {"activation": "gelu"}, "activation 'gelu'"),
    ("sg2-g-skip", {"synthesis_kwargs": {"activation": "relu"}}, "activation is 'relu'"),
    ("sg2-g-skip", {"img_depth": 3}, "'img_depth' is no argument"),
    ("sg2-g-skip", {"mapping_kwargs": {"w_avg_beta": None}}, "w_avg_beta is None"),
    ("sg2-d-orig", {"block_kwargs": {"freeze_layers": 2}}, "freeze_layers is 2"),
    ("sg2-loss", {"loss": {"style_mixing_prob": 0.9}}, "style_mixing_prob is 0.9"),
    ("sg2-loop", {"augment_p": 0.1}, "'augment_p' is no argument"),
    ("sg3-g", {"lrelu_upsampling": 4}, "lrelu_upsampling is 4"),
    ("ops-flrelu", {"cases": {"a": {"fu": "fu", "fd": "fd", "dilate": 2}}}, "dilate"),
    ("pggan-generator", {"use_wscale": False}, "use_wscale is False"),
    ("stylegan-generator", {"noise_type": "vertex"}, "noise_type is 'vertex'"),
    ("biggan-tables", {"bottom_width": 8}, "bottom_width is 8"),
    ("biggan-nonorm", {"norm_style": "gn"}, "norm_style is 'gn'"),
    ("biggan-thin", {"output_dim": 2}, "output_dim is 2"),
    ("msg-d", {"use_spectral_norm": True}, "'use_spectral_norm' is no argument"),
    ("translator-patch", {"norm": "spectral"}, "norm 'spectral'"),
    ("translator-patch", {"use_sigmoid": True}, "'use_sigmoid' is no argument"),
    ("translator-losses", {"target_real_label": 0.9}, "target_real_label is 0.9"),
    ("pix2pix-lsgan", {"gan_mode": "hinge"}, "gan_mode is 'hinge'"),
    ("cyclegan-lsgan", {"gan_mode": "hinge"}, "gan_mode is 'hinge'"),
    ("hd-global", {"padding_type": "zero"}, "padding_type is 'zero'"),
    ("hd-judge-lsgan", {"use_lsgan": False}, "use_lsgan is false"),
    ("stack-1", {"B_DCGAN": True}, "'B_DCGAN' is no argument"),
    ("tree-g1", {"STAGES": 2}, "'STAGES' is no argument"),
    ("attn-g", {"B_DCGAN": True}, "'B_DCGAN' is no argument"),
    ("attn-rnn", {"nlayers": 2}, "nlayers is 2"),
]


def changed(
    path: Path, target: Path, config: dict[str, Any], *, call: dict[str, Any] | None = None, **outputs: torch.Tensor
) -> None:
    """The file with another configuration or call, and further outputs."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for field, changes in {"config": config, "call": call or {}}.items():
        metadata[field] = json.dumps(json.loads(metadata[field]) | changes)
    save_file(load_file(path) | {f"out/{name}": t for name, t in outputs.items()}, target, metadata)


@pytest.mark.slow
def test_what_is_not_understood_fails_by_name(written: Path, tmp_path: Path) -> None:
    """An argument without a counterpart, an output that nothing computes; a file that cannot be read harms no other."""
    folder, expected = tmp_path / "golden", {}
    folder.mkdir()
    for i, (stem, config, message) in enumerate(REFUSED):
        changed(written / f"{stem}.safetensors", folder / f"{i}-{stem}.safetensors", config)
        expected[f"{i}-{stem}"] = message
    for path in written.iterdir():
        changed(path, folder / f"more-{path.name}", {}, unheard=torch.zeros(1))
        expected[f"more-{path.stem}"] = "computed by nothing here: unheard"
    unet, trained = written / "translator-unet.safetensors", folder / "trained.safetensors"
    changed(unet, trained, {}, call={"modes": ["train"]})
    expected["trained"] = "use_dropout"
    (folder / "damaged.safetensors").write_bytes(b"cut off")
    found = outcomes(folder)
    for stem, message in expected.items():
        said = [failure for name, (what, failure) in found.items() if f"[{stem}" in name and what == "failure"]
        assert any(message in failure for failure in said), f"{stem}: {message!r} is not in {said}"


@pytest.mark.slow
def test_of_an_empty_folder_every_test_says_that_nothing_is_there(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    found = outcomes(tmp_path / "golden", "-k", "absent")
    assert len(found) > 50
    for name, (what, reason) in found.items():
        assert what == "skipped" and "no " in reason, f"{name}: {what}, {reason}"


@pytest.mark.slow
def test_of_a_folder_with_one_file_all_other_tests_fail_where_files_are_required(written: Path, tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    shutil.copy(written / "ops-fc.safetensors", tmp_path / "golden")
    found = outcomes(tmp_path / "golden", "-k", "absent or ops", required=True)
    assert found.pop("tests.parity.test_stylegan_ops::test_equalized_linear[ops-fc]") == ("passed", "")
    assert len(found) > 50
    for name, (what, reason) in found.items():
        assert what == "failure" and "no " in reason, f"{name}: {what}, {reason}"


def test_every_golden_file_of_our_papers_is_compared() -> None:
    """Of the official repositories whose papers are here; files of others wait for theirs."""
    for module in pkgutil.iter_modules(parity.__path__):
        import_module(f"{parity.__name__}.{module.name}")
    assert all(golden.path is not None for golden in files()), [g.metadata for g in files() if g.path is None]
    repositories = ("NVlabs/stylegan2-ada-pytorch", "genforce/genforce", "junyanz/pytorch-CycleGAN-and-pix2pix")
    repositories += ("NVIDIA/pix2pixHD", "hanzhanggit/StackGAN", "taoxugit/AttnGAN", "akanimax/BMSG-GAN",
                     "NVlabs/stylegan3", "autonomousvision/projected-gan", "ajbrock/BigGAN-PyTorch",
                     "brownvc/R3GAN")  # fmt: skip
    ours = {golden.path for golden in files() if golden.source.removeprefix("github.com/").startswith(repositories)}
    if not ours:
        pytest.skip(f"no golden files in {FOLDER}")
    assert not {path.stem for path in ours - COMPARED}
