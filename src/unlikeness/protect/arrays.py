"""Batches of tiles as NumPy arrays, whatever the protection computes with.

A protection that computes without torch has `perturb_arrays`. Every other one is given tensors, and only then
is torch imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlikeness.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from unlikeness.protect.base import Perturber

__all__ = ["check_batch", "perturbed"]

Floats = NDArray[np.float32]


def perturbed(
    perturber: Perturber, images: Floats, strength: Floats | None, seeds: Sequence[int],
    on_step: Callable[[int], None] | None = None,
) -> Floats:  # fmt: skip
    """`Perturber.perturb`, or `perturb_within` where there is a `strength`, for arrays.

    images: [B, 3, H, W] in [0, 1]. strength: [B, 1, H, W] in [0, 1]. Returns [B, 3, H, W].
    """
    own = getattr(perturber, "perturb_arrays", None)
    if own is not None:
        found: Floats = own(images, strength, seeds, on_step)
        return found
    import torch

    from unlikeness.protect.base import perturb_within

    tensors = torch.from_numpy(images)
    if strength is None:
        protected = perturber.perturb(tensors, seeds, on_step)
    else:
        protected = perturb_within(perturber, tensors, torch.from_numpy(strength), seeds, on_step)
    array: Floats = protected.numpy()
    return array


def check_batch(images: Tensor | NDArray[Any], seeds: Sequence[int]) -> None:
    """UsageError for pictures of another shape, and unless there is one seed for each."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(f"images must be [B, 3, H, W], not {list(images.shape)}")
    if len(seeds) != len(images):
        raise UsageError(f"perturb needs one seed a picture: {len(images)} pictures, {len(seeds)} seeds")
