"""The toybox's classifier: which class noun and which context a picture shows."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.progress import Progress
from unlikeness.toybox.classifier import ClassifierNet
from unlikeness.toybox.convnet import disturb
from unlikeness.toybox.recipes.draws import classed
from unlikeness.toybox.recipes.judges import fit
from unlikeness.toybox.recipes.renders import render_many
from unlikeness.toybox.recipes.settings import ClassifierRecipe
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS


def train_classifier(
    recipe: ClassifierRecipe,
    output: Path,
    *,
    work: Path,
    progress: Progress | None = None,
    device: str = "cpu",
) -> None:
    """Train and write the weights to the file `output`; `work` holds renders and the checkpoint to
    resume from.
    """
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

    fit(net, step, recipe, output, name="classifier", work=work, progress=progress)
