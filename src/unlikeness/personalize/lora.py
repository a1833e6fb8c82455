"""LoRA DreamBooth (Hu et al. 2022, arXiv 2106.09685): DreamBooth's loss on low-rank updates of attention.

With `dora` it is DoRA (Liu et al. 2024, arXiv 2402.09353). Together with a new word it is pivotal tuning,
RID's main attacker.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from torch import Tensor

from unlikeness.diffusion.lora import adaptable_copy, add_lora
from unlikeness.diffusion.lora_writing import save_lora
from unlikeness.diffusion.words import save_word
from unlikeness.personalize.objective import NEW, FineTuning
from unlikeness.personalize.settings import LoRASettings, LoRATISettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["LoRA", "LoRATI"]

S = TypeVar("S", bound=LoRASettings)


class _LowRank(FineTuning[S]):
    """What both have: updates of the denoiser's attention and, if set, of the CLIPs'."""

    def updates(self, tuned: TextToImage) -> list[Tensor]:
        """Put untrained updates into the copy; their weights."""
        s = self.settings
        return list(
            add_lora(
                tuned, rank=s.rank, alpha=s.alpha, text_encoder=s.text_encoder, seed=s.seed, dora=s.dora
            )
        )  # fmt: skip

    def write(self, tuned: TextToImage, folder: Path, word: str, *, lora_format: str) -> None:
        """The updates alone: see `lora_writing.save_lora`."""
        save_lora(tuned, folder, form=lora_format)


class LoRA(_LowRank[LoRASettings]):
    """Trains low-rank updates of the query, key, value and output projections, of the denoiser and, if set,
    of the CLIPs.

    `diffusion.lora_writing.save_lora` writes the adapter of the result.
    """

    name = "LoRA"
    settings_type: ClassVar[type[LoRASettings]] = LoRASettings

    def trainable(self, model: TextToImage, word: str = NEW) -> tuple[TextToImage, list[Tensor]]:
        """See `FineTuning.trainable`."""
        tuned = adaptable_copy(model, conditioner=self.settings.text_encoder)
        return tuned, self.updates(tuned)


class LoRATI(_LowRank[LoRATISettings]):
    """Trains the updates of a LoRA and the vectors of a new word together."""

    name = "LoRA + Textual Inversion"
    settings_type: ClassVar[type[LoRATISettings]] = LoRATISettings

    def trainable(self, model: TextToImage, word: str = NEW) -> tuple[TextToImage, list[Tensor]]:
        """See `FineTuning.trainable`."""
        tuned = adaptable_copy(model, conditioner=True)
        updates = self.updates(tuned)
        return tuned, [*updates, *self.new_word(tuned, word)]

    def write(self, tuned: TextToImage, folder: Path, word: str, *, lora_format: str) -> None:
        """The updates and the word, a file each."""
        super().write(tuned, folder, word, lora_format=lora_format)
        save_word(tuned, word, folder)
