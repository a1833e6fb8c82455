"""Where an AV1 picture itself says what its colours mean: the sequence header (AV1 specification, 5.5).

A container says so, too (`colr`), and programs differ in which of the two they read.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["colours_of", "with_colours"]

_SEQUENCE = 1
_IDENTITY = 0


def colours_of(picture: bytes) -> tuple[int, int] | None:
    """Primaries and transfer function, as numbers of ITU-T H.273, of an item's data; None if it does not
    say.
    """
    place = _place(picture)
    return None if place is None else (_at(picture, place), _at(picture, place + 8))


def with_colours(picture: bytes, primaries: int, transfer: int) -> bytes:
    """An item's data that says these, both in 0 to 255. How colours became YCbCr stays. Raises OSError where
    it has no place to say so.
    """
    place = _place(picture)
    if place is None or _at(picture, place + 16) == _IDENTITY:
        raise OSError("the encoder does not describe colours")
    head = picture[: (place + 24) // 8]
    shift = 8 * len(head) - place - 16
    bits = int.from_bytes(head, "big") & ~(0xFFFF << shift) | (primaries << 8 | transfer) << shift
    return bits.to_bytes(len(head), "big") + picture[len(head) :]


def _at(picture: bytes, bit: int) -> int:
    """The byte that begins at any bit."""
    return int.from_bytes(picture[bit // 8 : bit // 8 + 2].ljust(2, b"\0"), "big") >> (8 - bit % 8) & 0xFF


def _place(picture: bytes) -> int | None:
    """The bit at which the description of colours begins; None without one."""
    at = 0
    for _ in range(16):
        if at + 2 > len(picture):
            return None
        head, at = picture[at], at + 1 + (picture[at] >> 2 & 1)
        size, at = _leb128(picture, at) if head & 2 else (len(picture) - at, at)
        if head >> 3 & 15 == _SEQUENCE:
            return _description(_Bits(picture[: at + size], 8 * at))
        at += size
    return None


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i] if at + i < len(data) else 0
        value |= (byte & 0x7F) << (7 * i)
        if not byte & 0x80:
            return value, at + i + 1
    return value, at + 8


@dataclass
class _Bits:
    data: bytes
    at: int

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            byte = self.data[self.at // 8] if self.at // 8 < len(self.data) else 0
            value = value << 1 | byte >> (7 - self.at % 8) & 1
            self.at += 1
        return value

    def skip_uvlc(self) -> None:
        zeros = 0
        while zeros < 32 and not self.take(1):
            zeros += 1
        self.take(zeros)


def _description(bits: _Bits) -> int | None:
    """The names are the specification's (5.5.1 and 5.5.2)."""
    profile, _still, reduced = bits.take(3), bits.take(1), bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _operating_points(bits)
    width, height = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width + height)
    if not reduced and bits.take(1):  # frame_id_numbers_present_flag
        bits.take(7)
    bits.take(3)
    if not reduced:
        _tools(bits)
    bits.take(3)  # enable_superres, enable_cdef, enable_restoration
    if bits.take(1) and profile == 2:  # high_bitdepth
        bits.take(1)
    if profile != 1:
        bits.take(1)  # mono_chrome
    return bits.at if bits.take(1) and bits.at + 24 <= 8 * len(bits.data) else None


def _operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):
            bits.skip_uvlc()
        if bits.take(1):  # decoder_model_info_present_flag
            delay = bits.take(5) + 1
            bits.take(42)
    display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if display_delay and bits.take(1):
            bits.take(4)


def _tools(bits: _Bits) -> None:
    bits.take(4)  # enable_interintra_compound to enable_dual_filter
    order_hint = bits.take(1)
    if order_hint:
        bits.take(2)
    screen_content = 2 if bits.take(1) else bits.take(1)
    if screen_content and not bits.take(1):
        bits.take(1)
    if order_hint:
        bits.take(3)
