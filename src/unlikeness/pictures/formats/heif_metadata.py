"""What HEIC and AVIF share of a picture's metadata: EXIF and XMP as they are in the file, and properties.

EXIF is an item: four bytes that say where its TIFF header begins, whatever is before that, and the block
itself (23008-12, annex A). The container's own turn (irot, imir) is what counts; EXIF's tag is for show.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from unlikeness.pictures.formats.heif_container import Container
from unlikeness.pictures.formats.heif_notes import left_out
from unlikeness.pictures.formats.previews import NOTE, exif_without
from unlikeness.pictures.formats.xmp import blanked

__all__ = ["Metadata", "coded_size", "crop_note", "cut_note", "metadata_of", "upright"]

_XMP = b"application/rdf+xml"
_DESCRIPTIONS = frozenset({
    b"pasp", b"clli", b"mdcv", b"cclv", b"amve", b"ndwt", b"reve", b"cmin", b"cmex", b"udes", b"altt",
    b"aebr", b"wbbr", b"fobr", b"afbr", b"dobr", b"crtt", b"mdft", b"pano",
})  # fmt: skip
"""Properties that say something of the picture and do not refer to how it is coded: copied."""
_ORIENTATION = 0x0112
_BLOCK = 64
"""Pixels of the largest coding block of HEVC, to which encoders fill a picture up."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """exif: the whole item, or nothing. properties, crop: whole boxes."""

    exif: bytes
    xmp: bytes
    properties: tuple[bytes, ...]
    crop: bytes | None
    colours: bytes | None
    """The box that says by numbers what the colours mean (`colr` of the kind "nclx")."""
    notes: tuple[str | None, ...]

    @property
    def exif_block(self) -> bytes:
        """EXIF as encoders take it: from the TIFF header or the "Exif" prefix on."""
        return self.exif[4:]


def metadata_of(container: Container, *, alpha: bool) -> Metadata:
    """A primary picture's metadata without pictures and announcements. alpha: whether alpha is kept."""
    exif_items = container.about_primary(b"Exif")[:1]
    xmp_items = container.about_primary(b"mime", _XMP)[:1]
    exif = container.content(exif_items[0]) if exif_items else b""
    head, block = _divided(exif)
    cleaned = exif_without(block)
    xmp, announced = blanked(container.content(xmp_items[0]) if xmp_items else b"")
    described = container.properties_of(container.primary)
    crops = [container.data[box.start : box.end] for box in described if box.kind == b"clap"]
    colours = [container.data[box.start : box.end] for box in described if box.kind == b"colr"]
    taken_out = announced | ({NOTE} if cleaned != block else set())
    return Metadata(
        exif=head + cleaned,
        xmp=xmp,
        properties=tuple(container.data[b.start : b.end] for b in described if b.kind in _DESCRIPTIONS),
        crop=crops[0] if crops else None,
        colours=next((box for box in colours if box[8:12] == b"nclx" and len(box) >= 16), None),
        notes=(
            left_out(container, {*exif_items, *xmp_items}, set(_DESCRIPTIONS), alpha=alpha),
            *sorted(taken_out),
        ),
    )


def upright(exif: bytes) -> bytes:
    """An EXIF item whose orientation tag, if it has one, says that nothing is to be turned."""
    head, block = _divided(exif)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return exif
    result = bytearray(block)
    try:
        (at,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", block, entry)
            if tag == _ORIENTATION and kind == 3 and values == 1:
                struct.pack_into(order + "H", result, entry + 8, 1)
    except struct.error:  # it leads out of the block, where nothing is
        return exif
    return head + bytes(result)


def coded_size(container: Container) -> tuple[int, int]:
    """(width, height) of the primary picture before crop and turns; zeros if the file does not say."""
    for box in container.properties_of(container.primary):
        if box.kind == b"ispe" and box.end - box.body >= 12:
            width, height = struct.unpack_from(">II", container.data, box.body + 4)
            return width, height
    return 0, 0


def crop_note(crop: bytes | None, size: tuple[int, int]) -> str | None:
    """The note of a crop (a `clap` box) that is kept in a picture of `size`; None if it cuts nothing off."""
    shown = _shown(crop)
    if shown is None or shown == size:
        return None
    return f"its crop to {shown[0]} × {shown[1]} pixels is kept, and what lies outside it"


def cut_note(crop: bytes | None, size: tuple[int, int]) -> str | None:
    """The note of a crop that was applied; None also where it only cuts off what an encoder has filled up,
    less than a block in width and height.
    """
    shown = _shown(crop)
    if shown is None or crop is None:
        return None
    cut = tuple(whole - part for whole, part in zip(size, shown, strict=True))
    across, parts, down, down_parts = struct.unpack_from(">iIiI", crop, 24)
    left = cut[0] / 2 + across / (parts or 1), cut[1] / 2 + down / (down_parts or 1)
    if max(cut) < _BLOCK and max(left) < 1:
        return None
    return f"what lay outside its crop to {shown[0]} × {shown[1]} pixels left out"


def _shown(crop: bytes | None) -> tuple[int, int] | None:
    if crop is None or len(crop) < 40:
        return None
    width, width_parts, height, height_parts = struct.unpack_from(">IIII", crop, 8)
    return width // (width_parts or 1), height // (height_parts or 1)


def _divided(exif: bytes) -> tuple[bytes, bytes]:
    """An EXIF item -> what is in front of the TIFF header, and the rest."""
    start = 4 + int.from_bytes(exif[:4], "big")
    return (exif[:start], exif[start:]) if start < len(exif) else (exif[:4], exif[4:])
