"""The places a subject can be in: one function each, drawn behind it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unlikeness.toybox.world.canvas import Canvas, box, ellipse

Random = np.random.Generator


def _fir(canvas: Canvas, x: float, foot: float, tall: float, colour: tuple[int, int, int]) -> None:
    canvas.fill(np.array([(x - 0.3 * tall, foot), (x + 0.3 * tall, foot), (x, foot - tall)]), colour)


def _snow(canvas: Canvas, rng: Random) -> None:
    canvas.fill(box(-1, -1, 1, 1), (176, 208, 232))
    horizon = rng.uniform(0.0, 0.25)
    for _ in range(3):
        x, tall = rng.uniform(-0.95, 0.95), rng.uniform(0.5, 0.8)
        _fir(canvas, x, horizon + 0.1, tall, (62, 110, 112))
        _fir(canvas, x, horizon - 0.35 * tall, tall * 0.6, (236, 244, 250))
    canvas.fill(ellipse(rng.uniform(-0.5, 0.5), horizon + 1.1, 2.0, 1.1), (240, 246, 252))


def _beach(canvas: Canvas, rng: Random) -> None:
    canvas.fill(box(-1, -1, 1, 1), (126, 200, 242))
    canvas.fill(ellipse(rng.uniform(-0.8, 0.8), -0.7, 0.2, 0.2), (255, 236, 120))
    sea = rng.uniform(-0.2, 0.05)
    canvas.fill(box(-1, sea, 1, 1), (30, 136, 190))
    canvas.fill(ellipse(rng.uniform(-0.4, 0.4), sea + 1.35, 2.4, 1.1), (240, 214, 150))


def _forest(canvas: Canvas, rng: Random) -> None:
    canvas.fill(box(-1, -1, 1, 1), (58, 104, 54))
    for x in np.linspace(-0.9, 0.9, 5) + rng.uniform(-0.12, 0.12, 5):
        canvas.fill(box(x - 0.09, -1, x + 0.09, 0.6), (84, 62, 44))
    for x in np.linspace(-1, 1, 5) + rng.uniform(-0.12, 0.12, 5):
        canvas.fill(ellipse(x, -0.95, 0.36, 0.34), (38, 78, 40))
    canvas.fill(box(-1, rng.uniform(0.45, 0.6), 1, 1), (106, 138, 60))


def _city(canvas: Canvas, rng: Random) -> None:
    canvas.fill(box(-1, -1, 1, 1), (212, 206, 222))
    for i, x in enumerate(np.linspace(-1.0, 0.6, 5)):
        top = rng.uniform(-0.9, -0.2)
        wall = ((132, 122, 152), (160, 146, 170))[i % 2]
        canvas.fill(box(x, top, x + 0.4, 0.8), wall)
        for y in np.arange(top + 0.14, 0.4, 0.42):
            canvas.fill(box(x + 0.11, y, x + 0.29, y + 0.2), (246, 226, 140))
    canvas.fill(box(-1, 0.55, 1, 1), (92, 90, 102))
    canvas.fill(box(-1, 0.74, 1, 0.8), (226, 222, 214))


def _desert(canvas: Canvas, rng: Random) -> None:
    canvas.fill(box(-1, -1, 1, 1), (250, 196, 128))
    x = rng.choice([-0.78, 0.78]) + rng.uniform(-0.1, 0.1)
    canvas.fill(ellipse(-x, -0.5, 0.24, 0.24), (252, 238, 190))
    canvas.fill(ellipse(rng.uniform(-1, -0.4), 1.1, 1.5, 0.95), (222, 150, 84))
    canvas.fill(ellipse(rng.uniform(0.4, 1), 1.3, 1.5, 0.95), (204, 126, 66))
    canvas.line([(x, 0.5), (x, -0.35)], 0.15, (74, 132, 76))
    canvas.line([(x, 0.1), (x + 0.2, 0.05), (x + 0.2, -0.15)], 0.1, (74, 132, 76))


def _stars(canvas: Canvas, rng: Random) -> None:
    canvas.fill(box(-1, -1, 1, 1), (22, 26, 66))
    for _ in range(9):
        x, y = rng.uniform(-0.95, 0.95), rng.uniform(-0.95, 0.3)
        canvas.fill(ellipse(x, y, 0.05, 0.05, corners=10), (250, 244, 206))
    x = rng.uniform(-0.8, 0.8)
    canvas.fill(ellipse(x, -0.68, 0.2, 0.2), (244, 238, 210))
    canvas.fill(ellipse(x + 0.09, -0.72, 0.17, 0.17), (22, 26, 66))
    canvas.fill(ellipse(rng.uniform(-0.5, 0.5), 1.5, 2.0, 0.95), (38, 52, 60))


def _room(canvas: Canvas, rng: Random) -> None:
    wall = ((236, 206, 190), (206, 224, 204), (240, 226, 180))[int(rng.integers(3))]
    canvas.fill(box(-1, -1, 1, 1), wall)
    x = rng.choice([-0.62, 0.62]) + rng.uniform(-0.08, 0.08)
    canvas.fill(box(x - 0.28, -0.85, x + 0.28, -0.25), (250, 248, 240))
    canvas.fill(box(x - 0.22, -0.79, x + 0.22, -0.31), (142, 196, 232))
    canvas.fill(box(x - 0.03, -0.8, x + 0.03, -0.3), (250, 248, 240))
    canvas.fill(box(-1, 0.45, 1, 1), (164, 112, 74))
    canvas.fill(box(-1, 0.42, 1, 0.48), (250, 248, 240))
    canvas.fill(ellipse(0, 0.82, 0.85, 0.15), (176, 70, 70))


def _water(canvas: Canvas, rng: Random) -> None:
    for i, colour in enumerate(((72, 190, 206), (48, 164, 190), (30, 134, 170), (20, 106, 148))):
        canvas.fill(box(-1, -1 + 0.5 * i, 1, 1), colour)
    canvas.fill(ellipse(rng.uniform(-0.5, 0.5), 1.25, 1.8, 0.5), (218, 198, 140))
    for x in (rng.uniform(-0.95, -0.6), rng.uniform(0.6, 0.95)):
        tall = rng.uniform(0.3, 0.8)
        canvas.line([(x, 0.9), (x - 0.07, 0.9 - tall / 2), (x + 0.05, 0.9 - tall)], 0.1, (44, 130, 84))
    for _ in range(5):
        r = rng.uniform(0.04, 0.08)
        canvas.fill(ellipse(rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.5), r, r), (196, 236, 240))


CONTEXTS: dict[str, Callable[[Canvas, Random], None]] = {
    "in the snow": _snow,
    "on the beach": _beach,
    "in the forest": _forest,
    "in the city": _city,
    "in the desert": _desert,
    "under the stars": _stars,
    "in a room": _room,
    "under water": _water,
}
"""The words of a caption -> the drawing of the place."""
