"""How both judges, the classifier and the identity encoder, are trained: AdamW on one cosine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from unlikeness.progress import Progress
from unlikeness.settings import Checked, setting
from unlikeness.toybox.convnet import save_half
from unlikeness.training import Step, adamw, cosine, train


@dataclass(frozen=True, kw_only=True)
class JudgeRecipe(Checked):
    """What both recipes have."""

    steps: int = setting(1500, "optimizer steps", at_least=1)
    learning_rate: float = setting(2e-3, "peak of AdamW's learning rate; cosine to zero", at_least=1e-9)
    seed: int = setting(0, "of renders, weights and disturbances", at_least=0, at_most=2**63 - 1)


def checkpoint_of(work: Path, name: str) -> Path:
    """The file that the training of the judge `name` goes on from, none that a judge's weights have."""
    return work / f"{name}.checkpoint.safetensors"


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
