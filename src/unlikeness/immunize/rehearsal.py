"""A run before the run: everything is asked for as it will be, and no picture is drawn or encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.diffusion.model import TextToImage
from unlikeness.diffusion.sampling import make_solver
from unlikeness.immunize.attackers import Mixture
from unlikeness.immunize.data import Kept, keep
from unlikeness.immunize.preservation import draw_general

if TYPE_CHECKING:
    from unlikeness.immunize.batch import Rows
    from unlikeness.immunize.registry import Defence
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["Drawing", "Rehearsal", "anew", "rehearse"]


@dataclass(frozen=True)
class Drawing:
    """One call of `generate`: so many pictures in batches of `batch_size`, in so many U-Net calls a batch.

    guided: both halves of guidance go through the U-Net.
    """

    pictures: int
    batch_size: int
    calls_a_batch: int
    guided: bool


class Rehearsal(TextToImage):
    """The same model, but `generate` writes down what it was asked for and gives black pictures, and
    `encode_all` gives latents of no picture: random, of the right number and shape."""

    def __init__(self, model: TextToImage) -> None:
        super().__init__(
            autoencoder=model.autoencoder, denoiser=model.denoiser, conditioner=model.conditioner,
            scheduler=model.scheduler, family=model.family, default_guidance=model.default_guidance,
            source=model.source, carried=model.carried,
        )  # fmt: skip
        self.drawings: list[Drawing] = []

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        steps: int = 25,
        guidance: float | None = None,
        negative_prompt: str | Sequence[str] = "",
        batch_size: int = 16,
        sampler: str = "dpm++",
        progress: Progress | None = None,
    ) -> Tensor:
        """Black pictures."""
        solver: Any = make_solver(self.scheduler, sampler)
        solver.set_timesteps(steps)
        scale = self.default_guidance if guidance is None else guidance
        self.drawings.append(Drawing(len(seeds), batch_size, len(solver.timesteps), scale > 1))
        return torch.zeros(len(seeds), 3, self.resolution, self.resolution)

    def encode_all(self, images: Tensor, *, batch_size: int = 8) -> Posterior:
        """Random latents, as many as pictures."""
        z0 = torch.randn((1, *self.latent_shape), generator=torch.Generator().manual_seed(0))
        mean = z0.to(self.device).expand(len(images), -1, -1, -1)
        return Posterior(mean, torch.zeros_like(z0).to(self.device).expand_as(mean))


def anew(defence: Defence, **changes: Any) -> Defence:
    """Another object of the same method, that has prepared nothing; `changes` to its settings."""
    kind: Any = type(defence)
    made: Defence = kind(replace(defence.settings, **changes))
    return made


def rehearse(
    original: TextToImage, defence: Defence, subjects: Sequence[Subject], prompts: Sequence[str] = ()
) -> tuple[list[Drawing], list[Rows]]:
    """(what `immunize` would draw, the batch of a protective gradient for each subject).

    UsageError where `immunize` would raise one before its first step.
    """
    stage, acting = Rehearsal(original), anew(defence)
    s = acting.settings
    kept: list[Kept] = keep(stage, subjects, s)
    if s.uses_prompts and prompts:
        draw_general(stage, prompts, seed=0, steps=s.class_steps)
    acting.prepare(stage, kept)
    mixture, generator = Mixture(stage, kept, s), torch.Generator().manual_seed(0)
    batches = [acting.rows(stage, mixture.draw(one, generator), generator) for one in kept]
    return stage.drawings, batches
