"""Training a protector: `unlikeness train-protector`, and what the shipped weights were made by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.pictures.finding import find_pictures
from unlikeness.progress import Progress
from unlikeness.protect.base import frozen
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.pictures import Bank, leaves_bank, photo_bank, render_bank
from unlikeness.protect.rid.recipe import ProtectorRecipe
from unlikeness.protect.rid.regression import pairs_of
from unlikeness.protect.rid.trial import NO_MODEL, Trial, draw_budgets, draw_side
from unlikeness.protect.rid.weights import save_protector
from unlikeness.training import Ema, adamw, linear, train

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["CHECKPOINT", "Pictures", "check_sources", "gather", "train_protector"]

CHECKPOINT = "protector.safetensors"
"""The training's state, in its `work` folder."""


class Pictures:
    """The banks of a training, each with its share of every batch."""

    def __init__(self, banks: Sequence[tuple[Bank, float]]) -> None:
        self.banks = [bank for bank, _ in banks]
        self.shares = torch.tensor([share for _, share in banks])
        self.source = ", ".join(f"{bank.name} {share:g}" for bank, share in banks)
        """What tells these pictures from others."""

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """[count, 3, side, side] in [0, 1]."""
        which = torch.multinomial(self.shares, count, replacement=True, generator=generator).tolist()
        return torch.cat(
            [bank.draw(which.count(i), side, generator) for i, bank in enumerate(self.banks) if i in which]
        )


def gather(
    recipe: ProtectorRecipe, images: Sequence[Path], side: int, folder: Path, progress: Progress | None
) -> Pictures:
    """Renders and dead leaves half and half, and the user's own; see `check_sources`."""
    check_sources(recipe, images)
    share = recipe.photos_share if images else 0.0
    drawn = [
        make(count, side, seed=recipe.seed, folder=folder, progress=progress)
        for make, count in ((render_bank, recipe.renders), (leaves_bank, recipe.leaves))
        if count
    ]
    banks = [(bank, (1 - share) / len(drawn)) for bank in drawn]
    if images:
        banks.append((photo_bank(images, side, folder=folder, progress=progress), share if drawn else 1.0))
    return Pictures(banks)


def check_sources(recipe: ProtectorRecipe, images: Sequence[Path]) -> None:
    """UsageError if there is nothing to learn from, or one of `images` does not exist or holds no picture."""
    if not (recipe.renders or recipe.leaves or images):
        raise UsageError("there is nothing to learn from: raise renders or leaves, or give --images")
    for path in images:
        if not find_pictures([path]):
            raise UsageError(f"--images: there is no picture in {path}; name another folder, or a file")


def train_protector(
    recipe: ProtectorRecipe,
    models: Sequence[TextToImage],
    output: Path,
    *,
    work: Path,
    network: NetworkSettings | None = None,
    images: Sequence[Path] = (),
    names: Sequence[str] = (),
    progress: Progress | None = None,
) -> Protector:
    """Train, and write `output` (safetensors, half precision).

    Args:
        models: see `Trial`; the pictures are made for the largest resolution among them.
        work: banks of pictures and the checkpoint; a run that was stopped goes on from there.
        images: files and folders of the user's own pictures to learn from too.
        names: of the models, for the record in the file.

    Raises:
        UsageError: no model, nothing to learn from, or the checkpoint in `work` is another run's.
        UnlikenessError: the training diverged.
    """
    if not models:
        raise UsageError(NO_MODEL)
    checkpoint = work / CHECKPOINT
    if output.resolve() == checkpoint.resolve():
        raise UsageError(f"{output} is where the checkpoint will be; name another --output or --work")
    resolution = max(model.resolution for model in models)
    bank_side = round(resolution * recipe.largest_detail * 1.25)
    pictures = gather(recipe, images, bank_side, work / "pictures", progress)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        protector = Protector(network).to(models[0].device)
    parameters = list(protector.parameters())
    ema = Ema(parameters, recipe.average)
    settings = {**asdict(recipe), **asdict(protector.settings), "models": list(names)}
    if images:
        settings["pictures"] = pictures.source
    device = models[0].device
    with frozen(*(part for model in models for part in (model.vae, model.unet, model.text_encoder))):
        pairs = None
        if recipe.regression_weight:
            pairs = pairs_of(
                recipe,
                models,
                pictures.draw,
                source=pictures.source,
                folder=work / "pairs",
                progress=progress,
            )
        trial = Trial(protector, models, recipe, pairs=pairs)

        def step(index: int, generator: torch.Generator) -> Tensor:
            side = draw_side(recipe, resolution, generator)
            batch = pictures.draw(recipe.batch_size, side, generator)
            budget = draw_budgets(recipe, recipe.batch_size, side, generator)
            return trial(batch.to(device), budget.to(device), generator)

        train(
            step,
            steps=recipe.steps,
            optimizer=adamw(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay),
            parameters=parameters,
            seed=recipe.seed,
            schedule=linear(recipe.steps, warmup=recipe.warmup),
            ema=ema,
            checkpoint=checkpoint,
            settings=settings,
            progress=progress,
            description="protector",
        )
    ema.copy_to(parameters)
    defaults = ProtectorRecipe()
    changed = {
        f.name: getattr(recipe, f.name)
        for f in fields(recipe)
        if getattr(recipe, f.name) != getattr(defaults, f.name)
    }
    save_protector(
        protector, output, about={"models": list(names), "resolution": resolution, "recipe": changed}
    )
    return protector.eval()
