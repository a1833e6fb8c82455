"""What the demo's story can be told."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.errors import UsageError
from unlikeness.protect import registry
from unlikeness.settings import Checked, setting
from unlikeness.toybox.world import CLASS_NOUNS

__all__ = ["DemoSettings", "chosen_method"]


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Checked):
    """The defaults are for the toybox, and fit ten minutes on two cores."""

    class_noun: str = setting("robot", "What the subject is one of.", choices=CLASS_NOUNS)
    pictures: int = setting(5, "Pictures that the copier has.", unit="pictures", at_least=1, at_most=8)
    method: str = setting("rid", "Protection.")
    budget: float = setting(
        8.0, "Largest change of a colour value (of eight bits).", unit="n/255", at_least=1, at_most=255
    )
    noise: bool = setting(True, "Play the control too: plain noise of the same budget.")
    steps: int = setting(400, "DreamBooth steps.", unit="steps", at_least=1)
    learning_rate: float = setting(5e-4, "DreamBooth's step size.", at_least=0.0)
    batch_size: int = setting(4, "Pictures of the subject in a step.", unit="pictures", at_least=1)
    class_images: int = setting(60, "Class pictures for prior preservation.", unit="pictures", at_least=0)
    generated: int = setting(
        12, "Pictures drawn of the subject, from which s is measured.", unit="pictures", at_least=1
    )
    elsewhere: int = setting(6, "Pictures drawn of it in new contexts.", unit="pictures", at_least=1)
    seed: int = setting(0, "Of the subject and everything else.", at_least=0, at_most=2**32)

    @property
    def attack(self) -> dict[str, object]:
        """DreamBooth's settings: the same in every act."""
        names = ("steps", "learning_rate", "batch_size", "class_images", "seed")
        return {name: getattr(self, name) for name in names}


def chosen_method(method: str | None, model_name: str) -> str:
    """The method, or the model's own default: rid's network knows the toybox, others take a gradient.

    UsageError for one that would leave the named model unused, and for an unknown name.
    """
    if method is None:
        return "rid" if model_name == "toybox" else "advdm"
    if not registry.needs_model(method) and model_name != "toybox":
        raise UsageError(
            f"{method} follows no model, so it would not protect against {model_name}; leave --method out or "
            f"give another one"
        )
    return method
