"""The server: its socket, its connections and their patience."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from unlikeness.errors import UnlikenessError, UsageError

__all__ = ["MOST_CONNECTIONS", "PATIENCE", "listening", "read_token", "serve", "server"]

PATIENCE = 10.0
"""Seconds that a connection may wait for the client: for a request's head, or to take an answer's bytes."""
MOST_CONNECTIONS = 512
"""Connections at a time; more are closed at once."""
LEAST_TOKEN = 16
"""Characters of a token."""
_TURN = 1.0
_VARIABLE = "UNLIKENESS_TOKEN"


class _Connection(H11Protocol):
    """A connection that is ended if the client keeps it waiting."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._last: object = None
        self._since = self.loop.time()
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self.loop.call_later(_TURN, self._turn)

    def _turn(self) -> None:
        if self not in self.connections:
            return
        cycle = self.cycle
        waits: object
        if self.transport.is_closing():
            waits = "closing"
        elif self.flow.write_paused:
            waits = self.transport.get_write_buffer_size()
        elif cycle is None or cycle.response_complete:
            waits = cycle
        else:
            waits = object()  # the application works, and has its own limit
        if waits != self._last:
            self._last, self._since = waits, self.loop.time()
        elif self.loop.time() - self._since > PATIENCE:
            self.transport.abort()
            return
        self.loop.call_later(_TURN, self._turn)


def read_token(file: Path | None) -> str | None:
    """The token: the file's first line, or the variable UNLIKENESS_TOKEN. None if there is neither.

    UsageError for a file that cannot be read, and a token that is short or no plain text.
    """
    where, text = _VARIABLE, os.environ.get(_VARIABLE)
    if file is not None:
        where = f"--token-file {file}"
        try:
            with file.open(encoding="ascii") as opened:
                text = opened.readline(4096)
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "it is no plain text"
            raise UsageError(f"{where} cannot be read ({said}); give a file with the token alone") from error
    if text is None:
        return None
    token = text.strip()
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{where} holds no token: at least {LEAST_TOKEN} letters and digits are needed; make one with "
            "`openssl rand -hex 32`"
        )
    return token


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. UnlikenessError if there can be none."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=MOST_CONNECTIONS)
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise UnlikenessError(
            f"port {port} of {host} cannot be used ({said}); give another --port or --host"
        ) from error


def server(app: ASGIApp) -> uvicorn.Server:
    """A server that logs nothing: neither names nor addresses."""
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    return uvicorn.Server(
        uvicorn.Config(
            app, http=_Connection, ws="none", loop="asyncio", lifespan="on", log_config=None,
            log_level="critical", access_log=False, proxy_headers=False, server_header=False,
            timeout_graceful_shutdown=5,
        )
    )  # fmt: skip


def serve(app: ASGIApp, opened: socket.socket) -> None:
    """Serve until a signal ends the process."""
    # A new context: messages of a request name settings as they are called there, not as options.
    contextvars.Context().run(server(app).run, [opened])
