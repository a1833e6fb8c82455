"""How noise is added, what the denoiser gets and is trained to predict, and how its levels are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unlikeness.errors import UsageError

__all__ = ["DENSITIES", "PREDICTION_TYPES", "WEIGHTINGS", "Schedule"]

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow")

DENSITIES = ("uniform", "logit-normal")
"""Every level alike (Ho et al. 2020), or the middle ones more often (Esser et al. 2024, Eq. 19)."""

WEIGHTINGS = ("none", "z0")
"""The loss of the prediction itself, or of the z0 that it stands for (Karras et al. 2022, Section 5): the
velocity's error counts with σ²."""


@dataclass(frozen=True)
class Schedule:
    """z_t = signal[t] · z0 + noise[t] · ε, and the target that belongs to it.

    signal, noise: [T] float tensors. A variance-preserving schedule (Ho et al. 2020, Eq. 4) has
    signal = √ᾱ and noise = √(1 − ᾱ); a flow (Lipman et al. 2023; Esser et al. 2024) 1 − σ and σ.
    prediction_type: one of PREDICTION_TYPES; UsageError otherwise.
    density: of the levels that training draws, one of DENSITIES; UsageError otherwise.
    weighting: of the training loss, one of WEIGHTINGS, "z0" for a flow only; UsageError otherwise.
    """

    signal: Tensor
    noise: Tensor
    prediction_type: str = "epsilon"
    density: str = "uniform"
    weighting: str = "none"

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise UsageError(
                f"prediction type {self.prediction_type!r} is unknown; it must be one of "
                f"{', '.join(PREDICTION_TYPES)}"
            )
        if self.density not in DENSITIES:
            raise UsageError(f"density {self.density!r} is unknown; it must be one of {', '.join(DENSITIES)}")
        if self.weighting not in WEIGHTINGS or (self.weighting == "z0" and self.prediction_type != "flow"):
            raise UsageError(
                f"weighting {self.weighting!r} is unknown for {self.prediction_type}; it must be none, "
                "or z0 for flow"
            )
        if self.signal.ndim != 1 or self.signal.shape != self.noise.shape:
            raise UsageError("a noise schedule needs two tables of one length, signal and noise")

    @classmethod
    def from_alpha_bar(cls, alpha_bar: Tensor, prediction_type: str = "epsilon") -> Schedule:
        """The variance-preserving schedule with the cumulative products ᾱ [T], each in [0, 1]."""
        return cls(alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), prediction_type)

    @classmethod
    def from_scheduler(
        cls, scheduler: Any, *, density: str = "logit-normal", weighting: str = "none"
    ) -> Schedule:
        """The schedule that a diffusers scheduler was configured with.

        A scheduler with `alphas_cumprod` (DDPM, DDIM, PNDM, Euler, DPM-Solver, ...) is variance-preserving.
        One without it is flow matching. Its levels are σ = (t + 1) / T, moved by a fixed `shift` towards pure
        noise (Esser et al. 2024, Eq. 23). A shift that depends on the picture's size (`use_dynamic_shifting`)
        is for drawing alone, as in diffusers' training scripts.

        density, weighting: of a flow.
        """
        config = scheduler.config
        alpha_bar = getattr(scheduler, "alphas_cumprod", None)
        if alpha_bar is not None:
            return cls.from_alpha_bar(
                torch.as_tensor(alpha_bar).detach().cpu().float(), config.get("prediction_type", "epsilon")
            )
        steps = int(config.get("num_train_timesteps", 1000))
        sigma = torch.arange(1, steps + 1, dtype=torch.float32) / steps
        if not config.get("use_dynamic_shifting"):
            shift = float(config.get("shift") or 1)
            sigma = shift * sigma / (1 + (shift - 1) * sigma)
        return cls(1 - sigma, sigma, "flow", density, weighting)

    @property
    def steps(self) -> int:
        """T, the number of noise levels."""
        return self.signal.shape[0]

    @property
    def alpha_bar(self) -> Tensor:
        """[T]: the share of the signal in the variance, signal² / (signal² + noise²)."""
        power = self.signal.square()
        return power / (power + self.noise.square())

    def draw(self, count: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        """Levels t for training, long [count], drawn on `device` from `generator`."""
        if self.density == "uniform":
            return torch.randint(self.steps, (count,), generator=generator, device=device)
        share = torch.randn(count, generator=generator, device=device).sigmoid()
        return (share * self.steps).long().clamp(max=self.steps - 1)

    def weight(self, t: Tensor) -> Tensor | None:
        """The factor [B] of the squared error at the levels t (long [B]); None where it is 1."""
        if self.weighting == "none":
            return None
        return self.noise.to(t.device)[t].square()

    def told(self, t: Tensor) -> Tensor:
        """What the denoiser is given for the levels t (long): t itself, and T · σ (float) for a flow.

        A solver's own times (floating-point) stay as they are.
        """
        if self.prediction_type != "flow" or t.is_floating_point():
            return t
        return self.noise.to(t.device)[t] * self.steps

    def _at(self, table: Tensor, t: Tensor, like: Tensor) -> Tensor:
        values = table.to(like.device, like.dtype)[t.to(like.device)]
        return values.reshape(-1, *[1] * (like.ndim - 1))

    def add_noise(self, z0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """z_t [B, ...] from z0 and ε [B, ...] at the levels t (long [B], 0 to T − 1)."""
        return self._at(self.signal, t, z0) * z0 + self._at(self.noise, t, z0) * eps

    def target(self, z0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should answer for z_t = add_noise(z0, eps, t).

        epsilon: ε (Ho et al. 2020); v_prediction: √ᾱ ε − √(1 − ᾱ) z0 (Salimans & Ho 2022); sample: z0;
        flow: ε − z0 (the velocity of rectified flow, Liu et al. 2023).
        """
        if self.prediction_type == "epsilon":
            return eps
        if self.prediction_type == "sample":
            return z0
        if self.prediction_type == "flow":
            return eps - z0
        return self._at(self.signal, t, z0) * eps - self._at(self.noise, t, z0) * z0

    def predict_z0(self, f: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The z0 that the network's answer f stands for, given z_t and t: `target` solved for z0.

        An ε-prediction at a level without any signal (zero terminal SNR) has no z0: the result is then inf
        or nan.
        """
        signal, noise = self._at(self.signal, t, z_t), self._at(self.noise, t, z_t)
        if self.prediction_type == "epsilon":
            return (z_t - noise * f) / signal
        if self.prediction_type == "sample":
            return f
        if self.prediction_type == "flow":
            return z_t - noise * f
        return signal * z_t - noise * f

    def predict_eps(self, f: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The ε that the network's answer f stands for, given z_t and t: `target` solved for ε.

        A z0-prediction at a level without any noise has no ε: the result is then inf or nan.
        """
        if self.prediction_type == "epsilon":
            return f
        signal, noise = self._at(self.signal, t, z_t), self._at(self.noise, t, z_t)
        if self.prediction_type == "sample":
            return (z_t - signal * f) / noise
        if self.prediction_type == "flow":
            return (z_t + signal * f) / (signal + noise)
        return noise * z_t + signal * f

    def answer(self, z0: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The network's answer [B, ...] that stands for this z0 (one, or [B, ...]), given z_t and t:
        `predict_z0` solved for f."""
        z0 = z0.expand_as(z_t)
        signal, noise = self._at(self.signal, t, z_t), self._at(self.noise, t, z_t)
        return self.target(z0, (z_t - signal * z0) / noise, t)
