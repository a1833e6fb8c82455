"""Randomness that belongs to one picture: a seed and a generator each, whatever shares the batch.

All draws are made on the CPU, so that they are the same on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["derive", "generators", "integers", "normal", "uniform"]


def derive(seed: int, *keys: str | int) -> int:
    """A seed in [0, 2^63) that depends on `seed` and on every key (a picture's digest, a tile's place)."""
    text = "\x1f".join(str(part) for part in (seed, *keys))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator a seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def uniform(like: Tensor, sources: Sequence[torch.Generator]) -> Tensor:
    """U[-1, 1) of the shape [B, ...], dtype and device of `like`; row i from `sources[i]`."""
    rows = [torch.rand(like.shape[1:], generator=g) for g in sources]
    return torch.stack(rows).mul_(2).sub_(1).to(like)


def normal(like: Tensor, sources: Sequence[torch.Generator]) -> Tensor:
    """N(0, 1) of the shape [B, ...], dtype and device of `like`; row i from `sources[i]`."""
    return torch.stack([torch.randn(like.shape[1:], generator=g) for g in sources]).to(like)


def integers(low: int, high: int, sources: Sequence[torch.Generator]) -> Tensor:
    """[B] long on the CPU, uniform in low <= k < high; entry i from `sources[i]`."""
    return torch.cat([torch.randint(low, high, (1,), generator=g) for g in sources])
