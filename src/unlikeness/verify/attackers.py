"""The named attackers: how each differs from `paper`, the attacker that defences are built against.

A new attacker is a line in the table; `attack.run_attacker` does what the line says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from unlikeness import personalize
from unlikeness.errors import UsageError
from unlikeness.personalize import Personalizer
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.verify.settings import Overrides, VerifySettings
from unlikeness.words import closest

__all__ = [
    "EVERY", "FURTHER", "GRAY_BOX", "PAPER", "Attacker", "attacker", "attackers", "named", "personalizer",
]  # fmt: skip


@dataclass(frozen=True)
class Attacker:
    """One way of personalizing.

    Attributes:
        steps, rate: factors on the common number of steps and learning rate.
        further: settings of the method.
        words: the protected ones, some of the protection's pools, or some outside the pools (`ThreatModel`).
        identifier: another one than the protected. template: of its prompts.
        learns_from: the protected pictures, other pictures of the subject, the protected pictures with
            compressed and blurred copies, or a mix in which one, half, or all but one are others.
        until_converged: trains until its own loss stops falling.
        tuned_before: fine-tunes on something unrelated first.
    """

    name: str
    what: str
    method: str = "dreambooth"
    steps: float = 1.0
    rate: float = 1.0
    further: Mapping[str, object] = field(default_factory=dict)
    identifier: str | None = None
    template: str = "a photo of {}"
    words: Literal["protected", "pool", "outside"] = "protected"
    learns_from: Literal[
        "protected", "unseen", "augmented", "mixed-one", "mixed-half", "mixed-all-but-one"
    ] = "protected"
    until_converged: bool = False
    tuned_before: bool = False

    @property
    def needs_unseen(self) -> bool:
        """Whether it needs pictures of the subject that were not protected."""
        return self.learns_from == "unseen" or self.learns_from.startswith("mixed-")

    def as_record(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return {**asdict(self), "further": dict(self.further)}


# Cached results are found by these lines: a changed text is another attacker.
_TABLE = (
    Attacker("paper", "DreamBooth on the denoiser, with the protected identifier, at the usual settings"),
    Attacker("patient", "four times the steps", steps=4),
    Attacker("slow", "three times the steps at a third of the learning rate", steps=3, rate=1 / 3),
    Attacker("converged", "trains until its own loss stops falling", until_converged=True),
    Attacker("other-identifier", "another rare word", identifier="t@t", words="outside"),
    Attacker("lora-4", "a LoRA of rank 4", method="lora", further={"rank": 4}),
    Attacker("lora-32", "a LoRA of rank 32", method="lora", further={"rank": 32}),
    Attacker("text-encoder", "trains the text encoder too", further={"text_encoder": True}),
    Attacker("unseen-pictures", "pictures of the subject that were not protected", learns_from="unseen"),
    Attacker("unseen-prompt", "other words around the name", template="an image of {}", words="outside"),
    Attacker("pre-tuned", "after a fine-tune on something unrelated", tuned_before=True),
    Attacker(
        "augmented", "with JPEG-compressed, blurred and mirrored copies", learns_from="augmented",
        further={"flip": True},
    ),
)  # fmt: skip

PAPER = _TABLE[0]
"""The attacker that APDM was built against; the original and unprotected subjects are compared by it."""

GRAY_BOX = Attacker("gray-box", "an identifier and a prompt from the protection's pools", words="pool")
"""Possible only where the protection drew from pools."""

EVERY = (*_TABLE, GRAY_BOX)

FURTHER = (
    Attacker("dora-32", "a DoRA of rank 32", method="lora", further={"rank": 32, "dora": True}),
    Attacker(
        "textual-inversion", "a new word of eight vectors, and nothing else", method="textual_inversion",
        rate=40, further={"prior_weight": 0.0, "vectors": 8},
    ),
    Attacker("lora-ti", "a LoRA of rank 32 and a new word", method="lora_ti"),
    Attacker(
        "custom-diffusion", "the prompt's keys and values, and a new word", method="custom_diffusion", rate=8
    ),
    Attacker("mixed-one", "one picture was not protected", learns_from="mixed-one"),
    Attacker("mixed-half", "half of the pictures were not protected", learns_from="mixed-half"),
    Attacker(
        "mixed-all-but-one", "all pictures but one were not protected", learns_from="mixed-all-but-one"
    ),
)  # fmt: skip
"""Attackers that run only where they are named."""

_COMMON = tuple(one.name for one in fields(PersonalizeSettings))


def attackers() -> tuple[Attacker, ...]:
    """All attackers that need no pools; `paper` comes first."""
    return _TABLE


def attacker(name: str) -> Attacker:
    """The attacker of this name. UsageError, naming all, if there is none."""
    for one in (*EVERY, *FURTHER):
        if one.name == name:
            return one
    names = [one.name for one in (*EVERY, *FURTHER)]
    raise UsageError(f"{name} is no attacker{closest(name, names)}; valid are: {', '.join(names)}")


def named(names: Sequence[str]) -> tuple[Attacker, ...]:
    """The attackers of these names, each once, in the table's order; for no name `EVERY`."""
    wanted = [attacker(name) for name in names]
    return tuple(one for one in (*EVERY, *FURTHER) if one in wanted) if wanted else EVERY


def personalizer(one: Attacker, base: VerifySettings, overrides: Overrides | None = None) -> Personalizer:
    """The attacker's method: the common settings, its own differences, then its overrides.

    UsageError for an override that its method does not have, or a wrong value.
    """
    values: dict[str, object] = {name: getattr(base, name) for name in _COMMON}
    values["steps"] = max(round(base.steps * one.steps), 1)
    rate = base.lora_learning_rate if one.method.startswith("lora") else base.learning_rate
    values["learning_rate"] = one.rate * rate
    own = (overrides or {}).get(one.name, {})
    return personalize.create(one.method, {**values, **one.further, **own})
