"""`unlikeness train-protector`: the network that protects a picture in one pass, trained against models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train_protector"]


class Loss(StrEnum):
    """The values of `--loss`: the paper's ablation."""

    sds = "sds"
    regression = "regression"
    both = "both"


_SWITCHES: dict[Loss, dict[str, float]] = {
    Loss.sds: {"regression_weight": 0.0},
    Loss.regression: {"sds_weight": 0.0, "displacement_weight": 0.0, "regression_weight": 1.0},
    Loss.both: {"regression_weight": 1.0},
}


def train_protector(
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights: a file NAME.safetensors.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model to protect against: toybox, a folder, a name; several make an ensemble."),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Pictures to learn from beside drawn ones, or folders of them; repeatable."),
    ] = None,
    loss: Annotated[
        Loss, typer.Option(help="sds: Adv-SDS; regression: to gradient perturbations; or both.")
    ] = Loss.sds,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's step size.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of pictures, weights and noise.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting of the recipe; goes before --loss."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option("--network", metavar="NAME=VALUE", help="A width of the network: fine, middle, ..."),
    ] = None,
    work: Annotated[Path, typer.Option(help="Pictures and the checkpoint.")] = Path("runs/protector"),
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train the network of `protect --method rid` against one or more models.

    Started again with the same settings, an interrupted run goes on. Without --images it learns from renders
    and from drawn pictures with the statistics of photographs. On several devices:
    accelerate launch --multi_gpu -m unlikeness train-protector ...; they share each batch.
    """
    from contextlib import ExitStack

    from unlikeness import locks
    from unlikeness.diffusion import hub
    from unlikeness.diffusion.names import check_device
    from unlikeness.protect.rid.settings import NetworkSettings
    from unlikeness.protect.rid.train.recipe import CHECKPOINT, ProtectorRecipe, check_sources
    from unlikeness.settings import build, pairs

    # What is asked wrongly is said before torch is imported, which takes seconds.
    given = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    recipe = build(ProtectorRecipe, {**_SWITCHES[loss], **pairs("--set", set_, given)})
    widths = build(NetworkSettings, pairs("--network", network))
    check_sources(recipe, images or [])
    check_device(device)
    names = model or ["toybox"]
    _check_target(output, work / CHECKPOINT, overwrite=overwrite)
    for name in names:
        hub.check_name(name)

    from unlikeness.diffusion import TextToImage
    from unlikeness.diffusion.devices import pick_device
    from unlikeness.errors import one_line
    from unlikeness.progress import on_stderr
    from unlikeness.protect.rid.train import fit
    from unlikeness.protect.rid.train.processes import launched

    with launched(device) as processes, ExitStack() as held:
        if processes.main:
            held.enter_context(locks.inside(work, "--work"))
            held.enter_context(locks.beside(output))
        on = processes.device or pick_device(device)
        models = [TextToImage.from_pretrained(name, device=on, dtype="float32") for name in names]
        with on_stderr(quiet=quiet or not processes.main) as progress:
            fit.train_protector(
                recipe,
                models,
                output,
                work=work,
                network=widths,
                images=images or [],
                names=names,
                processes=processes,
                progress=progress,
                report=(lambda line: typer.echo(one_line(line), err=True)) if processes.main else None,
            )
        if processes.main:
            typer.echo(f"protector: {output}")


def _check_target(target: Path, checkpoint: Path, *, overwrite: bool) -> None:
    """UsageError unless `target` can be written, and is free or an earlier result that may be replaced."""
    from unlikeness.errors import UsageError
    from unlikeness.paths import check_place
    from unlikeness.protect.rid.settings import is_protector

    if target.suffix != ".safetensors":
        raise UsageError(f"--output {target} must be a file name that ends in .safetensors")
    if target.resolve() == checkpoint.resolve():
        raise UsageError(f"{target} is where the checkpoint will be; name another --output or --work")
    check_place(target, "--output")
    if not target.exists():
        return
    if not is_protector(target):
        raise UsageError(f"{target} exists and is no earlier result; name another --output")
    if not overwrite:
        raise UsageError(f"{target} exists; give --overwrite to replace it, or another --output")
