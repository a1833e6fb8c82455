"""Several purifications one after the other, as they are typed: "jpeg:75,resize:0.5"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UsageError
from unlikeness.purify import METHODS
from unlikeness.purify.settings import AutoencoderSettings, PurifySettings
from unlikeness.seeds import derive
from unlikeness.settings import build, given_in

if TYPE_CHECKING:
    from unlikeness.purify.base import Floats, Model, Purifier

__all__ = ["Chain", "Step", "parse"]


@dataclass(frozen=True)
class Step:
    """One purification of a chain: its registered name and its settings."""

    method: str
    settings: PurifySettings

    @property
    def needs_model(self) -> bool:
        """Whether it needs a model: it has a denoiser's work to do, or its settings name no autoencoder."""
        if isinstance(self.settings, AutoencoderSettings):
            return not self.settings.autoencoder
        return METHODS.needs_model(self.method)


def parse(text: str, values: Mapping[str, object] | None = None) -> list[Step]:
    """The steps of "METHOD[:VALUE],...", where VALUE is the method's main setting.

    values: further settings, as NAME of the only method, or as METHOD.NAME.

    Raises:
        UsageError: an unknown method or setting, a wrong value, or one that is given twice or for no method.
    """
    parts = [part.strip().partition(":") for part in text.split(",")]
    names = list(dict.fromkeys(name for name, _, _ in parts))
    if "" in names:
        raise UsageError(f"--method {text!r} names no method between two commas or at an end; name one there")
    own: dict[str, dict[str, object]] = {name: {} for name in names}
    for key, value in (values or {}).items():
        whose, dot, name = key.rpartition(".")
        if not dot and len(names) > 1:
            raise UsageError(f"--set {key} is for one of several methods; name it, as in {names[0]}.{key}")
        if dot and whose not in own:
            raise UsageError(f"--set {key} is for {whose}, which --method does not name; leave it out")
        own[whose if dot else names[0]][name] = value
    steps = []
    for name, colon, value in parts:
        kind = METHODS.settings_type(name)
        given = dict(own[name])
        if colon:
            if kind.main is None:
                raise UsageError(f"{name} has no main setting; give {name} alone, and its settings by --set")
            if kind.main in given:
                raise UsageError(f"{kind.main} is given twice, in --method and by --set; leave one out")
            given_in("--method", [kind.main])
            given[kind.main] = value
        steps.append(Step(name, build(kind, given)))
    return steps


class Chain:
    """The steps as one purification.

    models: of each step, what it computes with; None for a step that needs none.
    """

    def __init__(self, steps: Sequence[Step], models: Sequence[Model | None]) -> None:
        self.steps = list(steps)
        self.purifiers: list[Purifier] = [
            METHODS.create_for(step.method, model, step.settings)
            for step, model in zip(steps, models, strict=True)
        ]

    def wash(self, picture: Floats, seed: int) -> Floats:
        """picture [H, W, 3] in [0, 1] -> the washed one. Of several steps each has a seed of its own."""
        from unlikeness.purify.base import washed  # with numpy, which wrong words need not wait for

        for number, purifier in enumerate(self.purifiers):
            picture = washed(purifier, picture, derive(seed, number) if number else seed)
        return picture

    def record(self) -> list[dict[str, Any]]:
        """Everything that decides a result beside picture and seed, step by step, for the manifest."""
        return [
            {
                "method": step.method, "settings": asdict(step.settings),
                "fingerprint": getattr(purifier, "fingerprint", None),
            }
            for step, purifier in zip(self.steps, self.purifiers, strict=True)
        ]  # fmt: skip
