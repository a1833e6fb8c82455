"""Textual Inversion (Gal et al. 2023, arXiv 2208.01618): a new word, and nothing else, learns the subject."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from unlikeness.diffusion.lora import adaptable_copy
from unlikeness.diffusion.words import save_word
from unlikeness.personalize.objective import NEW, FineTuning
from unlikeness.personalize.settings import TextualInversionSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["TextualInversion"]


class TextualInversion(FineTuning[TextualInversionSettings]):
    """Trains the vectors of a new word in the CLIPs, under "a photo of <sks> dog".

    The paper leaves the class noun out of the prompt; here it stays, as in RID's attacker.
    """

    name = "Textual Inversion"
    settings_type: ClassVar[type[TextualInversionSettings]] = TextualInversionSettings

    def trainable(self, model: TextToImage, word: str = NEW) -> tuple[TextToImage, list[Tensor]]:
        """See `FineTuning.trainable`."""
        tuned = adaptable_copy(model, conditioner=True).freeze()
        return tuned, self.new_word(tuned, word)

    def write(self, tuned: TextToImage, folder: Path, word: str, *, lora_format: str) -> None:
        """The word alone: see `words.save_word`."""
        save_word(tuned, word, folder)
