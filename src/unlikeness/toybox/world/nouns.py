"""How each class noun is drawn: one function each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unlikeness.toybox.world.canvas import Canvas, box, ellipse, heart, shade, star
from unlikeness.toybox.world.identity import COLOURS, SKIN, Identity


def draw_person(canvas: Canvas, who: Identity, mood: float) -> None:
    """Head and shoulders. Identity: hair, skin, face, glasses, beard and shirt. `mood` bends the mouth."""
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


def draw_dog(canvas: Canvas, who: Identity, mood: float) -> None:
    """From the side. Identity: coat, pattern, leg, ear, snout and collar. `mood` lifts the tail."""
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


def draw_cat(canvas: Canvas, who: Identity, mood: float) -> None:
    """From the front. Identity: coat, pattern, ears, bib, eyes and collar. `mood` swings the tail."""
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


def draw_robot(canvas: Canvas, who: Identity, mood: float) -> None:
    """From the front. Identity: plating, proportions, eyes, aerial and panel. `mood` lifts the arms."""
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


def draw_backpack(canvas: Canvas, who: Identity, mood: float) -> None:
    """From the front. Identity: cloth, cut, pocket and badge. `mood` opens the straps."""
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


def draw_mug(canvas: Canvas, who: Identity, mood: float) -> None:
    """From above the rim. Identity: glaze, pattern, height, taper, handle and print. `mood` fills it."""
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


DRAW: dict[str, Callable[[Canvas, Identity, float], None]] = {
    "person": draw_person,
    "dog": draw_dog,
    "cat": draw_cat,
    "robot": draw_robot,
    "backpack": draw_backpack,
    "mug": draw_mug,
}
"""class noun -> draw(canvas, identity, mood); mood in [0, 1] is the expression of the moment."""
