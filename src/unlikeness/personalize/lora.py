"""LoRA DreamBooth (Hu et al. 2022, arXiv 2106.09685): DreamBooth's loss on low-rank updates of attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from unlikeness.autoencoders import Posterior
from unlikeness.diffusion.lora import add_lora, merged_copy
from unlikeness.personalize.data import prepare
from unlikeness.personalize.objective import PersonalizationStep, check_checkpoint, minimise
from unlikeness.personalize.settings import LoRASettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["LoRA", "LoRASettings"]


class LoRA:
    """Trains low-rank updates of the query, key, value and output projections; all else stays as it is."""

    settings_type: ClassVar[type[LoRASettings]] = LoRASettings

    def __init__(self, settings: LoRASettings | None = None) -> None:
        self.settings = settings or LoRASettings()

    def personalize(
        self,
        model: TextToImage,
        subject: Subject,
        *,
        prior: Posterior | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> TextToImage:
        """A copy of `model` with the trained adapter in its U-Net (`diffusion.lora.save_lora` writes it).

        `model` itself is not changed. prior: class pictures from `class_prior`, drawn now if not given.
        checkpoint: file to go on from. The updates are float32 whatever the model's dtype. A LoRA that the
        model has already is added to the weights; the new one belongs to the model with it.
        """
        s = self.settings
        tuned = merged_copy(model)
        parameters = add_lora(tuned, rank=s.rank, seed=s.seed)
        check_checkpoint(checkpoint, tuned, subject, s, prior=prior is not None)
        material = prepare(model, subject, s, prior=prior, progress=progress)
        step = PersonalizationStep(tuned, subject, material, s)
        minimise(step, parameters, subject, checkpoint=checkpoint, progress=progress, name="LoRA")
        for p in parameters:
            p.requires_grad_(False)
        return tuned
