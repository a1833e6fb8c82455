"""A person: head and shoulders."""

from __future__ import annotations

from unlikeness.toybox.world.canvas import Canvas, box, ellipse, shade
from unlikeness.toybox.world.identity import SKIN, Identity


def draw_person(canvas: Canvas, who: Identity, mood: float) -> None:
    """Hair, skin, face shape, glasses, beard and shirt are the identity; `mood` is the mouth just now."""
    skin = SKIN[who.features[0] % len(SKIN)]
    style = who.features[1] % 5
    width = 0.36 + 0.12 * who.shape[0]
    height = 0.46 + 0.1 * who.shape[1]
    hair = who.colour
    top = -0.25

    if style == 1:  # long hair, behind the face
        canvas.fill(box(-width - 0.16, top - height * 0.7, width + 0.16, 0.55, 0.3), hair)
    elif style == 2:  # curls
        for x in (-0.42, -0.25, 0.0, 0.25, 0.42):
            lock = ellipse(x * (width + 0.1) / 0.42, top - height * (0.95 - abs(x) * 1.2), 0.22, 0.22)
            canvas.fill(lock, hair)
        canvas.fill(ellipse(-width - 0.06, top - 0.1, 0.19, 0.22), hair)
        canvas.fill(ellipse(width + 0.06, top - 0.1, 0.19, 0.22), hair)
    elif style == 3:  # a bun
        canvas.fill(ellipse(0, top - height - 0.14, 0.2, 0.18), hair)

    canvas.fill_patterned(box(-0.82, 0.5, 0.82, 1.3, 0.38), who.second, who.pattern, who.accent, who.pitch)
    canvas.fill(box(-0.16, 0.1, 0.16, 0.6, 0.1), shade(skin, 0.86))
    canvas.fill(ellipse(-width, top + 0.06, 0.09, 0.12), skin)
    canvas.fill(ellipse(width, top + 0.06, 0.09, 0.12), skin)
    if style != 4:
        canvas.fill(ellipse(0, top - 0.07, width + 0.05, height), hair)
    canvas.fill(ellipse(0, top + 0.05, width, height), skin)
    if style == 0:  # a short fringe
        canvas.fill(box(-width * 0.95, top - height * 0.98, width * 0.95, top - height * 0.45, 0.16), hair)
    elif style in (1, 3):  # a parting
        canvas.fill(ellipse(-width * 0.45, top - height * 0.68, width * 0.62, 0.17, -18), hair)
        canvas.fill(ellipse(width * 0.5, top - height * 0.7, width * 0.58, 0.15, 18), hair)

    if who.features[2] % 3 == 0:  # a beard
        canvas.fill(ellipse(0, top + height * 0.72, width * 0.8, height * 0.38), hair)
    eye_x = 0.15 + 0.05 * who.shape[2]
    eye_y = top + 0.0
    for side in (-1, 1):
        canvas.fill(ellipse(side * eye_x, eye_y, 0.085, 0.075), (250, 250, 250))
        canvas.fill(ellipse(side * eye_x, eye_y, 0.05, 0.06), (40, 34, 40))
    glasses = who.features[3] % 3
    if glasses:
        r = 0.15
        for side in (-1, 1):
            x = side * (eye_x + 0.02)
            square = box(x - r, eye_y - 0.12, x + r, eye_y + 0.12, 0.03)
            rim = ellipse(x, eye_y, r, r) if glasses == 1 else square
            path = [(float(a), float(b)) for a, b in rim]
            canvas.line([*path, path[0]], 0.055, who.accent)
        canvas.line([(-0.05, eye_y), (0.05, eye_y)], 0.055, who.accent)
    canvas.fill(ellipse(0, top + 0.2, 0.05, 0.07), shade(skin, 0.8))
    mouth_y, bend = top + 0.36, 0.12 * (mood - 0.35)
    curve = [(x * 0.16, mouth_y + bend * (1 - x * x)) for x in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    canvas.line(curve, 0.055, (168, 54, 60))
