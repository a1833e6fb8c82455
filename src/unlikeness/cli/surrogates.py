"""`unlikeness surrogates`: the autoencoders that pictures can be protected against, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from unlikeness.cli.options import how

__all__ = ["surrogates"]


def surrogates(
    json: Annotated[bool, how("Print JSON.", "--json")] = False,
) -> None:
    """List the autoencoders that image models see pictures through, and whether they are on this machine.

    A name opens the whole autoencoder, NAME:tiny the distilled copy. What is missing is fetched from the
    Hugging Face hub when it is first used. Files of your own are found in the folders that the environment
    variable UNLIKENESS_AUTOENCODERS names. A path to a file or a folder serves as a name, too.
    """
    from json import dumps

    from unlikeness.autoencoders.names import FOLDERS, GROUPS, KNOWN, TINY, find

    rows = []
    for name, known in KNOWN.items():
        for called, source in ((name, known.whole), (name + TINY, known.tiny)):
            if source is not None:
                place = find(called)
                rows.append(
                    {
                        "name": called, "stands_for": known.stands_for, "megabytes": source.megabytes,
                        "licence": source.licence, "from": source.address,
                        "here": None if place is None else str(place),
                    }
                )  # fmt: skip
    if json:
        typer.echo(dumps({"autoencoders": rows, "groups": GROUPS}, indent=2, ensure_ascii=False))
        return
    heads = ("name", "here", "size", "licence", "stands for", "from")
    table = [heads]
    for row in rows:
        here, size = "no" if row["here"] is None else "yes", f"{row['megabytes']} MB"
        cells = (row["name"], here, size, row["licence"], row["stands_for"], row["from"])
        table.append(tuple(str(cell) for cell in cells))  # type: ignore[arg-type]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for group, members in GROUPS.items():
        typer.echo(f"{group}: {', '.join(members)}; {group}{TINY}: those with a distilled copy")
    for row in rows:
        if row["here"] is not None:
            typer.echo(f"{row['name']} is in {row['here']}")
    typer.echo(f"Folders of your own: set {FOLDERS}")
