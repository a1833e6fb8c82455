"""Generate pictures: a solver of diffusers, with both halves of guidance in one batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness import finite
from unlikeness.diffusion.condition import Condition
from unlikeness.diffusion.devices import SAMPLERS
from unlikeness.errors import UsageError
from unlikeness.progress import Progress, Silent

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["SAMPLERS", "drawn", "generators", "initial_noise"]

_DECODED_AT_ONCE = 4 * 512 * 512  # pixels: what a float32 autoencoder decodes in about 8 GB

_NEAR_NOISE = 0.75
"""Smallest share of the noise levels below the first step, where there are many steps."""


def initial_noise(shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> Tensor:
    """[B, C, h, w] float32 on the CPU; each picture's noise comes from its own generator alone."""
    return torch.stack([torch.randn(shape, generator=one) for one in generators])


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One a picture, on the CPU."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def drawn(
    model: TextToImage,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int | None = None,
    guidance: float | None = None,
    negative_prompt: str | Sequence[str | None] | None = None,
    batch_size: int = 16,
    sampler: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Batches [batch_size or fewer, 3, H, W], float32 in [0, 1] on the CPU, in all one picture per seed, at
    the model's own resolution. Everything is checked in the call, before the first batch.

    Args:
        prompts: one per seed, or a single one for all.
        seeds: each picture's noise comes from its own seed, whatever else is in the batch.
        steps: solver steps, at least 1, and no more than the noise levels can be divided into. None is the
            model's default.
        guidance: scale of classifier-free guidance, as the family's own pipeline takes it (`Family.guided`):
            1 or less turns it off in most. A denoiser that embeds guidance gets the scale as an input
            instead. None is the model's default.
        negative_prompt: what guidance avoids; one for all, or one per seed. None avoids nothing. In some
            families this differs from an empty prompt.
        batch_size: pictures that are computed at once.
        sampler: one of the family's `samplers`, set up from the model's own scheduler configuration. See
            `solvers`. None is the model's default.

    Raises:
        UsageError: a setting is out of range, or prompts or negative prompts and seeds do not match; a
            negative prompt for a denoiser that embeds guidance.
        NotFiniteError, with a batch: the model's prediction is NaN or infinite.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    negative: list[str | None] = (
        [negative_prompt]
        if negative_prompt is None or isinstance(negative_prompt, str)
        else list(negative_prompt)
    )
    prompts = prompts * len(seeds) if len(prompts) == 1 else prompts
    negative = negative * len(seeds) if len(negative) == 1 else negative
    every: Sequence[str | None]
    for every, kind in ((prompts, "prompt"), (negative, "negative prompt")):
        if len(every) != len(seeds) or not seeds:
            raise UsageError(f"{len(every)} {kind}s for {len(seeds)} seeds: give one {kind}, or one per seed")
    steps = model.defaults.steps if steps is None else steps
    if steps < 1 or batch_size < 1:
        raise UsageError(f"steps ({steps}) and batch_size ({batch_size}) must be 1 or more")
    scale = model.defaults.guidance if guidance is None else guidance
    if not math.isfinite(scale):
        raise UsageError(f"guidance must be a finite number, not {scale}")
    if model.family.embeds_guidance(model.denoiser) and any(words is not None for words in negative):
        raise UsageError(
            "this model embeds guidance, so that a negative prompt has no effect; leave it out"
        )
    sampler = model.defaults.sampler if sampler is None else sampler
    _check_steps(model, sampler, steps)
    return _batches(
        model, prompts, negative, list(seeds), steps, scale, batch_size, sampler, progress or Silent()
    )


def _batches(
    model: TextToImage, prompts: list[str], negative: list[str | None], seeds: list[int], steps: int,
    scale: float, batch_size: int, sampler: str, progress: Progress,
) -> Iterator[Tensor]:  # fmt: skip
    embeds = model.family.embeds_guidance(model.denoiser)
    progress.start(len(seeds), "generating", "picture")
    for start in range(0, len(seeds), batch_size):
        part = slice(start, start + batch_size)
        with torch.no_grad():
            noise = generators(seeds[part])
            z = initial_noise(model.latent_shape, noise).to(model.device)
            c = model.condition(prompts[part])
            c = model.family.with_guidance(c, scale) if embeds else c
            guides = model.family.guides(scale) and not embeds
            uncond = model.condition(negative[part]) if guides else None
            solver = _solver(model, sampler, steps)
            z0 = _solve(model, solver, z, c, uncond, scale, noise if sampler == "lcm" else None)
            finite.check(z0, f"{finite.DENOISER}, at guidance {scale:g},", model.dtype)
            at_once = max(_DECODED_AT_ONCE // model.resolution**2, 1)
            images = torch.cat([model.decode(some).float().cpu() for some in torch.split(z0, at_once)])
        progress.advance(len(images))
        yield images
    progress.close()


def _solver(model: TextToImage, sampler: str, steps: int, device: torch.device | None = None) -> Any:
    """The model's solver with its steps. device: None is the model's."""
    spacing = model.defaults.spacing if sampler == model.defaults.sampler else None
    solver = model.family.solver(model.scheduler, sampler, spacing)
    model.family.set_steps(solver, steps, model.latent_shape, model.device if device is None else device)
    return solver


def _check_steps(model: TextToImage, sampler: str, steps: int) -> None:
    """UsageError for more steps than the solver finds noise levels for.

    Each step needs a level of its own. The first of many must be near the highest, since it begins with pure
    noise.
    """
    levels = model.schedule.steps
    if steps <= levels:
        try:
            solver = _solver(model, sampler, steps, torch.device("cpu"))
        except UsageError:  # an unknown sampler
            raise
        except ValueError as error:  # lcm knows the levels alone that it was distilled on
            raise UsageError(f"steps ({steps}) are too many for sampler {sampler}; 4 are usual") from error
        times = [int(t) for t in solver.timesteps]
        spread = steps <= levels // 2 or times[0] >= _NEAR_NOISE * levels
        if spread and len(set(times)) == len(times):
            return
    raise UsageError(f"steps ({steps}) are too many for {levels} noise levels; 25 are usual")


def _solve(
    model: TextToImage, solver: Any, z: Tensor, c: Condition, uncond: Condition | None, scale: float,
    noise: list[torch.Generator] | None,
) -> Tensor:  # fmt: skip
    """noise: where a solver that is not deterministic draws its own, one a picture; None for others."""
    drawn_from = {} if noise is None else {"generator": noise}
    z = z * getattr(solver, "init_noise_sigma", 1.0)
    for t in solver.timesteps:
        z_t = solver.scale_model_input(z, t) if hasattr(solver, "scale_model_input") else z
        predict = partial(_predicted, model, z_t, t)
        f = predict(c) if uncond is None else model.family.guided(predict, c, uncond, scale)
        z = solver.step(f, t, z, return_dict=False, **drawn_from)[0]
    return z


def _predicted(model: TextToImage, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """f for the pictures, repeated until there is one for each condition, in float32."""
    z_t = torch.cat([z_t] * (len(condition) // len(z_t)))
    return model.predict(z_t, t.expand(len(z_t)), condition).float()
