"""A model tried once when it is opened: the smallest picture through its networks, two steps of its schedule.

What no table of bounds can tell is told here: widths that do not match, an autoencoder
that does not return to a picture's size.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.diffusion.building import sentence
from unlikeness.errors import UnlikenessError

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["check_scheduler", "try_networks"]


def try_networks(folder: Path, model: TextToImage) -> None:
    """UnlikenessError unless a prompt, latents and a picture go through the networks, in the right shapes."""
    unet = model.unet
    side = 2 ** (len(unet.config.block_out_channels) - 1)
    pixels = side * model.vae_scale
    latents = torch.zeros(1, unet.config.in_channels, side, side, device=model.device, dtype=unet.dtype)
    images = torch.zeros(1, 3, pixels, pixels, device=model.device)
    with torch.no_grad():
        with sentence(f"the text_encoder of model {folder}"):
            c = model.family.embed(model.tokenizer, model.text_encoder, ["a photo of a dog"])
        _check_widths(folder, c, unet)
        with sentence(f"the unet of model {folder}"):
            f = model.predict(latents, torch.zeros(1, dtype=torch.long, device=model.device), c)
        with sentence(f"the vae of model {folder}"):
            z0 = model.encode(images).mean
            decoded = model.decode(latents)
    for part, shape, wanted in (
        ("unet answers", f.shape, latents.shape),
        ("vae encodes pictures to", z0.shape, latents.shape),
        ("vae decodes latents to", decoded.shape, images.shape),
    ):
        if shape != wanted:
            raise UnlikenessError(
                f"the {part} {list(shape)} where {list(wanted)} is needed, in model {folder}; its parts "
                "do not belong together, fetch or save it again"
            )


def check_scheduler(folder: Path, scheduler: Any) -> None:
    """UnlikenessError unless the noise levels are finite and in range, and both samplers can use them."""
    from unlikeness.diffusion.sampling import SAMPLERS, make_solver
    from unlikeness.diffusion.schedule import NoiseSchedule

    what = f"the scheduler of model {folder}"
    with sentence(what):
        schedule = NoiseSchedule.from_scheduler(scheduler)
        tables = torch.stack([schedule.signal, schedule.noise])
    if not (bool(torch.isfinite(tables).all()) and bool(((tables >= 0) & (tables <= 1)).all())):
        raise UnlikenessError(
            f"{what} has noise levels that are no numbers from 0 to 1; correct the betas in "
            "scheduler/scheduler_config.json"
        )
    with sentence(what), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a schedule that ends at zero makes numpy say so
        for name in SAMPLERS:
            solver = make_solver(scheduler, name)
            solver.set_timesteps(min(2, schedule.steps))
            z = torch.ones(1, 1, 2, 2)
            for t in solver.timesteps:
                z = solver.step(torch.zeros_like(z), t, solver.scale_model_input(z, t), return_dict=False)[0]


def _check_widths(folder: Path, c: Tensor, unet: Any) -> None:
    """UnlikenessError unless the prompt embeddings c [1, L, D] are as wide as the U-Net's attention."""
    wanted = unet.config.cross_attention_dim
    widths = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    if any(width != c.shape[-1] for width in widths):
        raise UnlikenessError(
            f"model {folder} has a text encoder of width {c.shape[-1]} (hidden_size) for a U-Net of "
            f"{wanted} (cross_attention_dim); its parts do not belong together, fetch or save it again"
        )
