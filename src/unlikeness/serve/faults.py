"""Faults as answers: problem details in JSON (RFC 9457), whose detail is the command line's one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from unlikeness.errors import UnlikenessError, UsageError, one_line

__all__ = ["Fault", "answer", "fault_of"]


class Fault(UnlikenessError):  # noqa: N818 - of the request
    """A request that is answered with `status` and this sentence."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})


def fault_of(error: UnlikenessError) -> Fault:
    """An error of the library: 422 for a setting or a picture, 503 where the work cannot be done."""
    if isinstance(error, Fault):
        return error
    return Fault(422 if isinstance(error, UsageError) else 503, str(error))


def answer(fault: Fault) -> Response:
    """The answer to a fault."""
    phrase = HTTPStatus(fault.status).phrase
    body = {"type": "about:blank", "title": phrase, "status": fault.status, "detail": one_line(str(fault))}
    return Response(
        json.dumps(body, ensure_ascii=False), fault.status, fault.headers, "application/problem+json"
    )
