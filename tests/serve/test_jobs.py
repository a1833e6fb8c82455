"""Jobs of the service: the files of `protect`, after a kill too; strangers' zips and names; limits."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Generator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from tests.protect.test_tiles import write
from tests.serve.local import ask, said, service

from unlikeness.cli import main
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.methods.rid import Rid, RidSettings
from unlikeness.serve import folders, task
from unlikeness.serve.jobs import opened_jobs
from unlikeness.serve.settings import Limits, WantedJob
from unlikeness.serve.task import Offer

pytestmark = pytest.mark.timeout(120)

ZIP = "application/zip"


@pytest.fixture(scope="module")
def rid() -> Rid:
    return Rid(None, RidSettings())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.jpg", "b/c.png", "b/d.jpg", "e.jpg")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "photos" / name, 150, 100, seed=number)
    (tmp_path / "photos" / "h.jpg").write_bytes(b"no picture")
    return tmp_path / "photos"


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return data.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def form_of(files: dict[str, bytes]) -> tuple[bytes, str]:
    head = '--b\r\nContent-Disposition: form-data; name="pictures"; filename="{}"\r\n\r\n'
    parts = [head.format(name).encode() + data + b"\r\n" for name, data in files.items()]
    return b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


def send(port: int, body: bytes, kind: str = ZIP, query: str = "") -> dict[str, Any]:
    status, headers, found = ask(port, f"/v1/jobs{query}", body, content_type=kind)
    state: dict[str, Any] = json.loads(found)
    assert (status, headers["location"]) == (202, f"/v1/jobs/{state.get('id')}"), found
    return state


def states(port: int, job: str) -> Generator[dict[str, Any]]:
    """The events of a job."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", f"/v1/jobs/{job}/events")
        answer = connection.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    finally:
        connection.close()


def result(port: int, job: str) -> dict[str, bytes]:
    """The pictures in a job's zip."""
    status, headers, data = ask(port, f"/v1/jobs/{job}/result", method="GET")
    assert (status, headers["content-type"]) == (200, ZIP)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        found = {name: packed.read(name) for name in packed.namelist()}
    lines = [json.loads(line) for line in found.pop("manifest.jsonl").splitlines()]
    assert {line["path"] for line in lines if line["status"] == "protected"} == set(found)
    return found


def gone(jobs: Path) -> bool:
    """Whether nothing is left of any job, a little later."""
    until = time.monotonic() + 20
    while [*jobs.glob("job-*")] and time.monotonic() < until:
        time.sleep(0.05)
    return not [*jobs.glob("job-*")]


def protected(photos: Path, folder: Path, *words: str) -> dict[str, bytes]:
    """What `unlikeness protect` makes of the folder."""
    given = ["--psnr", "38", "--budget", "6", "-q", *words]
    assert main(["protect", str(photos), "-o", str(folder), *given]) == 1
    found = files_of(folder)
    del found["manifest.jsonl"]
    return found


def test_jobs_end_with_the_files_of_protect(
    rid: Rid, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a zip and from a form. Only the id leads to a job, and what is kept goes when its time is over."""
    jobs, query = tmp_path / "jobs", "?psnr=38&budget=6&at=tiles"
    given, right = files_of(photos), protected(photos, tmp_path / "out", "--at", "tiles")
    assert len(right) == 4
    with service(rid, tmp_path / "work", jobs=jobs) as port:
        first = send(port, zipped(given), query=query)
        second = send(port, *form_of({name: given[name] for name in ("a.jpg", "b/c.png")}), query=query)
        assert (first["status"], first["pictures"], second["status"]) == ("queued", 5, "queued")
        assert second["ahead"] == 1
        seen = [*states(port, second["id"])]
        assert {one["status"] for one in seen} == {"queued", "running", "done"}
        assert max(one.get("finished", 0) for one in seen) == 2
        assert result(port, second["id"]) == {name: right[name] for name in ("a.jpg", "b/c.png")}
        (end,) = states(port, first["id"])
        assert {name: end[name] for name in ("protected", "unchanged", "skipped", "pictures")} == {
            "protected": 4, "unchanged": 0, "skipped": 1, "pictures": 5,
        }  # fmt: skip
        assert result(port, first["id"]) == right
        kept = sorted(path.name for path in jobs.rglob("*") if path.is_file())
        assert kept == [".unlikeness.lock", "jobs.sqlite", "result.zip", "result.zip"]
        assert first["id"] not in str([*jobs.rglob("*")])
        assert first["id"].encode() not in (jobs / "jobs.sqlite").read_bytes()
        for path in ("", "/events", "/result"):
            status, _, found = ask(port, f"/v1/jobs/{'0' * 32}{path}", method="GET")
            assert (status, "no such job" in said(found, 404)) == (404, True)
        assert 'unlikeness_jobs{status="done"} 2\n' in ask(port, "/metrics", method="GET")[2].decode()
        about = json.loads(ask(port, "/openapi.json", method="GET")[2])["paths"]
        assert {"/v1/jobs", "/v1/jobs/{job}/events", "/v1/jobs/{job}/result"} <= set(about)
    with contextlib.closing(sqlite3.connect(jobs / "jobs.sqlite", isolation_level=None)) as base:
        base.execute("UPDATE jobs SET ended = ended - 86400")
    with service(rid, tmp_path / "work", jobs=jobs) as port:
        assert ask(port, f"/v1/jobs/{first['id']}/result", method="GET")[0] == 404
        assert gone(jobs)
    capsys.readouterr()


def test_a_killed_service_goes_on(
    rid: Rid, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And ends with the same files. Half an upload and the rest of an ended job are gone."""
    for name in ("b/d.jpg", "e.jpg"):
        (photos / name).unlink()
    jobs, right = tmp_path / "jobs", protected(photos, tmp_path / "out")
    run = subprocess.Popen(
        [sys.executable, "-m", "unlikeness", "serve", "--port", "0", "--jobs", str(jobs)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert run.stdout is not None
        port = int(run.stdout.readline().split(":")[2].split("/")[0])
        with pytest.raises(UnlikenessError, match="name another --jobs"), opened_jobs(jobs, Limits()):
            pass
        job = send(port, zipped(files_of(photos)), query="?psnr=38&budget=6")["id"]
        watched = states(port, job)
        while not next(watched).get("finished"):
            pass
        run.send_signal(signal.SIGKILL)
    finally:
        run.kill()
        run.wait()
    (copies,) = jobs.glob("job-*/out")
    done = {name for name in files_of(copies) if not name.startswith(".")} - {"manifest.jsonl"}
    assert 0 < len(done) < len(right), "it was killed in the middle"
    (jobs / "job-half").mkdir()
    with service(rid, tmp_path / "work", jobs=jobs) as port:
        assert not (jobs / "job-half").exists()
        *_, end = states(port, job)
        assert (end["status"], end["protected"], end["skipped"]) == ("done", 2, 1)
        assert result(port, job) == right
        assert ask(port, f"/v1/jobs/{job}", method="DELETE")[0] == 204
        assert not [*jobs.glob("job-*")]
    capsys.readouterr()


def test_a_job_can_be_ended_and_fails_with_a_sentence(
    rid: Rid, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs and while it waits; a job without time, and one that ends its services."""
    jobs, data = tmp_path / "jobs", zipped(files_of(photos))
    with service(rid, tmp_path / "work", jobs=jobs, queue=2, job_seconds=1) as port:
        running, waiting = send(port, data)["id"], send(port, data)["id"]
        status, headers, found = ask(port, "/v1/jobs", data, content_type=ZIP)
        assert (status, headers["retry-after"]) == (503, "60"), "the queue is full"
        assert said(found, 503).startswith("2 jobs wait already")
        status, _, found = ask(port, f"/v1/jobs/{waiting}/result", method="GET")
        assert said(found, 409) == "the job is queued and has no result: wait until its status is done"
        watched = states(port, running)
        assert next(watched)["status"] in ("queued", "running")
        for job in (waiting, running):
            assert ask(port, f"/v1/jobs/{job}", method="DELETE")[0] == 204
        assert [*watched][-1] == {"id": running, "status": "deleted"}
        assert gone(jobs)
        *_, end = states(port, send(port, data)["id"])
        late = "it takes longer than 1 seconds; send fewer pictures"
        assert (end["status"], end["detail"]) == ("failed", late)
        monkeypatch.setattr("unlikeness.serve.computing._MOST_STARTS", 0)
        *_, end = states(port, send(port, data)["id"])
        assert end["detail"].startswith("the service ended five times")
        assert not [*jobs.glob("job-*")], "nothing is kept of a job that failed"
    monkeypatch.undo()
    with service(rid, tmp_path / "work", jobs=jobs) as port:
        watched = states(port, send(port, data)["id"])
        while next(watched)["status"] != "running":
            pass
        watched.close()
    with contextlib.closing(sqlite3.connect(jobs / "jobs.sqlite")) as base:
        (row,) = base.execute("SELECT status, starts FROM jobs WHERE ended IS NULL")
    assert row == ("queued", 0), "a service that ends in order is not held against the job"


def test_what_cannot_become_a_job(rid: Rid, photos: Path, tmp_path: Path) -> None:
    """It is refused with a sentence, and nothing of it is kept."""
    good = (photos / "a.jpg").read_bytes()
    encrypted = bytearray(zipped({"a.jpg": good}))
    for place in (encrypted.find(b"PK\1\2") + 8, 6):
        encrypted[place] |= 1
    listed = bytearray(zipped({"a.jpg": good}))
    listed[-10:-6] = (2 << 20).to_bytes(4, "little")  # the list's size, by the end of the zip
    damaged = bytearray(zipped({"a.jpg": good}, zipfile.ZIP_STORED))
    damaged[200] ^= 1
    climbing, form = form_of({"x/../../a.jpg": good})
    half, _ = form_of({"a.jpg": good})
    faults: list[tuple[int, bytes, str, str, str]] = [
        (422, good, "", ZIP, "the zip cannot be read"),
        (422, bytes(damaged), "", ZIP, "the zip cannot be read"),
        (422, bytes(listed) + bytes(3 << 20), "", ZIP, "the zip cannot be read"),
        (422, bytes(encrypted), "", ZIP, "the zip is encrypted"),
        (422, zipped({"a.jpg": good}, zipfile.ZIP_LZMA), "", ZIP, "the zip is packed in an unusual way"),
        (422, zipped({"a.txt": b"text", "__MACOSX/a.jpg": good}), "", ZIP, "no picture is among these"),
        (413, zipped({"a.png": bytes(5 << 20)}), "", ZIP, "the zip unpacks to more than 4,194,304 bytes"),
        (413, zipped({f"{n}.png": b"" for n in range(1001)}), "", ZIP, "these are more than 1000 files"),
        (413, bytes(5 << 20), "", ZIP, "the body has more than 4,194,304 bytes"),
        (400, zipped({"../a.jpg": good}), "", ZIP, "the name ../a.jpg cannot be used: it names no place"),
        (400, zipped({"b/\1.jpg": good}), "", ZIP, "the name"),
        (400, zipped({"a" * 300: good}), "", ZIP, "the name"),
        (400, zipped({"a/" * 20 + "a.jpg": good}), "", ZIP, "the name"),
        (400, zipped({"a.jpg": good, "A.JPG": good}), "", ZIP, "the name A.JPG cannot be used: another"),
        (400, zipped({"a": good, "a/b.jpg": good}), "", ZIP, "the name a/b.jpg cannot be used: another"),
        (400, climbing, "", form, "the name x/../../a.jpg cannot be used"),
        (400, half[:-20], "", form, "the form cannot be read (it breaks off)"),
        (400, b"--c--", "", form, "the form cannot be read"),
        (422, zipped({"a.jpg": good}), "?method=advdm", ZIP, "method advdm is not offered by this service"),
        (422, zipped({"a.jpg": good}), "?steps=3", ZIP, "steps is no setting of RidSettings"),
        (422, zipped({"a.jpg": good}), "?preset=mist", ZIP, "preset mist is for the method encoder"),
        (422, zipped({"a.jpg": good}), "?weights=/a.onnx", ZIP, "weights /a.onnx are none of this service's"),
        (422, zipped({"a.jpg": good}), "?model=/a", ZIP, "model is no setting of WantedJob"),
    ]  # fmt: skip
    jobs = tmp_path / "jobs"
    with service(rid, tmp_path / "work", jobs=jobs, job_bytes=4 << 20) as port:
        for status, body, query, kind, sentence in faults:
            got, _, found = ask(port, f"/v1/jobs{query}", body, content_type=kind)
            assert got == status, (sentence, found)
            assert said(found, status).startswith(sentence), found
    with service(rid, tmp_path / "work", jobs=jobs, disk=1 << 20) as port:
        got, _, found = ask(port, "/v1/jobs", zipped({"a.jpg": good}), content_type=ZIP)
        assert (got, said(found, 503)) == (503, "the disk of the jobs is full; try again later")
    assert [*jobs.iterdir()] == [jobs / "jobs.sqlite"]
    (jobs / "jobs.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UnlikenessError, match=r"jobs\.sqlite cannot be used"), opened_jobs(jobs, Limits()):
        pass


def test_names_are_held_inside(tmp_path: Path) -> None:
    """What a client on Windows calls a folder is one, and nothing is written outside."""
    folder = folders.Folder(tmp_path / "in")
    assert folder.place("C:\\photos\\a.jpg") == tmp_path / "in" / "C:" / "photos" / "a.jpg"
    assert folder.place("/etc/./a.jpg") == tmp_path / "in" / "etc" / "a.jpg"
    assert [*tmp_path.iterdir()] == [tmp_path / "in"]


def test_gradient_methods(tmp_path: Path) -> None:
    """A task says which methods there are, and is done as by `protect`."""
    offer = Offer({"rid-photo": "rid-photo"}, 50_000_000, model="toybox")
    asked = offer.task(WantedJob(method="encoder", steps=2, psnr=30, preset="mist"), weights=False)
    assert {"steps": 2, "psnr": 30, "objective": "target", "budget": 8.0}.items() <= asked["settings"].items()
    assert Offer(offer.networks, 1, against="sdxl").methods == ["rid", "encoder", "photoguard"]
    with pytest.raises(UsageError, match="weights is no setting of EncoderSettings"):
        offer.task(WantedJob(method="encoder", weights="rid-photo"), weights=True)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.png", 70, 66)
    told = io.StringIO()
    asked = offer.task(WantedJob(method="photoguard", steps=2, psnr=40), weights=False)
    outcome = task.done(asked, tmp_path, told)
    assert (outcome["protected"], outcome["skipped"]) == (1, 0)
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    assert lines[-1]["finished"] == 1
    assert lines[-1]["step"] == 2
    with zipfile.ZipFile(tmp_path / "result.zip") as packed:
        line = json.loads(packed.read("manifest.jsonl"))
    words = ["--model", "toybox", "--method", "photoguard", "--steps", "2", "--psnr", "40", "-q"]
    assert main(["protect", str(tmp_path / "in"), "-o", str(tmp_path / "again"), *words]) == 0
    other = json.loads((tmp_path / "again" / "manifest.jsonl").read_text())
    assert (line["recipe"], line["output_digest"]) == (other["recipe"], other["output_digest"])
