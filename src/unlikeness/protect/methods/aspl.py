"""ASPL: perturb a subject's pictures against a model that is learning them.

Anti-DreamBooth (Van Le et al. 2023, arXiv 2303.15433), Algorithm 1. Each round, with a learner θ that starts
as the model itself:

    θ' <- a copy of θ, trained for a few DreamBooth steps on the clean pictures
    δ  <- PGD steps that raise L_diff(x + δ, c_V) under θ', |δ| <= budget
    θ  <- trained for a few DreamBooth steps on the perturbed pictures x + δ

FSMG of the same paper is the preset `fsmg`: one round against a fixed θ', without the last line. What is
different here: see `LearningProtection`.
"""

from __future__ import annotations

from unlikeness.protect.learning import LearningProtection, Run
from unlikeness.protect.published import AsplSettings

__all__ = ["Aspl", "AsplSettings"]


class Aspl(LearningProtection[AsplSettings]):
    """Raises the loss of a copy of the model that learns the subject at the same time (Anti-DreamBooth)."""

    settings_type = AsplSettings

    def run(self, run: Run) -> None:
        """Algorithm 1."""
        s = self.settings
        for k in range(s.rounds):
            with run.learner.thrown_away():
                run.learn_clean(s.clean_steps, k)
                run.ascend(s.pgd_steps)
            run.learn_perturbed(s.perturbed_steps, k)

    def work(self) -> tuple[int, int]:
        """See `LearningProtection.work`."""
        s = self.settings
        return s.rounds * s.pgd_steps, s.rounds * (s.clean_steps + s.perturbed_steps)
