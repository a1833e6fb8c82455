"""ASPL: perturb a subject's pictures against a model that is learning them.

Anti-DreamBooth (Van Le et al. 2023, arXiv 2303.15433), Algorithm 1. Each round, with a surrogate θ that
starts as the model itself:

    θ' <- a copy of θ, trained for a few DreamBooth steps on the clean pictures
    δ  <- PGD steps that raise L_diff(x + δ, c_V) under θ', |δ| <= budget
    θ  <- trained for a few DreamBooth steps on the perturbed pictures x + δ
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unlikeness import finite
from unlikeness.diffusion.lora import merged_copy
from unlikeness.diffusion.loss import diffusion_loss
from unlikeness.errors import UsageError
from unlikeness.personalize.material import Material, prepare
from unlikeness.personalize.objective import PersonalizationStep
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.protect.base import GradientProtection, frozen
from unlikeness.protect.settings import PgdSettings, ProtectSettings
from unlikeness.protect.tiling.batches import default_batch_size
from unlikeness.seeds import derive, integers, normal, picture_generators
from unlikeness.settings import setting
from unlikeness.training import adamw, train

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.subjects import Subject

__all__ = ["Aspl", "AsplSettings", "FsmgSettings"]


@dataclass(frozen=True, kw_only=True)
class AsplSettings(ProtectSettings):
    """50 rounds of 3 clean steps, 6 PGD steps and 3 perturbed steps. The published budget is 6.4."""

    rounds: int = setting(50, "Rounds.", unit="rounds", source="Anti-DreamBooth: 50", at_least=1)
    clean_steps: int = setting(
        3,
        "Steps on the clean pictures in each round, whose result is thrown away after it.",
        unit="steps",
        source="Anti-DreamBooth: 3",
        at_least=0,
    )
    perturbed_steps: int = setting(
        3,
        "Steps on the perturbed pictures in each round, whose result stays.",
        unit="steps",
        source="Anti-DreamBooth: 3",
        at_least=0,
    )
    pgd_steps: int = setting(
        6, "Gradient steps in each round.", unit="steps", source="Anti-DreamBooth: 6", at_least=1
    )
    step_size: float = setting(
        0.64,
        "Change of every colour value in one gradient step.",
        unit="n/255 of the range [0, 1]",
        source="Anti-DreamBooth: 0.005 of [-1, 1]",
        above=0.0,
        at_most=255.0,
    )
    learning_rate: float = setting(
        5e-7,
        "AdamW's step size for the surrogate, of which only the U-Net is trained.",
        source="Anti-DreamBooth: 5e-7, with the text encoder",
        at_least=0.0,
    )
    batch_size: int = setting(
        1,
        "Pictures of the subject in a training step, and as many of its class.",
        source="ours: the least",
        at_least=1,
    )
    prior_weight: float = setting(
        1.0,
        "Weight w of the prior-preservation loss; 0 leaves it out.",
        source="Ruiz et al. 2023, Eq. 2: 1",
        at_least=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class FsmgSettings(AsplSettings):
    """FSMG of the same paper, which is ASPL in one round: a surrogate of the clean pictures, then fixed."""

    rounds: int = setting(1, "Rounds.", unit="rounds", source="FSMG: 1", at_least=1)
    clean_steps: int = setting(
        1000, "Steps on the clean pictures.", unit="steps", source="Anti-DreamBooth's attacker", at_least=0
    )
    perturbed_steps: int = setting(
        0, "Steps on the perturbed pictures.", unit="steps", source="FSMG: none", at_least=0
    )
    pgd_steps: int = setting(
        100, "Gradient steps on the pictures.", unit="steps", source="Anti-DreamBooth: 100", at_least=1
    )


class Aspl:
    """Raises the loss of a surrogate that learns the subject at the same time.

    It is no `Perturber` and not in the table of protections: a picture's perturbation depends on all
    pictures of its subject, on their words and on their order, while those promise that a picture depends on
    itself and its seed alone. Unlike the paper, which learns from a clean set of further pictures (its set A)
    and trains the text encoder too, the clean pictures are those that are protected, and only the U-Net is
    trained.

    Args:
        model: the model that personalization would start from; it is never changed.
        settings: `AsplSettings`, or `FsmgSettings` for a fixed surrogate.
    """

    settings_type: ClassVar[type[AsplSettings]] = AsplSettings

    def __init__(self, model: TextToImage, settings: AsplSettings | None = None) -> None:
        self.model = model
        self.settings = settings or AsplSettings()

    def perturb_subject(
        self,
        subject: Subject,
        seed: int,
        prior: Posterior | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """The subject's pictures, protected.

        Args:
            seed: of everything that is drawn; with the subject and the prior it decides the result.
            prior: class pictures from `personalize.material.class_prior`, drawn now if not given.
            on_step: called with 1, 2, ... after each gradient step, rounds · pgd_steps in all.

        Returns:
            [N, 3, H, W] in [0, 1], nowhere further from `subject.images` than the budget; same device.

        Raises:
            UsageError: the model cannot read the subject's prompt to its end.
            NotFiniteError: the surrogate's training diverged, or the model's answer is NaN or infinite.
        """
        s = self.settings
        if reason := self.model.conditioner.too_long(subject.instance_prompt):
            raise UsageError(reason)
        surrogate = _Surrogate(self.model, subject, s)
        clean = prepare(self.model, subject, surrogate.settings, prior=prior)
        pgd = PgdSettings(budget=s.budget, steps=s.pgd_steps, step_size=s.step_size, random_start=False)
        ascent = _Ascent(surrogate.model, pgd, subject.instance_prompt)
        generators = picture_generators([derive(seed, "picture", i) for i in range(len(subject.images))])
        original = subject.images.detach().to(self.model.device)
        current = original
        with frozen(self.model.autoencoder.network, *self.model.conditioner.encoders.values()):
            for k in range(s.rounds):
                with surrogate.thrown_away():
                    surrogate.learn(clean, s.clean_steps, k, derive(seed, "clean", k))
                    with frozen(surrogate.model.denoiser):
                        for j in range(s.pgd_steps):
                            current = ascent.move(current, original, generators)
                            if on_step is not None:
                                on_step(k * s.pgd_steps + j + 1)
                if s.perturbed_steps:
                    # Of all latents, only these have changed.
                    perturbed = prepare(
                        self.model, replace(subject, images=current), surrogate.settings, prior=clean.prior
                    )
                    surrogate.learn(perturbed, s.perturbed_steps, k, derive(seed, "perturbed", k))
        return current.to(subject.images.device)


class _Surrogate:
    """The one copy of the model that learns the subject, in float32 at least."""

    def __init__(self, model: TextToImage, subject: Subject, settings: AsplSettings) -> None:
        self.subject = subject
        self.settings = PersonalizeSettings(
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            prior_weight=settings.prior_weight,
        )
        self.model = merged_copy(model)
        denoiser = self.model.widen().denoiser.requires_grad_(True)
        self.parameters: list[Tensor] = list(denoiser.parameters())
        self._kept = [torch.empty_like(p) for p in self.parameters]

    def learn(self, material: Material, steps: int, round_: int, seed: int) -> None:
        """`steps` DreamBooth steps with a fresh AdamW; the pictures' turns go on from round to round."""
        s = self.settings
        step = PersonalizationStep(self.model, self.subject, material, s)
        train(
            lambda index, generator: step(round_ * steps + index, generator),
            steps=steps,
            optimizer=adamw(self.parameters, lr=s.learning_rate, weight_decay=s.weight_decay),
            parameters=self.parameters,
            seed=seed,
            clip=s.clip,
            description="ASPL's surrogate",
        )

    @contextmanager
    def thrown_away(self) -> Iterator[None]:
        """What is learnt inside is forgotten afterwards: the weights are put back in place."""
        _copy(self.parameters, self._kept)
        try:
            yield
        finally:
            _copy(self._kept, self.parameters)


@torch.no_grad()
def _copy(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    for value, target in zip(values, into, strict=True):
        target.copy_(value)


class _Ascent(GradientProtection[PgdSettings]):
    """The steps on the pictures: L_diff of the surrogate as it is, under the instance prompt."""

    settings_type = PgdSettings

    def __init__(self, model: TextToImage, settings: PgdSettings, prompt: str) -> None:
        super().__init__(model, settings)
        self._c = model.condition([prompt])
        self._group = default_batch_size(model.resolution, model.device)

    def objective(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """[B]: L_diff of each picture at its own t and ε, mean over elements."""
        posterior = self.model.encode(images)
        z0 = posterior.mean + posterior.std * normal(posterior.mean, generators)
        t = integers(0, self.model.schedule.steps, generators).to(images.device)
        eps = normal(z0, generators)
        return diffusion_loss(self.model, z0, self._c, t=t, eps=eps, reduce="none")

    def move(self, current: Tensor, original: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """`current` [N, 3, H, W] one step on, a few pictures at a time."""
        moved = []
        for first in range(0, len(current), self._group):
            part = slice(first, first + self._group)
            gradient = self.gradient(current[part], generators[part])
            if not finite.all_finite([gradient]):
                self.check()
                raise finite.not_finite(finite.GRADIENT, self.model.dtype)
            moved.append(self.project(current[part] + self.step(gradient), original[part]))
        return torch.cat(moved)
