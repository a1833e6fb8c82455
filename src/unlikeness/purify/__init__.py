"""Purification: what an attacker does to pictures to remove a protection before training on them.

    washed = purify.create("jpeg", settings={"quality": 50}).purify(images, seeds=range(len(images)))

A new method is a file with a settings class and a class with `purify`, and one `register` line below. The
settings class says in `main` which setting `--method NAME:VALUE` gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness.plugins import Methods
from unlikeness.purify.settings import PurifySettings

if TYPE_CHECKING:
    from unlikeness.purify.base import Purifier

METHODS: Methods[PurifySettings, Purifier] = Methods(
    "purification", "unlikeness.purify", PurifySettings, ("purify",)
)
create = METHODS.create_for
method = METHODS.load
names = METHODS.names
register = METHODS.register

_SETTINGS = "unlikeness.purify.settings"

register("jpeg", "unlikeness.purify.jpeg:Jpeg", settings=f"{_SETTINGS}:JpegSettings")
register("resize", "unlikeness.purify.resize:Resize", settings=f"{_SETTINGS}:ResizeSettings")
register("blur", "unlikeness.purify.blur:Blur", settings=f"{_SETTINGS}:BlurSettings")
register("noise", "unlikeness.purify.noise:Noise", settings=f"{_SETTINGS}:NoiseSettings")
register("median", "unlikeness.purify.median:Median", settings=f"{_SETTINGS}:MedianSettings")
register("bilateral", "unlikeness.purify.bilateral:Bilateral", settings=f"{_SETTINGS}:BilateralSettings")
register("vae", "unlikeness.purify.vae:Vae", settings=f"{_SETTINGS}:VaeSettings")
register(
    "diffpure", "unlikeness.purify.diffpure:DiffPure", settings=f"{_SETTINGS}:DiffPureSettings",
    needs_model=True,
)  # fmt: skip
register(
    "gridpure", "unlikeness.purify.gridpure:GrIDPure", settings=f"{_SETTINGS}:GrIDPureSettings",
    needs_model=True,
)  # fmt: skip
register("upscale", "unlikeness.purify.upscale:Upscale", settings=f"{_SETTINGS}:UpscaleSettings")
register("impress", "unlikeness.purify.impress:Impress", settings=f"{_SETTINGS}:ImpressSettings")

__all__ = ["METHODS", "create", "method", "names", "register"]
