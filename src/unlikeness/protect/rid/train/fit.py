"""Train a protector, as `unlikeness train-protector` does. The shipped weights were made by it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness.checkpoints import load_checkpoint, steps_done
from unlikeness.errors import UsageError
from unlikeness.progress import Progress
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.train.pairs import pairs_of
from unlikeness.protect.rid.train.pictures import Pictures
from unlikeness.protect.rid.train.processes import Processes
from unlikeness.protect.rid.train.recipe import CHECKPOINT, ProtectorRecipe
from unlikeness.protect.rid.train.trial import NO_MODEL, Trial, distances_of, draw_budgets, draw_side
from unlikeness.protect.rid.weights import load_protector, save_protector
from unlikeness.protect.surrogates import Models, Surrogates
from unlikeness.provenance import own_name
from unlikeness.seeds import step_generator
from unlikeness.training import Ema, Step, adamw, identity_of, linear, train

__all__ = ["train_protector"]


def train_protector(
    recipe: ProtectorRecipe, models: Models, output: Path, *, work: Path,
    network: NetworkSettings | None = None, images: Sequence[Path] = (), names: Sequence[str] = (),
    start: Path | None = None, processes: Processes | None = None, progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> Protector:  # fmt: skip
    """Train, and write `output` (safetensors, half precision).

    Args:
        models: see `Trial`. The pictures are made for the largest resolution among them.
        work: pictures and checkpoint; a run that was stopped continues from there.
        start: a protector's file to start from; its sizes take the place of `network`. None: random weights.
        images: files and folders of the user's own pictures to learn from too.
        names: of the models, for the record in the file; of a folder its last part is used. The file and the
            checkpoint also distinguish models by their fingerprints.
        processes: from `launched`; None: this one alone. They share each batch, and the first one writes.
        report: receives a line about `images` that are left out.

    Raises:
        UsageError: no model, nothing to learn from, a prompt that is too long, a checkpoint in `work` of
            another run or model, or a batch that cannot be shared.
        NotFiniteError: the training diverged, or a model's answer is NaN or infinite.
    """
    surrogates = Surrogates.of(models)
    if not surrogates:
        raise UsageError(NO_MODEL)
    processes = processes or Processes()
    checkpoint = work / CHECKPOINT
    if output.resolve() == checkpoint.resolve():
        raise UsageError(f"{output} is where the checkpoint will be; name another --output or --work")
    largest = 3 * recipe.side or round(surrogates.resolution * recipe.largest_detail * 1.25)
    pictures = Pictures(recipe, images, largest)
    mine = replace(recipe, batch_size=processes.share(recipe.batch_size))
    device = surrogates.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        begun = None if start is None else load_protector(start)
        protector = Protector(network if begun is None else begun.network.settings).to(device)
        if begun is not None:
            protector.load_state_dict(begun.network.state_dict())
        protector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(protector.parameters())
    against = {
        "models": [own_name(name) for name in names],
        "fingerprints": [one.fingerprint for one in surrogates],
    }
    settings: dict[str, Any] = {**asdict(recipe), **asdict(protector.settings), **against}
    if images:
        settings["pictures"] = pictures.source
    if start is not None:
        settings["start"] = hashlib.sha256(start.read_bytes()).hexdigest()[:16]
    if processes.count > 1:
        settings["processes"] = processes.count
    # Validate before anything is drawn.
    steps_done(checkpoint, identity_of(recipe.seed, settings))
    surrogates.check_prompt(recipe.prompt)
    for surrogate in surrogates:
        surrogate.check()
    with processes.main_first():
        pictures.gather(work / "pictures", progress, report)
    with surrogates.frozen():
        pairs = None
        if recipe.regression_weight:
            with processes.main_first():
                pairs = pairs_of(
                    recipe, surrogates, pictures.draw, source=pictures.source, folder=work / "pairs",
                    progress=progress,
                )  # fmt: skip
        side = recipe.side or surrogates.resolution
        distances = distances_of(surrogates, pictures.draw, side, recipe.seed)
        trial = Trial(protector, surrogates, mine, pairs=pairs, distances=distances)

        def step(index: int, common: torch.Generator) -> Tensor:
            # The side is the same for all processes: none waits for the largest.
            side = draw_side(recipe, surrogates.resolution, common)
            generator = processes.generator(common, recipe.seed, index)
            batch = pictures.draw(mine.batch_size, side, generator)
            budget = draw_budgets(recipe, mine.batch_size, side, generator)
            loss = trial(batch.to(device), budget.to(device), generator)
            return processes.averaged(loss, parameters)

        ema = _minimise(step, recipe, parameters, checkpoint, settings, processes, progress)
    ema.copy_to(parameters)
    if processes.main:
        defaults = asdict(ProtectorRecipe())
        about = {
            **against,
            "models": against["models"] or [one.name for one in surrogates],
            "resolution": surrogates.resolution,
            "recipe": {name: v for name, v in asdict(recipe).items() if v != defaults[name]},
            "toybox": [one.toy for one in surrogates],
            **({} if begun is None else {"start": begun.about.get("recipe", {})}),
        }
        save_protector(protector, output, about=about)
    return protector.eval()


def _minimise(
    step: Step, recipe: ProtectorRecipe, parameters: Sequence[Tensor], checkpoint: Path,
    settings: dict[str, Any], processes: Processes, progress: Progress | None,
) -> Ema:  # fmt: skip
    """Train the parameters and return their average. The first process writes the checkpoint; all read it."""
    optimizer = adamw(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = linear(recipe.steps, warmup=recipe.warmup)
    ema = Ema(parameters, recipe.average)
    if processes.main:
        train(
            step, steps=recipe.steps, optimizer=optimizer, parameters=parameters, seed=recipe.seed,
            schedule=schedule, ema=ema, checkpoint=checkpoint, settings=settings, progress=progress,
            description="protector",
        )  # fmt: skip
        return ema
    start = 0
    if checkpoint.exists():
        identity = identity_of(recipe.seed, settings)
        start = load_checkpoint(checkpoint, parameters, optimizer, ema, identity)
    train(
        lambda index, _: step(start + index, step_generator(recipe.seed, start + index)),
        steps=max(recipe.steps - start, 0), optimizer=optimizer, parameters=parameters, seed=recipe.seed,
        schedule=lambda index: schedule(start + index), ema=ema, description="protector",
    )  # fmt: skip
    return ema
