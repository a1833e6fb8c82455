"""Custom Diffusion (Kumari et al. 2023, arXiv 2212.04488): a new word, and how attention reads the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from unlikeness.diffusion.inside import prompt_layers
from unlikeness.diffusion.lora import adaptable_copy
from unlikeness.personalize.objective import NEW, FineTuning
from unlikeness.personalize.settings import CustomDiffusionSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["CustomDiffusion"]


class CustomDiffusion(FineTuning[CustomDiffusionSettings]):
    """Trains the keys and values of the prompt in the denoiser's attention, and the vectors of a new word.

    As in diffusers' `CustomDiffusionAttnProcessor`, the prompt's first token, which is the same in every
    prompt, has no part in the gradient of a U-Net's keys and values.
    """

    name = "Custom Diffusion"
    settings_type: ClassVar[type[CustomDiffusionSettings]] = CustomDiffusionSettings

    def trainable(self, model: TextToImage, word: str = NEW) -> tuple[TextToImage, list[Tensor]]:
        """See `FineTuning.trainable`. UsageError for a denoiser that reads no prompt in such layers."""
        tuned = adaptable_copy(model, conditioner=True).freeze()
        layers = prompt_layers(tuned)
        fixed = layers if tuned.family.denoiser == "unet" else []  # T5's first token is a word
        self._hooks = [layer.register_forward_hook(_without_first) for layer in fixed]
        parameters: list[Tensor] = []
        for layer in layers:
            for name, weight in list(layer.named_parameters(recurse=False)):
                wide = torch.promote_types(weight.dtype, torch.float32)
                own = nn.Parameter(weight.detach().to(wide, copy=True))
                layer.register_parameter(name, own)
                parameters.append(own)
        return tuned, [*parameters, *self.new_word(tuned, word)]

    def finish(self, tuned: TextToImage) -> None:
        """See `FineTuning.finish`."""
        super().finish(tuned)
        for hook in self._hooks:
            hook.remove()


def _without_first(layer: nn.Linear, given: tuple[Tensor], out: Tensor) -> Tensor:
    """[B, L, D] with no gradient through the first token."""
    return torch.cat([out[:, :1].detach(), out[:, 1:]], 1)
