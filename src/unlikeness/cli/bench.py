"""`unlikeness bench`: every defence against every attacker, with one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import Device, Quiet, give, how, run

__all__ = ["app"]

app = typer.Typer(help="Run every defence against every attacker, and report it.")


@app.command("run")
def run_suite(
    suite: Annotated[
        str, typer.Argument(help="A suite (`unlikeness bench list suites`), or a YAML file.", metavar="SUITE")
    ],
    output: Annotated[Path, give("Folder for the cells. Repeat the command to go on after a stop.")],
    model: Annotated[
        str | None, give("Model under attack. Default: the suite's. A folder, a file, a hub name or toybox.")
    ] = None,
    subjects: Annotated[
        Path | None, give("Folder NOUN/NAME/pictures of the subjects. Default: the suite's.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        how(
            "A setting of all attackers and of the judging, or of one attacker; can be given several times.",
            "--set",
            metavar="[ATTACKER.]NAME=VALUE",
        ),
    ] = None,
    workers: Annotated[
        int | None, run("Cells at a time, each in a process with its share of the cores. Default: 1.", min=1)
    ] = None,
    ray: Annotated[
        str | None,
        run("Ray cluster that computes the cells: auto, ray://HOST:10001, or local.", metavar="ADDRESS"),
    ] = None,
    keep: Annotated[
        bool, run("Count cells as finished that other code has made: the change decides nothing.", "--keep")
    ] = False,
    dry_run: Annotated[
        bool, run("Say how many cells are missing and what time they may take; compute none.", "--dry-run")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Compute the missing cells of a suite: defence × attacker × purifier × subject × seed.

    Writes one JSON a cell into OUTPUT/cells. OUTPUT/work holds what cells share, and can be removed. A cell
    that fails is recorded and tried again by the next run; the exit status is then 1.
    """
    from unlikeness import locks
    from unlikeness.bench.suites import load
    from unlikeness.diffusion.devices import check_device
    from unlikeness.errors import one_line
    from unlikeness.paths import check_place
    from unlikeness.settings import pairs

    # Validate before importing torch, which takes seconds.
    changes = {"model": model, "folder": None if subjects is None else str(subjects)}
    typed = pairs("--set", set_, form="NAME=VALUE or ATTACKER.NAME=VALUE")
    chosen = load(suite, {k: v for k, v in changes.items() if v is not None}, typed)
    check_device(device)
    check_place(output, "--output")

    def report(line: str) -> None:
        if not quiet:
            typer.echo(one_line(line), err=True)

    from unlikeness.bench.running import Here, Pool, Processes, prepare, state
    from unlikeness.bench.running import run as run_cells
    from unlikeness.bench.work import Shared
    from unlikeness.progress import on_stderr

    shared = Shared(chosen, output, device)
    if dry_run:
        typer.echo(state(chosen, shared, keep=keep).line(chosen, workers or 1))
        return
    with locks.inside(output):
        now = state(chosen, shared, keep=keep)
        report(now.line(chosen, workers or 1))
        if now.missing:
            prepare(chosen, output)
        pool: Pool
        if not now.missing or (ray is None and (workers or 1) == 1):
            pool = Here(shared)
        elif ray is None:
            pool = Processes(chosen, output, workers or 1, device)
        else:
            from unlikeness.bench.cluster import Cluster

            pool = Cluster(chosen, output, ray, most=workers, device=device)
        try:
            with on_stderr(quiet=quiet) as progress:
                failures = run_cells(chosen, shared, pool, now, report=report, progress=progress)
        finally:
            pool.close()
    done = f"{len(now.cells) - failures} of {len(now.cells)} cells"
    typer.echo(f"{output}: {done}; see them with `unlikeness bench report {output}`")
    if failures:
        raise typer.Exit(1)


@app.command("report")
def report_folder(
    folder: Annotated[Path, typer.Argument(help="The --output of `bench run`.", metavar="FOLDER")],
) -> None:
    """Write FOLDER/report.html, report.md and report.csv, the worst attack first."""
    from unlikeness.bench.report import write

    for line in write(folder):
        typer.echo(line)


@app.command("list")
def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="suites, defences, attackers, purifiers or metrics. Default: all.", metavar="[KIND]"
        ),
    ] = None,
) -> None:
    """Explain every name that a suite may use, those of other packages too."""
    from unlikeness.bench.listing import listing

    for line in listing(kind):
        typer.echo(line)
