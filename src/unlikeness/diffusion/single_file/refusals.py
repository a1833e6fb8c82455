"""What a single file is that holds no known model, and what to give instead: by the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from unlikeness.errors import UsageError, one_line

__all__ = ["check_adapter", "check_relative", "without_denoiser"]

_FOLDER = "give a whole checkpoint, or a diffusers folder"

_OTHER_FILES = (
    ("a LoRA", "give it as --lora, and the model it was made for as --model",
     re.compile(r"lora_(up|down|A|B)\b|\.lora\.(up|down)\.|\.hada_w|\.lokr_w|_lora\.(up|down)\.|dora_scale$")),
    ("a Textual Inversion embedding", "give it as --embedding, and the model it was made for as --model",
     re.compile(r"^(emb_params|string_to_param|clip_[lg]|<[^<>]{1,80}>)$")),
    ("a ControlNet", "give the model it was made for", re.compile(r"^(control_model\.|controlnet_)")),
    ("an adapter for pictures (IP-Adapter, Redux)", "give the model it was made for",
     re.compile(r"^(image_proj\.|ip_adapter\.|redux_(up|down)\.)")),
)  # fmt: skip
"""What it is, the remedy, and names that show it."""

_ALONE = (
    ("a denoiser in diffusers' layout", "put it into a diffusers folder, as its transformer/ or unet/",
     re.compile(r"(diffusion_model\.)?(down_blocks|transformer_blocks|single_transformer_blocks)\.\d")),
    ("an autoencoder", "give it as protect --against, or give a whole checkpoint",
     re.compile(r"(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|layers|\d)")),
    ("a text encoder", _FOLDER,
     re.compile(r"(\w+\.)*(text_model|encoder\.block|transformer\.resblocks|shared)\.")),
)  # fmt: skip
"""As above, for files without a denoiser in the original layout."""

_RELATIVES = (
    ("the refiner of Stable Diffusion XL", re.compile(r"^conditioner\.embedders\.0\.model\.")),
    ("a Playground 2.5", re.compile(r"^edm_mean$")),
    ("a Chroma", re.compile(r"distilled_guidance_layer\.")),
    ("a FLUX.2", re.compile(r"double_stream_modulation_")),
    ("a HunyuanVideo", re.compile(r"individual_token_refiner\.")),
)
"""Models whose names begin alike."""


def check_adapter(path: Path, names: Collection[str]) -> None:
    """UsageError for what is made for a model, such as a LoRA."""
    for said, remedy, pattern in _OTHER_FILES:
        if any(pattern.search(name) for name in names):
            raise UsageError(f"{path} is {said}, no whole model; {remedy}")


def check_relative(path: Path, names: Collection[str]) -> None:
    """UsageError for a model whose names begin as those of a known kind."""
    for said, pattern in _RELATIVES:
        if any(pattern.search(name) for name in names):
            raise UsageError(f"{path} is {said}, which is not supported as a single file; {_FOLDER}")


def without_denoiser(path: Path, names: Collection[str]) -> UsageError:
    """What to raise for a file without a denoiser in the original layout."""
    for said, remedy, pattern in _ALONE:
        if any(pattern.match(name) for name in names):
            return UsageError(f"{path} holds {said} alone, no whole model; {remedy}")
    first = ", ".join(one_line(name)[:60] for name in sorted(names)[:2]) or "none"
    return UsageError(f"{path} holds no model of a known kind (its first tensors: {first}); give another")
