"""Settings of the demo's story."""

from __future__ import annotations

from dataclasses import dataclass

from unlikeness.errors import UsageError
from unlikeness.protect import registry
from unlikeness.settings import Checked, setting
from unlikeness.toybox.world import CLASS_NOUNS

__all__ = ["DemoSettings", "chosen_method"]


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Checked):
    """The defaults are for the toybox."""

    class_noun: str = setting("robot", "Class noun of the subject.", choices=CLASS_NOUNS)
    pictures: int = setting(5, "Pictures that the attacker has.", unit="pictures", at_least=1, at_most=8)
    method: str = setting("rid", "Protection.")
    budget: float = setting(
        8.0, "Largest change of a colour value (of eight bits).", unit="n/255", at_least=1, at_most=255
    )
    noise: bool = setting(True, "Also train on plain noise of the same budget, as the control.")
    steps: int = setting(240, "DreamBooth steps.", unit="steps", at_least=1)
    learning_rate: float = setting(5e-4, "Learning rate of DreamBooth.", at_least=0.0)
    batch_size: int = setting(4, "Pictures of the subject in a batch.", unit="pictures", at_least=1)
    class_images: int = setting(60, "Class pictures for prior preservation.", unit="pictures", at_least=0)
    generated: int = setting(
        12, "Pictures of the subject to generate and measure s from.", unit="pictures", at_least=1
    )
    elsewhere: int = setting(6, "Pictures of it to generate in new contexts.", unit="pictures", at_least=1)
    seed: int = setting(0, "Random seed of the subject and the trainings.", at_least=0, at_most=2**32)

    @property
    def attack(self) -> dict[str, object]:
        """Settings of DreamBooth, the same for every training."""
        names = ("steps", "learning_rate", "batch_size", "class_images", "seed")
        return {name: getattr(self, name) for name in names}


def chosen_method(method: str | None, model_name: str) -> str:
    """`method`, or the default for the model: rid for the toybox, which it was trained on, else advdm.

    UsageError for an unknown method, and for one that does not use the named model.
    """
    if method is None:
        return "rid" if model_name == "toybox" else "advdm"
    if not registry.needs_model(method) and model_name != "toybox":
        raise UsageError(
            f"--method {method} follows no model, so it would not protect against {model_name}; leave it out "
            "or give another one"
        )
    return method
