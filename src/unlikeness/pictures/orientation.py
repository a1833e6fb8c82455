"""EXIF orientation as views: no pixel is copied.

`stored` is the order of the rows in the file, `upright` the picture as it is meant to be seen. Numbers are
those of the EXIF tag 0x0112 (TIFF 6.0, page 36): 1 upright, 2 mirrored, 3 half a turn, 4 flipped,
5 transposed, 6 to be turned 90° clockwise, 7 transversed, 8 to be turned 90° anticlockwise.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["to_stored", "to_upright", "valid"]

S = TypeVar("S", bound=np.generic)


def valid(value: object) -> int:
    """The orientation that a tag's value stands for; 1 for anything but 1 to 8, as every viewer does."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def to_upright(stored: NDArray[S], orientation: int) -> NDArray[S]:
    """H × W × C in file order -> the upright view of the same memory, writable where `stored` is."""
    a: NDArray[Any] = stored.swapaxes(0, 1) if orientation >= 5 else stored
    if orientation in (3, 4, 7, 8):
        a = a[::-1]
    if orientation in (2, 3, 6, 7):
        a = a[:, ::-1]
    return a


def to_stored(upright: NDArray[S], orientation: int) -> NDArray[S]:
    """The inverse of `to_upright`: the two quarter turns undo each other, the rest undo themselves."""
    return to_upright(upright, {6: 8, 8: 6}.get(orientation, orientation))
