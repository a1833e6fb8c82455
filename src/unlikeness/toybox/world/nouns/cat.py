"""A cat, sitting, seen from the front."""

from __future__ import annotations

import numpy as np

from unlikeness.toybox.world.canvas import Canvas, ellipse, shade
from unlikeness.toybox.world.identity import COLOURS, Identity


def draw_cat(canvas: Canvas, who: Identity, mood: float) -> None:
    """Coat, pattern, ears, bib, eyes and collar are the identity; `mood` swings the tail."""
    wide = 0.4 + 0.12 * who.shape[0]
    ear = 0.24 + 0.16 * who.shape[1]
    face = 0.4 + 0.09 * who.shape[2]
    coat = who.colour
    eyes = COLOURS[("green", "yellow", "blue")[who.features[0] % 3]]

    swing = 0.25 * (mood - 0.5)
    tail = [(wide - 0.1, 0.8), (wide + 0.28, 0.7), (wide + 0.36, 0.35 + swing), (wide + 0.2, 0.1 + swing)]
    canvas.line(tail, 0.15, shade(coat, 0.8))
    canvas.fill_patterned(ellipse(0, 0.46, wide + 0.06, 0.52), coat, who.pattern, who.second, who.pitch)
    if who.features[1] % 2:  # a bib
        canvas.fill(ellipse(0, 0.4, wide * 0.5, 0.32), who.second)
    for side in (-1, 1):
        canvas.fill(ellipse(side * 0.2, 0.9, 0.17, 0.1), shade(coat, 1.12))
        tip = (side * (face - 0.02), -0.5 - ear)
        outer = np.array([(side * (face - 0.02), -0.3), tip, (side * 0.08, -0.58)])
        canvas.fill(outer, coat)
        inner = outer * 0.62 + outer.mean(axis=0) * 0.38
        canvas.fill(inner, who.second)
    canvas.fill(ellipse(0, -0.25, face, 0.36), coat)
    if who.features[2] % 2:  # a mask
        canvas.fill(ellipse(0, -0.08, face * 0.55, 0.19), who.second)
    canvas.line([(-0.2, 0.13), (0, 0.17), (0.2, 0.13)], 0.1, who.accent)
    for side in (-1, 1):
        canvas.fill(ellipse(side * 0.18, -0.3, 0.105, 0.1), eyes)
        canvas.fill(ellipse(side * 0.18, -0.3, 0.045, 0.095), (20, 20, 24))
        for dy in (-0.04, 0.06):
            whisker = [(side * 0.16, -0.1 + dy / 2), (side * (face + 0.16), -0.12 + dy * 1.6)]
            canvas.line(whisker, 0.04, (250, 250, 250))
    canvas.fill(np.array([(-0.06, -0.17), (0.06, -0.17), (0.0, -0.1)]), (222, 120, 130))
