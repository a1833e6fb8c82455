"""Training a protector: `unlikeness train-protector`, and what the shipped weights were made by.

A step draws pictures at a random scale, a budget each, sometimes a mask; the network answers with δ in one
pass; what is published is degraded the way pictures are (`augment`), resized as a trainer would, and shown to
each of the frozen models in turn. The gradient reaches the network through the encoders alone (`objectives`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.diffusion.devices import computes_bfloat16
from unlikeness.errors import UsageError
from unlikeness.pictures.finding import find_pictures
from unlikeness.progress import Progress
from unlikeness.prompts import too_long
from unlikeness.protect.base import frozen
from unlikeness.protect.rid import objectives
from unlikeness.protect.rid.augment import Augment, AugmentSettings
from unlikeness.protect.rid.network import LARGEST_BUDGET, MULTIPLE, NetworkSettings, Protector
from unlikeness.protect.rid.pictures import Bank, leaves_bank, photo_bank, render_bank
from unlikeness.protect.rid.regression import Pairs, pairs_of
from unlikeness.protect.rid.weights import save_protector
from unlikeness.settings import Checked, setting
from unlikeness.training import Ema, adamw, linear, train

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["CHECKPOINT", "ProtectorRecipe", "Trial", "check_sources", "train_protector"]

CHECKPOINT = "protector.safetensors"
"""The training's state, in its `work` folder."""

_NO_MODEL = "a protector needs a model to protect against; give one or more --model"


@dataclass(frozen=True, kw_only=True)
class ProtectorRecipe(Checked):
    """How a protector is trained. The three switches of the paper's ablation are the first two weights."""

    sds_weight: float = setting(1.0, "Weight of Adv-SDS.", source="RID: 1", at_least=0)
    regression_weight: float = setting(
        0.0, "Weight of the regression to gradient perturbations.", source="RID as released: 0", at_least=0
    )
    displacement_weight: float = setting(
        0.1, "Weight of the latent's displacement.", source="ours", at_least=0
    )
    pull_weight: float = setting(
        0.0,
        "Weight of the pull to the latent of a grey picture.",
        source="PhotoGuard's objective",
        at_least=0,
    )
    visibility_weight: float = setting(
        1.0, "Weight of what an eye would see of the perturbation.", source="ours", at_least=0
    )
    energy_weight: float = setting(
        10.0, "Weight of the energy beyond energy_share.", source="ours", at_least=0
    )
    energy_share: float = setting(
        0.48,
        "Root mean square of the perturbation that is free.",
        unit="of the budget",
        source="ours: 36.4 dB of PSNR at 8/255",
        at_least=0,
        at_most=1,
    )
    steps: int = setting(4_000, "Optimizer steps.", at_least=1)
    batch_size: int = setting(16, "Pictures a step.", at_least=1)
    learning_rate: float = setting(1e-3, "Peak of AdamW's; linear to zero.", source="RID: 3e-4", at_least=0)
    warmup: int = setting(200, "Steps of linear rise.", source="RID: 500", at_least=0)
    weight_decay: float = setting(0.01, "AdamW's.", source="RID", at_least=0)
    average: float = setting(0.998, "Decay of the weights' moving average.", at_least=0, at_most=0.99999)
    least_budget: float = setting(
        2.0, "Budgets are drawn log-uniformly from here ...", unit="n/255", at_least=0.1
    )
    most_budget: float = setting(16.0, "... to here.", unit="n/255", at_least=0.1, at_most=LARGEST_BUDGET)
    masked: float = setting(0.15, "Share of batches with a mask.", source="ours", at_least=0, at_most=1)
    largest_detail: float = setting(
        2.0,
        "Half of the batches are at the models' resolution, the others up to this much larger.",
        unit="times the resolution",
        at_least=1,
        at_most=8,
    )
    prompt: str = setting("a photo", "The prompt under which the loss is raised.", source="AdvDM")
    renders: int = setting(3_000, "Scenes of the toybox's world to learn from.", at_least=0)
    leaves: int = setting(3_000, "Dead-leaves pictures to learn from.", at_least=0)
    photos_share: float = setting(
        0.5, "Share of the user's own pictures, if there are any.", at_least=0, at_most=1
    )
    pairs: int = setting(
        192, "Pictures with a gradient perturbation, if regression counts.", source="RID: 10 % of the data",
        at_least=1,
    )  # fmt: skip
    pair_steps: int = setting(50, "Gradient steps for each of these.", source="RID: 50", at_least=1)
    pair_budget: float = setting(8.0, "Their budget.", unit="n/255", source="RID: 6", at_least=0.1)
    seed: int = setting(0, "Of pictures, weights and noise.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_budget > self.most_budget:
            raise UsageError(
                f"least_budget ({self.least_budget:g}) must be at most most_budget ({self.most_budget:g})"
            )
        terms = ("sds_weight", "regression_weight", "displacement_weight", "pull_weight")
        if not any(getattr(self, name) for name in terms):
            raise UsageError(f"{', '.join(terms)} are all 0, which teaches nothing; raise one of them")


class Trial:
    """One step's loss: everything between the pictures and the number to minimise.

    Args:
        network: what is trained.
        models: the frozen models, each with its own tokenizer, text encoder and autoencoder; the loss is
            their mean. All are shown the same pictures, at their own resolutions.
        pairs: pictures with gradient perturbations; needed where regression counts.
    """

    def __init__(
        self,
        network: Protector,
        models: Sequence[TextToImage],
        recipe: ProtectorRecipe,
        *,
        augment: Augment | None = None,
        pairs: Pairs | None = None,
    ) -> None:
        if not models:
            raise UsageError(_NO_MODEL)
        if recipe.regression_weight and pairs is None:
            raise UsageError("regression_weight needs pictures with gradient perturbations")
        for model in models:
            if reason := too_long(model.tokenizer, recipe.prompt):
                raise UsageError(reason)
        self.network, self.models, self.recipe, self.pairs = network, list(models), recipe, pairs
        self.augment = augment or Augment(AugmentSettings())
        with torch.no_grad():
            self._c = [model.embed([recipe.prompt]).detach() for model in self.models]
            self._grey = [_grey_latent(model) if recipe.pull_weight else None for model in self.models]
        self.raised = 0.0
        """The frozen models' diffusion loss on the last step's protected pictures."""

    def __call__(self, images: Tensor, budget: Tensor, generator: torch.Generator) -> Tensor:
        """The loss, a scalar. images: [B, 3, H, W] in [0, 1]; budget: n/255, [B] or [B, 1, H, W]."""
        r = self.recipe
        delta = self._answer(images, budget)
        flat = budget if budget.ndim == 1 else budget.flatten(1).amax(1).clamp_min(0.1)
        total = r.visibility_weight * objectives.visibility(delta, images, flat)
        total = total + r.energy_weight * objectives.excess_energy(delta, flat, r.energy_share)
        if r.sds_weight or r.displacement_weight or r.pull_weight:
            published = self.augment((images + delta).clamp(0, 1), generator)
            self.raised = 0.0
            for model, c, grey in zip(self.models, self._c, self._grey, strict=True):
                total = total + self._against(model, c, grey, published, images, generator) / len(self.models)
        if r.regression_weight:
            assert self.pairs is not None
            clean, wanted = self.pairs.draw(max(r.batch_size // 2, 1), generator)
            clean, wanted = clean.to(images.device), wanted.to(images.device)
            asked = torch.full((len(clean),), r.pair_budget, device=images.device)
            found = self._answer(clean, asked)
            total = total + r.regression_weight * objectives.regression(found, wanted, asked)
        return total

    def _answer(self, images: Tensor, budget: Tensor) -> Tensor:
        """δ, computed in bfloat16 where that is quicker."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=computes_bfloat16(images.device)):
            delta: Tensor = self.network(images, budget)
        return delta.float()

    def _against(
        self,
        model: TextToImage,
        c: Tensor,
        grey: Tensor | None,
        published: Tensor,
        images: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        r = self.recipe
        posterior = model.encode(viewed(published, model.resolution).to(model.device))
        total = posterior.mean.new_zeros(())
        if r.sds_weight:
            t, eps, noise = objectives.noised(posterior, model.schedule.steps, generator)
            loss, raised = objectives.adv_sds(model, posterior, c, t=t, eps=eps, noise=noise)
            self.raised += float(raised) / len(self.models)
            total = total + r.sds_weight * loss
        if r.displacement_weight or r.pull_weight:
            with torch.no_grad():
                clean = model.encode(viewed(images, model.resolution).to(model.device)).mean
            if r.displacement_weight:
                total = total + r.displacement_weight * objectives.displacement(posterior, clean)
            if grey is not None:
                total = total + r.pull_weight * objectives.pull(posterior, clean, grey)
        return total.to(images.device)


def _grey_latent(model: TextToImage) -> Tensor:
    """z_tgt of the pull: [1, C, h, w]."""
    return model.encode(torch.full((1, 3, model.resolution, model.resolution), 0.5)).mean


def viewed(images: Tensor, resolution: int) -> Tensor:
    """What a trainer sees of pictures [B, 3, H, W]: resized until the short side is `resolution`."""
    height, width = images.shape[-2:]
    if min(height, width) == resolution:
        return images
    factor = resolution / min(height, width)
    size = (round(height * factor), round(width * factor))
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def draw_budgets(recipe: ProtectorRecipe, count: int, side: int, generator: torch.Generator) -> Tensor:
    """Budgets in n/255: one a picture, [B], or with a soft mask that is zero in places, [B, 1, S, S]."""
    low, high = torch.tensor([recipe.least_budget, recipe.most_budget]).log()
    budget: Tensor = (low + (high - low) * torch.rand(count, generator=generator)).exp()
    if float(torch.rand((), generator=generator)) >= recipe.masked:
        return budget
    coarse = torch.randn(count, 1, 4, 4, generator=generator)
    mask: Tensor = F.interpolate(coarse, (side, side), mode="bicubic").mul(3).add(0.5).clamp(0, 1)
    return budget.view(-1, 1, 1, 1) * mask


def draw_side(recipe: ProtectorRecipe, resolution: int, generator: torch.Generator) -> int:
    """Side of a batch [px]: the resolution half of the time, else up to `largest_detail` times it."""
    larger, factor = (float(v) for v in torch.rand(2, generator=generator))
    if larger < 0.5:
        return resolution
    return round(resolution * (1 + factor * (recipe.largest_detail - 1)) / MULTIPLE) * MULTIPLE


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
        raise UsageError(_NO_MODEL)
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
