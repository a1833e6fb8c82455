"""Who names the class noun of a picture: the toybox's classifier in its own world, a CLIP for photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.presets import which_preset
from unlikeness.viewing import at_side
from unlikeness.words import closest

__all__ = ["Reader", "load_reader"]


class Reader(Protocol):
    """Names what pictures [B, 3, H, W] in [0, 1] show, one class noun each."""

    @property
    def name(self) -> str: ...

    def __call__(self, images: Tensor) -> Sequence[str]: ...


class _Toybox:
    """One of the toybox's class nouns, whatever is asked for."""

    name = "toybox"

    def __call__(self, images: Tensor) -> list[str]:
        from unlikeness.toybox.evaluators import load_classifier
        from unlikeness.toybox.world import SIZE

        nouns, _ = load_classifier().read(at_side(images, SIZE))
        return nouns


def load_reader(name: str, nouns: Sequence[str], *, resolution: int, device: str = "cpu") -> Reader:
    """A reader that tells `nouns` apart: "toybox", a CLIP's folder or a CLIP's hub name.

    "auto" goes by the model's resolution [px], as the attackers' settings do (`presets.which_preset`).

    Raises:
        UsageError: there is none of this name, or it does not know a noun.
        UnlikenessError: it cannot be fetched or read.
    """
    from unlikeness.measure import zero_shot

    if name == "auto":
        name = "toybox" if which_preset(name, resolution) == "toybox" else zero_shot.CLIP
    if name != "toybox":
        return zero_shot.load(nouns, name, device=device)
    from unlikeness.toybox.world import CLASS_NOUNS

    for noun in nouns:
        if noun not in CLASS_NOUNS:
            raise UsageError(
                f"the toybox's classifier knows no {noun}, only {', '.join(CLASS_NOUNS)}"
                f"{closest(noun, CLASS_NOUNS)}; name a CLIP with --classifier, such as {zero_shot.CLIP}"
            )
    return _Toybox()
