"""The studio in a real browser: the command is started, and its page is used with mouse, keys and files."""

import asyncio
import base64
import io
import subprocess
import sys
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_gans.edit import edit
from lit_gans.editing.directions import Directions, stamp
from lit_gans.runs.pretrained import save_pretrained
from tests.browser import Browser, Page, browsing, button, find_browser
from tests.cases import CASES
from tests.papers import test_cyclegan
from tests.papers.captioned import RED
from tests.papers.test_attngan import attngan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
DRAWN = "document.body.dataset.drawn"
SCRIPT = "document.querySelector('#script').value"
STILL = "!document.querySelector('#busy:not([hidden])')"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved folders of models, and files to upload."""
    folder = tmp_path_factory.mktemp("studio")
    find_browser()
    translator = next(iter(test_cyclegan.CASES.values()))
    built = {"a-styled": CASES["stylegan2"], "dcgan": CASES["dcgan"], "cyclegan": translator, "attngan": attngan}
    for name, build in built.items():
        save_pretrained(build().eval(), folder / "models" / name)
    model = CASES["stylegan2"]().eval()
    one = torch.ones(1)
    vector = torch.nn.functional.normalize(torch.arange(8.0).cos()[None])
    Directions("w", ("smile",), vector, one, one.clone(), one.clone(), settings=stamp(model)).save(
        folder / "ways.safetensors"
    )
    Image.linear_gradient("L").resize((60, 44)).convert("RGB").save(folder / "photo.png")
    (folder / "hostile.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"<script>alert(1)</script>" * 9)
    with zipfile.ZipFile(folder / "hostile.zip", "w") as archive:
        archive.writestr("edit.yaml", "model: x\nstart: {styles: ../../../etc/passwd}\n")
    return folder


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """Where the command, started in a process of its own, is reached."""
    command = [sys.executable, "-m", "lit_gans.studio", home / "models", "--port", "0", "--device", "cpu"]
    command += ["--lpips", "pixels", "--files", home / "ways.safetensors"]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split()[0]
    finally:
        process.terminate()
        process.wait(30)


def used(folder: Path, using: Callable[[Browser], Awaitable[None]]) -> None:
    """`using` with a browser."""

    async def run() -> None:
        async with browsing(folder) as browser:
            await using(browser)

    asyncio.run(run())


async def opened(page: Page, model: str = "a-styled") -> None:
    """Waits for the first picture of a model."""
    await page.until("document.body.dataset.model")
    if model != "a-styled":
        await page.js(
            f"(() => {{ const m = document.querySelector('#model'); m.value = '{model}'; "
            "m.dispatchEvent(new Event('change')); })()"
        )
        await page.until(f"document.body.dataset.model === '{model}'")


async def drawn_after(page: Page, doing: Awaitable[None]) -> None:
    """Does it and waits for the picture that comes of it."""
    before = await page.js(DRAWN)
    await doing
    await page.until(f"Number({DRAWN}) > {before or 0} && !drawing && {STILL}")


async def picture(page: Page) -> bytes:
    """The pixels that it shows."""
    url = await page.js("document.querySelector('#picture').src")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB").tobytes()


async def check_still_well(page: Page, address: str) -> None:
    """Nothing went wrong, nothing was loaded from elsewhere, and nothing is wider than the screen."""
    assert not page.wrong and not await page.js("document.querySelector('#alert').textContent")
    assert all(url.startswith((address, "data:", "blob:", "about:")) for url in page.asked)
    for width in (1280, 390):
        await page.size(width, 900)
        assert await page.js("document.scrollingElement.scrollWidth") == width


def slider(label: str) -> str:
    labels = "[...document.querySelectorAll('.slider label')]"
    return f"{labels}.find(e => e.innerText === '{label}').nextSibling"


def test_sliders_steps_and_scripts(home: Path, address: str, tmp_path: Path) -> None:
    async def using(browser: Browser) -> None:
        async with browser.page(address) as page:
            await opened(page)
            await page.until("[...document.querySelectorAll('#seeds img')].every(e => e.naturalWidth)")
            first = await picture(page)
            await drawn_after(page, page.click(slider("Truncation"), (0.4, 0.5)))
            assert "psi: 0." in await page.js(SCRIPT) and await picture(page) != first
            await drawn_after(page, page.click("document.querySelector('[title=\"seed 5\"]')"))
            await drawn_after(page, page.click(button("+ mix")))
            await drawn_after(page, page.click("document.querySelector('[title=\"layer 0\"]')"))
            await drawn_after(page, page.drag(slider("By"), (0.97, 0.5), (0.5, 0.5)))
            await drawn_after(page, page.click(slider("smile"), (0.9, 0.5)))
            said = await page.js("JSON.stringify([start, steps])")
            assert '"seed":5' in said and '"mix":{"seed":1,"layers":[0' in said and '"direction":{"file"' in said
            own, before = await picture(page), len(await page.js("steps"))
            await drawn_after(page, page.click(button("Undo")))
            assert len(await page.js("steps")) == before - 1 and await picture(page) != own
            await drawn_after(page, page.click(slider("smile"), (0.9, 0.5)))
            await page.downloads_to(tmp_path)
            await page.click(button("Download"))
            while not (tmp_path / "edit.zip").is_file():
                await asyncio.sleep(0.1)
            shown, text = await picture(page), await page.js(SCRIPT)
            await check_still_well(page, address)
        with zipfile.ZipFile(tmp_path / "edit.zip") as archive:
            archive.extractall(tmp_path / "taken")
        replayed = edit(tmp_path / "taken" / "edit.yaml", output=tmp_path / "replayed.png", device="cpu")
        assert Image.open(replayed).convert("RGB").tobytes() == shown
        async with browser.page(address) as page:
            await opened(page)
            await page.upload("document.querySelector('#load')", tmp_path / "edit.zip")
            await page.until(f"{SCRIPT} === {text!r}")
            assert await picture(page) == shown and "1. mix" in (await page.js("document.body.innerText")).lower()

    used(tmp_path, using)


def test_points_are_dragged_with_the_mouse(home: Path, address: str, tmp_path: Path) -> None:
    async def using(browser: Browser) -> None:
        async with browser.page(address) as page:
            await opened(page)
            before = await picture(page)
            await page.click(button("Brush what stays"))
            await page.drag("document.querySelector('#overlay')", (0.1, 0.1), (0.3, 0.1))
            await page.click(button("Set points"))
            await page.drag("document.querySelector('#overlay')", (0.4, 0.5), (0.7, 0.6))
            await page.click("document.querySelector('#overlay')", (0.6, 0.8))
            await page.click("document.querySelector('#overlay')", (0.5, 0.7))
            points = await page.js("points")
            assert [len(one["target"]) for one in points] == [2, 2] and points[0]["handle"] == [6, 8]
            await page.js("pulls = 6")
            await page.click("document.querySelector('#drag')")
            await page.until(f"steps.length === 1 && {STILL}")
            step = (await page.js("steps"))[0]["drag"]
            assert step["max_steps"] == 6 and step["mask"].startswith("mask-") and await picture(page) != before
            own = await picture(page)
            await drawn_after(page, page.click(button("Undo")))
            assert await picture(page) == before
            await drawn_after(page, page.js(f"change(start, [{{drag: {step!r}}}])".replace("None", "null")))
            assert await picture(page) == own
            await check_still_well(page, address)

    used(tmp_path, using)


def test_a_photograph_is_found_and_hostile_files_are_refused(home: Path, address: str, tmp_path: Path) -> None:
    async def using(browser: Browser) -> None:
        async with browser.page(address) as page:
            await opened(page)
            await page.upload("document.querySelector('#panels input[accept^=image]')", home / "photo.png")
            await page.until("document.querySelector('#project')")
            assert "60 x 44 px, cropped to the middle 44" in await page.js("document.body.innerText")
            await page.js("search.steps = 5")
            await drawn_after(page, page.click("document.querySelector('#project')"))
            assert "styles: styles-" in await page.js(SCRIPT)
            await page.until("document.querySelector('#told').innerText.includes('PSNR')")
            found = await picture(page)
            for place, name, why in (
                ("#panels input[accept^=image]", "hostile.png", "cannot be read as a picture"),
                ("#load", "hostile.zip", "is no file of the studio"),
            ):
                await page.upload(f"document.querySelector('{place}')", home / name)
                await page.until(f"document.querySelector('#alert').textContent.includes('{why}')")
                assert await picture(page) == found
            await page.js("document.querySelector('#script').value = 'start: {seed: 1}\\nmodel: /etc/passwd'")
            await page.js("document.querySelector('#use').disabled = false")
            await page.click(button("Use what is typed"))
            await page.until(f"{SCRIPT}.includes('seed: 1') && !{SCRIPT}.includes('passwd')")  # the model stays its own
            await check_still_well(page, address)

    used(tmp_path, using)


def test_two_browsers_have_their_own_pictures(home: Path, address: str, tmp_path: Path) -> None:
    async def one(folder: Path, seed: int) -> tuple[bytes, bytes]:
        async with browsing(folder) as browser, browser.page(address) as page:
            await opened(page)
            await drawn_after(page, page.js(f"change({{seed: {seed}}}, [{{blend: {{seed: {seed + 1}}}}}])"))
            for place in (0.2, 0.5, 0.8, 0.3, 0.6):
                await drawn_after(page, page.click(slider("By"), (place, 0.5)))
            text, shown = await page.js(SCRIPT), await picture(page)
            (folder / "edit.yaml").write_text(text)
            assert f"seed: {seed}" in text and f"seed: {seed + 1}" in text
        replayed = edit(folder / "edit.yaml", output=folder / "a.png", device="cpu")
        return shown, Image.open(replayed).convert("RGB").tobytes()

    async def both() -> list[tuple[bytes, bytes]]:
        return await asyncio.gather(one(tmp_path / "a", 3), one(tmp_path / "b", 70))

    (shown, own), (other_shown, other) = asyncio.run(both())
    assert shown == own and other_shown == other and own != other


def test_films_translations_and_captions(home: Path, address: str, tmp_path: Path) -> None:
    async def using(browser: Browser) -> None:
        async with browser.page(address) as page:
            await opened(page, "dcgan")
            await drawn_after(page, page.click(button("Make the walk the script")))
            assert len(await page.js("steps")) == 4
            await page.js("film.frames = 5")
            await page.click("document.querySelector('#film-go')")
            await page.until("document.querySelector('#film img')?.naturalWidth")
            await opened(page, "cyclegan")
            upload = page.upload("document.querySelector('#panels input[type=file]')", home / "photo.png")
            await drawn_after(page, upload)
            assert (await page.js(SCRIPT)).startswith("lit-gans translate ")
            await page.until("document.querySelector('#picture').naturalWidth === 60")
            await opened(page, "attngan")
            typing = f"const t = document.querySelector('#panels textarea'); t.value = {RED!r}; "
            await drawn_after(page, page.js(f"(() => {{ {typing} t.dispatchEvent(new Event('change')); }})()"))
            assert f"caption: {RED}" in await page.js(SCRIPT)
            await check_still_well(page, address)

    used(tmp_path, using)


def test_answers_come_at_once(home: Path, address: str, tmp_path: Path) -> None:
    async def using(browser: Browser) -> None:
        async with browser.page(address) as page:
            await opened(page)
            began, count = time.monotonic(), 10
            for i in range(count):
                await drawn_after(page, page.click(slider("Truncation"), (0.1 + 0.08 * i, 0.5)))
            assert (time.monotonic() - began) / count < 3  # of a tiny model, on a busy machine

    used(tmp_path, using)
