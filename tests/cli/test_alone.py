"""Every command that writes over time is alone at its output, and says so before it does anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlikeness import locks
from unlikeness.cli import main

SUBJECT = ["--images", "in", "--class-noun", "dog"]


@pytest.mark.parametrize(
    ("kind", "held", "words"),
    [
        ("inside", "out", ["protect", "in", "-o", "out"]),
        ("beside", "out", ["personalize", *SUBJECT, "--output", "out"]),
        ("beside", "state", ["personalize", *SUBJECT, "--output", "out", "--checkpoint", "state"]),
        ("beside", "out", ["immunize", *SUBJECT, "--output", "out"]),
        ("beside", "state", ["immunize", *SUBJECT, "--output", "out", "--checkpoint", "state"]),
        ("inside", "out", ["verify", "toybox", *SUBJECT, "--output", "out"]),
        ("inside", "out", ["demo", "-o", "out"]),
        ("beside", "out", ["generate", "--prompt", "a dog", "--output", "out"]),
        ("inside", "work", ["train-protector", "-o", "p.safetensors", "--work", "work"]),
        ("beside", "p.safetensors", ["train-protector", "-o", "p.safetensors", "--work", "work"]),
        ("inside", "work", ["toybox", "train", "vae", "--work", "work", "--output", "out"]),
        ("beside", "out", ["toybox", "train", "vae", "--work", "work", "--output", "out"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_second_run_is_refused(
    kind: str,
    held: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"not looked into")
    with getattr(locks, kind)(tmp_path / held):
        before = sorted(tmp_path.rglob("*"))
        assert main(words) == 1
        err = capsys.readouterr().err
        assert err.startswith("unlikeness: another run (process ")
        assert held in err
        assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_takes_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no picture")
    with locks.inside(tmp_path / "out"):
        assert main(["protect", "in", "-o", "out", "--dry-run", "-q"]) in (0, 1)
        assert "another run" not in capsys.readouterr().err
    assert main(["protect", "in", "-o", "new", "--dry-run", "-q"]) in (0, 1)
    assert not (tmp_path / "new").exists()
