"""Pictures with a perturbation that AdvDM found: the targets of the regression term."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unlikeness.errors import UnlikenessError
from unlikeness.foreign import UnreadableError
from unlikeness.progress import Progress, Silent
from unlikeness.protect.methods.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.rid.train.recipe import ProtectorRecipe
from unlikeness.protect.surrogates import Surrogates
from unlikeness.seeds import derive, step_generator
from unlikeness.tensors import read_safetensors, save_tensors

__all__ = ["Pairs", "pairs_of"]

_AT_ONCE = 16


@dataclass(frozen=True)
class Pairs:
    """images [N, 3, S, S] in [0, 1] and the perturbation of each, both float32 on the CPU."""

    images: Tensor
    delta: Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` random pairs."""
        rows = torch.randint(len(self.images), (count,), generator=generator)
        return self.images[rows], self.delta[rows]


def pairs_of(
    recipe: ProtectorRecipe, surrogates: Surrogates, draw: Callable[[int, int, torch.Generator], Tensor], *,
    source: str, folder: Path, progress: Progress | None = None,
) -> Pairs:  # fmt: skip
    """AdvDM against each surrogate in turn. Stored in `folder` batch by batch: a stopped run continues.

    RID follows the mean gradient of an ensemble with momentum. Here each surrogate has its own pictures, so
    that a picture costs the same as with one. All have the size of the largest surrogate's.

    draw: (count, side, generator) -> images. source: names the pictures that `draw` chooses from.
    UnlikenessError if `folder` cannot be written.
    """
    steps, budget = recipe.pair_steps, recipe.pair_budget
    settings = AdvDMSettings(
        budget=budget, steps=steps, step_size=max(budget / 10, 0.5), prompt=recipe.prompt
    )
    side = surrogates.resolution
    asked = json.dumps([repr(settings), recipe.seed, source, [one.fingerprint for one in surrogates]])
    folder = folder / hashlib.sha256(asked.encode()).hexdigest()[:12]
    progress = progress or Silent()
    progress.start(recipe.pairs, "gradient perturbations", "picture")
    parts = []
    for number, start in enumerate(range(0, recipe.pairs, _AT_ONCE)):
        file = folder / f"{number:05}.safetensors"
        if not file.exists():
            surrogate = surrogates[number % len(surrogates)]
            generator = step_generator(derive(recipe.seed, "pairs"), number)
            images = draw(_AT_ONCE, side, generator)
            seeds = [derive(recipe.seed, "pair", number, i) for i in range(_AT_ONCE)]
            delta = AdvDM(surrogate, settings).perturb(images, seeds) - images
            save_tensors({"images": images, "delta": delta.contiguous()}, file)
        parts.append(_read(file, side))
        progress.advance(min(_AT_ONCE, recipe.pairs - start))
    progress.close()
    images, delta = (torch.cat([p[name] for p in parts])[: recipe.pairs] for name in ("images", "delta"))
    return Pairs(images, delta)


def _read(file: Path, side: int) -> dict[str, Tensor]:
    """The pairs of a batch. UnlikenessError if the file does not hold them."""
    try:
        found = read_safetensors(file)
    except UnreadableError as error:
        raise UnlikenessError(f"{file} is damaged ({error}); delete it to make it anew") from error
    shape = (_AT_ONCE, 3, side, side)
    if any(name not in found or tuple(found[name].shape) != shape for name in ("images", "delta")):
        raise UnlikenessError(f"{file} is damaged (it has no such pictures); delete it to make it anew")
    return found
