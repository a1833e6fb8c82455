"""From an attack to its outcome, and the parts that are cached so that they are computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unlikeness import __version__
from unlikeness.cache import Cache
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.errors import NotFiniteError
from unlikeness.measure.intervals import share
from unlikeness.measure.similarity import Embedder, Pairs, embed_all, mean_similarity
from unlikeness.personalize import known_as
from unlikeness.progress import Progress, format_seconds
from unlikeness.provenance import pixel_digest
from unlikeness.subjects import Subject
from unlikeness.verify.attack import Priors, run_attacker
from unlikeness.verify.attackers import Attacker, personalizer
from unlikeness.verify.evaluator import (
    Evaluator,
    Generated,
    eight_bits,
    generate_subject,
    identity_of,
    name_of,
)
from unlikeness.verify.protective import ProtectiveOutput
from unlikeness.verify.quality import Quality, generate_class, quality
from unlikeness.verify.settings import Overrides, VerifySettings
from unlikeness.verify.threat_model import ThreatModel, taught
from unlikeness.verify.verdict import Judged, Outcome

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["RELEASED", "Attacks", "Target"]

RELEASED = Attacker("released", "the model before any attack", method="none", steps=0)
"""Stands for an attacker where there is no attack."""

_JUDGING = ("pictures", "pictures_in_context", "solver_steps", "guidance", "seed")
_BEFORE = ("unrelated_steps", "batch_size", "learning_rate", "weight_decay", "clip", "precision", "seed")
_COSINES = ("generated", "of_class", "subject")
_DRAWING = ("solver_steps", "guidance", "seed")


@dataclass(frozen=True)
class Target:
    """A model under attack, and the class images that its attackers share."""

    model: TextToImage
    priors: Priors

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.model)


@dataclass(frozen=True)
class Attacks:
    """What all attacks of a verification share: see `run.verify_subject`. failed: reasons by title."""

    base: VerifySettings
    overrides: Overrides
    contexts: tuple[str, ...]
    unseen: Tensor | None
    unrelated: Subject | None
    cache: Cache
    report: Callable[[str], None]
    progress: Progress | None
    failed: dict[str, str] = field(default_factory=dict)

    def attempt(self, title: str, attack: Callable[[], Outcome]) -> Outcome | None:
        """The outcome of an attack; None if its training diverged or its images are not finite."""
        try:
            return attack()
        except NotFiniteError as error:
            self.failed[title] = str(error)
            self.report(f"{title}: failed, {error}")
            return None

    def outcome(
        self, target: Target, subject: Subject, attacker: Attacker, evaluator: Evaluator, label: str,
        output: ProtectiveOutput | None = None,
    ) -> Outcome:  # fmt: skip
        """Attack, generate and compare; or take the cached part of an earlier run with the same settings.

        With the attacker `RELEASED` the model itself generates, with the words of `subject`.

        output: to look for in the images.
        """
        settings: dict[str, Any] = {}
        learnt = known = subject
        if attacker is not RELEASED:
            method = personalizer(attacker, self.base, self.overrides)
            settings = asdict(method.settings)
            learnt = taught(subject, attacker, self.unseen, ThreatModel.of(self.base))
            known = known_as(method, learnt)

        def make(scratch: Path) -> dict[str, Tensor]:
            tuned: TextToImage = target.model
            losses: tuple[float, ...] = ()
            if attacker is not RELEASED:
                attacked = run_attacker(
                    target.model, subject, attacker, self.base, overrides=self.overrides,
                    priors=target.priors, unseen=self.unseen, unrelated=self.unrelated, scratch=scratch,
                    progress=self.progress,
                )  # fmt: skip
                tuned, losses = attacked.model, attacked.losses
            tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
            generated = generate_subject(tuned, known, self.base, self.contexts, progress=self.progress)
            further = {} if generated.elsewhere is None else {"elsewhere": generated.elsewhere}
            return {**tensors, "plain": generated.plain, **further}

        part = self.cache.part(label, self._key(target, learnt, known, attacker, settings), make)
        found = part.tensors
        places = tuple(place for place in self.contexts for _ in range(self.base.pictures_in_context))
        generated = Generated(found["plain"], found.get("elsewhere"), places)
        detected = None if output is None else output.detect(generated)
        pairs = self._pairs(evaluator, evaluator.embedder, generated, label)
        if not all(np.isfinite(of.generated).all() for of in pairs.values()):
            raise NotFiniteError(f"what {label} drew cannot be compared: its likeness is no finite number")
        first, further = self._judged(pairs), {}
        for embedder in evaluator.further:
            further[name_of(embedder)] = self._judged(self._pairs(evaluator, embedder, generated, label))
        shares = "" if detected is None else f", protective output {detected}"
        others = "".join(f"; {name} {one.s}" for name, one in further.items())
        self.report(f"{label}: s {first.s}{others}{shares} after {format_seconds(part.seconds)}")
        return Outcome(
            attacker, settings, known.instance_prompt, 0 if attacker is RELEASED else len(learnt.images),
            first.s, first.elsewhere, tuple(found["losses"].tolist()), part.seconds, generated,
            pairs["plain"], detected, further,
        )  # fmt: skip

    def _pairs(
        self, evaluator: Evaluator, embedder: Embedder, generated: Generated, label: str
    ) -> dict[str, Pairs]:
        """The cosines by one encoder, "plain" and "elsewhere", computed once.

        They are a part of their own, so that another encoder repeats no attack.
        """
        drawn = {"plain": generated.plain}
        if generated.elsewhere is not None:
            drawn["elsewhere"] = generated.elsewhere

        def make(_: Path) -> dict[str, Tensor]:
            tensors: dict[str, Tensor] = {}
            for name, images in drawn.items():
                of = evaluator.pairs(images / 255, embedder)
                tensors |= {f"{name}.{at}": torch.from_numpy(getattr(of, at)) for at in _COSINES}
                tensors[f"{name}.faceless"] = torch.tensor([of.faceless])
            return tensors

        key = {
            "version": __version__,
            "encoder": identity_of(embedder),
            "yardstick": [pixel_digest(evaluator.references), pixel_digest(evaluator.of_class)],
            "images": {name: pixel_digest(images) for name, images in drawn.items()},
        }
        found = self.cache.part(f"{label}-by-{name_of(embedder)}", key, make).tensors
        pairs = {}
        for name in drawn:
            generated_, of_class, itself = (found[f"{name}.{at}"].numpy() for at in _COSINES)
            pairs[name] = Pairs(generated_, of_class, itself, int(found[f"{name}.faceless"]))
        return pairs

    def _judged(self, pairs: dict[str, Pairs]) -> Judged:
        s = {name: mean_similarity([of], seed=self.base.seed) for name, of in pairs.items()}
        return Judged(s["plain"], s.get("elsewhere"))

    def _key(
        self, target: Target, learnt: Subject, known: Subject, attacker: Attacker, settings: dict[str, Any]
    ) -> dict[str, Any]:
        """Everything that an attack and its images depend on."""
        key: dict[str, Any] = {
            "version": __version__,
            "model": target.fingerprint,
            "attacker": attacker.as_record(),
            "settings": settings,
            "pictures": learnt.digest,
            "prompts": [learnt.instance_prompt, learnt.class_prompt],
            "known_priors": {name: len(prior) for name, prior in target.priors.known.items()},
            "judging": {name: getattr(self.base, name) for name in _JUDGING},
            "contexts": list(self.contexts),
        }
        if known is not learnt:
            key["drawn as"] = known.instance_prompt
        if attacker.until_converged:
            key["until"] = [self.base.most_chunks, self.base.least_fall]
        if attacker.tuned_before:
            other = self.unrelated
            key["before"] = [
                {name: getattr(self.base, name) for name in _BEFORE},
                other and [other.digest, other.class_prompt],
            ]
        return key

    def class_images(self, target: Target, prompt: str) -> Tensor:
        """[others_of_class, 3, H, W] in [0, 1]: other members of a class, generated by this model."""
        count = self.base.others_of_class

        def make(_: Path) -> dict[str, Tensor]:
            images = generate_class(target.model, prompt, count, self.base, series=0, progress=self.progress)
            return {"images": eight_bits(images)}

        key = {**self._drawing(target, prompt, count), "series": 0}
        return self.cache.part("class", key, make).tensors["images"] / 255

    def quality(
        self, target: Target, original: Target, prompt: str, embedder: Embedder, real: Tensor | None,
        output: ProtectiveOutput | None = None,
    ) -> Quality:  # fmt: skip
        """Images of the class prompt, beside the original's. real: [R, 3, H, W] of the class, if any.

        output: to look for in these images too, where it should not be.
        """
        count = self.base.quality_pictures

        def features(
            of: Target, series: int, label: str, output: ProtectiveOutput | None
        ) -> dict[str, Tensor]:
            def make(_: Path) -> dict[str, Tensor]:
                images = eight_bits(
                    generate_class(of.model, prompt, count, self.base, series=series, progress=self.progress)
                )
                shown = {} if output is None else {"shown": output.shown(images)}
                return {"features": embed_all(embedder, images / 255), **shown}

            key = {**self._drawing(of, prompt, count), "series": series, "encoder": identity_of(embedder)}
            if output is not None:
                what = {name: value for name, value in output.as_record().items() if name != "from"}
                key["notice"] = [what, output.watermark is not None and pixel_digest(output.watermark)]
            return self.cache.part(f"quality-{label}", key, make).tensors

        now, before = features(target, 1, "model", output), features(original, 2, "original", output)
        return quality(
            prompt,
            now["features"],
            before["features"],
            features(original, 3, "original-again", None)["features"],
            None if real is None else embed_all(embedder, real),
            seed=self.base.seed,
            shares=None if output is None else (share(now["shown"]), share(before["shown"])),
        )

    def _drawing(self, target: Target, prompt: str, count: int) -> dict[str, Any]:
        how = {name: getattr(self.base, name) for name in _DRAWING}
        return {"version": __version__, "model": target.fingerprint, "prompt": prompt, "count": count, **how}
