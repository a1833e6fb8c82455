"""Training pictures of a protector: renders of the toybox, "dead leaves", and the user's own.

A network that has only seen flat renders changes skies and skin visibly. Photographs are not ours to ship,
but their statistics are free. "Dead leaves" (Lee, Mumford & Huang 2001) are overlapping discs and polygons
with sizes from a power law. Filled with gradients and 1/f textures, some out of focus, with grain on top,
they have the edges, scales and flat areas of photographs, and networks learn from them (Baradad et al. 2021).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.endings import follow_parent
from unlikeness.errors import PictureError, UnlikenessError, UsageError, one_line
from unlikeness.files import force, unfinished
from unlikeness.pictures.finding import find_pictures
from unlikeness.progress import Progress, Silent
from unlikeness.protect.rid.train.recipe import ProtectorRecipe, check_sources

__all__ = ["Bank", "Pictures", "dead_leaves", "drawn_bank", "photo_bank"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
_SEEDS = {"leaves": 8_000_001, "renders": 8_000_002}

_FEW = 64
"""Most pictures that one process draws: starting more processes would take longer."""


@dataclass(frozen=True)
class Bank:
    """Square pictures, uint8 [N, S, S, 3], memory-mapped from a file that is made once.

    name: the file's; it differs for another seed, count, size or source.
    """

    pixels: Pixels
    name: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """[count, 3, side, side] in [0, 1]: random pictures and crops at random scales, half mirrored."""
        size = self.pixels.shape[1]
        out = []
        for _ in range(count):
            row = int(torch.randint(len(self), (1,), generator=generator))
            zoom, at_y, at_x, flip = (float(v) for v in torch.rand(4, generator=generator))
            cut = round(min(size, max(side / 2, 16.0)) * (1 - zoom) + size * zoom)
            y, x = round(at_y * (size - cut)), round(at_x * (size - cut))
            part = np.array(self.pixels[row, y : y + cut, x : x + cut])
            image = torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255
            if cut != side:
                image = F.interpolate(image, (side, side), mode="bilinear", antialias=True)
            out.append(image.flip(3) if flip < 0.5 else image)
        return torch.cat(out).clamp(0, 1)


class Pictures:
    """The pictures of a training: the drawn ones half and half, and the user's own with their share.

    UsageError: see `check_sources`.
    """

    def __init__(self, recipe: ProtectorRecipe, images: Sequence[Path], side: int) -> None:
        check_sources(recipe, images)
        self.recipe, self.images, self.side = recipe, images, side
        self.banks: list[Bank] = []
        named = (("renders", recipe.renders), ("leaves", recipe.leaves))
        self._drawn = [(kind, count) for kind, count in named if count]
        share = recipe.photos_share if images else 0.0
        parts = [
            (_drawn_name(*one, side, recipe.seed), (1 - share) / len(self._drawn)) for one in self._drawn
        ]
        if images:
            name = _photo_name([file for _, file in find_pictures(images)], side)
            parts.append((name, share if self._drawn else 1.0))
        self._shares = torch.tensor([share for _, share in parts])
        self.source = ", ".join(f"{name} {share:g}" for name, share in parts)
        """Distinguishes these pictures from others, also before they are gathered."""

    def gather(
        self, folder: Path, progress: Progress | None = None, report: Callable[[str], None] | None = None
    ) -> Pictures:
        """Draw or read all banks into `folder`. report: receives a line on unreadable pictures."""
        self.banks = [
            drawn_bank(*one, self.side, seed=self.recipe.seed, folder=folder, progress=progress)
            for one in self._drawn
        ]
        if self.images:
            found = photo_bank(self.images, self.side, folder=folder, progress=progress, report=report)
            self.banks.append(found)
        return self

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """[count, 3, side, side] in [0, 1]."""
        which = torch.multinomial(self._shares, count, replacement=True, generator=generator).tolist()
        return torch.cat(
            [bank.draw(which.count(i), side, generator) for i, bank in enumerate(self.banks) if i in which]
        )


def drawn_bank(
    kind: str, count: int, size: int, *, seed: int, folder: Path, progress: Progress | None = None
) -> Bank:
    """Scenes of the toybox's world ("renders") or `dead_leaves` ("leaves"); many are drawn by all cores."""
    name = _drawn_name(kind, count, size, seed)
    if not (folder / f"{name}.npy").exists():
        progress = progress or Silent()
        progress.start(count, "drawing pictures", "picture")
        one = partial(_draw, kind, seed, size)
        if count <= _FEW:
            _write(folder, name, size, map(one, range(count)), progress)
        else:
            with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), follow_parent) as pool:
                _write(folder, name, size, pool.map(one, range(count), chunksize=16), progress)
    return _open(folder, name)


def _draw(kind: str, seed: int, size: int, index: int) -> Pixels:
    rng = np.random.default_rng((_SEEDS[kind], seed, index))
    if kind == "leaves":
        return dead_leaves(rng, size)
    from unlikeness.toybox.world import sample_picture

    return sample_picture(rng)[0].render(size)


def _drawn_name(kind: str, count: int, size: int, seed: int) -> str:
    return f"{kind}-{seed}-{count}-{size}"


def _photo_name(files: Sequence[Path], size: int) -> str:
    """The name of a bank of these files as they are now."""
    stamp = "\n".join(f"{f.resolve()} {f.stat().st_mtime_ns} {f.stat().st_size}" for f in files)
    return f"photos-{hashlib.sha256(os.fsencode(stamp)).hexdigest()[:12]}-{size}"


def photo_bank(
    paths: Sequence[Path], size: int, *, folder: Path, progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> Bank:  # fmt: skip
    """The centre squares, at `size` px, of the pictures below `paths`.

    Unreadable pictures are left out, and `report` receives a line on them. A picture that has changed is read
    again. UsageError if nothing can be read.
    """
    from unlikeness.pictures import kinds
    from unlikeness.pictures.finding import find

    found = find(paths)
    files = [file for _, file in found.pictures]
    others = [(file, kind) for _, file, kind in found.others if kind != kinds.VIDEO]
    if report is not None and (unread := kinds.summary(others, "read")):
        report(f"--images: {unread}")
    name = _photo_name(files, size)
    reasons: list[str] = []
    if not (folder / f"{name}.npy").exists():
        progress = progress or Silent()
        progress.start(len(files), "reading pictures", "picture")
        if not _write(folder, name, size, (_square(file, size, reasons) for file in files), progress):
            raise UsageError(f"--images: none of {len(files)} files can be read as a picture; name others")
    bank = _open(folder, name)
    if report is not None and len(bank) < len(files):
        left = len(files) - len(bank)
        first = f" ({one_line(reasons[0])})" if reasons else ""
        report(
            f"--images: {left} of {len(files)} pictures cannot be read and are left out{first}; once they "
            f"can, delete {folder / name}.npy"
        )
    return bank


def _square(file: Path, size: int, reasons: list[str]) -> Pixels | None:
    from unlikeness.pictures import open_picture

    try:
        image = torch.from_numpy(open_picture(file).rgb).permute(2, 0, 1)[None]
    except PictureError as error:
        reasons.append(str(error))
        return None
    side = min(image.shape[-2:])
    y, x = (image.shape[2] - side) // 2, (image.shape[3] - side) // 2
    image = image[:, :, y : y + side, x : x + side]
    image = F.interpolate(image, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
    return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()


def dead_leaves(rng: np.random.Generator, size: int) -> Pixels:
    """One picture of overlapping shapes, uint8 [size, size, 3]."""
    y, x = (np.indices((size, size)) / size).astype(np.float32)
    palette = rng.random((6, 3)) ** rng.uniform(0.6, 1.8)
    image: npt.NDArray[np.floating] = _gradient(rng, x, y, palette)
    smooth = rng.random() < 0.25  # a sky, a wall, skin: few large shapes
    for radius in np.sort(_sizes(rng, 4 if smooth else int(rng.integers(20, 120))))[::-1]:
        shape = _shape(rng, x, y, float(radius), size)
        fill: npt.NDArray[np.floating] = _gradient(rng, x, y, palette)
        if rng.random() < 0.5:
            fill = fill + rng.uniform(0.02, 0.25) * _pink(rng, size)[..., None] * rng.uniform(0.3, 1, 3)
        image = image + shape[..., None] * (fill - image)
    if rng.random() < 0.7:
        image = image * (1 + rng.uniform(0, 0.3) * _pink(rng, size)[..., None])  # light and shadow
    image = image + rng.normal(0, rng.choice([0, 0.005, 0.015, 0.03]), image.shape)  # grain
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _sizes(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Radii in picture sides, density proportional to r^-3, from 0.025 to 0.6."""
    low, high = 0.025**-2, 0.6**-2
    return (low + rng.random(count) * (high - low)) ** -0.5


def _shape(rng: np.random.Generator, x: Floats, y: Floats, radius: float, size: int) -> Floats:
    """Coverage in [0, 1] by a rotated ellipse or rectangle, sharp or out of focus."""
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.4))
    dx, dy = x - rng.random(), y - rng.random()
    u = (np.cos(angle) * dx + np.sin(angle) * dy) / (radius * stretch)
    v = (np.cos(angle) * dy - np.sin(angle) * dx) / (radius / stretch)
    far = np.hypot(u, v) if rng.random() < 0.6 else np.maximum(np.abs(u), np.abs(v))
    edge = max(radius * rng.choice([0.0, 0.0, 0.2, 0.8]), 1 / size)
    cover: Floats = np.clip((1 - far) * radius / edge + 0.5, 0, 1).astype(np.float32)
    return cover


def _gradient(rng: np.random.Generator, x: Floats, y: Floats, palette: npt.NDArray[np.float64]) -> Floats:
    """A smooth transition between two colours of the palette."""
    a, b = palette[rng.integers(len(palette))], palette[rng.integers(len(palette))]
    angle, reach = rng.uniform(0, 2 * np.pi), rng.random() ** 2
    along = (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) + 0.5)[..., None] * reach
    return np.asarray(a + along * (b - a), dtype=np.float32)


def _pink(rng: np.random.Generator, size: int) -> Floats:
    """Noise with amplitude 1/f^a, a from 0.7 to 1.6; zero mean, unit variance, [size, size]."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    with np.errstate(divide="ignore"):
        spectrum *= np.where((fy == 0) & (fx == 0), 0, np.hypot(fy, fx) ** -rng.uniform(0.7, 1.6))
    noise = np.fft.irfft2(spectrum, (size, size))
    unit: Floats = (noise / noise.std()).astype(np.float32)
    return unit


def _write(folder: Path, name: str, size: int, pictures: Iterable[Pixels | None], progress: Progress) -> int:
    """Write a bank picture by picture, in one move at the end; None is left out. Returns its number.

    Without any picture there is no file. A memory map would end the process on a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with contextlib.closing(progress), unfinished(folder / f"{name}.npy") as part:
        with part.open("wb") as file:
            _head(file, count, size)
            for picture in pictures:
                if picture is not None:
                    file.write(picture.tobytes())
                    count += 1
                progress.advance()
            file.seek(0)
            _head(file, count, size)  # as long as before: numpy leaves room for a larger count
            force(file)
        if count:
            part.replace(folder / f"{name}.npy")
    return count


def _head(file: BinaryIO, count: int, size: int) -> None:
    shape = (count, size, size, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _open(folder: Path, name: str) -> Bank:
    """UnlikenessError if the file is damaged."""
    path = folder / f"{name}.npy"
    try:
        return Bank(np.load(path, mmap_mode="r"), name)
    except (ValueError, EOFError) as error:
        raise UnlikenessError(
            f"{path} is damaged ({one_line(str(error))}); delete it to make it anew"
        ) from error
