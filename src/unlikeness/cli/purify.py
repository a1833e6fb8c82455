"""`unlikeness purify`: clean pictures of a perturbation, as an attacker does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlikeness.cli.options import Device, Quiet, Set, give, how, run

if TYPE_CHECKING:
    from unlikeness.diffusion import TextToImage
    from unlikeness.purify.base import Model
    from unlikeness.purify.chain import Step

__all__ = ["purify"]


def purify(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Pictures, and folders of pictures with all their subfolders.", metavar="PATHS"),
    ],
    output: Annotated[Path, give("Folder for the purified pictures.", "--output", "-o")],
    model: Annotated[
        str,
        give(
            "Model of diffpure and gridpure, and of vae and impress unless they name an autoencoder: a "
            "folder, a single file, a hub name or toybox."
        ),
    ] = "toybox",
    method: Annotated[
        str,
        how(
            "jpeg, resize, blur, noise, median, bilateral, vae, diffpure, gridpure, upscale or impress, each "
            "with its main setting behind it if not the default (jpeg:75, resize:0.5, vae:sdxl, "
            "upscale:FOLDER). Several are done in this order.",
            metavar="METHOD[:VALUE][,METHOD...]",
        ),
    ] = "jpeg",
    set_: Set = None,
    seed: Annotated[int, how("Random seed.", min=0)] = 0,
    max_pixels: Annotated[int | None, run("Skip larger pictures. Default: 50 million.", min=1)] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Purify pictures as an attacker does, to see what is left of a protection.

    Purified pictures keep their names, sizes, formats and metadata. OUTPUT/manifest.jsonl says what was done
    to each file. Repeat the command to go on after a stop. Of several methods, --set takes METHOD.NAME=VALUE.
    Measure the result, or give it to `unlikeness personalize`. The exit status is 1 if a file was skipped.
    """
    from unlikeness import locks
    from unlikeness.diffusion.devices import check_device
    from unlikeness.errors import one_line
    from unlikeness.extras import check_extra
    from unlikeness.protect.files.targets import find_targets
    from unlikeness.purify.chain import Chain, parse
    from unlikeness.purify.settings import AutoencoderSettings, UpscaleSettings
    from unlikeness.settings import pairs

    # Validate before importing torch, which takes seconds. Without networks it is never imported.
    steps = parse(method, pairs("--set", set_))
    check_device(device)
    locks.check_free(output)
    find_targets(paths, output)
    for step in steps:
        if step.settings.network:
            check_extra("models", f"--method {step.method}")
    if any(step.needs_model for step in steps):
        from unlikeness.diffusion import hub

        hub.check_name(model)
    for step in steps:
        if isinstance(step.settings, AutoencoderSettings) and step.settings.autoencoder:
            from unlikeness.autoencoders.fetching import locate

            locate(step.settings.autoencoder)
        elif isinstance(step.settings, UpscaleSettings):
            from unlikeness.purify.upscale import locate as upscaler

            upscaler(step.settings.upscaler)

    from unlikeness.progress import on_stderr
    from unlikeness.purify.folder import MOST_PIXELS, purify_folder

    with on_stderr(quiet=quiet) as progress:
        chain = Chain(steps, _opened(steps, model, device))
        outcome = purify_folder(
            paths, output, chain, seed=seed, max_pixels=max_pixels or MOST_PIXELS, progress=progress
        )
    for entry in outcome.skipped:
        typer.echo(one_line(f"skipped {entry.reason}"), err=True)
    if outcome.passed_over:
        typer.echo(outcome.passed_over, err=True)
    parts = [f"{len(outcome.purified)} purified"]
    if outcome.before:
        parts.append(f"{len(outcome.before)} done before")
    if outcome.skipped:
        parts.append(f"{len(outcome.skipped)} skipped")
    typer.echo(f"{', '.join(parts)}; {output}")
    if outcome.skipped:
        raise typer.Exit(1)


def _opened(steps: list[Step], name: str, device: str) -> list[Model | None]:
    """What each step computes with. The model is opened once, and only if a step needs it."""
    from unlikeness.purify.settings import AutoencoderSettings, UpscaleSettings

    whole: TextToImage | None = None
    models: list[Model | None] = []
    for step in steps:
        if step.needs_model:
            from unlikeness.diffusion import TextToImage

            whole = whole or TextToImage.from_pretrained(name, device=device, carried=False)
            models.append(whole)
        elif isinstance(step.settings, AutoencoderSettings):
            from unlikeness.autoencoders import Autoencoder
            from unlikeness.diffusion.devices import pick_device

            models.append(Autoencoder.open(step.settings.autoencoder, device=pick_device(device)))
        elif isinstance(step.settings, UpscaleSettings):
            from unlikeness.purify.upscale import Upscaler

            models.append(Upscaler.open(step.settings.upscaler, device=device))
        else:
            models.append(None)
    return models
