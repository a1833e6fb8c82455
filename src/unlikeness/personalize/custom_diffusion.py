"""Custom Diffusion (Kumari et al. 2023, arXiv 2212.04488): a new word, and how attention reads the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from unlikeness.diffusion.lora import adaptable_copy
from unlikeness.errors import UsageError
from unlikeness.personalize.objective import NEW, FineTuning
from unlikeness.personalize.settings import CustomDiffusionSettings

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["CustomDiffusion"]

_ENDS = ("to_k", "to_v", "add_k_proj", "add_v_proj")
"""The keys and values of U-Nets, and of the prompt's tokens in transformers."""


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
        layers = _prompt_layers(tuned)
        self._hooks = [layer.register_forward_hook(_without_first) for layer in layers]
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


def _prompt_layers(model: TextToImage) -> list[Any]:
    """The denoiser's linear layers that make keys and values of the prompt."""
    part = model.family.layers.get("cross-attention", "")
    found = [
        layer
        for name, layer in model.denoiser.named_modules()
        if part and part in f".{name}." and name.endswith(_ENDS) and isinstance(layer, nn.Linear)
    ]
    if not found:
        raise UsageError(
            f"a {model.family.title} has no keys and values of the prompt alone, which Custom Diffusion "
            "trains; train a LoRA"
        )
    return found


def _without_first(layer: nn.Linear, given: tuple[Tensor], out: Tensor) -> Tensor:
    """[B, L, D] with no gradient through the first token."""
    return torch.cat([out[:, :1].detach(), out[:, 1:]], 1)
