"""Which model is this? What two models, or two trainings of one, differ by."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["configuration", "fingerprint"]

_SAMPLED = 64
"""Values of each tensor that the fingerprint reads: any training changes them all."""

_OF_THE_FILES = ("dtype", "torch_dtype", "transformers_version", "architectures")


def configuration(model: TextToImage) -> str:
    """All that decides what the model computes beside its weights, as JSON with sorted keys.

    The parts' configurations (scaling of latents, noise schedule, ...), the vocabulary and the default
    guidance; no place on a disk and no version.
    """
    parts: dict[str, Any] = {"default_guidance": model.default_guidance}
    for name in (*model.family.networks, "scheduler"):
        config = model.parts[name].config
        content = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        parts[name] = {k: v for k, v in content.items() if not (k.startswith("_") or k in _OF_THE_FILES)}
    parts["vocabulary"] = model.conditioner.vocabulary
    return json.dumps(parts, sort_keys=True, default=str)


def fingerprint(model: TextToImage) -> str:
    """Sixteen digits of the SHA-256 of the configuration and of a sample of every weight."""
    digest = hashlib.sha256(configuration(model).encode())
    for module in model.networks:
        for name, weight in module.named_parameters():
            sample = weight.detach().flatten()[:_SAMPLED].float().cpu().numpy()
            digest.update(f"{name} {tuple(weight.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]
