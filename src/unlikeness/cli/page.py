"""`unlikeness page`: the page that protects pictures in a browser, as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import Overwrite, give

__all__ = ["page"]


def page(
    output: Annotated[Path, give("Folder for the page.", "--output", "-o")],
    weights: Annotated[
        str, give("Name of a shipped network, or a file of `unlikeness train-protector`.")
    ] = "rid-photo",
    onnxruntime: Annotated[
        Path | None,
        give("Folder or archive of the npm package onnxruntime-web. Default: npm fetches it."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the page that protects pictures in a browser, without a server program or an upload.

    Serve the folder from any static host or file server. It changes pictures as `protect` does with the same
    network. After the first picture, it works offline.
    """
    from unlikeness.cli.targets import check_target
    from unlikeness.errors import UsageError
    from unlikeness.page.build import build_page, is_page
    from unlikeness.protect.rid.settings import check_weights

    check_weights(weights)
    check_target(output, overwrite=overwrite, is_ours=is_page)
    if onnxruntime is not None and not onnxruntime.exists():
        raise UsageError(f"--onnxruntime {onnxruntime} is not there; leave it out, or name the package")
    names = build_page(output, weights, onnxruntime)
    typer.echo(
        f"{len(names)} files: {output}; to open it: python -m http.server --bind 127.0.0.1 --directory "
        f"{output} 8000"
    )
