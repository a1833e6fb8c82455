"""What the methods are told for models of another size than Stable Diffusion, of which the defaults are."""

from __future__ import annotations

from unlikeness.scales import which

__all__ = ["scaled"]

_SMALL: dict[str, object] = {
    "learning_rate": 2e-4, "attack_learning_rate": 1e-4, "batch_size": 4, "attack_batch_size": 4,
}  # fmt: skip
"""The toybox learns from larger batches at larger rates."""

_TOYBOX: dict[str, dict[str, object]] = {
    "divert": {"learning_rate": 3e-4, "attack_learning_rate": 3e-4, "preserve_batch_size": 32},
    "notice": {
        "attack_learning_rate": 3e-4, "batch_size": 2, "attack_batch_size": 2, "preserve_batch_size": 8,
    },
    "persguard": {"learning_rate": 3e-4},
}  # fmt: skip
"""By method, on top of these."""


def scaled(scale: str, method: str, resolution: int) -> dict[str, object]:
    """The settings that `method` has at a scale: "stable-diffusion" (none, the defaults are its), "toybox",
    or "auto", which goes by the model's resolution [px].

    Those of `divert` and `notice` on the toybox are what `docs/results.md` ("Immunized models") was measured
    with; of the others it has shorter runs too. UsageError for an unknown scale.
    """
    if which(scale, resolution) == "stable-diffusion":
        return {}
    return {**_SMALL, **_TOYBOX.get(method, {})}
