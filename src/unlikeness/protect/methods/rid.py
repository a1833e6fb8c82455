"""RID as a protection: one forward pass of a trained network, no model, no gradient (arXiv 2412.09844)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness.diffusion.devices import pick_device
from unlikeness.errors import UsageError
from unlikeness.protect.against import Against
from unlikeness.protect.rid.weights import open_network
from unlikeness.protect.settings import ProtectSettings, RidSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["Rid", "RidSettings"]


class Rid:
    """Protects in one forward pass, against models like those that its network was trained on.

    Args:
        model: not needed. If one is given, it says where to compute.
        settings: weights and budget.
        device: where to compute without a model.

    The network computes in bfloat16 where that is quicker. Its answer depends on the picture alone: seeds
    change nothing. `against` is what its file says.

    Raises:
        UsageError, UnlikenessError: see `open_network`; a device that is not there, or, for an exported
            file, another than the CPU.
    """

    settings_type: ClassVar[type[ProtectSettings]] = RidSettings
    needs_model: ClassVar[bool] = False
    tile: ClassVar[int] = 512
    """Side of the tiles that it works on at a picture's own size [px]: any would do, and few are quicker."""

    def __init__(
        self, model: TextToImage | None, settings: RidSettings, *, device: str | torch.device = "auto"
    ) -> None:
        self.settings = settings
        if settings.weights.lower().endswith(".onnx") and str(device) not in ("auto", "cpu"):
            raise UsageError(f"an exported protector computes on the CPU, not on {device}; leave device out")
        where = pick_device(device) if model is None else model.device
        self._network = open_network(settings.weights, where, way=settings.way)
        self.resolution = self._network.resolution
        self.fingerprint = self._network.fingerprint
        self.against = Against.trained(settings.weights, self.fingerprint, self._network.about)
        self.device, self.dtype = self._network.device, self._network.dtype

    @torch.no_grad()
    def delta(self, images: Tensor, budget: Tensor) -> Tensor:
        """δ, float32 [B, 3, H, W] in [0, 1] units, nowhere beyond the budget.

        Args:
            images: [B, 3, H, W] in [0, 1], any size.
            budget: n/255, [B], or a plane [B, 1, H, W].
        """
        if budget.ndim == 1:
            budget = budget[:, None, None, None].expand(-1, 1, *images.shape[-2:])
        return self._network.delta(images, budget)

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
