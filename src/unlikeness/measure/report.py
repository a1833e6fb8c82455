"""Originals against their protected copies, file by file: a report to print or to write as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unlikeness import __version__, pictures
from unlikeness.errors import PictureError
from unlikeness.measure.intervals import Interval, bootstrap_mean
from unlikeness.measure.matching import Matched, matched
from unlikeness.measure.patterns import FlatPattern, flat_pattern
from unlikeness.measure.visibility import SSIM_WINDOW, mean_ssim, picture_linf, picture_psnr
from unlikeness.pictures.limits import MAX_PIXELS
from unlikeness.progress import Progress, Silent

__all__ = ["PictureVisibility", "VisibilityReport", "compare", "compare_pictures", "to_json"]


@dataclass(frozen=True)
class PictureVisibility:
    """How far one protected picture is from its original."""

    name: str
    linf: float
    """Largest change [n/255]."""
    psnr: float | None
    """[dB]; None if the pixels are identical."""
    ssim: float | None
    """1 for identical pixels; None if a side is shorter than the SSIM window."""
    pattern: FlatPattern
    """The strongest regular pattern in flat areas."""
    bytes_before: int
    bytes_after: int

    @property
    def growth(self) -> float:
        """Growth of the file: 0.25 is a quarter more bytes."""
        return self.bytes_after / self.bytes_before - 1


@dataclass(frozen=True)
class VisibilityReport:
    """All pictures of a comparison, their means, and what could not be compared."""

    version: str
    pictures: tuple[PictureVisibility, ...]
    max_linf: float | None
    psnr: Interval | None
    """Mean over the pictures whose pixels changed."""
    ssim: Interval | None
    pattern: Interval | None
    """Mean over the pictures with a flat area; 1 is just noticeable."""
    growth: Interval | None
    only_original: tuple[str, ...]
    """With the pictures of kinds that cannot be protected (RAW, PSD, ...)."""
    only_protected: tuple[str, ...]
    failed: tuple[str, ...]
    """One line for each pair that could not be compared."""


def to_json(report: object) -> str:
    """A report dataclass as indented JSON, without NaN or infinity."""
    return json.dumps(asdict(report), indent=2, ensure_ascii=False, allow_nan=False)  # type: ignore[call-overload]


def compare_pictures(
    original: Path, protected: Path, name: str | None = None, *, max_pixels: int = MAX_PIXELS
) -> PictureVisibility:
    """Compare two files of at most `max_pixels`.

    Raises PictureError if one cannot be read, their sizes differ, or memory does not hold both.
    """
    try:
        return _compared(original, protected, name or original.name, max_pixels)
    except MemoryError as error:
        raise PictureError(
            f"{protected}: it and its original do not fit in memory together; close programs"
        ) from error


def _compared(original: Path, protected: Path, name: str, max_pixels: int) -> PictureVisibility:
    a, b = (pictures.open_picture(file, max_pixels=max_pixels).rgb for file in (original, protected))
    if a.shape != b.shape:
        raise PictureError(
            f"{protected}: {b.shape[1]} × {b.shape[0]} px, but its original has {a.shape[1]} × {a.shape[0]}; "
            "compare pictures of one size"
        )
    x, y = (p.transpose(2, 0, 1) for p in (a, b))
    ratio = picture_psnr(x, y)
    return PictureVisibility(
        name=name,
        linf=picture_linf(x, y),
        psnr=ratio if math.isfinite(ratio) else None,
        ssim=mean_ssim(x, y) if min(x.shape[-2:]) >= SSIM_WINDOW else None,
        pattern=flat_pattern(a, b),
        bytes_before=original.stat().st_size,
        bytes_after=protected.stat().st_size,
    )


def compare(
    original: Path,
    protected: Path,
    *,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> VisibilityReport:
    """Compare two files, or two folders whose pictures are matched by their name relative to the folder.

    max_pixels: larger pictures cannot be compared.

    Raises UsageError if one is a file and the other a folder, or if a folder pair has no name in common.
    """
    found = matched(original, protected)
    if not original.is_dir():
        return _report([compare_pictures(original, protected, max_pixels=max_pixels)], found, [], seed)
    progress = progress or Silent()
    progress.start(len(found.pairs), "comparing", "picture")
    done: list[PictureVisibility] = []
    failed: list[str] = []
    for name, before, after in found.pairs:
        try:
            done.append(compare_pictures(before, after, name, max_pixels=max_pixels))
        except PictureError as error:
            failed.append(str(error))
        progress.advance()
    progress.close()
    return _report(done, found, failed, seed)


def _report(
    done: Sequence[PictureVisibility], found: Matched, failed: Sequence[str], seed: int
) -> VisibilityReport:
    def interval(figures: Sequence[float]) -> Interval | None:
        return bootstrap_mean([figures], seed=seed) if figures else None

    return VisibilityReport(
        version=__version__,
        pictures=tuple(done),
        max_linf=max((p.linf for p in done), default=None),
        psnr=interval([p.psnr for p in done if p.psnr is not None]),
        ssim=interval([p.ssim for p in done if p.ssim is not None]),
        pattern=interval([p.pattern.worst for p in done if p.pattern.worst is not None]),
        growth=interval([p.growth for p in done]),
        only_original=found.only_original,
        only_protected=found.only_protected,
        failed=tuple(failed),
    )
