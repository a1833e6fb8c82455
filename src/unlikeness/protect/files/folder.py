"""Protect files and folders: every picture once, each with its line in the manifest.

A run may be killed at any time and started again with the same arguments. Finished files are left alone, the
others are done, and the pictures are those of an uninterrupted run, bit for bit (on the same machine).
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness import locks
from unlikeness.errors import UsageError
from unlikeness.files import sync_folder
from unlikeness.pictures import kinds
from unlikeness.pictures.limits import MAX_PIXELS
from unlikeness.progress import Progress, Silent
from unlikeness.protect.against import against_of
from unlikeness.protect.files.manifest import Entry, Manifest
from unlikeness.protect.files.masks import find_masks
from unlikeness.protect.files.targets import Target, find_targets
from unlikeness.protect.files.worker import Work, Worker, unwritable
from unlikeness.protect.settings import ResolutionMode
from unlikeness.protect.tiling import batches

if TYPE_CHECKING:
    from torch import Tensor

    from unlikeness.pictures.credentials import Credentials
    from unlikeness.protect.base import Perturber

__all__ = ["Outcome", "protect_folder"]


@dataclass
class Outcome:
    """What became of each file.

    protected, skipped: manifest lines of this run. before: names that an earlier run protected. unchanged:
    manifest lines of files that are only copies, of earlier runs too. unsupported: names in `skipped` whose
    kind cannot be protected (RAW, PSD, GIF, ...). passed_over: one line on these and on videos, which have no
    entry; None if there are none.
    """

    protected: list[Entry] = field(default_factory=list)
    unchanged: list[Entry] = field(default_factory=list)
    skipped: list[Entry] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    passed_over: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every file is protected, now or before."""
        return not (self.skipped or self.unchanged)


def protect_folder(
    paths: Sequence[Path], output: Path, perturber: Perturber, *, method: str, model: str | None = None,
    added: Mapping[str, Any] | None = None, seed: int = 0, at: ResolutionMode | None = None,
    psnr: float | None = None, mask: Path | None = None,
    max_pixels: int = MAX_PIXELS, batch_size: int = 4, limit: int | None = None, exclude: Sequence[Path] = (),
    credentials: Credentials | None = None, progress: Progress | None = None,
) -> Outcome:  # fmt: skip
    """Protect all pictures below `paths` into `output`, under the same names, in the same formats.

    Args:
        paths: files and folders; `targets.find_targets` says where each goes.
        perturber: the protection.
        method, model: its registered name and the model's, for the manifest.
        added: what was added to the model, for the manifest (`Added.record`).
        seed: a picture's result depends on it and on the picture's bytes, not on its name or on other files.
        at: the resolution at which perturbations are computed.
        psnr: dB that the change stays above, before rounding and compression; see `PictureTiles`.
        mask: a grey picture that scales the budget pixel by pixel, or a folder of them; see `find_masks`. If
            one cannot be used, its picture is skipped.
        max_pixels: larger pictures are skipped.
        batch_size: tiles at once. It changes results by rounding, so keep it when a run is resumed.
        limit: only the first so many files.
        exclude: folders that are not searched, beside `output`.
        credentials: what signs every copy; two signed copies of one picture differ.

    A file that cannot be used becomes an entry in `skipped` with the reason, and the others go on.

    Raises:
        UsageError: see `find_targets` and `find_masks`; a psnr that is no finite number.
        UnlikenessError: the output cannot be written at all, or the device's memory is too small.
    """
    if psnr is not None and not math.isfinite(psnr):
        raise UsageError(f"psnr must be a finite number of dB, not {psnr}; leave it out for no bound")
    at = at or ResolutionMode()
    targets = find_targets(paths, output, exclude=exclude)
    masks = {} if mask is None else find_masks(mask, targets)
    passed_over = kinds.summary((target.source, target.kind) for target in targets if target.kind)
    targets = [target for target in targets if target.kind != kinds.VIDEO][:limit]
    recipe = {
        "method": method,
        "settings": asdict(perturber.settings),
        "scale": asdict(at),
        "model": model,
        "fingerprint": getattr(perturber, "fingerprint", None),
        "seed": seed,
        **({} if psnr is None else {"psnr": psnr}),
        **(added or {}),
    }
    if credentials is not None:
        recipe["credentials"] = credentials.fingerprint
    if engine := getattr(perturber, "engine", None):
        recipe["engine"] = engine
    on = {name: str(getattr(perturber, name)) for name in ("device", "dtype") if hasattr(perturber, name)}
    if engine:
        on["engine"] = f"{engine} {getattr(sys.modules.get(engine), '__version__', '')}".rstrip()
    with locks.inside(output):
        worker = Worker(
            Manifest(output), perturber, recipe, {"batch_size": batch_size, **on}, at, seed, max_pixels, psnr,
            masks, against_of(perturber).record(), credentials,
        )  # fmt: skip
        if together := getattr(perturber, "together", None):
            together(*_all_tiles(worker, targets))
            recipe["fingerprint"] = getattr(perturber, "fingerprint", None)
        outcome = _run(worker, targets, Outcome(passed_over=passed_over), batch_size, progress or Silent())
        _settle(outcome, output)
    return outcome


def _all_tiles(worker: Worker, targets: Sequence[Target]) -> tuple[list[Tensor], list[int]]:
    """The tiles of all usable pictures, [3, T, T] each, and their seeds."""
    import torch

    images, seeds = [], []
    for target in targets:
        work = worker.open(target)
        for tile in work.tiles():
            images.append(torch.from_numpy(tile.image).permute(2, 0, 1).contiguous())
            seeds.append(tile.seed)
        if work.tiled is not None:
            work.tiled.close()
    return images, seeds


def _run(
    worker: Worker, targets: Sequence[Target], outcome: Outcome, batch_size: int, progress: Progress
) -> Outcome:
    """Protect all files, and fill `outcome`. One thread reads ahead and one writes behind."""
    progress.start(len(targets), "protecting", "picture")
    room = batches.Room(batches.full)

    def open_in_turn(target: Target) -> Work:
        work = worker.open(target) if room.wait() else Work(target)
        room.enter(work.pixels)
        return work

    def finish(work: Work) -> Work:
        pixels = work.pixels
        try:
            return worker.finish(work)
        finally:
            room.leave(pixels)

    read = batches.overlapped(open_in_turn, targets)
    of_settings = getattr(worker.perturber.settings, "steps", 1)
    told = _Steps(getattr(worker.perturber, "steps", of_settings), progress)
    worked = batches.run(read, worker.perturber, batch_size=batch_size, on_step=told)
    written = batches.overlapped(finish, worked)
    # The last is closed first, so that nothing goes on waiting.
    with (
        contextlib.closing(read),
        contextlib.closing(worked),
        contextlib.closing(written),
        contextlib.closing(room),
    ):
        for work in written:
            if work.entry is None:
                outcome.before.append(work.target.name)
            else:
                getattr(outcome, work.entry.status).append(work.entry)
                if work.target.kind is not None:
                    outcome.unsupported.append(work.target.name)
            progress.advance(skipped=len(outcome.skipped))
    progress.close()
    return outcome


_SOON = 0.1
"""Seconds within which nothing can be estimated."""


@dataclass
class _Steps:
    """Tells the step of a batch, and the seconds until its last."""

    total: int
    progress: Progress
    began: float = 0.0

    def __call__(self, step: int) -> None:
        now = time.monotonic()
        if step == 1:
            self.began = now
        if now - self.began < _SOON:  # several steps may be reported at once
            self.progress.advance(0, step=step)
        else:
            left = (now - self.began) / (step - 1) * max(self.total - step, 0)
            self.progress.advance(0, step=step, seconds_left=round(left))


def _settle(outcome: Outcome, output: Path) -> None:
    """Force the new names to the disk, once for each folder."""
    for folder in {output, *((output / entry.path).parent for entry in outcome.protected)}:
        try:
            sync_folder(folder)
        except OSError as error:
            raise unwritable(folder, error) from error
