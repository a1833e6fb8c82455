"""A dog, standing, seen from the side."""

from __future__ import annotations

from unlikeness.toybox.world.canvas import Canvas, box, ellipse, shade
from unlikeness.toybox.world.identity import Identity


def draw_dog(canvas: Canvas, who: Identity, mood: float) -> None:
    """Coat, pattern, length of leg, ear and snout, and the collar are the identity; `mood` lifts the tail."""
    length = 0.5 + 0.1 * who.shape[0]
    depth = 0.24 + 0.09 * who.shape[1]
    leg = 0.34 + 0.2 * who.shape[2]
    snout = 0.16 + 0.1 * who.shape[3]
    ear = 0.22 + 0.14 * who.shape[4]
    coat, dark = who.colour, shade(who.colour, 0.72)
    paws = who.second if who.features[0] % 2 else coat

    canvas.line([(length - 0.08, -0.05), (length + 0.24, -0.25 - 0.3 * mood)], 0.13, coat)
    for x in (-length + 0.24, length - 0.08):
        canvas.fill(box(x - 0.09, 0.1, x + 0.1, 0.18 + depth + leg, 0.08), dark)
    for x in (-length + 0.06, length - 0.26):
        canvas.fill(box(x - 0.1, 0.1, x + 0.1, 0.2 + depth + leg, 0.08), coat)
        canvas.fill(box(x - 0.13, 0.08 + depth + leg, x + 0.1, 0.2 + depth + leg, 0.06), paws)
    body = box(-length - 0.04, 0.08 - depth, length + 0.04, 0.12 + depth, depth)
    canvas.fill_patterned(body, coat, who.pattern, who.second, who.pitch)
    head_x, head_y = -length - 0.02, -0.32
    canvas.line([(-length + 0.12, 0.0), (head_x + 0.05, head_y + 0.1)], 0.32, coat)
    canvas.line([(-length + 0.2, -0.16), (-length - 0.14, 0.06)], 0.12, who.accent)
    canvas.fill(ellipse(head_x, head_y, 0.3, 0.27), coat)
    muzzle = ellipse(head_x - snout, head_y + 0.09, 0.23, 0.14)
    canvas.fill(muzzle, who.second if who.features[1] % 2 else coat)
    canvas.fill(ellipse(head_x - snout - 0.19, head_y + 0.04, 0.075, 0.065), (36, 30, 34))
    if who.features[2] % 3 == 0:  # a patch over the eye
        canvas.fill(ellipse(head_x - 0.08, head_y - 0.07, 0.14, 0.13), who.second)
    canvas.fill(ellipse(head_x - 0.09, head_y - 0.06, 0.07, 0.07), (248, 248, 248))
    canvas.fill(ellipse(head_x - 0.1, head_y - 0.06, 0.045, 0.05), (30, 26, 30))
    canvas.fill(ellipse(head_x + 0.16, head_y + ear * 0.45 - 0.05, 0.11, ear, -14), dark)
