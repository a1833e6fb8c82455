"""JPEG: the source's quantisation tables, subsampling and scan type, and every metadata segment as it was.

Pillow encodes the picture with the source's own tables. Application segments (EXIF, XMP, ICC, IPTC, JFIF with
its density) and comments are copied byte for byte in front of it, without thumbnails and announcements
(`metadata`). Marker layout: ITU-T T.81 annex B.

XMP that is too long for a segment goes on in others, anywhere in the file, as an extension. Each part names
the digest of the whole, its length and the part's place (Adobe, XMP specification part 3, 1.1.3.1), and the
first packet names the digest too. Cleaning changes no length, but digests.

What cannot be kept is in the note. Subsamplings other than 4:4:4, 4:2:2 and 4:2:0 become 4:4:4. Thumbnails
and data behind the picture (previews, gain maps, motion clips) are left out, since they would show the
picture unprotected. So are content credentials, which sign the old pixels. Huffman tables are new. CMYK is
written without YCCK and subsampling, and with Adobe's segment only if it had one.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats import base, metadata
from unlikeness.pictures.formats.jpeg_scans import decode
from unlikeness.pictures.limits import Unusable, spend

__all__ = ["read"]

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP0, _APP1, _APP2, _APP11, _APP13, _APP14, _COM = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xFE
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_MODES = {1: ("L", ColourModel("grey")), 3: ("RGB", ColourModel("rgb")), 4: ("CMYK", ColourModel("cmyk"))}
_SEGMENT = 0xFFFF - 2
"""Bytes of a segment behind its length."""
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
_DIGEST = 32
"""Hexadecimal digits of an MD5."""
_XMP_HEAD = len(_XMP_MORE) + _DIGEST + 8
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
_BEHIND = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
"""Markers of a segment or of the end of the picture, before coded data and behind it."""
_SEGMENT_ENTRIES, _SKIPPED = 10, 16
"""Entries that a segment costs, and skipped bytes that cost as much as an entry."""
_PIXELS_PER_BYTE = 512
"""A block of 8 × 8 pixels takes at least a bit."""


class _Segment(NamedTuple):
    """A segment from the 0xFF at `start` to `end`; its body follows its length."""

    marker: int
    start: int
    end: int
    body: bytes


class _Frame(NamedTuple):
    """The frame header (T.81 B.2.2). components: identifier, sampling factors, quantisation table of each."""

    marker: int
    precision: int
    width: int
    height: int
    components: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Jpeg:
    """How to write the file again."""

    mode: str
    tables: list[list[int]]
    subsampling: int
    progressive: bool
    keep_rgb: bool
    adobe: bool
    """Whether the file gets Adobe's segment, which the encoder writes for RGB and CMYK."""
    head: bytes

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        image = base.to_pillow(self.mode, pixels)
        buffer = self._encode(image, progressive=False)
        # Pillow fails if a progressive scan has over two bytes a pixel. A picture for which the baseline size
        # shows that this may happen (near-noise at the finest tables) stays baseline.
        if self.progressive and len(buffer.getbuffer()) < 2 * image.width * image.height:
            buffer = self._encode(image, progressive=True)
        data = buffer.getbuffer()
        target.write(b"\xff\xd8" + self.head)
        at = 2
        for marker, start, at, _ in _segments(data):
            if not 0xE0 <= marker <= 0xEF or (marker == _APP14 and self.adobe):
                target.write(data[start:at])
        target.write(data[at:])

    def _encode(self, image: Image.Image, progressive: bool) -> io.BytesIO:
        buffer = io.BytesIO()
        how = {"qtables": self.tables, "subsampling": self.subsampling, "keep_rgb": self.keep_rgb}
        image.save(buffer, "JPEG", progressive=progressive, optimize=False, **how)
        return buffer


def read(data: bytes, max_pixels: int) -> base.Raster:
    """Decode a JPEG file's bytes. Raises Unusable, or what Pillow raises at damaged data."""
    segments = _segments(data)
    frame = _frame(segments)
    base.check_size(frame.width, frame.height, max_pixels)
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
    adobe = _adobe_transform(segments)
    head, taken_out = _head(segments, count)
    writer = _Jpeg(
        mode=mode,
        tables=_tables(image, frame),
        subsampling=subsampling,
        progressive=frame.marker == 0xC2,
        keep_rgb=count == 3 and _is_rgb(segments, frame, adobe),
        adobe=count != 4 or adobe is not None,
        head=head,
    )
    note = base.joined(
        "unusual chroma subsampling written as 4:4:4" if odd else None,
        *sorted(taken_out),
        _behind(data, segments),
        metadata.CREDENTIALS if any(map(_is_credential, segments)) else None,
    )
    orientation = base.exif_orientation(image)
    pixels = base.to_array(decode(data, image))
    return base.Raster(pixels, model, writer, lossless=False, orientation=orientation, note=note)


def _segments(data: bytes | memoryview) -> list[_Segment]:
    """The segments up to and with the first scan header."""
    found: list[_Segment] = []
    at = 2
    while (marker := _MARKER.search(data, at)) and marker.start() + 4 <= len(data):
        # Decoders skip fill bytes and garbage byte by byte.
        start = marker.start()
        spend(entries=_SEGMENT_ENTRIES + (start - at) // _SKIPPED)
        kind = data[start + 1]
        if kind == 0xD9:
            break
        (length,) = struct.unpack(">H", data[start + 2 : start + 4])
        if length < 2:
            raise Unusable("it is damaged (a segment without a length); copy or export it again")
        at = start + 2 + length
        found.append(_Segment(kind, start, at, bytes(data[start + 4 : at])))
        if kind == 0xDA:
            break
    return found


def _check(data: bytes, segments: list[_Segment], frame: _Frame) -> None:
    """Refuse a file that would cost Pillow too much, or cannot hold so many pixels, before decoding."""
    if frame.width * frame.height > _PIXELS_PER_BYTE * len(data):
        raise Unusable("it is truncated (too little data for its size); copy or export it again")
    exif = [s.body for s in segments if s.marker == _APP1 and s.body.startswith(b"Exif\0")]
    for index, block in enumerate(exif):  # Pillow joins them one by one
        spend(copied=index * len(block))
    metadata.check_exif(b"".join(block[6 if i else 0 :] for i, block in enumerate(exif)))


def _frame(segments: list[_Segment]) -> _Frame:
    for marker, _, _, body in segments:
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


def _is_rgb(segments: list[_Segment], frame: _Frame, adobe: int | None) -> bool:
    """Whether three components are RGB, not YCbCr, by libjpeg's rules (default_decompress_parms)."""
    if any(s.marker == _APP0 and s.body.startswith(b"JFIF\0") for s in segments):
        return False
    if adobe is not None:
        return adobe == 0
    return tuple(i for i, _, _ in frame.components) == (0x52, 0x47, 0x42)


def _adobe_transform(segments: list[_Segment]) -> int | None:
    """The colour transform that Adobe's segment names; None without such a segment."""
    bodies = (s.body for s in segments if s.marker == _APP14)
    return next((body[11] for body in bodies if body.startswith(b"Adobe") and len(body) >= 12), None)


def _is_credential(segment: _Segment) -> bool:
    return segment.marker == _APP11 and segment.body.startswith(b"JP")


def _head(segments: list[_Segment], components: int) -> tuple[bytes, set[str]]:
    """The segments that are copied, and notes of what was taken out of them.

    Adobe's APP14 names the colour transform, so the encoder writes it for all but YCbCr. The index of further
    pictures (MPF) and the segment of a gain map (ISO 21496-1) belong to data that is left out.
    """
    resources = _resources([s.body for s in segments if s.marker == _APP13])
    texts, notes = _blanked_segments([s.body for s in segments if s.marker == _APP1])
    changed = {_APP1: iter(texts), _APP13: iter(resources)}
    kept = []
    for segment in segments:
        marker, _, _, body = segment
        if not (0xE0 <= marker <= 0xEF or marker == _COM):
            continue
        shown = next(changed[marker]) if marker in changed else body
        without = _without_thumbnail(marker, shown)
        if without != shown or (marker == _APP13 and shown != body):
            notes.add(metadata.NOTE)
        ours = marker == _APP14 and (components != 3 or body[11:12] != b"\x01")
        gain_map = marker == _APP2 and body.startswith(_GAIN_MAP)
        if gain_map:
            notes.add(metadata.ANNOUNCED)
        if ours or gain_map or body.startswith(b"MPF\0") or _is_credential(segment):
            continue
        if without or not body:
            kept.append(struct.pack(">BBH", 0xFF, marker, 2 + len(without)) + without)
    return b"".join(kept), notes


def _without_thumbnail(marker: int, body: bytes) -> bytes:
    """A segment's body without thumbnail; empty if it is nothing else (JFIF's extension)."""
    if marker == _APP0 and body[:5] == b"JFXX\0":
        return b""
    if marker == _APP1 and body[:5] == b"Exif\0":
        return metadata.exif_without(body)
    return body


def _resources(bodies: list[bytes]) -> list[bytes]:
    """The bodies of all APP13 segments without Photoshop's thumbnails; empty if nothing is left of one.

    Resources that do not fit a segment go on in the next one, at any byte, so they are joined.
    """
    ours = [i for i, body in enumerate(bodies) if body.startswith(_PHOTOSHOP)]
    parts = [metadata.resources_without(bodies[i][len(_PHOTOSHOP) :]) for i in ours]
    joined_up = b"".join(parts)
    cleaned = metadata.resources_without(joined_up)
    if cleaned != joined_up:
        step = _SEGMENT - len(_PHOTOSHOP)
        parts = [cleaned[k * step : (k + 1) * step] for k in range(len(ours))]
    shown = list(bodies)
    for i, part in zip(ours, parts, strict=True):
        shown[i] = _PHOTOSHOP + part if part or i == ours[0] else b""
    return shown


def _blanked_segments(bodies: Sequence[bytes]) -> tuple[list[bytes], set[str]]:
    """The bodies of APP1 segments, each as long as before, with XMP cleaned; and notes."""
    shown, notes = list(bodies), set[str]()
    digests: dict[bytes, bytes] = {}
    for digest, indices in _extensions(bodies).items():
        cleaned, found = metadata.blanked(b"".join(bodies[i][_XMP_HEAD:] for i in indices))
        if not found:
            continue
        notes |= found
        digests[digest] = hashlib.md5(cleaned, usedforsecurity=False).hexdigest().upper().encode()
        at = 0
        for i in indices:
            size = len(bodies[i]) - _XMP_HEAD
            numbers = bodies[i][len(_XMP_MORE) + _DIGEST : _XMP_HEAD]
            shown[i] = _XMP_MORE + digests[digest] + numbers + cleaned[at : at + size]
            at += size
    for i, body in enumerate(bodies):
        if body.startswith(_XMP):
            cleaned, found = metadata.blanked(body[len(_XMP) :])
            notes |= found
            for old, new in digests.items():
                spend(copied=len(cleaned))
                cleaned = cleaned.replace(old, new)
            shown[i] = _XMP + cleaned
    return shown, notes


def _extensions(bodies: Sequence[bytes]) -> dict[bytes, list[int]]:
    """By digest, the segments of each extension in order."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    for i, body in enumerate(bodies):
        if body.startswith(_XMP_MORE) and len(body) > _XMP_HEAD:
            (place,) = struct.unpack_from(">I", body, _XMP_HEAD - 4)
            found.setdefault(body[len(_XMP_MORE) : len(_XMP_MORE) + _DIGEST], []).append((place, i))
    return {digest: [i for _, i in sorted(parts)] for digest, parts in found.items()}


def _behind(data: bytes, segments: list[_Segment]) -> str | None:
    """The note of segments between scans, and of data behind the end of the first picture."""
    if not segments or segments[-1].marker != 0xDA:
        return None
    at, between, trailing = segments[-1].end, False, False
    while found := _BEHIND.search(data, at):
        spend(entries=_SEGMENT_ENTRIES)
        at, marker = found.end(), found.group(1)[0]
        if marker == 0xD9:
            trailing = metadata.is_behind(data[at:])
            break
        between = between or 0xE0 <= marker <= 0xEF or marker == _COM
        at += int.from_bytes(data[at : at + 2], "big")
    return base.joined(
        "data behind the picture (preview, gain map or clip) left out" if trailing else None,
        "metadata between the picture's scans left out" if between else None,
    )
