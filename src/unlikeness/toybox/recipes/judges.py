"""How both judges, the classifier and the identity encoder, are trained: AdamW on one cosine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from torch import nn

from unlikeness.progress import Progress
from unlikeness.toybox.convnet import save_half
from unlikeness.toybox.recipes.settings import JudgeRecipe, checkpoint_of
from unlikeness.training import Step, adamw, cosine, train


def fit(
    net: nn.Module,
    step: Step,
    recipe: JudgeRecipe,
    output: Path,
    *,
    name: str,
    work: Path,
    progress: Progress | None,
) -> None:
    """Train `net` on `step` with a checkpoint in `work` (`checkpoint_of`), and write it to `output`."""
    parameters = list(net.parameters())
    train(
        step,
        steps=recipe.steps,
        optimizer=adamw(parameters, lr=recipe.learning_rate),
        parameters=parameters,
        seed=recipe.seed,
        schedule=cosine(recipe.steps, warmup=100),
        checkpoint=checkpoint_of(work, name),
        settings=asdict(recipe),
        progress=progress,
        description=f"toybox {name}",
    )
    save_half(net, output)
