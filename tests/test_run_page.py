"""The page of a run: one file, safe whatever the run's files say."""

import json
from pathlib import Path

from PIL import Image

from lit_gans.runs.report import write_page
from tests.test_compare_page import EVIL, Reader


def test_what_files_say_is_text_and_never_markup(tmp_path: Path) -> None:
    run = tmp_path / "<script>a"
    (run / "samples").mkdir(parents=True)
    Image.new("L", (8, 8)).save(run / "samples" / "latest.png")
    lines = [{"kimg": k, f"loss_d{EVIL} $x": 0.5, "fid": 2.0, "protocol": {EVIL: EVIL}} for k in (1.0, 2.0)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"kimg": 3.0, "lo')
    (run / "config.yaml").write_text(f"model: {EVIL}\n")
    (run / "run.json").write_text(json.dumps({"starts": [{"commit": EVIL}]}))
    page = Reader(write_page(run).read_text())
    assert page.text.count(EVIL) >= 5 and "<script>a" in page.text
    assert {"svg", "img", "table"} <= set(page.tags) and "script" not in page.tags
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    page = Reader(write_page(tmp_path).read_text())
    assert "No figures yet." in page.text and "Not evaluated yet." in page.text


def test_commands_can_be_copied_and_what_numbers_mean_is_plain(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"kimg": 1.0, "precision_k5": 0.5, "protocol": {"n_fake": 5}}))
    page = Reader(write_page(tmp_path, commands={"sample": "lit-gans sample 'a  b' --seeds 0-63"}).read_text())
    assert "lit-gans sample 'a  b' --seeds 0-63" in page.text
    assert "among the reals (by --neighbours); higher is better" in page.text
