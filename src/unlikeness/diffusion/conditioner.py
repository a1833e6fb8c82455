"""Prompts -> Condition: the tokenizers and text encoders of a model."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unlikeness.diffusion.condition import Condition
from unlikeness.diffusion.vocabulary import too_long

__all__ = ["Conditioner"]

_SAMPLED = 16
"""Values of each weight that `sample` reads. A training step changes all of them."""

S = TypeVar("S", bound="Conditioner")


class Conditioner(ABC):
    """What a family's prompts pass through. A family derives a class with `encode`.

    encoders, tokenizers: the transformers objects, by the names of their folders.
    """

    def __init__(self, encoders: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> None:
        self.encoders = dict(encoders)
        self.tokenizers = dict(tokenizers)

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of these prompts, computed now; differentiable w.r.t. the encoders' weights."""

    @property
    def tokenizer(self) -> Any:
        """The first tokenizer: the one that class nouns are looked up in."""
        return next(iter(self.tokenizers.values()))

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the first encoder."""
        dtype: torch.dtype = next(iter(self.encoders.values())).dtype
        return dtype

    def too_long(self, prompt: str) -> str | None:
        """One sentence if no tokenizer takes the whole prompt; None otherwise."""
        told = [too_long(tokenizer, prompt) for tokenizer in self.tokenizers.values()]
        return None if None in told else told[-1]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All weights, each name beginning with its encoder's."""
        for name, encoder in self.encoders.items():
            for inner, weight in encoder.named_parameters():
                yield f"{name}.{inner}", weight

    def parameters(self) -> list[nn.Parameter]:
        """All weights, in a fixed order."""
        return [weight for _, weight in self.named_parameters()]

    def requires_grad_(self, wanted: bool = True) -> None:
        """Whether the weights get a gradient."""
        for encoder in self.encoders.values():
            encoder.requires_grad_(wanted)

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        """Move and cast in place; what is None stays."""
        for encoder in self.encoders.values():
            nn.Module.to(encoder, device, dtype)

    def widen(self) -> None:
        """Cast in place to float32 at least, as training needs it."""
        for encoder in self.encoders.values():
            nn.Module.to(encoder, torch.promote_types(encoder.dtype, torch.float32))

    def copy(self: S) -> S:
        """Another one with encoders of its own and the same tokenizers."""
        copied = copy.copy(self)
        copied.encoders = {name: copy.deepcopy(encoder) for name, encoder in self.encoders.items()}
        return copied

    @torch.no_grad()
    def sample(self) -> list[Tensor]:
        """A few values of every weight, one tensor an encoder: equal as long as nothing is trained."""
        return [
            torch.cat([weight.detach().reshape(-1)[:_SAMPLED].float() for weight in encoder.parameters()])
            for encoder in self.encoders.values()
        ]
