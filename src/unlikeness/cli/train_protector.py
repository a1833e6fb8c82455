"""`unlikeness train-protector`: train the network that protects a picture in one pass."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unlikeness.cli.options import (
    BatchSize,
    Device,
    LearningRate,
    Overwrite,
    Quiet,
    Seed,
    Steps,
    give,
    how,
    run,
)  # fmt: skip

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
    output: Annotated[Path, give("File to write: NAME.safetensors.", "--output", "-o")],
    against: Annotated[
        list[str] | None,
        give(
            "Autoencoder to protect against: a name (see unlikeness surrogates), a folder or a file. For "
            "several, give it again or put commas between.",
            metavar="NAME[,NAME...]",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        give(
            "Whole model to protect against: toybox, a folder or a hub name. Can be given several times. "
            "Default without --against: toybox."
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        give("Pictures to learn from beside generated ones, or folders of them; can be given several times."),
    ] = None,
    recipe_: Annotated[
        str | None,
        how(
            "Settings to start from: a shipped recipe's name, or a YAML file. Default with --against: "
            "rid-photo.",
            "--recipe",
            metavar="NAME|FILE",
        ),
    ] = None,
    start: Annotated[
        str | None,
        how("Network to start from: a shipped name, or a file of this command. Default: random weights."),
    ] = None,
    loss: Annotated[
        Loss | None,
        how("sds: Adv-SDS. regression: towards gradient perturbations. both: the sum of the two."),
    ] = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    set_: Annotated[
        list[str] | None,
        how(
            "Any other setting of the recipe, before those of --loss; can be given several times.",
            "--set",
            metavar="NAME=VALUE",
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        how(
            "Width of the network (fine, middle, ...); can be given several times.",
            "--network",
            metavar="NAME=VALUE",
        ),
    ] = None,
    seed: Seed = None,
    work: Annotated[Path, run("Folder for pictures and the checkpoint.")] = Path("runs/protector"),
    overwrite: Overwrite = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train the network of `protect --method rid` against one or more autoencoders or models.

    Repeat the command to go on after a stop. Without --images it learns from renders and from generated
    pictures with the statistics of photographs. On several devices, which share each batch:
    accelerate launch --multi_gpu -m unlikeness train-protector ...
    """
    from contextlib import ExitStack

    from unlikeness import locks
    from unlikeness.autoencoders.fetching import locate
    from unlikeness.autoencoders.names import expand
    from unlikeness.cli.targets import check_target
    from unlikeness.diffusion import hub
    from unlikeness.diffusion.devices import check_device
    from unlikeness.errors import UsageError
    from unlikeness.protect.rid.settings import NetworkSettings, check_weights, is_protector
    from unlikeness.protect.rid.train.recipe import CHECKPOINT, ProtectorRecipe, check_sources, read_recipe
    from unlikeness.settings import build, pairs

    # Validate before importing torch, which takes seconds.
    given = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    if recipe_ is None and against:
        recipe_ = "rid-photo"
    values, sizes = ({}, {}) if recipe_ is None else read_recipe(recipe_)
    switches = {} if loss is None else _SWITCHES[loss]
    recipe = build(ProtectorRecipe, {**values, **switches, **pairs("--set", set_, given)})
    widths = build(NetworkSettings, {**sizes, **pairs("--network", network)})
    check_sources(recipe, images or [])
    begin = None if start is None else check_weights(start)
    if begin is not None and not is_protector(begin):
        raise UsageError(f"--start {start} is no file of train-protector; leave it out, or name another one")
    if begin is not None and network:
        raise UsageError("--start brings its own sizes; leave --network out")
    check_device(device)
    names = model or ([] if against else ["toybox"])
    check_target(
        output, ".safetensors", overwrite=overwrite, is_ours=is_protector, checkpoint=work / CHECKPOINT
    )
    for name in names:
        hub.check_name(name)
    encoders = expand(against) if against else []
    for encoder in encoders:
        locate(encoder)

    from unlikeness.diffusion import TextToImage
    from unlikeness.diffusion.devices import pick_device
    from unlikeness.errors import one_line
    from unlikeness.progress import on_stderr
    from unlikeness.protect.rid.train import fit
    from unlikeness.protect.rid.train.processes import launched
    from unlikeness.protect.surrogates import Surrogate, Surrogates

    with launched(device) as processes, ExitStack() as held:
        if processes.main:
            held.enter_context(locks.inside(work, "--work"))
            held.enter_context(locks.beside(output))
        on = processes.device or pick_device(device)
        models: list[TextToImage | Surrogate] = [
            *(Surrogates.named(encoders, device=on, dtype="float32") if encoders else ()),
            *(TextToImage.from_pretrained(name, device=on, dtype="float32") for name in names),
        ]
        names = [*encoders, *names]
        with on_stderr(quiet=quiet or not processes.main) as progress:
            fit.train_protector(
                recipe, models, output, work=work, network=widths, start=begin, images=images or [],
                names=names, processes=processes, progress=progress,
                report=(lambda line: typer.echo(one_line(line), err=True)) if processes.main else None,
            )  # fmt: skip
        if processes.main:
            typer.echo(f"protector: {output}")
