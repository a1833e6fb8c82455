"""`protect` for files and folders: every picture once, its manifest line, and the folder always finished.

A run may be killed at any time and started again with the same arguments: what is finished is left alone, the
rest is done, and the pictures are those of an uninterrupted run, bit for bit (on the same machine).
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlikeness import __version__
from unlikeness.errors import PictureError, UnlikenessError, one_line
from unlikeness.pictures import Edit, Picture, open_picture, save_picture
from unlikeness.progress import Progress, Silent
from unlikeness.protect import batches, rng
from unlikeness.protect.base import Perturber
from unlikeness.protect.check import compare
from unlikeness.protect.manifest import Entry, Manifest, digest
from unlikeness.protect.overlap import overlapped
from unlikeness.protect.targets import Target, find_targets
from unlikeness.protect.tiles import PictureTiles, Scale, Tile

__all__ = ["UNCHANGED", "Outcome", "protect_folder"]

UNCHANGED = "nothing was changed, this is a copy: the budget is smaller than a step of the file's values"
"""The note of a picture that no change of the budget's size could be made to."""

HAIR = 1e-3
"""n/255 by which a measured L-infinity may pass the budget: float32 rounding of exact integers."""

_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Errors of writing that the next file would meet too."""


@dataclass
class Outcome:
    """What became of all files: lines of the manifest for those done now, names of those done before."""

    protected: list[Entry] = field(default_factory=list)
    skipped: list[Entry] = field(default_factory=list)
    before: list[str] = field(default_factory=list)


def protect_folder(
    paths: Sequence[Path],
    output: Path,
    perturber: Perturber,
    *,
    method: str,
    model: str | None = None,
    seed: int = 0,
    scale: Scale | None = None,
    psnr: float | None = None,
    max_pixels: int = 100_000_000,
    batch_size: int = 4,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Protect all pictures below `paths` into `output`, under the same names, in the same formats.

    Args:
        paths: files and folders; see `targets.find_targets` for where each goes.
        perturber: the protection.
        method, model: its registered name and the model's, for the manifest.
        seed: a picture's result depends on it and on the picture's bytes, not on its name or its company.
        scale: at which size pictures are worked on.
        psnr: dB that the change keeps above, before rounding and compression; see `PictureTiles`.
        max_pixels: larger pictures are skipped.
        batch_size: tiles at once; it changes results by rounding, so keep it when a run is resumed.
        limit: only the first so many files.

    A file that cannot be used is an entry in `skipped` with the reason, and the others go on.

    Raises:
        UsageError: see `find_targets`.
        UnlikenessError: the output cannot be written at all, or the device's memory is too small.
    """
    scale = scale or Scale()
    progress = progress or Silent()
    targets = find_targets(paths, output)[:limit]
    recipe = {
        "method": method,
        "settings": asdict(perturber.settings),
        "scale": asdict(scale),
        "model": model,
        "fingerprint": getattr(perturber, "fingerprint", None),
        "seed": seed,
        **({} if psnr is None else {"psnr": psnr}),
    }
    computed = {"batch_size": batch_size, **_computed(perturber)}
    try:
        output.mkdir(parents=True, exist_ok=True)
        for stale in output.rglob(".unlikeness-*.part"):
            stale.unlink()
    except OSError as error:
        raise _unwritable(output, error) from error
    job = _Job(Manifest(output), perturber, recipe, computed, scale, seed, max_pixels, psnr)
    outcome = Outcome()
    progress.start(len(targets), "protecting", "picture")
    read = overlapped(job.open, targets)
    worked = batches.run(
        read, perturber, batch_size=batch_size, on_step=lambda step: progress.advance(0, step=step)
    )
    written = overlapped(job.finish, worked)
    with contextlib.closing(read), contextlib.closing(worked), contextlib.closing(written):
        for work in written:
            if work.entry is None:
                outcome.before.append(work.target.name)
            else:
                try:
                    job.manifest.append(work.entry)
                except OSError as error:
                    raise _unwritable(job.manifest.path, error) from error
                (outcome.skipped if work.entry.reason else outcome.protected).append(work.entry)
            progress.advance(skipped=len(outcome.skipped))
    progress.close()
    return outcome


@dataclass
class _Work:
    """One file on its way: its tiles while it is worked on, its entry once it is finished."""

    target: Target
    tiled: PictureTiles | None = None
    entry: Entry | None = None
    input_digest: str | None = None
    bytes_in: int | None = None
    began: float = 0.0

    @property
    def pixels(self) -> int:
        return self.tiled.picture.size[0] * self.tiled.picture.size[1] if self.tiled else 0

    def tiles(self) -> Iterator[Tile]:
        return self.tiled.tiles() if self.tiled else iter(())

    def accept(self, tile: Tile, delta: NDArray[np.float32]) -> None:
        assert self.tiled is not None
        self.tiled.accept(tile, delta)


@dataclass(frozen=True)
class _Job:
    manifest: Manifest
    perturber: Perturber
    recipe: Mapping[str, Any]
    computed: Mapping[str, Any]
    scale: Scale
    seed: int
    max_pixels: int
    psnr: float | None

    def open(self, target: Target) -> _Work:
        """Decode a file, unless it is done already or cannot be used."""
        work = _Work(target, began=time.perf_counter())
        try:
            if not target.source.is_file():  # a pipe would block; opening it says what is wrong
                open_picture(target.source)
            work.input_digest = digest(target.source)
            work.bytes_in = target.source.stat().st_size
            if self.manifest.is_done(target.name, work.input_digest, self.recipe):
                return work
            picture = open_picture(target.source, max_pixels=self.max_pixels)
            budget = self.perturber.settings.budget
            work.tiled = PictureTiles(
                picture,
                Edit(picture, budget=budget),
                resolution=self.perturber.resolution,
                budget=budget,
                scale=self.scale,
                seed=rng.derive(self.seed, work.input_digest),
                tile=getattr(self.perturber, "tile", None),
                psnr=self.psnr,
            )
        except PictureError as error:
            work.entry = self._skipped(work, str(error))
        except OSError as error:
            work.entry = self._skipped(work, f"{target.source}: it cannot be read ({error.strerror})")
        except MemoryError:
            work.entry = self._skipped(
                work, f"{target.source}: it does not fit in memory; close programs or scale it down"
            )
        return work

    def finish(self, work: _Work) -> _Work:
        """Save, read again, measure; the pictures are let go."""
        if work.tiled is None:
            return work
        path = work.target.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_picture(work.tiled.picture, work.tiled.edit, path)
            work.entry = self._measured(work, work.tiled)
        except PictureError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _HOPELESS:
                raise _unwritable(path, error.__cause__) from error
            work.entry = self._skipped(work, str(error))
        except OSError as error:
            if error.errno in _HOPELESS:
                raise _unwritable(path, error) from error
            work.entry = self._skipped(work, f"{path}: it cannot be written ({error.strerror})")
        work.tiled = None
        return work

    def _measured(self, work: _Work, tiled: PictureTiles) -> Entry:
        path, picture = work.target.path, tiled.picture
        try:
            saved = self._again(path, picture)
        except PictureError as error:
            path.unlink(missing_ok=True)
            return self._skipped(
                work, f"{error}; the saved picture was removed, please report this file's format"
            )
        seen = compare(picture, saved)
        budget = self.perturber.settings.budget
        if picture.lossless and seen.linf > budget + HAIR:
            path.unlink()
            return self._skipped(
                work,
                f"{work.target.source}: the saved picture was {seen.linf:.2f}/255 from the original, over "
                f"the budget of {budget:g}/255, and was removed; please report this file's format",
            )
        return Entry(
            path=work.target.name,
            status="protected",
            input_digest=work.input_digest,
            output_digest=digest(path),
            width=picture.size[0],
            height=picture.size[1],
            bytes_in=work.bytes_in,
            bytes_out=path.stat().st_size,
            linf=seen.linf,
            psnr=None if seen.psnr is None else round(seen.psnr, 3),
            ssim=None if seen.ssim is None else round(seen.ssim, 5),
            lossless=picture.lossless,
            note=picture.note if tiled.edit.changed else UNCHANGED,
            seconds=round(time.perf_counter() - work.began, 3),
            recipe=self.recipe,
            computed=self.computed,
            version=__version__,
        )

    def _again(self, path: Path, picture: Picture) -> Picture:
        """The saved picture, which must be of its original's size; else PictureError."""
        saved = open_picture(path, max_pixels=self.max_pixels)
        if saved.size != picture.size:
            raise PictureError(f"{path}: it was saved in the size {saved.size}, not {picture.size}")
        return saved

    def _skipped(self, work: _Work, reason: str) -> Entry:
        reason = one_line(reason)
        for path in (work.target.path, work.target.source):
            reason = reason.replace(one_line(str(path)), one_line(work.target.name))
        return Entry(
            path=work.target.name,
            status="skipped",
            reason=reason,
            input_digest=work.input_digest,
            bytes_in=work.bytes_in,
            recipe=self.recipe,
            version=__version__,
        )


def _computed(perturber: Perturber) -> dict[str, str]:
    """Where and in which precision a protection with a model computes."""
    loaded = getattr(perturber, "model", None)
    return {name: str(getattr(loaded, name)) for name in ("device", "dtype") if hasattr(loaded, name)}


def _unwritable(path: Path, error: OSError) -> UnlikenessError:
    return UnlikenessError(
        f"{path}: it cannot be written ({error.strerror}); free some space or name another output folder, "
        f"and start again: what is finished stays"
    )
