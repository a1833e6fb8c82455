"""The toybox's identity encoder, by contrast between members of one class (InfoNCE, van den Oord et
al. 2018).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.progress import Progress
from unlikeness.toybox.convnet import disturb
from unlikeness.toybox.identity import IdentityNet
from unlikeness.toybox.recipes.draws import VIEWS, viewed
from unlikeness.toybox.recipes.judges import fit
from unlikeness.toybox.recipes.renders import render_many
from unlikeness.toybox.recipes.settings import IdentityRecipe
from unlikeness.toybox.world import CLASS_NOUNS


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE of two views. first, second: unit vectors [B, D]; row i of both is the same
    individual.
    """
    logits = first @ second.T / temperature
    target = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_identity(
    recipe: IdentityRecipe, output: Path, *, work: Path, progress: Progress | None = None, device: str = "cpu"
) -> None:
    """Train and write the weights to the file `output`; `work` holds renders and the checkpoint to
    resume from.
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

    fit(net, step, recipe, output, name="identity", work=work, progress=progress)
