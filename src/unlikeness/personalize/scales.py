"""What an attacker of a model of another size than Stable Diffusion sets, of which the defaults are."""

from __future__ import annotations

from unlikeness.scales import which

__all__ = ["TOYBOX", "scaled"]

TOYBOX: dict[str, dict[str, object]] = {
    "dreambooth": {"steps": 400, "learning_rate": 5e-4, "batch_size": 4, "class_images": 100},
    "lora": {"steps": 400, "learning_rate": 3e-3, "batch_size": 4, "class_images": 100},
}
"""By method: chosen on tuning subjects (`docs/results.md`, "Personalization")."""


def scaled(scale: str, method: str, resolution: int) -> dict[str, object]:
    """The settings that `method` has at a scale: "stable-diffusion" (none, the defaults are its), "toybox",
    or "auto", which goes by the model's resolution [px]; of another package's method none.

    UsageError for an unknown scale.
    """
    if which(scale, resolution) == "stable-diffusion":
        return {}
    return dict(TOYBOX.get(method, {}))
