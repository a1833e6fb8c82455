"""Flags and settings of the last release go on working, and a line on stderr names the new one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.protect.test_tiles import write

from unlikeness.cli import main
from unlikeness.cli.verbs import FORMER, with_new_flags

SUBJECT = ["--images", "in", "--class-noun", "dog", "--output", "out"]
COMMANDS = {
    "protect": ["protect", "in", "-o", "out"],
    "personalize": ["personalize", *SUBJECT],
    "immunize": ["immunize", *SUBJECT],
    "verify": ["verify", "toybox", *SUBJECT],
}


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [(command, old, new) for command, flags in FORMER.items() for old, new in flags.items()],
)
@pytest.mark.parametrize("equals", [False, True])
def test_an_old_flag_is_read_as_the_new_one(
    command: str, old: str, new: str, equals: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"not looked into")
    words = [*COMMANDS[command], *(["--target-noun", "cat"] if old == "--behaviour" else [])]
    ended, said = [], []
    for flag in (old, new):
        ended.append(main([*words, *([f"{flag}=smile"] if equals else [flag, "smile"])]))
        said.append(capsys.readouterr().err.splitlines())
    assert said[0][0] == f"unlikeness: {old} is called {new} now; the old name works for one more release"
    assert said[0][1:] == said[1] != []
    assert ended[0] == ended[1] != 0
    assert old not in " ".join(said[1])


def test_a_picture_is_protected_under_an_old_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.png", 50, 40)
    words = ["protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--method", "noise", "-q"]
    assert main([*words, "--scale", "tiles"]) == 0
    assert capsys.readouterr().err.count("\n") == 1
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(line)["recipe"]["scale"]["mode"] == "tiles"
    assert main([*words, "--at", "tiles"]) == 0
    said = capsys.readouterr()
    assert (said.err, "1 done before" in said.out) == ("", True)


def test_other_words_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["protect", "--at", "fit", "--", "--scale"]
    assert with_new_flags(words) == words
    assert with_new_flags(["export", "--scale"]) == ["export", "--scale"]
    assert capsys.readouterr().err == ""
