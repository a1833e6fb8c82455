"""Picture files of every kind, made on the spot, and the change that the tests apply to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from unlikeness.pictures import Picture

HEIGHT, WIDTH = 21, 34
BUDGET = 8.0
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"><a>\xc3\xa9</a></rdf:RDF></x:xmpmeta>'
_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ICC = _PROFILE[:24] + bytes(12) + _PROFILE[36:]
"""Without the time at which it was made, so that files with it are always the same."""

Make = Callable[[Path], None]


def samples(channels: int, dtype: Any = np.uint8, seed: int = 0) -> NDArray[Any]:
    """H × W × channels over the whole range of `dtype`: a slope with noise, black and white included."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    slope = np.add.outer(np.linspace(0, 0.7, HEIGHT), np.linspace(0, 0.3, WIDTH))[..., None]
    noisy = slope + rng.uniform(-0.15, 0.15, (HEIGHT, WIDTH, channels))
    array: NDArray[Any] = np.rint(np.clip(noisy, 0, 1) * top).astype(dtype)
    array[0, 0], array[0, 1] = 0, top
    return array


def exif(orientation: int | None = None) -> bytes:
    """An EXIF block with a maker, an exposure time, and an orientation if one is asked for."""
    tags = Image.Exif()
    tags[0x010F] = "Camera"
    tags.get_ifd(0x8769)[0x829A] = 0.01
    if orientation is not None:
        tags[0x0112] = orientation
    return bytes(tags.tobytes())


def image(mode: str, seed: int = 0) -> Image.Image:
    """An 8-bit Pillow image of any mode."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}.get(mode)
    if channels is None:
        return image("RGB", seed).convert(mode)
    array = np.ascontiguousarray(samples(channels, seed=seed))
    return Image.frombytes(mode, (WIDTH, HEIGHT), array.tobytes())


def saved(mode: str, file_format: str, **options: Any) -> Make:
    """A maker that saves `image(mode)` with Pillow."""
    return lambda path: image(mode).save(path, file_format, **options)


def png(array: NDArray[Any]) -> Make:
    """A maker of a PNG by libpng itself, 8 or 16 bits."""
    return lambda path: void(path.write_bytes(imagecodecs.png_encode(array)))


def png_text(**options: Any) -> Make:
    """A maker of a PNG with XMP, a comment, density, gamma and a chunk of its own."""

    def make(path: Path) -> None:
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_text("Comment", "kept")
        info.add(b"gAMA", (45455).to_bytes(4, "big"))
        info.add(b"prVt", b"private, safe to copy", after_idat=True)
        image("RGBA").save(path, "PNG", pnginfo=info, dpi=(300, 300), icc_profile=ICC, exif=exif(), **options)

    return make


def tiff(array: NDArray[Any], **options: Any) -> Make:
    """A maker of a TIFF by tifffile."""
    return lambda path: void(tifffile.imwrite(path, array, metadata=None, **options))


def heif(mode: str, **options: Any) -> Make:
    """A maker of a HEIC picture."""

    def make(path: Path) -> None:
        import pillow_heif

        file = pillow_heif.from_pillow(image(mode))
        file.save(path, quality=95, **options)

    return make


def void(_: object) -> None:
    """Drop a value."""


def changed(picture: Picture, seed: int = 1, budget: float = BUDGET) -> NDArray[np.floating[Any]]:
    """The picture with every value moved by the whole budget, up or down, as a protection may do."""
    rgb = picture.rgb
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), rgb.shape)
    return rgb + signs * np.float32(budget / 255)


LOSSLESS: dict[str, Make] = {
    "png-grey": png(samples(1)),
    "png-grey-alpha": png(samples(2)),
    "png-rgb": png(samples(3)),
    "png-rgba": png(samples(4)),
    "png-16-grey": png(samples(1, np.uint16)),
    "png-16-grey-alpha": png(samples(2, np.uint16)),
    "png-16-rgb": png(samples(3, np.uint16)),
    "png-16-rgba": png(samples(4, np.uint16)),
    "png-text": png_text(),
    "png-rotated": saved("RGB", "PNG", exif=exif(6)),
    "webp-rgb": saved("RGB", "WEBP", lossless=True),
    "webp-rgba": saved("RGBA", "WEBP", lossless=True, exact=True, icc_profile=ICC, exif=exif(8), xmp=XMP),
    "bmp-rgb": saved("RGB", "BMP", dpi=(300, 300)),
    "bmp-rgba": saved("RGBA", "BMP"),
    "bmp-grey": saved("L", "BMP"),
    "tiff-grey": saved("L", "TIFF", compression="tiff_lzw", dpi=(300, 300)),
    "tiff-grey-alpha": saved("LA", "TIFF"),
    "tiff-rgb": saved("RGB", "TIFF", icc_profile=ICC, exif=exif(5)),
    "tiff-rgba": saved("RGBA", "TIFF", compression="tiff_adobe_deflate"),
    "tiff-cmyk": saved("CMYK", "TIFF", compression="packbits"),
    "tiff-16-grey": tiff(samples(1, np.uint16)[..., 0], compression="lzw", predictor=2),
    "tiff-16-rgb": tiff(samples(3, np.uint16), photometric="rgb", compression="zlib", predictor=2),
    "tiff-16-rgb-big-endian": tiff(
        samples(3, np.uint16), photometric="rgb", byteorder=">", compression="lzw"
    ),
    "tiff-16-rgba": tiff(samples(4, np.uint16), photometric="rgb", extrasamples=["unassalpha"]),
    "tiff-16-planar": tiff(
        np.moveaxis(samples(3, np.uint16), 2, 0), photometric="rgb", planarconfig="separate"
    ),
    "tiff-tiled": tiff(samples(3), photometric="rgb", tile=(16, 16), compression="zstd"),
    "tiff-bigtiff": tiff(samples(3, np.uint16), photometric="rgb", bigtiff=True),
    "tiff-premultiplied": tiff(
        np.minimum(samples(4), samples(4)[..., 3:]), photometric="rgb", extrasamples=["assocalpha"]
    ),
    "tiff-white-is-zero": tiff(samples(1)[..., 0], photometric="miniswhite"),
    "tiff-five-channels": tiff(samples(5), photometric="rgb", extrasamples=["unassalpha", "unspecified"]),
}

LOSSY: dict[str, Make] = {
    "jpeg-420": saved("RGB", "JPEG", quality=83, dpi=(240, 240), icc_profile=ICC, exif=exif(), xmp=XMP),
    "jpeg-444": saved("RGB", "JPEG", quality=97, subsampling=0, exif=exif(7), comment=b"kept"),
    "jpeg-422": saved("RGB", "JPEG", quality=60, subsampling=1),
    "jpeg-coarse": saved("RGB", "JPEG", quality=5),
    "jpeg-progressive": saved("RGB", "JPEG", quality=90, progressive=True),
    "jpeg-rgb": saved("RGB", "JPEG", quality=90, keep_rgb=True),
    "jpeg-grey": saved("L", "JPEG", quality=88),
    "jpeg-cmyk": saved("CMYK", "JPEG", quality=95, icc_profile=ICC),
    "webp-lossy": saved("RGB", "WEBP", quality=77, exif=exif(6), xmp=XMP),
    "webp-lossy-alpha": saved("RGBA", "WEBP", quality=90, exact=True, icc_profile=ICC),
    "avif": saved("RGB", "AVIF", quality=95, subsampling="4:4:4", icc_profile=ICC, exif=exif(), xmp=XMP),
    "avif-rotated": saved("RGB", "AVIF", quality=95, exif=exif(6)),
    "heic": heif("RGB", chroma=444, exif=exif(), xmp=XMP),
    "heic-rotated": heif("RGB", exif=exif(6)),
    "heic-alpha": heif("RGBA"),
}

REWRITTEN: dict[str, Make] = {
    "png-palette": saved("P", "PNG"),
    "png-palette-alpha": lambda path: image("P").save(path, "PNG", transparency=bytes(range(0, 250, 5))),
    "png-bilevel": saved("1", "PNG"),
    "png-transparent-colour": saved("RGB", "PNG", transparency=(0, 0, 0)),
    "bmp-palette": saved("P", "BMP"),
    "tiff-palette": saved("P", "TIFF"),
    "tiff-bilevel": saved("1", "TIFF", compression="group4"),
    "tiff-jpeg": saved("RGB", "TIFF", compression="jpeg"),
}

ALL = LOSSLESS | LOSSY | REWRITTEN
