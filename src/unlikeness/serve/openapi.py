"""The description of the addresses for OpenAPI, with examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["BINARY", "described", "example", "form"]

BINARY = {"schema": {"type": "string", "format": "binary"}}
"""A body of bytes."""
_SAID = {
    400: ("Bad Request", "The body is empty or no such form.", "the body is empty; send a picture"),
    401: ("Unauthorized", "The token is missing or wrong.",
          "the token is missing or wrong; send it as Authorization: Bearer TOKEN"),
    404: ("Not Found", "There is no such job, or no longer.",
          "there is no such job, or no longer; its id may be wrong, or its time is over"),
    408: ("Request Timeout", "The body takes too long.",
          "it takes longer than 120 seconds; try again later, or send a smaller picture"),
    409: ("Conflict", "The job is not done.",
          "the job is running and has no result: wait until its status is done"),
    413: ("Request Entity Too Large", "The body is too large.",
          "the body has more than 67,108,864 bytes; send less at a time"),
    415: ("Unsupported Media Type", "No picture of a supported format.",
          "the body is compressed; send it as it is"),
    422: ("Unprocessable Content", "A setting is wrong, or a picture cannot be used or protected.",
          "the picture: it is damaged or truncated; copy it again, or open and export it elsewhere"),
    429: ("Too Many Requests", "Too many requests.",
          "more than 60 requests in a minute; wait a moment"),
    503: ("Service Unavailable", "The service, its queue or its disk is full.",
          "32 jobs wait already; try again later"),
}  # fmt: skip
"""Status -> its title, when it is answered, and an example."""


def described(
    status: int, said: str, content: Mapping[str, Any] | None, *, faults: Iterable[int], token: bool,
    query: Sequence[Mapping[str, Any]] = (), body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """An address: its good answer, and what else may come. token: whether one is needed."""
    answers: dict[str, Any] = {str(status): {"description": said, "content": content or {}}}
    for fault in sorted({*faults, 429, *([401] if token else [])}):
        title, when, detail = _SAID[fault]
        problem = {"type": "about:blank", "title": title, "status": fault, "detail": detail}
        answers[str(fault)] = {
            "description": when, "content": {"application/problem+json": {"example": problem}},
        }  # fmt: skip
    found: dict[str, Any] = {"responses": answers, "security": [{"token": []}] if token else []}
    if query:
        found["parameters"] = [*query]
    if body is not None:
        found["requestBody"] = {"required": True, "content": body}
    return found


def form(*names: str, many: bool = False) -> dict[str, Any]:
    """A form with these files. many: each may stand for any number."""
    one: dict[str, Any] = BINARY["schema"]
    each = {"type": "array", "items": one} if many else one
    return {"multipart/form-data": {"schema": {
        "type": "object", "required": [*names], "properties": dict.fromkeys(names, each),
    }}}  # fmt: skip


def example(value: Any, kind: str = "application/json") -> dict[str, Any]:
    """An answer that looks like this."""
    return {kind: {"example": value}}
