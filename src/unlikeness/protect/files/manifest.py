"""`manifest.jsonl`: one line for each file, which says what was done to it.

A line is written before its file gets its name. So every file that a run made has a line, even if the run was
killed; a file without a line was not written by us. The last line of a name counts. A half-written line at
the end is cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from unlikeness.errors import UnlikenessError
from unlikeness.files import force, present_file
from unlikeness.foreign import LARGEST, UnreadableError, check_file, parse_json, reason

__all__ = ["NAME", "Entry", "Manifest", "digest", "note_lines"]

NAME = "manifest.jsonl"

_WRITTEN = ("protected", "unchanged", "purified")
"""The statuses of files that are in the output folder."""

_MOST_NOTES = 8


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line. Fields that do not apply to a skipped file are None.

    status: protected, or purified (`unlikeness purify`); unchanged: the written file is only a copy, and
        `note` says why; skipped: no file was written, and `reason` says why.
    path: the output's place below the output folder, with forward slashes.
    input_digest, output_digest: "sha256:..." of the files' bytes.
    recipe: everything that decides the result: method, settings, resolution mode (as "scale"), model and its
        fingerprint, seed, the mask's digest, the certificate's, the engine of a network.
    computed: batch size, the device and dtype of a model or network, and the engine's version. They change
        the result by rounding, and a resumed run may have others.
    against: what the perturbation was computed with (`Against.record`).
    linf [n/255], psnr [dB, None: identical], ssim: measured on the saved file.
    lossless: whether the format keeps every value, so that linf is within the budget.
    note: what the format could not keep. seconds: from opening to checked.
    """

    path: str
    status: Literal["protected", "unchanged", "purified", "skipped"]
    reason: str | None = None
    input_digest: str | None = None
    output_digest: str | None = None
    width: int | None = None
    height: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    linf: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    lossless: bool | None = None
    note: str | None = None
    seconds: float | None = None
    recipe: Mapping[str, Any]
    computed: Mapping[str, Any] | None = None
    against: Mapping[str, Any] | None = None
    version: str


class Manifest:
    """The manifest of one output folder. The folder must exist, unless the manifest is only read."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self.path = folder / NAME
        self.entries: dict[str, dict[str, Any]] = {}
        self._made: dict[str, set[str]] = {}
        """For each name the digests of all files that were ever written under it."""
        try:
            if self.path.exists():
                check_file(self.path)  # reading a pipe would block
            data = self.path.read_bytes() if self.path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if not read_only:
                with self.path.open("ab") as file:
                    file.truncate(len(whole))
        except (OSError, UnreadableError) as error:
            raise UnlikenessError(
                f"{self.path}: it cannot be {'read' if read_only else 'written'} ({reason(error)}); "
                "choose another output folder"
            ) from error
        for line in whole.splitlines():
            try:
                entry = _parsed(line)
            except ValueError:
                continue  # a damaged line: that file is done again
            if isinstance(entry, dict) and isinstance(entry.get("path"), str):
                self._add(entry)

    def append(self, entry: Entry) -> None:
        """Write one line and force it to the disk, so that it precedes the picture's name in a power cut."""
        line = json.dumps(asdict(entry), ensure_ascii=False, allow_nan=False)
        try:
            data = line.encode()
        except UnicodeEncodeError:  # a file name that is not valid UTF-8: JSON can only hold it in escapes
            data = json.dumps(asdict(entry), allow_nan=False).encode()
        with self.path.open("ab") as file:
            file.write(data + b"\n")
            force(file)
        self._add(json.loads(data))

    def says(self, entry: Entry) -> bool:
        """Whether the last line of this name is the same as `entry`."""
        line: dict[str, Any] = json.loads(json.dumps(asdict(entry)))
        return self.entries.get(entry.path) == line

    def is_done(self, path: str, input_digest: str, recipe: Mapping[str, Any]) -> bool:
        """Whether this input was finished with this recipe, and its output is still there, unmodified."""
        entry = self.entries.get(path)
        if entry is None or entry.get("status") not in _WRITTEN:
            return False
        if entry.get("input_digest") != input_digest or entry.get("recipe") != dict(recipe):
            return False
        target = self.folder / path
        return present_file(target) and digest(target) == entry.get("output_digest")

    def unchanged(self, path: str) -> Entry | None:
        """The entry of a finished file that is only a copy; None for any other.

        An earlier version recorded such a file as protected, with `linf` 0.
        """
        entry = self.entries[path]
        if entry.get("status") != "unchanged" and entry.get("linf") != 0:
            return None
        known = {field.name: entry[field.name] for field in fields(Entry) if field.name in entry}
        return Entry(**{"version": "", **known, "status": "unchanged"})

    def made(self, path: str) -> bool:
        """Whether the file that is there now was made by a run, bit for bit."""
        target, digests = self.folder / path, self._made.get(path)
        return digests is not None and present_file(target) and digest(target) in digests

    def may_replace(self, path: str) -> bool:
        """Whether a run made the file that is there now: it was written last, or is still as it was made."""
        entry = self.entries.get(path)
        return entry is not None and (entry.get("status") in _WRITTEN or self.made(path))

    def _add(self, entry: dict[str, Any]) -> None:
        self.entries[entry["path"]] = entry
        if entry.get("status") in _WRITTEN:
            self._made.setdefault(entry["path"], set()).add(str(entry.get("output_digest")))


def _parsed(line: bytes) -> Any:
    """A line's content; quickly, if it cannot be deeply nested. ValueError for a line that no run writes."""
    plain = len(line) < LARGEST and line.count(b"{") + line.count(b"[") < 64
    return json.loads(line) if plain else parse_json(line[: LARGEST + 1], surrogates=True)


def digest(path: Path) -> str:
    """ "sha256:" and the hexadecimal digest of the file's bytes."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def note_lines(entries: Iterable[Entry]) -> list[str]:
    """One line for each kind of note and its count, the most frequent first, at most nine lines."""
    counts = Counter(
        part for entry in entries if entry.note for part in dict.fromkeys(entry.note.split("; "))
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"note on {count} picture{'s' * (count > 1)}: {text}" for text, count in ordered[:_MOST_NOTES]]
    if len(ordered) > _MOST_NOTES:
        lines.append(f"{len(ordered) - _MOST_NOTES} more kinds of notes are in {NAME}")
    return lines
