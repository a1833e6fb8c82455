"""A process that waits for pictures and is killed from outside costs no picture."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.pictures.makers import image
from tests.pictures.test_guard import children

from unlikeness.errors import PictureError
from unlikeness.pictures import guard, open_picture
from unlikeness.pictures.limits import TOO_LARGE

DEADLY = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

SUICIDE = """
import os, signal
from unlikeness.pictures.formats import bmp
from unlikeness.pictures.worker import main
def read(data, max_pixels):
    print(1, file=open({log!r}, "a"))
    os.kill(os.getpid(), signal.{kind})
bmp.read = read
main()
"""
"""A decoder of BMP files that ends its process."""


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[list[Path]]:
    guard.close()
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file in files:
        image("RGB").save(file)
    yield files
    guard.close()


def kill(pids: set[int], kind: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, kind)


@pytest.mark.parametrize("kind", DEADLY)
def test_the_next_picture_is_read_all_the_same(kind: signal.Signals, pictures: list[Path]) -> None:
    """At once, before the dead process can be reaped, and several times."""
    if signal.getsignal(kind) == signal.SIG_IGN:  # as below nohup; the process inherits it
        pytest.skip(f"{kind.name} is ignored here")
    before = children()
    open_picture(pictures[0])
    for _ in range(2):
        waiting = children() - before
        assert len(waiting) == 1
        kill(waiting, kind)
        assert open_picture(pictures[0]).size == image("RGB").size
        assert not children() & waiting
    assert len(children() - before) == 1


def test_two_at_once(pictures: list[Path]) -> None:
    before = children()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(open_picture, pictures * 2))
        for _ in range(2):
            kill(children() - before, signal.SIGKILL)
            sizes = [picture.size for picture in pool.map(open_picture, pictures)]
            assert sizes == [image("RGB").size] * 2


@pytest.mark.parametrize("stage", ["starting", "ready"])
def test_a_prepared_process_too(stage: str, pictures: list[Path]) -> None:
    before = children()
    guard.prepare()
    if stage == "ready":
        guard._pool.idle[0]._greet()
    kill(children() - before, signal.SIGKILL)
    assert open_picture(pictures[0]).size == image("RGB").size


@pytest.mark.parametrize(
    ("kind", "reads", "said"),
    [
        ("SIGKILL", 2, TOO_LARGE),
        ("SIGTERM", 2, "crashed"),
        ("SIGSEGV", 1, "crashed"),
        ("SIGABRT", 1, "crashed"),
    ],
)
def test_a_picture_that_ends_its_process_is_refused(
    kind: str, reads: int, said: str, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one more try, if the first process had been used before and the signal may be from outside."""
    log = tmp_path / "reads"
    code = SUICIDE.format(log=str(log), kind=kind)
    monkeypatch.setattr(guard, "PROGRAM", f"exec({code!r})")
    image("RGB").save(tmp_path / "bad.bmp")
    with pytest.raises(PictureError, match=said):
        open_picture(tmp_path / "bad.bmp")
    assert len(log.read_text().splitlines()) == 1, "a process that is new has no excuse"
    open_picture(pictures[0])
    with pytest.raises(PictureError, match=said):
        open_picture(tmp_path / "bad.bmp")
    assert len(log.read_text().splitlines()) == 1 + reads
    open_picture(pictures[0])
