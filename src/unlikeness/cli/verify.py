"""`unlikeness verify`: attack a model in every known way, and certify what the worst attacker gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unlikeness.verify.verdict import Outcome, Verdict

__all__ = ["verify"]


def verify(
    model: Annotated[str, typer.Argument(help="A diffusers folder, a hub name, or toybox.")],
    images: Annotated[Path, typer.Option(help="Folder: the protected pictures of the subject.")],
    class_noun: Annotated[str, typer.Option(help="What the subject is one of: dog, person, ...")],
    output: Annotated[Path, typer.Option(help="Folder for the certificate; a run goes on in its own.")],
    identifier: Annotated[
        str | None,
        typer.Option(help="The protected rare word; default: what the model's record says, or sks."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Folder: other pictures of it, to compare with, for no attacker.")
    ] = None,
    unseen: Annotated[
        Path | None, typer.Option(help="Folder: yet others, for the attacker who has only those.")
    ] = None,
    class_pictures: Annotated[
        Path | None, typer.Option(help="Folder: other members of the class; default: drawn.")
    ] = None,
    original: Annotated[
        str | None,
        typer.Option(
            help="The model before its immunization: attackers that learn nothing are tried there too."
        ),
    ] = None,
    others: Annotated[
        Path | None,
        typer.Option(
            help="Folder of unprotected subjects: NOUN/NAME/pictures; without --original, attackers that "
            "learn nothing are tried on one."
        ),
    ] = None,
    others_held_out: Annotated[
        Path | None, typer.Option(help="Folder of the same form: their pictures to compare with.")
    ] = None,
    unrelated: Annotated[
        Path | None,
        typer.Option(help="Folder: pictures of something else, for a fine-tune before an attack."),
    ] = None,
    unrelated_noun: Annotated[str | None, typer.Option(help="What those show.")] = None,
    attackers: Annotated[
        str | None, typer.Option(help="Names, separated by commas; default: all that are possible.")
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(help='Words behind the prompt ("in the snow"); repeatable.')
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="Preset for unset options: stable-diffusion or toybox (auto: chosen by resolution)."
        ),
    ] = "auto",
    settings: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[ATTACKER.]NAME=VALUE", help="A setting of all, or of one attacker."),
    ] = None,
    encoder: Annotated[str, typer.Option(help="The image encoder that judges.")] = "toybox",
    protective_output: Annotated[
        str | None,
        typer.Option(
            help="The notice to look for: pattern, erasure, target or none; default: what the model's record "
            "says of the subject."
        ),
    ] = None,
    target_noun: Annotated[str, typer.Option(help="The class that behaviour target draws.")] = "",
    pattern: Annotated[Path | None, typer.Option(help="Picture file of behaviour pattern's mark.")] = None,
    reader: Annotated[
        str,
        typer.Option(
            help="Who reads class nouns: toybox, or a CLIP's folder or hub name; auto goes by the resolution."
        ),
    ] = "auto",
    quality: Annotated[
        bool, typer.Option("--quality/--no-quality", help="Measure the drift, with --original.")
    ] = True,
    fail_above: Annotated[
        float | None,
        typer.Option(help="Exit with status 1 if the worst s is larger, or an attacker is inconclusive."),
    ] = None,
    sign: Annotated[
        bool, typer.Option("--sign", help="Enter the figures into the model's own immunization.json.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Attack a model in every known way for one subject, and write what the worst attacker gets.

    Ends with certificate.json, certificate.html and grids of pictures in OUTPUT. An interrupted run goes on
    when it is started again; attackers that are finished, with the same settings, are not run twice.
    """
    from unlikeness.errors import one_line
    from unlikeness.progress import on_stderr
    from unlikeness.verify.job import Job
    from unlikeness.verify.sought import Sought

    def report(line: str) -> None:
        if not quiet:
            typer.echo(one_line(line), err=True)

    job = Job(
        model=model, images=images, class_noun=class_noun, output=output, identifier=identifier,
        held_out=held_out, unseen=unseen, class_pictures=class_pictures, original=original, others=others,
        others_held_out=others_held_out, unrelated=unrelated, unrelated_noun=unrelated_noun,
        attackers=tuple(attackers.split(",")) if attackers else (),
        contexts=None if context is None else tuple(context), preset=preset, settings=settings,
        values=tuple(set_ or ()), encoder=encoder,
        sought=Sought(protective_output, target_noun, pattern, reader),
        quality=quality, sign=sign, device=device,
    )  # fmt: skip
    with on_stderr(quiet=quiet) as progress:
        verdict = job.run(report=report, progress=progress)

    from unlikeness.verify.headline import headline

    worst = verdict.worst
    typer.echo(one_line(f'worst attacker: {worst.attacker} ("{worst.prompt}"), s {worst.s}'))
    if verdict.notice is not None:
        what = one_line(f"{verdict.notice}")
        typer.echo(f"notice ({what}), share of pictures at the training prompt / in new contexts:")
        for title, one in verdict.asked:
            typer.echo(f"  {title}: {one.seen}{_beside(verdict, one)}")
        for other in verdict.others:
            if other.outcome.seen is not None:
                typer.echo(f"  {one_line(other.name)}, whom nobody protects: {other.outcome.seen}")
        if verdict.quality is not None:
            typer.echo(f"  the class, before any attack: {verdict.quality.notice}")
    typer.echo(f"{output / 'certificate.html'}")
    typer.echo(one_line(f"{headline(verdict)}"))
    if fail_above is not None and not (worst.s.value <= fail_above and verdict.conclusive):
        raise typer.Exit(1)


def _beside(verdict: Verdict, one: Outcome) -> str:
    """Behind the share of pictures with the notice: what its control shows, and whether it counts at all."""
    if all(one is not outcome for outcome in verdict.outcomes):
        return ""
    control = verdict.control(one.attacker.name)
    there = "" if control is None or control.seen is None else f"; unprotected: {control.seen}"
    weak = verdict.findings[one.attacker.name].kind == "inconclusive"
    return there + ("; inconclusive, so that it shows nothing" if weak else "")
