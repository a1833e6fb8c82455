"""Immunize: change a model so that named subjects cannot be personalized.

    subject = Subject.from_folder(folder, "dog", size=model.resolution)
    released = immunize(model, [subject])
    released.save_pretrained("released")

Default settings are for Stable Diffusion; `presets.preset_values` has those of the toybox.

A new method is a file with a settings class and a class with `batch` and `loss`, and one line in the table
below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from unlikeness import looked_up
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.plugins import Methods

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.attackers import Attack
    from unlikeness.immunize.batch import Batch
    from unlikeness.immunize.data import ProtectedSubject
    from unlikeness.immunize.run import immunize
    from unlikeness.progress import Progress

__all__ = ["METHODS", "Defence", "create", "immunize", "method", "names", "register", "settings_type"]


class Defence(Protocol):
    """A method: the batches that it takes along an attack, and its loss on their predictions."""

    @property
    def settings(self) -> ImmunizeSettings: ...

    def prepare(
        self, original: TextToImage, subjects: Sequence[ProtectedSubject], progress: Progress | None = None
    ) -> None:
        """Draw or encode what is needed once, before the first step."""

    def batch(self, model: TextToImage, attack: Attack, generator: torch.Generator) -> Batch:
        """One batch against `attack`, with everything random from `generator`."""

    def loss(self, f: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The protective loss, a scalar. f: the predictions [M, C, h, w] by part, in float32 at least."""


METHODS: Methods[ImmunizeSettings, Defence] = Methods(
    "immunization", "unlikeness.immunize", ImmunizeSettings, ("batch", "loss")
)
create = METHODS.create
method = METHODS.load
names = METHODS.names
register = METHODS.register
settings_type = METHODS.settings_type

_SETTINGS = "unlikeness.immunize.methods.settings"

for _name, _home, _settings in (
    ("apdm", "unlikeness.immunize.methods.apdm:Apdm", f"{_SETTINGS}:ApdmSettings"),
    (
        "adversarial", "unlikeness.immunize.methods.adversarial:Adversarial",
        "unlikeness.immunize.settings:ImmunizeSettings",
    ),
    ("imma", "unlikeness.immunize.methods.adversarial:Imma", f"{_SETTINGS}:ImmaSettings"),
    ("persguard", "unlikeness.immunize.methods.persguard:PersGuard", f"{_SETTINGS}:PersGuardSettings"),
    ("divert", "unlikeness.immunize.methods.divert:Divert", f"{_SETTINGS}:DivertSettings"),
    ("notice", "unlikeness.immunize.methods.divert:Notice", f"{_SETTINGS}:NoticeSettings"),
    ("combined", "unlikeness.immunize.methods.persguard:Combined", f"{_SETTINGS}:CombinedSettings"),
):  # fmt: skip
    register(_name, _home, settings=_settings)

__getattr__ = looked_up(__name__, {"run": ("immunize",)})
