"""DreamBooth (Ruiz et al. 2023, arXiv 2208.12242): fine-tune until a rare word means the subject."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.diffusion.lora import merged_copy
from unlikeness.personalize.data import prepare
from unlikeness.personalize.objective import PersonalizationStep, check_checkpoint, minimise
from unlikeness.personalize.settings import DreamBoothSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["DreamBooth", "DreamBoothSettings"]


class DreamBooth:
    """Fine-tunes all weights of the U-Net, and of the text encoder if asked, with prior preservation."""

    settings_type: ClassVar[type[DreamBoothSettings]] = DreamBoothSettings

    def __init__(self, settings: DreamBoothSettings | None = None) -> None:
        self.settings = settings or DreamBoothSettings()

    def personalize(
        self,
        model: TextToImage,
        subject: Subject,
        *,
        prior: Posterior | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> TextToImage:
        """A personalized copy of `model`, frozen; `model` itself is not changed.

        prior: class pictures from `class_prior`, drawn now if not given. checkpoint: file to go on from. A
        LoRA that the model has is added to the weights first. What is trained is float32 at least, and stays
        so: rounded to half precision again, small updates would vanish. All else is `model`'s own.
        """
        s = self.settings
        tuned = merged_copy(model, conditioner=s.text_encoder).widen(conditioner=s.text_encoder)
        parameters: list[Tensor] = list(tuned.denoiser.parameters())
        if s.text_encoder:
            parameters += tuned.conditioner.parameters()
        for p in parameters:
            p.requires_grad_(True)
        check_checkpoint(checkpoint, tuned, subject, s, prior=prior is not None)
        material = prepare(model, subject, s, prior=prior, progress=progress)
        step = PersonalizationStep(tuned, subject, material, s, text_encoder=s.text_encoder)
        minimise(step, parameters, subject, checkpoint=checkpoint, progress=progress, name="DreamBooth")
        for p in parameters:
            p.requires_grad_(False)
        return tuned
