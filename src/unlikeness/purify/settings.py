"""Settings of the purifications."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.errors import UsageError
from unlikeness.settings import Checked, named, setting

__all__ = [
    "BlurSettings", "JpegSettings", "MedianSettings", "NoiseSettings", "PurifySettings", "ResizeSettings",
    "VaeSettings",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PurifySettings(Checked):
    """The base of every method's settings. It has none of its own."""


@dataclass(frozen=True, kw_only=True)
class JpegSettings(PurifySettings):
    """Strength of the method."""

    quality: int = setting(
        75, "Quality of the JPEG.", unit="1 to 100", source="Pillow's and libjpeg's own default",
        at_least=1, at_most=100,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ResizeSettings(PurifySettings):
    """Strength of the method."""

    factor: float = setting(
        0.5, "Size between down and up.", unit="share of the side", source="ours: the size of a thumbnail",
        at_least=0.01, at_most=1.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BlurSettings(PurifySettings):
    """Strength of the method."""

    sigma: float = setting(1.0, "Standard deviation.", unit="px", source="ours", at_least=0.0)


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(PurifySettings):
    """Strength of the method."""

    sigma: float = setting(
        8.0, "Standard deviation.", unit="n/255 of the range [0, 1]",
        source="ours: as much as the budget of a perturbation", at_least=0.0, at_most=255.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MedianSettings(PurifySettings):
    """Strength of the method. UsageError for an even size."""

    size: int = setting(3, "Side of the window, odd.", unit="px", source="ours: the smallest", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 2 == 0:
            raise UsageError(f"{named('size')} must be odd, so that the window has a centre, not {self.size}")


@dataclass(frozen=True, kw_only=True)
class VaeSettings(PurifySettings):
    """No settings: the model decides everything."""
