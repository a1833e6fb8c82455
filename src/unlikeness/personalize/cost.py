"""What memory and time a personalization takes, from the model's configurations and the settings alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.diffusion.devices import training_precision
from unlikeness.diffusion.operations import rough_time
from unlikeness.eight_bit import state_bytes
from unlikeness.errors import UsageError
from unlikeness.personalize.objective import FineTuning
from unlikeness.personalize.settings import LoRASettings, WordSettings
from unlikeness.words import in_bytes

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.personalize import Personalizer

__all__ = ["lines", "memory", "time_line"]


def memory(model: TextToImage, method: Personalizer) -> dict[str, int]:
    """Bytes that a personalization holds from its first step to its last, by what they are for. Activations
    come on top.

    model: whole, or `diffusion.opening.outline`. The denoiser is held twice where all of it is trained: the
    given model is never changed. UsageError for a method of another package that does not say what it trains.
    """
    if not isinstance(method, FineTuning):
        raise UsageError("this method does not say what it trains, so that its memory is unknown")
    tuned, parameters = method.trainable(model)
    before = [p for network in model.networks for p in network.parameters()]
    own = {id(p) for p in before}
    after = (*tuned.denoiser.parameters(), *tuned.conditioner.parameters())
    added = [p for p in after if id(p) not in own]
    denoiser = _size(model.denoiser.parameters())
    return {
        "denoiser": denoiser,
        "autoencoder and text encoders": _size(before) - denoiser,
        "weights that are trained": _size(added),
        "their gradient": _size(parameters),
        "their AdamW states": state_bytes(parameters, eight_bit=method.settings.eight_bit_adam),
    }


def time_line(outline: TextToImage, method: Personalizer, device: torch.device) -> str:
    """A line about the time of a personalization with class pictures, from a model without weights
    (`diffusion.opening.outline`)."""
    s, embeds = method.settings, outline.family.embeds_guidance(outline.denoiser)
    scale = outline.defaults.guidance if s.class_guidance is None else s.class_guidance
    classes = s.class_images if s.prior_weight else 0
    guides = outline.family.guides(scale) and not embeds
    steps = (s.class_steps or outline.defaults.steps) * (2 if guides else 1)
    return rough_time(
        outline, device, training_precision(s.precision, device), without=classes * steps,
        trained=s.steps * s.batch_size * (2 if classes else 1), checkpointing=s.checkpointing,
        frozen=isinstance(s, (LoRASettings, WordSettings)),
    )  # fmt: skip


def lines(held: Mapping[str, int]) -> list[str]:
    """As text, a fact a line."""
    parts = ", ".join(f"{name} {in_bytes(size)}" for name, size in held.items())
    return [
        f"memory held: {in_bytes(sum(held.values()))} ({parts})",
        "activations come on top; they grow with the resolution and batch_size, and checkpointing=true keeps "
        "fewer of them",
    ]


def _size(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)
