"""What cells share: the model, the subjects, protected pictures, immunized models, class images.

Parts lie in OUTPUT/work, each under a digest of what decides it, and are made once for all cells and
processes. Without that folder they are made again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness import immunize
from unlikeness.autoencoders import Posterior
from unlikeness.bench.cells import Cell, part_key
from unlikeness.bench.entries import attacker, base, chain, overrides, values_of
from unlikeness.bench.suites import Suite
from unlikeness.cache import Cache
from unlikeness.diffusion import hub
from unlikeness.diffusion.model import TextToImage
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.measure.encoders import Encoder, load_encoder
from unlikeness.progress import Progress, Silent
from unlikeness.protect.registry import METHODS as PROTECTIONS
from unlikeness.provenance import file_digest, own_name, pixel_digest
from unlikeness.purify.chain import Chain
from unlikeness.seeds import derive
from unlikeness.subjects import Subject, load_folder
from unlikeness.toybox.cast import class_pictures, unseen
from unlikeness.toybox.weights import classifier_path, identity_path
from unlikeness.toybox.world import CLASS_NOUNS
from unlikeness.verify.attack import Priors
from unlikeness.verify.evaluator import Evaluator, eight_bits
from unlikeness.verify.job import find_subjects
from unlikeness.verify.outcomes import Attacks, Target
from unlikeness.verify.verdict import Outcome
from unlikeness.words import with_article

if TYPE_CHECKING:
    from unlikeness.personalize.settings import PersonalizeSettings

__all__ = ["Shared", "Who"]

_HELD_OUT = 10
"""Pictures of a toybox subject that are compared with."""
_SAMPLE = 1 << 20
"""Bytes of each end of a weights file that its digest looks at."""


@dataclass(frozen=True)
class Who:
    """A subject as its owner has it.

    held_out: [S, 3, H, W] to compare with. unseen: [N, 3, H, W] for attackers with other pictures. of_class:
    [C, 3, H, W]; None: drawn by the original.
    """

    name: str
    subject: Subject
    held_out: Tensor
    unseen: Tensor | None = None
    of_class: Tensor | None = None


class KeptPriors(Priors):
    """`Priors` in files, which processes and runs share. key: what stands for the model."""

    def __init__(self, model: TextToImage, cache: Cache, key: Any) -> None:
        super().__init__(model)
        self._cache, self._key = cache, key

    def of(
        self, class_prompt: str, settings: PersonalizeSettings, *, progress: Progress | None = None
    ) -> Posterior | None:
        """See `Priors.of`."""
        s = settings

        def make(_: Path) -> dict[str, Tensor]:
            drawn = super(KeptPriors, self).of(class_prompt, s, progress=progress)
            assert drawn is not None
            return {"mean": drawn.mean, "std": drawn.std}

        if not (s.class_images and s.prior_weight):
            return None
        key = {
            "model": self._key, "prompt": class_prompt,
            "class": [s.class_images, s.class_steps, s.class_guidance, s.class_seed],
        }  # fmt: skip
        found = self._cache.part("class-images", key, make).tensors
        return Posterior(*(found[name].to(self.model.device) for name in ("mean", "std")))


class Shared:
    """The parts of one suite in one folder, for one process."""

    def __init__(self, suite: Suite, output: Path, device: str = "auto") -> None:
        self.suite, self.output, self.device = suite, output, device
        self.work = output / "work"
        self._whos: dict[int, Who] = {}
        self._evaluators: dict[int, Evaluator] = {}
        self._digests: dict[int, str] = {}
        self._released: tuple[Any, Target] | None = None

    @cached_property
    def parts(self) -> Cache:
        return Cache(self.work / "parts")

    @cached_property
    def attacked(self) -> TextToImage:
        """The original model."""
        return TextToImage.from_pretrained(self.suite.plan.model, device=self.device, dtype="float32")

    @cached_property
    def model(self) -> str:
        """See `Facts.model`. Weights are looked at where they are on this machine, and not loaded."""
        name = self.suite.plan.model
        try:
            place = hub.locate(name, local_files_only=True)
        except UnlikenessError:
            return name
        files = [place] if place.is_file() else sorted(
            path for path in place.rglob("*") if path.suffix in (".safetensors", ".json") and path.is_file()
        )  # fmt: skip
        digest = hashlib.sha256()
        for path in files:
            size = path.stat().st_size
            digest.update(f"{path.relative_to(place).as_posix()} {size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(_SAMPLE))
                file.seek(max(size - _SAMPLE, 0))
                digest.update(file.read(_SAMPLE))
        return f"{own_name(name)} {digest.hexdigest()[:16]}"

    @cached_property
    def judges(self) -> list[str]:
        """See `Facts.judges`."""
        toy = " ".join(file_digest(path)[:8] for path in (identity_path(), classifier_path()))
        return [f"{name} {toy}" if name == "toybox" else own_name(name) for name in self.suite.plan.encoders]

    def subject(self, index: int) -> str:
        """See `Facts.subject`. Of a folder, the digest is of its files."""
        if index not in self._digests:
            plan = self.suite.plan
            if plan.toybox:
                who = self.who(index)
                parts = [who.subject.digest, pixel_digest(who.held_out), who.name]
            elif not plan.folder:
                parts = [f"subject {index} of a folder that is not given"]
            else:
                noun, name, folder = self._found[index]
                files = sorted(path for path in folder.rglob("*") if path.is_file())
                parts = [noun, name, *(file_digest(path) for path in files)]
            self._digests[index] = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        return self._digests[index]

    @cached_property
    def _found(self) -> list[tuple[str, str, Path]]:
        plan = self.suite.plan
        found = find_subjects(Path(plan.folder).expanduser())
        if len(found) < plan.subjects:
            raise UsageError(
                f"{plan.folder} holds {len(found)} subjects, and the suite has {plan.subjects}; give more, "
                "or write another number of subjects"
            )
        return found

    def title(self, index: int) -> str:
        """A subject's name: noun-number, or noun-folder."""
        if self.suite.plan.toybox:
            return self.who(index).name
        if not self.suite.plan.folder:
            return f"subject-{index}"
        return "-".join(self._found[index][:2])

    def who(self, index: int) -> Who:
        """A subject's pictures. UsageError for too few of them."""
        if index not in self._whos:
            self._whos[index] = self._toy(index) if self.suite.plan.toybox else self._person(index)
        return self._whos[index]

    def _toy(self, index: int) -> Who:
        plan = self.suite.plan
        one = unseen(index + 1)[index]
        pictures = one.held_out(_HELD_OUT + plan.pictures)
        others = class_pictures(one.class_noun, base(self.suite, 0).others_of_class, seed=1 + one.seed)
        return Who(
            f"{one.class_noun}-{one.seed}", one.subject(plan.pictures), pictures[:_HELD_OUT],
            pictures[_HELD_OUT:], others,
        )  # fmt: skip

    def _person(self, index: int) -> Who:
        plan = self.suite.plan
        if not plan.folder:
            raise UsageError(
                f"the suite {self.suite.name} needs the subjects' pictures; give --subjects FOLDER"
            )
        noun, name, folder = self._found[index]
        images = load_folder(folder, size=self.attacked.resolution)
        if len(images) < plan.pictures + 2:
            raise UsageError(
                f"{folder} holds {len(images)} pictures; {plan.pictures} are learnt and two or more are "
                "compared with: give more, or write fewer pictures"
            )
        subject = Subject(images[: plan.pictures], noun)
        return Who(f"{noun}-{name}", subject, images[plan.pictures :])

    def published(self, cell: Cell) -> Tensor:
        """[N, 3, H, W] in [0, 1]: the pictures that the attacker finds, with their protection if they have
        one, at eight bits."""
        who = self.who(cell.subject)
        images = who.subject.images
        if cell.defence.kind != "pictures":
            return images

        def make(_: Path) -> dict[str, Tensor]:
            values = values_of(self.suite, cell.defence)
            fields = PROTECTIONS.settings_type(cell.defence.method).__dataclass_fields__
            known = {"class_noun": who.subject.class_noun, "identifier": who.subject.identifier}
            values = {**{key: word for key, word in known.items() if key in fields}, **values}
            method = PROTECTIONS.create_for(cell.defence.method, self.attacked, values)
            seeds = [derive(cell.seed, who.subject.digest, i) for i in range(len(images))]
            changed = method.perturb(images, seeds)
            if not bool(changed.isfinite().all()):
                raise NotFiniteError(f"{cell.defence.title} answers with values that are not numbers")
            return {"images": eight_bits(changed)}

        key = part_key(cell, self.suite, self)
        return self.parts.part(cell.defence.name, key, make).tensors["images"] / 255

    def learnt(self, cell: Cell) -> Tensor:
        """[N, 3, H, W] in [0, 1]: the pictures that the attacker has, purified if it does that."""
        images = self.published(cell)
        steps = chain(self.suite, cell.purifier)
        if not steps:
            return images
        washing = Chain(steps, [self.attacked if step.needs_model else None for step in steps])
        done = [
            washing.wash(image.permute(1, 2, 0).numpy(), derive(cell.seed, "purify", i))
            for i, image in enumerate(images)
        ]
        return eight_bits(torch.stack([torch.from_numpy(one).permute(2, 0, 1) for one in done])) / 255

    def target(self, cell: Cell) -> Target:
        """The model that is attacked: the original, or immunized for this subject."""
        if cell.defence.kind != "model":
            return self.original
        key = part_key(cell, self.suite, self)
        if self._released is not None and self._released[0] == key:
            return self._released[1]
        self._released = None  # memory may not hold three models

        def make(state: Path) -> dict[str, Tensor]:
            subject = self.who(cell.subject).subject
            values = {"seed": cell.seed, **values_of(self.suite, cell.defence)}
            method = immunize.create(cell.defence.method, values)
            prompts = self.suite.plan.prompts or self._usual_prompts() if method.settings.uses_prompts else ()
            released = immunize.immunize(
                self.attacked, [subject], method, prompts=prompts, checkpoint=state, progress=Silent()
            )
            weights = released.denoiser.state_dict()
            return {name: value.half() for name, value in weights.items()}  # as it would be published

        found = self.parts.part(cell.defence.name, key, make).tensors
        released = self.attacked.copy()
        released.denoiser.load_state_dict({name: value.float() for name, value in found.items()})
        target = Target(released.freeze(), KeptPriors(released, self.parts, key))
        self._released = key, target
        return target

    def _usual_prompts(self) -> tuple[str, ...]:
        nouns = CLASS_NOUNS if self.suite.plan.toybox else sorted({noun for noun, _, _ in self._found})
        return tuple(f"a photo of {with_article(noun)}" for noun in nouns)

    @cached_property
    def original(self) -> Target:
        return Target(self.attacked, KeptPriors(self.attacked, self.parts, self.model))

    def evaluator(self, cell: Cell) -> Evaluator:
        """What the subject's images are compared with."""
        if cell.subject not in self._evaluators:
            who = self.who(cell.subject)
            of_class = who.of_class
            if of_class is None:
                attacks = self._attacks(cell, self.parts)
                of_class = attacks.class_images(self.original, who.subject.class_prompt)
            first, *further = self._encoders
            self._evaluators[cell.subject] = Evaluator(first, who.held_out, of_class, True, tuple(further))
        return self._evaluators[cell.subject]

    @cached_property
    def _encoders(self) -> list[Encoder]:
        return [load_encoder(name, device=self.attacked.device) for name in self.suite.plan.encoders]

    def _attacks(self, cell: Cell, cache: Cache) -> Attacks:
        return Attacks(
            base(self.suite, cell.seed), overrides(self.suite, cell.attacker, cell.steps),
            self.suite.plan.contexts, self.who(cell.subject).unseen, None, cache, _silent, Silent(),
        )  # fmt: skip

    def outcome(self, cell: Cell, scratch: Path) -> Outcome:
        """Attack, draw and judge. The drawn images of a control are kept: other cells are compared with them.

        scratch: folder for the state of this attack.
        """
        who = self.who(cell.subject)
        learnt = Subject(self.learnt(cell), who.subject.class_noun, who.subject.identifier)
        attacks = self._attacks(cell, Cache(self.work / "controls" if cell.control is None else scratch))
        one = attacker(self.suite, cell.attacker)
        return attacks.outcome(self.target(cell), learnt, one, self.evaluator(cell), one.name)

    def make(self, cell: Cell) -> None:
        """Make the part that this cell shares with others: protected pictures or an immunized model."""
        if cell.defence.kind == "pictures":
            self.published(cell)
        elif cell.defence.kind == "model":
            self.target(cell)

    def has(self, cell: Cell) -> bool:
        """Whether that part is there."""
        if cell.defence.kind == "none":
            return True
        if not (self.work / "parts").is_dir():
            return False
        return self.parts.has(cell.defence.name, part_key(cell, self.suite, self))


def _silent(_: str) -> None:
    pass

