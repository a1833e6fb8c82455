"""`manifest.jsonl`: what was done to each file, a line each, written before the file gets its name.

So whatever a run leaves under a name, even one that is killed, has a line here, and what has none is somebody
else's. A run that was killed goes on from it. The last line of a name counts; a half-written one at the end
is cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from unlikeness.errors import UnlikenessError
from unlikeness.files import force, present_file
from unlikeness.foreign import LARGEST, UnreadableError, check_file, parse_json, reason

__all__ = ["NAME", "Entry", "Manifest", "digest"]

NAME = "manifest.jsonl"

_WRITTEN = ("protected", "unchanged")
"""The statuses of files that are in the output folder."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line. What does not apply to a skipped file is None.

    status: protected; unchanged, where the file that was written is a copy on which the protection does
        nothing (`note` says why); or skipped, where no file was written (`reason` says why).
    path: the output below the output folder, with forward slashes; never an absolute path.
    input_digest, output_digest: "sha256:..." of the files' bytes.
    recipe: method, settings, scale, model, its fingerprint, seed, the mask's digest: all that decides the
        result.
    computed: batch size, and of all but noise device and dtype: they change it by rounding, and a resumed run
        may have others.
    against: what it was computed with (`Against.record`).
    linf [n/255], psnr [dB, None: identical], ssim: measured on the saved file, read again.
    lossless: whether the format keeps every value, so that linf is bound by the budget.
    note: what the format could not keep. seconds: from opening to checked.
    """

    path: str
    status: Literal["protected", "unchanged", "skipped"]
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
    """The manifest of one output folder, which must exist, unless it is only to be read."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self.path = folder / NAME
        self.entries: dict[str, dict[str, Any]] = {}
        self._made: dict[str, set[str]] = {}
        """By name, the digests of all that was ever written under it."""
        try:
            if self.path.exists():
                check_file(self.path)  # a pipe would be waited for
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
                continue  # damaged by hand or disk: as if that file had never been done
            if isinstance(entry, dict) and isinstance(entry.get("path"), str):
                self._add(entry)

    def append(self, entry: Entry) -> None:
        """Write one line, complete or not at all as far as a reader of this class can see."""
        line = json.dumps(asdict(entry), ensure_ascii=False, allow_nan=False)
        if not _is_text(line):
            line = json.dumps(asdict(entry), ensure_ascii=True, allow_nan=False)
        with self.path.open("ab") as file:
            file.write(line.encode() + b"\n")
            force(file)  # before the picture has its name, also after a power cut
        self._add(json.loads(line))

    def says(self, entry: Entry) -> bool:
        """Whether the last line of this name says the same."""
        line: dict[str, Any] = json.loads(json.dumps(asdict(entry)))
        return self.entries.get(entry.path) == line

    def is_done(self, path: str, input_digest: str, recipe: Mapping[str, Any]) -> bool:
        """Whether this input was worked on in this way, and its output is still there, untouched."""
        entry = self.entries.get(path)
        if entry is None or entry.get("status") not in _WRITTEN:
            return False
        if entry.get("input_digest") != input_digest or entry.get("recipe") != dict(recipe):
            return False
        target = self.folder / path
        return present_file(target) and digest(target) == entry.get("output_digest")

    def unchanged(self, path: str) -> Entry | None:
        """The entry of a finished file on which the protection does nothing; None for any other.

        An earlier version called such a file protected, with `linf` 0.
        """
        entry = self.entries[path]
        if entry.get("status") != "unchanged" and entry.get("linf") != 0:
            return None
        known = {field.name: entry[field.name] for field in fields(Entry) if field.name in entry}
        return Entry(**{"version": "", **known, "status": "unchanged"})

    def made(self, path: str) -> bool:
        """Whether a run has made the file that is there now, bit for bit."""
        target, digests = self.folder / path, self._made.get(path)
        return digests is not None and present_file(target) and digest(target) in digests

    def may_replace(self, path: str) -> bool:
        """Whether what is there now is a run's own: written last, or, if skipped since, still as made."""
        entry = self.entries.get(path)
        return entry is not None and (entry.get("status") in _WRITTEN or self.made(path))

    def _add(self, entry: dict[str, Any]) -> None:
        self.entries[entry["path"]] = entry
        if entry.get("status") in _WRITTEN:
            self._made.setdefault(entry["path"], set()).add(str(entry.get("output_digest")))


def _parsed(line: bytes) -> Any:
    """A line's content, quickly where it cannot be deep. ValueError for what no run has written."""
    plain = len(line) < LARGEST and line.count(b"{") + line.count(b"[") < 64
    return json.loads(line) if plain else parse_json(line[: LARGEST + 1], surrogates=True)


def _is_text(line: str) -> bool:
    """False where a file name in it is not valid UTF-8, which JSON can only hold in escapes."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def digest(path: Path) -> str:
    """ "sha256:" and the hexadecimal digest of the file's bytes."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
