"""The official RID network (arXiv 2412.09844), loaded from its own checkpoints.

A vision transformer (DiT, Peebles & Xie 2022) for squares of 512 px. `OfficialRid.delta` handles pictures of
any size. For inference only: no parameter has a gradient.
"""

from __future__ import annotations

import math
from itertools import product
from os import PathLike
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlikeness.errors import UsageError
from unlikeness.protect.rid.network import mirrored
from unlikeness.protect.rid.official_weights import OfficialShape, fold, read, shape_of
from unlikeness.protect.settings import WAYS
from unlikeness.protect.tiling.layout import Axis

__all__ = ["OfficialRid", "OfficialShape", "load_official", "official_like"]


class OfficialRid(nn.Module):
    """The network, with its constant adaLN terms folded into the weights (see `official_weights`)."""

    def __init__(self, shape: OfficialShape) -> None:
        super().__init__()
        self.shape = shape
        w = shape.width
        self.embed = nn.Conv2d(3, w, shape.patch, shape.patch, bias=False)
        self.position = nn.Parameter(torch.empty(1, shape.tokens, w))
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.depth))
        self.out = nn.Linear(w, 3 * shape.patch**2)
        self.requires_grad_(False)

    @property
    def side(self) -> int:
        """Of the square that the network sees [px]."""
        return self.shape.side

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The perturbation of squares [B, 3, side, side] in [0, 1], in units of the budget.

        Returns: [B, 3, side, side] in [-1, 1], on the network's device; float32 at least. UsageError for
        images of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (3, self.side, self.side):
            raise UsageError(f"images must be [B, 3, {self.side}, {self.side}], not {list(images.shape)}")
        weight = self.embed.weight
        x = (2 * images.to(weight.device) - 1).to(weight.dtype)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        x = self.out(F.layer_norm(x, x.shape[-1:], eps=1e-6))
        n, p = self.side // self.shape.patch, self.shape.patch
        x = x.view(-1, n, n, p, p, 3).permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, self.side, self.side)
        return torch.tanh(x.to(torch.promote_types(x.dtype, torch.float32)))

    @torch.no_grad()
    def delta(
        self, images: Tensor, budget: float, *, way: str = "resize", overlap: float = 0.125,
        batch_size: int = 4,
    ) -> Tensor:  # fmt: skip
        """The perturbation of pictures of any size, like `images`, within the budget.

        Args:
            images: [B, 3, H, W] in [0, 1].
            budget: n/255. A checkpoint is trained for one budget; its result is scaled to others.
            way: "resize": the picture is resized to the network's square, antialiased, and the perturbation
                back, bilinearly: one pass a picture. "tiles": squares at the picture's own size, one in the
                centre, cross-faded (`layout.Axis`); a smaller picture is mirrored at its lower and right
                border: one pass for each 448 × 448 px.
            overlap: smallest overlap of two tiles, as a share of the side; 0 to 0.5.
            batch_size: squares that the network computes at once.

        Raises:
            UsageError: images of another shape, an unknown way, a number out of range.
        """
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape or not images.is_floating_point():
            raise UsageError(
                f"images must be [B, 3, H, W] in floats, not {list(images.shape)} in {images.dtype}"
            )
        if not 0 <= budget <= 255:
            raise UsageError(f"budget must be from 0 to 255 (in n/255), not {budget}")
        if way not in WAYS:
            raise UsageError(f"way must be one of {', '.join(WAYS)}, not {way!r}")
        if not 0 <= overlap <= 0.5:
            raise UsageError(f"overlap must be from 0 to 0.5, not {overlap}")
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        x = images.float()
        unit = self._resized(x, batch_size) if way == "resize" else self._tiled(x, overlap, batch_size)
        return (unit.clamp_(-1, 1) * (budget / 255)).to(images.dtype)

    def _resized(self, images: Tensor, batch_size: int) -> Tensor:
        def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
            if x.shape[-2:] == size:
                return x
            return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)

        height, width = images.shape[-2:]
        units = [
            resize(self(resize(part, (self.side, self.side))).float(), (height, width)).to(images.device)
            for part in torch.split(images, batch_size)
        ]
        return torch.cat(units)

    def _tiled(self, images: Tensor, overlap: float, batch_size: int) -> Tensor:
        ramp = int(overlap * self.side)
        rows, columns = (Axis.of(length, self.side, ramp) for length in images.shape[-2:])
        squares = list(product(range(len(images)), range(len(rows)), range(len(columns))))
        total = torch.zeros_like(images)
        for first in range(0, len(squares), batch_size):
            group = squares[first : first + batch_size]
            places = [
                (slice(b, b + 1), slice(None), slice(rows.starts[i], rows.stop(i)),
                 slice(columns.starts[j], columns.stop(j)))
                for b, i, j in group
            ]  # fmt: skip
            units = self(torch.cat([mirrored(images[p], self.side, self.side) for p in places])).float()
            for place, (_, i, j), unit in zip(places, group, units.to(images.device), strict=True):
                down = torch.from_numpy(rows.window(i)).to(images.device)
                across = torch.from_numpy(columns.window(j)).to(images.device)
                total[place] += unit[:, : len(down), : len(across)] * (down[:, None] * across)
        return total


class _Block(nn.Module):
    """Attention and an MLP on normalised tokens [B, N, width], both added to them."""

    def __init__(self, shape: OfficialShape) -> None:
        super().__init__()
        w = shape.width
        self.heads = shape.heads
        self.qkv = nn.Linear(w, 3 * w)
        self.proj = nn.Linear(w, w)
        self.fc1 = nn.Linear(w, shape.hidden)
        self.fc2 = nn.Linear(shape.hidden, w)

    def forward(self, x: Tensor) -> Tensor:
        b, n, w = x.shape
        qkv = self.qkv(F.layer_norm(x, (w,), eps=1e-6)).view(b, n, 3, self.heads, w // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, w)
        x = x + self.proj(attended)
        hidden = F.gelu(self.fc1(F.layer_norm(x, (w,), eps=1e-6)), approximate="tanh")
        folded: Tensor = x + self.fc2(hidden)
        return folded


def load_official(
    path: str | PathLike[str], *, heads: int = 8, device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> OfficialRid:  # fmt: skip
    """The network of a checkpoint, by default in float32 on the CPU.

    Args:
        path: a state dict with the public DiT's names, by torch.save or .safetensors, bare or under "ema",
            "state_dict" or "model". Its shapes give all sizes.
        heads: of the attention; the shapes do not give them.

    Raises:
        UsageError: no such file, or not the official network (the message names the tensor).
        UnlikenessError: a damaged file, or a pickle that asks for more than tensors (none of it is run).
    """
    file = Path(path)
    tensors = read(file)
    shape = shape_of(tensors, file, heads)
    with torch.device("meta"):
        network = OfficialRid(shape)
    network.load_state_dict(fold(tensors, shape, file, dtype or torch.float32), assign=True)
    return network.requires_grad_(False).to(device or "cpu").eval()


def official_like(
    width: int = 1152, depth: int = 14, heads: int = 8, patch: int = 16, side: int = 512,
    generator: torch.Generator | None = None,
) -> OfficialRid:  # fmt: skip
    """The same architecture with random weights, float32 on the CPU, to measure its cost.

    `side` and `patch` are in px; the default generator has seed 0.
    """
    shape = OfficialShape(width=width, depth=depth, heads=heads, patch=patch, side=side, hidden=4 * width)
    with torch.device("meta"):
        network = OfficialRid(shape)
    network.to_empty(device="cpu")
    generator = generator or torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        fan_in = math.prod(parameter.shape[1:]) if parameter.ndim in (2, 4) else parameter.shape[-1]
        parameter.normal_(std=fan_in**-0.5, generator=generator)
    return network.eval()
