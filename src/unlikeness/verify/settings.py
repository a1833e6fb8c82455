"""What a verification can be told: the attackers' common settings, and what their models are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.settings import build, setting

__all__ = ["CONTEXTS", "FILE", "Overrides", "VerifySettings", "given"]

FILE = "certificate.json"
"""The certificate, in its folder."""

CONTEXTS = ("in the snow", "on the beach", "in the forest", "in the city")
"""Behind the training prompt: where an attacked model is asked for the subject anew."""

Overrides = Mapping[str, Mapping[str, object]]
"""By an attacker's name: settings that it alone has, such as {"lora-4": {"learning_rate": 1e-2}}."""


@dataclass(frozen=True, kw_only=True)
class VerifySettings(PersonalizeSettings):
    """The paper's attacker, from whom the others differ, and how many pictures are drawn of everything."""

    lora_learning_rate: float = setting(
        1e-4, "Step size of the attackers with a LoRA.", source="in use: 1e-4 to 3e-4", at_least=0.0
    )
    unrelated_steps: int = setting(
        500, "Steps of the unrelated fine-tune before the attack.", unit="steps", source="ours", at_least=1
    )
    most_chunks: int = setting(
        8, "Longest training of the attacker that goes on.", unit="times steps", source="ours", at_least=2
    )
    least_fall: float = setting(
        0.01, "Fall of its loss below which it stops.", unit="share", source="ours", at_least=0.0, at_most=1.0
    )
    pictures: int = setting(
        16, "Drawn of the subject at the training prompt.", unit="pictures", source="APDM: 15", at_least=1
    )
    pictures_in_context: int = setting(
        4, "Drawn of it in each new context.", unit="pictures", source="ours", at_least=1
    )
    others_of_class: int = setting(
        24,
        "Class pictures that are the 0 of s, where none are given; drawn by the original model if there is.",
        unit="pictures",
        source="ours",
        at_least=1,
    )
    quality_pictures: int = setting(
        200, "Class pictures from which the drift is measured.", unit="pictures", source="ours", at_least=4
    )
    pool_identifiers: str = setting(
        "",
        "Identifiers, separated by commas, that the protection drew beside the protected one.",
        source="the model's immunization.json; PersGuard's gray box",
    )
    pool_templates: str = setting(
        "",
        "Prompts, separated by |, that it drew; {} is the subject's name.",
        source="the model's immunization.json; PersGuard's gray box",
    )
    protected_template: str = setting(
        "a photo of {}",
        "The white box's prompt: the one that the protection met; {} is the subject's name.",
        source="the model's immunization.json; APDM",
    )
    protected_identifiers: str = setting(
        "",
        "Identifiers, separated by commas, of all whom the model protects, which are in no black box.",
        source="the model's immunization.json",
    )
    solver_steps: int = setting(25, "Solver steps for a picture that is judged.", unit="steps", at_least=1)
    guidance: float | None = setting(None, "Guidance for it; none takes the model's own.")


def given(values: Mapping[str, object]) -> tuple[VerifySettings, dict[str, dict[str, object]]]:
    """Settings from names and values, where "lora-4.rank" (or a mapping under "lora-4") is that attacker's.

    UsageError: an unknown name, a wrong value, or an attacker that there is not.
    """
    from unlikeness.verify.attackers import attacker

    common: dict[str, object] = {}
    own: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        whose, dot, which = name.rpartition(".")
        if dot:
            own.setdefault(attacker(whose).name, {})[which] = value
        elif isinstance(value, Mapping):
            own.setdefault(attacker(name).name, {}).update({str(k): v for k, v in value.items()})
        else:
            common[name] = value
    return build(VerifySettings, common), own
