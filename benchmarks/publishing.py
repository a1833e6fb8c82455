"""The pictures that a subject's owner publishes: how the benchmarks protect them, and how visible that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from benchmarks import attacking, common
from unlikeness import personalize
from unlikeness.diffusion import TextToImage
from unlikeness.measure.visibility import linf, psnr, ssim
from unlikeness.protect import registry
from unlikeness.protect.learning import LearningProtection
from unlikeness.protect.rid.weights import load_protector
from unlikeness.protect.settings import ProtectSettings
from unlikeness.settings import build
from unlikeness.subjects import Subject

QUICK = {"steps": 2, "rounds": 1, "pgd_steps": 1}
"""A protection's settings in a smoke run; those that a method does not have are left out."""


TOY = "rid-toybox"
"""The network of RID that was trained against the toybox, which these benchmarks attack."""


def settings_type(method: str) -> type[ProtectSettings]:
    """A method's settings."""
    return registry.settings_type(method)


def tagged(method: str) -> str:
    """A method's name in the results; RID's with a digest of its weights."""
    return f"rid@{common.weights_digest(load_protector(TOY).network)[:8]}" if method == "rid" else method


def published(
    model: TextToImage,
    clean: Subject,
    method: str,
    budget: float,
    seed: int,
    *,
    priors: attacking.Priors,
    attack: Mapping[str, Any],
    further: Mapping[str, Any],
) -> Tensor:
    """A subject's pictures as their owner publishes them: protected, at eight bits.

    attack: DreamBooth's settings, whose learning rate and class pictures a method's learner takes over.
    further: settings of the method; those that it does not have are left out.
    """
    fields = settings_type(method).__dataclass_fields__
    wanted = {"budget": budget, **{name: value for name, value in further.items() if name in fields}}
    kind = registry.method(method)
    if not issubclass(kind, LearningProtection):
        return protect(model, clean.images, method, wanted, seed)
    attacker = personalize.create("dreambooth", attack).settings
    prior = priors.of(clean.class_noun, attacker)
    wanted["learning_rate"] = attacker.learning_rate
    wanted["prior_weight"] = attacker.prior_weight if prior is not None else 0.0
    made = kind(model, build(kind.settings_type, wanted))
    return eight_bits(made.perturb_subject(clean, 4_000_000 + 10_000 * seed, prior))


def protect(
    model: TextToImage, images: Tensor, method: str, settings: Mapping[str, object], seed: int
) -> Tensor:
    """Protected pictures at eight bits, as a lossless file would hold them."""
    own: Mapping[str, object] = {"weights": TOY} if method == "rid" else {}
    perturber = registry.create(method, model, {**own, **settings})
    first = 4_000_000 + 10_000 * seed
    changed = perturber.perturb(images, range(first, first + len(images)))
    return eight_bits(changed)


def eight_bits(images: Tensor) -> Tensor:
    """Rounded to what a lossless file holds."""
    return (images * 255).round() / 255


def visibility(clean: Tensor, changed: Tensor) -> dict[str, Any]:
    """The largest L∞ [n/255], PSNR [dB] and SSIM, means over pictures; PSNR of those that differ, or None."""
    levels = psnr(clean, changed)
    levels = levels[levels.isfinite()]
    return {
        "linf": float(linf(clean, changed).max()),
        "psnr": round(float(levels.mean()), 3) if len(levels) else None,
        "ssim": round(float(ssim(clean, changed).mean()), 5),
    }


def mean_psnr(cells: Sequence[Mapping[str, Any]]) -> float | None:
    """Over those that have one; None if none has."""
    found = [cell["psnr"] for cell in cells if cell["psnr"] is not None]
    return sum(found) / len(found) if found else None
