"""NaN and infinity, told where they arise: signs, clamps, averages and files take them without a word.

A check on a GPU waits for it, so that checks stand where a result is kept or written, not in every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.errors import NotFiniteError
from unlikeness.tensors import all_finite

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["all_finite", "check", "check_model", "check_weights", "not_finite", "remedy"]

DECODER = "the autoencoder's decoder"
DENOISER = "the denoiser (U-Net)"
ENCODER = "the autoencoder's encoder"
TEXT_ENCODER = "the text encoder"
GRADIENT = "the gradient through the model"

_PARTS = (("vae", "the autoencoder"), ("unet", DENOISER), ("text_encoder", TEXT_ENCODER))


def check(values: Tensor, part: str, dtype: torch.dtype) -> Tensor:
    """`values`, if all are finite; else NotFiniteError, which names the part and its precision."""
    if not all_finite([values]):
        raise not_finite(part, dtype)
    return values


def not_finite(part: str, dtype: torch.dtype) -> NotFiniteError:
    """The error for a part of a model whose answer is not finite."""
    return NotFiniteError(f"{part} gives values that are not finite (NaN or infinity){remedy(dtype)}")


def remedy(dtype: torch.dtype) -> str:
    """What follows "... are not finite" in a message: where from, and what may help."""
    name = str(dtype).removeprefix("torch.")
    if torch.finfo(dtype).bits < 32:
        return f" in {name}; --dtype float32 may help"
    return f" in {name}: its weights are damaged, or a training has diverged; fetch or make the model again"


def check_weights(model: TextToImage, called: str) -> None:
    """NotFiniteError, naming the part, if a weight is NaN or infinite. called: what the message calls it."""
    for name, part in _PARTS:
        module: Any = getattr(model, name)
        if not all_finite(module.parameters()):
            raise NotFiniteError(
                f"{part} of {called} has weights that are not finite (NaN or infinity)"
                f"{_of_weights(module.dtype)}"
            )


def _of_weights(dtype: torch.dtype) -> str:
    if torch.finfo(dtype).bits < 32:
        return f" in {str(dtype).removeprefix('torch.')}; --dtype float32 may help"
    return ": they are damaged, or a training has diverged; fetch or make the model again"


@torch.no_grad()
def check_model(model: TextToImage) -> None:
    """Show the model a plain picture and an empty prompt; NotFiniteError names the first part that fails.

    It costs a pass through every part but the decoder: to be asked once something has gone wrong.
    """
    check_weights(model, "the model")
    side = model.resolution
    plain = torch.linspace(0.25, 0.75, side).expand(1, 3, side, side)
    posterior = model.encode(plain)
    check(torch.cat([posterior.mean, posterior.std]), ENCODER, model.vae.dtype)
    c = model.embed([""])  # checked there
    t = torch.tensor([model.schedule.steps // 2], device=model.device)
    z_t = model.schedule.add_noise(posterior.mean, torch.zeros_like(posterior.mean), t)
    check(model.predict(z_t, t, c), DENOISER, model.dtype)
