"""What flow-matching families share: Euler steps, the shift by a picture's size, and the draw of levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from unlikeness.diffusion.families import Family
from unlikeness.diffusion.schedule import Schedule
from unlikeness.diffusion.solvers import own_settings, unknown
from unlikeness.errors import UnlikenessError

if TYPE_CHECKING:
    from unlikeness.diffusion.families import Known

__all__ = ["FlowFamily", "moved_by_size"]

_MOST_MOVED = 20.0
"""|μ|. FLUX.1 has up to 1.15, and at e²⁰ all levels are one."""


class FlowFamily(Family):
    """A transformer that predicts the velocity ε − z0 (Lipman et al. 2023; Liu et al. 2023)."""

    schedulers: ClassVar[Known] = ("diffusers", ("FlowMatchEulerDiscreteScheduler",))
    samplers = ("euler",)
    denoiser = "transformer"

    density: ClassVar[str] = "logit-normal"
    weighting: ClassVar[str] = "none"
    """How training draws levels and weighs the loss, as diffusers' script of the family does: `Schedule`."""

    def schedule(self, scheduler: Any) -> Schedule:
        return Schedule.from_scheduler(scheduler, density=self.density, weighting=self.weighting)

    def solver(self, scheduler: Any, sampler: str, spacing: str | None = None) -> Any:
        """The scheduler itself, anew. spacing is not used."""
        if sampler not in self.samplers:
            raise unknown(sampler, self.samplers)
        return type(scheduler).from_config(own_settings(scheduler))

    def stored_layers(self, layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(layers)


def moved_by_size(solver: Any, tokens: int) -> float | None:
    """μ of a schedule that depends on the number of a picture's tokens, linear between two sizes (as in
    diffusers' `calculate_shift`); None for another. UnlikenessError for settings that lead too far."""
    config = solver.config
    if not config.get("use_dynamic_shifting"):
        return None
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = float("inf") if many == few else low + (high - low) / (many - few) * (tokens - few)
    if not abs(mu) <= _MOST_MOVED:
        raise UnlikenessError(
            f"the model's scheduler moves the noise levels of a picture of {tokens} tokens by {mu:g}, which "
            "leaves one level only; correct base_shift, max_shift, base_image_seq_len and max_image_seq_len "
            "in scheduler/scheduler_config.json"
        )
    return float(mu)
