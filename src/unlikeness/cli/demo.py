"""`unlikeness demo`: the main job from end to end, told in one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything that is made.")
    ] = Path("demo"),
    photos: Annotated[Path | None, typer.Option(help="Your own photographs instead of the story.")] = None,
    model: Annotated[
        str, typer.Option(help="toybox, a diffusers folder, or a hub name (with --photos).")
    ] = "toybox",
    method: Annotated[str, typer.Option(help="Protection.")] = "advdm",
    budget: Annotated[float, typer.Option(help="Largest change of a colour value [n/255].")] = 8.0,
    class_noun: Annotated[str, typer.Option(help="What the story's subject is one of.")] = "robot",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Show on a small model how a subject is copied from five pictures, and what protecting them changes.

    Ends with OUTPUT/report.html. With --photos, protects your own photographs into OUTPUT/protected instead.
    """
    from unlikeness.diffusion import TextToImage
    from unlikeness.errors import UsageError
    from unlikeness.progress import on_stderr

    if photos is not None and not photos.exists():
        raise UsageError(f"--photos {photos} does not exist; give a folder of pictures")
    if photos is None and model != "toybox":
        raise UsageError("the story plays on the toybox; give --photos to use another model")
    with on_stderr(quiet=quiet) as progress:
        if photos is not None:
            from unlikeness.demo.photographs import protect_photographs

            loaded = TextToImage.from_pretrained(model)
            outcome = protect_photographs(
                photos,
                output,
                loaded,
                model_name=model,
                method=method,
                budget=budget,
                seed=seed,
                progress=progress,
            )
            failed = bool(outcome.skipped)
        else:
            from unlikeness.demo.story import DemoSettings, Judge, run
            from unlikeness.toybox import identity

            settings = DemoSettings(method=method, budget=budget, class_noun=class_noun, seed=seed)
            judge = Judge(identity.load())
            run(
                TextToImage.from_pretrained(model, dtype="float32"),
                judge,
                output,
                settings,
                progress=progress,
            )
            failed = False
    typer.echo(f"The report is {output / 'report.html'}")
    if failed:
        raise typer.Exit(1)
