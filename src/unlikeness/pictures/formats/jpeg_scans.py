"""Decoding a JPEG a restart interval at a time, so that damaged data is found: libjpeg only mends it.

Coded data has no checksum, and a decoder that meets lost or overwritten data goes on. It ends up with blocks
left over, which it paints gray, or with data left over, which it skips. Both are seen here by feeding
Pillow's decoder all bytes up to a marker but not the marker itself, with a little padding behind them:

- too little data: the decoder still asks for coefficients, although all data is fed;
- too much data: the decoder looks for a marker already, although the last bytes are not fed.

How the two are told apart: a decoder that looks for a marker takes at once a byte that is none. One that
reads coefficients takes bytes by the machine word, and of two single bytes it leaves one. Restart markers are
counted. Zeros in a row are damage where they would code anything but blocks of one colour.

What is not seen: damage behind which the decoder is in step again, or ends within two words of where it
should. In the last, refining scans of a progressive picture that is common, and shows little.
Format: ITU-T T.81, annexes B, F and G.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from unlikeness.pictures.formats.base import Unusable
from unlikeness.pictures.formats.jpeg_codes import Codes, read_tables

__all__ = ["decode"]

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_PADDING = bytes([0xAA]) * 8
"""As many bytes as a decoder reads ahead, where there is no table of codes."""
_MOST_SCANS = 100
"""Each costs a pass over all pixels. Programs write up to twenty."""
_MOST_STUFFED = 4096
"""Bytes of nothing but 0xFF and zeros that are looked through for others."""
_SPARE = 8
"""Bytes behind the picture that are forgiven: some cameras leave a few. Zeros are forgiven in any number."""
_ZEROS = bytes(256)
_SOI, _EOI, _SOS, _DRI, _DHT, _TEM, _PROGRESSIVE = 0xD8, 0xD9, 0xDA, 0xDD, 0xC4, 0x01, 0xC2
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)
_TRUNCATED = "it is truncated (no end marker); copy or export it again"
_MISSING = "it is damaged (part of the picture's data is missing); copy it again, or export it elsewhere"
_LEFT_OVER = "it is damaged (data of the picture is left over); copy it again, or export it elsewhere"
_OVERWRITTEN = "it is damaged (part of its data is zeros); copy it again, or export it elsewhere"


def decode(data: bytes, image: JpegImageFile) -> Image.Image:
    """All pixels of `image`, which is opened from `data` and not loaded yet, as Pillow would give them.

    Raises Unusable where coded data is missing, left over, overwritten or cut off, OSError where libjpeg
    gives up.
    """
    canvas = Image.new(image.mode, image.size)
    arguments = image.tile[0].args
    core: Any = Image.core  # type: ignore[attr-defined]  # where Pillow's own loading takes its decoders from
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
        """Decode `part`; whether the decoder has taken all of it."""
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
    """A way through the markers of a file, feeding a decoder."""

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
            at, marker = self._next(at)
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
                self.tables.update(read_tables(body))
            at = end
            if marker == _SOS:
                self.scans += 1
                if self.scans > _MOST_SCANS:
                    raise Unusable("it has more scans than any program writes; export it again")
                self.feed.give(view[fed:at])
                fed = at = self._scan(view, at, body)

    def _next(self, at: int) -> tuple[int, int]:
        """Where the next marker ends, and what it is."""
        _, end, marker = self._found(at)
        return end, marker

    def _found(self, at: int) -> tuple[int, int, int]:
        """Where the next marker, with its fill bytes, begins and ends, and what it is."""
        found = _MARKER.search(self.data, at)
        if found is None:
            raise Unusable(_TRUNCATED)
        start, end = found.span()
        if start > at and self.data[start - 1] == 0xFF:
            start = at + len(self.data[at:start].rstrip(b"\xff"))
        return start, end, self.data[end - 1]

    def _scan(self, view: memoryview, at: int, header: bytes) -> int:
        """Feed a scan's coded data; where the marker behind it begins."""
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
        """The tables that a scan codes its coefficients with: none for a progressive one of the first ones,
        which may also hold plain bits."""
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
