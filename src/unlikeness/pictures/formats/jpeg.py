"""JPEG: the source's quantisation tables, subsampling and scan type, and every metadata segment as it was.

The picture is encoded by Pillow with the source's own tables; the application segments (EXIF, XMP, ICC, IPTC,
JFIF with its density) and comments are copied byte for byte in front of it, without thumbnails (`previews`)
and without what XMP says of data that is left out (`xmp`).
Marker layout: ITU-T T.81 annex B.

What cannot be kept, and is said in the note: subsamplings other than 4:4:4, 4:2:2 and 4:2:0 (4:4:4 is
written); thumbnails and data behind the picture (previews, gain maps, motion clips: they would show the
picture unprotected); content credentials (they sign the old pixels). Huffman tables are made anew. CMYK is
written without YCCK and subsampling; with Adobe's segment or without it, as it was.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from unlikeness.pictures.budget import spend
from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats.base import (
    Raster,
    Unusable,
    check_size,
    exif_orientation,
    joined,
    to_array,
    to_pillow,
)
from unlikeness.pictures.formats.jpeg_scans import decode
from unlikeness.pictures.formats.jpeg_xmp import blanked_segments
from unlikeness.pictures.formats.previews import (
    CREDENTIALS,
    NOTE,
    check_exif,
    exif_without,
    is_behind,
    resources_without,
)
from unlikeness.pictures.formats.xmp import ANNOUNCED

__all__ = ["read"]

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP0, _APP1, _APP2, _APP11, _APP13, _APP14, _COM = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xFE
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_MODES = {1: ("L", ColourModel("grey")), 3: ("RGB", ColourModel("rgb")), 4: ("CMYK", ColourModel("cmyk"))}
_SEGMENT = 0xFFFF - 2
"""Bytes that a segment holds behind its length."""
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
_BEHIND = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
"""A marker that a segment or the end of the picture follows, in front of coded data and behind it."""
_SEGMENT_ENTRIES, _SKIPPED = 10, 16
"""What a segment counts in the file's budget, and how many skipped bytes count as much as an entry."""
_PIXELS_PER_BYTE = 512
"""A block of 8 × 8 pixels takes a bit at least."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """The frame header (T.81 B.2.2)."""

    marker: int
    precision: int
    width: int
    height: int
    components: tuple[tuple[int, int, int], ...]
    """(identifier, sampling factors, quantisation table) of each."""


@dataclass(frozen=True, slots=True)
class _Jpeg:
    """How to write the file again."""

    mode: str
    tables: list[list[int]]
    subsampling: int
    progressive: bool
    keep_rgb: bool
    adobe: bool
    """Whether Adobe's segment, which the encoder writes for RGB and CMYK, belongs into the file."""
    head: bytes

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        image = to_pillow(self.mode, pixels)
        buffer = self._encode(image, progressive=False)
        # Pillow gives a progressive scan two bytes a pixel to fit in and fails beyond; one that the baseline
        # size says may not fit (near-noise at the finest tables) stays baseline.
        if self.progressive and len(buffer.getbuffer()) < 2 * image.width * image.height:
            buffer = self._encode(image, progressive=True)
        data = buffer.getbuffer()
        target.write(b"\xff\xd8" + self.head)
        at = 2
        for marker, start, end in _segments(data):
            at = start
            if marker == _APP0:
                continue
            if not 0xE0 <= marker <= 0xEF or (marker == _APP14 and self.adobe):
                target.write(data[start:end])
            at = end
            if marker == 0xDA:
                break
        target.write(data[at:])

    def _encode(self, image: Image.Image, progressive: bool) -> io.BytesIO:
        buffer = io.BytesIO()
        image.save(
            buffer,
            "JPEG",
            qtables=self.tables,
            subsampling=self.subsampling,
            progressive=progressive,
            optimize=False,
            keep_rgb=self.keep_rgb,
        )
        return buffer


def read(data: bytes, max_pixels: int) -> Raster:
    """Decode a JPEG file's bytes. Raises Unusable, or what Pillow raises at damaged data."""
    segments = list(_segments(data))
    frame = _frame(data, segments)
    check_size(frame.width, frame.height, max_pixels)
    _check(data, segments, frame)
    count = len(frame.components)
    if frame.precision != 8 or count not in _MODES or frame.marker not in (0xC0, 0xC1, 0xC2):
        raise Unusable(
            "this kind of JPEG (12-bit, lossless, arithmetic) cannot be written; export it as plain JPEG"
        )
    image = JpegImageFile(io.BytesIO(data))
    mode, model = _MODES[count]
    if image.mode != mode:
        raise Unusable(f"its colours ({image.mode}) are not understood; export it as a plain JPEG")
    subsampling, odd = _subsampling(image, frame)
    credentials = any(_is_credential(data, s) for s in segments)
    head, taken_out = _head(data, segments, count)
    writer = _Jpeg(
        mode=mode,
        tables=_tables(image, frame),
        subsampling=subsampling,
        progressive=frame.marker == 0xC2,
        keep_rgb=count == 3 and _is_rgb(data, segments, frame),
        adobe=count != 4 or _adobe_transform(data, segments) is not None,
        head=head,
    )
    note = joined(
        "unusual chroma subsampling written as 4:4:4" if odd else None,
        *sorted(taken_out),
        _behind(data, segments),
        CREDENTIALS if credentials else None,
    )
    orientation = exif_orientation(image)
    pixels = to_array(decode(data, image))
    return Raster(pixels, model, writer, lossless=False, orientation=orientation, note=note)


def _segments(data: bytes | memoryview) -> list[tuple[int, int, int]]:
    """(marker, start, end) of each segment up to and with the first scan header; start is at the 0xFF."""
    found: list[tuple[int, int, int]] = []
    at = 2
    while (marker := _MARKER.search(data, at)) and marker.start() + 4 <= len(data):
        # What is skipped, fill bytes or garbage, decoders skip byte by byte.
        start = marker.start()
        spend(entries=_SEGMENT_ENTRIES + (start - at) // _SKIPPED)
        kind = data[start + 1]
        if kind == 0xD9:
            break
        (length,) = struct.unpack(">H", data[start + 2 : start + 4])
        if length < 2:
            raise Unusable("it is damaged (a segment without a length); copy or export it again")
        at = start + 2 + length
        found.append((kind, start, at))
        if kind == 0xDA:
            break
    return found


def _check(data: bytes, segments: list[tuple[int, int, int]], frame: _Frame) -> None:
    """Refuse, before it is decoded, what would cost Pillow too much or cannot hold so many pixels."""
    if frame.width * frame.height > _PIXELS_PER_BYTE * len(data):
        raise Unusable("it is truncated (too little data for its size); copy or export it again")
    exif = [data[s + 4 : e] for kind, s, e in segments if kind == _APP1 and data[s + 4 : s + 9] == b"Exif\0"]
    for index, block in enumerate(exif):  # Pillow joins them one by one
        spend(copied=index * len(block))
    check_exif(b"".join(block[6 if i else 0 :] for i, block in enumerate(exif)))


def _frame(data: bytes, segments: list[tuple[int, int, int]]) -> _Frame:
    for marker, start, end in segments:
        body = data[start + 4 : end]
        if marker in _FRAMES and len(body) >= 6 and len(body) >= 6 + 3 * body[5]:
            precision, height, width, count = struct.unpack(">BHHB", body[:6])
            parts = tuple((body[6 + 3 * i], body[7 + 3 * i], body[8 + 3 * i]) for i in range(count))
            return _Frame(marker, precision, width, height, parts)
    raise Unusable("it is damaged or truncated (no frame header); copy or export it again")


def _tables(image: JpegImageFile, frame: _Frame) -> list[list[int]]:
    """The quantisation tables in the order of the components, equal ones at the end once."""
    tables = [list(image.quantization[table]) for _, _, table in frame.components]
    if len(tables) == 4:  # CMYK is written without YCCK: the inks share the table of the finest component
        return tables[:1]
    while len(tables) > 1 and tables[-1] == tables[-2]:
        tables.pop()
    return tables


def _subsampling(image: JpegImageFile, frame: _Frame) -> tuple[int, bool]:
    """Pillow's number for the chroma subsampling, and whether the source's own cannot be written."""
    if len(frame.components) != 3:
        return 0, False
    number = int(get_sampling(image))
    return (number, False) if number in (0, 1, 2) else (0, len({s for _, s, _ in frame.components}) > 1)


def _is_rgb(data: bytes, segments: list[tuple[int, int, int]], frame: _Frame) -> bool:
    """Whether three components are RGB rather than YCbCr, by libjpeg's rules (jdapimin.c,
    default_decompress_parms).
    """
    if any(marker == _APP0 and data[start + 4 : start + 9] == b"JFIF\0" for marker, start, _ in segments):
        return False
    transform = _adobe_transform(data, segments)
    if transform is not None:
        return transform == 0
    return tuple(i for i, _, _ in frame.components) == (0x52, 0x47, 0x42)


def _adobe_transform(data: bytes, segments: list[tuple[int, int, int]]) -> int | None:
    """The colour transform that Adobe's segment names; None without such a segment."""
    for marker, start, end in segments:
        body = data[start + 4 : end]
        if marker == _APP14 and body[:5] == b"Adobe" and len(body) >= 12:
            return body[11]
    return None


def _is_credential(data: bytes, segment: tuple[int, int, int]) -> bool:
    marker, start, _ = segment
    return marker == _APP11 and data[start + 4 : start + 6] == b"JP"


def _head(data: bytes, segments: list[tuple[int, int, int]], components: int) -> tuple[bytes, set[str]]:
    """The segments that are copied, and notes of what was taken out of them.

    Adobe's APP14 tells the colour transform, so for anything but YCbCr it is the encoder's to write; the
    index of further pictures (MPF) and the word of a gain map (ISO 21496-1) are of what is left out.
    """
    kept, notes = [], set[str]()
    resources = _resources([data[start + 4 : end] for marker, start, end in segments if marker == _APP13])
    texts, found = blanked_segments([data[s + 4 : end] for marker, s, end in segments if marker == _APP1])
    notes |= found
    changed = {_APP1: iter(texts), _APP13: iter(resources)}
    for segment in segments:
        marker, start, end = segment
        body = data[start + 4 : end]
        if not (0xE0 <= marker <= 0xEF or marker == _COM):
            continue
        shown = next(changed[marker]) if marker in changed else body
        without = _without_thumbnail(marker, shown)
        if without != shown or (marker == _APP13 and shown != body):
            notes.add(NOTE)
        ours = marker == _APP14 and (components != 3 or body[11:12] != b"\x01")
        gain_map = marker == _APP2 and body.startswith(_GAIN_MAP)
        if gain_map:
            notes.add(ANNOUNCED)
        if ours or gain_map or body[:4] == b"MPF\0" or _is_credential(data, segment):
            continue
        if without or not body:
            kept.append(data[start : start + 2] + struct.pack(">H", 2 + len(without)) + without)
    return b"".join(kept), notes


def _without_thumbnail(marker: int, body: bytes) -> bytes:
    """A segment's body without the picture's small copy; empty if it is nothing else (JFIF's extension)."""
    if marker == _APP0 and body[:5] == b"JFXX\0":
        return b""
    if marker == _APP1 and body[:5] == b"Exif\0":
        return exif_without(body)
    return body


def _resources(bodies: list[bytes]) -> list[bytes]:
    """The bodies of all APP13 segments without Photoshop's thumbnails; empty where nothing is left of one.

    More resources than a segment holds go on in the next one, at any byte: they are taken as one.
    """
    ours = [i for i, body in enumerate(bodies) if body.startswith(_PHOTOSHOP)]
    parts = [resources_without(bodies[i][len(_PHOTOSHOP) :]) for i in ours]
    joined_up = b"".join(parts)
    cleaned = resources_without(joined_up)
    if cleaned != joined_up:
        step = _SEGMENT - len(_PHOTOSHOP)
        parts = [cleaned[k * step : (k + 1) * step] for k in range(len(ours))]
    shown = list(bodies)
    for i, part in zip(ours, parts, strict=True):
        shown[i] = _PHOTOSHOP + part if part or i == ours[0] else b""
    return shown


def _behind(data: bytes, segments: list[tuple[int, int, int]]) -> str | None:
    """The note of what follows the first scan's header beside scans: segments between them, and more than
    padding behind the end of the first picture.
    """
    if not segments or segments[-1][0] != 0xDA:
        return None
    at, between, trailing = segments[-1][2], False, False
    while found := _BEHIND.search(data, at):
        spend(entries=_SEGMENT_ENTRIES)
        at, marker = found.end(), found.group(1)[0]
        if marker == 0xD9:
            trailing = is_behind(data[at:])
            break
        between = between or 0xE0 <= marker <= 0xEF or marker == _COM
        at += int.from_bytes(data[at : at + 2], "big")
    return joined(
        "data behind the picture (preview, gain map or clip) left out" if trailing else None,
        "metadata between the picture's scans left out" if between else None,
    )
