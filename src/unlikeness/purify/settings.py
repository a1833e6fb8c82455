"""Settings of the purifications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unlikeness.errors import UsageError
from unlikeness.settings import Checked, named, setting

__all__ = [
    "AutoencoderSettings", "BilateralSettings", "BlurSettings", "DiffPureSettings", "GrIDPureSettings",
    "ImpressSettings", "JpegSettings", "MedianSettings", "NoiseSettings", "PurifySettings", "ResizeSettings",
    "UpscaleSettings", "VaeSettings",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PurifySettings(Checked):
    """The base of every method's settings. It has none of its own.

    main: the setting that METHOD:VALUE gives. network: whether the method computes with a network, and so
    needs the extra `models`.
    """

    main: ClassVar[str | None] = None
    network: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class JpegSettings(PurifySettings):
    """Strength of the method."""

    main: ClassVar[str | None] = "quality"

    quality: int = setting(
        75, "Quality of the JPEG.", unit="1 to 100", source="Pillow's and libjpeg's own default",
        at_least=1, at_most=100,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ResizeSettings(PurifySettings):
    """Strength of the method."""

    main: ClassVar[str | None] = "factor"

    factor: float = setting(
        0.5, "Size between down and up.", unit="share of the side", source="ours: the size of a thumbnail",
        at_least=0.01, at_most=1.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BlurSettings(PurifySettings):
    """Strength of the method."""

    main: ClassVar[str | None] = "sigma"

    sigma: float = setting(
        1.0, "Standard deviation.", unit="px", source="ours", at_least=0.0, at_most=1000.0
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(PurifySettings):
    """Strength of the method."""

    main: ClassVar[str | None] = "sigma"

    sigma: float = setting(
        8.0, "Standard deviation.", unit="n/255 of the range [0, 1]",
        source="ours: as much as the budget of a perturbation", at_least=0.0, at_most=255.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MedianSettings(PurifySettings):
    """Strength of the method. UsageError for an even size."""

    main: ClassVar[str | None] = "size"

    size: int = setting(
        3, "Side of the window, odd.", unit="px", source="ours: the smallest", at_least=1, at_most=31
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 2 == 0:
            raise UsageError(f"{named('size')} must be odd, so that the window has a centre, not {self.size}")


@dataclass(frozen=True, kw_only=True)
class BilateralSettings(PurifySettings):
    """Strength of the method."""

    main: ClassVar[str | None] = "colour"

    colour: float = setting(
        20.0, "Standard deviation of the weight over colours.", unit="n/255 of the range [0, 1]",
        source="ours: more than a budget, less than an edge", above=0.0, at_most=255.0,
    )  # fmt: skip
    reach: float = setting(
        2.0, "Standard deviation of the weight over places; the window reaches twice as far.",
        unit="px", source="ours", above=0.0, at_most=10.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(PurifySettings):
    """The base of methods that compute with an autoencoder."""

    main: ClassVar[str | None] = "autoencoder"
    network: ClassVar[bool] = True

    autoencoder: str = setting(
        "", "Autoencoder: a name (see unlikeness surrogates), a folder or a file. Empty: the model's.",
        source="ours",
    )  # fmt: skip
    tile: int = setting(
        512, "Largest part of a picture that is computed at a time.", unit="px",
        source="ours: what fits into 8 GB", at_least=64, at_most=8192,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VaeSettings(AutoencoderSettings):
    """The autoencoder of the round trip."""


@dataclass(frozen=True, kw_only=True)
class UpscaleSettings(PurifySettings):
    """The upscaler, and its strength."""

    main: ClassVar[str | None] = "upscaler"
    network: ClassVar[bool] = True

    upscaler: str = setting(
        "", "Upscaler: a diffusers folder, or a hub name such as stabilityai/stable-diffusion-x4-upscaler.",
        source="ours",
    )  # fmt: skip
    sigma: float = setting(
        12.75, "Standard deviation of the noise before.", unit="n/255 of the range [0, 1]",
        source="Hönig et al. 2024: 0.05", at_least=0.0, at_most=255.0,
    )  # fmt: skip
    noise_level: int = setting(
        20, "Noise that the upscaler itself adds and knows of.", unit="of its noise levels",
        source="diffusers' StableDiffusionUpscalePipeline", at_least=0, at_most=350,
    )  # fmt: skip
    steps: int = setting(
        25, "Denoising steps of the upscaler.", unit="steps", source="ours", at_least=1, at_most=1000
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DiffPureSettings(PurifySettings):
    """Strength of the method."""

    main: ClassVar[str | None] = "strength"
    network: ClassVar[bool] = True

    strength: float = setting(
        0.15, "Level t* to which noise is added.", unit="share of the noise levels",
        source="Nie et al. 2022: 0.15 on ImageNet", above=0.0, at_most=0.95,
    )  # fmt: skip
    steps: int = setting(
        25, "Denoising steps, at most one a noise level.", unit="steps", source="ours", at_least=1,
        at_most=1000,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GrIDPureSettings(PurifySettings):
    """Strength of the method."""

    main: ClassVar[str | None] = "rounds"
    network: ClassVar[bool] = True

    rounds: int = setting(
        20, "Rounds.", unit="rounds", source="Zhao et al. 2024", at_least=1, at_most=1000
    )  # fmt: skip
    levels: int = setting(
        10, "Noise levels that a round adds and takes away, a step each.", unit="levels",
        source="Zhao et al. 2024", at_least=1, at_most=1000,
    )  # fmt: skip
    gamma: float = setting(
        0.1, "Share of a round's input in its result.", unit="share", source="Zhao et al. 2024",
        at_least=0.0, at_most=1.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ImpressSettings(AutoencoderSettings):
    """The paper's settings, in units of the range [-1, 1] as there."""

    steps: int = setting(
        3000, "Steps of Adam.", unit="steps", source="Cao et al. 2023, released scripts", at_least=1,
        at_most=100_000,
    )  # fmt: skip
    learning_rate: float = setting(
        0.01, "First learning rate, which falls to 0.00001 as a cosine.", unit="of the range [-1, 1]",
        source="Cao et al. 2023, released scripts", above=0.0, at_most=1.0,
    )  # fmt: skip
    alpha: float = setting(
        0.1, "Weight of the bound on the visible change.", unit="factor",
        source="Cao et al. 2023, released scripts", at_least=0.0, at_most=1000.0,
    )  # fmt: skip
    distance: float = setting(
        0.1, "Visible change that costs nothing.", unit="1 − SSIM",
        source="Cao et al. 2023: 0.1, of LPIPS", at_least=0.0, at_most=2.0,
    )  # fmt: skip
    noise: float = setting(
        0.1, "Standard deviation of the noise at the start.", unit="of the range [-1, 1]",
        source="Cao et al. 2023, released scripts", at_least=0.0, at_most=1.0,
    )  # fmt: skip
