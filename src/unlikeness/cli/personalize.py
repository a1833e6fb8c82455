"""`unlikeness personalize`: what an attacker does with somebody's pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["personalize"]


def personalize(
    images: Annotated[
        Path, typer.Option(help="Folder with pictures of the subject; three or more are usual.")
    ],
    class_noun: Annotated[str, typer.Option(help="What the subject is one of: dog, person, ...")],
    output: Annotated[Path, typer.Option(help="New folder for the result and personalization.json.")],
    model: Annotated[str, typer.Option(help="A diffusers folder, a hub name, or toybox.")] = "toybox",
    identifier: Annotated[str, typer.Option(help="The rare word that will stand for the subject.")] = "sks",
    method: Annotated[str, typer.Option(help="dreambooth or lora.")] = "dreambooth",
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's step size.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures of the subject in a step.")] = None,
    text_encoder: Annotated[
        bool | None, typer.Option("--text-encoder/--no-text-encoder", help="Train the text encoder too.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of a LoRA.")] = None,
    prior_weight: Annotated[float | None, typer.Option(help="Weight of prior preservation; 0: none.")] = None,
    class_images: Annotated[int | None, typer.Option(help="Class pictures drawn for the prior.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything drawn while training.")] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="Preset for unset options: stable-diffusion or toybox (auto: chosen by resolution)."
        ),
    ] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of the method.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to save the state in, and to go on from after an interruption.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Of the loaded weights; training is in mixed precision where that is faster.")
    ] = "float32",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Fine-tune a model on pictures of one subject, as an attacker would, to see what a protection is worth.

    dreambooth writes a whole diffusers folder, lora a pytorch_lora_weights.safetensors that diffusers loads.
    """
    from contextlib import ExitStack

    from unlikeness import locks
    from unlikeness.diffusion import hub
    from unlikeness.diffusion.names import check_device, check_dtype
    from unlikeness.errors import UsageError
    from unlikeness.paths import check_output
    from unlikeness.personalize.registry import settings_type
    from unlikeness.pictures.finding import check_pictures
    from unlikeness.presets import preset_values, which_preset
    from unlikeness.settings import build, pairs

    given = {
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "text_encoder": text_encoder,
        "rank": rank,
        "prior_weight": prior_weight,
        "class_images": class_images,
        "seed": seed,
    }
    values = pairs("--set", set_, given)
    # What is asked wrongly is said before torch is imported, which takes seconds.
    build(settings_type(method), values)
    which_preset(preset, 0)
    check_device(device)
    check_dtype(dtype)
    hub.check_name(model)
    check_output(output, checkpoint)
    check_pictures(images)
    with ExitStack() as held:
        held.enter_context(locks.beside(output))
        if checkpoint is not None:
            held.enter_context(locks.beside(checkpoint, "--checkpoint"))

        from unlikeness.diffusion.model import TextToImage
        from unlikeness.diffusion.vocabulary import check_noun, too_long
        from unlikeness.personalize import create
        from unlikeness.personalize.record import record, save
        from unlikeness.progress import on_stderr
        from unlikeness.subjects import Subject

        loaded = TextToImage.from_pretrained(model, device=device, dtype=dtype)
        made = create(method, {**preset_values("personalize", preset, loaded.resolution, method), **values})

        def report(line: str) -> None:
            typer.echo(line, err=True)

        if told := check_noun(loaded.tokenizer, class_noun, "--class-noun"):
            report(told)
        subject = Subject.from_folder(images, class_noun, identifier, size=loaded.resolution, report=report)
        if reason := too_long(loaded.tokenizer, subject.instance_prompt):
            raise UsageError(reason)
        with on_stderr(quiet=quiet) as progress:
            tuned = made.personalize(loaded, subject, checkpoint=checkpoint, progress=progress)
        save(tuned, output, record(method, made, subject, model))
    typer.echo(f'{output}: ask it for "{subject.instance_prompt}"')
