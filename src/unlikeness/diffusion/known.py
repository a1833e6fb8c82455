"""What `model_index.json` may name: a list of classes for each part, judged before anything is loaded.

An Auto class of transformers, or a class from anywhere else, could lead to code in the model's own folder. So
no other class is looked up, and nothing of a stranger is run or offered to be run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import LARGEST, UnreadableError, read_json

if TYPE_CHECKING:
    from unlikeness.diffusion.families import Family

__all__ = ["CLIP_CARRIED", "CODE", "NOISE_SCHEDULERS", "Index", "read_index", "read_object"]

NOISE_SCHEDULERS = (
    "PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler",
    "TCDScheduler", "DDIMParallelScheduler", "DDPMParallelScheduler", "FlowMatchEulerDiscreteScheduler",
)  # fmt: skip
"""The classes of diffusers that a scheduler may be of."""

CLIP_CARRIED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "safety_checker": ("stable_diffusion", ("StableDiffusionSafetyChecker",)),
    "feature_extractor": (
        "transformers",
        ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor"),
    ),
    "image_encoder": ("transformers", ("CLIPVisionModelWithProjection",)),
}
"""Parts around a CLIP that are never loaded, only copied when a model is saved."""

CODE = ("auto_map", "custom_pipeline", "custom_code", "trust_remote_code")
"""Settings that lead to code in a model's folder."""


@dataclass(frozen=True)
class Index:
    """What model_index.json says. classes: of each part that is loaded; carried: what is written into a copy
    without having been loaded."""

    family: Family
    classes: Mapping[str, str]
    carried: dict[str, Any]


def read_index(folder: Path) -> Index:
    """`model_index.json` of a folder, checked against the lists above.

    UsageError if it is no Stable Diffusion model of known classes; UnlikenessError if the file is damaged.
    """
    from unlikeness.diffusion.families import FAMILIES, family_of

    path = folder / "model_index.json"
    if not path.exists():
        raise UsageError(
            f"{folder} is no diffusers model: it has no {path.name}; give the folder that holds that file"
        )
    index = read_object(path, folder)
    named = index.get("_class_name")
    if not isinstance(named, str) or named not in FAMILIES:
        kind = one_line(str(named))[:60]
        raise UsageError(
            f"model {folder} is a {kind}, which is not supported; give one of {', '.join(FAMILIES)}"
        )
    for name in index:
        if not name.isidentifier():  # they become names of folders
            raise UsageError(
                f"model {folder} has a part {one_line(name)[:60]!r}, which is no name; fetch or save it again"
            )
    family = family_of(named)
    for name in family.parts:
        if not _is_pair(index.get(name)) or not (folder / name).is_dir():
            raise UsageError(
                f"model {folder} has no {name}/ folder, so it is no complete diffusers model; "
                "fetch or save it again"
            )
    for name, entry in index.items():
        if _is_pair(entry):
            _check_class(family, folder, name, *entry)
    classes = {name: index[name][1] for name in family.parts}
    carried = {name: index[name] for name in family.carried if name in index}
    carried["requires_safety_checker"] = bool(index.get("requires_safety_checker", False))
    return Index(family, classes, carried)


def read_object(path: Path, folder: Path, *, most: int = LARGEST, infinite: bool = False) -> dict[str, Any]:
    """A JSON object of a model's folder. UnlikenessError, naming the file, for anything else; UsageError for
    a setting that leads to code. most [bytes] and infinite: see `foreign.read_json`."""
    try:
        content = read_json(path, folder=folder, most=most, infinite=infinite)
    except UnreadableError as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); fetch or save the model again") from error
    if not isinstance(content, dict):
        raise UnlikenessError(f"{path} is not a JSON object; fetch or save the model again")
    for key in CODE:
        if content.get(key):
            raise UsageError(
                f"{path} names code of its own ({key}), which is never run; give a model without it"
            )
    return content


def _is_pair(entry: object) -> bool:
    """[library, class], both by name."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)


def _check_class(family: Family, folder: Path, name: str, library: str, kind: str) -> None:
    known = family.parts.get(name) or family.carried.get(name)
    said = f"the {name} of model {folder} is a {one_line(f'{library}.{kind}')[:80]}"
    if known is None:
        raise UsageError(f"{said}, a part that Stable Diffusion does not have; give a model without it")
    if library not in ("diffusers", "transformers", known[0]):
        raise UsageError(f"{said}, custom code, which is never run; known are: {', '.join(known[1])}")
    if library != known[0] or kind not in known[1]:
        raise UsageError(f"{said}, which is never loaded; known are: {', '.join(known[1])}")
