"""A new user's folder: photographs and what lies beside them, one command, no network; the run's page in a browser."""

import json
import random
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from lit_gans import cli
from lit_gans.callbacks import page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
         "--no-first-run", "--disable-component-update", "--disable-sync",
         "--allow-file-access-from-files"]  # fmt: skip
WIDTHS = (390, 1280)
SHORT = {"model.init_args.total_kimg": 0.64, "model.init_args.resolution": 16, "model.init_args.channel_max": 16,
         "image_grid.every_kimg": 0.064, "image_grid.columns": 6, "image_grid.rows": 4, "report.every_kimg": 0.064,
         "evaluate.every_kimg": 0.32, "evaluate.num_images": 20, "trainer.accelerator": "cpu"}  # fmt: skip
# Each page in a frame of its width; what the browser made of it becomes the text of the whole.
MEASURED = """<!doctype html><meta charset="utf-8"><body>{frames}<script>
onload = () => {{ document.body.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
  const page = frame.contentDocument, shown = element => element.getClientRects().length > 0;
  return {{
    width: page.scrollingElement.scrollWidth, state: page.querySelector(".state").innerText,
    marks: [...page.querySelectorAll(".timeline input")].filter(shown).length,
    grids: [...page.querySelectorAll(".timeline img")].filter(shown).length,
    broken: [...page.images].filter(image => !image.complete || !image.naturalWidth).length,
    cut: [...page.querySelectorAll("pre span")].filter(word => word.getClientRects().length != 1).length,
    plots: page.querySelectorAll("svg").length, words: page.body.innerText,
  }}; }})) }}
</script></body>"""


def photograph(number: int, size: tuple[int, int]) -> Image.Image:
    """A hill, a sun and a sky of two colours."""
    dice, (width, height) = random.Random(number), size
    ends = [(dice.randrange(60, 160), dice.randrange(160, 255)) for _ in range(3)]
    sky = Image.linear_gradient("L").resize(size)
    picture = Image.merge("RGB", [sky.point([a + (b - a) * v // 255 for v in range(256)]) for a, b in ends])
    draw, radius = ImageDraw.Draw(picture), dice.uniform(0.1, 0.25) * height
    x, y = dice.uniform(0.3, 0.7) * width, dice.uniform(0.2, 0.5) * height
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(250, dice.randrange(180, 240), 110))
    hill = [(0, height), (0, height * 0.7), (x, height * dice.uniform(0.4, 0.8)), (width, height * 0.6), size]
    draw.polygon(hill, fill=tuple(dice.randrange(20, 110) for _ in range(3)))
    return picture.filter(ImageFilter.GaussianBlur(1))


def fill(folder: Path) -> None:
    """40 photographs in three shapes, and what cameras, systems and people leave beside them."""
    (folder / ".trash").mkdir(parents=True)
    for i in range(40):
        photograph(i, ((160, 120), (120, 160), (200, 133))[i % 3]).save(folder / f"IMG_{i:04}.jpg", quality=92)
    photograph(99, (100, 100)).save(folder / ".trash" / "IMG_0099.jpg")
    (folder / "IMG_0100.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(range(256)) * 8)
    (folder / "IMG_0101.jpg").write_bytes((folder / "IMG_0003.jpg").read_bytes()[:700])
    (folder / "IMG_0102.jpg").write_text("this is no picture")
    Image.new("RGB", (3, 2), "red").save(folder / "icon.png")
    (folder / "notes.txt").write_text("from the lake\n")
    for name in (".DS_Store", "._IMG_0001.jpg", "Thumbs.db"):
        (folder / name).write_bytes(b"\0\5\x16\7")


def no_network(*args: Any, **options: Any) -> None:
    raise socket.gaierror("Name or service not known")


def browse(browser: str, folder: Path, *argv: str) -> str:
    """What the browser prints."""
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout


def measured(browser: str, folder: Path, pages: list[Path]) -> list[dict[str, Any]]:
    """What each page looks like at each width, page by page."""
    frames = [f'<iframe src="{path.name}" width="{width}" height="900"></iframe>' for path in pages for width in WIDTHS]
    (folder / "all.html").write_text(MEASURED.format(frames="".join(frames)))
    told = browse(browser, folder, "--dump-dom", (folder / "all.html").as_uri())
    return json.loads(told[told.index("[{") : told.rindex("]") + 1].replace("&amp;", "&"))


def screenshot(browser: str, folder: Path, path: Path, width: int) -> np.ndarray:
    """Its pixels, [H, W, 3]."""
    shot = folder / f"{path.stem}-{width}.png"
    browse(browser, folder, f"--screenshot={shot}", f"--window-size={width},2400", path.as_uri())
    return np.asarray(Image.open(shot).convert("RGB")).astype(int)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_junk_folder_trains_and_its_page_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    fill(tmp_path / "holiday")
    pages = train(tmp_path, monkeypatch)
    said = capsys.readouterr().err
    assert "used     40 pictures (40 .jpg)" in said and "1 .heic, 1 .txt" in said and "3 that cannot be used" in said

    shares = [(0.1, "training", 2), (0.5, "training", 6), (1.0, "finished", 11)]
    seen = measured(browser, tmp_path, pages)
    for found, (share, state, marks), width in zip(seen, [s for s in shares for _ in WIDTHS], WIDTHS * 3, strict=True):
        assert (found["width"], found["state"], found["broken"], found["cut"]) == (width, state, 0, 0), share
        assert (found["marks"], found["grids"]) == (marks, 1), share
        assert f"{share * 0.64:.4g} of 0.64 kimg" in found["words"] and "left out" in found["words"]
        assert "--config stylegan2/photos --data.init_args.path=holiday" in found["words"] or state == "finished"
        assert (found["plots"] > 6) == (share > 0.1) and ("Not evaluated yet" in found["words"]) == (share < 0.5)
    for path in pages:
        for width in WIDTHS:
            pixels = screenshot(browser, tmp_path, path, width)
            assert pixels.shape == (2400, width, 3) and (pixels[:, -8:] == 255).all()
            assert 0.2 < (pixels == 255).all(axis=2).mean() < 0.97 and (pixels < 100).all(axis=2).mean() > 0.003


def train(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The page at a tenth, at the half and at the end of a run in `folder` by the one command."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LIT_GANS_CACHE", str(folder / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(page, "COSTS", 0)  # a page for every grid, though pages take long beside so short a training
    kept: list[Path] = []

    def write_page(run: Path, **options: Any) -> Path:
        kept.append(shutil.copy(write(run, **options), folder / f"page-{len(kept)}.html"))
        return run / "index.html"

    write = page.write_page
    monkeypatch.setattr(page, "write_page", write_page)
    argv = ["fit", "--config", "stylegan2/photos", "--data.init_args.path=holiday"]
    assert cli.main([*argv, *(f"--{name}={value}" for name, value in SHORT.items())]) == 0
    end = shutil.copy(folder / "runs" / "stylegan2-photos" / "index.html", folder / "page-end.html")
    return [kept[1], kept[5], end]
