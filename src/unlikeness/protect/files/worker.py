"""One file of a folder: opened, cut into tiles, saved, read again and measured."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlikeness import __version__
from unlikeness.errors import NotFiniteError, PictureError, UnlikenessError, one_line
from unlikeness.files import unfinished
from unlikeness.pictures import Edit, Picture, kinds, open_picture, save_picture
from unlikeness.pictures.limits import most_bytes
from unlikeness.protect.arrays import perturbed
from unlikeness.protect.files.attributes import copy_attributes
from unlikeness.protect.files.check import compare, why_unchanged
from unlikeness.protect.files.manifest import Entry, Manifest, digest
from unlikeness.protect.files.masks import mask_digest, open_mask
from unlikeness.protect.files.targets import WINDOWS, Target, reserved
from unlikeness.protect.settings import ResolutionMode
from unlikeness.protect.tiling.tiles import PictureTiles, Tile
from unlikeness.seeds import derive

if TYPE_CHECKING:
    from unlikeness.pictures.credentials import Credentials
    from unlikeness.protect.base import Perturber

__all__ = ["HOPELESS", "Work", "Worker", "refused", "renamed", "unwritable", "without_copy"]

HAIR = 1e-3
"""n/255 by which a measured L-infinity may pass the budget: float32 rounding of exact integers."""

HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Errors of writing that the next file would have too."""


@dataclass
class Work:
    """One file: its tiles while it is protected, its entry once it is finished."""

    target: Target
    tiled: PictureTiles[Picture, Edit] | None = None
    entry: Entry | None = None
    input_digest: str | None = None
    bytes_in: int | None = None
    mask_digest: str | None = None
    status: os.stat_result | None = None
    """The file's, before it was read."""
    began: float = 0.0
    failed: bool = False
    """Whether the protection of a tile was not finite."""
    on_failure: Callable[[Tile], None] | None = None
    """Called with the first such tile."""

    @property
    def pixels(self) -> int:
        return self.tiled.picture.size[0] * self.tiled.picture.size[1] if self.tiled else 0

    def tiles(self) -> Iterator[Tile]:
        return self.tiled.tiles() if self.tiled else iter(())

    def accept(self, tile: Tile, delta: NDArray[np.float32]) -> None:
        assert self.tiled is not None
        if not self.failed and not np.isfinite(delta).all():
            self.failed = True
            if self.on_failure is not None:
                self.on_failure(tile)
        if not self.failed:
            self.tiled.accept(tile, delta)


@dataclass(frozen=True)
class Worker:
    """Opens and finishes the files of one run.

    recipe: everything that decides a result beside picture and mask.
    masks: by a picture's place below the output folder.
    against: what the manifest says that the perturbations were computed with.
    credentials: what signs every copy whose pixels changed.
    """

    manifest: Manifest
    perturber: Perturber
    recipe: Mapping[str, Any]
    computed: Mapping[str, Any]
    at: ResolutionMode
    seed: int
    max_pixels: int
    psnr: float | None
    masks: Mapping[str, Path]
    against: Mapping[str, Any] | None = None
    credentials: Credentials | None = None
    checked: list[Tile] = field(default_factory=list)
    """The first tile that failed; the protection was checked after it."""

    def open(self, target: Target) -> Work:
        """Decode a file, unless it is finished already or cannot be used."""
        work = Work(target, began=time.perf_counter(), on_failure=self._check)
        try:
            if not target.source.is_file():  # a pipe would block; opening it gives the reason
                open_picture(target.source)
            work.status = target.source.stat()
            work.bytes_in = work.status.st_size
            most = most_bytes(self.max_pixels)
            if work.bytes_in > most:  # its digest would take too long; opening it gives the reason
                open_picture(target.source, max_pixels=self.max_pixels)
            if why := refused(target):
                work.entry = self._skipped(work, why)
                return work
            work.input_digest = digest(target.source)
            file = self.masks.get(target.name)
            if file is not None and file.stat().st_size > most:
                open_mask(file, (1, 1), max_pixels=self.max_pixels)
            work.mask_digest = None if file is None else mask_digest(file)
            if self.manifest.is_done(target.name, work.input_digest, self._recipe(work)):
                work.entry = self.manifest.unchanged(target.name)
                return work
            picture = open_picture(target.source, max_pixels=self.max_pixels)
            mask = None if file is None else open_mask(file, picture.size, max_pixels=self.max_pixels)
            budget = self.perturber.settings.budget
            work.tiled = PictureTiles(
                picture, Edit(picture, budget=budget), resolution=self.perturber.resolution, budget=budget,
                at=self.at, seed=derive(self.seed, work.input_digest),
                tile=getattr(self.perturber, "tile", None), psnr=self.psnr, mask=mask,
            )  # fmt: skip
        except PictureError as error:
            work.entry = self._skipped(work, str(error))
        except OSError as error:
            work.entry = self._skipped(work, f"{target.source}: it cannot be read ({error.strerror})")
        except MemoryError:
            work.entry = self._skipped(
                work, f"{target.source}: it does not fit in memory; close programs or scale it down"
            )
        return work

    def _check(self, tile: Tile) -> None:
        """NotFiniteError if the protection fails on a plain picture of this size too; checked once a run."""
        if self.checked:
            return
        self.checked.append(tile)
        side = tile.image.shape[0]
        ramp = np.linspace(0.25, 0.75, side, dtype=np.float32)
        plain = np.broadcast_to(ramp, (1, 3, side, side)).copy()
        if not np.isfinite(perturbed(self.perturber, plain, None, [0])).all():
            raise NotFiniteError(
                "the protection answers with values that are not numbers (NaN or infinity), whatever the "
                f"picture; its weights may be damaged: give {self._other()}"
            )

    def _other(self) -> str:
        """The remedy for a protection that fails."""
        dtype = str(getattr(self.perturber, "dtype", "torch.float32"))
        if hasattr(self.perturber.settings, "weights"):
            return "other weights, or another method"
        return "another method" if dtype == "torch.float32" else "--dtype float32, or another method"

    def finish(self, work: Work) -> Work:
        """Save, read again, measure and write the manifest's line; then release the pictures."""
        if work.failed:
            work.entry = self._skipped(
                work,
                f"{work.target.source}: the protection answered with values that are not numbers; give "
                f"{self._other()}",
            )
        elif work.tiled is not None:
            path = work.target.path
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                work.entry = self._saved(work, work.tiled)
            except PictureError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in HOPELESS:
                    raise unwritable(path, error.__cause__) from error
                work.entry = self._skipped(work, str(error))
            except OSError as error:
                if error.errno in HOPELESS:
                    raise unwritable(path, error) from error
                work.entry = self._skipped(work, f"{path}: it cannot be written ({error.strerror})")
        if work.tiled is not None:
            work.tiled.close()
        work.tiled = None
        if work.entry is not None and work.entry.status == "skipped":
            work.entry = without_copy(self.manifest, work.target, work.entry)
            if work.target.kind is None or not self.manifest.says(work.entry):
                self._append(work.entry)
        return work

    def _saved(self, work: Work, tiled: PictureTiles[Picture, Edit]) -> Entry:
        """Write the picture's line, then give the picture its name; or say why it is not kept."""
        path = work.target.path
        with unfinished(path) as waiting:
            try:
                save_picture(tiled.picture, tiled.edit, waiting)
                unsigned = None
                if self.credentials is not None and tiled.edit.changed:
                    unsigned = self.credentials.sign(waiting, tiled.picture.format)
                entry = self._measured(work, tiled, waiting, unsigned)
                if entry.status != "skipped":
                    assert work.status is not None
                    copy_attributes(work.target.source, work.status, waiting)
                    self._append(entry)
                    waiting.replace(path)
            except PictureError as error:
                raise PictureError(renamed(str(error), waiting, path)) from error.__cause__
        return entry

    def _append(self, entry: Entry) -> None:
        try:
            self.manifest.append(entry)
        except OSError as error:
            raise unwritable(self.manifest.path, error) from error

    def _measured(
        self, work: Work, tiled: PictureTiles[Picture, Edit], path: Path, unsigned: str | None
    ) -> Entry:
        """The line of the picture that was saved at `path`, or why it is not kept.

        unsigned: why it holds no content credential though `credentials` are given.
        """
        picture, target = tiled.picture, work.target
        tiled.edit.let_go()
        try:
            saved = self._again(path, picture)
        except PictureError as error:
            reason = renamed(str(error), path, target.path)
            return self._skipped(
                work, f"{reason}; the saved picture was removed, please report this file's format"
            )
        seen = compare(picture, saved)
        budget = self.perturber.settings.budget
        if picture.lossless and seen.linf > budget + HAIR:
            return self._skipped(
                work,
                f"{target.source}: the saved picture was {seen.linf:.2f}/255 from the original, over "
                f"the budget of {budget:g}/255, and was removed; please report this file's format",
            )
        masked = work.mask_digest is not None
        why = why_unchanged(
            picture, tiled.edit, saved, seen, budget=budget, psnr=self.psnr, masked=masked
        )  # fmt: skip
        return Entry(
            path=target.name, status="unchanged" if why else "protected", input_digest=work.input_digest,
            output_digest=digest(path), width=picture.size[0], height=picture.size[1], bytes_in=work.bytes_in,
            bytes_out=path.stat().st_size, linf=seen.linf,
            psnr=None if seen.psnr is None else round(seen.psnr, 3),
            ssim=None if seen.ssim is None else round(seen.ssim, 5), lossless=picture.lossless,
            note="; ".join(filter(None, [why, picture.note, unsigned])) or None,
            seconds=round(time.perf_counter() - work.began, 3), recipe=self._recipe(work),
            computed=self.computed, against=self.against, version=__version__,
        )  # fmt: skip

    def _again(self, path: Path, picture: Picture) -> Picture:
        """The saved picture. PictureError if it does not have its original's size."""
        saved = open_picture(path, max_pixels=self.max_pixels)
        if saved.size != picture.size:
            raise PictureError(f"{path}: it was saved in the size {saved.size}, not {picture.size}")
        return saved

    def _recipe(self, work: Work) -> Mapping[str, Any]:
        """Everything that decides one picture's result."""
        return self.recipe if work.mask_digest is None else {**self.recipe, "mask": work.mask_digest}

    def _skipped(self, work: Work, reason: str) -> Entry:
        for path in (work.target.path, work.target.source):
            reason = renamed(reason, path, work.target.name)
        return Entry(
            path=work.target.name, status="skipped", reason=reason, input_digest=work.input_digest,
            bytes_in=work.bytes_in, recipe=self._recipe(work), version=__version__,
        )  # fmt: skip


def refused(target: Target) -> str | None:
    """Why a file is skipped, whatever it holds."""
    if target.kind is not None:
        return kinds.reason(target.source, target.kind)
    if WINDOWS and reserved(target.name):
        return f"{target.source}: Windows takes its name for a device; rename it"
    return None


def without_copy(manifest: Manifest, target: Target, skipped: Entry) -> Entry:
    """Remove what an earlier run made of a file that is skipped now: it may show another picture."""
    fate = "was removed"
    try:
        if not manifest.made(target.name):
            return skipped
        target.path.unlink()
    except OSError as error:
        fate = f"cannot be removed ({error.strerror}), remove it"
    return replace(skipped, reason=f"{skipped.reason}; the copy that an earlier run made {fate}")


def renamed(text: str, path: Path, name: Path | str) -> str:
    """A message about `path` as a message about `name`, on one line."""
    return one_line(text).replace(one_line(str(path)), one_line(str(name)))


def unwritable(path: Path, error: OSError) -> UnlikenessError:
    return UnlikenessError(
        f"{path}: it cannot be written ({error.strerror}); free some space or name another output folder, "
        f"and start again: what is finished stays"
    )
