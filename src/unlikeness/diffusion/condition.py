"""Conditions, what a model's prompts become, and conditioners, which make them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unlikeness import finite
from unlikeness.diffusion.vocabulary import check_noun, only_nouns, too_long, unknown_in

__all__ = ["Condition", "Conditioner", "Remembered"]

C = TypeVar("C", bound="Condition")
S = TypeVar("S", bound="Conditioner")

_SAMPLED = 16
"""Values of each weight that `Conditioner.sample` reads. A training step changes all of them."""


@dataclass(frozen=True, eq=False)
class Condition:
    """B prompts as a model reads them. Every field is a tensor [B, ...] or None.

    A family that needs further tensors (size ids, a mask, a second sequence) derives a class with more
    fields. Only the family's own code reads the fields.

    tokens: [B, L, D].
    pooled: [B, P], one vector a prompt.
    guidance: [B], the scale of guidance, for a denoiser that takes it as an input.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    guidance: Tensor | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self: C, index: slice | Tensor | list[int]) -> C:
        """The chosen prompts. index: a slice, a list, or indices (long or bool) on any device."""
        return self._each(lambda x: x[index.to(x.device) if isinstance(index, Tensor) else index])

    def expand(self: C, count: int) -> C:
        """`count` views of one prompt, or the same `count` prompts again."""
        return self._each(lambda x: x.expand(count, *(-1 for _ in x.shape[1:])))

    @staticmethod
    def cat(parts: Sequence[C]) -> C:
        """One batch of several, in order. All parts are of one family."""
        first = parts[0]
        found = {
            one.name: torch.cat([getattr(part, one.name) for part in parts])
            for one in fields(first)
            if getattr(first, one.name) is not None
        }
        return replace(first, **found)

    def to(self: C, device: torch.device, dtype: torch.dtype | None = None) -> C:
        """Moved. dtype: of its floating-point tensors; None keeps theirs."""
        return self._each(lambda x: x.to(device, dtype if x.is_floating_point() else None))

    def detach(self: C) -> C:
        """Without the graph."""
        return self._each(lambda x: x.detach())

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of the fields; for checks and digests that do not ask what they mean."""
        found = (getattr(self, one.name) for one in fields(self))
        return [tensor for tensor in found if tensor is not None]

    def _each(self: C, change: Callable[[Tensor], Tensor]) -> C:
        changed: dict[str, Any] = {
            one.name: change(getattr(self, one.name))
            for one in fields(self)
            if getattr(self, one.name) is not None
        }
        return replace(self, **changed)


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

    def nothing(self) -> Condition:
        """The condition of one picture without any prompt, for the second half of guidance."""
        return self.encode([""])

    def encode_all(self, prompts: Sequence[str | None]) -> Condition:
        """The condition of these prompts, each computed alone; None is no prompt."""
        return Condition.cat([self.nothing() if one is None else self.encode([one]) for one in prompts])

    def outline(self) -> Condition:
        """One prompt's condition with sizes and no values, of a model without weights (`opening.outline`)."""
        return self.encode([""]).to(torch.device("meta"))

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

    @property
    def nouns(self) -> tuple[str, ...]:
        """All class nouns that the model can draw; () for a model of any noun. See `vocabulary`."""
        return only_nouns(self.tokenizer)

    def check_noun(self, noun: str, where: str) -> str | None:
        """A warning for a class noun that the model may not know. See `vocabulary.check_noun`."""
        return check_noun(self.tokenizer, noun, where)

    def unknown_in(self, prompt: str) -> str | None:
        """A warning for a prompt without a noun that the model can draw. See `vocabulary.unknown_in`."""
        return unknown_in(self.tokenizer, prompt)

    @property
    def vocabulary(self) -> dict[str, int]:
        """The words of the first tokenizer and their numbers."""
        found: dict[str, int] = self.tokenizer.get_vocab()
        return found

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

    def copy(self: S, *, weights: bool = True) -> S:
        """Another one with encoders of its own and the same tokenizers; without `weights` the encoders share
        their tensors."""
        copied, kept = copy.copy(self), {}
        if not weights:
            tensors = (t for one in self.encoders.values() for t in (*one.parameters(), *one.buffers()))
            kept = {id(tensor): tensor for tensor in tensors}
        copied.encoders = {name: copy.deepcopy(one, dict(kept)) for name, one in self.encoders.items()}
        return copied

    def bare(self: S) -> S:
        """Another one with the same tokenizers and no encoder: for a dry run, which computes nothing."""
        bare = copy.copy(self)
        bare.encoders = {}
        return bare

    @torch.no_grad()
    def sample(self) -> list[Tensor]:
        """A few values of every weight, one tensor an encoder: equal as long as nothing is trained."""
        return [
            torch.cat([weight.detach().reshape(-1)[:_SAMPLED].float() for weight in encoder.parameters()])
            for encoder in self.encoders.values()
        ]


class Remembered:
    """The conditions of prompts, each computed once, and alone, so that no bit depends on the others.

    They are kept until the encoders' weights change, of which a sample is compared at every call.
    """

    def __init__(self) -> None:
        self._kept: dict[str | None, Condition] = {}
        self._sample: list[Tensor] = []
        self._device: torch.device | None = None

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()

    def of(self, conditioner: Conditioner, prompts: Sequence[str | None], device: torch.device) -> Condition:
        """The conditions of these prompts on `device`, without a graph. The encoders may be elsewhere, and
        moved meanwhile.

        NotFiniteError if a new one is NaN or infinite.
        """
        sample = conditioner.sample()
        same = len(sample) == len(self._sample) and all(map(_same, sample, self._sample))
        if device != self._device or not same:
            self._kept.clear()
        self._sample, self._device = sample, device
        missing = {prompt for prompt in prompts if prompt not in self._kept}
        new = sorted(missing, key=lambda prompt: (prompt is None, prompt or ""))
        if new:
            # What is kept is of full precision, even inside `autocast`.
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                found = conditioner.encode_all(new).to(device)
            if not finite.all_finite(found.tensors()):
                raise finite.not_finite(finite.TEXT_ENCODER, conditioner.dtype)
            self._kept.update({prompt: found[i : i + 1] for i, prompt in enumerate(new)})
        return Condition.cat([self._kept[prompt] for prompt in prompts])


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one.device))
