"""DreamBooth (Ruiz et al. 2023, arXiv 2208.12242): fine-tune until a rare word means the subject."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from unlikeness.diffusion.lora import merged_copy
from unlikeness.personalize.objective import NEW, FineTuning
from unlikeness.personalize.settings import DreamBoothSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["DreamBooth", "DreamBoothSettings"]


class DreamBooth(FineTuning[DreamBoothSettings]):
    """Fine-tunes all weights of the denoiser, and of the text encoder if asked, with prior preservation."""

    name = "DreamBooth"
    settings_type: ClassVar[type[DreamBoothSettings]] = DreamBoothSettings

    def trainable(self, model: TextToImage, word: str = NEW) -> tuple[TextToImage, list[Tensor]]:
        """See `FineTuning.trainable`."""
        too = self.settings.text_encoder
        tuned = merged_copy(model, conditioner=too).widen(conditioner=too)
        parameters: list[Tensor] = list(tuned.denoiser.parameters())
        if too:
            parameters += tuned.conditioner.parameters()
        for p in parameters:
            p.requires_grad_(True)
        return tuned, parameters
