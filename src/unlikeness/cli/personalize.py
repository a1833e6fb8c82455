"""`unlikeness personalize`: fine-tune a model on a subject, as an attacker does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import (
    BatchSize,
    ClassNoun,
    Device,
    Embeddings,
    LearningRate,
    Loras,
    ModelConfig,
    Prediction,
    Quiet,
    Seed,
    Set,
    Steps,
    give,
    how,
    run,
)  # fmt: skip
from unlikeness.presets import trainers

__all__ = ["personalize"]


def personalize(
    images: Annotated[
        list[Path],
        give(
            "Folder of pictures of the subject. Three or more are usual. Give it again for further pictures, "
            "such as unprotected ones."
        ),
    ],
    class_noun: ClassNoun,
    output: Annotated[Path, give("New folder for the result and personalization.json.")],
    model: Annotated[
        str, give("Model to fine-tune: a diffusers folder, a single file, a hub name or toybox.")
    ] = "toybox",
    prediction: Prediction = None,
    model_config: ModelConfig = None,
    lora: Loras = None,
    embedding: Embeddings = None,
    identifier: Annotated[str, give("Identifier token: the rare word that stands for the subject.")] = "sks",
    method: Annotated[
        str | None,
        how(
            "dreambooth, lora, lora_ti, textual_inversion or custom_diffusion. Unset: the preset's, else "
            "dreambooth."
        ),
    ] = None,
    preset: Annotated[
        str,
        how(
            "Preset for unset options: stable-diffusion or toybox (auto: chosen by the model's resolution), "
            f"or an attacker of others: {', '.join(trainers())}."
        ),
    ] = "auto",
    steps: Steps = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    text_encoder: Annotated[
        bool | None, how("Also train the text encoder.", "--text-encoder/--no-text-encoder")
    ] = None,
    lora_format: Annotated[
        str, how("Names in a LoRA file: diffusers, or kohya, which other tools read.", "--lora-format")
    ] = "diffusers",
    rank: Annotated[int | None, how("Rank of a LoRA.")] = None,
    prior_weight: Annotated[float | None, how("Weight of prior preservation; 0 disables it.")] = None,
    class_images: Annotated[int | None, how("Class pictures to generate for prior preservation.")] = None,
    set_: Set = None,
    seed: Seed = None,
    checkpoint: Annotated[
        Path | None, run("File for the state of the training. Repeat the command to go on after a stop.")
    ] = None,
    dry_run: Annotated[
        bool, run("Say what memory and time the training takes; load no weights, write nothing.", "--dry-run")
    ] = False,
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
    from unlikeness.diffusion.adapters import Added, check_form
    from unlikeness.diffusion.devices import check_device, check_dtype
    from unlikeness.errors import UsageError
    from unlikeness.extras import check_extra
    from unlikeness.paths import check_output
    from unlikeness.personalize import settings_type
    from unlikeness.personalize.settings import LoRASettings, TrainerSettings
    from unlikeness.pictures.finding import check_pictures
    from unlikeness.presets import preset_values, which_preset
    from unlikeness.settings import build, named, pairs

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
    method = method or trainers().get(preset, "dreambooth")
    # Validate before importing torch, which takes seconds.
    built = build(settings_type(method), values)
    if built.eight_bit_adam:
        check_extra("eight-bit", f"{named('eight_bit_adam')}=true")
    which_preset(preset, 0, "personalize", method)
    check_form(lora_format)
    if lora_format != "diffusers":
        if not isinstance(built, LoRASettings):
            raise UsageError(f"--lora-format is for a LoRA, and {method} writes none; leave it out")
        if built.dora:
            raise UsageError("--lora-format kohya has no names for a DoRA; leave one of both out")
    check_device(device)
    check_dtype(dtype)
    single = hub.check_name(model, prediction=prediction, config=model_config)
    added = Added.parse(lora, embedding)
    check_output(output, checkpoint)
    for folder in images:
        check_pictures(folder)
    if dry_run:
        from unlikeness.diffusion.devices import pick_device
        from unlikeness.diffusion.opening import outline
        from unlikeness.eight_bit import check_eight_bit
        from unlikeness.personalize import create
        from unlikeness.personalize.cost import lines, memory, time_line

        bare = outline(model, dtype=dtype, prediction=prediction, model_config=model_config)
        usual = preset_values("personalize", preset, bare.resolution, method)
        trial, where = create(method, {**usual, **values}), pick_device(device)
        if trial.settings.eight_bit_adam:
            check_eight_bit(where)
        typer.echo("\n".join([*lines(memory(bare, trial)), time_line(bare, trial, where)]))
        return
    with ExitStack() as held:
        held.enter_context(locks.beside(output))
        if checkpoint is not None:
            held.enter_context(locks.beside(checkpoint, "--checkpoint"))

        from unlikeness.diffusion.lora_writing import check_writable
        from unlikeness.diffusion.model import TextToImage
        from unlikeness.personalize import create, known_as
        from unlikeness.personalize.record import record, save
        from unlikeness.progress import on_stderr
        from unlikeness.subjects import Subject

        if single and not quiet:
            typer.echo(single, err=True)
        loaded = TextToImage.from_pretrained(
            model, device=device, dtype=dtype, prediction=prediction, model_config=model_config
        )
        check_writable(loaded, lora_format)
        loaded = added.to(loaded)
        made = create(method, {**preset_values("personalize", preset, loaded.resolution, method), **values})

        def report(line: str) -> None:
            typer.echo(line, err=True)

        if loaded.single and not single and not quiet:
            report(loaded.single.line)
        if told := loaded.conditioner.check_noun(class_noun, "--class-noun"):
            report(told)
        trainer = made.settings if isinstance(made.settings, TrainerSettings) else TrainerSettings()
        subject = Subject.from_folder(
            images, class_noun, identifier, size=loaded.resolution, report=report,
            captions=trainer.captions, whole=trainer.fits,
        )  # fmt: skip
        if reason := loaded.conditioner.too_long(subject.instance_prompt):
            raise UsageError(reason)
        for prompt in known_as(made, subject).captioned_prompts:
            if reason := loaded.conditioner.too_long(prompt):
                report(reason)
        with on_stderr(quiet=quiet) as progress:
            tuned = made.personalize(loaded, subject, checkpoint=checkpoint, progress=progress)
        known = known_as(made, subject)
        what = record(method, made, known, model, added, preset=which_preset(
            preset, loaded.resolution, "personalize", method
        ))  # fmt: skip
        save(tuned, output, what, made, lora_format=lora_format)
    typer.echo(f'{output}: ask it for "{known.instance_prompt}"')
