"""A headless Chromium that tests drive as a person does: with mouse, keys and files."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
         "--no-first-run", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0"]  # fmt: skip
PATIENCE_S = 120.0


def find_browser() -> str:
    """The command; the test is skipped where there is none."""
    found = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Browser]:
    """A browser with a profile of its own in `folder`."""
    process = subprocess.Popen(
        [find_browser(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        said, began = folder / "profile" / "DevToolsActivePort", time.monotonic()
        while not (said.is_file() and said.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() - began < PATIENCE_S, "the browser does not start"
            await asyncio.sleep(0.1)
        async with aiohttp.ClientSession() as session:
            yield Browser(session, int(said.read_text().split()[0]))
    finally:
        process.terminate()
        process.wait(30)


class Browser:
    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session, self.port = session, port

    @asynccontextmanager
    async def page(self, url: str, *, width: int = 1280, height: int = 900) -> AsyncIterator[Page]:
        """A tab of this address and size."""
        async with self.session.put(f"http://127.0.0.1:{self.port}/json/new?about:blank") as answer:
            place = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
        async with self.session.ws_connect(place, max_msg_size=0) as socket:
            page = Page(socket)
            reading = asyncio.ensure_future(page.read())
            try:
                for domain in ("Page", "Runtime", "Network", "DOM"):
                    await page.call(f"{domain}.enable")
                await page.size(width, height)
                await page.call("Page.navigate", url=url)
                await page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
                yield page
            finally:
                reading.cancel()


class Page:
    """asked: the addresses that it loaded; wrong: what it logged as an error, or could not load."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.count = socket, 0
        self.answers: dict[int, asyncio.Future] = {}
        self.asked: list[str] = []
        self.wrong: list[str] = []

    async def read(self) -> None:
        async for message in self.socket:
            said = json.loads(message.data)
            if "id" in said:
                self.answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Network.requestWillBeSent":
                self.asked.append(said["params"]["request"]["url"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.wrong.append(json.dumps(said["params"]["exceptionDetails"])[:500])
            elif said["method"] == "Runtime.consoleAPICalled" and said["params"]["type"] == "error":
                self.wrong.append(json.dumps(said["params"]["args"])[:500])

    async def call(self, method: str, **given: Any) -> dict[str, Any]:
        self.count += 1
        self.answers[self.count] = waiting = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": self.count, "method": method, "params": given})
        said = await asyncio.wait_for(waiting, PATIENCE_S)
        assert "error" not in said, said
        return said["result"]

    async def js(self, code: str) -> Any:
        """The value of an expression."""
        found = await self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, code: str, patience_s: float = PATIENCE_S) -> None:
        """Waits for an expression to be true."""
        began = time.monotonic()
        while not await self.js(f"Boolean({code})"):
            text = await self.js("document.body.innerText")
            assert time.monotonic() - began < patience_s, f"{code} is not true: {self.wrong} {text}"
            await asyncio.sleep(0.05)

    async def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)

    async def place(self, element: str) -> tuple[float, float, float, float]:
        """(left, top, width, height) of what a JavaScript expression finds, which is scrolled into sight."""
        code = "(e => { e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
        return tuple(await self.js(f"{code} return [b.x, b.y, b.width, b.height]; }})({element})"))

    async def mouse(self, kind: str, x: float, y: float, buttons: int = 0) -> None:
        held = buttons or kind == "mouseReleased"
        button = {"button": "left" if held else "none", "clickCount": int(kind != "mouseMoved")}
        await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=buttons, **button)

    async def click(self, element: str, at: tuple[float, float] = (0.5, 0.5)) -> None:
        """With the mouse, at a share of its width and height."""
        left, top, width, height = await self.place(element)
        x, y = left + at[0] * width, top + at[1] * height
        await self.mouse("mouseMoved", x, y)
        await self.mouse("mousePressed", x, y, 1)
        await self.mouse("mouseReleased", x, y)

    async def drag(self, element: str, start: tuple[float, float], end: tuple[float, float], moves: int = 6) -> None:
        """From one share of its width and height to another, with the button held."""
        left, top, width, height = await self.place(element)
        points = [
            (left + (a + (b - a) * i / moves) * width, top + (c + (d - c) * i / moves) * height)
            for a, b, c, d in [(start[0], end[0], start[1], end[1])]
            for i in range(moves + 1)
        ]
        await self.mouse("mouseMoved", *points[0])
        await self.mouse("mousePressed", *points[0], 1)
        for point in points[1:]:
            await self.mouse("mouseMoved", *point, 1)
        await self.mouse("mouseReleased", *points[-1])

    async def upload(self, element: str, path: Path) -> None:
        found = await self.call("Runtime.evaluate", expression=element)
        await self.call("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    async def downloads_to(self, folder: Path) -> None:
        await self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    async def shot(self, path: Path) -> Path:
        """Of the whole page."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path


def button(text: str) -> str:
    """The expression that finds it."""
    buttons = "[...document.querySelectorAll('button, label.button')]"
    return f"{buttons}.find(e => e.innerText.startsWith({json.dumps(text)}))"
