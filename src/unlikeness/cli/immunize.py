"""`unlikeness immunize`: a model that is hard to teach certain subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["immunize"]


def immunize(
    output: Annotated[Path, typer.Option(help="New folder for the model, its card and immunization.json.")],
    model: Annotated[
        str | None, typer.Option(help="A diffusers folder, a hub name, or toybox (the default).")
    ] = None,
    add_to: Annotated[
        Path | None,
        typer.Option(help="Instead of --model: an immunized model's folder, whose subjects stay on record."),
    ] = None,
    original: Annotated[
        str | None,
        typer.Option(
            help="For a model that was immunized before: the one from before all that, to be held to."
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder with pictures of one subject.")] = None,
    class_noun: Annotated[str | None, typer.Option(help="What it is one of: dog, person, ...")] = None,
    identifier: Annotated[
        str, typer.Option(help="The rare word that simulated attackers bind to a subject.")
    ] = "sks",
    subjects: Annotated[
        Path | None,
        typer.Option(
            help="Several: a YAML list of images, class_noun, identifier; or a folder CLASS_NOUN/NAME."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="divert, notice, apdm, persguard, combined, adversarial or imma.")
    ] = "divert",
    protective_output: Annotated[
        str | None,
        typer.Option(
            help="What a fine-tune ends in, of notice, persguard, combined and divert: pattern, erasure or "
            "target; several, separated by commas, go to the subjects in turn."
        ),
    ] = None,
    target_noun: Annotated[
        str | None, typer.Option(help="The class that behaviour target draws; likewise.")
    ] = None,
    pattern: Annotated[
        Path | None, typer.Option(help="Picture of the mark of behaviour pattern; else a chequered square.")
    ] = None,
    outer_steps: Annotated[
        int | None, typer.Option(help="Steps of the model that is released (N_protect).")
    ] = None,
    inner_steps: Annotated[
        int | None, typer.Option(help="Steps of a simulated attack for each of them (N_per).")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="AdamW's step size for the released model.")
    ] = None,
    attack_learning_rate: Annotated[
        float | None, typer.Option(help="The simulated attacker's step size.")
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="Weights that change: all, attention or cross-attention.")
    ] = None,
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
    prompts: Annotated[
        Path | None,
        typer.Option(help="File, a prompt a line: what must stay as it was (preserve_weight above 0)."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File of the run's state; default: beside OUTPUT, removed at the end.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Of the written weights; auto: that of the model's own files.")
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it will cost, after a short probe; write nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Change a model so that named subjects are hard to teach it, while it draws and learns all else.

    Writes a diffusers folder that opens wherever the original did. Started again with the same words, an
    interrupted run goes on.
    """
    from unlikeness.errors import one_line
    from unlikeness.immunize.job import Job
    from unlikeness.progress import on_stderr
    from unlikeness.settings import pairs

    given = {
        "behaviour": protective_output,
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
        class_noun=class_noun, identifier=identifier, subjects=subjects, scale=preset, values=values,
        prompts=prompts, checkpoint=checkpoint, device=device, dtype=dtype,
    )  # fmt: skip
    if dry_run:
        typer.echo("\n".join(job.estimate(report=report).lines()))
        return
    with on_stderr(quiet=quiet) as progress:
        job.run(report=report, progress=progress)
    typer.echo(f"{output}: what it is worth, unlikeness verify {output} tells")
