"""Another process decodes pictures, so that no file can hang, fill or crash this one."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tests.pictures.makers import ALL, image

from unlikeness.diffusion import TextToImage
from unlikeness.errors import PictureError, UnlikenessError
from unlikeness.pictures import guard, open_picture
from unlikeness.pictures.colour import ColourModel
from unlikeness.pictures.limits import Limits
from unlikeness.pictures.memory import LARGE, Area, empty, kept_in
from unlikeness.pictures.wire import packed, unpacked
from unlikeness.pictures.worker import decode_file
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.files.masks import open_mask
from unlikeness.protect.methods.noise import Noise, NoiseSettings
from unlikeness.subjects import load_folder

BEHAVIOURS = {
    "endless": "while True: pass",
    "asleep": "import time; time.sleep(1000)",
    "greedy": "kept = [bytearray(1 << 24) for _ in range(1 << 20)]",
    "crashing": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "failing": "raise Exception('no such thing')",
}
SAID = {
    "endless": "longer than 1 seconds of computing",
    "asleep": "longer than 2 seconds",
    "greedy": "does not fit in memory",
    "crashing": "its decoder crashed",
    "failing": "its decoder failed (Exception: no such thing)",
}


@pytest.fixture
def patched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Processes whose reader of BMP files behaves as the parameter says, with short limits."""
    code = f"""
import sys
from unlikeness.pictures.formats import bmp
from unlikeness.pictures.worker import main
def read(data, max_pixels):
    {BEHAVIOURS[request.param]}
bmp.read = read
main()
"""
    guard.close()
    monkeypatch.setattr(guard, "PROGRAM", f"exec({code!r})")
    monkeypatch.setattr(guard, "LIMITS", Limits(seconds=1, waiting=2 if request.param == "asleep" else 60))
    yield request.param
    guard.close()


def children() -> set[int]:
    """The running processes that this one started."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@pytest.mark.parametrize("patched", BEHAVIOURS, indirect=True)
def test_a_bad_decoder_costs_one_line(patched: str, tmp_path: Path) -> None:
    image("RGB").save(tmp_path / "a.bmp")
    image("RGB").save(tmp_path / "b.png")
    before = children()
    with pytest.raises(PictureError) as caught:
        open_picture(tmp_path / "a.bmp")
    assert SAID[patched] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "a.bmp" in str(caught.value)
    assert "; " in str(caught.value)
    assert children() == before, "the process is still there"
    assert open_picture(tmp_path / "b.png").size == image("RGB").size


@pytest.mark.parametrize("patched", ["endless", "crashing"], indirect=True)
def test_the_folder_goes_on(patched: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.bmp", "c.png"):
        image("RGB").save(folder / name)
    model = cast(TextToImage, SimpleNamespace(resolution=64, autoencoder=None, name=""))
    perturber = Noise(model, NoiseSettings(budget=8))
    outcome = protect_folder([folder], tmp_path / "out", perturber, method="noise")
    assert [entry.path for entry in outcome.protected] == ["a.png", "c.png"]
    assert [entry.path for entry in outcome.skipped] == ["b.bmp"]
    assert SAID[patched] in str(outcome.skipped[0].reason)


@pytest.mark.parametrize("patched", ["crashing"], indirect=True)
def test_subjects_and_masks_are_read_in_the_same_way(patched: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.bmp", "c.png"):
        image("RGB").save(tmp_path / name)
    told: list[str] = []
    assert len(load_folder(tmp_path, size=8, report=told.append)) == 2
    assert len(told) == 1
    assert SAID[patched] in told[0]
    with pytest.raises(PictureError, match=r"mask b\.bmp: .*crashed"):
        open_mask(tmp_path / "b.bmp", image("RGB").size)


def test_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reported once, as an error that ends a run. Nothing is decoded without the guard."""
    image("RGB").save(tmp_path / "a.png")
    guard.close()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(UnlikenessError, match="cannot be started") as caught:
        open_picture(tmp_path / "a.png")
    assert not isinstance(caught.value, PictureError)
    monkeypatch.undo()
    monkeypatch.setattr(guard, "PROGRAM", "raise ImportError('numpy is broken')")
    with pytest.raises(UnlikenessError, match=r"cannot be started \(ImportError: numpy is broken\)"):
        open_picture(tmp_path / "a.png")
    monkeypatch.undo()
    assert open_picture(tmp_path / "a.png").size == image("RGB").size


def test_a_process_that_is_gone_is_replaced_and_ignores_ctrl_c(tmp_path: Path) -> None:
    image("RGB").save(tmp_path / "a.png")
    guard.close()
    before = children()
    open_picture(tmp_path / "a.png")
    (first,) = children() - before
    os.kill(first, signal.SIGINT)
    open_picture(tmp_path / "a.png")
    assert children() - before == {first}
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # until all its threads are gone
    open_picture(tmp_path / "a.png")
    assert children() - before != {first}
    guard.close()
    assert children() == before


@pytest.mark.parametrize("end", ["kill", "exit", "interrupt"])
def test_the_process_ends_with_its_parent(end: str, tmp_path: Path) -> None:
    """Also in the middle of a file."""
    image("RGB").save(tmp_path / "a.bmp")
    code = f"""
import os, signal, sys, threading
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # also below a shell that ignores it
from unlikeness.pictures import guard, open_picture
guard.PROGRAM = '''
import time
from unlikeness.pictures.formats import bmp
from unlikeness.pictures.worker import main
def read(data, max_pixels):
    print(1, file=open({str(tmp_path / "busy")!r}, "w"), flush=True)
    time.sleep(1000)
bmp.read = read
main()
'''
if "{end}" == "exit":
    threading.Thread(target=open_picture, args=["{tmp_path}/a.bmp"], daemon=True).start()
    while not Path({str(tmp_path / "busy")!r}).exists():
        pass
    sys.exit()
open_picture("{tmp_path}/a.bmp")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    child = wait_for(lambda: next(iter(started_by(process.pid)), None))
    wait_for(lambda: (tmp_path / "busy").exists())
    if end != "exit":
        process.send_signal(signal.SIGKILL if end == "kill" else signal.SIGINT)
    process.communicate(timeout=60)
    wait_for(lambda: not Path(f"/proc/{child}").exists() or is_gone(child))


def started_by(pid: int) -> set[int]:
    try:
        return {int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()} or {
            int(found)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for found in (task / "children").read_text().split()
        }
    except OSError:
        return set()


def is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def wait_for(condition: Any, seconds: float = 60) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "it does not happen"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("name", ALL)
def test_what_arrives_is_what_was_decoded(name: str, tmp_path: Path) -> None:
    ALL[name](tmp_path / "picture")
    here = decode_file(tmp_path / "picture", 10_000)
    there = guard.decode(tmp_path / "picture", 10_000)
    assert same(here, there)
    assert here.raster.pixels.dtype == there.raster.pixels.dtype


def test_large_pictures_arrive_without_a_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = image("RGB").resize((1600, 1200))
    big.save(tmp_path / "a.bmp")
    picture = open_picture(tmp_path / "a.bmp")
    assert picture.raster.pixels.nbytes > LARGE
    np.testing.assert_array_equal(picture.pixels, np.asarray(big))
    with pytest.raises(ValueError, match="read-only"):
        picture.raster.pixels[0] = 0
    areas: list[Area] = []
    with kept_in(areas):
        array = empty((2, LARGE // 2), np.uint8)
        assert empty((LARGE - 1,), np.uint8).size
    array[:] = rng.integers(0, 256, array.shape)
    message = packed([array, array[:, ::2], array.T], areas)
    assert message.areas[0] is areas[0]
    assert len(message.areas) == 2  # the second is a copy, since its order is another
    assert (message.areas[1].array(np.uint8, array.T.shape) == array.T).all()
    assert empty((LARGE,), np.uint8).base is None


def test_nothing_but_data_travels() -> None:
    with pytest.raises(TypeError, match="object does not travel"):
        packed(object())
    for text in (
        b'{"class": "formats.base", "name": "Unusable", "fields": {}}',
        b'{"class": "guard", "name": "os.system", "fields": {}}',
        b'{"class": "no_such_module", "name": "X", "fields": {}}',
        b'{"bytes": [0, 9]}',
        b'{"array": {"dtype": "O", "shape": [1], "blob": [0, 8]}}',
        b'{"array": {"dtype": "u1", "shape": [3, 3], "blob": [0, 8]}}',
        b"{",
    ):
        with pytest.raises((TypeError, ValueError, AttributeError, ImportError)):
            unpacked(text, memoryview(bytes(8)), [])
    value = [None, True, -1, 0.1, "é\ud800", b"\0", (1, [2]), {3: {"a": b""}}, ColourModel("grey")]
    message = packed(value)
    assert unpacked(message.text, memoryview(b"".join(message.parts)), []) == value


def same(one: Any, other: Any) -> bool:
    """Whether both are equal, arrays included."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one)
        )
    return type(one) is type(other) and bool(one == other)
