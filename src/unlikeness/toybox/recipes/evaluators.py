"""How the classifier and the identity encoder are trained: AdamW on one cosine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlikeness.progress import Progress
from unlikeness.toybox.evaluators import ClassifierNet, IdentityNet, save_half
from unlikeness.toybox.recipes.renders import VIEWS, classed, render_many, viewed
from unlikeness.toybox.recipes.settings import (
    ClassifierRecipe,
    EvaluatorRecipe,
    IdentityRecipe,
    checkpoint_of,
)
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS
from unlikeness.training import Step, adamw, cosine, train


def train_classifier(
    recipe: ClassifierRecipe,
    output: Path,
    *,
    work: Path,
    progress: Progress | None = None,
    device: str = "cpu",
) -> None:
    """Train to read class nouns and contexts. output: file of the weights. work: renders and checkpoint."""
    renders = render_many(
        classed, recipe.pictures, seed=recipe.seed, folder=work / "renders", progress=progress
    )
    contexts = list(CONTEXTS)
    pairs = [label.split("|") for label in renders.labels]
    nouns = torch.tensor([CLASS_NOUNS.index(noun) for noun, _ in pairs])
    places = torch.tensor([contexts.index(context) for _, context in pairs])
    torch.manual_seed(recipe.seed)
    net = ClassifierNet().train().to(device)

    def step(index: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(renders), (recipe.batch_size,), generator=generator)
        images = disturb(renders.images(rows), generator).to(device)
        of_noun, of_context = net(images)
        return F.cross_entropy(of_noun, nouns[rows].to(device)) + F.cross_entropy(
            of_context, places[rows].to(device)
        )

    _fit(net, step, recipe, output, name="classifier", work=work, progress=progress)


def train_identity(
    recipe: IdentityRecipe, output: Path, *, work: Path, progress: Progress | None = None, device: str = "cpu"
) -> None:
    """Train to distinguish members of one class, by contrast (InfoNCE, van den Oord et al. 2018).

    output: file of the weights. work: renders and checkpoint.
    """
    count = recipe.individuals * VIEWS
    renders = render_many(viewed, count, seed=recipe.seed, folder=work / "renders", progress=progress)
    torch.manual_seed(recipe.seed)
    net = IdentityNet().train().to(device)
    classes = len(CLASS_NOUNS)
    per_class = recipe.individuals // classes

    def step(index: int, generator: torch.Generator) -> Tensor:
        who = torch.randperm(per_class, generator=generator)[: recipe.members] * classes + index % classes
        view = torch.stack([torch.randperm(VIEWS, generator=generator)[:2] for _ in who], dim=1)
        images = renders.images((who * VIEWS + view).flatten())
        first, second = net(disturb(images, generator).to(device)).chunk(2)
        return contrast(first, second, recipe.temperature)

    _fit(net, step, recipe, output, name="identity", work=work, progress=progress)


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE of two views. first, second: unit vectors [B, D], row by row the same individuals."""
    logits = first @ second.T / temperature
    target = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Differences between a generated picture and a render: softness, noise, light. Same shape."""
    count = len(images)

    def per_picture(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    soft = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    mix = per_picture(0, 1) * (per_picture(0, 1) < 0.5)
    images = images * (1 - mix) + soft * mix
    images = images * per_picture(0.92, 1.08) + per_picture(-0.03, 0.03)
    noise = torch.randn(images.shape, generator=generator)
    return (images + per_picture(0, 0.06) * noise).clamp(0, 1)


def _fit(
    net: nn.Module,
    step: Step,
    recipe: EvaluatorRecipe,
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
