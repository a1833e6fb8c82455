"""Pictures of kinds that cannot be protected: told in one line, and each has its line in the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.protect.folders import GOOD, contents, lines, run
from tests.protect.test_tiles import write

from unlikeness.cli import main
from unlikeness.errors import UsageError
from unlikeness.pictures import open_picture
from unlikeness.protect.files.survey import survey
from unlikeness.protect.methods.noise import Noise

LINE = (
    "4 files cannot be protected: 2 RAW (CR2, DNG), 1 GIF, 1 PSD; export them as JPEG, PNG or TIFF first; "
    "1 video is passed over, also unprotected"
)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A camera's folder: a picture, another with no suffix, and what cannot be protected."""
    root = tmp_path / "card"
    (root / "100").mkdir(parents=True)
    write(root / "100" / "1.jpg", 40, 30)
    write(root / "2.jpg", 40, 30, seed=1).rename(root / "2")
    for name in ("1.CR2", "3.dng", "100/4.psd", "5.gif", "1.MOV", "1.xmp"):
        (root / name).write_bytes(b"of no concern")
    return root


def test_every_file_is_told_and_has_its_line_once(card: Path, tmp_path: Path, noise: Noise) -> None:
    output = tmp_path / "out"
    outcome = run(card, output, noise)
    assert [entry.path for entry in outcome.protected] == ["2", "100/1.jpg"]
    assert outcome.unsupported == ["1.CR2", "3.dng", "5.gif", "100/4.psd"]
    assert outcome.passed_over == LINE
    told = {line["path"]: line for line in lines(output)}
    assert told.keys() == {"2", "100/1.jpg", *outcome.unsupported}
    for name, said in (("1.CR2", "RAW files (CR2)"), ("100/4.psd", "PSD files")):
        assert told[name]["status"] == "skipped"
        assert told[name]["reason"] == (
            f"{name}: {said} cannot be protected; export it as JPEG, PNG or TIFF first"
        )
        assert told[name]["bytes_in"] == 13
    assert sorted(contents(output)) == ["100/1.jpg", "2", "manifest.jsonl"]
    assert open_picture(output / "2").format == "JPEG"
    before = len(lines(output))
    again = run(card, output, noise)
    assert (again.before, again.unsupported, again.passed_over) == (
        ["2", "100/1.jpg"],
        outcome.unsupported,
        LINE,
    )
    assert len(lines(output)) == before
    (card / "1.CR2").write_bytes(b"another")
    run(card, output, noise)
    assert len(lines(output)) == before + 1


def test_a_survey_tells_them_too(card: Path, tmp_path: Path, noise: Noise) -> None:
    def make(settings: Any) -> Noise:
        return noise

    seen = survey([card], tmp_path / "out", make, noise.settings)
    assert seen.passed_over == LINE
    assert [file.name for file in seen.files if file.size is None] == ["1.CR2", "3.dng", "5.gif", "100/4.psd"]


def test_the_command_says_it_in_one_line_and_ends_with_status_1(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["protect", str(card), "-o", str(tmp_path / "out"), "-q"]
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "2 pictures" in said.out
    assert "4 to skip" in said.out
    assert LINE in said.out.splitlines()
    assert not (tmp_path / "out").exists()
    assert main(command) == 1
    said = capsys.readouterr()
    assert LINE in said.err.splitlines()
    assert "skipped 1.CR2" not in said.err
    assert "2 protected, 4 skipped" in said.out


def test_a_folder_of_nothing_else_is_no_success(tmp_path: Path, noise: Noise) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.nef").write_bytes(b"of no concern")
    outcome = run(tmp_path / "in", tmp_path / "out", noise)
    assert (len(outcome.skipped), outcome.protected) == (1, [])
    (tmp_path / "in" / "1.nef").rename(tmp_path / "in" / "1.mov")
    with pytest.raises(UsageError, match="no pictures in"):
        run(tmp_path / "in", tmp_path / "out", noise)


def test_a_kind_under_the_name_of_another_is_refused_by_its_own_name(tmp_path: Path, noise: Noise) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0\x10\0\0\0CR\2\0" + bytes(100))
    (tmp_path / "b.jpg").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100))
    reasons = [
        str(entry.reason)
        for entry in run([tmp_path / "a.tif", tmp_path / "b.jpg"], tmp_path / "o", noise).skipped
    ]
    assert ["RAW files cannot" in reasons[0], "JXL files cannot" in reasons[1]] == [True, True]


def test_a_mask_is_for_the_one_picture_that_can_be_protected(tmp_path: Path, noise: Noise) -> None:
    picture, mask = write(tmp_path / "a.png", 20, 20), write(tmp_path / "mask.png", 20, 20)
    (tmp_path / "a.dng").write_bytes(b"of no concern")
    assert run([picture, tmp_path / "a.dng"], tmp_path / "out", noise, mask=mask).protected


def test_what_was_made_of_a_picture_that_is_raw_now_goes(photos: Path, tmp_path: Path, noise: Noise) -> None:
    output = tmp_path / "out"
    (photos / "b.jpg").rename(photos / "b.mpo")
    assert len(run(photos, output, noise).protected) == len(GOOD)
    (photos / "b.mpo").write_bytes(b"of no concern")
    (entry,) = [entry for entry in run(photos, output, noise).skipped if entry.path == "b.mpo"]
    assert "MPO files cannot be protected" in str(entry.reason)
    assert "the copy that an earlier run made was removed" in str(entry.reason)
    assert not (output / "b.mpo").exists()
