"""The page: one file, safe whatever the runs' files say, and it looks like something in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_gans.compare import compare
from lit_gans.runs.pages import picture
from tests.test_compare import evaluation, write_run

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "img", "wbr"}


class Reader(HTMLParser):
    """The tags, attributes and text of a page; fails where a tag is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text, self._open = [], [], "", []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._open += [tag] if tag not in VOID else []

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def run(folder: Path, *, shift: float = 0.0, n_fake: int = 1000, lr: float = 0.1) -> Path:
    """Three evaluations, a speed, grids."""
    lines = [
        evaluation(k, {"n_fake": n_fake}, fid=90 / k**2 + shift, recall_k5=k / 10, class_accuracy=k / 8)
        for k in (1, 3, 6)
    ]
    speed = {"kimg": 6.0, "time_s": 130.0, "s_per_kimg": 2000.0}
    write_run(folder, *lines, speed, lr=lr)
    (folder / "samples").mkdir()
    grid = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    for name in ("latest", "fakes-00003.000", "fakes-00006.016", "reals"):
        Image.fromarray(grid).save(folder / "samples" / f"{name}.png")
    return folder


def test_the_page_shows_ranking_curves_samples_and_differences(tmp_path: Path) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", shift=1.0, lr=0.2), run(tmp_path / "c", n_fake=300)]
    output = tmp_path / "deep" / "compare.html"
    compare(runs, output=output)
    page = Reader(output.read_text())
    for wanted in ("Ranking", "Curves", "Samples", "Protocol differences", "Config differences", "Runs"):
        assert wanted in page.text
    assert "not ranked: n_fake 1000 / 300 (A: a, b | B: c) for fid, recall_k5, class_accuracy" in page.text
    assert page.tags.count("svg") == 6 and page.tags.count("img") == 4  # three metrics by kimg and hours; reals once
    assert "model.init_args.lr" in page.text and "run_folder" not in page.text and "class_path" not in page.text
    assert "a at 6.016 kimg" in page.text and "real images (a, b, c)" in page.text
    best = page.attributes.count(("class", "best"))
    assert best == page.text.count("1A") == 5  # a in fid; a and b, which tie, in the two others
    colours = [value for name, value in page.attributes if name == "style" and value.startswith("color:")]
    assert set(colours) == {"color:#0072b2", "color:#d55e00", "color:#009e73"}


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    compare([run(tmp_path / "a")], output=tmp_path / "compare.html")
    page = Reader((tmp_path / "compare.html").read_text())
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "data", "action")]
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.tags)
    assert any(name == "content" and value.startswith("default-src 'none'; ") for name, value in page.attributes)
    assert not re.search(r"url\((?!#)|@import", (tmp_path / "compare.html").read_text())
    assert not list(tmp_path.glob(".*"))


def test_what_files_say_is_text_and_never_markup(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "<script>a$x$",
        evaluation(1, {"split": EVIL, "skipped": {EVIL: EVIL}, "versions": {EVIL: "1"}}, fid=1.0),
        evaluation(2, {EVIL: f'"{EVIL}'}, **{f"fid_{EVIL}": 2.0, 'fid" onload="x': 3.0, "fid": 1.0}),
    )
    (folder / "config.yaml").write_text(f"'{EVIL}': '{EVIL}'\nmodel: {{class_path: '{EVIL}'}}\n")
    (folder / "run.json").write_text('{"starts": [{"commit": "<img src=x onerror=alert(1)>", "hardware": ["<b>"]}]}')
    compare([folder, run(tmp_path / "b")], output=tmp_path / "compare.html")
    page = Reader((tmp_path / "compare.html").read_text())
    assert page.text.count(EVIL) > 5 and "<img src=x onerror=alert(1)>" in page.text
    assert not {"script", "b"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_missing_samples_and_evaluations_leave_a_page(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a"), write_run(tmp_path / "b", {"kimg": 1.0, "time_s": 5.0, "loss_d": 1.0})
    (a / "samples" / "latest.png").write_bytes((a / "samples" / "latest.png").read_bytes()[:200])
    compare([a, b], output=tmp_path / "compare.html")
    page = Reader((tmp_path / "compare.html").read_text())
    assert page.text.count("no readable samples/latest.png") == 2 and "b: no evaluation yet" in page.text
    compare([b], output=tmp_path / "compare.html")
    page = Reader((tmp_path / "compare.html").read_text())
    assert "1 target, 0 metrics." in page.text and "svg" not in page.tags


def test_large_grids_are_reduced(tmp_path: Path) -> None:
    a = run(tmp_path / "a")
    noise = np.random.default_rng(0).integers(0, 255, (600, 1500), dtype=np.uint8)
    Image.fromarray(noise).save(a / "samples" / "latest.png")
    assert len(picture(a / "samples" / "latest.png")) < (a / "samples" / "latest.png").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 600])
def test_a_browser_shows_the_page(tmp_path: Path, width: int) -> None:
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")
    compare([run(tmp_path / "a"), run(tmp_path / "b", shift=1.0, lr=0.2)], output=tmp_path / "compare.html")
    picture = tmp_path / "page.png"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--no-first-run",
    ]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += [f"--screenshot={picture}", f"--window-size={width},2400", (tmp_path / "compare.html").as_uri()]
    subprocess.run([browser, *flags], check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape == (2400, width, 3)
    assert (pixels == 255).all(axis=2).mean() > 0.3 and (pixels < 100).all(axis=2).mean() > 0.003  # dark text on white
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # the two targets' curves and marks
        assert (abs(pixels - colour).max(axis=2) < 8).sum() > 500
    assert (pixels[:, -8:] == 255).all()  # nothing runs over the right edge
