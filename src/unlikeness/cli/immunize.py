"""`unlikeness immunize`: make a model hard to personalize on named subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import (
    Device,
    Embeddings,
    Loras,
    ModelConfig,
    Prediction,
    Preset,
    Quiet,
    Seed,
    Set,
    give,
    how,
    run,
)

__all__ = ["immunize"]


def immunize(
    output: Annotated[Path, give("New folder for the model, its card and immunization.json.")],
    model: Annotated[
        str | None,
        give("Model to immunize: a diffusers folder, a single file, a hub name or toybox (default)."),
    ] = None,
    prediction: Prediction = None,
    model_config: ModelConfig = None,
    lora: Loras = None,
    embedding: Embeddings = None,
    add_to: Annotated[
        Path | None,
        give("Instead of --model: folder of an immunized model, to protect further subjects in it."),
    ] = None,
    original: Annotated[
        str | None,
        give("The model before its first immunization, for a model that was immunized before."),
    ] = None,
    images: Annotated[Path | None, give("Folder of pictures of one subject.")] = None,
    class_noun: Annotated[str | None, give("Class noun of the subject (dog, person, ...).")] = None,
    identifier: Annotated[
        str, give("Identifier token: the rare word that simulated attackers bind to the subject.")
    ] = "sks",
    subjects: Annotated[
        Path | None,
        give(
            "Several subjects: a YAML list of images, class_noun and identifier, or a folder of folders "
            "CLASS_NOUN/NAME."
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        give("File with one prompt a line, whose pictures must not change (with --set preserve_weight=1)."),
    ] = None,
    method: Annotated[str, how("divert, notice, apdm, persguard, combined, adversarial or imma.")] = "divert",
    protective_output: Annotated[
        str | None,
        how(
            "Protective output of a fine-tune (divert, notice, persguard, combined): pattern, erasure or "
            "target. A comma-separated list is assigned to the subjects round-robin."
        ),
    ] = None,
    target_noun: Annotated[
        str | None, how("Class noun that protective output target shows. A list as above.")
    ] = None,
    pattern: Annotated[
        Path | None, how("Picture file of the watermark of pattern. Default: a chequered square.")
    ] = None,
    preset: Preset = "auto",
    outer_steps: Annotated[int | None, how("Steps of the released model (N_protect).")] = None,
    inner_steps: Annotated[int | None, how("Steps of a simulated attack for each of those (N_per).")] = None,
    learning_rate: Annotated[float | None, how("Learning rate of the released model (AdamW).")] = None,
    attack_learning_rate: Annotated[float | None, how("Learning rate of the simulated attacker.")] = None,
    train: Annotated[str | None, how("Weights to change: all, attention or cross-attention.")] = None,
    single_file: Annotated[
        bool, how("Write one file in the layout of the single file that --model names.", "--single-file")
    ] = False,
    set_: Set = None,
    seed: Seed = None,
    dry_run: Annotated[
        bool,
        run("Estimate memory (configuration) and time (a short probe); write nothing.", "--dry-run"),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        run("File for the state of the training. Default: beside OUTPUT, and removed at the end."),
    ] = None,
    device: Device = "auto",
    dtype: Annotated[
        str, run("Precision of the written weights. auto: the precision of the model's own files.")
    ] = "auto",
    quiet: Quiet = False,
) -> None:
    """Change a model so that named subjects are hard to teach it, while it keeps everything else.

    Writes a diffusers folder that opens wherever the original did; with --single-file, a folder with one file
    as it came. Repeat the command to go on after a stop.
    """
    from unlikeness.diffusion.adapters import Added
    from unlikeness.errors import one_line
    from unlikeness.immunize.job import Job
    from unlikeness.progress import on_stderr
    from unlikeness.settings import pairs

    given = {
        "protective_output": protective_output,
        "target_noun": target_noun,
        "pattern": None if pattern is None else str(pattern),
        "outer_steps": outer_steps,
        "inner_steps": inner_steps,
        "learning_rate": learning_rate,
        "attack_learning_rate": attack_learning_rate,
        "train": train,
        "seed": seed,
    }
    values = pairs("--set", set_, given)

    def report(line: str) -> None:
        typer.echo(one_line(line), err=True)

    job = Job(
        output=output, model=model, add_to=add_to, original=original, method=method, images=images,
        class_noun=class_noun, identifier=identifier, subjects=subjects, preset=preset, values=values,
        prompts=prompts, checkpoint=checkpoint, device=device, dtype=dtype,
        prediction=prediction, model_config=model_config, single_file=single_file,
        added=Added.parse(lora, embedding),
    )  # fmt: skip
    if dry_run:
        typer.echo("\n".join(job.estimate(report=report).lines()))
        return
    with on_stderr(quiet=quiet) as progress:
        job.run(report=report, progress=progress)
    typer.echo(f"{output}: measure the protection with unlikeness verify {output}")
