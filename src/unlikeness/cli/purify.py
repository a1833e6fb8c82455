"""`unlikeness purify`: clean pictures of a perturbation, as an attacker does before a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import Device, Quiet, Set, give, how

__all__ = ["purify"]


def purify(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, and folders of pictures.", metavar="PATHS")],
    output: Annotated[Path, give("New folder for the purified pictures, as PNG files.", "--output", "-o")],
    model: Annotated[
        str, give("Model of vae, diffpure, gridpure and impress: a folder, a hub name or toybox.")
    ] = "toybox",
    method: Annotated[
        str, how("jpeg, resize, blur, noise, median, bilateral, vae, diffpure, gridpure or impress.")
    ] = "jpeg",
    set_: Set = None,
    seed: Annotated[int, how("Random seed of noise; each further picture adds 1.", min=0)] = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Purify pictures as an attacker does, to see what is left of a protection.

    Writes the picture FOLDER/NAME.jpg to OUTPUT/NAME.png, at its own size. Measure the result, or give it to
    `unlikeness personalize`. The exit status is 1 if a picture could not be read.
    """
    from unlikeness.diffusion import hub
    from unlikeness.diffusion.devices import check_device
    from unlikeness.errors import PictureError, UsageError, one_line
    from unlikeness.paths import check_output
    from unlikeness.pictures.finding import find_pictures
    from unlikeness.purify import METHODS
    from unlikeness.settings import build, pairs

    # Validate before importing torch, which takes seconds.
    settings = build(METHODS.settings_type(method), pairs("--set", set_))
    check_output(output)
    check_device(device)
    hub.check_name(model)
    files: dict[str, Path] = {}
    for root, file in find_pictures(paths):
        name = file.relative_to(root).with_suffix(".png").as_posix()
        if name in files:
            raise UsageError(f"{files[name]} and {file} would both be {name}; purify them separately")
        files[name] = file
    if not files:
        raise UsageError(f"no pictures in {', '.join(map(str, paths))}; name pictures or folders of them")

    import torch

    from unlikeness.diffusion import TextToImage
    from unlikeness.gallery import new_folder, to_pil
    from unlikeness.pictures import open_picture
    from unlikeness.progress import on_stderr

    needed = METHODS.settings_type(method).network
    loaded = TextToImage.from_pretrained(model, device=device, carried=False) if needed else None
    purifier = METHODS.create_for(method, loaded, settings)
    skipped = 0
    with new_folder(output) as made, on_stderr(quiet=quiet) as progress:
        progress.start(len(files), "purifying", "picture")
        for i, (name, file) in enumerate(files.items()):
            try:
                image = torch.from_numpy(open_picture(file).rgb).permute(2, 0, 1)
            except PictureError as error:
                typer.echo(one_line(f"skipped {error}"), err=True)
                skipped += 1
                continue
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            to_pil(purifier.purify(image[None], [seed + i])[0]).save(made / name)
            progress.advance()
        progress.close()
        if skipped == len(files):
            raise PictureError("no picture can be read; give other pictures")
    typer.echo(f"{len(files) - skipped} purified{f', {skipped} skipped' if skipped else ''}; {output}")
    if skipped:
        raise typer.Exit(1)
