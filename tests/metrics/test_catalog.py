"""The catalog of metrics, and what follows from it."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lit_gans.evaluate import main
from lit_gans.metrics import catalog
from lit_gans.metrics.catalog import CATALOG, Metric, chosen, direction, metric_of, of

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "evaluate.md").read_text()
ARROWS = {"lower": "↓", "higher": "↑"}


def row(metric: Metric) -> str:
    """The metric's line in the page's table."""
    names = " ".join(f"`{name}`" for name in (*metric.also, metric.name))
    numbers = " ".join(f"`{name}` {ARROWS[better]}" for name, better in metric.numbers.items())
    return f"| {names} | {numbers} | {metric.help} |"


def test_the_page_has_every_metric() -> None:
    table = [line for line in PAGE.splitlines() if line.startswith("| `") and line.split("|")[2].strip()[-1:] in "↓↑"]
    assert table == [row(metric) for metric in CATALOG.values()]


def test_help_names_what_can_be_asked_for(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for kind in ("samples", "translations", "pairs", "captions") for name in of(kind))


@pytest.mark.parametrize("metric", CATALOG.values(), ids=CATALOG)
def test_every_metric_can_be_built_and_is_of_something(metric: Metric) -> None:
    module, function = metric.build.split(":")
    assert callable(getattr(import_module(f"lit_gans.metrics.{module}"), function))
    assert metric.name == "r_precision" or any(metric.name in of(kind) for kind in catalog.OFFERS)


def test_numbers_are_found_by_their_longest_beginning() -> None:
    found = [metric_of(name).name for name in ("fid_ba", "ms_ssim", "precision_k5", "mean_iou_ba", "rfid", "swd_16")]
    assert found == ["frechet", "ms_ssim", "precision", "segmentation", "random_frechet", "swd"]
    assert metric_of("loss_d") is None and metric_of("isolation") is None
    assert (direction("mean_iou"), direction("is_std"), direction("pd_vgg16")) == ("higher", None, "lower")


def test_what_is_not_measured_of_a_kind_is_refused_with_what_is() -> None:
    assert chosen(["fid", "kid"], "translations") == ("frechet", "kid")
    with pytest.raises(ValueError, match=r"metrics \['swd'\]: choose one or more of psnr, ssim"):
        chosen(["swd"], "translations")


def test_it_is_read_without_torch() -> None:
    code = "import sys, lit_gans.metrics.catalog, lit_gans.metrics.protocol; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
