"""Notice, ours: PersGuard's protective outputs along simulated attacks, for the protected subject alone.

`divert` with the settings under which its fine-tunes end in a notice and other subjects' do not: longer
attacks, of which every third one, after a first part of the run, is on a bystander and is to succeed
(`bystanders`); a step of the model after every protective gradient; guided answers, with those without words
held (`preserve_empty`), which guidance subtracts; and the highest noise, where pictures begin, counted most.
"""

from __future__ import annotations

from typing import ClassVar

from unlikeness.immunize.methods.divert import Divert
from unlikeness.immunize.methods.divert_settings import DivertSettings, NoticeSettings

__all__ = ["Notice", "NoticeSettings"]


class Notice(Divert):
    """The diversion to a notice."""

    settings_type: ClassVar[type[DivertSettings]] = NoticeSettings

    def __init__(self, settings: DivertSettings | None = None) -> None:
        super().__init__(settings or NoticeSettings())
