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
    """Trains low-rank updates of the query, key, value and output projections, of the denoiser and, if asked,
    of the CLIPs.

    `diffusion.lora_writing.save_lora` writes the adapter of the result.
    """

    name = "LoRA"
    settings_type: ClassVar[type[LoRASettings]] = LoRASettings

    def trainable(self, model: TextToImage) -> tuple[TextToImage, list[Tensor]]:
        """See `FineTuning.trainable`."""
        s = self.settings
        tuned = adaptable_copy(model, conditioner=s.text_encoder)
        return tuned, list(
            add_lora(tuned, rank=s.rank, alpha=s.alpha, text_encoder=s.text_encoder, seed=s.seed)
        )
