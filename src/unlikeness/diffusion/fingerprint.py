"""Fingerprints: what two models, or two trainings of one model, differ in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from unlikeness.autoencoders.autoencoder import samples

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["configuration", "fingerprint"]

_OF_THE_FILES = ("dtype", "torch_dtype", "transformers_version", "architectures")


def configuration(model: TextToImage) -> str:
    """All that decides what the model computes, except its weights, as JSON with sorted keys.

    It holds the configurations of the parts (scaling of latents, noise schedule, ...), the vocabulary and the
    default guidance. It holds no path and no version.
    """
    parts: dict[str, Any] = {"default_guidance": model.defaults.guidance}
    for name in (*model.family.networks, "scheduler"):
        config = model.parts[name].config
        content = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        parts[name] = {k: v for k, v in content.items() if not (k.startswith("_") or k in _OF_THE_FILES)}
    if replace(model.defaults, guidance=model.family.usual.guidance) != model.family.usual:
        parts["defaults"] = asdict(model.defaults)
    parts["vocabulary"] = model.conditioner.vocabulary
    return json.dumps(parts, sort_keys=True, default=str)


def fingerprint(model: TextToImage) -> str:
    """Sixteen digits of the SHA-256 of the configuration and of a sample of every weight."""
    digest = hashlib.sha256(configuration(model).encode())
    for network in model.networks:
        for sample in samples(network):
            digest.update(sample)
    return digest.hexdigest()[:16]
