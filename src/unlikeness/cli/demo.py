"""`unlikeness demo`: the main job from end to end, told in one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["demo"]


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything that is made.")
    ] = Path("demo"),
    photos: Annotated[
        Path | None, typer.Option(help="Your own photographs, a folder or a picture, instead of the story.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="toybox, a diffusers folder, or a hub name (with --photos).")
    ] = "toybox",
    method: Annotated[
        str | None,
        typer.Option(
            help="Protection: rid, advdm, photoguard or noise; default: rid, or advdm if a --model is given."
        ),
    ] = None,
    budget: Annotated[float, typer.Option(help="Largest change of a colour value [n/255].")] = 8.0,
    class_noun: Annotated[
        str | None, typer.Option(help="What the story's subject is one of; default: robot.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the copier; with --photos, of the protection.")
    ] = None,
    noise: Annotated[
        bool | None,
        typer.Option("--noise/--no-noise", help="A third training, the control, on plain noise."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the subject and everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, float16 or bfloat16, of the --model (with --photos).")
    ] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Show on a small model how a subject is copied from five pictures, and what protecting them changes.

    Ends with OUTPUT/report.html. With --photos, protects your own photographs into OUTPUT/protected instead,
    and ends with OUTPUT/photographs.html.
    A run that was stopped goes on when it is started again.
    """
    from unlikeness.errors import UsageError, one_line
    from unlikeness.progress import on_stderr

    if photos is not None and not photos.exists():
        raise UsageError(f"--photos {photos} does not exist; give a folder of pictures")
    if photos is not None and (class_noun is not None or noise is not None):
        raise UsageError("--class-noun and --noise are the story's; leave them out with --photos")
    if photos is None and model != "toybox":
        raise UsageError("the story plays on the toybox; give --photos to use another model")

    from unlikeness import locks
    from unlikeness.demo.settings import DemoSettings, chosen_method
    from unlikeness.diffusion import hub
    from unlikeness.diffusion.names import check_device, check_dtype
    from unlikeness.pictures.finding import check_pictures
    from unlikeness.protect import registry
    from unlikeness.settings import build

    # What is asked wrongly is said before torch is imported, which takes seconds.
    method = chosen_method(method, model)
    check_device(device)
    check_dtype(dtype)
    hub.check_name(model)
    check_pictures(photos)
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
        from unlikeness.demo import Judge, photographs, protect_photographs, run
        from unlikeness.demo.story import PAGE
        from unlikeness.diffusion import TextToImage

        with on_stderr(quiet=quiet) as progress:
            if photos is not None:
                outcome = protect_photographs(
                    photos,
                    output,
                    TextToImage.from_pretrained(model, device=device, dtype=dtype),
                    model_name=model,
                    method=method,
                    budget=budget,
                    steps=steps,
                    seed=seed,
                    progress=progress,
                )
                for entry in outcome.skipped:
                    typer.echo(f"skipped {entry.reason}", err=True)
                for entry in outcome.unchanged:
                    typer.echo(one_line(f"unchanged {entry.path}: {entry.note}"), err=True)
                failed = not outcome.complete
            else:
                from unlikeness.toybox.evaluators import load_identity

                run(
                    TextToImage.from_pretrained(model, device=device, dtype="float32"),
                    Judge(load_identity()),
                    output,
                    settings,
                    progress=progress,
                    say=None if quiet else lambda text: typer.echo(text, err=True),
                )
    typer.echo(f"the report is {(output / (PAGE if photos is None else photographs.PAGE)).resolve()}")
    if failed:
        raise typer.Exit(1)
