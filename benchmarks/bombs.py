"""Small picture files that are built to cost a reader minutes or gigabytes.

`BOMBS` maps a name to a function that makes the file's bytes, a few megabytes at most. A reader must open or
refuse each one within 20 seconds, with at most 256 MiB of memory beyond the picture's own pixels.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
from PIL import Image

from unlikeness.pictures.limits import MAX_PIXELS

__all__ = ["BOMBS", "pixels_of"]

Entry = tuple[int, int, int, bytes]
"""A TIFF directory entry: tag, type, count, and the four bytes of its value or offset."""

_LAYOUT_1X1 = ((256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))


def _noise(side: int = 64) -> Image.Image:
    array = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(array)


def _jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    _noise().save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _png() -> bytes:
    buffer = io.BytesIO()
    _noise().save(buffer, "PNG")
    return buffer.getvalue()


def _long(value: int) -> bytes:
    return struct.pack("<I", value)


def _entry(tag: int, kind: int, count: int, value: int | bytes) -> Entry:
    return tag, kind, count, _long(value) if isinstance(value, int) else value


def _directory(entries: Sequence[Entry], following: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return struct.pack("<H", len(entries)) + body + _long(following)


def _tiff(entries: Sequence[Entry], rest: bytes = b"", following: int = 0) -> bytes:
    return b"II*\0\x08\0\0\0" + _directory(entries, following) + rest


def _layout(**changed: int) -> list[Entry]:
    """The entries of a picture of one grey pixel; names like `t256` change a tag's value."""
    entries = {tag: _entry(tag, kind, count, value) for tag, kind, count, value in _LAYOUT_1X1}
    for name, value in changed.items():
        entries[int(name[1:])] = _entry(int(name[1:]), 4, 1, value)
    return [entries[tag] for tag in sorted(entries)]


# TIFF -------------------------------------------------------------------------------------------------------


def tiff_self_next() -> bytes:
    return _tiff(_layout(), following=8)


def tiff_chain(count: int = 60_000) -> bytes:
    data = bytearray(b"II*\0\x08\0\0\0")
    for _ in range(count):
        here = len(data)
        data += _directory([_entry(256, 3, 1, 1)], following=here + 18)
    return bytes(data) + _directory(_layout())


def tiff_self_pointers(tag: int, count: int) -> bytes:
    """A directory whose every pointer of one tag leads back to itself."""
    return _tiff([*_layout(), *[_entry(tag, 4, 1, 8)] * count])


def tiff_pointer_list(count: int = 50_000) -> bytes:
    """One SubIFDs tag with many pointers to the first directory."""
    entries = [*_layout(), _entry(330, 4, count, 0)]
    at = 8 + len(_directory(entries))
    entries[-1] = _entry(330, 4, count, at)
    return _tiff(entries, _long(8) * count)


def tiff_ping_pong() -> bytes:
    first = [*_layout(), *[_entry(34665, 4, 1, 8)] * 60]
    size = len(_directory(first))
    first = [*_layout(), *[_entry(34665, 4, 1, 8 + size)] * 60]
    return _tiff(first, _directory([_entry(34665, 4, 1, 8)] * 60))


def tiff_spanning_tags(count: int = 4_000, size: int = 2_000_000) -> bytes:
    """Thousands of private tags that each hold nearly the whole file."""
    return _tiff([*_layout(), *[_entry(50_000 + i % 10_000, 7, size, 8) for i in range(count)]], bytes(size))


def _stripped(compression: int, strip: bytes, count: int, rows: int = 1, width: int = 4_000) -> bytes:
    """`count` strips that are all the same bytes of the file."""
    entries = [
        _entry(256, 4, 1, width), _entry(257, 4, 1, rows * count), _entry(258, 3, 1, 8),
        _entry(259, 3, 1, compression), _entry(262, 3, 1, 1), _entry(273, 4, count, 0), _entry(277, 3, 1, 1),
        _entry(278, 4, 1, rows), _entry(279, 4, count, 0),
    ]  # fmt: skip
    at = 8 + len(_directory(entries))
    entries[5] = _entry(273, 4, count, at)
    entries[8] = _entry(279, 4, count, at + 4 * count)
    place = at + 8 * count
    return _tiff(entries, _long(place) * count + _long(len(strip)) * count + strip)


def tiff_overlapping(compression: int) -> bytes:
    if compression == 1:
        return _stripped(1, bytes(3_000_000), 4_000)
    if compression == 32773:
        return _stripped(compression, b"\x81\0" * 1_000_000, 4_000)
    if compression == 5:  # LZW: a clear code, then a long run
        buffer = io.BytesIO()
        Image.new("L", (4_000, 4_000)).save(buffer, "TIFF", compression="tiff_lzw")
        return _stripped(5, buffer.getvalue()[8:], 4_000)
    return _stripped(8, zlib.compress(bytes(20_000_000), 9), 4_000)


def tiff_inflating(compression: int) -> bytes:
    """A strip of a small picture that unpacks to gigabytes."""
    if compression == 34925:
        packer = lzma.LZMACompressor(preset=1)
        strip = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
    else:
        strip = _zeros(1 << 30)
    return _stripped(compression, strip, 1, 64, 64)


def tiff_many_strips() -> bytes:
    """Counts of two billion strips in a small file."""
    entries = _layout()
    entries += [_entry(273, 4, 0x7FFFFFFF, 8), _entry(278, 4, 1, 1), _entry(279, 4, 0x7FFFFFFF, 8)]
    return _tiff(entries)


def tiff_many_samples() -> bytes:
    entries = _layout(t273=8)
    return _tiff([*entries, _entry(277, 3, 1, 65_535), _entry(279, 4, 1, 65_535)], bytes(65_535))


def tiff_big_counts() -> bytes:
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 60) + bytes(4_096)


def tiff_resources(count: int = 150_000) -> bytes:
    block = _resources(count)
    entries = [*_layout(t273=8, t279=1), _entry(34377, 7, len(block), 0)]
    at = 8 + len(_directory(entries))
    entries[-1] = _entry(34377, 7, len(block), at)
    return _tiff(entries, block)


def tiff_wide_bilevel() -> bytes:
    """A hundred and ninety megapixels in a few kilobytes: it may take what its pixels take."""
    buffer = io.BytesIO()
    Image.new("1", (14_000, 13_600)).save(buffer, "TIFF", compression="group4")
    return buffer.getvalue()


# JPEG -------------------------------------------------------------------------------------------------------


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(body)) + body


def _after_start(inserted: bytes) -> bytes:
    data = _jpeg()
    return data[:2] + inserted + data[2:]


def jpeg_segments(marker: int, body: bytes, count: int) -> bytes:
    return _after_start(_segment(marker, body) * count)


def jpeg_padding(byte: bytes, megabytes: int = 8) -> bytes:
    return _after_start(byte * ((megabytes << 20) // len(byte)))


def jpeg_trailing(chunk: bytes, megabytes: int = 8) -> bytes:
    return _jpeg() + chunk * ((megabytes << 20) // len(chunk))


def jpeg_inside_scan(chunk: bytes, megabytes: int = 8) -> bytes:
    data = _jpeg()
    return data[:-2] + chunk * ((megabytes << 20) // len(chunk)) + data[-2:]


def jpeg_scans(count: int = 4_000, side: int = 6_000) -> bytes:
    """A progressive picture of 36 megapixels with thousands of empty scans."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * count + b"\xff\xd9"


def jpeg_size(width: int, height: int) -> bytes:
    data = bytearray(_jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_resources() -> bytes:
    block = _resources(300_000)
    step = 65_000
    parts = [block[at : at + step] for at in range(0, len(block), step)]
    return _after_start(b"".join(_segment(0xED, b"Photoshop 3.0\0" + part) for part in parts))


def _exif(tiff: bytes) -> bytes:
    return _segment(0xE1, b"Exif\0\0" + tiff[:65_000])


def jpeg_exif_spanning() -> bytes:
    entries = [_entry(50_000, 7, 60_000, 8)] * 5_000
    return _after_start(_exif(_tiff(entries)) * 40)


def jpeg_exif_pointers(tag: int) -> bytes:
    return _after_start(_exif(_tiff([_entry(tag, 4, 1, 8)] * 5_000)) * 20)


def jpeg_mpf() -> bytes:
    entries = _tiff([_entry(0xB001, 4, 1, 4_000), _entry(0xB002, 7, 64_000, 38)], bytes(64_000))
    return _after_start(_segment(0xE2, b"MPF\0" + entries[:65_000]) * 30)


def jpeg_extended_xmp() -> bytes:
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32
    parts = (head + struct.pack(">II", 0xFFFFFFFF, i) + b"x" * 60 for i in range(60_000))
    return _after_start(b"".join(_segment(0xE1, part) for part in parts))


def jpeg_icc_parts() -> bytes:
    parts = (b"ICC_PROFILE\0" + bytes((1 + i % 255, 255)) + bytes(2_000) for i in range(2_000))
    return _after_start(b"".join(_segment(0xE2, part) for part in parts))


# PNG --------------------------------------------------------------------------------------------------------


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@cache
def _zeros(count: int) -> bytes:
    """`count` zero bytes, deflated; made in pieces."""
    packer = zlib.compressobj(9)
    piece = bytes(1 << 24)
    parts = [packer.compress(piece) for _ in range(count >> 24)]
    return b"".join(parts) + packer.flush()


def _png_with(*chunks: bytes) -> bytes:
    data = _png()
    return data[:33] + b"".join(chunks) + data[33:]


def png_text(kind: bytes, inflated: int, count: int = 1) -> bytes:
    packed = _zeros(inflated)
    heads = {
        b"zTXt": b"Comment\0\0",
        b"iTXt": b"Comment\0\x01\0\0\0",
        b"iCCP": b"profile\0\0",
    }
    return _png_with(*[_chunk(kind, heads[kind] + packed)] * count)


def png_raw_profile(name: bytes, payload: bytes, count: int = 1) -> bytes:
    text = b"\n" + name + b"\n%8d\n" % len(payload) + payload.hex().encode() + b"\n"
    body = b"Raw profile type " + name + b"\0\0" + zlib.compress(text, 9)
    return _png_with(*[_chunk(b"zTXt", body)] * count)


def png_chunks(kind: bytes, body: bytes, count: int) -> bytes:
    return _png_with(_chunk(kind, body) * count)


def _png_of(width: int, height: int, idat: Sequence[bytes], *, interlaced: bool = False) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, int(interlaced))
    chunks = [_chunk(b"IHDR", head), *(_chunk(b"IDAT", part) for part in idat), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_long_idat() -> bytes:
    return _png_of(1, 1, [_zeros(1 << 30)])


def png_split_idat() -> bytes:
    packed = zlib.compress(np.random.default_rng(0).bytes(300 * (1 + 3 * 300)), 0)
    return _png_of(300, 300, [packed[i : i + 1] for i in range(len(packed))])


# WebP -------------------------------------------------------------------------------------------------------


def _webp() -> bytes:
    buffer = io.BytesIO()
    _noise().save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + _long(len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + _long(4 + len(body)) + b"WEBP" + body


def webp_extended(flags: int, *chunks: tuple[bytes, bytes], side: int = 64, image: bool = True) -> bytes:
    canvas = (side - 1).to_bytes(3, "little")
    head = (b"VP8X", bytes((flags, 0, 0, 0)) + canvas * 2)
    picture = _webp()[12:]
    size = int.from_bytes(picture[4:8], "little")
    own = [(picture[:4], picture[8 : 8 + size])] if image else []
    return _riff(head, *own, *chunks)


# BMP --------------------------------------------------------------------------------------------------------


def bmp_header(width: int, height: int, bits: int, compression: int, offset: int, rest: bytes = b"") -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 14 + 40 + len(rest), 0, 0, offset) + info + rest


# HEIC and AVIF ----------------------------------------------------------------------------------------------


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def _ftyp(brand: bytes) -> bytes:
    return _box(b"ftyp", brand + bytes(4) + brand + b"mif1")


def boxes_nested(brand: bytes, depth: int = 50_000) -> bytes:
    """Boxes within boxes: the sizes are counted down from the whole."""
    headers = b"".join(struct.pack(">I", 8 * (depth - i)) + b"meta" for i in range(depth))
    return _ftyp(brand) + headers


def boxes_many(brand: bytes, count: int = 300_000) -> bytes:
    return _ftyp(brand) + _box(b"free", b"") * count


def meta_boxes(brand: bytes, *boxes: bytes) -> bytes:
    handler = _box(b"hdlr", bytes(8) + b"pict" + bytes(13))
    return _ftyp(brand) + _box(b"meta", bytes(4) + handler + b"".join(boxes)) + _box(b"mdat", bytes(64))


def iloc(items: int, extents: int) -> bytes:
    extent = struct.pack(">II", 0, 0x7FFFFFFF)
    item = b"".join(
        struct.pack(">HHH", 1 + i, 0, extents) + extent * extents for i in range(items)
    )
    return _box(b"iloc", bytes(4) + b"\x44\x00" + struct.pack(">H", items) + item)


def _infe(number: int, kind: bytes) -> bytes:
    return _box(b"infe", b"\x02\0\0\0" + struct.pack(">HH", number, 0) + kind + b"\0")


def grid_of_itself(brand: bytes) -> bytes:
    """A grid whose 65,536 tiles are all the grid itself."""
    items = _box(b"iinf", bytes(4) + struct.pack(">H", 1) + _infe(1, b"grid"))
    count = 60_000
    dimg = _box(b"dimg", struct.pack(">HH", 1, count) + struct.pack(">H", 1) * count)
    size = _box(b"ispe", bytes(4) + struct.pack(">II", 10_000, 10_000))
    links = _box(b"ipma", bytes(4) + struct.pack(">IHBB", 1, 1, 1, 1))
    properties = _box(b"iprp", _box(b"ipco", size) + links)
    place = _box(b"iloc", bytes(4) + b"\x44\0" + struct.pack(">HHHHII", 1, 1, 0, 1, 8, 8))
    references = _box(b"iref", bytes(4) + dimg)
    main = _box(b"pitm", bytes(4) + struct.pack(">H", 1))
    return meta_boxes(brand, main, items, references, properties, place)


def meta_properties(brand: bytes, count: int = 200_000) -> bytes:
    return meta_boxes(brand, _box(b"iprp", _box(b"ipco", _box(b"free", b"") * count)))


def many_brands(brand: bytes) -> bytes:
    return _box(b"ftyp", brand + bytes(4) + brand * 1_000_000)


# Photoshop's resources --------------------------------------------------------------------------------------


def _resources(count: int) -> bytes:
    """Photoshop image resources without contents, thumbnails (1036) among them."""
    return (b"8BIM\x04\x0c\0\0\0\0\0\0" + b"8BIM\x04\x04\0\0\0\0\0\0") * (count // 2)


_SELF = _tiff([_entry(34665, 4, 1, 8), *[_entry(34853, 4, 1, 8)] * 150])

BOMBS: dict[str, Callable[[], bytes]] = {
    "tiff: a directory that is its own next": tiff_self_next,
    "tiff: 60,000 directories": tiff_chain,
    "tiff: 150 SubIFDs to itself": partial(tiff_self_pointers, 330, 150),
    "tiff: 4,000 EXIF pointers to itself": partial(tiff_self_pointers, 34665, 4_000),
    "tiff: 4,000 GPS pointers to itself": partial(tiff_self_pointers, 34853, 4_000),
    "tiff: 50,000 pointers in one tag": tiff_pointer_list,
    "tiff: two directories that point at each other": tiff_ping_pong,
    "tiff: 4,000 tags of 2 MB each": tiff_spanning_tags,
    "tiff: overlapping strips, uncompressed": partial(tiff_overlapping, 1),
    "tiff: overlapping strips, PackBits": partial(tiff_overlapping, 32773),
    "tiff: overlapping strips, LZW": partial(tiff_overlapping, 5),
    "tiff: overlapping strips, Deflate": partial(tiff_overlapping, 8),
    "tiff: a Deflate strip of 1 GiB": partial(tiff_inflating, 8),
    "tiff: an LZMA strip of 1 GiB": partial(tiff_inflating, 34925),
    "tiff: two billion strips": tiff_many_strips,
    "tiff: 65,535 samples a pixel": tiff_many_samples,
    "tiff: 2^60 entries": tiff_big_counts,
    "tiff: 150,000 Photoshop resources": tiff_resources,
    "tiff: 190 megapixels in a kilobyte": tiff_wide_bilevel,
    "jpeg: 400,000 comments": partial(jpeg_segments, 0xFE, b"", 400_000),
    "jpeg: 200,000 EXIF segments": partial(jpeg_segments, 0xE1, b"Exif\0\0", 200_000),
    "jpeg: 60,000 quantisation tables": partial(jpeg_segments, 0xDB, b"\0" + b"\x01" * 64, 60_000),
    "jpeg: 8 MB of 0xFF between segments": partial(jpeg_padding, b"\xff"),
    "jpeg: 8 MB of zeros between segments": partial(jpeg_padding, b"\0"),
    "jpeg: 8 MB of restart markers between segments": partial(jpeg_padding, b"\xff\xd0"),
    "jpeg: 8 MB of restart markers in the scan": partial(jpeg_inside_scan, b"\xff\xd0"),
    "jpeg: 8 MB of stuffed bytes in the scan": partial(jpeg_inside_scan, b"\xff\0"),
    "jpeg: 8 MB of 0xFF behind the picture": partial(jpeg_trailing, b"\xff"),
    "jpeg: 8 MB of segments behind the picture": partial(jpeg_trailing, b"\xff\xfe\0\x02"),
    "jpeg: 4,000 scans of 36 megapixels": jpeg_scans,
    "jpeg: 4 gigapixels in a kilobyte": partial(jpeg_size, 65_500, 65_500),
    "jpeg: 190 megapixels in a kilobyte": partial(jpeg_size, 14_000, 13_600),
    "jpeg: 300,000 Photoshop resources": jpeg_resources,
    "jpeg: 200,000 EXIF entries of 60 kB": jpeg_exif_spanning,
    "jpeg: 100,000 EXIF pointers to themselves": partial(jpeg_exif_pointers, 34665),
    "jpeg: 100,000 maker notes that overlap": partial(jpeg_exif_pointers, 37500),
    "jpeg: 30 indices of 4,000 pictures": jpeg_mpf,
    "jpeg: 60,000 parts of XMP": jpeg_extended_xmp,
    "jpeg: 2,000 parts of an ICC profile": jpeg_icc_parts,
    "png: an ICC profile of 1 GiB": partial(png_text, b"iCCP", 1 << 30),
    "png: a text of 1 GiB": partial(png_text, b"zTXt", 1 << 30),
    "png: 400 texts of 32 MiB": partial(png_text, b"iTXt", 32 << 20, 400),
    "png: 40 raw profiles of 8 MB": partial(png_raw_profile, b"exif", b"Exif\0\0" + bytes(8_000_000), 40),
    "png: a raw profile with 400,000 resources": partial(png_raw_profile, b"8bim", _resources(400_000)),
    "png: a raw profile that points at itself": partial(png_raw_profile, b"exif", b"Exif\0\0" + _SELF),
    "png: 300,000 chunks": partial(png_chunks, b"tEXt", b"a\0b", 300_000),
    "png: 100,000 animation frames": partial(png_chunks, b"fcTL", bytes(26), 100_000),
    "png: EXIF that points at itself": partial(png_chunks, b"eXIf", _SELF, 1),
    "png: 1 GiB of pixels for one": png_long_idat,
    "png: pixels in 270,000 chunks": png_split_idat,
    "png: 2 billion pixels in a row": partial(_png_of, 0x7FFFFFFF, 1, [zlib.compress(b"")]),
    "png: 190 interlaced megapixels of zeros": partial(
        _png_of, 14_000, 13_600, [_zeros(1 << 29)], interlaced=True
    ),
    "webp: 300,000 chunks": partial(webp_extended, 0, *[(b"unkn", b"")] * 300_000),
    "webp: EXIF that points at itself": partial(webp_extended, 8, (b"EXIF", _SELF)),
    "webp: a canvas of 268 megapixels": partial(webp_extended, 0, side=16_384),
    "webp: 100,000 frames": partial(
        webp_extended, 2, (b"ANIM", bytes(6)), *[(b"ANMF", bytes(16))] * 100_000, image=False
    ),
    "bmp: 2 billion rows": partial(bmp_header, 1, -0x7FFFFFFF, 32, 0, 54, bytes(64)),
    "bmp: 190 run-length megapixels": partial(
        bmp_header, 14_000, 13_600, 8, 1, 54 + 1024, bytes(1024) + b"\0\x01"
    ),
    "bmp: pixels behind the file": partial(bmp_header, 64, 64, 24, 0, 0xFFFFFFF0, bytes(64)),
    "heic: boxes 50,000 deep": partial(boxes_nested, b"heic"),
    "heic: 300,000 boxes": partial(boxes_many, b"heic"),
    "heic: 2,000 × 200 extents of 2 GiB": lambda: meta_boxes(b"heic", iloc(2_000, 200)),
    "heic: a grid of itself": partial(grid_of_itself, b"heic"),
    "heic: 200,000 properties": partial(meta_properties, b"heic"),
    "avif: boxes 50,000 deep": partial(boxes_nested, b"avif"),
    "avif: 300,000 boxes": partial(boxes_many, b"avif"),
    "avif: 2,000 × 200 extents of 2 GiB": lambda: meta_boxes(b"avif", iloc(2_000, 200)),
    "avif: a grid of itself": partial(grid_of_itself, b"avif"),
    "avif: a million brands": partial(many_brands, b"avif"),
}
"""At least one of every kind, by format and by what it asks too much of."""


def pixels_of(name: str) -> int:
    """The pixels that a bomb may decode, as its name says: those of a real picture, if it has that many."""
    found = re.search(r"(\d+) [a-z -]*megapixels", name)
    pixels = int(found[1]) * 1_000_000 if found else 0
    return pixels if pixels <= MAX_PIXELS else 0
