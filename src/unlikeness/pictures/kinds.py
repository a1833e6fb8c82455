"""Kinds of picture files by their names and first bytes, with those that cannot be protected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "HEAD", "SUFFIXES", "SUPPORTED", "UNSUPPORTED", "VIDEO", "announced", "format_of", "reason", "summary",
]  # fmt: skip

HEAD = 64
"""Bytes at the beginning of a file that show its kind."""

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".png", ".apng", ".webp", ".tif",
    ".tiff", ".bmp", ".dib", ".heic", ".heif", ".hif", ".heics", ".heifs", ".avif", ".avifs",
})  # fmt: skip
"""Names that are taken for pictures in a folder, in any case."""

SUPPORTED = frozenset({"JPEG", "PNG", "WEBP", "HEIC", "AVIF"})
"""What `announced` calls kinds that can be protected."""

RAW, VIDEO = "RAW", "video"
_RAW = (
    "3fr ari arw bay cr2 cr3 crw cs1 dcr dcs dng erf fff gpr iiq k25 kdc mef mos mrw nef nrw ori orf pef "
    "ptx pxn raf raw rw2 rwl rwz sr2 srf srw x3f"
)
_NAMED = (
    "ai bpg clip cur dds dpx eps exr flif gif hdr icns ico insp j2c j2k jls jng jp2 jpc jpf jps jpx jxl "
    "jxr kra livp mng mpo ora pbm pcx pdn pfm pgm pict pnm pns ppm procreate psb psd qoi ras rgbe sai sai2 "
    "sgi svg svgz tga wdp wmf xbm xcf xpm"
)
_VIDEO = "mov mp4 m4v avi 3gp mkv webm mpg mpeg wmv m2ts insv lrv"
UNSUPPORTED = (
    {f".{name}": RAW for name in _RAW.split()}
    | {f".{name}": name.upper() for name in _NAMED.split()}
    | {f".{name}": VIDEO for name in _VIDEO.split()}
)
"""Suffixes of pictures that cannot be protected, and of videos, and what they are called."""

_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"8BPS\0\1": "PSD", b"8BPS\0\2": "PSB",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JXL", b"\0\0\0\x0cjP  \r\n\x87\n": "JP2", b"\xffO\xffQ": "J2K",
    b"FUJIFILMCCD-RAW": RAW, b"II*\0\x10\0\0\0CR": RAW, b"IIRO": RAW, b"IIRS": RAW, b"MMOR": RAW,
    b"IIU\0": RAW, b"FOVb": RAW, b"\0MRM": RAW, b"v/1\x01": "EXR", b"#?RADIANCE": "HDR", b"gimp xcf ": "XCF",
    b"II\xbc\x01": "JXR", b"qoif": "QOI", b"BPG\xfb": "BPG", b"\x8aMNG\r\n\x1a\n": "MNG",
}  # fmt: skip
_JPEG_MARKERS = frozenset({*range(0xE0, 0xF0), 0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xFE})
"""What may follow the start of a JPEG: a segment of an application, tables, a frame, a comment."""
_BRANDS = {
    b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC",
    b"heim": "HEIC", b"heis": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"crx ": RAW,
}  # fmt: skip
_COMPATIBLE = {
    "AVIF": {b"avif", b"avis"},
    "HEIC": {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"},
}
"""Brands by which a file says what it can be read as."""


def announced(head: bytes) -> str | None:
    """The kind that a file's first `HEAD` bytes announce beyond doubt, one of `SUPPORTED` or another.

    None for what is no picture, and for TIFF and BMP, whose few first bytes other files share.
    """
    if head[:3] == b"\xff\xd8\xff" and head[3:4] and head[3] in _JPEG_MARKERS:
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    return next((kind for beginning, kind in _BEGINNINGS.items() if head.startswith(beginning)), None)


def format_of(head: bytes) -> str | None:
    """The format that a file's first bytes (4096, or all) announce, whatever its name: one that can be
    opened, "GIF", or None.
    """
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:2] == b"BM":
        return "BMP"
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12]} | {head[i : i + 4] for i in range(16, length, 4)}
        return next((name for name, known in _COMPATIBLE.items() if brands & known), None)
    kind = announced(head)
    return kind if kind in ("PNG", "WEBP", "GIF") else None


def reason(path: Path, kind: str) -> str:
    """Why a file of this kind is skipped, and the remedy."""
    named = f"{RAW} files ({_suffix(path) or 'by its content'})" if kind == RAW else f"{kind} files"
    return f"{path}: {named} cannot be protected; export it as JPEG, PNG or TIFF first"


def summary(found: Iterable[tuple[Path, str]], what: str = "protected") -> str | None:
    """One line on files (file, kind) that cannot be `what`: their numbers and the remedy; None for none."""
    files = list(found)
    counts = Counter(kind for _, kind in files)
    videos = counts.pop(VIDEO, 0)
    total = sum(counts.values())
    lines = []
    if total:
        # RAW comes first, then the most frequent.
        ordered = sorted(counts.items(), key=lambda item: (item[0] != RAW, -item[1], item[0]))
        suffixes = sorted({_suffix(path) for path, kind in files if kind == RAW} - {""})
        names = {RAW: f"{RAW} ({', '.join(suffixes)})" if suffixes else RAW}
        each = ", ".join(f"{count} {names.get(kind, kind)}" for kind, count in ordered)
        lines.append(
            f"{total} {'file' if total == 1 else 'files'} cannot be {what}: {each}; "
            f"export {'it' if total == 1 else 'them'} as JPEG, PNG or TIFF first"
        )
    if videos:
        lines.append(f"{videos} {'video is' if videos == 1 else 'videos are'} passed over, also unprotected")
    return "; ".join(lines) or None


def _suffix(path: Path) -> str:
    return path.suffix[1:].upper()
