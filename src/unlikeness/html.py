"""HTML pages of one file each, from `templates/`: pictures inside, no links, and no script but the one
that sorts a benchmark's tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from unlikeness.gallery import to_pil

__all__ = ["Note", "Shown", "fill", "show"]

_SIDE = 256
"""Side up to which small pictures are enlarged [px], each pixel a whole number of times."""


@dataclass(frozen=True)
class Note:
    """A coloured box of a page. kind: good is green, mixed yellow, bad red, open grey."""

    kind: Literal["good", "mixed", "bad", "open"]
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.title}. {self.text}".strip()


@dataclass(frozen=True)
class Shown:
    """A picture in a page: a PNG as a data URI, and its caption (plain text)."""

    uri: str
    caption: str = ""


def show(images: Iterable[Tensor | Image.Image], captions: Sequence[str] = ()) -> list[Shown]:
    """Images [3, H, W] in [0, 1] or PIL pictures; small ones are enlarged, every pixel to a square."""
    pictures = [to_pil(image) if isinstance(image, Tensor) else image for image in images]
    words = [*captions, *[""] * (len(pictures) - len(captions))]
    return [Shown(_data_uri(image), text) for image, text in zip(pictures, words, strict=True)]


def fill(template: str, **values: Any) -> str:
    """A page from its template; text in `values` is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("unlikeness"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["inside"] = lambda value: min(max(value, 0.0), 1.0)
    return pages.get_template(template).render(values)


def _data_uri(image: Image.Image) -> str:
    times = max(_SIDE // max(image.size), 1)
    enlarged = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    enlarged.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
