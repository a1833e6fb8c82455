"""`unlikeness serve`: the page and an HTTP interface, from this machine."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import give, how, run

__all__ = ["serve"]


def serve(
    page: Annotated[Path | None, give("Folder that `unlikeness page` wrote, to serve too.")] = None,
    weights: Annotated[
        list[str] | None,
        give("Network that a request may choose: a shipped name or a file; can be given several times."),
    ] = None,
    token_file: Annotated[
        Path | None,
        give("File with the token that requests must send. Default: the variable UNLIKENESS_TOKEN, or none."),
    ] = None,
    jobs: Annotated[
        Path | None,
        give("Folder for jobs: many pictures that wait in a queue. Default: no jobs."),
    ] = None,
    against: Annotated[
        str | None,
        give(
            "Autoencoders that a job's gradient method computes against, as for `protect`.",
            metavar="NAME[,NAME...]",
        ),
    ] = None,
    model: Annotated[
        str | None, give("Model that a job's gradient method computes against, instead of --against.")
    ] = None,
    host: Annotated[
        str, how("Address to listen at. Any but this machine's own (127.0.0.1, localhost) needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, how("Port to listen at; 0: any that is free.", min=0, max=65535)] = 8000,
    max_bytes: Annotated[int | None, run("Largest body of a request [bytes]. Default: 64 MiB.")] = None,
    max_pixels: Annotated[int | None, run("Largest picture [px]. Default: 50 million.")] = None,
    rate: Annotated[
        int | None,
        run("Requests of one client in a minute; 0: any number. Default: 60, and 0 at 127.0.0.1."),
    ] = None,
    queue: Annotated[
        int | None, run("Pictures on the disk at a time, others wait; and jobs at a time. Default: 32.")
    ] = None,
    seconds: Annotated[int | None, run("Longest time of a request [s]. Default: 120.")] = None,
    job_bytes: Annotated[int | None, run("Largest body of a job [bytes]. Default: 1 GiB.")] = None,
    job_seconds: Annotated[int | None, run("Longest computing of a job [s]. Default: a day.")] = None,
    disk: Annotated[int | None, run("Disk space of all jobs together [bytes]. Default: 16 GiB.")] = None,
    keep: Annotated[float | None, run("Time until a job's result is deleted [h]. Default: 24.")] = None,
) -> None:
    """Protect pictures over HTTP: POST /v1/protect takes a picture, and answers with its protected copy.

    The copy has the bytes that `protect` writes. With --jobs, POST /v1/jobs takes a form or a zip of
    pictures, which wait in a queue; start the service again to go on after a stop. Pictures are kept on the
    disk while they are computed, the copies of a job for the time of --keep. Nothing of them is logged.
    Ctrl-C ends the service.
    """
    from unlikeness.errors import UsageError
    from unlikeness.extras import check_extra
    from unlikeness.protect.rid.settings import check_weights
    from unlikeness.serve.settings import Limits, names_of
    from unlikeness.settings import build

    names = names_of(weights or ["rid-photo"])
    for one in names.values():
        check_weights(one)
    given = {
        "max_bytes": max_bytes, "max_pixels": max_pixels, "rate": rate, "queue": queue, "seconds": seconds,
        "job_bytes": job_bytes, "job_seconds": job_seconds, "disk": disk, "keep": keep,
    }  # fmt: skip
    _check_surrogates(jobs, against, model)
    check_extra("serve", "serve")

    from unlikeness.serve.door import is_loopback
    from unlikeness.serve.running import listening, read_token

    loopback = is_loopback(host)
    if loopback and rate is None:
        given["rate"] = 0
    limits = build(Limits, {name: value for name, value in given.items() if value is not None})
    token = read_token(token_file)
    if token is None and not loopback:
        raise UsageError(
            f"--host {host} can be reached from other machines, which needs a token; give --token-file, or "
            "--host 127.0.0.1"
        )
    if page is not None:
        from unlikeness.page.build import is_page

        if not is_page(page):
            raise UsageError(f"--page {page} is no page; write one: unlikeness page --output {page}")

    from unlikeness.pictures import guard
    from unlikeness.protect.methods.rid import Rid
    from unlikeness.protect.settings import RidSettings
    from unlikeness.serve import running
    from unlikeness.serve.app import make_app
    from unlikeness.serve.jobs import opened_jobs
    from unlikeness.serve.task import Offer
    from unlikeness.serve.work import Work, private_folder

    guard.prepare()
    networks = {name: Rid(None, RidSettings(weights=one)) for name, one in names.items()}
    offer = Offer(names, limits.max_pixels, against, model)
    with ExitStack() as stack:
        opened = stack.enter_context(listening(host, port))
        folder = stack.enter_context(private_folder())
        kept = stack.enter_context(opened_jobs(jobs, limits)) if jobs is not None else None
        app = make_app(
            Work(networks, limits, folder), loopback=loopback, token=token, page=page, jobs=kept, offer=offer
        )
        where = f"[{host}]" if ":" in host else host
        typer.echo(f"serving at http://{where}:{opened.getsockname()[1]}/ until Ctrl-C")
        running.serve(app, opened)


def _check_surrogates(jobs: Path | None, against: str | None, model: str | None) -> None:
    """Validate --against and --model, and fetch what they name."""
    from unlikeness.errors import UsageError
    from unlikeness.extras import check_extra

    if against is None and model is None:
        return
    if against is not None and model is not None:
        raise UsageError("--model and --against both say what to compute against; give one of them")
    flag = "--model" if against is None else "--against"
    if jobs is None:
        raise UsageError(f"{flag} is for jobs; name a folder for them with --jobs, or leave {flag} out")
    check_extra("models", flag)
    if against is not None:
        from unlikeness.autoencoders.fetching import locate
        from unlikeness.autoencoders.names import expand

        for encoder in expand(against):
            locate(encoder)
    else:
        from unlikeness.diffusion import hub

        hub.check_name(str(model))
