"""The pages: one file each, filled from `templates/`, no scripts, nothing from outside."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.files import write_text
from unlikeness.foreign import UnreadableError, read_json
from unlikeness.gallery import to_pil

__all__ = ["GAIN", "Shown", "check_own", "difference", "fill", "show", "write"]

GAIN = 10
"""How much stronger a difference is shown than it is."""

_SIDE = 256
"""Side up to which small pictures are enlarged [px], each pixel a whole number of times."""


@dataclass(frozen=True)
class Shown:
    """A picture in a page: a PNG as a data URI, and its caption (plain text)."""

    uri: str
    caption: str = ""


def show(images: Iterable[Tensor | Image.Image], captions: Sequence[str] = ()) -> list[Shown]:
    """[3, H, W] in [0, 1] or PIL pictures; small ones are enlarged, every pixel to a square."""
    pictures = [to_pil(image) if isinstance(image, Tensor) else image for image in images]
    words = [*captions, *[""] * (len(pictures) - len(captions))]
    return [Shown(_data_uri(_enlarged(image)), text) for image, text in zip(pictures, words, strict=True)]


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _enlarged(image: Image.Image) -> Image.Image:
    times = max(_SIDE // max(image.size), 1)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def difference(before: Tensor, after: Tensor, gain: float = GAIN) -> Tensor:
    """What was changed, `gain` times as strong, around middle grey."""
    return (0.5 + gain * (after - before)).clamp(0, 1)


def fill(template: str, **values: Any) -> str:
    """A template of this package, filled; text in `values` is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("unlikeness.demo"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["inside"] = lambda value: min(max(value, 0.0), 1.0)
    return pages.get_template(template).render(values)


def check_own(page: Path, keys: set[str]) -> None:
    """UsageError if `page`, or the JSON file of its name, is there and no earlier run has made it, whose JSON
    has these keys."""
    record = page.with_suffix(".json")
    if not (page.exists() or record.exists()):
        return
    try:
        made = read_json(record, most=1 << 26)
    except UnreadableError:
        made = None
    if not (isinstance(made, dict) and keys <= made.keys()):
        raise UsageError(
            f"{page} or {record.name} is there, and no earlier demo has made it; name another --output"
        )


def write(path: Path, text: str) -> None:
    """Replace `path`, whole or not at all. What is no text (a name in another encoding) becomes "?"."""
    write_text(path, text, errors="replace")
