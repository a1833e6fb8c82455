"""The addresses of the jobs: `/v1/jobs`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from unlikeness.protect.settings import ENCODER_PRESETS
from unlikeness.serve import settings, uploads
from unlikeness.serve.jobs import Jobs
from unlikeness.serve.openapi import BINARY, described, example, form
from unlikeness.serve.task import Offer

__all__ = ["add_jobs"]

_ID = "0f8e7d6c5b4a39281706f5e4d3c2b1a0"
_QUEUED = {"id": _ID, "status": "queued", "pictures": 20, "ahead": 1}
_RUNNING = {"id": _ID, "status": "running", "pictures": 20, "finished": 7, "seconds_left": 42}
_DONE = {
    "id": _ID, "status": "done", "pictures": 20, "protected": 19, "unchanged": 0, "skipped": 1,
    "against": "computed against FLUX.1: not known to do anything against other models; measure it",
    "kept_until": "2026-05-02T10:00:00+00:00", "bytes": 9_437_184,
}  # fmt: skip
_EVENTS = "\n\n".join(f"data: {json.dumps(one)}" for one in (_QUEUED, _RUNNING, _DONE)) + "\n\n"
_UNSEEN = {"cache-control": "no-store"}


def add_jobs(app: FastAPI, jobs: Jobs, offer: Offer, *, token: bool) -> None:
    """Add the addresses of the jobs. token: whether they need one."""
    names, missing = list(offer.networks), [404]
    valid: dict[str, Sequence[str]] = {
        "weights": names, "method": offer.methods, "preset": list(ENCODER_PRESETS),
    }  # fmt: skip

    @app.post(
        "/v1/jobs", summary="Protect many pictures", response_class=Response, status_code=202,
        openapi_extra=described(
            202, "The job waits. Its address is in the header Location.", example(_QUEUED), token=token,
            faults=[400, 408, 413, 415, 422, 503], query=settings.parameters(settings.WantedJob, valid),
            body={"application/zip": BINARY, **form("pictures", many=True)},
        ),
    )  # fmt: skip
    async def add(request: Request) -> Response:
        query = request.query_params.multi_items()
        wanted = settings.wanted(query, names, settings.WantedJob)
        task = offer.task(wanted, weights=any(name == "weights" for name, _ in query))
        try:
            state = await jobs.add(request, task)
        except uploads.Gone:
            return _Nothing()
        return JSONResponse(state, 202, {**_UNSEEN, "location": f"/v1/jobs/{state['id']}"})

    @app.get(
        "/v1/jobs/{job}", summary="How far a job is", response_class=Response,
        openapi_extra=described(
            200, "status: queued, running, done or failed; detail says why it failed.",
            example(_RUNNING), token=token, faults=missing,
        ),
    )  # fmt: skip
    async def state(job: str) -> Response:
        return JSONResponse(jobs.state(job), headers=_UNSEEN)

    @app.get(
        "/v1/jobs/{job}/events", summary="A job's state whenever it changes, until it ends",
        response_class=Response,
        openapi_extra=described(
            200, "Server-sent events.", example(_EVENTS, "text/event-stream"), token=token,
            faults=[*missing, 503],
        ),
    )  # fmt: skip
    async def events(job: str) -> Response:
        seen = jobs.watch(job)

        async def lines() -> AsyncIterator[str]:
            async with aclosing(seen):
                async for one in seen:
                    yield ": it goes on\n\n" if one is None else f"data: {json.dumps(one)}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream", headers=_UNSEEN)

    @app.get(
        "/v1/jobs/{job}/result", summary="The copies and their manifest, as a zip", response_class=Response,
        openapi_extra=described(
            200, "The zip.", {"application/zip": BINARY}, token=token, faults=[*missing, 409]
        ),
    )  # fmt: skip
    async def result(job: str) -> Response:
        return FileResponse(
            jobs.result(job), media_type="application/zip", filename="protected.zip", headers=_UNSEEN
        )

    @app.delete(
        "/v1/jobs/{job}", summary="End a job and delete all of it", status_code=204, response_class=Response,
        openapi_extra=described(204, "It is gone.", None, token=token, faults=missing),
    )  # fmt: skip
    async def delete(job: str) -> Response:
        jobs.delete(job)
        return Response(status_code=204)


class _Nothing(Response):
    """For a client that went away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        return
