"""The report that is made by code: read back as what would be sent; nothing is sent."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from lit_gans.dashboard import main
from lit_gans.metrics.protocol import key_of, stamp
from lit_gans.runs import dashboard

PROTOCOL = {"extractor": "inception", "n_fake": 1000, "numbers": {"kid": {"kid_subsets": 100}}}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Of two, equally measured, and of one that was measured with more images."""
    made = []
    for name, n_fake in (("a", 1000), ("b", 1000), ("c", 50_000)):
        lines = [
            {"kimg": 1.0, "time_s": 1.0, "loss_d": 0.5, "augment_p": 0.1, "img_per_s": 20.0},
            {"kimg": 1.0, "time_s": 2.0, "fid": 9.0, "kid": 0.1, "protocol": {**PROTOCOL, "n_fake": 10}},
            {"kimg": 2.0, "time_s": 3.0, "fid": 8.0, "kid": 0.1, "protocol": {**PROTOCOL, "n_fake": n_fake}},
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        made.append(tmp_path / name)
    return made


def test_without_the_package_the_error_names_the_extra(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("wandb_workspaces", "wandb_workspaces.reports", "wandb_workspaces.reports.v2"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main([str(runs[0])]) == 2
    assert "the extra 'dashboards': pip install 'lit-gans[dashboards]'" in capsys.readouterr().err


def spec(runs: list[Path], tmp_path: Path, *more: str) -> dict[str, Any]:
    pytest.importorskip("wandb_workspaces")
    assert main([*map(str, runs), "--project", "p", "--entity", "me", *more, "--to", str(tmp_path / "r.json")]) == 0
    return json.loads((tmp_path / "r.json").read_text())


def parts(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Heading to the grid of panels below it."""
    found, heading = {}, ""
    for block in spec["spec"]["blocks"]:
        if block["type"] == "heading":
            heading = block["children"][0]["text"]
        if block["type"] == "panel-grid":
            found[heading] = block["metadata"]
    return found


def panels(part: dict[str, Any]) -> list[dict[str, Any]]:
    return part["panelBankSectionConfig"]["panels"]


def test_series_stand_in_sections_over_kimg(runs: list[Path], tmp_path: Path) -> None:
    made = spec(runs, tmp_path)
    assert (made["entity"], made["project"], made["title"]) == ("me", "p", "p: runs side by side")
    for section, series in {
        "metrics": ["fid", "kid"],
        "loss": ["loss_d"],
        "augment": ["augment_p"],
        "speed": ["img_per_s"],
    }.items():
        shown = [panel["config"] for panel in panels(parts(made)[section])]
        assert [each["metrics"] for each in shown] == [[f"{section}/{name}"] for name in series]
        assert {each["xAxis"] for each in shown} == {"kimg"}
    pictures = [panel["config"]["mediaKeys"] for panel in panels(parts(made)["Pictures"])]
    assert pictures == [["fakes"], ["reals"], ["walks"]]
    assert "samples" in json.dumps(panels(parts(made)["Samples"]))


def test_runs_are_ranked_among_equal_protocols(runs: list[Path], tmp_path: Path) -> None:
    made = parts(spec(runs, tmp_path, "--metrics", "fid", "kid"))
    compared = [name for name in made if name.startswith("Comparison")]
    keys = {
        (metric, n): key_of(stamp({**PROTOCOL, "n_fake": n}, metric))
        for metric in ("fid", "kid")
        for n in (1000, 50_000)
    }
    assert compared == [f"Comparison: {metric}, protocol {key}" for (metric, _), key in keys.items()]
    for name, ((metric, _), key) in zip(compared, keys.items(), strict=True):
        (runset,) = made[name]["runSets"]
        (only,) = runset["filters"]["filters"]
        assert only["key"] == {"section": "summary", "name": f"protocol/{metric}"} and only["value"] == key
        (order,) = runset["sort"]["keys"]
        assert order == {"key": {"section": "summary", "name": f"metrics/{metric}"}, "ascending": True}
        assert panels(made[name])[0]["config"]["metrics"] == [f"metrics/{metric}"]


def test_the_library_reads_the_report_back(runs: list[Path]) -> None:
    wr = pytest.importorskip("wandb_workspaces.reports.v2")
    report = dashboard.report_of(runs, project="p", entity="me", title="mine")
    model = report._to_model()
    again = wr.Report._from_model(type(model).model_validate(model.model_dump(by_alias=True, exclude_none=True)))
    kinds = [type(block) for block in report.blocks]
    assert [type(block) for block in again.blocks] == kinds and again.title == "mine" and kinds.count(wr.PanelGrid) == 8


def test_what_cannot_be_shown_is_said(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("wandb_workspaces")
    assert main([str(tmp_path)]) == 2
    assert "is no run folder with figures: it has no metrics.jsonl" in capsys.readouterr().err
    assert main([str(runs[0]), "--metrics", "is"]) == 2
    assert "no run has the metric 'is'; measured: fid, kid" in capsys.readouterr().err


def test_nothing_is_sent_by_who_is_not_logged_in_or_not_reached(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    wr = pytest.importorskip("wandb_workspaces.reports.v2")
    monkeypatch.setattr(dashboard, "wandb_is_logged_in", lambda: False)
    assert main([str(runs[0]), "--entity", "me"]) == 2
    assert "not logged in to Weights & Biases: `wandb login`; --to FILE writes" in capsys.readouterr().err

    def refuse(report: Any) -> None:
        raise wandb.errors.CommError("no route")

    monkeypatch.setattr(dashboard, "wandb_is_logged_in", lambda: True)
    monkeypatch.setattr(wr.Report, "save", refuse)
    assert main([str(runs[0]), "--entity", "me"]) == 2
    assert "did not take the report (no route); --to FILE writes the report" in capsys.readouterr().err


def test_a_report_is_the_accounts_unless_another_entity_is_named(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    wr = pytest.importorskip("wandb_workspaces.reports.v2")
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    monkeypatch.setattr(dashboard, "wandb_is_logged_in", lambda: True)
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(default_entity="my-account"))
    monkeypatch.setattr(wr.Report, "save", lambda report: None)
    monkeypatch.setattr(wr.Report, "url", property(lambda report: f"https://wandb.ai/{report.entity}/{report.project}"))
    for named, entity in (([], "my-account"), (["--entity", "a-team"], "a-team")):
        assert main([str(runs[0]), "--project", "p", *named]) == 0
        assert capsys.readouterr().out == f"https://wandb.ai/{entity}/p\n"
