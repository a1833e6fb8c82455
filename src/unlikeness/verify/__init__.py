"""Model + protected subject -> certificate: what each attacker still gets, and what the model has lost.

verdict = verify_subject(model, subject, held_out, embedder=load_encoder("toybox"))
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
    from unlikeness.verify.certificate import write_certificate
    from unlikeness.verify.controls import UnprotectedSubject
    from unlikeness.verify.protective import Detected, ProtectiveOutput
    from unlikeness.verify.run import verify_subject
    from unlikeness.verify.threat_model import ThreatModel
    from unlikeness.verify.verdict import Fidelity, Outcome, Verdict, together

__all__ = [
    "CONTEXTS", "Attacked", "Attacker", "Detected", "Fidelity", "Outcome", "Priors", "ProtectiveOutput",
    "ThreatModel", "UnprotectedSubject", "Verdict", "VerifySettings", "attacker", "attackers", "named",
    "run_attacker", "together", "verify_subject", "write_certificate",
]  # fmt: skip

__getattr__ = looked_up(
    __name__,
    {
        "attack": ("Attacked", "Priors", "run_attacker"),
        "certificate": ("write_certificate",),
        "controls": ("UnprotectedSubject",),
        "protective": ("Detected", "ProtectiveOutput"),
        "run": ("verify_subject",),
        "threat_model": ("ThreatModel",),
        "verdict": ("Fidelity", "Outcome", "Verdict", "together"),
    },
)
