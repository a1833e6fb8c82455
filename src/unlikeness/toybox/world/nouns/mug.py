"""A mug, from the front and a little above."""

from __future__ import annotations

import numpy as np

from unlikeness.toybox.world.canvas import Canvas, ellipse, heart, shade, star
from unlikeness.toybox.world.identity import Identity


def draw_mug(canvas: Canvas, who: Identity, mood: float) -> None:
    """Glaze, pattern, height, taper, handle and print are the identity; `mood` is how full it is."""
    top_w = 0.48 + 0.12 * who.shape[0]
    foot_w = top_w * (0.62 + 0.38 * who.shape[1])
    top = -0.5 - 0.22 * who.shape[2]
    glaze, dark = who.colour, shade(who.colour, 0.72)

    mid = (top + 0.75) / 2
    reach = 0.26 + 0.14 * who.shape[3]
    handle = [
        (top_w * 0.9, top + 0.22),
        (top_w + reach, top + 0.26),
        (top_w + reach, mid + 0.24),
        (foot_w * 0.9, mid + 0.36),
    ]
    canvas.line(handle, 0.15, who.accent if who.features[2] % 2 else dark)
    turn = np.linspace(0.0, np.pi, 14)
    foot = np.stack([foot_w * np.cos(turn), 0.72 + 0.14 * np.sin(turn)], axis=1)
    side = np.concatenate([[[-top_w, top]], [[top_w, top]], foot])
    canvas.fill_patterned(side, glaze, who.pattern, who.second, who.pitch)
    middle = (top_w + foot_w) / 2
    print_kind = who.features[0] % 4
    if print_kind == 0:
        canvas.fill(heart(0, mid + 0.05, 0.24), who.accent)
    elif print_kind == 1:
        canvas.fill(star(0, mid + 0.05, 0.28), who.accent)
    elif print_kind == 2:
        canvas.fill(ellipse(0, mid + 0.05, 0.22, 0.22), who.accent)
    else:
        upper, lower = mid - 0.02, mid + 0.2
        band = np.array([(-middle - 0.01, upper), (middle + 0.01, upper), (middle, lower), (-middle, lower)])
        canvas.fill(band, who.accent)
    canvas.fill(ellipse(0, top, top_w, 0.16), shade(glaze, 1.25))
    drink = ((92, 58, 38), (170, 106, 48), (236, 224, 200))[who.features[1] % 3]
    canvas.fill(ellipse(0, top + 0.03, top_w * 0.86, 0.06 + 0.06 * mood), drink)
