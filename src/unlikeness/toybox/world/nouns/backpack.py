"""A backpack, from the front."""

from __future__ import annotations

from unlikeness.toybox.world.canvas import Canvas, box, ellipse, heart, shade, star
from unlikeness.toybox.world.identity import Identity


def draw_backpack(canvas: Canvas, who: Identity, mood: float) -> None:
    """Cloth, cut, pocket and badge are the identity; `mood` opens the straps."""
    width = 0.5 + 0.14 * who.shape[0]
    top = -0.62 - 0.14 * who.shape[1]
    roundness = 0.18 + 0.3 * who.shape[2]
    pocket = 0.1 + 0.16 * who.shape[3]
    cloth, dark = who.colour, shade(who.colour, 0.7)

    canvas.line([(-0.16, top), (-0.16, top - 0.17), (0.16, top - 0.17), (0.16, top)], 0.09, dark)
    for side in (-1, 1):
        out = width + 0.1 + 0.1 * mood
        strap = [(side * width * 0.8, top + 0.3), (side * out, 0.15), (side * width * 0.85, 0.75)]
        canvas.line(strap, 0.13, dark)
    canvas.fill_patterned(box(-width, top, width, 0.85, roundness), cloth, who.pattern, who.second, who.pitch)
    canvas.line([(-width * 0.75, top + 0.42), (width * 0.75, top + 0.42)], 0.06, dark)
    low = box(-width * 0.78, 0.36 - pocket, width * 0.78, 0.78, 0.12)
    canvas.fill(low, who.second if who.pattern == "plain" else shade(cloth, 0.85))
    canvas.fill(box(-width * 0.78, 0.36 - pocket, width * 0.78, 0.46 - pocket), who.accent)
    badge_y = top + 0.24 if who.features[1] % 2 else 0.62 - pocket / 2
    badge = who.features[0] % 4
    if badge == 0:
        canvas.fill(star(0, badge_y, 0.19), who.accent)
    elif badge == 1:
        canvas.fill(heart(0, badge_y, 0.16), who.accent)
    elif badge == 2:
        canvas.fill(ellipse(0, badge_y, 0.15, 0.15), who.accent)
    else:
        canvas.fill(box(-0.22, badge_y - 0.09, 0.22, badge_y + 0.09), who.accent)
