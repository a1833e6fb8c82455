"""What a method uses inside a denoiser without naming its layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unlikeness.errors import UsageError

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["late_features", "prompt_layers"]


@contextmanager
def late_features(model: TextToImage) -> Iterator[list[Tensor]]:
    """Inside, each call of the denoiser adds its late features [B, ...] to the list, with their graph.

    They are what the last of the denoiser's blocks returns: the last up block of a U-Net, the last layer of a
    transformer.
    """
    blocks = [child for child in model.denoiser.children() if isinstance(child, nn.ModuleList) and len(child)]
    found: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        tensors = output if isinstance(output, tuple | list) else [output]
        found.append([one for one in tensors if isinstance(one, Tensor)][-1])

    handle = blocks[-1][-1].register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def prompt_layers(model: TextToImage) -> list[nn.Linear]:
    """The denoiser's layers that make keys and values of the prompt, as Custom Diffusion trains them.

    UsageError for a denoiser without any.
    """
    group, ends = model.family.layers.get("cross-attention"), model.family.prompt_layers
    found = [
        layer
        for name, layer in model.denoiser.named_modules()
        if group and group in f".{name}." and name.rpartition(".")[2] in ends and isinstance(layer, nn.Linear)
    ]
    if not found:
        raise UsageError(
            f"a {model.family.title} has no keys and values of the prompt alone; give another method"
        )
    return found
