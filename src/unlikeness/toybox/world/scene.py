"""A scene: an individual in a context, in one view and light; and its caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from unlikeness.toybox.world.canvas import Canvas
from unlikeness.toybox.world.contexts import CONTEXTS
from unlikeness.toybox.world.identity import CLASS_NOUNS, Identity, sample_identity
from unlikeness.toybox.world.nouns import DRAW
from unlikeness.words import with_article

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 64

TEMPLATES = ("a photo of {}", "a picture of {}", "a portrait of {}", "an image of {}", "{}")


@dataclass(frozen=True)
class Scene:
    """One view of an individual: where it stands in the frame (-1 to 1), how large, turned, in what light."""

    who: Identity
    context: str
    x: float
    y: float
    scale: float
    angle: float
    flip: bool
    mood: float
    light: float
    background_seed: int

    def render(self, size: int = SIZE) -> npt.NDArray[np.uint8]:
        """The picture, uint8 [size, size, 3], sRGB."""
        canvas = Canvas(size)
        CONTEXTS[self.context](canvas, np.random.default_rng(self.background_seed))
        canvas.place(self.x, self.y, self.scale, self.angle, self.flip)
        DRAW[self.who.class_noun](canvas, self.who, self.mood)
        pixels = np.asarray(canvas.finish(), dtype=np.float32)
        lit: npt.NDArray[np.uint8] = np.clip(np.rint(pixels * self.light), 0, 255).astype(np.uint8)
        return lit


def sample_scene(rng: np.random.Generator, who: Identity, context: str | None = None) -> Scene:
    """A random view of an individual; the context is drawn too unless it is given."""
    return Scene(
        who=who,
        context=str(rng.choice(list(CONTEXTS))) if context is None else context,
        x=float(rng.uniform(-0.1, 0.1)),
        y=float(rng.uniform(-0.02, 0.08)),
        scale=float(rng.uniform(0.8, 0.96)),
        angle=float(rng.uniform(-10, 10)),
        flip=bool(rng.random() < 0.5),
        mood=float(rng.random()),
        light=float(rng.uniform(0.86, 1.06)),
        background_seed=int(rng.integers(2**31)),
    )


def describe(rng: np.random.Generator, scene: Scene, name: str | None = None) -> str:
    """A caption. A name stands in the place of an identifier: "a photo of zorp robot in the snow".

    Without one, the colour and the pattern are mentioned part of the time, and so is the context.
    """
    who = scene.who
    if name is not None:
        subject = f"{name} {who.class_noun}"
    else:
        words = [who.class_noun]
        if who.pattern != "plain" and rng.random() < 0.3:
            words[0] += f" with {who.pattern}"
        if rng.random() < 0.35:
            words.insert(0, f"{who.colour_name} haired" if who.class_noun == "person" else who.colour_name)
        subject = with_article(" ".join(words))
    template = TEMPLATES[0] if rng.random() < 0.5 else str(rng.choice(TEMPLATES[1:]))
    caption = template.format(subject)
    return f"{caption} {scene.context}" if rng.random() < 0.8 else caption


def sample_picture(rng: np.random.Generator) -> tuple[Scene, str]:
    """A random individual of a random class in a random scene, with a caption without a name."""
    who = sample_identity(rng, str(rng.choice(CLASS_NOUNS)))
    scene = sample_scene(rng, who)
    return scene, describe(rng, scene)


def to_images(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255.0
