"""A dry run: sizes, tiles, files that would be skipped, and the time it would take. Nothing is written."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unlikeness.errors import PictureError
from unlikeness.pictures import kinds, open_picture
from unlikeness.pictures.limits import MAX_PIXELS
from unlikeness.progress import Progress, Silent
from unlikeness.protect.arrays import perturbed
from unlikeness.protect.files.check import foreseen
from unlikeness.protect.files.masks import open_mask
from unlikeness.protect.files.targets import find_targets
from unlikeness.protect.settings import ProtectSettings, ResolutionMode, StepSettings
from unlikeness.protect.tiling.tiles import grids

if TYPE_CHECKING:
    from unlikeness.protect.base import Perturber

__all__ = ["Planned", "Survey", "survey"]

_PROBE_STEPS = 2


@dataclass(frozen=True)
class Planned:
    """One file: its place below the output folder, its size and tiles, or the reason to skip it.

    unchanged: why it will be only a copy, as far as this is known beforehand.
    """

    name: str
    size: tuple[int, int] | None
    tiles: int
    reason: str | None = None
    unchanged: str | None = None


@dataclass(frozen=True)
class Survey:
    """All files, and an estimate in seconds of computing, reading and writing.

    passed_over: as in `folder.Outcome`.
    """

    files: list[Planned]
    seconds: float
    passed_over: str | None = None

    @property
    def tiles(self) -> int:
        return sum(file.tiles for file in self.files)


def survey(
    paths: Sequence[Path], output: Path, make: Callable[[ProtectSettings], Perturber],
    settings: ProtectSettings, *, at: ResolutionMode | None = None, masks: Mapping[str, Path] | None = None,
    max_pixels: int = MAX_PIXELS, batch_size: int = 4, progress: Progress | None = None,
) -> Survey:  # fmt: skip
    """Open every file as a run would, and time a few steps on one batch.

    make: gives the protection for settings; the timed one gets fewer steps.
    masks: from `find_masks`; if one cannot be used, its picture is skipped.

    Files that an earlier run finished count again. Raises what `find_targets` does.
    """
    at = at or ResolutionMode()
    progress = progress or Silent()
    found = find_targets(paths, output)
    passed_over = kinds.summary((target.source, target.kind) for target in found if target.kind)
    targets = [target for target in found if target.kind != kinds.VIDEO]
    protection = make(settings)
    files: list[Planned] = []
    largest = 0
    progress.start(len(targets), "looking", "picture")
    began = time.perf_counter()
    for target in targets:
        if target.kind is not None:
            files.append(Planned(target.name, None, 0, kinds.reason(target.source, target.kind)))
            progress.advance()
            continue
        try:
            picture = open_picture(target.source, max_pixels=max_pixels)
            size = picture.size
            file = (masks or {}).get(target.name)
            mask = None if file is None else open_mask(file, size, max_pixels=max_pixels)
        except PictureError as error:
            files.append(Planned(target.name, None, 0, str(error)))
        else:
            passes = grids(size, protection.resolution, at, getattr(protection, "tile", None))
            copied = foreseen(picture, settings.budget, mask)
            files.append(Planned(target.name, size, sum(map(len, passes)), unchanged=copied))
            largest = max(largest, *(grid.rows.tile for grid in passes))
        progress.advance()
    progress.close()
    # Saving, and reading again to measure, take about three times as long as reading.
    seconds = 4 * (time.perf_counter() - began)
    if largest:
        count = sum(file.tiles for file in files)
        if own := getattr(protection, "seconds", None):
            seconds += own(largest, count)
        else:
            batches = math.ceil(count / batch_size)
            seconds += batches * _batch_seconds(make, settings, largest, batch_size)
    return Survey(files, seconds, passed_over)


def _batch_seconds(
    make: Callable[[ProtectSettings], Perturber], settings: ProtectSettings, tile: int, batch_size: int
) -> float:
    """Seconds for a batch of grey tiles of `tile` px. Of gradient methods only a few steps are timed."""
    share = 1.0
    if isinstance(settings, StepSettings) and settings.steps > _PROBE_STEPS:
        share = settings.steps / _PROBE_STEPS
        settings = dataclasses.replace(settings, steps=_PROBE_STEPS)
    perturber = make(settings)
    images = np.full((batch_size, 3, tile, tile), 0.5, np.float32)
    perturbed(perturber, images, None, range(batch_size))  # the first call also sets things up
    began = time.perf_counter()
    perturbed(perturber, images, None, range(batch_size))
    return share * (time.perf_counter() - began)
