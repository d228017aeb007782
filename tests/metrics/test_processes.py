import json
import warnings
from pathlib import Path

import pytest

from lit_gans.metrics import Plan, evaluate_gan
from tests.distributed.launch import run_processes

from .common import PixelFeatures, conditional, digits
from .worker import everything

FEW = ["frechet", "kid", "is", "class_accuracy", "torchmetrics_fid", "torchmetrics_is"]


def alone(**settings) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        plan = Plan(batch_size=8, seed=1, **settings)
        return evaluate_gan(conditional(), digits(), extractor=PixelFeatures(), plan=plan).values


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_find_what_one_finds(world: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gans.metrics.extractors.RandomInception", None)  # restored after `everything`
    outputs = run_processes(world, ["-m", "tests.metrics.worker", str(tmp_path / "statistics")])
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    one = {
        "odd": alone(num_images=61),
        "few": alone(num_images=2, num_real=50, metrics=FEW),
    }
    for case, count in (("odd", 61), ("kept", 61), ("few", 2)):
        for process in found:
            assert process[case]["values"] == pytest.approx(one.get(case, one["odd"]), rel=1e-6)
        seeds = [seed - 10**9 for process in found for seed in process[case]["seeds"]]
        assert sorted(seeds) == list(range(count))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = everything()
    for rank, process in enumerate(found):
        wanted = {name: value for name, value in expected.items() if rank == 0 or name != "pictures"}
        assert process["all"] == pytest.approx(wanted, rel=1e-6), rank
    assert sum(process["odd"]["extracted"] for process in found) == 1797 + 61
    assert sum(process["kept"]["extracted"] for process in found) == 61
    assert len({process["classifier"] for process in found}) == 1
    assert [process["failure"] for process in found] == [
        "ValueError: nothing there",
        *["RuntimeError: process 0 failed: ValueError: nothing there"] * (world - 1),
    ]
