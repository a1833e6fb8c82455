"""Training a protector: `unlikeness train-protector`, and what the shipped weights were made by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.checkpoints import load_checkpoint, steps_done
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.diffusion.trial import check_model
from unlikeness.errors import UsageError
from unlikeness.progress import Progress
from unlikeness.protect.against import is_toy
from unlikeness.protect.base import frozen
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.train.pairs import pairs_of
from unlikeness.protect.rid.train.pictures import Pictures
from unlikeness.protect.rid.train.processes import Processes
from unlikeness.protect.rid.train.recipe import CHECKPOINT, ProtectorRecipe
from unlikeness.protect.rid.train.trial import NO_MODEL, Trial, check_prompt, draw_budgets, draw_side
from unlikeness.protect.rid.weights import save_protector
from unlikeness.provenance import own_name
from unlikeness.seeds import step_generator
from unlikeness.training import Ema, Step, adamw, identity_of, linear, train

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["train_protector"]


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
    mine = replace(recipe, batch_size=processes.share(recipe.batch_size))
    resolution = max(model.resolution for model in models)
    pictures = Pictures(recipe, images, round(resolution * recipe.largest_detail * 1.25))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        protector = Protector(network).to(models[0].device)
    parameters = list(protector.parameters())
    against = {"models": [own_name(name) for name in names], "fingerprints": [fingerprint(m) for m in models]}
    settings: dict[str, Any] = {**asdict(recipe), **asdict(protector.settings), **against}
    if images:
        settings["pictures"] = pictures.source
    if processes.count > 1:
        settings["processes"] = processes.count
    # What is asked wrongly is told before anything is drawn.
    steps_done(checkpoint, identity_of(recipe.seed, settings))
    check_prompt(models, recipe)
    for model in models:
        check_model(model)
    with processes.main_first():
        pictures.gather(work / "pictures", progress, report)
    device = models[0].device
    with frozen(*(network for model in models for network in model.networks)):
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
