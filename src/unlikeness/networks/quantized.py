"""Quantized weights in a file, opened in full: each becomes the plain tensor that it stands for.

Read are the layouts of bitsandbytes (4 bits: nf4, fp4; 8 bits: LLM.int8) and float8 with a scale. The tables
that say a value are in the file, so that no further library and no GPU is needed. Other quantizations are
refused by name. torch is imported where a function needs it, so that names can be judged without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError, parse_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["READ", "dequantized", "quantization", "unread"]

READ = "bitsandbytes"
"""The method in a `quantization_config` whose weights are read."""

_STATE = ".quant_state.bitsandbytes__"
_BESIDE_4 = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_FLOAT8 = (".scale_weight", ".weight_scale")
_KINDS = (
    ("bitsandbytes, 4 bits", re.compile(r"\.weight\.quant_state\.bitsandbytes__(nf4|fp4)$")),
    ("bitsandbytes, 8 bits", re.compile(r"\.SCB$")),
    ("float8 with a scale", re.compile(r"\.(scale_weight|weight_scale)$")),
)
_TOLD = re.compile(
    r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+|SCB|weight_format|scale_weight"
    r"|weight_scale|weight_scale_inv|weight_scale_2|scale_input|input_scale|comfy_quant|qweight|qzeros|scales"
    r"|g_idx|weight_zero_point|weight_packed|weight\._\w+|_scale|zero_point|svd_up|svd_down|proj_up"
    r"|proj_down|smooth|smooth_orig)$|^scaled_fp8$"
)
"""Names beside quantized weights, of these methods and others."""

_SIZE = 1 << 16
"""Bound on the bytes of a description; bitsandbytes' have 165."""


def quantization(names: Iterable[str]) -> str:
    """How weights with tensors of these names beside them are quantized; "" for plain ones."""
    names = list(names)
    return next((said for said, pattern in _KINDS if any(map(pattern.search, names))), "")


def unread(what: str, how: str) -> UsageError:
    """The error for weights that are quantized in another way. how: its name."""
    return UsageError(
        f"{what} is quantized ({one_line(how)[:60]}), which is not read; give it in float32, float16, "
        "bfloat16 or float8, quantized with bitsandbytes, or as GGUF"
    )


def dequantized(
    tensors: Mapping[str, Tensor], what: str, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The same tensors, each quantized one as it is multiplied with, in `dtype` (float32 by default).

    Raises UsageError, about `what`, for a quantization that is not read; UnlikenessError for a damaged one.
    """
    import torch

    if not any(map(_TOLD.search, tensors)):
        return dict(tensors)
    plain = {name: one for name, one in tensors.items() if not _TOLD.search(name)}
    used: set[str] = set()
    for name in tensors:
        weight = re.sub(r"\.(SCB|\w*scale\w*)$", ".weight", name.partition(_STATE)[0])
        if weight == name or weight not in plain:
            continue
        beside: tuple[str, ...]
        if _STATE in name:
            found = _of_4_bits(tensors, weight, name, what)
            beside = (name, *(f"{weight}.{end}" for end in _BESIDE_4))
        elif name.endswith(".SCB"):
            found = _of_8_bits(tensors, weight, name, what)
            beside = (name, name.removesuffix("SCB") + "weight_format")
        elif name.endswith(_FLOAT8) and str(tensors[weight].dtype).startswith("torch.float8"):
            found = _scaled(tensors[weight], tensors[name], what, weight)
            start = weight.removesuffix("weight")
            beside = (name, *(start + end for end in ("scale_input", "input_scale", "comfy_quant")))
        else:
            continue
        plain[weight] = found.to(dtype or torch.float32)
        used.update(beside)
    left = [name for name in tensors if _TOLD.search(name) and name not in {*used, "scaled_fp8"}]
    if left:
        raise unread(what, f"by {left[0]}")
    return plain


def _of_4_bits(tensors: Mapping[str, Tensor], weight: str, name: str, what: str) -> Tensor:
    """Two values a byte, the first in the upper half: a table's entry times the block's largest value."""
    import torch

    state, packed = _state(tensors[name], what, weight), tensors[weight].reshape(-1)
    absmax, table = (tensors.get(f"{weight}.{end}") for end in _BESIDE_4[:2])
    shape, block = state.get("shape"), state.get("blocksize")
    if not (
        isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape)
        and isinstance(block, int) and block > 0 and packed.dtype == torch.uint8
        and table is not None and table.numel() == 16 and absmax is not None
        and packed.numel() == (math.prod(shape) + 1) // 2 and absmax.numel() == -(-math.prod(shape) // block)
    ):  # fmt: skip
        raise _damaged(what, weight)
    if not absmax.is_floating_point():
        absmax = _nested(tensors, weight, absmax.reshape(-1), state, what)
    halves = torch.stack([packed >> 4, packed & 15], 1).reshape(-1)[: math.prod(shape)]
    values = table.float().reshape(-1).index_select(0, halves.int())
    largest = absmax.float().reshape(-1).repeat_interleave(min(block, len(values)))
    return (values * largest[: len(values)]).reshape(shape)


def _nested(
    tensors: Mapping[str, Tensor], weight: str, codes: Tensor, state: Mapping[str, Any], what: str
) -> Tensor:
    """The blocks' largest values, which are quantized again, by bytes and larger blocks."""
    import torch

    largest, table = (tensors.get(f"{weight}.{end}") for end in _BESIDE_4[2:])
    block, offset = state.get("nested_blocksize"), state.get("nested_offset")
    if not (
        isinstance(block, int) and block > 0 and isinstance(offset, int | float)
        and codes.dtype == torch.uint8 and table is not None and table.numel() == 256
        and largest is not None and largest.numel() == -(-codes.numel() // block)
    ):  # fmt: skip
        raise _damaged(what, weight)
    scales = largest.float().reshape(-1).repeat_interleave(min(block, codes.numel()))[: codes.numel()]
    return table.float().reshape(-1)[codes.long()] * scales + offset


def _of_8_bits(tensors: Mapping[str, Tensor], weight: str, name: str, what: str) -> Tensor:
    """Each row in 127ths of its largest value."""
    import torch

    packed, largest = tensors[weight], tensors[name]
    form = tensors.get(name.removesuffix("SCB") + "weight_format")
    rows = packed.dtype == torch.int8 and packed.ndim == 2 and largest.numel() == len(packed)
    if not rows or (form is not None and form.any()):  # laid out for one kind of GPU
        raise _damaged(what, weight)
    return packed.float() * (largest.float().reshape(-1, 1) / 127)


def _scaled(weight: Tensor, scale: Tensor, what: str, name: str) -> Tensor:
    """float8 times one scale, or one a row."""
    if scale.numel() not in (1, len(weight) if weight.ndim else 1) or not scale.is_floating_point():
        raise _damaged(what, name)
    sides = (-1, *[1] * (weight.ndim - 1)) if scale.numel() > 1 else ()
    return weight.float() * scale.float().reshape(sides)


def _state(described: Tensor, what: str, weight: str) -> dict[str, Any]:
    """bitsandbytes' description of a weight, a JSON text in bytes."""
    import torch

    if described.dtype != torch.uint8 or described.numel() > _SIZE:
        raise _damaged(what, weight)
    try:
        found = parse_json(bytes(described.reshape(-1).tolist()))
    except UnreadableError as error:
        raise _damaged(what, weight) from error
    if not isinstance(found, dict):
        raise _damaged(what, weight)
    return found


def _damaged(what: str, weight: str) -> UnlikenessError:
    return UnlikenessError(
        f"{what} has a quantized {one_line(weight)[:80]} that does not fit the tensors beside it; fetch it "
        "again"
    )
