"""Training a protector: `unlikeness train-protector`, and what the shipped weights were made by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.checkpoints import load_checkpoint, steps_done
from unlikeness.diffusion import finite
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.errors import UsageError
from unlikeness.pictures.finding import find_pictures
from unlikeness.progress import Progress
from unlikeness.protect.against import is_toy
from unlikeness.protect.base import frozen
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.train.pairs import pairs_of
from unlikeness.protect.rid.train.pictures import (
    Bank,
    drawn_name,
    leaves_bank,
    photo_bank,
    photo_name,
    render_bank,
)
from unlikeness.protect.rid.train.processes import Processes
from unlikeness.protect.rid.train.recipe import CHECKPOINT, ProtectorRecipe, check_sources
from unlikeness.protect.rid.train.trial import NO_MODEL, Trial, check_prompt, draw_budgets, draw_side
from unlikeness.protect.rid.weights import save_protector
from unlikeness.provenance import own_name
from unlikeness.seeds import step_generator
from unlikeness.training import Ema, Step, adamw, identity_of, linear, train

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["CHECKPOINT", "Pictures", "check_sources", "gather", "source_of", "train_protector"]

class Pictures:
    """The banks of a training, each with its share of every batch."""

    def __init__(self, banks: Sequence[tuple[Bank, float]]) -> None:
        self.banks = [bank for bank, _ in banks]
        self.shares = torch.tensor([share for _, share in banks])
        self.source = _source([(bank.name, share) for bank, share in banks])
        """What tells these pictures from others."""

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """[count, 3, side, side] in [0, 1]."""
        which = torch.multinomial(self.shares, count, replacement=True, generator=generator).tolist()
        return torch.cat(
            [bank.draw(which.count(i), side, generator) for i, bank in enumerate(self.banks) if i in which]
        )


def gather(
    recipe: ProtectorRecipe, images: Sequence[Path], side: int, folder: Path, progress: Progress | None,
    report: Callable[[str], None] | None = None,
) -> Pictures:  # fmt: skip
    """Renders and dead leaves half and half, and the user's own; see `check_sources`. report: is told of
    those of the user's that cannot be read."""
    check_sources(recipe, images)
    banks = [
        make(count, side, seed=recipe.seed, folder=folder, progress=progress)
        for make, count in ((render_bank, recipe.renders), (leaves_bank, recipe.leaves))
        if count
    ]
    if images:
        banks.append(photo_bank(images, side, folder=folder, progress=progress, report=report))
    return Pictures(list(zip(banks, _shares(recipe, images), strict=True)))


def source_of(recipe: ProtectorRecipe, images: Sequence[Path], side: int) -> str:
    """`Pictures.source` of what `gather` will make, before it does."""
    named = (("renders", recipe.renders), ("leaves", recipe.leaves))
    names = [drawn_name(kind, count, side, recipe.seed) for kind, count in named if count]
    if images:
        names.append(photo_name([file for _, file in find_pictures(images)], side))
    return _source(list(zip(names, _shares(recipe, images), strict=True)))


def _shares(recipe: ProtectorRecipe, images: Sequence[Path]) -> list[float]:
    """Of every batch: renders and dead leaves, as far as there are any, and the user's own."""
    drawn = bool(recipe.renders) + bool(recipe.leaves)
    share = recipe.photos_share if images else 0.0
    own = [share if drawn else 1.0] if images else []
    return [(1 - share) / max(drawn, 1)] * drawn + own


def _source(named: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in named)


def train_protector(
    recipe: ProtectorRecipe,
    models: Sequence[TextToImage],
    output: Path,
    *,
    work: Path,
    network: NetworkSettings | None = None,
    images: Sequence[Path] = (),
    names: Sequence[str] = (),
    processes: Processes | None = None,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> Protector:
    """Train, and write `output` (safetensors, half precision).

    Args:
        models: see `Trial`; the pictures are made for the largest resolution among them.
        work: banks of pictures and the checkpoint; a run that was stopped goes on from there.
        images: files and folders of the user's own pictures to learn from too.
        names: of the models, for the record in the file: folders are called by their own name. The file and
            the checkpoint also tell models apart by their fingerprints.
        processes: from `launched`; None: this one alone. A batch is shared by all, and the first one writes.
        report: is told which of `images` are left out.

    Raises:
        UsageError: no model, nothing to learn from, a prompt that is too long, a checkpoint in `work` that is
            another run's or another model's, or a batch that cannot be shared.
        NotFiniteError: the training diverged, or a model's answer is NaN or infinite.
    """
    if not models:
        raise UsageError(NO_MODEL)
    processes = processes or Processes()
    checkpoint = work / CHECKPOINT
    if output.resolve() == checkpoint.resolve():
        raise UsageError(f"{output} is where the checkpoint will be; name another --output or --work")
    check_sources(recipe, images)
    mine = replace(recipe, batch_size=processes.share(recipe.batch_size))
    resolution = max(model.resolution for model in models)
    bank_side = round(resolution * recipe.largest_detail * 1.25)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        protector = Protector(network).to(models[0].device)
    parameters = list(protector.parameters())
    against = {"models": [own_name(name) for name in names], "fingerprints": [fingerprint(m) for m in models]}
    settings: dict[str, Any] = {**asdict(recipe), **asdict(protector.settings), **against}
    if images:
        settings["pictures"] = source_of(recipe, images, bank_side)
    if processes.count > 1:
        settings["processes"] = processes.count
    # What is asked wrongly is told before anything is drawn.
    steps_done(checkpoint, identity_of(recipe.seed, settings))
    check_prompt(models, recipe)
    for model in models:
        finite.check_model(model)
    with processes.main_first():
        pictures = gather(recipe, images, bank_side, work / "pictures", progress, report)
    device = models[0].device
    with frozen(*(part for model in models for part in (model.vae, model.unet, model.text_encoder))):
        pairs = None
        if recipe.regression_weight:
            with processes.main_first():
                pairs = pairs_of(
                    recipe,
                    models,
                    pictures.draw,
                    source=pictures.source,
                    folder=work / "pairs",
                    progress=progress,
                )
        trial = Trial(protector, models, mine, pairs=pairs)

        def step(index: int, common: torch.Generator) -> Tensor:
            side = draw_side(recipe, resolution, common)  # the same everywhere: nobody waits for the largest
            generator = processes.generator(common, recipe.seed, index)
            batch = pictures.draw(mine.batch_size, side, generator)
            budget = draw_budgets(recipe, mine.batch_size, side, generator)
            loss = trial(batch.to(device), budget.to(device), generator)
            return processes.averaged(loss, parameters)

        ema = _minimise(step, recipe, parameters, checkpoint, settings, processes, progress)
    ema.copy_to(parameters)
    defaults = ProtectorRecipe()
    changed = {
        f.name: getattr(recipe, f.name)
        for f in fields(recipe)
        if getattr(recipe, f.name) != getattr(defaults, f.name)
    }
    if processes.main:
        about = {**against, "resolution": resolution, "recipe": changed}
        about["toybox"] = [is_toy(model) for model in models]
        if not names:
            about["models"] = [model.name or "an unnamed model" for model in models]
        save_protector(protector, output, about=about)
    return protector.eval()


def _minimise(
    step: Step,
    recipe: ProtectorRecipe,
    parameters: Sequence[Tensor],
    checkpoint: Path,
    settings: dict[str, Any],
    processes: Processes,
    progress: Progress | None,
) -> Ema:
    """Train the parameters; returns their average.

    The first process keeps the checkpoint, and all go on from it.
    """
    optimizer = adamw(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = linear(recipe.steps, warmup=recipe.warmup)
    ema = Ema(parameters, recipe.average)
    if processes.main:
        train(
            step,
            steps=recipe.steps,
            optimizer=optimizer,
            parameters=parameters,
            seed=recipe.seed,
            schedule=schedule,
            ema=ema,
            checkpoint=checkpoint,
            settings=settings,
            progress=progress,
            description="protector",
        )
        return ema
    start = 0
    if checkpoint.exists():
        identity = identity_of(recipe.seed, settings)
        start = load_checkpoint(checkpoint, parameters, optimizer, ema, identity)
    train(
        lambda index, _: step(start + index, step_generator(recipe.seed, start + index)),
        steps=max(recipe.steps - start, 0),
        optimizer=optimizer,
        parameters=parameters,
        seed=recipe.seed,
        schedule=lambda index: schedule(start + index),
        ema=ema,
        description="protector",
    )
    return ema
