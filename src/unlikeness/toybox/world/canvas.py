"""A small drawing surface: filled shapes in a subject's own coordinates, antialiased by supersampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = npt.NDArray[np.float64]

SUPERSAMPLING = 4


def ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, *, corners: int = 40) -> Points:
    """Outline of an ellipse turned by `angle` degrees, [corners, 2]."""
    turn = np.linspace(0.0, 2.0 * math.pi, corners, endpoint=False)
    x, y = rx * np.cos(turn), ry * np.sin(turn)
    a = math.radians(angle)
    return np.stack([cx + x * math.cos(a) - y * math.sin(a), cy + x * math.sin(a) + y * math.cos(a)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> Points:
    """Outline of a rectangle with rounded corners, [n, 2]."""
    radius = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    if radius <= 0:
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    parts = []
    quarter = np.linspace(0.0, math.pi / 2, 8)
    corners = ((x1, y1, 0), (x0, y1, 1), (x0, y0, 2), (x1, y0, 3))
    for x, y, k in corners:
        cx = x - radius if x == x1 else x + radius
        cy = y - radius if y == y1 else y + radius
        turn = quarter + k * math.pi / 2
        parts.append(np.stack([cx + radius * np.cos(turn), cy + radius * np.sin(turn)], axis=1))
    return np.concatenate(parts)


def star(cx: float, cy: float, radius: float) -> Points:
    """Outline of a five-pointed star, [10, 2]."""
    turn = np.arange(10) * math.pi / 5 - math.pi / 2
    r = np.where(np.arange(10) % 2 == 0, radius, 0.45 * radius)
    return np.stack([cx + r * np.cos(turn), cy + r * np.sin(turn)], axis=1)


def heart(cx: float, cy: float, radius: float) -> Points:
    """Outline of a heart, [30, 2]."""
    t = np.linspace(0.0, 2.0 * math.pi, 30, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([cx + radius * x / 16, cy + radius * y / 16], axis=1)


def shade(colour: Colour, factor: float) -> Colour:
    """The colour darkened (`factor` < 1) or lightened towards white (`factor` > 1)."""
    if factor <= 1.0:
        r, g, b = (round(c * factor) for c in colour)
    else:
        r, g, b = (round(c + (255 - c) * (factor - 1.0)) for c in colour)
    return (min(r, 255), min(g, 255), min(b, 255))


class Canvas:
    """A square picture of `size` pixels. Coordinates run from -1 to 1, y downwards, moved by `place`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.side = size * SUPERSAMPLING
        self.image = Image.new("RGB", (self.side, self.side))
        self.draw = ImageDraw.Draw(self.image)
        self.matrix = np.eye(2)
        self.offset = np.zeros(2)

    def place(self, x: float, y: float, scale: float, angle: float = 0.0, flip: bool = False) -> None:
        """Draw from now on in a frame centred at (x, y), `scale` times as large, turned by `angle` [°]."""
        a = math.radians(angle)
        turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        self.matrix = scale * turn @ np.diag([-1.0 if flip else 1.0, 1.0])
        self.offset = np.array([x, y])

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        moved = points @ self.matrix.T + self.offset
        return [(float(x), float(y)) for x, y in (moved + 1.0) * (self.side / 2)]

    def fill(self, points: Points, colour: Colour) -> None:
        """Fill the outline `points`, [n, 2]."""
        self.draw.polygon(self._pixels(points), fill=colour)

    def line(self, points: Sequence[tuple[float, float]], width: float, colour: Colour) -> None:
        """A polyline with round joints, `width` in the units of the frame."""
        scale = math.sqrt(abs(float(np.linalg.det(self.matrix))))
        pixels = max(1, round(width * scale * self.side / 2))
        path = self._pixels(np.array(points, dtype=np.float64))
        self.draw.line(path, fill=colour, width=pixels, joint="curve")
        r = pixels / 2
        for x, y in (path[0], path[-1]):
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def fill_patterned(
        self, points: Points, colour: Colour, pattern: str, second: Colour, pitch: float
    ) -> None:
        """Fill the outline and lay a pattern over it, in the frame of the subject.

        `pattern` is "plain", "stripes", "bands", "spots" or "checks"; `pitch` its period.
        """
        self.fill(points, colour)
        if pattern == "plain":
            return
        below = self.image.copy()
        x0, y0 = points.min(axis=0)
        x1, y1 = points.max(axis=0)
        if pattern == "stripes":
            for x in np.arange(x0 + pitch / 2, x1, pitch):
                self.fill(box(x, y0, x + pitch / 2, y1), second)
        elif pattern == "bands":
            for y in np.arange(y0 + pitch / 2, y1, pitch):
                self.fill(box(x0, y, x1, y + pitch / 2), second)
        elif pattern == "spots":
            for row, y in enumerate(np.arange(y0 + pitch / 2, y1, pitch)):
                for x in np.arange(x0 + (0.25 + 0.5 * (row % 2)) * pitch, x1, pitch):
                    self.fill(ellipse(x, y, 0.3 * pitch, 0.3 * pitch, corners=16), second)
        elif pattern == "checks":
            for row, y in enumerate(np.arange(y0, y1, pitch)):
                for x in np.arange(x0 + (row % 2) * pitch, x1, 2 * pitch):
                    self.fill(box(x, y, x + pitch, y + pitch), second)
        else:
            raise ValueError(f"unknown pattern {pattern!r}")
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(self._pixels(points), fill=255)
        below.paste(self.image, mask=mask)
        self.image = below
        self.draw = ImageDraw.Draw(self.image)

    def finish(self) -> Image.Image:
        """The picture at its final size."""
        return self.image.reduce(SUPERSAMPLING)
