"""The official RID network (arXiv 2412.09844), loaded from its own checkpoints.

    network = load_official("ASDS-eps-12_255.bin")
    delta = network.delta(images, budget_of_name("ASDS-eps-12_255.bin"))

A vision transformer (DiT, Peebles & Xie 2022) that sees 512 × 512 px and nothing else; `delta` makes it serve
pictures of any size. Inference only: no parameter has a gradient.
"""

from __future__ import annotations

import math
import re
from itertools import product
from os import PathLike
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlikeness.errors import UsageError
from unlikeness.protect.rid.official_weights import OfficialShape, fold, read, shape_of
from unlikeness.protect.settings import WAYS
from unlikeness.protect.tiling.layout import Axis

__all__ = ["OfficialRid", "OfficialShape", "budget_of_name", "load_official", "official_like"]


class OfficialRid(nn.Module):
    """The network with its constant adaLN terms folded in (see `official_weights`)."""

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
        """The perturbation of squares, in units of the budget.

        Args:
            images: [B, 3, side, side] in [0, 1]; moved to the network's device and dtype.

        Returns:
            [B, 3, side, side] in [-1, 1], on the network's device; float32, or float64 for a float64 network.

        Raises:
            UsageError: images of another shape.
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
        self,
        images: Tensor,
        budget: float,
        *,
        way: str = "resize",
        overlap: float = 0.125,
        batch_size: int = 4,
    ) -> Tensor:
        """The perturbation of pictures of any size, to be added to them (and clamped to [0, 1]).

        Args:
            images: [B, 3, H, W] in [0, 1].
            budget: n/255. A checkpoint is trained for the one in its name; others scale what it found.
            way: "resize": the whole picture is resized, antialiased, to the network's square, whatever its
                aspect, and the perturbation is resized back, bilinearly: one pass a picture. "tiles": squares
                at the picture's own size, one of them in the centre, overlapped and cross-faded
                (`layout.Axis`); a smaller picture is mirrored at its lower and right border: one pass for
                each 448 × 448 px.
            overlap: of two tiles, at least, as a share of the side; 0 to 0.5.
            batch_size: squares that the network sees at once, which bounds memory.

        Returns:
            Like `images` (dtype, device), everywhere within the budget.

        Raises:
            UsageError: images of another shape, an unknown way, a budget or number out of range.
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
                (
                    b,
                    slice(None),
                    slice(rows.starts[i], rows.stop(i)),
                    slice(columns.starts[j], columns.stop(j)),
                )
                for b, i, j in group
            ]
            units = self(torch.stack([_mirrored(images[place], self.side) for place in places])).float()
            for place, (_, i, j), unit in zip(places, group, units.to(images.device), strict=True):
                down = torch.from_numpy(rows.window(i)).to(images.device)
                across = torch.from_numpy(columns.window(j)).to(images.device)
                total[place] += unit[:, : len(down), : len(across)] * (down[:, None] * across)
        return total


def _mirrored(image: Tensor, side: int) -> Tensor:
    """`image` [3, h, w] mirrored at its lower and right border until it is `side` px square."""
    for axis in (1, 2):
        length = image.shape[axis]
        if length < side:
            there = torch.arange(side, device=image.device) % (2 * length)
            image = image.index_select(axis, torch.minimum(there, 2 * length - 1 - there))
    return image


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
    path: str | PathLike[str],
    *,
    heads: int = 8,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> OfficialRid:
    """The network of a checkpoint, ready to use.

    Args:
        path: a state dict with the public DiT's names, by torch.save or .safetensors, bare or under "ema",
            "state_dict" or "model". All sizes are taken from its shapes.
        heads: of the attention, which no shape tells.
        device: where to; default: the CPU.
        dtype: to compute in; default: float32.

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
    width: int = 1152,
    depth: int = 14,
    heads: int = 8,
    patch: int = 16,
    side: int = 512,
    generator: torch.Generator | None = None,
) -> OfficialRid:
    """The same architecture with random weights, float32 on the CPU: what it costs does not depend on them.

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


def budget_of_name(path: str | PathLike[str]) -> float | None:
    """The budget that a file's name claims, in n/255 of [0, 1]: `ASDS-eps-12_255.bin` has 6.0; else None.

    The name counts in [-1, 1], where a change is twice as large.
    """
    claimed = re.search(r"(?<![a-z])eps-(\d+(?:\.\d+)?)_255(?!\d)", Path(path).name, re.IGNORECASE)
    return None if claimed is None or float(claimed[1]) > 510 else float(claimed[1]) / 2
