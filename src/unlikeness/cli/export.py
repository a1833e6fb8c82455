"""`unlikeness export`: a trained protector as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import Overwrite, give

__all__ = ["export"]


def export(
    output: Annotated[Path, give("File to write: NAME.onnx.", "--output", "-o")],
    weights: Annotated[
        str, give("Name of a shipped network, or a file of `unlikeness train-protector`.")
    ] = "rid-photo",
    overwrite: Overwrite = False,
) -> None:
    """Write the network of `protect --method rid` as ONNX, for pictures and batches of any size.

    Other programs can run the file: its description names the inputs and outputs. `protect --weights
    NAME.onnx` runs it too.
    """
    from unlikeness.cli.targets import check_target
    from unlikeness.errors import UsageError
    from unlikeness.protect.rid.settings import check_weights, is_protector

    file = check_weights(weights)
    if file.is_file() and file.suffix != ".safetensors" and not is_protector(file):
        raise UsageError(
            f"--weights {file} is no file of `unlikeness train-protector`; only those become ONNX"
        )
    check_target(output, ".onnx", overwrite=overwrite)

    from unlikeness.protect.rid.onnx_file import export_onnx
    from unlikeness.protect.rid.saved import read_saved

    export_onnx(read_saved(weights), output)
    typer.echo(f"exported {weights}: {output}")
