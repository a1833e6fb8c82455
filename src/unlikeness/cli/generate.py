"""`unlikeness generate`: pictures from a model, one per seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import (
    Device,
    Dtype,
    Embeddings,
    Loras,
    ModelConfig,
    Prediction,
    Quiet,
    give,
    how,
    run,
)

__all__ = ["generate"]


def generate(
    prompt: Annotated[list[str], give("Prompt; can be given several times.")],
    output: Annotated[Path, give("New folder for the PNG files, grid.png and generation.json.")],
    model: Annotated[str, give("Model: a diffusers folder, a single file, a hub name or toybox.")] = "toybox",
    prediction: Prediction = None,
    model_config: ModelConfig = None,
    lora: Loras = None,
    embedding: Embeddings = None,
    count: Annotated[int, how("Pictures for each prompt.", min=1)] = 8,
    negative_prompt: Annotated[str | None, how("Negative prompt.")] = None,
    guidance: Annotated[
        float | None, how("Classifier-free guidance scale. Default: the model's own.")
    ] = None,
    steps: Annotated[
        int | None, how("Steps of the sampler. Default: the model's own, mostly 25.", min=1)
    ] = None,
    sampler: Annotated[
        str | None, how("dpm++, ddim, euler or lcm. Default: the model's own, mostly dpm++.")
    ] = None,
    seed: Annotated[
        int, how("Random seed of the first picture; each further picture adds 1.", min=0, max=2**62)
    ] = 0,
    batch_size: Annotated[int, run("Pictures in a batch.", min=1)] = 16,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quiet: Quiet = False,
) -> None:
    """Generate pictures with the toybox or another model, as its own pipeline in diffusers does."""
    from unlikeness import locks
    from unlikeness.diffusion import hub
    from unlikeness.diffusion.adapters import Added
    from unlikeness.diffusion.devices import SAMPLERS, check_device, check_dtype
    from unlikeness.errors import UsageError
    from unlikeness.paths import check_output
    from unlikeness.words import as_text

    # Validate before importing torch, which takes seconds.
    check_output(output)
    check_device(device)
    check_dtype(dtype)
    told = hub.check_name(model, prediction=prediction, config=model_config)
    if sampler is not None and sampler not in SAMPLERS:
        raise UsageError(f"--sampler {sampler!r} is unknown; it must be one of {', '.join(SAMPLERS)}")
    added = Added.parse(lora, embedding)
    prompt = [as_text("prompt", words) for words in prompt]
    if negative_prompt is not None:
        negative_prompt = as_text("negative prompt", negative_prompt)
    with locks.beside(output):
        from unlikeness.diffusion.model import TextToImage
        from unlikeness.diffusion.sampling import drawn
        from unlikeness.gallery import save_generated
        from unlikeness.progress import on_stderr

        if told and not quiet:
            typer.echo(told, err=True)
        loaded = TextToImage.from_pretrained(
            model, device=device, dtype=dtype, prediction=prediction, model_config=model_config, carried=False
        )
        if loaded.single and not told and not quiet:
            typer.echo(loaded.single.line, err=True)
        loaded = added.to(loaded)
        lines = [loaded.conditioner.too_long(words) for words in [*prompt, negative_prompt or ""]]
        lines += [loaded.conditioner.unknown_in(words) for words in prompt]
        for line in filter(None, lines):
            typer.echo(f"unlikeness: {line}", err=True)
        seeds = list(range(seed, seed + count)) * len(prompt)
        prompts = [words for words in prompt for _ in range(count)]
        settings = {
            "model": model,
            **added.record(),
            "steps": loaded.defaults.steps if steps is None else steps,
            "guidance": loaded.defaults.guidance if guidance is None else guidance,
            "negative_prompt": negative_prompt,
            "sampler": loaded.defaults.sampler if sampler is None else sampler,
        }
        with on_stderr(quiet=quiet) as progress:
            batches = drawn(
                loaded, prompts, seeds=seeds, steps=steps, guidance=guidance, negative_prompt=negative_prompt,
                batch_size=batch_size, sampler=sampler, progress=progress,
            )  # fmt: skip
            files = save_generated(
                batches, output, prompts=prompts, seeds=seeds, settings=settings,
                columns=count if len(prompt) > 1 else None,
            )  # fmt: skip
    typer.echo(f"{len(files)} pictures in {output}")
