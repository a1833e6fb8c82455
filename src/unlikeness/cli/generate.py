"""`unlikeness generate`: pictures from a model, one per seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["generate"]


def generate(
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be given several times.")],
    output: Annotated[Path, typer.Option(help="New folder for the PNGs, grid.png and generation.json.")],
    model: Annotated[str, typer.Option(help="A diffusers folder, a hub name, or toybox.")] = "toybox",
    lora: Annotated[Path | None, typer.Option(help="A LoRA file, or a folder with one.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures for each prompt.")] = 8,
    seed: Annotated[
        int, typer.Option(min=0, max=2**62, help="Seed of the first picture; the others follow.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Solver steps.")] = 25,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; default: the model's own.")] = None,
    negative_prompt: Annotated[str, typer.Option(help="What to lead away from.")] = "",
    sampler: Annotated[str, typer.Option(help="dpm++ or ddim.")] = "dpm++",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures in flight at once.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Draw pictures from a model, of the embedded toybox or of any Stable Diffusion 1.x or 2.x."""
    from unlikeness import locks
    from unlikeness.diffusion import hub
    from unlikeness.diffusion.names import SAMPLERS, check_device, check_dtype
    from unlikeness.errors import UsageError
    from unlikeness.paths import check_output
    from unlikeness.words import as_text

    # What is asked wrongly is said before torch is imported, which takes seconds.
    check_output(output)
    check_device(device)
    check_dtype(dtype)
    hub.check_name(model)
    if sampler not in SAMPLERS:
        raise UsageError(f"sampler {sampler!r} is unknown; it must be one of {', '.join(SAMPLERS)}")
    if lora is not None and not lora.exists():
        raise UsageError(f"--lora {lora} does not exist; give a .safetensors file, or a folder with one")
    prompt = [as_text("prompt", words) for words in prompt]
    negative_prompt = as_text("negative prompt", negative_prompt)
    with locks.beside(output):
        from unlikeness.diffusion.lora import load_lora
        from unlikeness.diffusion.model import TextToImage
        from unlikeness.diffusion.sampling import drawn
        from unlikeness.diffusion.vocabulary import too_long, unknown_in
        from unlikeness.gallery import save_generated
        from unlikeness.progress import on_stderr

        loaded = TextToImage.from_pretrained(model, device=device, dtype=dtype)
        if lora is not None:
            loaded = load_lora(loaded, lora)
        lines = [too_long(loaded.tokenizer, words) for words in [*prompt, negative_prompt]]
        lines += [unknown_in(loaded.tokenizer, words) for words in prompt]
        for line in filter(None, lines):
            typer.echo(f"unlikeness: {line}", err=True)
        seeds = list(range(seed, seed + count)) * len(prompt)
        prompts = [words for words in prompt for _ in range(count)]
        settings = {
            "model": model,
            "lora": None if lora is None else str(lora),
            "steps": steps,
            "guidance": loaded.default_guidance if guidance is None else guidance,
            "negative_prompt": negative_prompt,
            "sampler": sampler,
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
