"""Checkpoints of the official RID network: read without running their code, checked, and folded.

The official network is the public DiT (Peebles & Xie 2022, arXiv 2212.09748) with a zero condition. Its adaLN
terms are then constant, the biases of linear layers, and are folded into the neighbouring weights. With shift
s, scale c and gate g:

    W (LN(x) (1 + c) + s) + b = (W diag(1 + c)) LN(x) + (W s + b)
    g (W x + b) = (diag(g) W) x + g b

A third of the parameters is unused and never read: `t_embedder`, `y_embedder` and the
weights of all adaLN layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError
from unlikeness.tensors import open_pickle, read_tensors

__all__ = ["OfficialShape", "fold", "read", "shape_of"]

_WRAPPERS = ("ema", "state_dict", "model")
_PREFIX = re.compile(r"^(?:module\.|model\.|ema\.|_orig_mod\.)+")
_DEAD = re.compile(r"^[ty]_embedder\.|\.adaLN_modulation\.1\.weight$")
_FIRST = "x_embedder.proj.weight"


@dataclass(frozen=True, kw_only=True)
class OfficialShape:
    """The sizes of a network: `patch` and `side` (of the square picture) in px, `hidden` the MLP's width."""

    width: int = 1152
    depth: int = 14
    heads: int = 8
    patch: int = 16
    side: int = 512
    hidden: int = 4608

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.patch, self.side, self.hidden) < 1:
            raise UsageError(f"every size of a RID network must be at least 1, not {self}")
        if self.width % self.heads:
            raise UsageError(
                f"{self.heads} heads do not divide the network's width, {self.width}; "
                "give the number of heads that it was trained with"
            )
        if self.side % self.patch:
            raise UsageError(f"the side of {self.side} px is no multiple of the patch of {self.patch} px")

    @property
    def tokens(self) -> int:
        return (self.side // self.patch) ** 2


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a state dict saved by `torch.save`, by their DiT names.

    A state dict may be under "ema" (preferred), "state_dict" or "model", and its names may begin with
    "module." and the like. The tensors are mapped, not read into memory.

    UsageError if there is no such file or no state dict in it; UnlikenessError if it is damaged, or a pickle
    that asks for more than tensors (none of it is run).
    """
    if not path.is_file():
        raise UsageError(
            f"the weights {path} are no file; give the path of a RID checkpoint (.bin, .safetensors)"
        )
    loaded = _loaded(path)
    for _ in _WRAPPERS:
        inner = [loaded[name] for name in _WRAPPERS if isinstance(loaded, Mapping) and name in loaded]
        loaded = next((value for value in inner if isinstance(value, Mapping)), loaded)
    if not isinstance(loaded, Mapping):
        raise UsageError(
            f"the weights {path} hold a {type(loaded).__name__}, no state dict; give another file"
        )
    tensors: dict[str, Tensor] = {}
    for key, value in loaded.items():
        name = _PREFIX.sub("", str(key))
        if not isinstance(value, Tensor) or value.layout != torch.strided or not value.is_floating_point():
            raise UsageError(
                f"the weights {path} hold {one_line(name)!r}, which is no tensor of real numbers; "
                "give the state dict of an official RID network"
            )
        if value.nbytes > value.untyped_storage().nbytes():
            raise UnlikenessError(
                f"the weights {path} are damaged ({one_line(name)} is cut short); get them again"
            )
        if name in tensors:
            raise UsageError(f"the weights {path} hold {one_line(name)!r} twice; give one network a file")
        tensors[name] = value
    return tensors


def shape_of(tensors: Mapping[str, Tensor], path: Path, heads: int) -> OfficialShape:
    """The sizes from the shapes. UsageError if a tensor is missing, unknown or of another shape."""
    no = f"the weights {path} are no official RID network"
    indices = {match[1] for match in map(re.compile(r"blocks\.(\d+)\.").match, tensors) if match}
    if _FIRST not in tensors or not indices:
        raise UsageError(f"{no}: they hold no {'blocks' if _FIRST in tensors else _FIRST}; give another file")
    wanted = _sizes(OfficialShape(depth=len(indices)))
    missing = [name for name in wanted if name not in tensors and not _DEAD.search(name)]
    unknown = [name for name in tensors if name not in wanted and not _DEAD.search(name)]
    if missing or unknown:
        raise UsageError(
            f"{no}: they {_listed('lack', missing) or _listed('also hold', unknown)}; give another file"
        )
    first, position = tensors[_FIRST].shape, tensors["pos_embed"].shape
    if len(first) != 4 or first[1] != 3 or first[2] != first[3]:
        raise UsageError(f"{no}: {_FIRST} is {list(first)}, not [width, 3, patch, patch]; give another file")
    if len(position) != 3 or math.isqrt(position[1]) ** 2 != position[1]:
        raise UsageError(
            f"{no}: pos_embed is {list(position)}, not [1, a square number, width]; give another file"
        )
    hidden = tensors["blocks.0.mlp.fc1.weight"]
    shape = OfficialShape(
        width=first[0], depth=len(indices), heads=heads, patch=first[2],
        side=math.isqrt(position[1]) * first[2], hidden=hidden.shape[0] if hidden.ndim else 1,
    )  # fmt: skip
    for name, size in _sizes(shape).items():
        if name in tensors and tuple(tensors[name].shape) != size:
            raise UsageError(
                f"{no}: {name} is {list(tensors[name].shape)}, where the other tensors want {list(size)}; "
                "give another file"
            )
    return shape


def fold(
    tensors: Mapping[str, Tensor], shape: OfficialShape, path: Path, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The state dict of `official.OfficialRid`: computed in float64, rounded once to `dtype`.

    Nothing of it shares memory with `tensors`. UnlikenessError: a value is not finite, or not in `dtype`.
    """
    folded: dict[str, Tensor] = {}

    def get(name: str) -> Tensor:
        return tensors[name].to(torch.float64)

    def put(name: str, value: Tensor) -> None:
        kept = value.to(dtype, copy=True, memory_format=torch.contiguous_format)
        if not kept.isfinite().all():
            raise UnlikenessError(
                f"the weights {path} hold numbers that are not finite in {name}; get them again"
            )
        folded[name] = kept

    def into(name: str, source: str, shift: Tensor, scale: Tensor) -> None:
        """A linear layer that follows a modulated LayerNorm."""
        weight = get(f"{source}.weight")
        put(f"{name}.weight", weight * (1 + scale))
        put(f"{name}.bias", get(f"{source}.bias") + weight @ shift)

    def out_of(name: str, source: str, gate: Tensor) -> None:
        """A linear layer whose output is gated."""
        put(f"{name}.weight", get(f"{source}.weight") * gate[:, None])
        put(f"{name}.bias", get(f"{source}.bias") * gate)

    put("embed.weight", get(_FIRST))
    put("position", get("pos_embed") + get("x_embedder.proj.bias"))
    for i in range(shape.depth):
        block = f"blocks.{i}"
        # In the public DiT's order.
        modulation = get(f"{block}.adaLN_modulation.1.bias").chunk(6)
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = modulation
        into(f"{block}.qkv", f"{block}.attn.qkv", shift_msa, scale_msa)
        out_of(f"{block}.proj", f"{block}.attn.proj", gate_msa)
        into(f"{block}.fc1", f"{block}.mlp.fc1", shift_mlp, scale_mlp)
        out_of(f"{block}.fc2", f"{block}.mlp.fc2", gate_mlp)
    shift, scale = get("final_layer.adaLN_modulation.1.bias").chunk(2)
    into("out", "final_layer.linear", shift, scale)
    return folded


def _sizes(shape: OfficialShape) -> dict[str, tuple[int, ...]]:
    """The size of every tensor, but for the embedders of time and class."""
    w, hidden, patch = shape.width, shape.hidden, shape.patch
    layers = {"final_layer.adaLN_modulation.1": (2 * w, w), "final_layer.linear": (3 * patch**2, w)}
    for i in range(shape.depth):
        layers |= {
            f"blocks.{i}.attn.qkv": (3 * w, w),
            f"blocks.{i}.attn.proj": (w, w),
            f"blocks.{i}.mlp.fc1": (hidden, w),
            f"blocks.{i}.mlp.fc2": (w, hidden),
            f"blocks.{i}.adaLN_modulation.1": (6 * w, w),
        }
    sizes: dict[str, tuple[int, ...]] = {
        _FIRST: (w, 3, patch, patch),
        "x_embedder.proj.bias": (w,),
        "pos_embed": (1, shape.tokens, w),
    }
    for name, (rows, columns) in layers.items():
        sizes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    return sizes


def _listed(verb: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{verb} {', '.join(one_line(name) for name in names[:3])}{more}" if names else ""


def _loaded(path: Path) -> Any:
    """Mapped tensors. Pickles are read in torch's zip format only: the safe mode of older ones had holes."""
    try:
        return read_tensors(path) if path.suffix.lower() == ".safetensors" else open_pickle(path)
    except UnreadableError as error:
        if " asks for " in str(error):
            raise UnlikenessError(
                f"the weights {path} cannot be used ({error}); have them saved again as a state dict or as "
                ".safetensors"
            ) from error
        raise UnlikenessError(
            f"the weights {path} are damaged ({error}), or in another format than a state dict in the zip "
            "file that torch.save writes (or .safetensors); get them again"
        ) from error
