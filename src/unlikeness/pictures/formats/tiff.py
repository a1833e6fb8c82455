"""TIFF: 8 and 16 bits of grey, RGB and CMYK, any alpha and further channels, exactly; every tag as it was.

Lossless files are read to their own integers by `tiff_data`: uncompressed, LZW, Deflate, PackBits, LZMA or
Zstandard, in strips or tiles, chunky or planar, in either byte order, with horizontal prediction or without.
They are written with the same compression, prediction and byte order, in strips, chunky. Colours multiplied
by alpha stay so.

Pillow decodes other kinds (JPEG-compressed, palette, bilevel, YCbCr), which are written as Deflate. The note
says so, and names what is left out because it shows the picture unprotected: preview pages, Photoshop's
layers and thumbnail, and content credentials. Files of several pages and of float, signed or 32-bit samples
are refused.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from unlikeness.pictures.colour import ColourModel, Pixels
from unlikeness.pictures.formats import base, metadata
from unlikeness.pictures.formats.tiff_data import (
    DEFLATE,
    LAYERS,
    LOSSLESS,
    Directory,
    check_overlap,
    is_predicted,
    numbers_tag,
    pack,
    quiet,
    read_directories,
    read_samples,
    write_directory,
)
from unlikeness.pictures.limits import Unusable

__all__ = ["read"]

_LAYOUT = frozenset({
    256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291, 292, 293, 317,
    320, 321, 322, 323, 324, 325, 330, 332, 334, 338, 339, 340, 341, 347, 512, 513, 514, 515, 517, 518,
    519, 520, 521, 529, 530, 531, 532,
})  # fmt: skip
"""Tags on the layout of the pixels, which are written anew. All others are copied."""
_INKS = frozenset({332, 334})
_SAMPLE_FORMAT, _SUB_PAGES = 339, 330
_SAMPLES = _INKS | {280, 281, 290, 291, 321, _SAMPLE_FORMAT, 340, 341, 532}
"""Tags on the meaning of the samples, which are kept where the samples stay what they are."""
_SPACES: dict[int, tuple[Literal["grey", "rgb", "cmyk"], int]] = {
    0: ("grey", 1), 1: ("grey", 1), 2: ("rgb", 3), 5: ("cmyk", 4)
}  # fmt: skip
_RESOURCES = 34377
"""Photoshop's image resources. Its layers, which are the whole picture once more, are left out."""
_XMP = 700
_C2PA = 52545
"""Content credentials, as the C2PA specification embeds them."""
_STRIP_BYTES = 1 << 18
_MAX_CHANNELS = 6  # libtiff by way of Pillow takes no more
_WHITE_IS_ZERO, _CMYK, _PHOTOMETRIC = 0, 5, {"grey": 1, "rgb": 2, "cmyk": 5}
_WRITTEN = {
    "1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK", "RGBX": "RGB",
    "YCbCr": "RGB",
}  # fmt: skip
"""By the mode that Pillow decodes, the mode that is written."""


@dataclass(frozen=True, slots=True)
class _Tiff:
    """How to write the file again."""

    kept: Directory
    photometric: int
    extra: tuple[int, ...]
    """Meaning of each channel behind the colours (TIFF 6.0, ExtraSamples)."""
    compression: int
    prediction: bool

    def write(self, pixels: Pixels, target: BinaryIO) -> None:
        order = self.kept.order
        height, width, channels = pixels.shape
        row = width * channels * pixels.dtype.itemsize
        step = max(1, min(height, _STRIP_BYTES // row))
        target.write((b"II*\0" if order == "<" else b"MM\0*") + b"\0\0\0\0")
        starts, sizes = [], []
        for top in range(0, height, step):
            part = pixels[top : top + step]
            if self.photometric == _WHITE_IS_ZERO or self.prediction:
                part = part.copy()
            if self.photometric == _WHITE_IS_ZERO:
                part[..., 0] = np.iinfo(part.dtype).max - part[..., 0]
            if self.prediction:
                part[:, 1:] -= part[:, :-1].copy()
            ordered = np.ascontiguousarray(part).astype(part.dtype.newbyteorder(order))
            strip = pack(ordered.reshape(len(part), -1).view(np.uint8), self.compression)
            starts.append(target.tell())
            sizes.append(len(strip))
            target.write(strip)
            if target.tell() > 0xFFFF0000:
                raise OSError("it would be over the 4 GB of a TIFF file")
        tags = {
            256: [width], 257: [height], 258: [8 * pixels.dtype.itemsize] * channels, 259: [self.compression],
            262: [self.photometric], 273: starts, 277: [channels], 278: [step], 279: sizes, 284: [1],
        }  # fmt: skip
        if self.prediction:
            tags[317] = [2]
        if self.extra:
            tags[338] = list(self.extra)
        long = (256, 257, 273, 278, 279)
        layout = {
            number: numbers_tag(order, values, short=number not in long) for number, values in tags.items()
        }
        at = write_directory(Directory(order, {**self.kept.tags, **layout}), target)
        target.seek(4)
        target.write(struct.pack(order + "I", at))


def read(data: bytes, max_pixels: int) -> base.Raster:
    """Decode a TIFF file's bytes. Raises Unusable, or what Pillow raises at damaged data."""
    pages = read_directories(data)
    if not pages:
        raise Unusable("it is damaged (no directory); copy or export it again")
    page, others = pages[0], pages[1:]
    base.check_size(page.number(256, 0), page.number(257, 0), max_pixels)
    if page.number(254, 0) & 1:
        raise Unusable(
            "its first page is only a preview, as in a camera's raw files; develop it and export the picture"
        )
    if any(not other.number(254, 0) & 1 for other in others):
        raise Unusable(
            "it has several pages, and only single ones can be protected; export its pages as pictures"
        )
    check_overlap(data, page)
    bits = set(page.numbers(258, [1]))
    kinds = set(page.numbers(339, [1]))
    if page.number(277, 1) not in range(1, _MAX_CHANNELS + 1):
        raise Unusable(f"it has {page.number(277, 1)} channels; save it as grey, RGB or CMYK")
    if kinds - {1, 4} or max(bits) > 16:
        raise Unusable("its samples are float, signed or over 16 bits; save it as 8 or 16-bit TIFF")
    orientation = base.valid_orientation(page.number(274, 1))
    photometric = page.number(262, -1)
    channels = page.number(277, 1)
    space, colours = _SPACES.get(photometric, ("grey", 0))
    exact = (
        page.number(259, 1) in LOSSLESS
        and colours
        and colours <= channels
        and bits in ({8}, {16})
        and page.number(317, 1) in (1, 2)
        and page.number(266, 1) == 1
    )
    still = _SAMPLES if exact else _INKS if photometric == _CMYK else frozenset()
    kept, left_out = _kept(page, still, bool(others))
    if not exact:
        return _by_pillow(data, kept, orientation, left_out)
    extra = (*page.numbers(338), *([0] * channels))[: channels - colours]
    alpha: Literal["none", "straight", "premultiplied"] = "none"
    if extra and extra[0] in (1, 2):
        alpha = "premultiplied" if extra[0] == 1 else "straight"
    writer = _Tiff(kept, photometric, extra, page.number(259, 1), is_predicted(page))
    pixels = read_samples(data, page, channels, bits.pop())
    if photometric == _WHITE_IS_ZERO:
        pixels[..., 0] = np.iinfo(pixels.dtype).max - pixels[..., 0]
    return base.Raster(pixels, ColourModel(space, alpha), writer, True, orientation, left_out)


def _kept(page: Directory, samples: frozenset[int], previews: bool) -> tuple[Directory, str | None]:
    """The tags that are written again, and a note of the others. samples: tags that still hold."""
    tags = {number: tag for number, tag in page.tags.items() if number not in _LAYOUT - samples}
    if set(page.numbers(_SAMPLE_FORMAT)) <= {1}:  # the default
        tags.pop(_SAMPLE_FORMAT, None)
    layers, credentials = tags.pop(LAYERS, None), tags.pop(_C2PA, None)
    notes = set[str]()
    if _RESOURCES in tags:
        shorter = metadata.resources_without(tags[_RESOURCES].value)
        if shorter != tags[_RESOURCES].value:
            tags[_RESOURCES] = replace(tags[_RESOURCES], count=len(shorter), value=shorter)
            notes.add(metadata.NOTE)
    if _XMP in tags:
        xmp, announced = metadata.blanked(tags[_XMP].value)
        tags[_XMP] = replace(tags[_XMP], value=xmp)
        notes |= announced
    whole = Directory(page.order, tags)
    kept = _narrow(whole)
    return kept, base.joined(
        "preview page left out" if previews or _SUB_PAGES in page.tags else None,
        "layers left out, they show the picture unprotected" if layers else None,
        *sorted(notes),
        metadata.CREDENTIALS if credentials else None,
        "tags of 64-bit numbers left out" if kept != whole else None,
    )


def _by_pillow(data: bytes, kept: Directory, orientation: int, left_out: str | None) -> base.Raster:
    """A picture that Pillow turns into 8 bits, to be written with Deflate."""
    image: Image.Image = TiffImageFile(io.BytesIO(data))
    stored_mode = image.mode
    with quiet():
        image.load()  # Pillow turns it upright here
    mode = _WRITTEN.get(stored_mode)
    if stored_mode in ("P", "PA"):
        mode = "RGBA" if image.has_transparency_data else "RGB"
    if mode is None:
        raise Unusable(
            f"this kind of TIFF ({stored_mode}) cannot be written; save it as 8 or 16-bit RGB TIFF"
        )
    pixels = np.ascontiguousarray(base.to_stored(base.to_array(image.convert(mode)), orientation))
    space: Literal["grey", "rgb", "cmyk"] = "grey" if mode[0] == "L" else "cmyk" if mode == "CMYK" else "rgb"
    has_alpha = mode in ("LA", "RGBA")
    writer = _Tiff(kept, _PHOTOMETRIC[space], (2,) if has_alpha else (), DEFLATE, True)
    note = base.joined(f"written as 8-bit {mode} TIFF with Deflate", left_out)
    return base.Raster(
        pixels, ColourModel(space, "straight" if has_alpha else "none"), writer, True, orientation, note
    )


def _narrow(directory: Directory) -> Directory:
    """A directory, and those that it points to, without tags of a type that only BigTIFF knows.

    A pointer to a directory becomes one of 32 bits.
    """
    return Directory(
        directory.order,
        {
            number: replace(tag, directory=_narrow(tag.directory)) if tag.directory else tag
            for number, tag in directory.tags.items()
            if tag.kind not in (16, 17, 18) or tag.directory is not None
        },
    )
