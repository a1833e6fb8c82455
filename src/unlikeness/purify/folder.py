"""Purify files and folders: the file layer of `protect`, with a purification in place of a perturbation.

Names, sizes, formats and metadata are kept, and `manifest.jsonl` has a line for each file. A run may be
killed at any time and started again: finished files are left alone. One bad file never stops the others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unlikeness import __version__, locks
from unlikeness.errors import NotFiniteError, PictureError, UnlikenessError, UsageError
from unlikeness.files import sync_folder, unfinished
from unlikeness.pictures import kinds, open_picture, save_picture
from unlikeness.pictures.limits import most_bytes
from unlikeness.progress import Progress, Silent
from unlikeness.protect.files.attributes import copy_attributes
from unlikeness.protect.files.check import compare
from unlikeness.protect.files.manifest import NAME, Entry, Manifest, digest
from unlikeness.protect.files.targets import Target, find_targets
from unlikeness.protect.files.worker import HOPELESS, refused, renamed, unwritable, without_copy
from unlikeness.purify.base import Floats
from unlikeness.purify.chain import Chain
from unlikeness.seeds import derive

__all__ = ["MOST_PIXELS", "Outcome", "purify_folder"]

MOST_PIXELS = 50_000_000
"""Larger pictures are skipped: a picture is purified as a whole, at about 50 bytes a pixel."""
_FREE = 255.0
"""n/255: a purification may change a value by any amount."""


@dataclass
class Outcome:
    """What became of each file: manifest lines of this run, and names that an earlier run purified.

    passed_over: one line on files of kinds that cannot be opened (RAW, videos, ...); None if there are none.
    """

    purified: list[Entry] = field(default_factory=list)
    skipped: list[Entry] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    passed_over: str | None = None


def purify_folder(
    paths: Sequence[Path], output: Path, chain: Chain, *, seed: int = 0, max_pixels: int = MOST_PIXELS,
    progress: Progress | None = None,
) -> Outcome:  # fmt: skip
    """Purify all pictures below `paths` into `output`, under the same names, in the same formats.

    Args:
        paths: files and folders; `protect.files.targets.find_targets` says where each goes.
        seed: a picture's result depends on it and on the picture's bytes, not on its name or other files.
        max_pixels: larger pictures are skipped.

    A file that cannot be used becomes an entry in `skipped` with the reason, and the others go on.

    Raises:
        UsageError: see `find_targets`; an output that holds protected pictures.
        UnlikenessError: the output cannot be written at all, or a GPU's memory is too small.
    """
    targets = find_targets(paths, output)
    outcome = Outcome(passed_over=kinds.summary(((t.source, t.kind) for t in targets if t.kind), "purified"))
    targets = [target for target in targets if target.kind != kinds.VIDEO]
    progress = progress or Silent()
    with locks.inside(output):
        manifest = Manifest(output)
        if any(entry.get("status") == "protected" for entry in manifest.entries.values()):
            raise UsageError(f"{output / NAME} is of protected pictures; name another output folder")
        job = _Job(manifest, chain, {"purify": chain.record(), "seed": seed}, seed, max_pixels)
        progress.start(len(targets), "purifying", "picture")
        for target in targets:
            entry = job.do(target)
            if entry is None:
                outcome.before.append(target.name)
            else:
                (outcome.skipped if entry.status == "skipped" else outcome.purified).append(entry)
            progress.advance(skipped=len(outcome.skipped))
        progress.close()
        for folder in {output, *((output / entry.path).parent for entry in outcome.purified)}:
            try:
                sync_folder(folder)
            except OSError as error:
                raise unwritable(folder, error) from error
    return outcome


@dataclass(frozen=True)
class _Job:
    """Purifies the files of one run. recipe: everything that decides a result beside the picture."""

    manifest: Manifest
    chain: Chain
    recipe: Mapping[str, Any]
    seed: int
    max_pixels: int

    def do(self, target: Target) -> Entry | None:
        """Purify one file and write its line; None if an earlier run has done so."""
        try:
            entry = self._purified(target)
        except (PictureError, NotFiniteError) as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in HOPELESS and str(target.path) in str(error):
                raise unwritable(target.path, cause) from error
            entry = self._skipped(target, str(error))
        except OSError as error:
            if str(error.filename) == str(target.source):
                entry = self._skipped(target, f"{target.source}: it cannot be read ({error.strerror})")
            elif error.errno in HOPELESS:
                raise unwritable(target.path, error) from error
            else:
                entry = self._skipped(target, f"{target.path}: it cannot be written ({error.strerror})")
        except MemoryError:
            entry = self._skipped(
                target, f"{target.source}: it does not fit in memory; close programs or scale it down"
            )
        if entry is not None and entry.status == "skipped":
            entry = without_copy(self.manifest, target, entry)
            if target.kind is None or not self.manifest.says(entry):
                self._append(entry)
        return entry

    def _purified(self, target: Target) -> Entry | None:
        began, source = time.perf_counter(), target.source
        if reason := refused(target):
            return self._skipped(target, reason)
        if not source.is_file() or source.stat().st_size > most_bytes(self.max_pixels):
            open_picture(source, max_pixels=self.max_pixels)  # gives the reason, and does not block
        status, before = source.stat(), digest(source)
        if self.manifest.is_done(target.name, before, self.recipe):
            return None
        picture = open_picture(source, max_pixels=self.max_pixels)
        pixels = self._washed(target, picture.rgb, derive(self.seed, before))
        target.path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(target.path) as waiting:
            try:
                save_picture(picture, pixels, waiting, budget=_FREE)
                saved = open_picture(waiting, max_pixels=self.max_pixels)
                seen = compare(picture, saved)
            except PictureError as error:
                raise PictureError(renamed(str(error), waiting, target.path)) from error.__cause__
            entry = Entry(
                path=target.name, status="purified", input_digest=before, output_digest=digest(waiting),
                width=picture.size[0], height=picture.size[1], bytes_in=status.st_size,
                bytes_out=waiting.stat().st_size, linf=seen.linf,
                psnr=None if seen.psnr is None else round(seen.psnr, 3),
                ssim=None if seen.ssim is None else round(seen.ssim, 5), lossless=picture.lossless,
                note=picture.note, seconds=round(time.perf_counter() - began, 3), recipe=self.recipe,
                version=__version__,
            )  # fmt: skip
            copy_attributes(source, status, waiting)
            self._append(entry)
            waiting.replace(target.path)
        return entry

    def _washed(self, target: Target, picture: Floats, seed: int) -> Floats:
        """The purified pixels. PictureError with the file's name if they cannot be."""
        try:
            pixels = self.chain.wash(picture, seed)
        except (PictureError, NotFiniteError) as error:
            raise type(error)(f"{target.source}: {error}") from error
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, of a GPU
                raise
            raise UnlikenessError(
                "the device's memory is too small; give a smaller tile by --set, or --device cpu"
            ) from error
        if pixels.shape != picture.shape or not np.isfinite(pixels).all():
            raise PictureError(f"{target.source}: the purification gave no picture; give another --method")
        return pixels

    def _append(self, entry: Entry) -> None:
        try:
            self.manifest.append(entry)
        except OSError as error:
            raise unwritable(self.manifest.path, error) from error

    def _skipped(self, target: Target, reason: str) -> Entry:
        for path in (target.path, target.source):
            reason = renamed(reason, path, target.name)
        return Entry(
            path=target.name, status="skipped", reason=reason, recipe=self.recipe, version=__version__
        )
