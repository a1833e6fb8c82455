"""A command's streams, and what a shell may hand it: closed, without a reader, full, empty words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.protect.test_tiles import write

from unlikeness.cli import main

RUN = [sys.executable, "-m", "unlikeness"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write(tmp_path / "in" / "a.png", 40, 30)


def shell(command: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command line of the shell, in which "$@" is the program and these words."""
    return subprocess.run(
        ["sh", "-c", command, "sh", *RUN, *words], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("command", ['"$@" 2>&-', '"$@" >&- 2>&- <&-'])
def test_work_is_done_without_streams_and_nothing_is_written_into_the_files(
    command: str, photo: Path, tmp_path: Path
) -> None:
    done = shell(command, tmp_path, "protect", "in", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert shell('"$@"', tmp_path, "measure", "in/a.png", "out/a.png").returncode == 0


def test_a_reader_that_has_gone_away_is_no_failure(tmp_path: Path) -> None:
    done = shell('{ "$@" ; echo status $? >&2 ; } | true', tmp_path, "protect", "--help")
    assert done.stderr == "status 0\n"
    done = shell('{ "$@" 2>&1 ; echo status $? >&3 ; } 3>&2 | true', tmp_path, "protect", "nosuch", "-o", "x")
    assert done.stderr == "status 2\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_what_cannot_be_written_to_stdout_is_an_error_and_to_stderr_is_none(tmp_path: Path) -> None:
    done = shell('"$@" >/dev/full', tmp_path, "--help")
    assert (done.returncode, done.stderr) == (
        1, "unlikeness: standard output: No space left on device\n",
    )  # fmt: skip
    assert shell('"$@" 2>/dev/full', tmp_path, "protect", "nosuch", "-o", "x").returncode == 2


@pytest.mark.parametrize(
    "words",
    [
        ["protect", "", "-o", "out"],
        ["protect", "in", "-o", ""],
        ["protect", "in", "--output="],
        ["protect", "-q", "", "-o", "out"],
        ["protect", "in", "-o", "out", "--mask", ""],
        ["protect", "in", "-o", "out", "--model", ""],
        ["protect", "in", "-o", "out", "--weights="],
        ["export", "-o", ""],
        ["personalize", "--images", "", "--class-noun", "dog", "--output", "out"],
        ["immunize", "--images", "", "--class-noun", "dog", "--output", "out"],
        ["immunize", "--subjects=", "--output", "out"],
        ["generate", "--prompt", "a dog", "--output", "out", "--lora", ""],
        ["verify", "", "--images", "in", "--class-noun", "dog", "--output", "out"],
        ["demo", "--photos", ""],
        ["train-protector", "-o", "p.safetensors", "--images", ""],
        ["measure", "", "in"],
        ["toybox", "train", "vae", "--work", ""],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_misuse_and_not_the_current_folder(
    words: list[str], photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photo.parent.parent)
    assert main(words) == 2
    assert "there is an empty argument" in capsys.readouterr().err
    assert os.listdir() == ["in"]  # noqa: PTH208


def test_words_for_a_model_may_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--prompt", "", "--negative-prompt=", "--output", str(tmp_path), "--sampler", "x"]
    assert main(words) == 2
    assert "sampler 'x' is unknown" in capsys.readouterr().err
