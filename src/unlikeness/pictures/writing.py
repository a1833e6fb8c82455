"""Saving protected pictures: the source's format and metadata, other pixels, never over the source."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import PictureError, UsageError
from unlikeness.files import replacing
from unlikeness.pictures.edit import Edit
from unlikeness.pictures.formats.base import DAMAGE
from unlikeness.pictures.picture import Picture

__all__ = ["save_picture"]

_BAND_ROWS = 256


def save_picture(
    picture: Picture,
    pixels: Edit | NDArray[np.floating[Any]] | NDArray[np.uint8] | NDArray[np.uint16],
    path: str | os.PathLike[str],
    *,
    budget: float | None = None,
) -> None:
    """Write `picture` with other pixels to `path`, keeping all that its format lets it keep (see the
    formats).

    pixels: an `Edit` of this picture, or H × W × 3 upright RGB: float in [0, 1], uint8 (255ths) or uint16
    (65535ths). budget: as for `Edit`; only for arrays, since an Edit has its own.

    The file appears under its name only when it is complete (a temporary file in the same folder is renamed
    over it), and a failure leaves nothing behind. Its suffix is the caller's affair: the format is the
    source's. If no integer changed and the source is still as it was, its bytes are copied, so even a JPEG
    stays identical.

    Raises UsageError if `path` is the source itself, also through links, or if the pixels do not fit;
    PictureError if the file cannot be written or encoded.
    """
    path = Path(path)
    if _same_file(path, picture.path):
        raise UsageError(f"{path} is the source itself, which is never written over; choose another folder")
    edit = pixels if isinstance(pixels, Edit) else _edit_of(picture, pixels, budget)
    if edit.picture is not picture:
        raise UsageError(
            f"the edit is of {edit.picture.path}, not {picture.path}; make one with Edit(picture)"
        )
    try:
        with (
            replacing(path, settle=False) as part,
            part.open("x+b") as file,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            changed = edit.changed
            edit.let_go()
            if changed or not _copy_source(picture, file):
                picture.raster.writer.write(edit.stored, file)
    except DAMAGE as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(
            f"{path}: it cannot be written ({' '.join(str(said).split())}); check the folder and free space"
        ) from error


def _edit_of(picture: Picture, pixels: NDArray[Any], budget: float | None) -> Edit:
    """An Edit that holds all of `pixels`, converted a few rows at a time."""
    width, height = picture.size
    if pixels.shape != (height, width, 3):
        raise UsageError(
            f"{picture.path} has {height} rows, {width} columns, but the pixels have the shape {pixels.shape}"
        )
    if pixels.dtype.kind != "f" and pixels.dtype not in (np.uint8, np.uint16):
        raise UsageError(f"pixels are {pixels.dtype}, but they must be float in [0, 1], uint8 or uint16")
    top = np.float32(1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max)
    edit = Edit(picture, budget=budget)
    for y0 in range(0, height, _BAND_ROWS):
        band = pixels[y0 : y0 + _BAND_ROWS].astype(np.float32)
        edit.write(y0, 0, band if top == 1 else band / top)
    return edit


def _same_file(path: Path, source: Path) -> bool:
    """Whether both names lead to one file, through links of either kind or by spelling."""
    try:
        return path.samefile(source)
    except (OSError, ValueError):
        return os.path.realpath(path) == os.path.realpath(source)


def _copy_source(picture: Picture, target: Any) -> bool:
    """Copy the source's bytes if it is still the file that was opened; False leaves `target` empty."""
    try:
        with picture.path.open("rb") as source:
            status = os.fstat(source.fileno())
            if (status.st_size, status.st_mtime_ns) != picture.stamp:
                return False
            shutil.copyfileobj(source, target)
    except OSError:
        target.seek(0)
        target.truncate()
        return False
    return True
