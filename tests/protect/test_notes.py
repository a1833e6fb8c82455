"""What many pictures have lost is told in a few lines."""

from __future__ import annotations

from unlikeness.protect.files.manifest import Entry, note_lines


def entry(note: str | None) -> Entry:
    return Entry(path="a", status="protected", note=note, recipe={}, version="0")


def test_notes_are_counted_by_kind_and_the_most_frequent_comes_first() -> None:
    entries = [entry("x"), entry("y; x"), entry(None), entry("y; y"), entry("y")]
    assert note_lines(entries) == ["note on 3 pictures: y", "note on 2 pictures: x"]
    assert note_lines([entry("x")]) == ["note on 1 picture: x"]
    assert note_lines([entry(None)]) == []


def test_many_kinds_are_a_few_lines() -> None:
    lines = note_lines(entry(f"kind {i}") for i in range(50))
    assert len(lines) == 9
    assert lines[-1] == "42 more kinds of notes are in manifest.jsonl"
