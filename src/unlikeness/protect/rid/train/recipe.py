"""The settings of `unlikeness train-protector`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yaml import BaseLoader

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, parse_yaml, read, reason
from unlikeness.pictures.finding import find_pictures
from unlikeness.protect.rid.settings import LARGEST_BUDGET
from unlikeness.settings import Checked, named, setting

__all__ = ["CHECKPOINT", "RECIPES", "ProtectorRecipe", "check_sources", "read_recipe"]

RECIPES = Path(__file__).parents[1] / "recipes"
"""The folder of the shipped recipes: NAME.yaml."""

_LARGEST = 1 << 16
_FORM = "a recipe has two parts, recipe: and network:, with lines NAME: VALUE"

CHECKPOINT = "protector.safetensors"
"""The checkpoint's name in the `work` folder."""


@dataclass(frozen=True, kw_only=True)
class ProtectorRecipe(Checked):
    """How a protector is trained. The paper's ablation switches the first two weights."""

    sds_weight: float = setting(1.0, "Weight of Adv-SDS.", source="RID: 1", at_least=0)
    regression_weight: float = setting(
        0.0, "Weight of the regression to gradient perturbations.", source="RID as released: 0", at_least=0
    )
    displacement_weight: float = setting(
        0.1, "Weight of the latent's displacement.", source="ours", at_least=0
    )
    distance_weight: float = setting(
        0.0, "Weight of the latent's displacement, as a share of the distance between two pictures' latents.",
        source="ours", at_least=0,
    )  # fmt: skip
    pull_weight: float = setting(
        0.0, "Weight of the pull to the latent of a grey picture.", source="PhotoGuard's objective",
        at_least=0,
    )  # fmt: skip
    visibility_weight: float = setting(
        1.0, "Weight of what an eye would see of the perturbation.", source="ours", at_least=0
    )
    pattern_weight: float = setting(
        0.0, "Weight of visible regular patterns: see `patterns`.", source="ours", at_least=0
    )
    repetition_weight: float = setting(
        0.0, "Weight of what is the same in every cell of 16 px: see `patterns`.", source="ours", at_least=0
    )
    energy_weight: float = setting(
        10.0, "Weight of the energy beyond energy_share.", source="ours", at_least=0
    )
    energy_share: float = setting(
        0.48, "Root mean square of the perturbation that is free.", unit="of the budget",
        source="ours: 36.4 dB of PSNR at 8/255", at_least=0, at_most=1,
    )  # fmt: skip
    side: int = setting(
        0, "Side of the training crops; 0: the models' resolution, and up to largest_detail times it.",
        unit="px", at_least=0, at_most=2048,
    )  # fmt: skip
    steps: int = setting(4_000, "Optimizer steps.", at_least=1)
    batch_size: int = setting(16, "Pictures a step.", at_least=1)
    learning_rate: float = setting(1e-3, "Peak of AdamW's; linear to zero.", source="RID: 3e-4", above=0)
    warmup: int = setting(200, "Steps of linear rise.", source="RID: 500", at_least=0)
    weight_decay: float = setting(0.01, "AdamW's.", source="RID", at_least=0)
    average: float = setting(0.998, "Decay of the weights' moving average.", at_least=0, at_most=0.99999)
    least_budget: float = setting(
        2.0, "Budgets are drawn log-uniformly from here ...", unit="n/255", at_least=0.1
    )
    most_budget: float = setting(16.0, "... to here.", unit="n/255", at_least=0.1, at_most=LARGEST_BUDGET)
    masked: float = setting(0.15, "Share of batches with a mask.", source="ours", at_least=0, at_most=1)
    largest_detail: float = setting(
        2.0, "Half of the batches are at the models' resolution, the others up to this much larger.",
        unit="times the resolution", at_least=1, at_most=8,
    )  # fmt: skip
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
    seed: int = setting(0, "Of pictures, weights and noise.", at_least=0, at_most=2**63 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_budget > self.most_budget:
            raise UsageError(
                f"{named('least_budget')} ({self.least_budget:g}) must be at most most_budget "
                f"({self.most_budget:g})"
            )
        terms = ("sds_weight", "regression_weight", "displacement_weight", "distance_weight", "pull_weight")
        if not any(getattr(self, name) for name in terms):
            raise UsageError(f"{', '.join(terms)} are all 0, which teaches nothing; raise one with --set")


def read_recipe(name_or_path: str) -> tuple[dict[str, object], dict[str, object]]:
    """Settings of the recipe and of the network, as text, from a shipped recipe's name or a YAML file.

    UsageError if there is none, or the file has another form; UnlikenessError if it cannot be read.
    """
    shipped = RECIPES / f"{name_or_path}.yaml"
    path = shipped if Path(name_or_path).name == name_or_path and shipped.is_file() else Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise UsageError(f"--recipe {name_or_path} is no file and no shipped recipe (there are: {known})")
    try:
        text = read(path, most=_LARGEST)
    except UnreadableError as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); name another --recipe") from error
    try:
        given = parse_yaml(text.decode(), BaseLoader)
    except (UnreadableError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML ({reason(error)}); {_FORM}") from error
    parts = ("recipe", "network")
    if not (isinstance(given, dict) and set(given) <= set(parts)):
        raise UsageError(f"{path} is no recipe; {_FORM}")
    found = [given.get(part) or {} for part in parts]
    for part, values in zip(parts, found, strict=True):
        if not (isinstance(values, dict) and all(isinstance(value, str) for value in values.values())):
            raise UsageError(f"{path}: {part} must hold lines NAME: VALUE; {_FORM}")
    return dict(found[0]), dict(found[1])


def check_sources(recipe: ProtectorRecipe, images: Sequence[Path]) -> None:
    """UsageError if there is nothing to learn from, or one of `images` does not exist or holds no picture."""
    if not (recipe.renders or recipe.leaves or images):
        raise UsageError("there is nothing to learn from: give --images, or raise renders or leaves (--set)")
    for path in images:
        if not find_pictures([path]):
            raise UsageError(f"--images: there is no picture in {path}; name another folder, or a file")
