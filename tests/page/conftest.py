"""A page with a small network, its server, and Chromium that can reach nothing else."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from unlikeness.page.build import RUNTIME, build_page
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.weights import save_protector

ARCHIVE = Path(__file__).parents[2] / "build" / f"{RUNTIME.replace('@', '-')}.tgz"
SIDE = 32
_OWN = re.compile(r"\w+ (?:https?://)?[\w.-]+\.(?:google|googleapis|gvt1)\.com[:/]")
"""Chromium's maker, which it contacts whatever page is open. (Playwright reports the page's own requests.)"""


def network(path: Path) -> Path:
    """A protector of random weights for pictures of 32 px, whose change is about 2/255 at a budget of 8."""
    made = Protector(NetworkSettings(fine=8, middle=8, coarse=8, sees="detail"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    about = {"resolution": SIDE, "models": ["taef2_encoder.pth"], "version": "0"}
    save_protector(made, path, about=about)
    return path


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the page."""
    if not ARCHIVE.is_file():
        pytest.skip(f"{ARCHIVE.name} is not in build/: run `make browser`")
    folder = tmp_path_factory.mktemp("page")
    build_page(folder / "page", str(network(folder / "small.safetensors")), ARCHIVE)
    return folder / "page"


@dataclass
class Served:
    """A server of the page at `url`. contacts: the requests to any other address."""

    url: str
    stop: Any
    contacts: list[str] = field(default_factory=list)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def served(page: Path) -> Iterator[Served]:
    handler = functools.partial(_Handler, directory=str(page))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    yield Served(f"http://127.0.0.1:{server.server_port}/", stop)
    stop()


@pytest.fixture(scope="session")
def browser(served: Served) -> Iterator[Any]:
    """Chromium, which sends what is not for the page to a proxy that writes it down and answers nothing."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make dev")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium: run `make browser`")
    listener = socket.create_server(("127.0.0.1", 0))

    def record() -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                connection, _ = listener.accept()
                with connection:
                    target = connection.recv(4096).split(b"\r\n")[0].decode("latin1")
                    if not _OWN.match(target):
                        served.contacts.append(target)

    threading.Thread(target=record, daemon=True).start()
    own = served.url.removeprefix("http://").rstrip("/")
    with sync.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", f"--proxy-server=127.0.0.1:{listener.getsockname()[1]}",
                  f"--proxy-bypass-list=<-loopback>;{own}"],
        )  # fmt: skip
        yield opened
        opened.close()
    listener.close()
