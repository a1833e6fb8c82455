"""The service, on a real port of this machine: the bytes of `protect`, faults, limits and the token."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cli.test_without_torch import CODE
from tests.protect.test_tiles import write
from tests.serve.local import ask, form, said, service

from unlikeness.cli import main
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.methods.rid import Rid, RidSettings
from unlikeness.serve import door, running
from unlikeness.serve.work import Work, private_folder

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def rid() -> Rid:
    return Rid(None, RidSettings())


def test_the_bytes_are_those_of_protect(rid: Rid, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a body and as a form; then how far the pictures differ, what was counted, and the description."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, how in (("a.jpg", "RGB"), ("grey.png", "L")):
        write(photos / name, 150, 90, how)
    words = ["--psnr", "38", "--at", "tiles", "--budget", "6", "-q"]
    assert main(["protect", str(photos), "-o", str(tmp_path / "out"), *words]) == 0
    lines = [json.loads(one) for one in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    with service(rid, tmp_path / "work") as port:
        for line in lines:
            data = (photos / line["path"]).read_bytes()
            copied = (tmp_path / "out" / line["path"]).read_bytes()
            body, kind = form(any=data)
            query = "/v1/protect?psnr=38&at=tiles&budget=6&weights=rid-photo"
            for answer in (ask(port, query, data), ask(port, query, body, content_type=kind)):
                status, headers, found = answer
                assert (status, found == copied) == (200, True), found[:300]
                assert headers["unlikeness-psnr"] == str(line["psnr"])
                assert headers["unlikeness-against"].startswith(line["against"]["claim"])
                assert headers["content-type"].startswith("image/")
        body, kind = form(before=data, after=copied)
        status, _, found = ask(port, "/v1/measure", body, content_type=kind)
        seen = json.loads(found)
        assert (status, round(seen["psnr"], 3), seen["linf"]) == (200, line["psnr"], line["linf"])
        counts = ask(port, "/metrics", method="GET")[2].decode()
        assert 'unlikeness_requests_total{path="/v1/protect",status="200"} 4\n' in counts
        assert "unlikeness_places 0\n" in counts
        about = json.loads(ask(port, "/openapi.json", method="GET")[2])
        names = [one["name"] for one in about["paths"]["/v1/protect"]["post"]["parameters"]]
        assert names == ["budget", "psnr", "at", "weights"]
        assert json.loads(ask(port, "/healthz", method="GET")[2])["status"] == "ok"
    capsys.readouterr()


def test_what_is_wrong_is_one_sentence(
    rid: Rid, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.png", 60, 50)
    good = (tmp_path / "a.png").read_bytes()
    fields, kind = form(a=good, b=good)
    long, _ = form(a=bytes(166_000))
    faults: list[tuple[int, str, Any, dict[str, str], str]] = [
        (422, "/v1/protect?budget=0", good, {}, "budget must be more than 0, not 0"),
        (422, "/v1/protect?psnr=5", good, {}, "psnr must be at least 10, not 5.0"),
        (422, "/v1/protect?at=here", good, {}, "at must be one of fit, tiles, both, not 'here'"),
        (422, "/v1/protect?budgt=3", good, {}, "budgt is no setting of Wanted (did you mean budget?)"),
        (422, "/v1/protect?at=fit&at=fit", good, {}, "at is given twice"),
        (422, "/v1/protect?weights=../a", good, {}, "weights ../a are none of this service's networks"),
        (422, "/v1/protect", good[:-30], {}, "the picture: it is truncated"),
        (422, "/v1/protect?budget=0.1", good, {}, "nothing was changed, this is a copy"),
        (415, "/v1/protect", b"no picture", {}, "the picture: it is no JPEG, PNG"),
        (415, "/v1/protect", good, {"content_encoding": "gzip"}, "the body is compressed"),
        (400, "/v1/protect", b"", {}, "the body is empty"),
        (400, "/v1/protect", fields, {"content_type": kind}, "the form must hold one file and nothing else"),
        (400, "/v1/protect", b"--c\r\n\r\n", {"content_type": kind}, "the form"),
        (400, "/v1/protect", b"x", {"content_type": "multipart/form-data"}, "the form cannot be read"),
        (400, "/v1/measure", good, {}, "send a form (multipart/form-data) with the files before and after"),
        (400, "/v1/measure", fields, {"content_type": kind}, "the form holds no file before"),
        (413, "/v1/protect", bytes(100_001), {}, "the body has more than 100,000 bytes"),
        (413, "/v1/protect", (bytes(9000) for _ in range(99)), {}, "the body has more than 100,000 bytes"),
        (413, "/v1/protect", long, {"content_type": kind}, "the body has more than 165,536 bytes"),
        (413, "/v1/protect", iter([long]), {"content_type": kind}, "the body has more than 165,536 bytes"),
        (404, "/v1/jobs", good, {}, "this service takes no jobs; start it with --jobs FOLDER"),
        (404, "/v1/../../etc/passwd", None, {}, "there is nothing at this address"),
        (405, "/healthz", b"", {}, "this address takes another method"),
        (403, "/v1/protect", good, {"host": "evil.example"}, "this service answers to 127.0.0.1"),
        (403, "/v1/protect", good, {"origin": "http://evil.example"}, "requests of other websites"),
        (403, "/v1/protect", good, {"origin": "null"}, "requests of other websites"),
    ]  # fmt: skip
    with service(rid, tmp_path / "work", max_bytes=100_000, max_pixels=10_000) as port:
        for status, path, body, headers, sentence in faults:
            got, _, found = ask(port, path, body, "GET" if body is None else "POST", **headers)
            assert got == status, (path, sentence, found)
            assert said(found, status).startswith(sentence)
        assert ask(port, "/v1/protect", good, origin=f"http://127.0.0.1:{port}")[0] == 200
        write(tmp_path / "large.png", 200, 90)
        got, _, found = ask(port, "/v1/protect", (tmp_path / "large.png").read_bytes())
        assert (got, "200 × 90" in said(found, 422)) == (422, True)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records, 'nothing is logged'


def test_the_page_and_nothing_beside_it(rid: Rid, tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.mkdir()
    names = ["index.html", "a.mjs", "../secret"]
    (page / "files.json").write_text(json.dumps({"files": [{"path": name} for name in names]}))
    for name in names:
        (page / name).write_text(name)
    with service(rid, tmp_path / "work", page=page) as port:
        assert ask(port, "/", method="GET")[2] == b"index.html"
        assert ask(port, "/a.mjs", method="GET")[1]["content-type"].startswith("text/javascript")
        for path in ("/../secret", "/%2e%2e/secret", "/files.json/../a.mjs", "//a.mjs"):
            assert ask(port, path, method="GET")[0] == 404, path


def test_token_and_rate(rid: Rid, tmp_path: Path) -> None:
    write(tmp_path / "a.png", 60, 50)
    good, token = (tmp_path / "a.png").read_bytes(), "0123456789abcdef"
    with service(rid, tmp_path / "work", token=token, loopback=False, rate=4) as port:
        assert ask(port, "/healthz", method="GET", host="any.example")[0] == 200
        for given in ("", token, f"Bearer {token}x", "Bearer "):
            status, headers, found = ask(port, "/v1/protect", good, authorization=given)
            assert (status, headers["www-authenticate"]) == (401, "Bearer"), given
            assert "token" in said(found, 401)
        status, headers, found = ask(port, "/v1/protect", good, authorization=f"Bearer {token}")
        assert (status, int(headers["retry-after"]) > 10) == (429, True)
        assert said(found, 429).startswith("more than 4 requests in a minute")
    with service(rid, tmp_path / "work", token=token, loopback=False, jobs=tmp_path / "jobs") as port:
        assert ask(port, "/v1/jobs/0", method="GET")[0] == 401
        assert ask(port, "/v1/jobs/0", method="GET", authorization=f"Bearer {token}")[0] == 404
        assert ask(port, "/v1/protect", good, authorization=f"bearer {token}")[0] == 200


def test_rate_of_clients() -> None:
    now = [0.0]
    rate = door.Rate(2, lambda: now[0])
    assert [rate.wait("10.0.0.1") for _ in range(3)] == [0, 0, 30]
    assert rate.wait("10.0.0.2") == 0
    assert [rate.wait(f"2001:db8::{one}") for one in (1, 2, 3)] == [0, 0, 30], "one IPv6 client"
    now[0] = 30
    assert (rate.wait("10.0.0.1"), rate.wait("10.0.0.1")) == (0, 30)


def test_200_uploads_at_once_stay_in_memory(rid: Rid, tmp_path: Path) -> None:
    """Those without a place wait, and all are answered."""
    write(tmp_path / "a.png", 60, 50)
    good = (tmp_path / "a.png").read_bytes()
    other = bytes(1 << 19)  # 100 MB in all
    with service(rid, tmp_path / "work", queue=16) as port:
        first = ask(port, "/v1/protect", good)[2]
        before, most, over = psutil.Process().memory_info().rss, [0], threading.Event()

        def watch() -> None:
            while not over.wait(0.05):
                most[0] = max(most[0], psutil.Process().memory_info().rss)

        def send(number: int) -> bool:
            status, _, found = ask(port, "/v1/protect", good if number % 20 == 0 else other)
            return found == first if number % 20 == 0 else status == 415

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(200) as pool:
            assert all(pool.map(send, range(200)))
        over.set()
        watcher.join()
    assert most[0] - before < 64 << 20


def test_slow_clients_are_sent_away(rid: Rid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, in the middle of a head, and in the middle of a body."""
    monkeypatch.setattr(running, "PATIENCE", 0.5)
    monkeypatch.setattr(running, "_TURN", 0.1)
    head = b"POST /v1/protect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
    with service(rid, tmp_path / "work", seconds=1) as port:
        for begun, answer in ((b"", b""), (head[:30], b""), (head + b"abc", b"HTTP/1.1 408 ")):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.settimeout(10)
                client.sendall(begun)
                assert client.recv(13) == answer
                while client.recv(65536):
                    pass


def test_a_full_service_says_so(rid: Rid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that gets no place within its time, and a connection beyond the bound."""
    write(tmp_path / "a.png", 60, 50)
    good, free = (tmp_path / "a.png").read_bytes(), threading.Event()
    begun = threading.Event()

    def slow(self: Work, source: Path, *others: Any) -> None:
        begun.set()
        free.wait(20)
        raise UnlikenessError("it was slow")

    monkeypatch.setattr(Work, "protect", slow)
    monkeypatch.setattr(running, "MOST_CONNECTIONS", 3)
    with service(rid, tmp_path / "work", queue=1, seconds=1) as port, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, port, "/v1/protect", good)
        assert begun.wait(20)
        status, headers, found = ask(port, "/v1/protect", good)
        assert (status, headers["retry-after"]) == (503, "10")
        assert said(found, 503).startswith("it takes longer than 1 seconds")
        free.set()
        assert first.result()[0] == 503
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        with pytest.raises(ConnectionError):
            ask(port, "/healthz", method="GET")
        for one in held:
            one.close()
        until = time.monotonic() + 10
        while True:
            try:
                assert ask(port, "/healthz", method="GET")[0] == 200
                break
            except ConnectionError:
                assert time.monotonic() < until
                time.sleep(0.05)


def test_a_client_that_left_is_forgotten(rid: Rid, tmp_path: Path) -> None:
    write(tmp_path / "a.png", 300, 200)
    data = (tmp_path / "a.png").read_bytes()
    head = f"POST /v1/protect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    with service(rid, tmp_path / "work") as port:  # whose end checks that nothing is kept
        for part in (head + data, head + data[:100]):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(part)
                time.sleep(0.1)


def test_the_folder_of_a_killed_service_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("unlikeness.serve.work._YOUNG", 0)
    (tmp_path / "unlikeness-serve-dead").mkdir()
    with private_folder() as first, private_folder() as second:
        assert first.stat().st_mode & 0o777 == 0o700
        assert {*tmp_path.iterdir()} == {first, second}
    assert not list(tmp_path.iterdir())


def test_the_command_without_torch(tmp_path: Path) -> None:
    """It starts, answers, and leaves nothing behind when it is ended."""
    write(tmp_path / "a.png", 60, 50)
    held = tmp_path / "held"
    held.mkdir()
    command = [sys.executable, "-c", f"{CODE}\nsys.exit(main())", "serve", "--port", "0"]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(held)},
    )  # fmt: skip
    try:
        assert run.stdout is not None
        line = run.stdout.readline()
        assert line.startswith("serving at http://127.0.0.1:"), line
        port = int(line.split(":")[2].split("/")[0])
        status, headers, _ = ask(port, "/v1/protect", (tmp_path / "a.png").read_bytes())
        assert (status, headers["content-type"]) == (200, "image/png")
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=60)
        assert (run.returncode, err) == (143, "unlikeness: terminated\n")
        assert not list(held.glob("unlikeness-*"))
    finally:
        run.kill()
        run.wait()


def test_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNLIKENESS_TOKEN", raising=False)
    (tmp_path / "short").write_text("secret")
    for words, sentence in {
        "--host 0.0.0.0": "--host 0.0.0.0 can be reached from other machines, which needs a token",
        f"--token-file {tmp_path / 'short'}": f"--token-file {tmp_path / 'short'} holds no token",
        f"--token-file {tmp_path / 'none'}": f"--token-file {tmp_path / 'none'} cannot be read",
        f"--page {tmp_path}": f"--page {tmp_path} is no page",
        "--max-bytes 5": "--max-bytes must be at least 1024, not 5",
        "--weights nosuch": "weights nosuch are no file and no shipped protector",
        "--weights rid-photo --weights a/rid-photo.onnx": "--weights rid-photo and a/rid-photo.onnx are both",
    }.items():
        assert main(["serve", *words.split()]) == 2, words
        assert capsys.readouterr().err.startswith(f"unlikeness: {sentence}")
    with running.listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnlikenessError, match=f"port {port} of 127.0.0.1 cannot be used"):
            running.listening("127.0.0.1", port)
    monkeypatch.setenv("UNLIKENESS_TOKEN", "short")
    with pytest.raises(UsageError, match="UNLIKENESS_TOKEN holds no token"):
        running.read_token(None)
