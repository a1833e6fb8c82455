"""The notes of many pictures in a few lines: what was not kept, and of how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from unlikeness.protect.files.manifest import Entry

__all__ = ["told"]

_MOST = 8
"""Lines that are told; the rest stands in the manifest."""


def told(entries: Iterable[Entry]) -> list[str]:
    """A line for each kind of note of the protected pictures, the most frequent first."""
    counts = Counter(
        part for entry in entries if entry.note for part in dict.fromkeys(entry.note.split("; "))
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"note on {count} picture{'s' * (count > 1)}: {text}" for text, count in ordered[:_MOST]]
    if len(ordered) > _MOST:
        lines.append(f"{len(ordered) - _MOST} more kinds of notes are in manifest.jsonl")
    return lines
