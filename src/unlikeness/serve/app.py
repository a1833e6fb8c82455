"""The application: the addresses of docs/guides/serve.md, and the page."""

from __future__ import annotations

import asyncio
import json
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from unlikeness import __version__
from unlikeness.errors import UnlikenessError, one_line
from unlikeness.page.build import INDEX
from unlikeness.protect.files.manifest import Entry
from unlikeness.serve import computing, settings, uploads
from unlikeness.serve.door import Door, Rate
from unlikeness.serve.faults import Fault, answer, fault_of
from unlikeness.serve.jobs import Jobs
from unlikeness.serve.jobs_api import add_jobs
from unlikeness.serve.metrics import Metrics
from unlikeness.serve.openapi import BINARY, described, example, form
from unlikeness.serve.task import Offer
from unlikeness.serve.work import TYPES, Place, Work, media_type

__all__ = ["make_app"]

_PART = 64 << 10
_SEEN = {"linf": 8.0, "psnr": 38.2, "ssim": 0.96, "width": 512, "height": 512}
_NO_PAGE = """unlikeness serves no page here. Write one, and name it:

    unlikeness page --output page
    unlikeness serve --page page

POST /v1/protect protects a picture; /openapi.json describes all addresses.
"""


def make_app(
    work: Work, *, loopback: bool = True, token: str | None = None, page: Path | None = None,
    jobs: Jobs | None = None, offer: Offer | None = None,
) -> ASGIApp:  # fmt: skip
    """The service. token: what clients must send. page: a folder that `unlikeness page` wrote.

    jobs, offer: the queue of jobs and what they may compute with; None: there are no jobs.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        task = None if jobs is None else asyncio.create_task(computing.run(jobs))
        yield
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    app = FastAPI(
        title="unlikeness", version=__version__, docs_url=None, redoc_url=None, lifespan=running,
        description="Protects pictures as `unlikeness protect` does. Only jobs keep pictures, for a while.",
    )  # fmt: skip
    app.add_exception_handler(UnlikenessError, _at_fault)
    app.add_exception_handler(HTTPException, _no_such)
    names = list(work.networks)
    pictures, needs = dict.fromkeys(TYPES.values(), BINARY), token is not None
    faults = [400, 408, 413, 415, 422, 503]

    @app.post(
        "/v1/protect", summary="Protect a picture", response_class=Response,
        openapi_extra=described(
            200, "The protected picture, in its own format.", pictures, token=needs, faults=faults,
            query=settings.parameters(settings.Wanted, {"weights": names}),
            body={**pictures, **form("picture")},
        ),
    )  # fmt: skip
    async def protect(request: Request) -> Response:
        wanted = settings.wanted(request.query_params.multi_items(), names, settings.Wanted)

        async def reply(place: Place) -> Response:
            source, copied = place.folder / "picture", place.folder / "copy"
            await uploads.save(request, [source], ["picture"], work.limits.max_bytes)
            entry = await place.run(partial(work.protect, source, copied, wanted), work.pool, request.receive)
            metrics.moved(source.stat().st_size, copied.stat().st_size)
            return _Picture(copied, _headers(entry, work.against(wanted)))

        return _Timed(work, reply)

    @app.post(
        "/v1/measure", summary="Measure how far two pictures differ", response_class=Response,
        openapi_extra=described(
            200, "linf [n/255], psnr [dB; null: identical], ssim.", example(_SEEN), token=needs,
            faults=faults, body=form("before", "after"),
        ),
    )  # fmt: skip
    async def measure(request: Request) -> Response:
        async def reply(place: Place) -> Response:
            paths = [place.folder / name for name in ("before", "after")]
            await uploads.save(request, paths, ["before", "after"], 2 * work.limits.max_bytes)
            seen = await place.run(partial(work.measure, *paths), work.pool, request.receive)
            return JSONResponse(seen, headers={"cache-control": "no-store"})

        return _Timed(work, reply)

    @app.get("/healthz", summary="Whether the service runs")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/metrics", summary="Counts for Prometheus", response_class=PlainTextResponse)
    async def counts() -> Response:
        text = metrics.text(work.places, work.limits.queue, {} if jobs is None else jobs.counts())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def no_jobs(request: Request) -> Response:
        raise Fault(404, "this service takes no jobs; start it with --jobs FOLDER")

    if jobs is not None and offer is not None:
        add_jobs(app, jobs, offer, token=needs)
    else:
        app.add_route("/v1/jobs", no_jobs, methods=["POST"], include_in_schema=False)
    files = {} if page is None else _files_of(page)

    async def static(request: Request) -> Response:
        path = request.path_params["path"] or "index.html"
        if path in files:
            kind = _KINDS.get(Path(path).suffix) or mimetypes.guess_type(path)[0]
            return FileResponse(files[path], media_type=kind or "application/octet-stream")
        if not files and path == "index.html":
            return PlainTextResponse(_NO_PAGE)
        raise HTTPException(404)

    if token is not None:
        schemes = {"token": {"type": "http", "scheme": "bearer"}}
        app.openapi().setdefault("components", {})["securitySchemes"] = schemes
    app.add_route("/{path:path}", static, methods=["GET"], include_in_schema=False)
    return Door(app, loopback=loopback, token=token, rate=Rate(work.limits.rate), seen=metrics.seen)


_KINDS = {
    ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm",
    ".json": "application/json", ".onnx": "application/octet-stream",
}  # fmt: skip
"""Media types that a system's own table may not know, and without which browsers run nothing."""


def _files_of(page: Path) -> dict[str, Path]:
    """The page's files by their addresses: those of its list, and no other."""
    listed = json.loads((page / INDEX).read_text(encoding="utf-8"))["files"]
    files = {str(one["path"]): page / str(one["path"]) for one in listed}
    inside = page.resolve()
    return {name: path for name, path in files.items() if path.resolve().is_relative_to(inside)}


def _headers(entry: Entry, against: str) -> dict[str, str]:
    """What the command line says and the manifest holds, as headers."""
    found = {
        "Unlikeness-Linf": entry.linf, "Unlikeness-Psnr": entry.psnr, "Unlikeness-Ssim": entry.ssim,
        "Unlikeness-Note": entry.note, "Unlikeness-Against": against,
    }  # fmt: skip
    said = {name: one_line(str(value)) for name, value in found.items() if value is not None}
    return {name: text.encode("ascii", "backslashreplace").decode() for name, text in said.items()}


class _Picture(Response):
    """A file that is sent in parts."""

    def __init__(self, path: Path, headers: Mapping[str, str]) -> None:
        size = str(path.stat().st_size)
        super().__init__(
            headers={**headers, "content-length": size, "cache-control": "no-store"},
            media_type=media_type(path),
        )  # fmt: skip
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with self.path.open("rb") as file:
            while part := file.read(_PART):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Timed(Response):
    """What `reply` answers, made and sent within the time and the places of the service."""

    def __init__(self, work: Work, reply: Callable[[Place], Awaitable[Response]]) -> None:
        super().__init__()
        self.work, self.reply = work, reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit, place = self.work.limits.seconds, None
        try:
            async with asyncio.timeout(limit):
                place = await self.work.enter()
                await (await self.reply(place))(scope, receive, send)
        except TimeoutError:
            late = place is not None and not place.begun
            raise Fault(
                408 if late else 503,
                f"it takes longer than {limit} seconds; try again later, or send a smaller picture",
                {} if late else {"retry-after": "10"},
            ) from None
        except uploads.Gone:
            return
        finally:
            if place is not None:
                place.close()


async def _at_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnlikenessError)
    return answer(fault_of(error))


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "there is nothing at this address", 405: "this address takes another method"}
    sentence = f"{said.get(error.status_code, one_line(error.detail))}; see /openapi.json"
    return answer(Fault(error.status_code, sentence, error.headers))
