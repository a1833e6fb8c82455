"""A robot, from the front."""

from __future__ import annotations

from unlikeness.toybox.world.canvas import Canvas, box, ellipse, shade
from unlikeness.toybox.world.identity import Identity


def draw_robot(canvas: Canvas, who: Identity, mood: float) -> None:
    """Plating, proportions, eyes, aerial and panel are the identity; `mood` lifts the arms."""
    head_w = 0.28 + 0.16 * who.shape[0]
    head_h = 0.2 + 0.08 * who.shape[1]
    body_w = 0.36 + 0.14 * who.shape[2]
    roundness = 0.03 + 0.16 * who.shape[3]
    metal, dark = who.colour, shade(who.colour, 0.7)

    canvas.line([(0, -0.5 - head_h), (0, -0.72 - head_h)], 0.06, dark)
    aerial = who.features[0] % 3
    if aerial == 0:
        canvas.fill(ellipse(0, -0.74 - head_h, 0.09, 0.09), who.accent)
    elif aerial == 1:
        canvas.line([(-0.18, -0.74 - head_h), (0.18, -0.74 - head_h)], 0.08, who.accent)
    else:
        canvas.line([(-0.2, -0.8 - head_h), (0, -0.6 - head_h), (0.2, -0.8 - head_h)], 0.07, who.accent)
    for side in (-1, 1):
        hand = (side * (body_w + 0.3), 0.32 - 0.55 * mood)
        canvas.line([(side * body_w, 0.0), (side * (body_w + 0.2), 0.12 - 0.1 * mood), hand], 0.13, dark)
        canvas.fill(ellipse(*hand, 0.11, 0.11), who.second)
        canvas.fill(box(side * 0.2 - 0.11, 0.5, side * 0.2 + 0.11, 0.88, 0.04), dark)
        canvas.fill(box(side * 0.22 - 0.17, 0.82, side * 0.22 + 0.17, 0.98, 0.07), who.second)
    body = box(-body_w, -0.2, body_w, 0.62, roundness)
    canvas.fill_patterned(body, metal, who.pattern, who.second, who.pitch)
    canvas.fill(box(-0.2, 0.0, 0.2, 0.36, 0.04), shade(who.second, 0.8))
    lamp = who.features[1] % 3
    if lamp == 0:
        canvas.fill(ellipse(0, 0.18, 0.12, 0.12), who.accent)
    elif lamp == 1:
        canvas.fill(box(-0.14, 0.08, 0.14, 0.16), who.accent)
        canvas.fill(box(-0.14, 0.22, 0.14, 0.3), who.accent)
    else:
        canvas.fill(box(-0.1, 0.08, 0.1, 0.28), who.accent)
    canvas.fill(box(-0.1, -0.32, 0.1, -0.16), dark)
    canvas.fill(box(-head_w, -0.5 - head_h, head_w, -0.52 + head_h, roundness), metal)
    eye_x = head_w * 0.5
    for side in (-1, 1):
        if who.features[2] % 2:
            canvas.fill(ellipse(side * eye_x, -0.55, 0.11, 0.11), (250, 250, 240))
            canvas.fill(ellipse(side * eye_x, -0.55, 0.055, 0.055), (28, 28, 34))
        else:
            canvas.fill(box(side * eye_x - 0.1, -0.63, side * eye_x + 0.1, -0.47), (28, 28, 34))
            canvas.fill(box(side * eye_x - 0.05, -0.59, side * eye_x + 0.05, -0.51), who.accent)
    canvas.fill(box(-head_w * 0.55, -0.39, head_w * 0.55, -0.33), (28, 28, 34))
