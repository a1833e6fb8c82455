"""`unlikeness measure`: what a protection shows and does, and how similar generated pictures are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from unlikeness.cli.options import Device, Dtype, Quiet, give, how, run
from unlikeness.pictures.limits import MAX_PIXELS

if TYPE_CHECKING:
    from unlikeness.measure.latents import LatentReport
    from unlikeness.measure.patterns import FlatPattern
    from unlikeness.measure.report import VisibilityReport
    from unlikeness.measure.spoiled import SpoiledReport

__all__ = ["app"]


class _VisibilityByDefault(TyperGroup):
    """`measure A B` is `measure visibility A B`: a first word that is no command of this group is a path."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["visibility", *args]
        return super().parse_args(ctx, args or ["--help"])


Json = Annotated[bool, run("Print the figures as JSON.", "--json")]
BootstrapSeed = Annotated[int, how("Random seed of the bootstrap intervals.", min=0)]

app = typer.Typer(
    cls=_VisibilityByDefault,
    help="Measure a protection: `measure ORIGINAL PROTECTED` compares files or folders.",
)


@app.command(short_help="Compare protected pictures with their originals.")
def visibility(
    original: Annotated[Path, typer.Argument(help="Picture, or folder of pictures.", metavar="ORIGINAL")],
    protected: Annotated[
        Path, typer.Argument(help="Its protected copy, or the folder of copies.", metavar="PROTECTED")
    ],
    json: Json = False,
    seed: BootstrapSeed = 0,
    max_pixels: Annotated[int, run("Skip larger pictures.", min=1)] = MAX_PIXELS,
) -> None:
    """Compare protected pictures with their originals: L∞ [n/255], PSNR [dB], SSIM, patterns, file sizes.

    `measure ORIGINAL PROTECTED` is the same. In folders, pictures are matched by their relative name.
    A pattern is the change's strongest regular one where the original is flat (sky, skin, black); 1 is just
    noticeable at arm's length.
    """
    from unlikeness.measure.matching import matched

    matched(original, protected)  # validate before importing torch

    from unlikeness.measure.report import compare, to_json
    from unlikeness.progress import on_stderr

    with on_stderr(quiet=not (original.is_dir() and protected.is_dir())) as progress:
        report = compare(original, protected, seed=seed, max_pixels=max_pixels, progress=progress)
    if json:
        typer.echo(to_json(report))
    else:
        _show(report)
    if report.failed:
        raise typer.Exit(1)


def _show(report: VisibilityReport) -> None:
    """The report as a table on stdout; what could not be compared, a line each, on stderr."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unlikeness.errors import one_line

    table = Table("picture")
    for header in ("L∞ /255", "PSNR dB", "SSIM", "pattern", "bytes before", "after", "growth"):
        table.add_column(header, justify="right")
    for p in report.pictures:
        table.add_row(
            Text(one_line(p.name), overflow="fold"),
            f"{p.linf:.2f}",
            "identical" if p.psnr is None else f"{p.psnr:.1f}",
            "too small" if p.ssim is None else f"{p.ssim:.4f}",
            _pattern(p.pattern),
            f"{p.bytes_before:,}",
            f"{p.bytes_after:,}",
            f"{p.growth:+.1%}",
        )
    console = Console()
    console.print(table)
    typer.echo(
        "pattern: the change's strongest regular one in flat areas, – without such an area; "
        "1 is just noticeable at arm's length"
    )
    if len(report.pictures) > 1:
        mean = {
            "PSNR dB": report.psnr,
            "SSIM": report.ssim,
            "pattern": report.pattern,
            "growth": report.growth,
        }
        typer.echo(f"largest L∞ {report.max_linf:.2f}/255; means with 95 % bootstrap intervals:")
        for name, interval in mean.items():
            if interval is not None:
                typer.echo(f"  {name}: {interval}")
    if same := sum(p.psnr is None for p in report.pictures):
        typer.echo(f"{same} of {len(report.pictures)} identical to the original: not protected", err=True)
    _tell_rest(report)


def _pattern(found: FlatPattern) -> str:
    """The worst window's figure with the pattern's wavelength."""
    if found.worst is None:
        return "–"
    return f"{found.worst:.1f}" + (f" ({found.wavelength:.0f} px)" if found.wavelength else "")


@app.command(short_help="Measure how far protected pictures moved for autoencoders.")
def latents(
    originals: Annotated[Path, typer.Argument(help="Folder of pictures.", metavar="ORIGINALS")],
    protected: Annotated[Path, typer.Argument(help="Folder of their protected copies.", metavar="PROTECTED")],
    against: Annotated[
        list[str],
        give(
            "Autoencoder that looks at the pictures: a name, a folder or a file. For several, give it again "
            "or put commas between.",
            metavar="NAME[,NAME...]",
        ),
    ],
    size: Annotated[int, how("Short side at which a trainer sees pictures [px].")] = 512,
    most: Annotated[int, how("Measure at most so many pictures, spread evenly.", min=2)] = 32,
    json: Json = False,
    seed: Annotated[int, how("Random seed of the noise and the bootstrap intervals.", min=0)] = 0,
    max_pixels: Annotated[int, run("Skip larger pictures.", min=1)] = MAX_PIXELS,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quiet: Quiet = False,
) -> None:
    """Measure how far a protection moves what autoencoders see, beside noise of the same strength.

    1 is as far as another picture. Measured as it is, after JPEG at qualities 75 and 50, and at half size.
    Pictures are matched by their relative name.
    """
    from unlikeness.autoencoders.fetching import locate
    from unlikeness.autoencoders.names import expand
    from unlikeness.diffusion.devices import check_device, check_dtype
    from unlikeness.measure.matching import check_size, matched

    check_size(size)  # validate before importing torch
    check_device(device)
    check_dtype(dtype)
    encoders = expand(against)
    found = matched(originals, protected).sample(most)
    for encoder in encoders:
        locate(encoder)  # what is missing is fetched, or named

    from unlikeness.measure.latents import displacements
    from unlikeness.measure.report import to_json
    from unlikeness.progress import on_stderr
    from unlikeness.protect.surrogates import Surrogates

    opened = Surrogates.named(against, device=device, dtype=dtype)
    with on_stderr(quiet=quiet) as progress:
        report = displacements(
            found, opened.by_title, size=size, seed=seed, max_pixels=max_pixels, progress=progress
        )  # fmt: skip
    if json:
        typer.echo(to_json(report))
    else:
        _show_latents(report)
    if report.failed:
        raise typer.Exit(1)


def _show_latents(report: LatentReport) -> None:
    """Two rows for each autoencoder, and a sentence; what was left out, a line each, on stderr."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unlikeness.errors import one_line

    ways = list(report.autoencoders[0].protected)
    table = Table("encoder of", "", *ways)
    for one in report.autoencoders:
        for word, figures in (("protected", one.protected), ("noise", one.noise)):
            cells = [f"{i.value:.2f} [{i.low:.2f}, {i.high:.2f}]" for i in figures.values()]
            table.add_row(Text(one_line(one.name) if word == "protected" else ""), word, *cells)
    Console().print(table)
    n = len(report.pictures)
    strength = "" if report.psnr is None else f", changed by {report.psnr.value:.1f} dB"
    typer.echo(f"{n} pictures at {report.size} px{strength}; 1 is as far as another picture; 95 % intervals")
    for one in report.autoencoders:
        typer.echo(f"The protection {one_line(one.sentence)}.")
    if same := sum(p.psnr is None for p in report.pictures):
        typer.echo(f"{same} of {n} identical to the original: not protected", err=True)
    _tell_rest(report)


def _tell_rest(report: VisibilityReport | LatentReport) -> None:
    """What has no partner or could not be read, a line each, on stderr."""
    from unlikeness.errors import one_line

    for name in report.only_original:
        typer.echo(f"only among the originals: {one_line(name)}", err=True)
    for name in report.only_protected:
        typer.echo(f"only among the protected: {one_line(name)}", err=True)
    for line in report.failed:
        typer.echo(one_line(line), err=True)


@app.command(short_help="Measure how spoiled generated pictures are.")
def spoiled(
    generated: Annotated[
        Path,
        typer.Argument(help="Folder of pictures that the personalized model drew.", metavar="GENERATED"),
    ],
    clean: Annotated[
        Path | None,
        give("Folder of clean copies: pictures of a model trained on unprotected pictures."),
    ] = None,
    subject: Annotated[Path | None, give("Folder of the subject's own pictures, for ISM.")] = None,
    class_noun: Annotated[str, give("Class noun of the subject (dog, person, ...).")] = "",
    prompt: Annotated[str, give("Prompt of the pictures, with the class noun alone, for CLIP-T.")] = "",
    encoder: Annotated[
        list[str] | None,
        how(
            "Encoder that judges: dlib (FDFR, ISM), clip (CLIP-IQA, CLIP-T), others as for similarity (FID, "
            "KID); for toybox pictures toybox (default). Can be given several times.",
            metavar="NAME",
        ),
    ] = None,
    json: Json = False,
    seed: BootstrapSeed = 0,
    device: Device = "auto",
) -> None:
    """Measure how spoiled generated pictures are: FDFR, ISM, CLIP-IQA, CLIP-T, NIQE, FID, KID.

    Every figure is measured on the clean copies too. What is left out is named, with the reason.
    """
    from unlikeness.diffusion.devices import check_device
    from unlikeness.measure.encoders import check_encoders
    from unlikeness.pictures.finding import check_pictures

    names = check_encoders(encoder or ["toybox"])  # validate before importing torch
    check_device(device)
    for folder in (generated, clean, subject):
        if folder is not None:
            check_pictures(folder)

    from unlikeness.measure.spoiled import spoiled_output, to_json

    report = spoiled_output(generated, names=names, clean=clean, subject=subject, class_noun=class_noun,
                            prompt=prompt, seed=seed, device=device)  # fmt: skip
    if json:
        typer.echo(to_json(report))
    else:
        _show_spoiled(report)


def _show_spoiled(report: SpoiledReport) -> None:
    """A row and a sentence for each figure; what was left out, a line each."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unlikeness.errors import one_line

    if report.figures:
        table = Table("measure", "by", "generated", "clean", "pictures")
        for one in report.figures:
            value = f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"
            clean = "–" if one.clean is None else f"{one.clean:.3g}"
            table.add_row(one.name, Text(one_line(one.by), overflow="fold"), value, clean, str(one.n))
        Console().print(table)
        for one in report.figures:
            typer.echo(f"{one.name}: {one.sentence}")
    for name, reason in report.left_out.items():
        typer.echo(f"without {name}: {one_line(reason)}")


@app.command()
def similarity(
    subject: Annotated[Path, give("Folder of two or more held-out pictures of the subject.")],
    generated: Annotated[Path, give("Folder of pictures that the personalized model generated.")],
    class_images: Annotated[Path, give("Folder of pictures of other members of the class.")],
    encoder: Annotated[
        list[str] | None,
        how(
            "Image encoder that measures similarity: clip, dino, dinov2, dlib (faces), a folder, an ONNX "
            "file or a hub name; for toybox pictures toybox (default). Can be given several times.",
            metavar="NAME",
        ),
    ] = None,
    json: Json = False,
    seed: BootstrapSeed = 0,
    device: Device = "auto",
) -> None:
    """Measure how similar generated pictures are to a subject.

    The similarity s is 0 for any member of the subject's class, and 1 for the subject itself.
    """
    from unlikeness.diffusion.devices import check_device
    from unlikeness.errors import one_line
    from unlikeness.measure.encoders import check_encoders
    from unlikeness.pictures.finding import check_pictures

    names = check_encoders(encoder or ["toybox"])  # validate before importing torch
    check_device(device)
    for folder in (generated, subject, class_images):
        check_pictures(folder)

    from unlikeness.measure.folders import similarities
    from unlikeness.measure.similarity import to_json

    found = similarities(names, generated=generated, subject=subject, of_class=class_images, seed=seed,
                         device=device)  # fmt: skip
    if json:
        typer.echo(to_json(found))
        return
    for name, result in found.items():
        typer.echo(f"s {result}" + (f", by {one_line(name)}" if encoder else ""))
        typer.echo("mean cosine to the subject's pictures, and number of pictures:")
        typer.echo(f"  generated {result.sim_generated:.3f} ({result.n_generated})")
        typer.echo(f"  class     {result.sim_class:.3f} ({result.n_class})")
        typer.echo(f"  itself    {result.sim_subject:.3f} ({result.n_subject})")
        if result.n_faceless:
            typer.echo(f"  without a face: {result.n_faceless} of the generated, which count as s = 0")
