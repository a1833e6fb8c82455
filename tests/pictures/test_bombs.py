"""Small files that are built to cost minutes or gigabytes are refused, or read, within a second."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from tests.pictures.makers import image

from unlikeness.diffusion import TextToImage
from unlikeness.pictures.formats.heif import read_container
from unlikeness.pictures.limits import Budget, Unusable, grant_pixels, spend
from unlikeness.pictures.worker import decode_file
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.methods.noise import Noise, NoiseSettings

SECONDS = 2.0
"""Seconds of computing for any file here: ten times what the slowest needs."""
TOO_MUCH = "more metadata than any camera writes"
CIRCLE = "lead in a circle"

Entry = tuple[int, int, int, int]


def opened(data: bytes, path: Path) -> str:
    """The reason why a file with these bytes is refused, or "" if it opens; within a bounded time."""
    path.write_bytes(data)
    began = time.process_time()
    try:
        decode_file(path, 210_000_000)
    except Unusable as reason:
        said = str(reason)
    else:
        said = ""
    assert time.process_time() - began < SECONDS
    return said


# TIFF and EXIF ----------------------------------------------------------------------------------------------

GREY = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
        (278, 4, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]  # fmt: skip
"""One grey pixel: the file's byte 8."""


MANY = [*GREY[:-2], (273, 1, 7_999_999, 16), (279, 1, 7_999_999, 16)]


def directory(entries: Sequence[Entry], following: int = 0) -> bytes:
    told = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<H", len(entries)) + told + struct.pack("<I", following)


def tiff(
    entries: Sequence[Entry], rest: bytes = b"", following: int = 0, grey: Sequence[Entry] = ()
) -> bytes:
    """A file whose directory is at 16, and `rest` behind it."""
    return b"II*\0\x10\0\0\0" + bytes(8) + directory([*(grey or GREY), *entries], following) + rest


def behind(count: int) -> int:
    """Where `rest` begins in a file of so many entries."""
    return 16 + 2 + 12 * (len(GREY) + count) + 4


def stripped(compression: int, strip: bytes, rows: int = 4_000) -> bytes:
    """A picture whose every row is a strip, all at the same place."""
    where = behind(0)
    told = {256: 1000, 257: rows, 258: 8, 259: compression, 262: 1, 277: 1, 278: 1}
    grey = [(tag, 4, 1, value) for tag, value in told.items()]
    grey += [(273, 4, rows, where), (279, 4, rows, where + 4 * rows)]
    starts = struct.pack("<I", where + 8 * rows) * rows
    return tiff([], starts + struct.pack("<I", len(strip)) * rows + strip, grey=grey)


RESOURCES = (b"8BIM\x04\x0c\0\0\0\0\0\0" + b"8BIM\x03\xed\0\0\0\0\0\0") * 80_000
TIFFS: dict[str, tuple[Callable[[], bytes], str]] = {
    "exif-to-itself": (lambda: tiff([(34665, 4, 1, 16)] * 150), CIRCLE),
    "gps-to-itself": (lambda: tiff([(34853, 4, 1, 16)] * 4_000), CIRCLE),
    "two-that-point-at-each-other": (
        lambda: tiff([(34665, 4, 1, behind(1))], directory([(34853, 4, 1, 16)] * 4_000)), CIRCLE,
    ),
    "exif-to-itself-below": (
        lambda: tiff([(34665, 4, 1, behind(1))], directory([(34853, 4, 1, behind(1))])), CIRCLE,
    ),
    "next-is-itself": (lambda: tiff([], following=16), ""),
    "subifds-to-itself": (lambda: tiff([(330, 4, 1, 16)] * 4_000), ""),
    "spanning-tags": (lambda: tiff([(65000 + i % 500, 7, 2 << 20, 8) for i in range(4_000)], bytes(2 << 20)),
                      TOO_MUCH),
    "many-numbers": (lambda: tiff([], bytes(8_000_000), grey=MANY), TOO_MUCH),
    "strips-plain": (lambda: stripped(1, bytes(100_000)), "overlap"),
    "strips-lzw": (lambda: stripped(5, bytes(100_000)), "overlap"),
    "strips-deflate": (lambda: stripped(8, zlib.compress(bytes(1000)) + bytes(100_000)), "overlap"),
    "strips-packbits": (lambda: stripped(32773, bytes(100_000)), "overlap"),
    "strips-fax": (lambda: stripped(4, bytes(100_000)), "overlap"),
    "photoshop": (lambda: tiff([(34377, 7, len(RESOURCES), behind(1))], RESOURCES), TOO_MUCH),
}  # fmt: skip


@pytest.mark.parametrize("name", TIFFS)
def test_tiff(name: str, tmp_path: Path) -> None:
    make, said = TIFFS[name]
    assert said in opened(make(), tmp_path / "a.tif")


def test_equal_tiles_may_be_stored_once(tmp_path: Path) -> None:
    assert opened(stripped(8, zlib.compress(bytes(1000)), rows=500), tmp_path / "a.tif") == ""


EXIFS = {
    "strips": [(0x0111, 3, 30_000, 8)] * 4_900,
    "spanning": [(0x9000 + i % 99, 7, 60_000, 8) for i in range(4_900)],
    "to-itself": [(0x8769, 4, 1, 8)] * 4_900,
}
"""Directories that reach far over their block."""


def exif_blocks(name: str) -> bytes:
    """A block, with a second directory like the first."""
    first = directory(EXIFS[name], 8 + len(directory(EXIFS[name])))
    return (b"Exif\0\0II*\0\x08\0\0\0" + first + first)[:65_000]


@pytest.mark.parametrize("name", EXIFS)
def test_exif(name: str, tmp_path: Path) -> None:
    """In every format that holds it, once and many times."""
    block = exif_blocks(name)
    plain = jpeg()
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    said = opened(plain[:2] + segment * 25 + plain[2:], tmp_path / "a.jpg")
    assert said in ("", f"it holds {TOO_MUCH}; export it again without metadata")
    opened(png((b"eXIf", block[6:] + bytes(8_000_000))), tmp_path / "a.png")
    opened(png(*[(b"eXIf", block[6:])] * 50), tmp_path / "b.png")
    opened(webp(block[6:] + bytes(8_000_000)), tmp_path / "a.webp")


def jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    image("RGB").save(file, "JPEG", **options)
    return file.getvalue()


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A picture with these chunks in front of its pixels."""
    file = io.BytesIO()
    image("RGB").save(file, "PNG")
    data = file.getvalue()
    told = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return data[:33] + told + data[33:]


def webp(exif: bytes) -> bytes:
    file = io.BytesIO()
    image("RGB").save(file, "WEBP", lossless=True, exif=exif)
    return file.getvalue()


# Large files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [("jpeg", "too many for 34 × 21 pixels"), ("png", "too many for 34 × 21 pixels"),
     ("webp", "no picture of that size"), ("none", "no picture of that size")],
)  # fmt: skip
def test_a_gigabyte_for_a_small_picture_is_not_read(name: str, said: str, tmp_path: Path) -> None:
    """The files are sparse."""
    path = tmp_path / "a"
    path.write_bytes({"jpeg": jpeg(), "png": png(), "webp": webp(b"x"), "none": b"x"}[name])
    with path.open("r+b") as file:
        file.truncate(3 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unusable, match=said):
        decode_file(path, 210_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_terabyte_is_not_even_digested(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg())
    image("RGB").save(folder / "b.png")
    with (folder / "a.jpg").open("r+b") as file:
        file.truncate(1 << 40)
    model = cast(TextToImage, SimpleNamespace(resolution=64, autoencoder=None, name=""))
    perturber = Noise(model, NoiseSettings(budget=8))
    began = time.monotonic()
    outcome = protect_folder([folder], tmp_path / "out", perturber, method="noise")
    assert time.monotonic() - began < 60
    assert [entry.path for entry in outcome.protected] == ["b.png"]
    assert "too many for max_pixels" in str(outcome.skipped[0].reason)


# The budget -------------------------------------------------------------------------------------------------


def test_budget() -> None:
    spend(entries=10**9, copied=10**12)  # no budget is active: files of our own
    granted: list[int] = []
    with Budget(100, granted.append).active():
        spend(entries=1000, copied=1000)
        grant_pixels(7)
        with pytest.raises(Unusable, match=TOO_MUCH):
            spend(copied=100 << 20)
    with Budget(0).active(), pytest.raises(Unusable, match=TOO_MUCH):
        spend(entries=10**6)
    assert granted == [7]


# JPEG -------------------------------------------------------------------------------------------------------


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_behind_start(inserted: bytes) -> bytes:
    plain = jpeg()
    return plain[:2] + inserted + plain[2:]


def with_in_scan(inserted: bytes) -> bytes:
    plain = jpeg()
    return plain[:-2] + inserted + plain[-2:]


def with_scans(count: int, side: int) -> bytes:
    """A progressive picture of grey whose scans are empty."""
    tables = segment(0xDB, b"\0" + b"\x01" * 64) + segment(0xC4, b"\0" + bytes([1]) + bytes(15) + b"\0")
    tables += segment(0xC4, b"\x10" + bytes([1]) + bytes(15) + b"\0")
    frame = segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0))
    first = segment(0xDA, b"\x01\x01\0\0\0\0") + bytes(side * side // 512)
    return b"\xff\xd8" + tables + frame + first + segment(0xDA, b"\x01\x01\0\x01\x3f\0") * count + b"\xff\xd9"


JPEGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "comments": (lambda: with_behind_start(segment(0xFE, b"") * 200_000), TOO_MUCH),
    "exif": (lambda: with_behind_start(segment(0xE1, b"Exif\0\0") * 100_000), TOO_MUCH),
    "large-exif": (lambda: with_behind_start(segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 100), TOO_MUCH),
    "adobe": (lambda: with_behind_start(segment(0xEE, b"Adobe") * 100_000), TOO_MUCH),
    "xmp": (lambda: with_behind_start(
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") * 60_000), TOO_MUCH),
    "photoshop": (lambda: with_behind_start(
        segment(0xED, b"Photoshop 3.0\0" + RESOURCES[:65_000]) * 40), TOO_MUCH),
    "fill-bytes": (lambda: with_behind_start(b"\xff" * 4_000_000), TOO_MUCH),
    "zeros": (lambda: with_behind_start(segment(0xFE, b"") + bytes(4_000_000)), TOO_MUCH),
    "restarts": (lambda: with_behind_start(b"\xff\xd0" * 2_000_000), TOO_MUCH),
    "fill-bytes-then-none": (lambda: with_in_scan(b"\xff" * 2_000_000 + b"\0"), ""),
    "restarts-in-scan": (lambda: with_in_scan(b"\xff\xd0" * 2_000_000), "damaged"),
    "stuffed": (lambda: with_in_scan(b"\xff\0" * 2_000_000), ""),
    "behind": (lambda: jpeg() + b"\xff" * 8_000_000, ""),
    "segments-behind": (lambda: jpeg() + segment(0xFE, b"") * 1_000_000, ""),
    "scans": (lambda: with_scans(5_000, 512), "more scans than any program writes"),
    "too-small": (lambda: with_scans(1, 512).replace(bytes(512), b""), "too little data"),
}  # fmt: skip


@pytest.mark.parametrize("name", JPEGS)
def test_jpeg(name: str, tmp_path: Path) -> None:
    make, said = JPEGS[name]
    assert said in opened(make(), tmp_path / "a.jpg")


# PNG and WebP -----------------------------------------------------------------------------------------------


def zeros(count: int) -> bytes:
    """So many zero bytes, deflated."""
    packer = zlib.compressobj(1)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(count >> 20)), packer.flush()])


def profile(name: bytes, content: bytes) -> bytes:
    """A raw profile's zTXt body."""
    text = b"\n%s\n%8d\n%s\n" % (name, len(content), content.hex().encode())
    return b"Raw profile type " + name + b"\0\0" + zlib.compress(text)


def split(count: int) -> bytes:
    """A picture whose pixels are in many chunks, most of them empty."""
    plain = png()
    return plain[:33] + png(*[(b"IDAT", b"")] * count)[33 : -(len(plain) - 33)] + plain[33:]


XMP_HEAD = b"XML:com.adobe.xmp\0\0\0\0\0" + (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:GCamera="http://ns.google.com/photos/1.0/camera/">'
)

PNGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "profile-8bim": (lambda: png((b"zTXt", profile(b"8bim", RESOURCES))), TOO_MUCH),
    "profiles": (lambda: png(*[(b"zTXt", profile(b"exif", b"Exif\0\0" + bytes(4_000_000)))] * 40), TOO_MUCH),
    "profiles-iptc": (lambda: png(*[(b"zTXt", profile(b"iptc", bytes(4_000_000)))] * 40), TOO_MUCH),
    "text": (lambda: png((b"zTXt", b"Comment\0\0" + zeros(1 << 25))), ""),
    "raw-profile-text": (lambda: png((b"zTXt", b"Raw profile type exif\0\0" + zeros(1 << 25))), ""),
    "xmp": (lambda: png(*[(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(8 << 20))] * 30), TOO_MUCH),
    "xmp-deep": (lambda: png((b"iTXt", XMP_HEAD + b"<a>" * 1_000_000)), "nested deeper"),
    "xmp-many": (lambda: png((b"iTXt", XMP_HEAD + b'<a GCamera:MotionPhoto="1"/>' * 150_000)), TOO_MUCH),
    "icc": (lambda: png((b"iCCP", b"icc\0\0" + zeros(1 << 25))), ""),
    "chunks": (lambda: png(*[(b"tEXt", b"a\0b")] * 101_000), TOO_MUCH),
    "exif-prefixes": (lambda: png((b"eXIf", b"Exif\0\0" * 200_000)), TOO_MUCH),
    "empty-pixels": (lambda: split(101_000), TOO_MUCH),
    "too-small": (lambda: png()[:16] + struct.pack(">II", 14_000, 14_000) + png()[24:29]
                  + struct.pack(">I", zlib.crc32(b"IHDR" + struct.pack(">II", 14_000, 14_000) + png()[24:29]))
                  + png()[33:], "too little data"),
}  # fmt: skip


@pytest.mark.parametrize("name", PNGS)
def test_png(name: str, tmp_path: Path) -> None:
    make, said = PNGS[name]
    assert said in opened(make(), tmp_path / "a.png")


def test_webp_chunks(tmp_path: Path) -> None:
    data = webp(b"II*\0\x08\0\0\0\0\0\0\0\0\0") + b"unkn\0\0\0\0" * 150_000
    data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert TOO_MUCH in opened(data, tmp_path / "a.webp")


# HEIC and AVIF ----------------------------------------------------------------------------------------------


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def with_meta(brand: str, *inside: bytes) -> bytes:
    """A file with these boxes, and no picture."""
    kind = brand.encode()
    return box(b"ftyp", kind + bytes(4) + kind) + box(b"meta", bytes(4) + b"".join(inside))


def nested(depth: int) -> bytes:
    return b"".join(struct.pack(">I4s", 8 * (depth - i), b"meta") for i in range(depth))


HEIFS: dict[str, Callable[[], Sequence[bytes]]] = {
    "nested": lambda: [nested(50_000)],
    "boxes": lambda: [box(b"free", b"")] * 300_000,
    "extents": lambda: [box(b"iloc", bytes(4) + b"\x44\0" + struct.pack(">H", 60_000)
                            + struct.pack(">HHH", 1, 0, 60_000) * 60_000)],
    "empty-extents": lambda: [box(b"iloc", bytes(4) + b"\0\0" + struct.pack(">H", 60_000)
                                  + struct.pack(">HHH", 1, 0, 60_000) * 60_000)],
    "references": lambda: [box(b"iref", bytes(4) + box(b"dimg", struct.pack(">HH", 1, 65_535)) * 4_000
                               + bytes(140_000))],
    "properties": lambda: [box(b"iprp", box(b"ipco", box(b"free", b"") * 200_000)
                               + box(b"ipma", bytes(4) + struct.pack(">I", 60_000)
                                     + (b"\0\1\xff" + b"\x01" * 255) * 60_000))],
    "items": lambda: [box(b"iinf", bytes(4) + struct.pack(">H", 60_000)
                          + box(b"infe", b"\2\0\0\0\0\1\0\0av01\0") * 60_000)],
}  # fmt: skip


@pytest.mark.parametrize("brand", ["avif", "heic"])
@pytest.mark.parametrize("name", HEIFS)
def test_heif(name: str, brand: str, tmp_path: Path) -> None:
    """The libraries refuse most of it; what is read here has bounds of its own."""
    data = with_meta(brand, *HEIFS[name]())
    assert opened(data, tmp_path / "a")
    began = time.process_time()
    with Budget(len(data)).active(), contextlib.suppress(Unusable):
        read_container(data)
    assert time.process_time() - began < SECONDS
