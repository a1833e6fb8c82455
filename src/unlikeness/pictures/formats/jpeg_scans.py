"""Decoding a JPEG one restart interval at a time, to find damaged data, which libjpeg only conceals.

Coded data has no checksum, and a decoder that meets lost or overwritten data goes on. In the end blocks are
left over, which it paints gray, or data, which it skips. To find both, Pillow's decoder gets all bytes up to
a marker but not the marker itself, with a little padding behind them:

- too little data: the decoder still reads coefficients, although it has all data;
- too much data: the decoder already seeks a marker, although it lacks the last bytes.

A decoder that seeks a marker takes any other byte at once. One that reads coefficients takes bytes by the
machine word, and of two single bytes it leaves one. Restart markers are counted. Zeros in a row are damage
where they would code anything but blocks of one colour.

Not found: damage after which the decoder is in step again, or ends within two words of the right place. That
is common in the last, refining scans of a progressive picture, and shows little.
Format: ITU-T T.81, annexes B, C, F and G.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from unlikeness.pictures.limits import Unusable

__all__ = ["decode"]

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_WORD = 8
"""Bytes that a decoder reads ahead at most."""
_PADDING = bytes([0xAA]) * _WORD
"""Padding for scans without a table of codes."""
_MOST_SCANS = 100
"""Each scan costs a pass over all pixels. Programs write up to twenty."""
_MOST_STUFFED = 4096
"""Bytes of 0xFF and zeros that are searched for others."""
_SPARE = 8
"""Bytes behind the picture that are allowed, since some cameras leave a few; and zeros in any number."""
_ZEROS = bytes(256)
_SOI, _EOI, _SOS, _DRI, _DHT, _TEM, _PROGRESSIVE = 0xD8, 0xD9, 0xDA, 0xDD, 0xC4, 0x01, 0xC2
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)
_TRUNCATED = "it is truncated (no end marker); copy or export it again"
_MISSING = "it is damaged (part of the picture's data is missing); copy it again, or export it elsewhere"
_LEFT_OVER = "it is damaged (data of the picture is left over); copy it again, or export it elsewhere"
_OVERWRITTEN = "it is damaged (part of its data is zeros); copy it again, or export it elsewhere"


def decode(data: bytes, image: JpegImageFile) -> Image.Image:
    """All pixels of `image`, which was opened from `data` and not loaded, as Pillow would give them.

    Unusable if coded data is missing, left over, overwritten or cut off; OSError if libjpeg gives up.
    """
    canvas = Image.new(image.mode, image.size)
    arguments = image.tile[0].args
    core: Any = Image.core  # type: ignore[attr-defined]  # as in Pillow's own loading
    decoder = core.jpeg_decoder(image.mode, *(arguments if isinstance(arguments, tuple) else ()))
    decoder.setimage(canvas.im, (0, 0, *image.size))
    try:
        _Walk(data, _Feed(decoder)).all()
    finally:
        decoder.cleanup()
    return canvas


@dataclass
class _Feed:
    """Pillow's decoder of one file, which takes bytes in portions of any size."""

    decoder: Any
    rest: bytes = b""
    finished: bool = False

    def give(self, part: bytes | memoryview) -> bool:
        """Decode `part`. Returns whether the decoder took all of it."""
        if self.finished:
            return True
        offered = self.rest + bytes(part) if self.rest else part
        taken, error = self.decoder.decode(offered)
        self.finished = taken < 0
        if error < 0:
            raise OSError("its data makes no sense")
        self.rest = b"" if self.finished else bytes(offered[taken:])
        return not self.rest

    def seeks_marker(self, two: bytes | memoryview) -> bool:
        """Whether the decoder takes two bytes one by one. Neither is 0xFF."""
        first = self.give(two[:1])
        return self.give(two[1:]) and first


@dataclass
class _Walk:
    """A walk through the markers of a file, feeding a decoder."""

    data: bytes
    feed: _Feed
    interval: int = 0
    """Coded units between restart markers; 0 without any."""
    frame: bytes = b""
    """The body of the frame header."""
    progressive: bool = False
    scans: int = 0
    tables: dict[int, Codes] = field(default_factory=dict)

    def all(self) -> None:
        view = memoryview(self.data)
        fed, at = 0, 2
        while True:
            _, at, marker = self._found(at)
            if marker == _EOI:
                self.feed.give(view[fed:at])
                if not self.feed.finished:
                    raise Unusable(_MISSING)
                return
            if _SOI - 8 <= marker <= _SOI or marker == _TEM:
                continue
            end = at + int.from_bytes(self.data[at : at + 2], "big")
            body = self.data[at + 2 : end]
            if marker == _DRI:
                self.interval = int.from_bytes(body[:2], "big")
            elif marker in _FRAMES:
                self.frame, self.progressive = body, marker == _PROGRESSIVE
            elif marker == _DHT:
                self.tables.update(_read_tables(body))
            at = end
            if marker == _SOS:
                self.scans += 1
                if self.scans > _MOST_SCANS:
                    raise Unusable("it has more scans than any program writes; export it again")
                self.feed.give(view[fed:at])
                fed = at = self._scan(view, at, body)

    def _found(self, at: int) -> tuple[int, int, int]:
        """Start, with fill bytes, and end of the next marker, and the marker."""
        found = _MARKER.search(self.data, at)
        if found is None:
            raise Unusable(_TRUNCATED)
        start, end = found.span()
        if start > at and self.data[start - 1] == 0xFF:
            start = at + len(self.data[at:start].rstrip(b"\xff"))
        return start, end, self.data[end - 1]

    def _scan(self, view: memoryview, at: int, header: bytes) -> int:
        """Feed a scan's coded data. Returns the start of the marker behind it."""
        start, count, codes = at, 0, self._codes(header)
        padding = codes[0].padding if codes else _PADDING
        most = -(-self._units(header) // self.interval) if self.interval else 0
        while True:
            end, behind, marker = self._found(at)
            self._interval(view, at, end, padding)
            if not 0xD0 <= marker <= 0xD7:
                break
            if marker & 7 != count & 7 or count >= most:
                raise Unusable(_MISSING)
            count += 1
            self.feed.give(view[end:behind])
            at = behind
        whole = count + 1 - (at == end)  # some write a last marker behind everything
        if whole < most:
            raise Unusable(_MISSING)
        zeros = self.data.find(_ZEROS, start, end)
        if zeros >= 0 and not all(c.flat_zeros for c in codes) and self.data[zeros:end].strip(b"\0"):
            raise Unusable(_OVERWRITTEN)
        return end

    def _codes(self, header: bytes) -> list[Codes]:
        """The tables of a scan's coefficients; none for a first progressive scan, which may hold bits."""
        count = header[0] if header else 0
        if self.progressive and header[1 + 2 * count : 2 + 2 * count] == b"\0":
            return []
        numbers = (0x10 | byte & 15 for byte in header[2 : 2 + 2 * count : 2])
        return [self.tables[number] for number in numbers if number in self.tables]

    def _units(self, header: bytes) -> int:
        """The coded units of a scan (T.81 A.2): blocks of its only component, or groups of them."""
        height, width = int.from_bytes(self.frame[1:3], "big"), int.from_bytes(self.frame[3:5], "big")
        parts = {self.frame[i]: self.frame[i + 1] for i in range(6, len(self.frame) - 2, 3)}
        most_h, most_v = max(p >> 4 for p in parts.values()), max(p & 15 for p in parts.values())
        if header[0] > 1:
            return -(-width // (8 * most_h)) * -(-height // (8 * most_v))
        own = parts[header[1]]
        across, down = -(-width * (own >> 4) // most_h), -(-height * (own & 15) // most_v)
        return -(-across // 8) * -(-down // 8)

    def _interval(self, view: memoryview, start: int, end: int, padding: bytes) -> None:
        """Feed the coded data between two markers."""
        if start == end:
            return
        last = self.data[end - 1 : end]
        used = start + len(self.data[start:end].rstrip(last)) if last in b"\0\xff" else end
        probe = used - _SPARE
        lowest = max(start, probe - _MOST_STUFFED)
        while probe > lowest and 0xFF in self.data[probe - 1 : probe + 2]:
            probe -= 1
        if probe > lowest:
            self.feed.give(view[start:probe])
            if self.feed.seeks_marker(view[probe : probe + 2]):
                raise Unusable(_LEFT_OVER)
            start = probe + 2
        self.feed.give(view[start:end])
        self.feed.give(padding)
        if not self.feed.seeks_marker(padding[:2]):
            raise Unusable(_MISSING)


@dataclass(frozen=True)
class Codes:
    """A Huffman table for coefficients: the number of codes of each length, 1 to 16, and their symbols."""

    counts: bytes
    symbols: bytes

    @property
    def flat_zeros(self) -> bool:
        """Whether zeros code only blocks of one colour. A code of zeros is always the first."""
        return bool(self.symbols) and _blocks(self.symbols[0]) > 0

    @cached_property
    def padding(self) -> bytes:
        """Bytes that code the fewest ends of blocks, wherever a decoder begins in them; none is 0 or 0xFF."""
        return bytes([min(range(1, 255), key=self._ends)]) * _WORD

    def _ends(self, value: int) -> int:
        """The blocks that end at each bit of a repeated byte."""
        bits = value << 16 | value << 8 | value
        return sum(_blocks(self._symbol(bits >> (8 - shift) & 0xFFFF)) for shift in range(8))

    def _symbol(self, bits: int) -> int:
        """The symbol at the beginning of 16 bits; 0, as in libjpeg, if they begin with no code."""
        code = at = 0
        for length, count in enumerate(self.counts, 1):
            prefix = bits >> (16 - length)
            if prefix - code < count:
                return self.symbols[at + prefix - code] if at + prefix - code < len(self.symbols) else 0
            code, at = (code + count) << 1, at + count
        return 0


def _blocks(symbol: int) -> int:
    """The blocks, at least, that a symbol ends. With no size in its lower half it ends a block or a run of
    2^n blocks, except 0xF0, which is 16 zeros.
    """
    return 0 if symbol & 15 or symbol == 0xF0 else 1 << (symbol >> 4)


def _read_tables(body: bytes) -> dict[int, Codes]:
    """The tables in a DHT segment's body, by class (0x10 for coefficients behind the first) and number."""
    found: dict[int, Codes] = {}
    at = 0
    while at + 17 < len(body):
        counts = body[at + 1 : at + 17]
        found[body[at]] = Codes(counts, body[at + 17 : at + 17 + sum(counts)])
        at += 17 + sum(counts)
    return found
