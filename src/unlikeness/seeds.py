"""Seeds: every random draw belongs to one picture or one step, and does not depend on the rest of its batch.

All draws are made on the CPU, so that they are the same on every device. torch is imported where a function
draws, so that a seed can be derived without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "JUDGED", "QUALITY", "STORY", "derive", "integers", "normal", "picture_generators", "step_generator",
    "uniform",
]  # fmt: skip

# First seeds of generated pictures, so that no two uses share a picture. Class pictures begin in settings at
# 1,000,000 (personalize) and 2,000,000 (immunize).
JUDGED = 3_000_000
"""Pictures of the subject that a verification judges."""
QUALITY = 4_000_000
"""Pictures of the class that a verification judges."""
STORY = 5_000_000
"""Pictures of the demo's story."""


def derive(seed: int, *keys: str | int) -> int:
    """A seed in [0, 2^63) that depends on `seed` and on every key (a picture's digest, a tile's place)."""
    text = "\x1f".join(str(part) for part in (seed, *keys))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def step_generator(seed: int, index: int) -> torch.Generator:
    """The generator of one step of a training: unrelated for any two pairs (seed, index)."""
    import torch

    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def picture_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator a seed."""
    import torch

    return [torch.Generator().manual_seed(seed) for seed in seeds]


def uniform(like: Tensor, sources: Sequence[torch.Generator]) -> Tensor:
    """U[-1, 1) of the shape [B, ...], dtype and device of `like`; row i from `sources[i]`."""
    import torch

    rows = [torch.rand(like.shape[1:], generator=g) for g in sources]
    return torch.stack(rows).mul_(2).sub_(1).to(like)


def normal(like: Tensor, sources: Sequence[torch.Generator]) -> Tensor:
    """N(0, 1) of the shape [B, ...], dtype and device of `like`; row i from `sources[i]`."""
    import torch

    return torch.stack([torch.randn(like.shape[1:], generator=g) for g in sources]).to(like)


def integers(low: int, high: int, sources: Sequence[torch.Generator]) -> Tensor:
    """[B] long on the CPU, uniform in low <= k < high; entry i from `sources[i]`."""
    import torch

    return torch.cat([torch.randint(low, high, (1,), generator=g) for g in sources])
