"""`unlikeness personalize`: fine-tune a model on a subject, as an attacker does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import (
    BatchSize,
    ClassNoun,
    Device,
    LearningRate,
    Preset,
    Quiet,
    Seed,
    Set,
    Steps,
    give,
    how,
    run,
)  # fmt: skip

__all__ = ["personalize"]


def personalize(
    images: Annotated[Path, give("Folder of pictures of the subject. Three or more are usual.")],
    class_noun: ClassNoun,
    output: Annotated[Path, give("New folder for the result and personalization.json.")],
    model: Annotated[str, give("Model to fine-tune: a diffusers folder, a hub name or toybox.")] = "toybox",
    identifier: Annotated[str, give("Identifier token: the rare word that stands for the subject.")] = "sks",
    method: Annotated[str, how("dreambooth or lora.")] = "dreambooth",
    preset: Preset = "auto",
    steps: Steps = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    text_encoder: Annotated[
        bool | None, how("Also train the text encoder.", "--text-encoder/--no-text-encoder")
    ] = None,
    rank: Annotated[int | None, how("Rank of a LoRA.")] = None,
    prior_weight: Annotated[float | None, how("Weight of prior preservation; 0 disables it.")] = None,
    class_images: Annotated[int | None, how("Class pictures to generate for prior preservation.")] = None,
    set_: Set = None,
    seed: Seed = None,
    checkpoint: Annotated[
        Path | None, run("File for the state of the training. Repeat the command to go on after a stop.")
    ] = None,
    device: Device = "auto",
    dtype: Annotated[
        str, run("Precision of the loaded weights. The training is in mixed precision where that is faster.")
    ] = "float32",
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on pictures of one subject, as an attacker does, to see what a protection is worth.

    dreambooth writes a whole diffusers folder. lora writes a pytorch_lora_weights.safetensors that diffusers
    loads.
    """
    from contextlib import ExitStack

    from unlikeness import locks
    from unlikeness.diffusion import hub
    from unlikeness.diffusion.devices import check_device, check_dtype
    from unlikeness.errors import UsageError
    from unlikeness.paths import check_output
    from unlikeness.personalize import settings_type
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
    # Validate before importing torch, which takes seconds.
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
        from unlikeness.personalize import create
        from unlikeness.personalize.record import record, save
        from unlikeness.progress import on_stderr
        from unlikeness.subjects import Subject

        loaded = TextToImage.from_pretrained(model, device=device, dtype=dtype)
        made = create(method, {**preset_values("personalize", preset, loaded.resolution, method), **values})

        def report(line: str) -> None:
            typer.echo(line, err=True)

        if told := loaded.conditioner.check_noun(class_noun, "--class-noun"):
            report(told)
        subject = Subject.from_folder(images, class_noun, identifier, size=loaded.resolution, report=report)
        if reason := loaded.conditioner.too_long(subject.instance_prompt):
            raise UsageError(reason)
        with on_stderr(quiet=quiet) as progress:
            tuned = made.personalize(loaded, subject, checkpoint=checkpoint, progress=progress)
        save(tuned, output, record(method, made, subject, model))
    typer.echo(f'{output}: ask it for "{subject.instance_prompt}"')
