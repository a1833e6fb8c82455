"""The quality a lossy WebP was encoded at, read from the quantiser in its frame header.

Frame header: RFC 6386, sections 9.2 to 9.6 and 19.2, coded with the boolean decoder of section 7. The mapping
from quantiser to libwebp's quality is the inverse of its `QualityToCompression` (src/enc/quant_enc.c):
quality x in [0, 1] -> l = 2x/3 below 0.75, else 2x - 1; quantiser q = 127 (1 - l^(1/3)).
"""

from __future__ import annotations

__all__ = ["quality_of"]


def quality_of(frame: bytes) -> float | None:
    """A VP8 key frame -> the libwebp quality, 1 to 100, that gives its mean quantiser; None if it has
    none.
    """
    if len(frame) < 12 or frame[0] & 1:
        return None
    bits = _Bits(frame[10:])
    bits.number(2)  # colour space, clamping
    segments: list[int] = []
    absolute = False
    if bits.number(1):  # segmentation
        update_map, update_data = bits.number(1), bits.number(1)
        if update_data:
            absolute = bool(bits.number(1))
            segments = [bits.optional(7) for _ in range(4)]
            for _ in range(4):
                bits.optional(6)  # loop filter levels
        if update_map:
            for _ in range(3):
                if bits.number(1):
                    bits.number(8)
    bits.number(1 + 6 + 3)  # loop filter type, level, sharpness
    if bits.number(1) and bits.number(1):  # loop filter deltas, updated
        for _ in range(8):
            bits.optional(6)
    bits.number(2)  # partitions
    base = bits.number(7)
    quantisers = [s if absolute else base + s for s in segments] or [base]
    mean = sum(min(max(q, 0), 127) for q in quantisers) / len(quantisers)
    linear = (1 - mean / 127) ** 3
    x = linear * 1.5 if linear < 0.5 else (linear + 1) / 2
    return min(max(100 * x, 1.0), 100.0)


class _Bits:
    """The boolean decoder (RFC 6386, 7.3) with even odds; zeros follow the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._value = int.from_bytes(data[:2], "big")
        self._at = 2
        self._range = 255
        self._shifted = 0

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) >> 1)
        bit = int(self._value >= split << 8)
        if bit:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifted += 1
            if self._shifted == 8:
                self._shifted = 0
                self._value |= self._data[self._at] if self._at < len(self._data) else 0
                self._at += 1
        return bit

    def number(self, count: int) -> int:
        """An unsigned number of `count` bits, the highest first."""
        value = 0
        for _ in range(count):
            value = value << 1 | self._bit()
        return value

    def optional(self, count: int) -> int:
        """A flag, then, if it is set, a number of `count` bits and its sign; 0 otherwise."""
        if not self.number(1):
            return 0
        value = self.number(count)
        return -value if self.number(1) else value
