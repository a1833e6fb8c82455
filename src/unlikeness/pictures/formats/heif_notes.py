"""What a HEIC or AVIF file holds beside its picture and is not written again, in the words of a note."""

from __future__ import annotations

from collections.abc import Iterator

from unlikeness.pictures.formats.base import joined
from unlikeness.pictures.formats.heif_container import Container
from unlikeness.pictures.formats.previews import CREDENTIALS

__all__ = ["left_out"]

_STRUCTURE = frozenset({b"ftyp", b"meta", b"mdat", b"free", b"skip", b"idat", b"wide", b"pdin", b"styp"})
_META = frozenset({b"hdlr", b"pitm", b"iloc", b"iinf", b"iprp", b"iref", b"idat", b"dinf", b"free", b"grpl"})
_ENCODED = frozenset({
    b"ispe", b"pixi", b"colr", b"irot", b"imir", b"clap", b"auxC", b"av1C", b"hvcC", b"lhvC", b"oinf",
    b"tols", b"a1op", b"a1lx", b"lsel", b"free", b"skip",
})  # fmt: skip
"""Properties that the encoder writes anew, or that describe how the old data was coded."""
_PICTURES = frozenset({
    b"av01", b"hvc1", b"hev1", b"lhv1", b"avc1", b"vvc1", b"evc1", b"jpeg", b"j2k1", b"unci", b"mski",
    b"grid", b"iovl", b"iden",
})  # fmt: skip
_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_ALPHA = ("auxid:1", ":alpha")
_KINDS = {"depth": "depth map", "auxid:2": "depth map", "gainmap": "gain map", "matte": "matte"}


def left_out(container: Container, kept: set[int], properties: set[bytes], *, alpha: bool) -> str | None:
    """A note of all that is not written again; None if there is nothing.

    kept: the items, beside the primary picture, that are. properties: the primary picture's that are, beside
    those that the encoder makes anew. alpha: whether alpha is.
    """
    things = sorted(
        {*_items(container, kept, alpha), *_boxes(container), *_properties(container, properties)}
    )
    return joined(
        f"{', '.join(things)} in the file left out" if things else None,
        CREDENTIALS if _has_credentials(container) else None,
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
    """What kind of auxiliary picture its type, a name that ends in a null, says it is."""
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
        elif box.kind not in _STRUCTURE and not _is_credential(container, box.body, box.kind):
            yield f"box {_printable(box.kind)}"
    for box in container.meta:
        if box.kind not in _META:
            yield f"box {_printable(box.kind)}"
    if container.trailing:
        yield "data behind the picture"


def _properties(container: Container, kept: set[bytes]) -> Iterator[str]:
    for box in container.properties_of(container.primary):
        if box.kind not in _ENCODED | kept:
            yield f"property {_printable(box.kind)}"


def _has_credentials(container: Container) -> bool:
    return any(_is_credential(container, box.body, box.kind) for box in container.top)


def _is_credential(container: Container, body: int, kind: bytes) -> bool:
    return kind == b"uuid" and container.data[body : body + 16] == _C2PA


def _printable(kind: bytes) -> str:
    return "".join(chr(byte) if 32 < byte < 127 else "?" for byte in kind)
