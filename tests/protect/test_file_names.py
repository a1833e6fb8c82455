"""Names that some disk takes for one are refused as equal ones are; Windows' names of devices are told."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from tests.protect.folders import contents, run
from tests.protect.test_tiles import write

from unlikeness.errors import UsageError
from unlikeness.protect.files import worker
from unlikeness.protect.files.targets import find_targets, key, reserved
from unlikeness.protect.methods.noise import Noise

COMPOSED = unicodedata.normalize("NFC", "Zoé.jpg")
DECOMPOSED = unicodedata.normalize("NFD", "Zoé.jpg")
PAIRS = [
    ("IMG_1.jpg", "img_1.JPG"),
    ("A/x.jpg", "a/x.jpg"),
    (COMPOSED, DECOMPOSED),
    ("É/Ω.png", "é/ω.png"),
    ("trip/x.jpg", "trip./x.jpg"),
    ("trip/x.jpg", "trip /x.jpg"),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_names_that_become_one_file_elsewhere_are_refused(tmp_path: Path, one: str, other: str) -> None:
    for name in (one, other):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"picture")
    with pytest.raises(UsageError, match=r"would both be written .*; write them into different output"):
        find_targets([tmp_path / "in"], tmp_path / "out")


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_also_where_an_earlier_run_has_made_the_other(
    tmp_path: Path, noise: Noise, one: str, other: str
) -> None:
    output = tmp_path / "out"
    for number, name in enumerate((one, other)):
        (tmp_path / str(number) / name).parent.mkdir(parents=True)
        write(tmp_path / "x.png", 20, 20).rename(tmp_path / str(number) / name)
    assert run(tmp_path / "0", output, noise).protected
    before = contents(output)
    with pytest.raises(UsageError, match="are one file on some disks"):
        run(tmp_path / "1", output, noise)
    assert contents(output) == before
    assert run(tmp_path / "0", output, noise).before == [one]


def test_names_that_every_disk_keeps_apart() -> None:
    assert (
        len({key(name) for name in ("ß.jpg", "ss.jpg", "a.jpg", "á.jpg", "a/b", "ab", "x.jpg", "x.jpeg")})
        == 8
    )
    assert key("..") == ".."


def test_only_the_files_themselves_clash_not_their_folders(tmp_path: Path, noise: Noise) -> None:
    for name in ("A/x.png", "a/y.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        write(tmp_path / "in" / name, 20, 20)
    assert len(run(tmp_path / "in", tmp_path / "out", noise).protected) == 2
    assert len(run(tmp_path / "in", tmp_path / "out", noise).before) == 2


def test_names_of_devices_are_told_on_windows(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(reserved(name) for name in ("aux.jpg", "CON", "trip/Com1.tar.png", "nul /x.jpg", "LPT9.tif"))
    assert not any(reserved(name) for name in ("auxiliary.jpg", "x.con", "com0.jpg", "com10.jpg", "a/b.jpg"))
    write(tmp_path / "aux.png", 20, 20)
    assert run(tmp_path / "aux.png", tmp_path / "out", noise).protected
    monkeypatch.setattr(worker, "WINDOWS", True)
    (entry,) = run(tmp_path / "aux.png", tmp_path / "other", noise).skipped
    assert entry.reason == "aux.png: Windows takes its name for a device; rename it"
