"""`unlikeness publish`: an immunized model or a protector's network on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import give, run

__all__ = ["publish"]


def publish(
    path: Annotated[
        Path, typer.Argument(help="Folder of immunize, or file of train-protector.", metavar="PATH")
    ],
    to: Annotated[str, give("Repository on the Hugging Face hub: OWNER/NAME.", "--to")],
    public: Annotated[bool, give("Let everyone see it. Default: private.", "--public")] = False,
    dry_run: Annotated[bool, run("List what would be sent; send nothing.", "--dry-run")] = False,
) -> None:
    """Publish an immunized model or a protector's network with its card, private unless you say otherwise.

    The model's own files, its record and its card are sent, and nothing else: no pictures and no checkpoints.
    A record that names a folder of this machine is refused. Log in with `hf auth login` first.
    """
    from unlikeness.publishing import check_repository, contents
    from unlikeness.publishing import publish as send
    from unlikeness.words import in_bytes

    check_repository(to)
    found = contents(path)
    if dry_run:
        typer.echo("\n".join(found.files))
        typer.echo(f"{found.what}, {len(found.files)} files, {in_bytes(found.size)}; nothing was sent")
        return
    address, private = send(found, to, public=public)
    typer.echo(f"{address} ({'private' if private else 'public'}): {found.what}, {in_bytes(found.size)}")
