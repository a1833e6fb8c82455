"""What a model's prompts become: tensors that are indexed, expanded and concatenated as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["Condition"]

C = TypeVar("C", bound="Condition")


@dataclass(frozen=True, eq=False)
class Condition:
    """B prompts as a model reads them. Every field is a tensor [B, ...] or None.

    A family that needs further tensors (size ids, a mask, embedded guidance) derives a class with more
    fields. Only the family's own code reads the fields.

    tokens: [B, L, D]; pooled: [B, P], one vector a prompt.
    """

    tokens: Tensor
    pooled: Tensor | None = None

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
