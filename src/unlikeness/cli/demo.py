"""`unlikeness demo`: attack and protection from end to end, on one HTML page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlikeness.cli.options import Device, Quiet, give, how, run

if TYPE_CHECKING:
    from unlikeness.protect.files.folder import Outcome

__all__ = ["demo"]


def demo(
    output: Annotated[Path, give("Folder for all results.", "--output", "-o")] = Path("demo"),
    photos: Annotated[
        Path | None, give("Your own photographs, a folder or a picture, instead of the story.")
    ] = None,
    model: Annotated[
        str, give("With --photos: model to compute against: a diffusers folder, a hub name or toybox.")
    ] = "toybox",
    against: Annotated[
        list[str] | None,
        give(
            "With --photos: autoencoders to measure the protection with, and to compute it against with "
            "--method encoder (see unlikeness surrogates). Default: the distilled ones on this machine.",
            metavar="NAME[,NAME...]",
        ),
    ] = None,
    class_noun: Annotated[str | None, how("Class noun of the story's subject. Default: robot.")] = None,
    method: Annotated[
        str | None,
        how("Protection: rid, encoder, advdm, photoguard or noise. Default: rid, or advdm with --model."),
    ] = None,
    budget: Annotated[float, how("Largest change of a colour value [n/255].")] = 8.0,
    steps: Annotated[
        int | None, how("Steps of the attacker's training; with --photos, of the protection.")
    ] = None,
    noise: Annotated[
        bool | None, how("Also train on plain noise, as the control.", "--noise/--no-noise")
    ] = None,
    seed: Annotated[int, how("Random seed of the subject and the trainings.")] = 0,
    device: Device = "auto",
    dtype: Annotated[
        str, run("With --photos: precision of the model: auto, float32, float16 or bfloat16.")
    ] = "auto",
    quiet: Quiet = False,
) -> None:
    """Show on a small model how an attacker copies a subject from five pictures, and what protection changes.

    Writes OUTPUT/report.html. With --photos, protects your own photographs into OUTPUT/protected and writes
    OUTPUT/photographs.html. Repeat the command to go on after a stop.
    """
    from unlikeness.errors import UsageError, one_line
    from unlikeness.progress import on_stderr

    if photos is not None and not photos.exists():
        raise UsageError(f"--photos {photos} does not exist; give a folder of pictures")
    if photos is not None and (class_noun is not None or noise is not None):
        raise UsageError("--class-noun and --noise belong to the story; leave them out with --photos")
    if photos is None and against is not None:
        raise UsageError("the story runs on the toybox alone; give --photos to use --against")
    if photos is None and model != "toybox":
        raise UsageError("the story runs on the toybox; give --photos to use another --model")

    from unlikeness import locks
    from unlikeness.autoencoders.names import expand
    from unlikeness.demo.settings import DemoSettings, chosen_method
    from unlikeness.diffusion import hub
    from unlikeness.diffusion.devices import check_device, check_dtype
    from unlikeness.pictures.finding import check_pictures
    from unlikeness.protect import registry
    from unlikeness.settings import build

    # Validate before importing torch, which takes seconds.
    method = chosen_method(method, model)
    check_device(device)
    check_dtype(dtype)
    hub.check_name(model)
    check_pictures(photos)
    if against is not None:
        expand(against)
    told: dict[str, object] = {"budget": budget}
    if photos is not None:
        build(registry.settings_type(method), told if steps is None else {**told, "steps": steps})
    given: dict[str, Any] = {"steps": steps, "class_noun": class_noun, "noise": noise}
    settings = DemoSettings(
        method=method,
        budget=budget,
        seed=seed,
        **{name: value for name, value in given.items() if value is not None and photos is None},
    )
    failed = False
    with locks.inside(output):
        from unlikeness.demo import photographs, story
        from unlikeness.diffusion import TextToImage

        with on_stderr(quiet=quiet) as progress:
            if photos is not None:
                outcome = _protect(
                    photos, output, model, against, device, dtype,
                    method=method, budget=budget, steps=steps, seed=seed, progress=progress,
                )  # fmt: skip
                for entry in outcome.skipped:
                    typer.echo(f"skipped {entry.reason}", err=True)
                for entry in outcome.unchanged:
                    typer.echo(one_line(f"unchanged {entry.path}: {entry.note}"), err=True)
                failed = not outcome.complete
            else:
                import torch

                from unlikeness.toybox.evaluators import load_identity

                if "OMP_NUM_THREADS" not in os.environ:  # with more threads, other programs slow it down
                    torch.set_num_threads(1)
                story.run(
                    TextToImage.from_pretrained(model, device=device, dtype="float32"),
                    story.Evaluator(load_identity()),
                    output,
                    settings,
                    progress=progress,
                    say=None if quiet else lambda text: typer.echo(text, err=True),
                )
    typer.echo(f"the report is {(output / (story.PAGE if photos is None else photographs.PAGE)).resolve()}")
    if failed:
        raise typer.Exit(1)


def _protect(
    photos: Path,
    output: Path,
    model: str,
    against: list[str] | None,
    device: str,
    dtype: str,
    *,
    method: str,
    **options: Any,
) -> Outcome:
    """Protect photographs against the model, or against the autoencoders if the method is theirs."""
    from unlikeness.autoencoders.names import KNOWN, TINY, find
    from unlikeness.demo.photographs import protect_photographs
    from unlikeness.diffusion import TextToImage
    from unlikeness.protect.surrogates import Surrogates

    here = [name + TINY for name in KNOWN if find(name + TINY) is not None]
    names = against or here
    opened = Surrogates.named(names, device=device, dtype=dtype) if names else Surrogates()
    if method == "encoder" and against is not None:
        loaded: TextToImage | Surrogates = opened
        model = ", ".join(one.name for one in opened)
    else:
        loaded = TextToImage.from_pretrained(model, device=device, dtype=dtype)
    return protect_photographs(
        photos, output, loaded, model_name=model, method=method,
        autoencoders=opened.by_title, **options,
    )  # fmt: skip
