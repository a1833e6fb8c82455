"""Masks: grey pictures that say where a picture may be changed. White: the whole budget; black: nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unlikeness.errors import PictureError, UsageError, one_line
from unlikeness.pictures import Picture, find_pictures, open_picture
from unlikeness.pictures.limits import MAX_PIXELS
from unlikeness.protect.files.manifest import digest
from unlikeness.protect.files.targets import Target

__all__ = ["Mask", "find_masks", "mask_digest", "open_mask"]

Floats = NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Grey of red, green and blue, as in JFIF 1.02."""

_BAND_PIXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class Mask:
    """Share of the budget at each pixel of an upright picture: `values` [H, W] in 0 to 255."""

    values: NDArray[np.uint8]

    def window(self, y0: int, y1: int, x0: int, x1: int) -> Floats:
        """[h, w, 1] in [0, 1]: rows y0 to y1 and columns x0 to x1, ends excluded."""
        window: Floats = self.values[y0:y1, x0:x1, None].astype(np.float32) / np.float32(255)
        return window

    def at(self, size: tuple[int, int]) -> Mask:
        """Resized to `size` (width, height), antialiased."""
        height, width = self.values.shape
        if (width, height) == size:
            return self
        resized = Image.fromarray(self.values).resize(size, Image.Resampling.BILINEAR)
        return Mask(np.asarray(resized))


def open_mask(path: Path, size: tuple[int, int], *, max_pixels: int = MAX_PIXELS) -> Mask:
    """The mask in `path` for a picture of `size` (width, height), both upright.

    A mask of another size is resized, if width and height agree to a pixel. Colours count by their grey
    value; alpha does not count.

    PictureError, which names the file without its folder: it cannot be read, or has another shape.
    """
    try:
        picture = open_picture(path, max_pixels=max_pixels)
    except PictureError as error:
        raise PictureError(f"mask {str(error).replace(one_line(str(path)), path.name)}") from error
    (width, height), (w, h) = size, picture.size
    if abs(w - h * width / height) > 1 and abs(h - w * height / width) > 1:
        raise PictureError(
            f"mask {path.name} is {w} × {h} px, another shape than the picture's {width} × {height} px; "
            f"give one of its width to height"
        )
    return Mask(_grey(picture)).at(size)


def mask_digest(path: Path) -> str:
    """The mask's digest for the manifest. PictureError, without the folder, if the file cannot be read."""
    try:
        return digest(path)
    except OSError as error:
        raise PictureError(f"mask {path.name}: it cannot be read ({error.strerror})") from error


def _grey(picture: Picture) -> NDArray[np.uint8]:
    """[H, W], computed one band of rows at a time."""
    width, height = picture.size
    grey = np.empty((height, width), np.uint8)
    step = max(1, _BAND_PIXELS // width)
    for y0 in range(0, height, step):
        y1 = min(y0 + step, height)
        grey[y0:y1] = np.rint(picture.window(y0, y1, 0, width) @ _LUMA * 255)
    return grey


def find_masks(mask: Path, targets: Sequence[Target]) -> Mapping[str, Path]:
    """The masks, by their picture's place below the output folder.

    Args:
        mask: a file, for a single picture; or a folder. There, a mask has the place and the name that its
            picture has below the output folder, in any format. Pictures without a mask are protected whole.

    Raises:
        UsageError: no such file or folder; one mask for several pictures; two masks for one; none for any; a
            mask that is itself to be protected.
    """
    targets = [target for target in targets if target.kind is None]
    if not (mask.is_dir() or mask.is_file()):
        raise UsageError(f"--mask {mask} is no file and no folder; give a grey picture, or a folder of them")
    if not mask.is_dir():
        if len(targets) != 1:
            raise UsageError(
                f"--mask {mask} is one picture, and there are {len(targets)} to protect; give a folder of "
                f"masks with their names"
            )
        found = {targets[0].name: mask}
    else:
        found = _by_name(mask, targets)
    inputs = {target.source.resolve() for target in targets}
    for file in found.values():
        if file.resolve() in inputs:
            raise UsageError(
                f"--mask: {file} is also a picture to protect; keep masks in a folder of their own"
            )
    return found


def _by_name(folder: Path, targets: Sequence[Target]) -> dict[str, Path]:
    masks: dict[str, list[Path]] = {}
    for _, file in find_pictures([folder]):
        masks.setdefault(_stem(file.relative_to(folder).as_posix()), []).append(file)
    found: dict[str, Path] = {}
    for target in targets:
        candidates = masks.get(_stem(target.name), [])
        exact = [file for file in candidates if file.relative_to(folder).as_posix() == target.name]
        if len(candidates) > 1 and not exact:
            raise UsageError(
                f"--mask: {candidates[0]} and {candidates[1]} are both masks of {target.name}; remove one"
            )
        if candidates:
            found[target.name] = (exact or candidates)[0]
    if not found:
        raise UsageError(
            f"--mask {folder} holds no mask that has the name of a picture, such as {targets[0].name}"
        )
    return found


def _stem(name: str) -> str:
    """A place without its file's suffix: trip/cat.jpg -> trip/cat."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix else name
