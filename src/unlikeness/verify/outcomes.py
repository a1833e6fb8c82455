"""From an attack to its outcome, and what is kept of it so that it need not be made twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unlikeness import __version__
from unlikeness.cache import Cache, Part
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.errors import NotFiniteError
from unlikeness.measure.share import share
from unlikeness.measure.similarity import Embedder, Pairs, embed_all
from unlikeness.progress import Progress, format_seconds
from unlikeness.provenance import pixel_digest
from unlikeness.subjects import Subject
from unlikeness.verify.attack import Priors, run_attacker
from unlikeness.verify.attackers import Attacker, personalizer
from unlikeness.verify.judge import Drawn, Yardstick, draw_subject, eight_bits, likeness
from unlikeness.verify.notice import Notice
from unlikeness.verify.pools import Pools
from unlikeness.verify.quality import Quality, draw_class, quality
from unlikeness.verify.settings import Overrides, VerifySettings
from unlikeness.verify.teaching import taught
from unlikeness.verify.verdict import Outcome

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["RELEASED", "Attacks", "Target"]

RELEASED = Attacker("released", "the model before any attack", method="none", steps=0)
"""In the place of an attacker where nobody attacks."""

_JUDGING = ("pictures", "pictures_in_context", "solver_steps", "guidance", "seed")
_BEFORE = ("unrelated_steps", "batch_size", "learning_rate", "weight_decay", "clip", "precision", "seed")
_DRAWING = ("solver_steps", "guidance", "seed")


@dataclass(frozen=True)
class Target:
    """A model under attack, and the class pictures that its attackers share."""

    model: TextToImage
    priors: Priors

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.model)


@dataclass(frozen=True)
class Attacks:
    """What all attacks of a verification have in common: see `run.verify_subject`."""

    base: VerifySettings
    overrides: Overrides
    contexts: tuple[str, ...]
    unseen: Tensor | None
    unrelated: Subject | None
    cache: Cache
    tell: Callable[[str], None]
    progress: Progress | None

    @staticmethod
    def name_of(embedder: Embedder) -> str:
        return str(getattr(embedder, "name", getattr(embedder, "__name__", type(embedder).__name__)))

    def outcome(
        self, target: Target, subject: Subject, attacker: Attacker, stick: Yardstick, label: str,
        notice: Notice | None = None,
    ) -> Outcome:  # fmt: skip
        """Attack, draw, compare; or take what an earlier run kept for all the same settings.

        notice: looked for in the pictures.
        """
        settings = asdict(personalizer(attacker, self.base, self.overrides).settings)
        learnt = taught(subject, attacker, self.unseen, Pools.of(self.base))

        def make(scratch: Path) -> dict[str, Tensor]:
            attacked = run_attacker(
                target.model, subject, attacker, self.base, overrides=self.overrides, priors=target.priors,
                unseen=self.unseen, unrelated=self.unrelated, scratch=scratch, progress=self.progress,
            )  # fmt: skip
            losses = torch.tensor(attacked.losses, dtype=torch.float64)
            return {"losses": losses, **self._drawn(attacked.model, attacked.subject, stick)}

        part = self.cache.part(label, self._key(target, learnt, attacker, settings, stick), make)
        return self._judged(part, learnt, attacker, settings, label, notice)

    def released(
        self, target: Target, subject: Subject, stick: Yardstick, notice: Notice | None,
        label: str = RELEASED.name,
    ) -> Outcome:  # fmt: skip
        """The model that nobody attacks, asked for the subject by its protected name."""

        def make(_: Path) -> dict[str, Tensor]:
            none = torch.zeros(0, dtype=torch.float64)
            return {"losses": none, **self._drawn(target.model, subject, stick)}

        part = self.cache.part(label, self._key(target, subject, RELEASED, {}, stick), make)
        return self._judged(part, subject, RELEASED, {}, label, notice)

    def _drawn(self, model: TextToImage, subject: Subject, stick: Yardstick) -> dict[str, Tensor]:
        """What is kept of a model's pictures of the subject: themselves, and their cosines."""
        drawn = draw_subject(model, subject, self.base, self.contexts, progress=self.progress)
        tensors: dict[str, Tensor] = {}
        for name, images in (("plain", drawn.plain), ("elsewhere", drawn.elsewhere)):
            if images is not None:
                pairs = stick.pairs(images / 255)
                tensors |= {name: images, f"{name}.generated": torch.from_numpy(pairs.generated)}
                tensors |= {"of_class": torch.from_numpy(pairs.of_class)}
                tensors |= {"subject": torch.from_numpy(pairs.subject)}
        return tensors

    def _judged(
        self, part: Part, learnt: Subject, attacker: Attacker, settings: dict[str, Any], label: str,
        notice: Notice | None,
    ) -> Outcome:  # fmt: skip
        """What the kept tensors come to."""
        found = part.tensors
        places = tuple(place for place in self.contexts for _ in range(self.base.pictures_in_context))
        drawn = Drawn(found["plain"], found.get("elsewhere"), places)
        seen = None if notice is None else notice.seen(drawn)
        pairs = {
            name: Pairs(
                found[f"{name}.generated"].numpy(), found["of_class"].numpy(), found["subject"].numpy()
            )
            for name in ("plain", "elsewhere")
            if name in found
        }
        if not all(np.isfinite(of.generated).all() for of in pairs.values()):
            raise NotFiniteError(f"what {label} drew cannot be compared: its likeness is no finite number")
        s = {name: likeness([of], seed=self.base.seed) for name, of in pairs.items()}
        told = "" if seen is None else f", notice {seen}"
        self.tell(f"{label}: s {s['plain']}{told} after {format_seconds(part.seconds)}")
        return Outcome(
            attacker, settings, learnt.instance_prompt, 0 if attacker is RELEASED else len(learnt.images),
            s["plain"], s.get("elsewhere"), tuple(found["losses"].tolist()), part.seconds, drawn,
            pairs["plain"], pairs.get("elsewhere"), seen,
        )  # fmt: skip

    def _key(
        self, target: Target, learnt: Subject, attacker: Attacker, settings: dict[str, Any], stick: Yardstick
    ) -> dict[str, Any]:
        """All that an outcome depends on."""
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
            "encoder": self.name_of(stick.embedder),
            "yardstick": [pixel_digest(stick.references), pixel_digest(stick.of_class)],
        }
        if attacker.until_converged:
            key["until"] = [self.base.most_chunks, self.base.least_fall]
        if attacker.tuned_before:
            other = self.unrelated
            key["before"] = [
                {name: getattr(self.base, name) for name in _BEFORE},
                other and [other.digest, other.class_prompt],
            ]
        return key

    def class_pictures(self, target: Target, prompt: str) -> Tensor:
        """[others_of_class, 3, H, W] in [0, 1]: other members of a class, drawn by this model."""
        count = self.base.others_of_class

        def make(_: Path) -> dict[str, Tensor]:
            drawn = draw_class(target.model, prompt, count, self.base, series=0, progress=self.progress)
            return {"images": eight_bits(drawn)}

        key = {**self._drawing(target, prompt, count), "series": 0}
        return self.cache.part("class", key, make).tensors["images"] / 255

    def quality(
        self, target: Target, original: Target, prompt: str, embedder: Embedder, real: Tensor | None,
        notice: Notice | None = None,
    ) -> Quality:  # fmt: skip
        """How the class prompt is drawn, beside the original; `real`: [R, 3, H, W] of the class, if any.

        notice: looked for in these pictures too, where it should not be.
        """
        count = self.base.quality_pictures

        def features(of: Target, series: int, label: str, notice: Notice | None) -> dict[str, Tensor]:
            def make(_: Path) -> dict[str, Tensor]:
                images = eight_bits(
                    draw_class(of.model, prompt, count, self.base, series=series, progress=self.progress)
                )
                shown = {} if notice is None else {"shown": notice.shown(images)}
                return {"features": embed_all(embedder, images / 255), **shown}

            key = {**self._drawing(of, prompt, count), "series": series, "encoder": self.name_of(embedder)}
            if notice is not None:
                what = {name: said for name, said in notice.as_record().items() if name != "from"}
                key["notice"] = [what, notice.mark is not None and pixel_digest(notice.mark)]
            return self.cache.part(f"quality-{label}", key, make).tensors

        now, before = features(target, 1, "model", notice), features(original, 2, "original", notice)
        return quality(
            prompt,
            now["features"],
            before["features"],
            features(original, 3, "original-again", None)["features"],
            None if real is None else embed_all(embedder, real),
            seed=self.base.seed,
            notice=None if notice is None else (share(now["shown"]), share(before["shown"])),
        )

    def _drawing(self, target: Target, prompt: str, count: int) -> dict[str, Any]:
        how = {name: getattr(self.base, name) for name in _DRAWING}
        return {"version": __version__, "model": target.fingerprint, "prompt": prompt, "count": count, **how}
