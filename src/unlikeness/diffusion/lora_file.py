"""A stranger's LoRA file: its tensors, and what its header says of ranks and scales, in bounds.

diffusers passes the header on to peft as it is, which takes names for regular expressions, and settings that
import further libraries. So only numbers and plain names are handed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unlikeness.foreign import UnreadableError, parse_json
from unlikeness.tensors import read_header, read_safetensors

__all__ = ["read_lora"]

_HEADER = "lora_adapter_metadata"
_PARTS = ("unet", "text_encoder")
_NAME = re.compile(r"[\w.\-]{1,300}", re.ASCII)

_HIGHEST_RANK = 1024
_MOST = 20_000
"""Tensors of a file: a LoRA of all layers of Stable Diffusion has 1,500."""


def read_lora(file: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """(tensors by name, settings of the adapter by part and name or None), as diffusers names both.

    UnreadableError for a damaged file, names that are none, empty tensors, ranks above 1024, and settings
    that are out of bounds. Settings that decide nothing here are left out.
    """
    tensors = read_safetensors(file)
    if len(tensors) > _MOST:
        raise UnreadableError(f"it has {len(tensors)} tensors, more than {_MOST}")
    for name, tensor in tensors.items():
        if _NAME.fullmatch(name) is None:
            raise UnreadableError(f"{name[:60]!r} is no name of a layer")
        real = tensor.is_floating_point() or tensor.numel() == 1  # a scale may be a whole number
        if not tensor.numel() or not real or tensor.ndim > 4:
            raise UnreadableError(f"{name[:60]} is no weight: {list(tensor.shape)} in {tensor.dtype}")
        if _rank(name, tensor) > _HIGHEST_RANK:
            raise UnreadableError(f"{name[:60]} is of rank {_rank(name, tensor)}, above {_HIGHEST_RANK}")
    text = read_header(file).get(_HEADER)
    return tensors, None if not text else _settings(parse_json(text))


def _rank(name: str, tensor: Tensor) -> int:
    """That of one of the two factors of an update; 1 for anything else."""
    if tensor.ndim < 2:
        return 1
    if re.search(r"lora_A|lora_down|lora\.down|_lora\.down|lora_linear_layer\.down", name):
        return tensor.shape[0]
    return tensor.shape[1] if re.search(r"lora_B|lora_up|lora\.up|lora_linear_layer\.up", name) else 1


def _settings(said: Any) -> dict[str, Any]:
    if not isinstance(said, Mapping):
        raise UnreadableError(f"its {_HEADER} is no object")
    found = {}
    for key, value in said.items():
        part, _, name = key.partition(".")
        if part in _PARTS and name in _CHECKS and value is not None:
            if not _CHECKS[name](value):
                raise UnreadableError(f"its {_HEADER} has {key} = {str(value)[:60]}, which no LoRA has")
            found[key] = value
    return found


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value, 1, _HIGHEST_RANK)


def _is_scale(value: Any) -> bool:
    return _is_number(value, 0, 1e6)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _are_names(value: Any) -> bool:
    return _is_name(value) or (isinstance(value, list) and len(value) <= _MOST and all(map(_is_name, value)))


def _each(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(_is_name(name) and holds(one) for name, one in value.items())


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "r": _is_rank,
    "lora_alpha": _is_scale,
    "rank_pattern": lambda value: _each(value, _is_rank),
    "alpha_pattern": lambda value: _each(value, _is_scale),
    "target_modules": _are_names,
    "use_rslora": lambda value: isinstance(value, bool),
    "use_dora": lambda value: isinstance(value, bool),
    "lora_bias": lambda value: isinstance(value, bool),
}
"""The settings of peft's LoraConfig that decide what a LoRA computes -> whether a value can be one."""
