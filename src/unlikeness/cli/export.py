"""`unlikeness export`: a trained protector as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write: NAME.onnx.")],
    weights: Annotated[
        str, typer.Option(help="A shipped protector's name, or a file of `unlikeness train-protector`.")
    ] = "rid-toybox",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write the network of `protect --method rid` as ONNX, for pictures and batches of any size.

    `protect --weights NAME.onnx` runs it on ONNX Runtime, and so does any other program: the model's
    description says what goes in and what comes out. Needs `pip install "unlikeness[onnx]"`.
    """
    _check_weights(weights)  # what is asked wrongly is said before torch is imported
    _check_target(output, overwrite=overwrite)

    from unlikeness.protect.rid.onnx_file import export_onnx
    from unlikeness.protect.rid.weights import load_protector

    export_onnx(load_protector(weights), output)
    typer.echo(f"exported {weights}: {output}")


def _check_weights(weights: str) -> None:
    """UsageError for what another network's file seems to be; `load_protector` would call it damaged."""
    from unlikeness.errors import UsageError
    from unlikeness.protect.rid.settings import check_weights, is_protector

    file = check_weights(weights)
    if file.is_file() and file.suffix != ".safetensors" and not is_protector(file):
        raise UsageError(
            f"--weights {file} is no file of `unlikeness train-protector`; only those become ONNX"
        )


def _check_target(target: Path, *, overwrite: bool) -> None:
    """UsageError unless `target` can be written, and is free or may be replaced."""
    from unlikeness.errors import UsageError

    if target.suffix.lower() != ".onnx":
        raise UsageError(f"--output {target} must be a file name that ends in .onnx")
    if target.is_dir():
        raise UsageError(f"--output {target} is a folder; name a file")
    above = next(folder for folder in target.resolve().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{target} cannot be written, as {above} is no folder; name another --output")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; give --overwrite to replace it, or another --output")
