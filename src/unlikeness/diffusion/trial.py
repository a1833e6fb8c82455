"""A model tried once when it is opened: the smallest picture through its networks, two steps of its schedule.

What no table of bounds can tell is told here: widths that do not match, an autoencoder
that does not return to a picture's size.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unlikeness import finite
from unlikeness.diffusion.building import sentence
from unlikeness.errors import NotFiniteError, UnlikenessError

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["check_model", "check_scheduler", "check_weights", "try_networks"]


def check_weights(model: TextToImage, called: str) -> None:
    """NotFiniteError, naming the part, if a weight is NaN or infinite. called: the model in the message."""
    named = {model.family.autoencoder: "the autoencoder", model.family.denoiser: finite.DENOISER}
    for name, network in zip(model.family.networks, model.networks, strict=True):
        if not finite.all_finite(network.parameters()):
            raise NotFiniteError(
                f"{named.get(name, finite.TEXT_ENCODER)} of {called} has weights that are not finite "
                f"(NaN or infinity){_of_weights(network.dtype)}"
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
    finite.check(torch.cat([posterior.mean, posterior.std]), finite.ENCODER, model.autoencoder.dtype)
    condition = model.condition([""])  # checked there
    t = torch.tensor([model.schedule.steps // 2], device=model.device)
    z_t = model.schedule.add_noise(posterior.mean, torch.zeros_like(posterior.mean), t)
    finite.check(model.predict(z_t, t, condition), finite.DENOISER, model.dtype)


def try_networks(folder: Path, model: TextToImage) -> None:
    """UnlikenessError unless a prompt, latents and a picture go through the networks, in the right shapes."""
    channels, side = model.autoencoder.channels, model.family.least_side(model.denoiser)
    pixels = side * model.autoencoder.factor
    latents = torch.zeros(1, channels, side, side, device=model.device, dtype=model.dtype)
    images = torch.zeros(1, 3, pixels, pixels, device=model.device)
    with torch.no_grad():
        with sentence(f"the {model.family.encoders[0]} of model {folder}"):
            condition = model.conditioner.encode(["a photo of a dog"])
        model.family.check_condition(folder, condition, model.denoiser)
        with sentence(f"the {model.family.denoiser} of model {folder}"):
            f = model.predict(latents, torch.zeros(1, dtype=torch.long, device=model.device), condition)
        with sentence(f"the vae of model {folder}"):
            z0 = model.encode(images).mean
            decoded = model.decode(latents)
    for part, shape, wanted in (
        (f"{model.family.denoiser} answers", f.shape, latents.shape),
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
    from unlikeness.diffusion.schedule import Schedule

    what = f"the scheduler of model {folder}"
    with sentence(what):
        schedule = Schedule.from_scheduler(scheduler)
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
