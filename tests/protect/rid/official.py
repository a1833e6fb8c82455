"""The official network as it is described, transcribed literally, and random checkpoints of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
DEAD = re.compile(r"^t_embedder|^y_embedder|adaLN_modulation.1.weight$")


def checkpoint(
    *,
    width: int = 32,
    depth: int = 2,
    patch: int = 4,
    grid: int = 4,
    hidden: int | None = None,
    seed: int = 0,
) -> State:
    """A random network under the public DiT's names; nothing in it is zero."""
    hidden = hidden or 4 * width
    generator = torch.Generator().manual_seed(seed)
    state: State = {}

    def linear(name: str, rows: int, columns: int, bias: float = 0.3) -> None:
        state[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) * columns**-0.5
        state[f"{name}.bias"] = torch.randn(rows, generator=generator) * bias

    linear("x_embedder.proj", width, 3 * patch**2)
    state["x_embedder.proj.weight"] = state["x_embedder.proj.weight"].view(width, 3, patch, patch)
    state["pos_embed"] = torch.randn(1, grid**2, width, generator=generator)
    linear("t_embedder.mlp.0", width, 256)
    linear("t_embedder.mlp.2", width, width)
    state["y_embedder.embedding_table.weight"] = torch.randn(11, width, generator=generator)
    for i in range(depth):
        linear(f"blocks.{i}.attn.qkv", 3 * width, width)
        linear(f"blocks.{i}.attn.proj", width, width)
        linear(f"blocks.{i}.mlp.fc1", hidden, width)
        linear(f"blocks.{i}.mlp.fc2", width, hidden)
        linear(f"blocks.{i}.adaLN_modulation.1", 6 * width, width)
    linear("final_layer.adaLN_modulation.1", 2 * width, width)
    linear("final_layer.linear", 3 * patch**2, width)
    return state


def literal(state: State, images: Tensor, heads: int) -> Tensor:
    """The network as it is described, nothing folded: tanh of the unpatchified output, [B, 3, H, W]."""
    s = {name: value.to(images.dtype) for name, value in state.items()}
    width, _, p, _ = s["x_embedder.proj.weight"].shape

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-6)

    def silu(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    def gelu(x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return x * (1 + scale[:, None]) + shift[:, None]

    def attention(name: str, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        q, k, v = (
            part.reshape(batch, count, heads, width // heads).transpose(1, 2)
            for part in linear(f"{name}.qkv", x).chunk(3, dim=-1)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(width // heads), dim=-1)
        return linear(f"{name}.proj", (weights @ v).transpose(1, 2).reshape(batch, count, width))

    c = images.new_zeros(len(images), width)
    x = F.conv2d(2 * images - 1, s["x_embedder.proj.weight"], s["x_embedder.proj.bias"], stride=p)
    x = x.flatten(2).transpose(1, 2) + s["pos_embed"]
    for i in range(sum(name.endswith("attn.qkv.bias") for name in s)):
        block = f"blocks.{i}"
        modulation = linear(f"{block}.adaLN_modulation.1", silu(c)).chunk(6, dim=1)
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_msa[:, None] * attention(f"{block}.attn", modulate(norm(x), shift_msa, scale_msa))
        hidden = gelu(linear(f"{block}.mlp.fc1", modulate(norm(x), shift_mlp, scale_mlp)))
        x = x + gate_mlp[:, None] * linear(f"{block}.mlp.fc2", hidden)
    shift, scale = linear("final_layer.adaLN_modulation.1", silu(c)).chunk(2, dim=1)
    x = linear("final_layer.linear", modulate(norm(x), shift, scale))
    n = math.isqrt(x.shape[1])
    x = torch.einsum("bhwpqc->bchpwq", x.reshape(len(x), n, n, p, p, 3))
    return torch.tanh(x.reshape(len(x), 3, n * p, n * p))


def written(folder: Path, state: Mapping[str, Any], name: str = "net.bin") -> Path:
    torch.save(dict(state), folder / name)
    return folder / name


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
