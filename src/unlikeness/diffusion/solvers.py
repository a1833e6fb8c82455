"""Solvers of diffusers, set up from a model's own scheduler. All but lcm are deterministic."""

from __future__ import annotations

from typing import Any

from unlikeness.errors import UsageError

__all__ = ["own_settings", "unknown", "variance_preserving"]

_DISTILLED = 50
"""Levels that latent consistency models were distilled on, where a scheduler does not say it: diffusers'
default."""


def variance_preserving(scheduler: Any, sampler: str, spacing: str | None = None) -> Any:
    """The solver of a variance-preserving model, with the betas and the prediction type of its scheduler.

    sampler: "dpm++" (DPM-Solver++ 2M, Lu et al. 2022), "ddim" (Song et al. 2021, η = 0), "euler" (Karras et
    al. 2022, Algorithm 2 without churn and second order) or "lcm" (Luo et al. 2023, which adds noise in each
    step but the last). spacing: diffusers' timestep_spacing; None: the scheduler's.

    Latents are unbounded, so the solver never clips its estimate of z0. UsageError for another sampler.
    """
    from diffusers import (
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        LCMScheduler,
    )

    config = own_settings(scheduler) | ({} if spacing is None else {"timestep_spacing": spacing})
    if sampler == "ddim":
        return DDIMScheduler.from_config(config, clip_sample=False, thresholding=False)
    if sampler == "dpm++":
        return DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2, thresholding=False
        )
    if sampler == "euler":
        return EulerDiscreteScheduler.from_config(config)
    if sampler == "lcm":
        levels = min(config.get("original_inference_steps") or _DISTILLED, len(scheduler.alphas_cumprod))
        return LCMScheduler.from_config(
            config, original_inference_steps=levels, clip_sample=False, thresholding=False
        )
    raise unknown(sampler, ("dpm++", "ddim", "euler", "lcm"))


def own_settings(scheduler: Any) -> dict[str, Any]:
    """All settings of a scheduler.

    A setting that the model's configuration leaves out has the default of the model's scheduler, not the
    solver's: a saved copy writes it out, and must draw as the model does.
    """
    return {name: value for name, value in scheduler.config.items() if name != "_use_default_values"}


def unknown(sampler: str, known: tuple[str, ...]) -> UsageError:
    """For a sampler that does not draw with this family of models."""
    return UsageError(
        f"sampler {sampler!r} does not draw with this kind of model; it must be one of {', '.join(known)}"
    )
