"""What both pages of the demo share: differences, close-ups, and the check for earlier results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.foreign import UnreadableError, read_json
from unlikeness.pictures import open_picture
from unlikeness.protect.tiling.resample import shrink

__all__ = ["CLOSE", "GAIN", "WHOLE", "check_own", "compared", "difference"]

GAIN = 10
"""Factor by which a difference is amplified in a page."""
WHOLE = 300
"""Long side of a whole picture on the page [px]."""
CLOSE = 150
"""Side of a close-up, in pixels of the picture."""

Floats = NDArray[np.float32]


def difference(before: Tensor, after: Tensor, gain: float = GAIN) -> Tensor:
    """The change, `gain` times as strong, around middle grey."""
    return (0.5 + gain * (after - before)).clamp(0, 1)


def compared(original: Path, protected: Path, *, gain: float) -> list[Image.Image]:
    """[before, after, difference] of the whole picture, then of the place that changed most.

    gain: factor of the difference, around middle grey. A large picture is never held as floats. Raises
    PictureError if a picture cannot be read.
    """
    a, b = open_picture(original), open_picture(protected)
    width, height = a.size
    factor = min(1.0, WHOLE / max(width, height))
    small = (max(round(width * factor), 1), max(round(height * factor), 1))
    whole = [shrink(picture.window, a.size, small) for picture in (a, b)]
    side = min(CLOSE, width, height)
    x, y = _busiest(np.abs(whole[1] - whole[0]).mean(2), max(round(side * factor), 1))
    x0, y0 = min(round(x / factor), width - side), min(round(y / factor), height - side)
    close = [picture.window(y0, y0 + side, x0, x0 + side) for picture in (a, b)]
    return [_image(rgb) for pair in (whole, close) for rgb in (*pair, 0.5 + gain * (pair[1] - pair[0]))]


def _busiest(change: Floats, side: int) -> tuple[int, int]:
    """(x, y), the upper left corner of the square of `side` px with the most `change` [h, w]."""
    means = F.avg_pool2d(torch.from_numpy(np.ascontiguousarray(change))[None], side, stride=1)[0]
    y, x = divmod(int(means.argmax()), means.shape[1])
    return x, y


def _image(rgb: Floats) -> Image.Image:
    return Image.fromarray((rgb.clip(0, 1) * 255).round().astype(np.uint8))


def check_own(page: Path, keys: set[str]) -> None:
    """UsageError if `page`, or the JSON file of its name, exists and is not an earlier run's.

    keys: of that JSON file.
    """
    record = page.with_suffix(".json")
    if not (page.exists() or record.exists()):
        return
    try:
        made = read_json(record, most=1 << 26)
    except UnreadableError:
        made = None
    if not (isinstance(made, dict) and keys <= made.keys()):
        raise UsageError(
            f"{page} or {record.name} is there, and no earlier demo has made it; name another --output"
        )
