"""`unlikeness toybox`: pictures from the embedded world, and the recipes of what is trained on it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["app"]

app = typer.Typer(
    help="The embedded world: pictures of its subjects, and the recipes of the models trained on it."
)


class Part(StrEnum):
    """The values of `toybox train`."""

    vae = "vae"
    model = "model"
    identity = "identity"
    classifier = "classifier"


@app.command()
def train(
    part: Annotated[Part, typer.Argument(help="First the autoencoder, then the model; or a judge.")],
    output: Annotated[
        Path | None, typer.Option(help="Result; default: the package's own weights, for vae WORK/vae.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Renders and checkpoints.")] = Path("runs/toybox"),
    vae: Annotated[
        Path | None, typer.Option(help="For model, which includes it: the autoencoder; default: WORK/vae.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's step size.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of renders, weights and noise.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of the recipe.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train a part of the toybox from nothing, on renders of its world.

    Started again with the same settings, an interrupted run goes on.
    """
    from importlib import import_module

    from unlikeness import locks
    from unlikeness.diffusion.names import check_device
    from unlikeness.errors import UsageError
    from unlikeness.settings import build, pairs
    from unlikeness.toybox import weights
    from unlikeness.toybox.recipes import settings
    from unlikeness.toybox.recipes.settings import checkpoint_of

    # What is asked wrongly is said before torch is imported, which takes seconds.
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
    _check_target(target, folder=part in (Part.vae, Part.model), overwrite=overwrite)
    if part in (Part.identity, Part.classifier) and target == checkpoint_of(work, part.value).resolve():
        raise UsageError(f"{target} is where the checkpoint will be; name another --output or --work")
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
        recipes.load_autoencoder(further["vae"])  # what is wrong is told before anything is rendered
    with locks.inside(work, "--work"), locks.beside(target), on_stderr(quiet=quiet) as progress:
        getattr(recipes, f"train_{part.value}")(recipe, target, work=work, progress=progress, **further)
    typer.echo(f"{part.value}: {target}")


def _check_target(target: Path, *, folder: bool, overwrite: bool) -> None:
    """UsageError unless `target` is free, or may be replaced and is what an earlier run has made."""
    from unlikeness.errors import UsageError

    if not target.exists() or (folder and target.is_dir() and not any(target.iterdir())):
        return
    ours = _is_result(target) if folder else target.is_file() and target.suffix == ".safetensors"
    if not ours:
        raise UsageError(f"{target} exists and is no earlier result; name another --output")
    if not overwrite:
        raise UsageError(f"{target} exists; give --overwrite to replace it, or another --output")


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


@app.command()
def render(
    class_noun: Annotated[str, typer.Option(help="person, dog, cat, robot, backpack or mug.")],
    output: Annotated[Path, typer.Option(help="New folder for the subject's pictures.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures of the subject.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Which individual.")] = 0,
    held_out: Annotated[
        Path | None, typer.Option(help="New folder for other pictures of the same subject, to measure with.")
    ] = None,
    class_images: Annotated[
        Path | None, typer.Option(help="New folder for pictures of other members of its class.")
    ] = None,
    others: Annotated[int, typer.Option(min=2, help="Pictures in each of these two.")] = 16,
) -> None:
    """Draw one individual that no training has seen: a folder to try `personalize` and `protect` on."""
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
