"""The table of personalizations, ours and those of other packages (`plugins`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.plugins import Methods

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["METHODS", "Personalizer", "create", "method", "settings_type"]

class Personalizer(Protocol):
    """A method: made from its settings, with one verb."""

    @property
    def settings(self) -> PersonalizeSettings: ...

    def personalize(
        self,
        model: TextToImage,
        subject: Subject,
        *,
        prior: Posterior | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> TextToImage:
        """A personalized copy; the model passed in is never changed."""


METHODS: Methods[PersonalizeSettings, Personalizer] = Methods(
    "personalization", "unlikeness.personalize", PersonalizeSettings, ("personalize",)
)
create = METHODS.create
method = METHODS.load
settings_type = METHODS.settings_type
