"""Model + protected subject -> certificate: what every attacker still gets, and what everybody else lost.

verdict = verify_subject(model, subject, held_out, embedder=AtResolution(load_encoder("toybox")))
verdict.worst.s.value
write_certificate(verdict, Path("certificate"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness import looked_up
from unlikeness.verify.attackers import Attacker, attacker, attackers, named
from unlikeness.verify.settings import CONTEXTS, VerifySettings

if TYPE_CHECKING:
    from unlikeness.verify.attack import Attacked, Priors, run_attacker
    from unlikeness.verify.judge import AtResolution
    from unlikeness.verify.notice import Notice, Seen
    from unlikeness.verify.pools import Pools
    from unlikeness.verify.run import Other, verify_subject
    from unlikeness.verify.verdict import Fidelity, Outcome, Verdict, together

__all__ = [
    "CONTEXTS",
    "AtResolution",
    "Attacked",
    "Attacker",
    "Fidelity",
    "Notice",
    "Other",
    "Outcome",
    "Pools",
    "Priors",
    "Seen",
    "Verdict",
    "VerifySettings",
    "attacker",
    "attackers",
    "named",
    "run_attacker",
    "together",
    "verify_subject",
]

__getattr__ = looked_up(
    __name__,
    {
        "attack": ("Attacked", "Priors", "run_attacker"),
        "judge": ("AtResolution",),
        "notice": ("Notice", "Seen"),
        "pools": ("Pools",),
        "run": ("Other", "verify_subject"),
        "verdict": ("Fidelity", "Outcome", "Verdict", "together"),
    },
)
