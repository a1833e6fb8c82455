"""A subject: an attacker's pictures of one person, animal or thing, and the words for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlikeness.errors import PictureError, UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, read, reason
from unlikeness.gallery import is_grid
from unlikeness.pictures import kinds, open_picture
from unlikeness.pictures.finding import find
from unlikeness.provenance import pixel_digest
from unlikeness.words import as_text, with_article

__all__ = ["Subject", "as_text", "central_square", "load_folder", "read_folder", "with_article"]

_log = logging.getLogger(__name__)

_LONGEST = 1 << 14
"""Bytes of a caption."""

Rgb = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, eq=False)
class Subject:
    """One person, animal or thing in pictures.

    images: [N, 3, H, W] float32 in [0, 1], square, upright. class_noun: its class, such as "dog" or "person".
    identifier: the rare word to which personalization binds it, such as "sks". Blanks around both are
    dropped. captions: a text about each picture, "" for none. whole: the pictures at their own sizes,
    [3, H, W] in 8 bits, for an attack that fits them in its own way. Both are empty or have N entries.
    """

    images: Tensor
    class_noun: str
    identifier: str = "sks"
    captions: tuple[str, ...] = field(default=(), kw_only=True)
    whole: tuple[Tensor, ...] = field(default=(), kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3 or not len(self.images):
            raise UsageError(
                f"a subject needs images [N, 3, H, W] with N of 1 or more, not {tuple(self.images.shape)}"
            )
        object.__setattr__(self, "class_noun", as_text("class noun", self.class_noun))
        object.__setattr__(self, "identifier", as_text("identifier", self.identifier))
        if not self.class_noun or not self.identifier:
            raise UsageError("a subject needs a class noun (such as dog) and an identifier (such as sks)")
        for name, entries in (("captions", self.captions), ("whole", self.whole)):
            if len(entries) not in (0, len(self.images)):
                raise UsageError(f"{len(self.images)} pictures cannot have {len(entries)} {name}")

    @classmethod
    def from_folder(
        cls,
        folder: Path | Sequence[Path],
        class_noun: str,
        identifier: str = "sks",
        *,
        size: int,
        captions: bool = False,
        whole: bool = False,
        report: Callable[[str], None] | None = None,
    ) -> Subject:
        """The pictures below `folder`, or several, at size × size pixels: see `load_folder`.

        captions: read the text beside each picture (`dog.txt` for `dog.jpg`), as trainers do. whole: keep the
        pictures at their own sizes too. UnlikenessError for a text that cannot be read.
        """
        squares, texts, full = [], [], []
        folders = [folder] if isinstance(folder, Path) else list(folder)
        for file, rgb in (one for each in folders for one in _read(each, report)):
            squares.append(central_square(rgb, size))
            texts.append(_caption(file) if captions else "")
            if whole:
                full.append(torch.from_numpy(np.rint(rgb * 255).astype(np.uint8)).permute(2, 0, 1))
        found = tuple(texts) if any(texts) else ()
        return cls(torch.stack(squares), class_noun, identifier, captions=found, whole=tuple(full))

    @property
    def instance_name(self) -> str:
        """ "sks dog"."""
        return f"{self.identifier} {self.class_noun}"

    @property
    def class_name(self) -> str:
        """ "a dog", "an apple"."""
        return with_article(self.class_noun)

    @property
    def instance_prompt(self) -> str:
        """The prompt of the subject, c_V: "a photo of sks dog"."""
        return self.prompt()

    @property
    def captioned_prompts(self) -> list[str]:
        """For each picture its caption with the identifier, or `instance_prompt` where it has none.

        `[trigger]` stands for the identifier, as in ai-toolkit. A caption without the identifier begins with
        it.
        """
        found = []
        for caption in self.captions or [""] * len(self.images):
            text = caption.replace("[trigger]", self.identifier).replace("[name]", self.identifier)
            within = not text or self.identifier.lower() in text.lower()
            found.append((text if within else f"{self.identifier} {text}") or self.instance_prompt)
        return found

    @property
    def class_prompt(self) -> str:
        """The prompt of the class, c_class: "a photo of a dog"."""
        return self.prompt(of_class=True)

    def prompt(self, template: str = "a photo of {}", *, of_class: bool = False) -> str:
        """`template` about the subject ("sks dog"), or about any member of its class ("a dog")."""
        if "{}" not in template:
            raise UsageError(f"the prompt {template!r} must contain {{}}, where the subject's name goes")
        return template.replace("{}", self.class_name if of_class else self.instance_name)

    @property
    def digest(self) -> str:
        """SHA-256 of the shape and the 8-bit pixels: identifies the pictures without showing them."""
        return pixel_digest(self.images)

    def as_record(self) -> dict[str, Any]:
        """The subject in a record: its words, and which pictures, without showing them."""
        return {
            "class_noun": self.class_noun,
            "identifier": self.identifier,
            "pictures": len(self.images),
            "pictures_sha256": self.digest,
        }


def load_folder(path: Path, *, size: int | None, report: Callable[[str], None] | None = None) -> Tensor:
    """Images [N, 3, size, size] float32 in [0, 1] of all pictures below `path`, sorted by name.

    They are upright, cropped to the central square and resampled (Lanczos). size None: no resampling; all
    must then have one size. `report` gets a line on each file that cannot be read (default: a logged
    warning). The grid of `unlikeness generate` is left out without a line.

    UnlikenessError if no picture is left; UsageError if `path` does not exist.
    """
    images = [central_square(rgb, size) for rgb in read_folder(path, report=report)]
    if len({image.shape for image in images}) > 1:
        raise UsageError(f"the pictures in {path} differ in size; give the size to bring them to")
    return torch.stack(images)


def read_folder(path: Path, *, report: Callable[[str], None] | None = None) -> Iterator[Rgb]:
    """Pictures [H, W, 3] float32 in [0, 1] below `path` one by one, upright: see `load_folder`."""
    return (rgb for _, rgb in _read(path, report))


def _read(path: Path, report: Callable[[str], None] | None = None) -> Iterator[tuple[Path, Rgb]]:
    tell = report or _log.warning
    none = True
    found = find([Path(path)])
    others = [(file, kind) for _, file, kind in found.others if kind != kinds.VIDEO]
    if unread := kinds.summary(others, "read"):
        tell(f"{path}: {unread}")
    for _, file in found.pictures:
        if is_grid(file):
            continue
        try:
            rgb = open_picture(file).rgb
        except PictureError as error:
            tell(str(error))
            continue
        none = False
        yield file, rgb
    if none:
        raise UnlikenessError(f"{path} holds no picture that can be read; give a folder with pictures")


def _caption(picture: Path) -> str:
    """The text beside a picture, in one line; "" if there is none."""
    file = picture.with_suffix(".txt")
    if not file.exists():
        return ""
    try:
        text = " ".join(read(file, most=_LONGEST).decode("utf-8-sig").split())
        return as_text("caption", text)
    except (UnreadableError, UnicodeDecodeError, UsageError) as error:
        raise UnlikenessError(
            f"{file} is no caption ({reason(error)}); give a short text in UTF-8, or remove it"
        ) from error


def central_square(rgb: Rgb, size: int | None) -> Tensor:
    """[3, size, size] of a picture [H, W, 3], resampled (Lanczos); None keeps the square's own size."""
    from PIL import Image

    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(rgb[top : top + side, left : left + side])
    if size is None or side == size:
        return torch.from_numpy(square).permute(2, 0, 1).contiguous()
    channels = [
        Image.fromarray(np.ascontiguousarray(square[..., i])).resize((size, size), Image.Resampling.LANCZOS)
        for i in range(3)
    ]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels])).clamp(0, 1)
