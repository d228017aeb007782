"""The studio on the web: one page, its questions and answers, and what is refused."""

from __future__ import annotations

import asyncio
import json
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files as resources
from ipaddress import ip_address
from typing import Any

from aiohttp import web

from lit_gans.editing.studio.files import MAX_UPLOAD_BYTES
from lit_gans.editing.studio.turns import Job, Stopped
from lit_gans.editing.studio.work import Said, Studio

PAGE = {"": ("studio.html", "text/html"), "studio.js": ("studio.js", "text/javascript"),
        "studio.css": ("studio.css", "text/css")}  # fmt: skip
TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4", ".safetensors": "application/octet-stream"}
MAX_QUESTION_BYTES, THREADS, MAX_JOBS = 2**20, 12, 4
MENDABLE = (ValueError, OSError)  # what a user can mend, as for verbs; all else is the studio's own fault
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(studio: Studio, *, host: str = "127.0.0.1") -> web.Application:
    """The application; host: where it is reached, see `check_origin`."""
    app = web.Application(middlewares=[_guard(host)], client_max_size=MAX_UPLOAD_BYTES)
    pages = _Pages(studio)
    app.cleanup_ctx.append(pages.running)
    for path in PAGE:
        app.router.add_get(f"/{path}", pages.page)
    app.router.add_get("/files/{name}", pages.file)
    app.router.add_get("/api/models", pages.models)
    app.router.add_post("/api/pack", pages.pack)
    app.router.add_post("/api/stop", pages.stop)
    for name in ("describe", "draw", "grid", "read"):
        app.router.add_post(f"/api/{name}", pages.question)
    for name in ("load", "photo", "translate", "mask", "move"):
        app.router.add_post(f"/api/{name}", pages.upload)
    for name in ("film", "project", "drag", "text"):
        app.router.add_post(f"/api/{name}", pages.job)
    return app


class _Pages:
    """What answers each address. A question's or job's name is the method of the studio that answers it."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.jobs = studio, dict[str, Job]()

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        self.threads = ThreadPoolExecutor(THREADS, "studio")
        yield
        for job in self.jobs.values():
            job.stopped = True
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def page(self, request: web.Request) -> web.Response:
        name, kind = PAGE[request.path.removeprefix("/")]
        data = (resources("lit_gans.editing.studio") / "page" / name).read_bytes()
        return web.Response(body=data, content_type=kind, charset="utf-8")

    async def file(self, request: web.Request) -> web.StreamResponse:
        path = self.studio.files.path(request.match_info["name"])
        kept = {"Cache-Control": "private, max-age=31536000, immutable"}
        return web.FileResponse(path, headers=kept | {"Content-Type": TYPES[path.suffix]})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"models": list(self.studio.models.places)})

    async def question(self, request: web.Request) -> web.Response:
        said = await self._said(request)
        return web.json_response(await self._work(getattr(self.studio, _name(request)), said))

    async def upload(self, request: web.Request) -> web.Response:
        data = await request.read()
        said = _values(dict(request.query).get("said", "{}"))
        return web.json_response(await self._work(getattr(self.studio, _name(request)), data, said))

    async def pack(self, request: web.Request) -> web.Response:
        data, name = await self._work(self.studio.pack, await self._said(request))
        kind = "application/zip" if name.endswith(".zip") else "application/yaml"
        return web.Response(body=data, content_type=kind, headers={"X-Name": name})

    async def stop(self, request: web.Request) -> web.Response:
        job = self.jobs.get(str((await self._said(request)).get("job")))
        if job is not None:
            job.stopped = True
        return web.json_response({"stopped": job is not None})

    async def job(self, request: web.Request) -> web.StreamResponse:
        """Lines of JSON as the work goes on; the first names the job, the last has its `result` or an `error`."""
        said = await self._said(request)
        if len(self.jobs) >= MAX_JOBS:
            raise ValueError(f"{MAX_JOBS} pieces of long work are under way already: wait until one is done")
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[Mapping[str, Any]]()
        job = Job(self.studio.turns, lambda one: loop.call_soon_threadsafe(lines.put_nowait, one))
        async with self._entered(job) as name:
            response = web.StreamResponse(headers=HEADERS | {"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            await _send(response, {"job": name})
            asking = asyncio.ensure_future(self._work(getattr(self.studio, _name(request)), said, job))
            asking.add_done_callback(lambda done: lines.put_nowait(_ending(done)))
            while True:
                line = await lines.get()
                await _send(response, line)
                if "result" in line or "error" in line:
                    break
        await response.write_eof()
        return response

    @asynccontextmanager
    async def _entered(self, job: Job) -> AsyncIterator[str]:
        """The job's name while it is listed; a browser that has gone away stops it."""
        name = secrets.token_hex(8)
        self.jobs[name] = job
        try:
            yield name
        finally:
            job.stopped = True
            del self.jobs[name]

    async def _work(self, work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *given)

    async def _said(self, request: web.Request) -> Said:
        return _values(await request.text()) if (request.content_length or 0) <= MAX_QUESTION_BYTES else _too_much()


def _name(request: web.Request) -> str:
    return request.path.rpartition("/")[2]


def _values(text: str) -> Said:
    """ValueError for what is no JSON object."""
    try:
        said = json.loads(text) if len(text) <= MAX_QUESTION_BYTES else _too_much()
    except RecursionError as error:
        raise ValueError("this is nested too deeply") from error
    if not isinstance(said, dict):
        raise ValueError("the studio is asked with a JSON object")
    return said


def _too_much() -> Said:
    raise ValueError(f"a question has at most {MAX_QUESTION_BYTES:,} bytes")


async def _send(response: web.StreamResponse, line: Mapping[str, Any]) -> None:
    await response.write(json.dumps(line).encode() + b"\n")


def _ending(done: asyncio.Future) -> Mapping[str, Any]:
    error = done.exception()
    if error is None:
        return {"result": done.result()}
    if not isinstance(error, (Stopped, *MENDABLE)):
        traceback.print_exception(error)
    return {"error": "stopped" if isinstance(error, Stopped) else _told(error), "stopped": isinstance(error, Stopped)}


def _told(error: BaseException) -> str:
    """What a page says of an error: its message, where a user can mend it."""
    if isinstance(error, MENDABLE):
        return str(error) or type(error).__name__
    return f"the studio itself failed ({type(error).__name__}): its terminal shows where"


# ---- what is refused -------------------------------------------------------------------------------------------------


def _guard(host: str) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_origin(request.headers, host)
            response = await handler(request)
        except web.HTTPRequestEntityTooLarge:
            response = _refusal(f"this file has more than {MAX_UPLOAD_BYTES // 2**20} MB, which is the most", 413)
        except web.HTTPException as error:
            response = _refusal(error.reason, error.status)
        except PermissionError as error:
            response = _refusal(str(error), 403)
        except MENDABLE as error:
            response = _refusal(_told(error), 400)
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    return guard


def _refusal(why: str, status: int) -> web.Response:
    return web.json_response({"error": why}, status=status)


def check_origin(headers: Mapping[str, str], host: str) -> None:
    """PermissionError for a request that another site's page makes, or one that reached us by a name of another's.

    On this machine alone, any page that is open in its browser can send requests here, and by a name that its owner
    points to 127.0.0.1 could read the answers too.
    """
    asked = headers.get("Host", "")
    if is_local(host) and not is_local(_without_port(asked)):
        raise PermissionError(f"this studio is reached as localhost, not as {asked[:100]!r}")
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != asked:
        raise PermissionError(f"a page of {origin[:100]!r} asks: the studio answers its own page alone")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_local(host: str) -> bool:
    """Whether only this machine is reached, or reaches it, by this address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def serve(studio: Studio, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until it is interrupted; ready(address) is called once it can be reached. OSError for a port in use."""

    async def run() -> None:
        runner = web.AppRunner(build_app(studio, host=host), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            found = runner.addresses[0]
            ready(f"http://{f'[{found[0]}]' if ':' in found[0] else found[0]}:{found[1]}")
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    asyncio.run(run())
