"""What is to stay as it was: the released model answers like the original on pictures of many prompts.

    L = ‖f_θ(z_t, t, c) − sg f_φ(z_t, t, c)‖², z0 drawn by φ from c

Unlike the class term of the protective loss it is taken at the released weights, not along an attack, and
it asks for φ's own answers, so that it costs no diversity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.diffusion.latents import Posterior
from unlikeness.errors import UsageError
from unlikeness.immunize.material import pick
from unlikeness.immunize.rows import ask, noised, wide
from unlikeness.progress import Progress
from unlikeness.prompts import too_long

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Preserve", "draw_general"]


class Preserve:
    """The term's pictures and prompts.

    Args:
        pictures: [K] latents that the original model drew, the one at k from `prompts[k]`.
        batch_size: pictures in a step.
    """

    def __init__(self, pictures: Posterior, prompts: Sequence[str], batch_size: int, precision: str) -> None:
        if len(pictures) != len(prompts) or not len(prompts):
            raise UsageError(f"{len(prompts)} prompts for {len(pictures)} pictures: give one for each")
        self.pictures, self.prompts = pictures, list(prompts)
        self.batch_size, self.precision = batch_size, precision

    def __call__(self, model: TextToImage, original: TextToImage, generator: torch.Generator) -> Tensor:
        """The loss of one batch, with its graph through `model` alone."""
        which = torch.randint(len(self.prompts), (self.batch_size,), generator=generator)
        c = model.embed([self.prompts[i] for i in which.tolist()])
        rows = noised(model.schedule, pick(self.pictures, which, generator), c, generator, reference_c=c)
        [rows] = ask(original, [rows], self.precision)
        return (wide(model.predict(rows.z_t, rows.t, rows.c)) - rows.referenced).square().mean()


def draw_general(
    model: TextToImage, prompts: Sequence[str], *, seed: int, steps: int, progress: Progress | None = None
) -> Posterior:
    """One picture for each prompt, drawn by `model`, encoded: [K]. UsageError for a prompt it cannot read."""
    for prompt in prompts:
        if reason := too_long(model.tokenizer, prompt):
            raise UsageError(reason)
    images = model.generate(prompts, seeds=range(seed, seed + len(prompts)), steps=steps, progress=progress)
    return model.encode_all((images * 255).round() / 255)
