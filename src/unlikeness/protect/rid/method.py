"""RID as a protection: one forward pass of a trained network, no model, no gradient (arXiv 2412.09844)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.diffusion.devices import computes_bfloat16, pick_device
from unlikeness.errors import UsageError
from unlikeness.protect.rid.network import LARGEST_BUDGET
from unlikeness.protect.rid.weights import load_protector
from unlikeness.protect.settings import ProtectSettings
from unlikeness.settings import setting

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Rid", "RidSettings"]


@dataclass(frozen=True, kw_only=True)
class RidSettings(ProtectSettings):
    """Which network. Its strength follows the budget: one set of weights serves 2 to 16 /255."""

    weights: str = setting(
        "rid-toybox",
        "A shipped protector's name, or a file of `unlikeness train-protector`.",
        source="ours: trained against the toybox",
    )


class Rid:
    """Protects in one forward pass, against models like those that its network was trained on.

    Args:
        model: not needed. If one is given, it says where to compute.
        settings: weights and budget.

    The network computes in bfloat16 where that is quicker. Its answer depends on the picture alone: seeds
    change nothing.

    Raises:
        UsageError, UnlikenessError: see `load_protector`.
    """

    settings_type: ClassVar[type[ProtectSettings]] = RidSettings
    needs_model: ClassVar[bool] = False
    tile: ClassVar[int] = 512
    """Side of the tiles that it works on at a picture's own size [px]: any would do, and few are quicker."""

    def __init__(self, model: TextToImage | None, settings: RidSettings) -> None:
        self.settings = settings
        loaded = load_protector(settings.weights)
        self.resolution = loaded.resolution
        digest = hashlib.sha256()
        for name, value in loaded.network.state_dict().items():
            digest.update(name.encode())
            digest.update(value.numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:16]
        self.device = pick_device("auto") if model is None else model.device
        self.dtype = torch.bfloat16 if computes_bfloat16(self.device) else torch.float32
        self._network = loaded.network.to(self.device, self.dtype)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def delta(self, images: Tensor, budget: Tensor) -> Tensor:
        """δ, float32 [B, 3, H, W] in [0, 1] units, nowhere beyond the budget.

        Args:
            images: [B, 3, H, W] in [0, 1], any size.
            budget: n/255, [B], or a plane [B, 1, H, W].
        """
        plane = budget.float()
        if plane.ndim == 1:
            plane = plane[:, None, None, None].expand(-1, 1, *images.shape[-2:])
        plane = plane.to(self.device)
        seen = torch.cat([2 * images.to(self.device) - 1, plane / LARGEST_BUDGET], 1)
        unit = self._network.unit(seen.to(self.dtype).contiguous(memory_format=torch.channels_last))
        delta: Tensor = (unit.float() * (plane / 255)).to(images.device)
        return delta

    @torch.no_grad()
    def perturb(
        self, images: Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """See `Perturber.perturb`. UsageError for pictures of another shape, or not one seed each."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        if len(seeds) != len(images):
            raise UsageError(f"perturb needs one seed a picture: {len(images)} pictures, {len(seeds)} seeds")
        budget = torch.full((len(images),), self.settings.budget)
        protected = (images + self.delta(images, budget).to(images)).clamp(0, 1)
        if on_step is not None:
            on_step(1)
        return protected
