"""`unlikeness toybox`: render the embedded world, or train its models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlikeness.cli.options import (
    Device,
    LearningRate,
    Overwrite,
    Quiet,
    Seed,
    Set,
    Steps,
    give,
    how,
    run,
)  # fmt: skip

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["app"]

app = typer.Typer(help="Render pictures of the embedded toy world, or train its models.")


class Part(StrEnum):
    """The values of `toybox train`."""

    vae = "vae"
    model = "model"
    identity = "identity"
    classifier = "classifier"


@app.command()
def train(
    part: Annotated[
        Part,
        typer.Argument(help="vae (the first), model, or an evaluator: identity, classifier.", metavar="PART"),
    ],
    output: Annotated[
        Path | None, give("Result. Default: the package's own weights; for vae WORK/vae.")
    ] = None,
    vae: Annotated[
        Path | None, give("For model: the autoencoder, which becomes a part of it. Default: WORK/vae.")
    ] = None,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    set_: Set = None,
    seed: Seed = None,
    work: Annotated[Path, run("Folder for renders and checkpoints.")] = Path("runs/toybox"),
    overwrite: Overwrite = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a part of the toybox from scratch, on renders of its world.

    Repeat the command to go on after a stop.
    """
    from importlib import import_module

    from unlikeness import locks
    from unlikeness.cli.targets import check_target
    from unlikeness.diffusion.devices import check_device
    from unlikeness.errors import UsageError
    from unlikeness.settings import build, pairs
    from unlikeness.toybox import weights
    from unlikeness.toybox.recipes import settings
    from unlikeness.toybox.recipes.settings import checkpoint_of

    # Validate before importing torch, which takes seconds.
    given = {"steps": steps, "learning_rate": learning_rate, "seed": seed}
    values = pairs("--set", set_, given)
    recipe = build(getattr(settings, f"{part.value.capitalize()}Recipe"), values)
    check_device(device)
    shipped = {
        Part.vae: work / "vae",
        Part.model: weights.FOLDER / "model",
        Part.identity: weights.FOLDER / "identity.safetensors",
        Part.classifier: weights.FOLDER / "classifier.safetensors",
    }
    target = (output or shipped[part]).resolve()
    folder = part in (Part.vae, Part.model)
    check_target(
        target,
        overwrite=overwrite,
        is_ours=_is_result if folder else _is_weights,
        checkpoint=None if folder else checkpoint_of(work, part.value),
    )
    encoder = vae or work / "vae"
    if part is Part.model and not (encoder / "config.json").is_file():
        raise UsageError(
            f"{encoder} holds no autoencoder; `unlikeness toybox train vae` makes it, or name one with --vae"
        )

    from unlikeness.diffusion.devices import pick_device
    from unlikeness.progress import on_stderr

    recipes = import_module("unlikeness.toybox.recipes")
    further: dict[str, Any] = {"device": str(pick_device(device))}
    if part is Part.model:
        further["vae"] = encoder
        recipes.load_autoencoder(further["vae"])  # validate before rendering
    with locks.inside(work, "--work"), locks.beside(target), on_stderr(quiet=quiet) as progress:
        getattr(recipes, f"train_{part.value}")(recipe, target, work=work, progress=progress, **further)
    typer.echo(f"{part.value}: {target}")


def _is_weights(file: Path) -> bool:
    return file.is_file() and file.suffix == ".safetensors"


def _is_result(folder: Path) -> bool:
    """Whether this is a diffusers folder and holds nothing else, so that it may be removed as a whole."""
    from json import loads

    parts = {"vae", "unet", "text_encoder", "tokenizer", "scheduler"}
    known = {
        "config.json": {"config.json", "diffusion_pytorch_model.safetensors"},
        "model_index.json": {"model_index.json", "unlikeness.json", *parts},
    }
    for mark, names in known.items():
        try:
            made = loads((folder / mark).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        kind = made.get("_class_name") if isinstance(made, dict) else None
        inside = {entry.name for entry in folder.iterdir()}
        return kind in ("AutoencoderKL", "StableDiffusionPipeline") and inside <= names
    return False


@app.command(short_help="Render pictures of an individual, to try other commands with.")
def render(
    class_noun: Annotated[str, give("person, dog, cat, robot, backpack or mug.")],
    output: Annotated[Path, give("New folder for the subject's pictures.")],
    held_out: Annotated[
        Path | None, give("New folder for other pictures of the same subject, to measure with.")
    ] = None,
    class_images: Annotated[
        Path | None, give("New folder for pictures of other members of its class.")
    ] = None,
    count: Annotated[int, how("Pictures of the subject.", min=1)] = 5,
    others: Annotated[int, how("Pictures in --held-out and in --class-images.", min=2)] = 16,
    seed: Annotated[int, how("Which individual: the random seed.", min=0)] = 0,
) -> None:
    """Render pictures of an individual that no model was trained on, to try the other commands with."""
    from itertools import permutations

    from unlikeness.errors import UsageError
    from unlikeness.paths import check_empty
    from unlikeness.toybox.world import CLASS_NOUNS
    from unlikeness.words import closest

    if class_noun not in CLASS_NOUNS:
        raise UsageError(
            f"--class-noun {class_noun!r} is no class noun of the toybox, which draws only "
            f"{', '.join(CLASS_NOUNS)}; give one of them{closest(class_noun, CLASS_NOUNS)}"
        )
    folders = [folder for folder in (output, held_out, class_images) if folder is not None]
    for one, other in permutations([folder.resolve() for folder in folders], 2):
        if one == other or one in other.parents:
            raise UsageError(
                "--output, --held-out and --class-images must be different folders, none in another, or a "
                "training would learn from pictures to measure with"
            )
    for folder in folders:
        check_empty(folder)

    from unlikeness.toybox.cast import class_pictures, member

    who = member(seed, class_noun)
    _write(who.subject(count).images, output)
    if held_out is not None:
        _write(who.held_out(others), held_out)
    if class_images is not None:
        _write(class_pictures(class_noun, others, seed), class_images)


def _write(images: Tensor, folder: Path) -> None:
    from unlikeness.gallery import new_folder, to_pil

    with new_folder(folder) as made:
        for i, image in enumerate(images):
            to_pil(image).save(made / f"{i:04}.png")
    typer.echo(f"{len(images)} pictures in {folder}")
