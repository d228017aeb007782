import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_gans.compare import compare, main

PROTOCOL = {"extractor": "digits", "n_fake": 1000, "n_real": 1797, "split": "train", "seed": 0}


def evaluation(kimg: float, protocol: dict[str, Any] | None = None, **values: float) -> dict[str, Any]:
    stamp = {**PROTOCOL, "images_seen": round(kimg * 1000), "versions": {"torch": "2.14.1"}, **(protocol or {})}
    return {"kimg": kimg, "time_s": 100.0 + kimg, **values, "protocol": stamp}


def write_run(folder: Path, *lines: dict[str, Any], lr: float = 0.1, starts: int = 1) -> Path:
    """A run folder with these lines as its metrics.jsonl."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {"run_folder": str(folder), "model": {"class_path": "lit_gans.papers.CGAN", "init_args": {"lr": lr}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "run.json").write_text(json.dumps({"starts": [{"commit": "abc", "hardware": "CPU"}] * starts}))
    return folder


def shown(comparison: Any, name: str) -> dict[str, tuple[float, int | None]]:
    column = next(column for column in comparison.columns if column.name == name)
    return {label: (cell.number.value, cell.rank) for label, cell in column.cells.items()}


def test_equal_protocols_are_ranked_by_each_metrics_direction(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", evaluation(1, fid=9.0, recall_k5=0.5), evaluation(2, fid=10.0, recall_k5=0.6))
    b = write_run(tmp_path / "b", evaluation(2, fid=7.0, recall_k5=0.6))
    c = write_run(tmp_path / "c", evaluation(2, fid=8.0, recall_k5=0.1, novelty=3.0))
    found = compare([a, b, c])
    assert shown(found, "fid") == {"a": (10.0, 3), "b": (7.0, 1), "c": (8.0, 2)}
    assert shown(found, "recall_k5") == {"a": (0.6, 1), "b": (0.6, 1), "c": (0.1, 3)}
    assert shown(found, "novelty") == {"c": (3.0, None)}
    best = found.columns[0].cells["a"].best
    assert (best.value, best.kimg) == (9.0, 1) and found.refusals == []
    assert [target.label for target in found.targets] == ["b", "c", "a"] and found.given == ["a", "b", "c"]
    assert [column.name for column in compare([a, b], metrics=["recall_k5"]).columns] == ["recall_k5"]


def test_different_protocols_are_shown_but_not_ranked_and_every_field_is_named(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", evaluation(2, fid=10.0))
    b = write_run(tmp_path / "b", evaluation(2, {"n_fake": 5000, "psi": 0.7}, fid=7.0))
    found = compare([a, b])
    assert shown(found, "fid") == {"a": (10.0, None), "b": (7.0, None)}
    assert found.refusals == ["not ranked: n_fake 1000 / 5000, psi none / 0.7 (A: a | B: b) for fid"]
    c = write_run(tmp_path / "c", evaluation(2, fid=11.0))
    d = write_run(tmp_path / "d", evaluation(2, {"n_fake": 5000, "psi": 0.7}, fid=6.0))
    assert shown(compare([a, b, c]), "fid") == {"a": (10.0, 1), "b": (7.0, None), "c": (11.0, 2)}
    four = compare([a, b, c, d])
    assert shown(four, "fid") == {"a": (10.0, 1), "b": (7.0, 2), "c": (11.0, 2), "d": (6.0, 1)}
    assert [target.label for target in four.targets] == ["a", "c", "d", "b"]


def test_settings_of_one_number_forbid_ranking_that_number_only(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", evaluation(2, {"numbers": {"kid": {"subsets": 10}}}, fid=10.0, kid=0.1))
    b = write_run(tmp_path / "b", evaluation(2, {"numbers": {"kid": {"subsets": 100}}}, fid=7.0, kid=0.2))
    found = compare([a, b])
    assert shown(found, "fid") == {"a": (10.0, 2), "b": (7.0, 1)}
    assert found.refusals == ["not ranked: subsets 10 / 100 (A: a | B: b) for kid"]


def test_the_protocol_that_all_share_is_shown_and_a_later_one_is_noted(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, evaluation(2, fid=value)) for name, value in (("a", 10.0), ("b", 7.0)))
    later = {
        "target": str(a),
        "time_s": 900.0,
        "fid": 5.0,
        "protocol": {**PROTOCOL, "n_fake": 50_000, "images_seen": 2000},
    }
    (a / "evaluations.jsonl").write_text(json.dumps(later) + "\n")
    found = compare([a, b])
    assert shown(found, "fid") == {"a": (10.0, 2), "b": (7.0, 1)} and found.refusals == []
    assert (
        "a: a later evaluation is not shown, since not all targets have its protocol: n_fake 50000, shown 1000 (fid)"
        in (found.notes)
    )
    (b / "evaluations.jsonl").write_text(json.dumps({**later, "target": str(b), "fid": 4.0}) + "\n")
    assert shown(compare([a, b]), "fid") == {"a": (5.0, 2), "b": (4.0, 1)}


def test_versions_and_what_was_left_out_are_notes(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", evaluation(2, fid=10.0))
    b = write_run(
        tmp_path / "b", evaluation(2, {"versions": {"torch": "2.11.0"}, "skipped": {"is": "no classes"}}, fid=7.0)
    )
    found = compare([a, b])
    assert shown(found, "fid")["b"] == (7.0, 1) and found.refusals == []
    assert "measured with different versions of torch: 2.14.1 (a), 2.11.0 (b)" in found.notes
    assert "b: is was left out: no classes" in found.notes


def test_a_result_file_has_a_row_per_target(tmp_path: Path) -> None:
    lines = [
        {"target": f"runs/{name}", "time_s": 1.0, "fid": fid, "protocol": PROTOCOL}
        for name, fid in (("x", 3), ("y", 2))
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert shown(compare([tmp_path / "results.jsonl"]), "fid") == {"x": (3.0, 2), "y": (2.0, 1)}
    run = write_run(tmp_path / "a", evaluation(2, fid=2.5))
    both = compare([run / "metrics.jsonl", tmp_path / "results.jsonl"])
    assert shown(both, "fid") == {"a/metrics.jsonl": (2.5, 2), "x": (3.0, 3), "y": (2.0, 1)}


def test_labels_tell_runs_of_one_name_apart(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / f"{which}/run", evaluation(2, fid=1.0)) for which in ("old", "new")]
    assert compare([*paths, paths[0]]).given == ["old/run", "new/run"]
    assert compare([write_run(tmp_path / "x\x1b[31m", evaluation(1, fid=1.0))]).given == ["x?[31m"]


def test_hours_leave_out_the_stop_between_sessions(tmp_path: Path) -> None:
    speeds = [
        {"kimg": 4.0, "time_s": 100.0, "s_per_kimg": 900.0},
        {"kimg": 6.0, "time_s": 90_000.0, "s_per_kimg": 1800.0},
    ]
    run = write_run(tmp_path / "a", *speeds, evaluation(6.5, fid=1.0), starts=2)
    clock = compare([run]).targets[0].clock
    assert clock[:3] == [(0.0, 0.0), (4.0, 1.0), (6.0, 2.0)] and clock[-1] == (6.5, 2.25)
    plain = write_run(tmp_path / "b", evaluation(1.0, fid=2.0), {"kimg": 2.0, "time_s": 101.0 + 7200})
    found = compare([plain])
    assert found.targets[0].clock == [(1.0, 0.0), (2.0, 2.0)]
    assert found.notes == ["b: hours are wall-clock since its first line, with any stops (it recorded no s_per_kimg)"]


def test_damage_is_noted_and_the_rest_is_compared(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", evaluation(1, fid=2.0), evaluation(2, fid=math.nan))
    with (a / "metrics.jsonl").open("ab") as file:
        file.write(
            b'[1, 2]\n3\n{"kimg": 3, "protocol": 7, "fid": 1}\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"kimg": 4.0, "ti'
        )
    (a / "config.yaml").write_text("model: [unfinished")
    (a / "run.json").write_text('{"starts": ')
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text("seed_everything: 0\n")
    found = compare([a, empty, write_run(tmp_path / "b", evaluation(2, fid=3.0))])
    assert found.notes[:4] == [
        "a: 6 unreadable lines of metrics.jsonl left out",
        "a: hours are wall-clock since its first line, with any stops (it recorded no s_per_kimg)",
        "a: config.yaml is not readable YAML",
        "a: run.json is not readable",
    ]
    assert "empty: no evaluation yet" in found.notes
    assert math.isnan(shown(found, "fid")["a"][0]) and shown(found, "fid")["b"] == (3.0, None)
    assert found.columns[0].cells["a"].best.value == 2.0
    assert found.as_dict()["metrics"]["fid"]["targets"]["a"]["value"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/nowhere"], "nowhere does not exist: give a run folder or a .jsonl file of results"),
        (["{}/other"], "other is not a run folder: it has none of config.yaml, metrics.jsonl"),
        (["{}/file.txt"], "file.txt is neither a run folder nor a .jsonl file of results"),
        (["{}/a", "--metric", "fidd"], "no target has the metric 'fidd'; measured: fid"),
        (["{}/a", "--output", "{}/other"], "other"),
    ],
)
def test_what_the_user_can_mend_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    write_run(tmp_path / "a", evaluation(1, fid=2.0))
    (tmp_path / "other").mkdir()
    (tmp_path / "file.txt").write_text("")
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lit-gans compare: ") and message in error and error.count("\n") == 1
    with pytest.raises(ValueError, match="give a list of one or more run folders"):
        compare(str(tmp_path / "a"))


def test_the_command_prints_a_table_and_strict_refuses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    a = write_run(tmp_path / "[red]a", evaluation(1, fid=2.5), evaluation(2, fid=3.0))
    b = write_run(tmp_path / "b", evaluation(2, {"n_fake": 5000}, fid=2.0))
    assert main([str(a), str(b)]) == 0
    printed = capsys.readouterr().out
    assert "fid ↓" in printed and "best 2.5" in printed and "[red]a" in printed
    assert "not ranked: n_fake 1000 / 5000 (A: [red]a | B: b) for fid\n" in printed
    assert main([str(a), str(b), "--strict"]) == 1 and main([str(a), "--strict"]) == 0
    capsys.readouterr()
    assert main([str(a), str(b), "--json", "--metric", "fid"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["fid"]["differing"] == {"n_fake": [1000, 5000]}
    assert found["metrics"]["fid"]["targets"]["[red]a"]["best"] == {"value": 2.5, "kimg": 1.0}


def test_importing_the_verb_imports_nothing_heavy() -> None:
    code = (
        "import sys, lit_gans.compare; assert not {'torch', 'numpy', 'matplotlib', 'yaml', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def tables_of(tmp_path: Path) -> dict[str, str]:
    """The three files of a comparison with two protocols, a missing value, and labels that are markup everywhere."""
    runs = [
        write_run(tmp_path / "a_b|<i>,", evaluation(1, fid=2.5), evaluation(2, fid=3.0, kid=0.5)),
        write_run(tmp_path / "c&d", evaluation(2, fid=2.25)),
        write_run(tmp_path / "e", evaluation(2, {"n_fake": 5000}, fid=1.0)),
    ]
    paths = {kind: tmp_path / f"table.{kind}" for kind in ("csv", "markdown", "latex")}
    options = [word for kind, path in paths.items() for word in (f"--{kind}", str(path))]
    assert main([*map(str, runs), *options]) == 0
    return {kind: path.read_text() for kind, path in paths.items()}


def test_tables_for_others_keep_ranks_protocols_and_order(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tables = tables_of(tmp_path)
    rows = list(csv.DictReader(tables["csv"].splitlines()))
    assert [row["target"] for row in rows] == ["c&d", "a_b|<i>,", "e"]
    assert [row["fid_rank"] for row in rows] == ["1", "2", ""] and [row["kid"] for row in rows] == ["", "0.5", ""]
    assert (rows[1]["fid"], rows[1]["fid_best"], rows[1]["fid_best_kimg"]) == ("3.0", "2.5", "1.0")
    assert rows[2]["fid_protocol"] == "extractor digits; n_fake 5000; n_real 1797; split train; seed 0"
    head, rule, *lines = tables["markdown"].splitlines()
    assert (head, rule) == ("| target | kimg | fid ↓ | kid ↓ |", "|---|---:|---:|---:|")
    assert lines[0] == "| c&amp;d | 2 | **2.25** (1A) | - |" and lines[2] == "| e | 2 | 1 (B) | - |"
    assert lines[1] == r"| a\_b\|&lt;i>, | 2 | 3 (2A) | 0.5 |"
    assert r"- protocol B of fid: extractor digits; n\_fake 5000; n\_real 1797; split train; seed 0" in lines
    assert any(line.startswith(r"- not ranked: n\_fake 1000 / 5000 (A: ") for line in lines)
    assert r"a\_b\textbar{}\textless{}i\textgreater{}, & 2 & 3 (2A) & 0.5 \\" in tables["latex"]
    assert r"c\&d & 2 & \textbf{2.25} (1A) & - \\" in tables["latex"] and r"fid $\downarrow$" in tables["latex"]
    assert r"protocol B of fid: extractor digits; n\_fake 5000;" in tables["latex"]
    capsys.readouterr()
    assert main([str(tmp_path / "e"), "--csv", "-"]) == 0
    assert capsys.readouterr().out.startswith("target,path,kimg,fid,fid_rank,fid_best,fid_best_kimg,fid_protocol\ne,")


def test_another_protocol_hides_no_history(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", *(evaluation(k, fid=10.0 - k) for k in (1, 2, 3)))
    once = {"time_s": 900.0, "fid": 5.0, "protocol": {**PROTOCOL, "n_fake": 50_000, "images_seen": 3000}}
    (a / "evaluations.jsonl").write_text(json.dumps(once) + "\n")
    (column,) = compare([a]).columns
    assert column.cells["a"].number.value == 5.0
    assert [[number.value for number in family["a"]] for family in column.series] == [[5.0], [9.0, 8.0, 7.0]]
    output = tmp_path / "page.html"
    compare([a], output=output)
    assert "solid: n_fake 50000; dashed: n_fake 1000" in output.read_text()
