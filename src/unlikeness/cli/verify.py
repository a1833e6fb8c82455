"""`unlikeness verify`: attack a model in every known way, and certify what the worst attacker gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlikeness.cli.options import (
    ClassNoun,
    Device,
    Embeddings,
    Loras,
    ModelConfig,
    Prediction,
    Preset,
    Quiet,
    give,
    how,
    run,
)

if TYPE_CHECKING:
    from unlikeness.verify.verdict import Outcome, Verdict

__all__ = ["verify"]


def verify(
    model: Annotated[
        str,
        typer.Argument(
            help="Model to attack: a diffusers folder, a single file, a hub name or toybox.", metavar="MODEL"
        ),
    ],
    images: Annotated[Path, give("Folder of the protected pictures of the subject.")],
    class_noun: ClassNoun,
    output: Annotated[Path, give("Folder for the certificate. Repeat the command to go on after a stop.")],
    prediction: Prediction = None,
    model_config: ModelConfig = None,
    lora: Loras = None,
    embedding: Embeddings = None,
    identifier: Annotated[
        str | None,
        give("Protected identifier token. Default: the one in the model's immunization.json, or sks."),
    ] = None,
    held_out: Annotated[
        Path | None, give("Folder of other pictures of the subject, only for the comparison.")
    ] = None,
    unseen: Annotated[
        Path | None, give("Folder of further pictures, for the attacker who has only unprotected ones.")
    ] = None,
    class_pictures: Annotated[
        Path | None, give("Folder of pictures of other members of the class. Default: generated.")
    ] = None,
    original: Annotated[
        str | None,
        give("The model before its immunization: attackers that learn nothing are repeated on it."),
    ] = None,
    unprotected: Annotated[
        Path | None,
        give(
            "Folder of unprotected subjects: NOUN/NAME/pictures. Without --original, attackers that learn "
            "nothing are repeated on one of them."
        ),
    ] = None,
    unprotected_held_out: Annotated[
        Path | None, give("Folder of the same form, with their pictures for the comparison.")
    ] = None,
    unrelated: Annotated[
        Path | None, give("Folder of pictures of something else, for a fine-tune before an attack.")
    ] = None,
    unrelated_noun: Annotated[str | None, give("Class noun of --unrelated.")] = None,
    attackers: Annotated[
        str | None,
        how(
            "Attackers, separated by commas. Default: every attacker that is possible.",
            metavar="NAME[,NAME...]",
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        how('Words to append to the prompt ("in the snow"); can be given several times.', metavar="WORDS"),
    ] = None,
    protective_output: Annotated[
        str | None,
        how(
            "Protective output to look for: pattern, erasure, target or none. Default: the one in the "
            "model's immunization.json."
        ),
    ] = None,
    target_noun: Annotated[str, how("Class noun that protective output target shows.")] = "",
    pattern: Annotated[Path | None, how("Picture file of the watermark of pattern.")] = None,
    encoder: Annotated[
        list[str] | None,
        how(
            "Image encoder that measures similarity: clip, dino, dinov2, dlib (faces), a folder, an ONNX "
            "file or a hub name; for a toybox model toybox (default). Can be given several times: the "
            "verdict is by the first.",
            metavar="NAME",
        ),
    ] = None,
    classifier: Annotated[
        str,
        how(
            "Classifier that names the class: toybox, or a CLIP model (folder or hub name; auto: chosen by "
            "the model's resolution)."
        ),
    ] = "auto",
    preset: Preset = "auto",
    settings: Annotated[Path | None, how("YAML file of settings.")] = None,
    set_: Annotated[
        list[str] | None,
        how(
            "A setting of all attackers, or of one; can be given several times.",
            "--set",
            metavar="[ATTACKER.]NAME=VALUE",
        ),
    ] = None,
    quality: Annotated[
        bool, how("With --original: measure how far the model has drifted.", "--quality/--no-quality")
    ] = True,
    fail_above: Annotated[
        float | None,
        run("Exit with status 1 if the worst similarity s is larger, or an attacker is inconclusive."),
    ] = None,
    sign: Annotated[bool, run("Write the figures into the model's own immunization.json.", "--sign")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Attack a model in every known way for one subject, and report what the worst attacker gets.

    Writes certificate.json, certificate.html and grids of pictures into OUTPUT. Repeat the command to go on
    after a stop: finished attackers with the same settings are not run again.
    """
    from unlikeness.diffusion.adapters import Added
    from unlikeness.errors import one_line
    from unlikeness.progress import on_stderr
    from unlikeness.verify.job import Verification
    from unlikeness.verify.protective import Requested
    from unlikeness.verify.settings import CONTEXTS

    def report(line: str) -> None:
        if not quiet:
            typer.echo(one_line(line), err=True)

    job = Verification(
        model=model, images=images, class_noun=class_noun, output=output, identifier=identifier,
        held_out=held_out, unseen=unseen, class_pictures=class_pictures, original=original,
        unprotected=unprotected, unprotected_held_out=unprotected_held_out, unrelated=unrelated,
        unrelated_noun=unrelated_noun,
        attackers=tuple(attackers.split(",")) if attackers else (),
        contexts=CONTEXTS if context is None else tuple(context), preset=preset, settings=settings,
        values=tuple(set_ or ()), encoders=tuple(encoder or ()),
        requested=Requested(protective_output, target_noun, pattern, classifier),
        quality=quality, sign=sign, device=device, prediction=prediction, model_config=model_config,
        added=Added.parse(lora, embedding),
    )  # fmt: skip
    with on_stderr(quiet=quiet) as progress:
        verdict = job.run(report=report, progress=progress)

    from unlikeness.verify.headline import headline

    worst = verdict.worst
    typer.echo(one_line(f'worst attacker: {worst.attacker} ("{worst.prompt}"), s {worst.s}'))
    for by, most in verdict.worst_by.items():
        typer.echo(one_line(f"  by {by}: {most.attacker}, s {most.s}"))
    if verdict.output is not None:
        what = one_line(f"{verdict.output}")
        typer.echo(f"protective output ({what}), share of pictures at the training prompt / in new contexts:")
        for title, one in verdict.titled:
            typer.echo(f"  {title}: {one.detected}{_beside(verdict, one)}")
        for other in verdict.unprotected:
            if other.outcome.detected is not None:
                typer.echo(f"  unprotected {one_line(other.name)}: {other.outcome.detected}")
        if verdict.quality is not None:
            typer.echo(f"  the class, before any attack: {verdict.quality.notice}")
    typer.echo(f"{output / 'certificate.html'}")
    typer.echo(one_line(f"{headline(verdict)}"))
    if fail_above is not None and not (worst.s.value <= fail_above and verdict.conclusive):
        raise typer.Exit(1)


def _beside(verdict: Verdict, one: Outcome) -> str:
    """What follows a share of pictures: the control's share, and whether the attacker is inconclusive."""
    if all(one is not outcome for outcome in verdict.outcomes):
        return ""
    control = verdict.control(one.attacker.name)
    there = "" if control is None or control.detected is None else f"; unprotected: {control.detected}"
    weak = verdict.findings[one.attacker.name].kind == "inconclusive"
    return there + ("; inconclusive" if weak else "")
