"""Metadata of HEIC and AVIF: read from the source, set in the new file, and noted where it is left out.

EXIF is an item: four bytes with the place of its TIFF header, whatever stands before that, and the block
itself (23008-12, annex A). The container's own turn (irot, imir) counts; EXIF's tag is for information.

`with_item` and `with_properties` change files that the encoders of Pillow and libheif wrote: one `meta` box,
whose data is in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unlikeness.pictures.formats import base, metadata
from unlikeness.pictures.formats.heif import Box, Container, boxes, read_container

__all__ = [
    "Metadata", "coded_size", "crop_note", "cut_note", "metadata_of", "upright", "with_item",
    "with_properties",
]  # fmt: skip

_XMP = b"application/rdf+xml"
_DESCRIPTIONS = frozenset({
    b"pasp", b"clli", b"mdcv", b"cclv", b"amve", b"ndwt", b"reve", b"cmin", b"cmex", b"udes", b"altt",
    b"aebr", b"wbbr", b"fobr", b"afbr", b"dobr", b"crtt", b"mdft", b"pano",
})  # fmt: skip
"""Properties that describe the picture, not its coding: copied."""
_ENCODED = frozenset({
    b"ispe", b"pixi", b"colr", b"irot", b"imir", b"clap", b"auxC", b"av1C", b"hvcC", b"lhvC", b"oinf",
    b"tols", b"a1op", b"a1lx", b"lsel", b"free", b"skip",
})  # fmt: skip
"""Properties that the encoder writes, or that describe the coding of the old data."""
_PICTURES = frozenset({
    b"av01", b"hvc1", b"hev1", b"lhv1", b"avc1", b"vvc1", b"evc1", b"jpeg", b"j2k1", b"unci", b"mski",
    b"grid", b"iovl", b"iden",
})  # fmt: skip
_STRUCTURE = frozenset({b"ftyp", b"meta", b"mdat", b"free", b"skip", b"idat", b"wide", b"pdin", b"styp"})
_META = frozenset({b"hdlr", b"pitm", b"iloc", b"iinf", b"iprp", b"iref", b"idat", b"dinf", b"free", b"grpl"})
_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_ALPHA = ("auxid:1", ":alpha")
_KINDS = {"depth": "depth map", "auxid:2": "depth map", "gainmap": "gain map", "matte": "matte"}
_ORIENTATION = 0x0112
_TURNS = (b"irot", b"imir")
_BLOCK = 64
"""Pixels of the largest coding block of HEVC, to which encoders fill a picture up."""
_UNKNOWN_LAYOUT = "the encoder laid the file out in an unknown way"


@dataclass(frozen=True, slots=True)
class Metadata:
    """exif: the whole item, or empty. properties, crop: whole boxes."""

    exif: bytes
    xmp: bytes
    properties: tuple[bytes, ...]
    crop: bytes | None
    colours: bytes | None
    """The box that describes the colours by numbers (`colr` of the kind "nclx")."""
    notes: tuple[str | None, ...]

    @property
    def exif_block(self) -> bytes:
        """EXIF as encoders take it: from the TIFF header or the "Exif" prefix on."""
        return self.exif[4:]


def metadata_of(container: Container, *, alpha: bool) -> Metadata:
    """A primary picture's metadata, without pictures and announcements. alpha: whether alpha is kept."""
    exif_items = container.about_primary(b"Exif")[:1]
    xmp_items = container.about_primary(b"mime", _XMP)[:1]
    head, block = _divided(b"".join(map(container.content, exif_items)))
    exif, thumbnail = metadata.without_thumbnail(block)
    xmp, announced = metadata.blanked(b"".join(map(container.content, xmp_items)))
    described = [(box.kind, container.raw(box)) for box in container.properties_of(container.primary)]
    colours = (box for kind, box in described if kind == b"colr" and box[8:12] == b"nclx")
    return Metadata(
        exif=head + exif,
        xmp=xmp,
        properties=tuple(box for kind, box in described if kind in _DESCRIPTIONS),
        crop=next((box for kind, box in described if kind == b"clap"), None),
        colours=next((box for box in colours if len(box) >= 16), None),
        notes=(_left_out(container, {*exif_items, *xmp_items}, alpha), *sorted(thumbnail | announced)),
    )


def upright(exif: bytes) -> bytes:
    """An EXIF item with an orientation tag, if any, that means upright."""
    head, block = _divided(exif)
    order = metadata.ORDERS.get(block[:4])
    if order is None:
        return exif
    result = bytearray(block)
    try:
        for entry in metadata.directory(block, 0, 4, order):
            tag, kind, values = struct.unpack_from(order + "HHI", block, entry)
            if tag == _ORIENTATION and kind == 3 and values == 1:
                struct.pack_into(order + "H", result, entry + 8, 1)
    except struct.error:  # it leads out of the block, where nothing is
        return exif
    return head + bytes(result)


def coded_size(container: Container) -> tuple[int, int]:
    """(width, height) of the primary picture before crop and turns; zeros if unknown."""
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
    """The note of a crop that was applied; None if it only cuts off padding of the encoder.

    Padding is less than a block in width and height.
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
    """An EXIF item -> what stands before the TIFF header, and the rest."""
    start = 4 + int.from_bytes(exif[:4], "big")
    return (exif[:start], exif[start:]) if start < len(exif) else (exif[:4], exif[4:])


def _left_out(container: Container, kept: set[int], alpha: bool) -> str | None:
    """The note of all that is not written again; None if there is nothing.

    kept: items that are, beside the primary picture. alpha: whether alpha is.
    """
    things = sorted({*_items(container, kept, alpha), *_boxes(container)})
    return base.joined(
        f"{', '.join(things)} in the file left out" if things else None,
        metadata.CREDENTIALS if any(_is_credential(container, box) for box in container.top) else None,
    )


def _items(container: Container, kept: set[int], alpha: bool) -> Iterator[str]:
    parts = {b for kind, _, b in container.references if kind == b"dimg"}
    thumbnails = {a for kind, a, _ in container.references if kind == b"thmb"}
    auxiliary = {a: b for kind, a, b in container.references if kind == b"auxl"}
    mapped = {number for number, item in container.items.items() if item.kind == b"tmap"}
    gain_maps = {b for kind, a, b in container.references if kind == b"dimg" and a in mapped}
    for number, item in container.items.items():
        if number == container.primary or number in kept:
            continue
        if item.kind == b"tmap" or number in gain_maps:
            yield "gain map"
        elif number in thumbnails:
            yield "thumbnail"
        elif number in auxiliary:
            kind = _auxiliary(container, number)
            if kind != "alpha":
                yield kind
            elif not alpha:
                yield "alpha"
            elif auxiliary[number] != container.primary and auxiliary[number] not in parts:
                yield "further picture"
        elif item.kind in _PICTURES:
            if number not in parts:
                yield "further picture"
        else:
            yield "further metadata"


def _auxiliary(container: Container, number: int) -> str:
    """The kind of an auxiliary picture by its type, a name that ends in a null."""
    for box in container.properties_of(number):
        if box.kind == b"auxC":
            name = container.data[box.body + 4 : box.end].split(b"\0")[0].decode("ascii", "replace").lower()
            if name.endswith(_ALPHA):
                return "alpha"
            return next((kind for part, kind in _KINDS.items() if part in name), "auxiliary picture")
    return "auxiliary picture"


def _boxes(container: Container) -> Iterator[str]:
    for box in container.top:
        if box.kind in (b"mpvd", b"moov"):
            yield "video"
        elif box.kind not in _STRUCTURE and not _is_credential(container, box):
            yield f"box {_printable(box.kind)}"
    yield from (f"box {_printable(box.kind)}" for box in container.meta if box.kind not in _META)
    if container.trailing:
        yield "data behind the picture"
    for box in container.properties_of(container.primary):
        if box.kind not in _ENCODED | _DESCRIPTIONS:
            yield f"property {_printable(box.kind)}"


def _is_credential(container: Container, box: Box) -> bool:
    return box.kind == b"uuid" and container.data[box.body : box.body + 16] == _C2PA


def _printable(kind: bytes) -> str:
    return "".join(chr(byte) if 32 < byte < 127 else "?" for byte in kind)


def with_item(coded: bytes, kind: bytes, content: bytes) -> bytes:
    """The file with `content` in its only item of a kind. If it differs, it goes to the end of the file."""
    container = read_container(coded)
    (number,) = [n for n, item in container.items.items() if item.kind == kind]
    if container.content(number) == content:
        return coded
    location = container.locations[number]
    if location.method or len(location.extents) != 1:
        raise OSError(_UNKNOWN_LAYOUT)
    (extent,) = location.extents
    result = bytearray(coded)
    start = location.base + extent.offset
    result[start : start + extent.length] = bytes(extent.length)
    offset, length = location.widths
    place = len(coded) + 8 - location.base
    numbers = place.to_bytes(offset, "big") + len(content).to_bytes(length, "big")
    result[extent.place : extent.place + len(numbers)] = numbers
    return bytes(result) + struct.pack(">I4s", 8 + len(content), b"mdat") + content


def with_properties(coded: bytes, properties: Sequence[bytes], crop: bytes | None = None) -> bytes:
    """The file with more properties of its primary picture, each a whole box.

    Descriptions come first, and a crop (`clap`) before the turns, as the standard asks (23008-12, 6.5.1).
    """
    added = [*properties, crop] if crop else list(properties)
    if not added:
        return coded
    container = read_container(coded)
    iprp = next(box for box in container.meta if box.kind == b"iprp")
    inside = list(boxes(coded, iprp.body, iprp.end))
    ipco, ipma = (next(box for box in inside if box.kind == kind) for kind in (b"ipco", b"ipma"))
    first = len(container.properties) + 1
    entry = _associated(coded, container, ipma, first, len(properties), crop is not None)
    stored = b"".join(added)
    grown = len(stored) + len(entry) - (ipma.end - ipma.body)
    result = bytearray(coded)
    meta = next(box for box in container.top if box.kind == b"meta")
    _move_data(result, container, meta.end, grown)
    for box, more in ((meta, grown), (iprp, grown), (ipco, len(stored))):
        _resize(result, box, more)
    result[ipma.start : ipma.end] = struct.pack(">I4s", 8 + len(entry), b"ipma") + entry
    result[ipco.end : ipco.end] = stored
    return bytes(result)


def _associated(
    coded: bytes, container: Container, ipma: Box, first: int, descriptions: int, crop: bool
) -> bytes:
    """The body of `ipma` with properties from number `first` on added to the primary picture."""
    wide, size = coded[ipma.body + 3] & 1, 4 if coded[ipma.body] else 2
    step = 2 if wide else 1
    essential = 0x8000 if wide else 0x80
    if first + descriptions + crop > essential:
        raise OSError("the encoder wrote too many properties")
    (count,) = struct.unpack_from(">I", coded, ipma.body + 4)
    result, at = bytearray(coded[ipma.body : ipma.body + 8]), ipma.body + 8
    for _ in range(count):
        item, number = int.from_bytes(coded[at : at + size], "big"), coded[at + size]
        start, at = at + size + 1, at + size + 1 + step * number
        values = [int.from_bytes(coded[i : i + step], "big") for i in range(start, at, step)]
        if item == container.primary:
            kinds = [container.properties[(value & (essential - 1)) - 1].kind for value in values]
            turn = next((i for i, kind in enumerate(kinds) if kind in _TURNS), len(values))
            cropped = [first + descriptions | essential] if crop else []
            values = [*range(first, first + descriptions), *values[:turn], *cropped, *values[turn:]]
        result += item.to_bytes(size, "big") + bytes([len(values)])
        result += b"".join(value.to_bytes(step, "big") for value in values)
    return bytes(result)


def _move_data(result: bytearray, container: Container, meta_end: int, by: int) -> None:
    """Correct the places of the items' data after `meta` has grown."""
    for location in container.locations.values():
        width = location.widths[0]
        for extent in location.extents:
            if location.method == 0 and location.base + extent.offset >= meta_end:
                result[extent.place : extent.place + width] = (extent.offset + by).to_bytes(width, "big")


def _resize(result: bytearray, box: Box, more: int) -> None:
    if box.body != box.start + 8:
        raise OSError(_UNKNOWN_LAYOUT)
    result[box.start : box.start + 4] = struct.pack(">I", box.end - box.start + more)
