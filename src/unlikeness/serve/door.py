"""The door of the service: who may come in, how often, and what goes wrong behind it.

A website that a browser shows could send requests to a service on the same machine. Two headers give it away,
which a website cannot choose. `Host` names a website whose name leads to this machine's address (DNS
rebinding). `Origin` names the website that sends a form or a script's request.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unlikeness.serve.faults import Fault, answer

__all__ = ["Door", "Rate", "is_loopback"]

_log = logging.getLogger(__name__)

PRIVATE = ("/v1/", "/metrics")
"""Beginnings of paths that need the token. The page, the description and the health hold nothing private."""

_MOST_CLIENTS = 10_000


def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address, is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Rate:
    """Requests of each client: `per_minute`, and as many at once. A client is an address, or an IPv6 /64."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Client -> requests left, and when that was so; the one seen last stands last."""

    def wait(self, client: str) -> float:
        """Count a request. The seconds until the client may send it; 0: now."""
        if not self.per_minute:
            return 0.0
        key, now, each = _client(client), self._clock(), self.per_minute / 60
        left, then = self._clients.pop(key, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - then) * each)
        allowed = left >= 1
        self._clients[key] = (left - 1 if allowed else left, now)
        if len(self._clients) > _MOST_CLIENTS:
            self._clients.popitem(last=False)
        return 0.0 if allowed else (1 - left) / each


def _client(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


class Door:
    """An ASGI application in front of `app`.

    Args:
        loopback: whether the service listens on this machine's own address only.
        token: what `Authorization: Bearer` must hold; None: nothing is needed.
        seen: called with path, status and seconds of each answer.
    """

    def __init__(
        self, app: ASGIApp, *, loopback: bool, token: str | None, rate: Rate,
        seen: Callable[[str, int, float], None] | None = None,
    ) -> None:  # fmt: skip
        self.app, self.loopback, self.rate, self.seen = app, loopback, rate, seen
        self._token = None if token is None else _digest(token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return
        began, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []), (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY"),
                ]  # fmt: skip
            await send(message)

        try:
            try:
                self._check(scope)
                await self.app(scope, receive, watched)
            except Fault as fault:
                await answer(fault)(scope, receive, watched)
            except Exception:
                if status not in (0, 500):
                    raise
                _log.exception("a fault in the program")
                if not status:
                    own = Fault(500, "there is a fault in the program; please report it")
                    await answer(own)(scope, receive, watched)
        finally:
            if self.seen is not None:
                self.seen(scope["path"], status, time.perf_counter() - began)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self.loopback and not is_loopback(_name(host)):
            raise Fault(403, "this service answers to 127.0.0.1 and localhost alone; use one of these names")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2].lower() != host.lower():
            raise Fault(403, "requests of other websites are refused; use the service's own page")
        client = scope["client"][0] if scope.get("client") else ""
        needed = scope["path"].startswith(PRIVATE)
        if needed and (wait := self.rate.wait(client)):
            raise Fault(
                429, f"more than {self.rate.per_minute} requests in a minute; wait a moment",
                {"retry-after": str(int(wait) + 1)},
            )  # fmt: skip
        if needed and self._token is not None:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            right = hmac.compare_digest(_digest(given.strip()), self._token)
            if not right or scheme.lower() != b"bearer":
                raise Fault(
                    401, "the token is missing or wrong; send it as Authorization: Bearer TOKEN",
                    {"www-authenticate": "Bearer"},
                )  # fmt: skip


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def _name(host: str) -> str:
    """The name or address in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
