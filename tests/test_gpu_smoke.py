"""The script that is run on a GPU works: here in small, so that it does on the day when there is one."""

import pytest

from lit_gans import papers
from tests import gpu_smoke


def test_every_paper_is_in_it() -> None:
    assert {run.model for run in gpu_smoke.RUNS.values()} == set(papers.__all__)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name == "cyclegan" else pytest.mark.slow)
    for name in gpu_smoke.RUNS
])  # fmt: skip
def test_each_trains_goes_on_and_is_measured(name: str, capsys: pytest.CaptureFixture) -> None:
    assert gpu_smoke.main(["--small", "--only", name]) == 0, capsys.readouterr().out
    assert f"ok     {name}" in capsys.readouterr().out


def test_one_that_fails_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def attempt(run: gpu_smoke.Run, *args: object, **settings: object) -> str:
        if run.model == "DCGAN":
            raise RuntimeError("out of memory")
        return "fine"

    monkeypatch.setattr(gpu_smoke, "attempt", attempt)
    assert gpu_smoke.main(["--only", "gan", "dcgan"]) == 1
    told = capsys.readouterr().out
    assert told.count("FAILED dcgan") == 6 and told.count("ok     gan") == 6 and "RuntimeError: out of memory" in told
