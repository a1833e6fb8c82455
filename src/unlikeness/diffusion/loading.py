"""A diffusers folder read into its components.

Weights are read from safetensors, single or sharded, in the plain or a variant's name. Where a folder holds
nothing but pickles they are read with `torch.load(weights_only=True)`, which diffusers and transformers
hard-wire: tensors only, never code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from unlikeness.diffusion.family import FAMILIES, Family
from unlikeness.diffusion.quiet import quiet
from unlikeness.diffusion.weights import choose_weights
from unlikeness.errors import UnlikenessError, UsageError

__all__ = ["Components", "load_folder"]

_DAMAGE = (RuntimeError, TypeError, ValueError, UnpicklingError)
_NEEDED = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class Components:
    """What a folder holds. `carried`: entries of model_index.json that are kept without being loaded."""

    family: Family
    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    carried: dict[str, Any]
    default_guidance: float


def load_folder(folder: Path, *, dtype: torch.dtype) -> Components:
    """Load a Stable Diffusion 1.x or 2.x diffusers folder on the CPU.

    Raises UsageError if it is no such folder, naming what is missing; UnlikenessError if a file of it is
    damaged.
    """
    index = _read_json(folder / "model_index.json", folder)
    kind = str(index.get("_class_name"))
    if kind not in FAMILIES:
        raise UsageError(
            f"model {folder} is a {kind}, which is not supported; give one of {', '.join(FAMILIES)}"
        )
    for name in index:
        if not name.isidentifier():  # they become names of folders
            raise UsageError(f"model {folder} has a part {name!r}, which is no name; fetch or save it again")
    for name in _NEEDED:
        if not _is_pair(index.get(name)) or not (folder / name).is_dir():
            raise UsageError(
                f"model {folder} has no {name}/ folder, so it is no complete diffusers model; "
                "fetch or save it again"
            )
    half = dtype in (torch.float16, torch.bfloat16)
    with quiet():
        vae = _model(folder, "vae", index["vae"], ("AutoencoderKL", "AutoencoderTiny"), half)
        unet = _model(folder, "unet", index["unet"], ("UNet2DConditionModel",), half)
        text_encoder = _model(folder, "text_encoder", index["text_encoder"], ("CLIPTextModel",), half)
        tokenizer = _plain(folder, "tokenizer", ["transformers", "CLIPTokenizer"])
        scheduler = _plain(folder, "scheduler", index["scheduler"])
    if not hasattr(scheduler, "set_timesteps"):
        raise UsageError(
            f"the scheduler of model {folder} is a {type(scheduler).__name__}, which is none; "
            "fetch or save it again"
        )
    if unet.config.in_channels != vae.config.latent_channels:
        raise UsageError(
            f"model {folder} has a U-Net of {unet.config.in_channels} input channels for latents of "
            f"{vae.config.latent_channels} (an inpainting or depth model?); give its text-to-image relative"
        )
    own = folder / "unlikeness.json"
    extra = _read_json(own, folder) if own.is_file() else {}
    family = FAMILIES[kind]
    return Components(
        family, vae, unet, text_encoder, tokenizer, scheduler,
        carried={name: value for name, value in index.items() if name not in _NEEDED},
        default_guidance=float(extra.get("default_guidance", family.default_guidance)),
    )  # fmt: skip


def _is_pair(entry: object) -> bool:
    """[library, class], both by name."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)


def _read_json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} is no diffusers model: it has no {path.name}; give the folder that holds that file"
        ) from error
    except (OSError, ValueError) as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); fetch or save the model again") from error
    if not isinstance(content, dict):
        raise UnlikenessError(f"{path} is not a JSON object; fetch or save the model again")
    return content


def _class(folder: Path, name: str, entry: list[Any], allowed: tuple[str, ...]) -> Any:
    library, kind = entry[0], entry[1]
    if allowed and kind not in allowed:
        raise UsageError(f"the {name} of model {folder} is a {kind}; supported: {', '.join(allowed)}")
    if library not in ("diffusers", "transformers"):
        raise UsageError(f"the {name} of model {folder} is custom code of {library!r}, which is never run")
    import diffusers
    import transformers

    module: Any = diffusers if library == "diffusers" else transformers
    found = getattr(module, kind, None)
    if not (isinstance(found, type) and hasattr(found, "from_pretrained")):
        raise UsageError(f"the {name} of model {folder} is a {kind}, which this {library} does not have")
    return found


def _model(folder: Path, name: str, entry: list[Any], allowed: tuple[str, ...], half: bool) -> Any:
    weights = choose_weights([file.name for file in (folder / name).iterdir()], half=half)
    if weights is None:
        raise UsageError(f"model {folder} has no weights in {name}/ (*.safetensors); fetch or save it again")
    kind = _class(folder, name, entry, allowed)
    with _reading(folder, name):
        module, info = kind.from_pretrained(
            str(folder),
            subfolder=name,
            variant=weights.variant,
            use_safetensors=weights.format == "safetensors",
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(key for key in info["missing_keys"] if not key.endswith("position_ids"))
    if missing:
        raise UnlikenessError(
            f"the {name} of model {folder} lacks {len(missing)} tensors, {missing[0]} for one; "
            "fetch or save it again"
        )
    return module.eval()


def _plain(folder: Path, name: str, entry: list[Any]) -> Any:
    kind = _class(folder, name, entry, ())
    with _reading(folder, name):
        return kind.from_pretrained(str(folder), subfolder=name, local_files_only=True)


@contextmanager
def _reading(folder: Path, name: str) -> Iterator[None]:
    """Whatever a damaged file makes the readers below raise, in one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, LookupError, EOFError, *_DAMAGE, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnlikenessError(
            f"the {name} of model {folder} cannot be read ({reason}); fetch or save it again"
        ) from error
