"""Generated pictures on disk: one PNG each, a grid of all, and a record with the seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.files import replacing
from unlikeness.paths import check_output
from unlikeness.tensors import written

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["GRID", "RECORD", "grid", "is_grid", "new_folder", "save_generated", "to_pil"]

GRID = "grid.png"
RECORD = "generation.json"
_LARGEST = 8192  # pixels: longest side of the pictures of a grid, together


def to_pil(image: Tensor) -> Image:
    """[3, H, W] in [0, 1] -> an 8-bit RGB picture."""
    from PIL import Image

    return Image.fromarray(
        (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    )


def grid(images: Tensor, *, columns: int | None = None, gap: int = 2) -> Image:
    """[B, 3, H, W] in [0, 1] -> one picture, row by row, `gap` white pixels apart.

    columns: None makes it about as wide as high. If a side of it would have more than about 8,192 pixels,
    it is of smaller pictures.
    """
    if not len(images):
        raise UsageError("a grid needs at least one picture")
    sheet = _Sheet(len(images), (images.shape[-1], images.shape[-2]), columns, gap)
    for image in images:
        sheet.put(to_pil(image))
    return sheet.picture


class _Sheet:
    """A grid of `count` pictures of one size (width, height), put in one by one."""

    def __init__(self, count: int, size: tuple[int, int], columns: int | None, gap: int = 2) -> None:
        from PIL import Image

        self.across = columns or round(count**0.5 + 0.499)
        down = -(-count // self.across)
        share = min(_LARGEST / max(self.across * size[0], down * size[1]), 1.0)
        self.tile = max(int(size[0] * share), 1), max(int(size[1] * share), 1)
        self.step = self.tile[0] + gap, self.tile[1] + gap
        sides = self.across * self.step[0] - gap, down * self.step[1] - gap
        self.picture = Image.new("RGB", sides, (255, 255, 255))
        self._filled = 0

    def put(self, picture: Image) -> None:
        """The next one."""
        row, column = divmod(self._filled, self.across)
        small = picture if picture.size == self.tile else picture.resize(self.tile)
        self.picture.paste(small, (column * self.step[0], row * self.step[1]))
        self._filled += 1


def is_grid(file: Path) -> bool:
    """Whether this is the sheet that `save_generated` puts beside its pictures, which is none of them."""
    return file.name == GRID and file.with_name(RECORD).is_file()


def save_generated(
    images: Tensor | Iterable[Tensor],
    folder: Path,
    *,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    columns: int | None = None,
) -> list[Path]:
    """Write `images` [B, 3, H, W], or batches of that shape, each as it comes, as 0000.png, 0001.png, ...
    with grid.png and generation.json.

    The record names each file's prompt and seed, and `settings` (JSON-able). Returns the pictures' files.
    UsageError if the folder exists and is not empty.
    """
    digits = max(len(str(len(seeds) - 1)), 4)
    names = [f"{i:0{digits}}.png" for i in range(len(seeds))]
    pictures = [
        {"file": name, "prompt": prompt, "seed": seed}
        for name, prompt, seed in zip(names, prompts, seeds, strict=True)
    ]
    with new_folder(folder) as made:
        batches = [images] if isinstance(images, Tensor) else images
        sheet: _Sheet | None = None
        for name, image in zip(names, (image for batch in batches for image in batch), strict=True):
            picture = to_pil(image)
            picture.save(made / name)
            sheet = sheet or _Sheet(len(names), picture.size, columns)
            sheet.put(picture)
        if sheet is None:
            raise UsageError("a grid needs at least one picture")
        sheet.picture.save(made / GRID)
        record = json.dumps({**settings, "pictures": pictures}, indent=2, ensure_ascii=False)
        (made / RECORD).write_text(record + "\n", encoding="utf-8")
    return [folder / name for name in names]


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Another name for `folder`, beside it, to write pictures to; the folder appears with all of them or not
    at all.

    UsageError if it exists and is not empty, or nothing can take its place; UnlikenessError if something
    cannot be written.
    """
    check_output(folder)
    target = folder.resolve()
    with written(f"the pictures cannot be written to {folder}", "free space there"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as work:
            work.mkdir()
            yield work
