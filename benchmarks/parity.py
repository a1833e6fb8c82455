"""How far a model here is from the same model in plain diffusers: pictures, loss, and a saved LoRA.

    python -m benchmarks.parity                       # small random models of every family
    python -m benchmarks.parity --model FOLDER        # a model of your own

Both draw from the same seed, with the same solver and guidance. The loss is that of diffusers' training
script, at the same noise and level. The LoRA is trained and saved here, and loaded with `load_lora_weights`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import main, table

PROMPT = "a photo of sks dog"
SEED, STEPS = 3, 4


def compared(folder: Path) -> list[str]:
    """[pipeline, largest difference of a picture, of the loss, of a picture with the LoRA]."""
    import torch

    from unlikeness.diffusion import TextToImage, diffusion_loss, draw
    from unlikeness.diffusion.lora_writing import save_lora
    from unlikeness.personalize import personalize
    from unlikeness.subjects import Subject

    model = TextToImage.from_pretrained(folder, device="cpu", dtype="float32")
    pipe = opened(folder, model.defaults.sampler)
    side, words = model.resolution, longest(pipe)

    def differ(ours: Any) -> float:
        theirs = pipe(
            PROMPT, height=side, width=side, num_inference_steps=STEPS, output_type="pt",
            guidance_scale=ours.defaults.guidance, generator=torch.Generator().manual_seed(SEED), **words,
        ).images  # fmt: skip
        return float((ours.generate([PROMPT], seeds=[SEED], steps=STEPS) - theirs).abs().max())

    picture = differ(model)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(SEED))
    z0 = model.encode_all(images).mean
    t, eps = draw(model, z0, torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        found = diffusion_loss(model, z0, model.condition([PROMPT]), t=t, eps=eps)
        wanted = LOSSES[model.family.pipeline](pipe, z0, t, eps)
    quick = {"steps": 2, "class_images": 0, "learning_rate": 1e-3}
    tuned = personalize(model, Subject(images, "dog"), "lora", quick)
    with tempfile.TemporaryDirectory() as work:
        pipe.load_lora_weights(str(save_lora(tuned, Path(work)).parent))
    with_lora = differ(tuned)
    figures = (picture, abs(float(found - wanted)), with_lora)
    return [model.family.pipeline, *(f"{figure:.1e}" if figure else "0" for figure in figures)]


def opened(folder: Path, sampler: str) -> Any:
    """The plain pipeline, with the solver of this name."""
    import diffusers

    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    kind = {"dpm++": "DPMSolverMultistepScheduler", "euler": "EulerDiscreteScheduler"}.get(sampler)
    if kind and not type(pipe.scheduler).__name__.startswith("FlowMatch"):
        pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def longest(pipe: Any) -> dict[str, int]:
    """How many tokens of a prompt the pipeline reads at most, where it asks."""
    if type(pipe).__name__ not in _LONGEST:
        return {}
    name, most = _LONGEST[type(pipe).__name__]
    tokenizer = getattr(pipe, name)
    return {"max_sequence_length": most if tokenizer is None else min(most, tokenizer.model_max_length)}


_LONGEST = {
    "StableDiffusion3Pipeline": ("tokenizer_3", 256),
    "FluxPipeline": ("tokenizer_2", 512),
    "ZImagePipeline": ("tokenizer", 512),
}


def unet_loss(pipe: Any, z0: Any, t: Any, eps: Any) -> Any:
    """As in train_dreambooth.py and train_dreambooth_lora_sdxl.py: the mean squared error of the U-Net."""
    import torch.nn.functional as F
    from diffusers import DDPMScheduler
    from torch import tensor

    noising, count = DDPMScheduler.from_config(pipe.scheduler.config), len(z0)
    further: dict[str, Any] = {}
    embedded, *others = pipe.encode_prompt(
        PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if type(pipe).__name__ == "StableDiffusionXLPipeline":
        side = z0.shape[-1] * pipe.vae_scale_factor
        ids = tensor([[side, side, 0, 0, side, side]], dtype=embedded.dtype)
        pooled = others[1].repeat(count, 1)
        further["added_cond_kwargs"] = {"time_ids": ids.repeat(count, 1), "text_embeds": pooled}
    f = pipe.unet(noising.add_noise(z0, eps, t), t, embedded.repeat(count, 1, 1), **further).sample
    v = noising.config.prediction_type == "v_prediction"
    return F.mse_loss(f, noising.get_velocity(z0, eps, t) if v else eps)


def at_levels(pipe: Any, z0: Any, t: Any, eps: Any) -> tuple[Any, Any, Any]:
    """(z_t, the scheduler's times, σ) of a flow. The scheduler's first level is the highest."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    noising = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
    index = noising.config.num_train_timesteps - 1 - t
    sigmas = noising.sigmas[index].view(-1, 1, 1, 1)
    return (1.0 - sigmas) * z0 + sigmas * eps, noising.timesteps[index], sigmas


def sd3_loss(pipe: Any, z0: Any, t: Any, eps: Any) -> Any:
    """As in train_dreambooth_lora_sd3.py, with precondition_outputs: the error of z0."""
    z_t, times, sigmas = at_levels(pipe, z0, t, eps)
    embedded, _, pooled, _ = pipe.encode_prompt(
        [PROMPT] * len(z0), None, None, do_classifier_free_guidance=False, **longest(pipe)
    )
    f = pipe.transformer(
        hidden_states=z_t, timestep=times, encoder_hidden_states=embedded, pooled_projections=pooled
    ).sample
    return ((f * -sigmas + z_t - z0) ** 2).mean()


def flux_loss(pipe: Any, z0: Any, t: Any, eps: Any) -> Any:
    """As in train_dreambooth_lora_flux.py: the error of the velocity, with a guidance of 3.5 for dev."""
    import torch

    z_t, times, _ = at_levels(pipe, z0, t, eps)
    b, c, h, w = z0.shape
    embedded, pooled, places = pipe.encode_prompt([PROMPT] * b, None, **longest(pipe))
    packed = pipe.transformer(
        hidden_states=pipe._pack_latents(z_t, b, c, h, w), timestep=times / 1000,
        guidance=torch.full([b], 3.5) if pipe.transformer.config.guidance_embeds else None,
        pooled_projections=pooled, encoder_hidden_states=embedded, txt_ids=places,
        img_ids=pipe._prepare_latent_image_ids(b, h // 2, w // 2, "cpu", torch.float32),
    ).sample  # fmt: skip
    pixels = h * pipe.vae_scale_factor, w * pipe.vae_scale_factor
    f = pipe._unpack_latents(packed, *pixels, pipe.vae_scale_factor)
    return ((f - (eps - z0)) ** 2).mean()


def z_image_loss(pipe: Any, z0: Any, t: Any, eps: Any) -> Any:
    """As in train_dreambooth_lora_z_image.py: the error of the velocity, of which the network says −f."""
    import torch

    z_t, times, _ = at_levels(pipe, z0, t, eps)
    embedded, _ = pipe.encode_prompt([PROMPT] * len(z0), **longest(pipe))
    f = pipe.transformer(list(z_t.unsqueeze(2).unbind(0)), (1000 - times) / 1000, embedded).sample
    return ((-torch.stack(f).squeeze(2) - (eps - z0)) ** 2).mean()


LOSSES: dict[str, Callable[..., Any]] = {
    "StableDiffusionPipeline": unet_loss,
    "StableDiffusionXLPipeline": unet_loss,
    "StableDiffusion3Pipeline": sd3_loss,
    "FluxPipeline": flux_loss,
    "ZImagePipeline": z_image_loss,
}
"""The loss of each family's training script, written with diffusers' calls."""


def small() -> dict[str, Callable[[Path], Path]]:
    """Writers of small random models, one a family."""
    from tests.tiny import write_tiny
    from tests.tiny_flow import write_flux, write_sd3, write_z_image
    from tests.tiny_xl import write_tiny_xl

    return {
        "StableDiffusionPipeline": write_tiny,
        "StableDiffusionXLPipeline": write_tiny_xl,
        "StableDiffusion3Pipeline": write_sd3,
        "FluxPipeline": write_flux,
        "ZImagePipeline": write_z_image,
    }


def run(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a diffusers folder; small random models without it")
    args = parser.parse_args(argv)
    if args.model is not None:
        rows = [compared(args.model)]
    else:
        with tempfile.TemporaryDirectory() as work:
            rows = [compared(write(Path(work) / name)) for name, write in small().items()]
    print(table(["pipeline", "picture", "loss", "picture with a LoRA"], rows))


if __name__ == "__main__":
    main(run)
