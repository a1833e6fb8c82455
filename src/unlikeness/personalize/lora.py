"""LoRA DreamBooth (Hu et al. 2022, arXiv 2106.09685): DreamBooth's loss on low-rank updates of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from unlikeness.diffusion.lora import adaptable_copy, add_lora
from unlikeness.personalize.objective import FineTuning
from unlikeness.personalize.settings import LoRASettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["LoRA", "LoRASettings"]


class LoRA(FineTuning[LoRASettings]):
    """Trains low-rank updates of the query, key, value and output projections.

    `diffusion.lora.save_lora` writes the adapter of the result.
    """

    name = "LoRA"
    settings_type: ClassVar[type[LoRASettings]] = LoRASettings

    def trainable(self, model: TextToImage) -> tuple[TextToImage, list[Tensor]]:
        """See `FineTuning.trainable`."""
        tuned = adaptable_copy(model)
        return tuned, list(add_lora(tuned, rank=self.settings.rank, seed=self.settings.seed))
