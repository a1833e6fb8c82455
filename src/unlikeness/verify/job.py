"""One verification from folders to a folder: what `unlikeness verify` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness import locks
from unlikeness.diffusion import hub
from unlikeness.diffusion.adapters import Added, digests
from unlikeness.diffusion.devices import check_device, pick_device
from unlikeness.errors import UsageError
from unlikeness.foreign import read_lines
from unlikeness.measure.encoders import check_encoders, check_side, load_encoder
from unlikeness.paths import check_exists
from unlikeness.pictures.finding import check_pictures
from unlikeness.presets import preset_values, which_preset
from unlikeness.settings import given_in, pairs
from unlikeness.verify.attackers import Attacker, named
from unlikeness.verify.protective import Requested
from unlikeness.verify.settings import CONTEXTS, FILE, given

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.measure.encoders import Encoder
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject
    from unlikeness.verify.controls import UnprotectedSubject
    from unlikeness.verify.protective import Recorded
    from unlikeness.verify.verdict import Verdict

__all__ = ["Verification", "find_subjects"]

_USUAL = "sks"
"""The identifier, if neither the user nor the model's record names one."""

WORK = "work"
"""Folder of finished parts, beside the certificate."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """One verification, as `unlikeness verify` describes it.

    values: texts NAME=VALUE. They come before those of the file `settings`, which come before the words of
    the model's record. identifier: None takes the record's. requested: the protective output to look for.
    encoders: the first gives the verdict; none: the toybox's, for a model of the toybox. added: what is added
    to the model, unless its record says that it is part of it already, and to the original.
    """

    model: str
    images: Path
    class_noun: str
    output: Path
    identifier: str | None = None
    held_out: Path | None = None
    unseen: Path | None = None
    class_pictures: Path | None = None
    original: str | None = None
    unprotected: Path | None = None
    unprotected_held_out: Path | None = None
    unrelated: Path | None = None
    unrelated_noun: str | None = None
    attackers: tuple[str, ...] = ()
    contexts: tuple[str, ...] = CONTEXTS
    preset: str = "auto"
    settings: Path | None = None
    values: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    requested: Requested = field(default_factory=Requested)
    quality: bool = True
    sign: bool = False
    device: str = "auto"
    prediction: str | None = None
    model_config: str | None = None
    added: Added = field(default_factory=Added)

    def run(
        self, *, report: Callable[[str], None] | None = None, progress: Progress | None = None
    ) -> Verdict:
        """Attack, judge, and write the certificate into `output`.

        UsageError for a wrong option, before any attack; UnlikenessError if something cannot be read or
        written, or a training diverges.
        """
        attackers, values = self._check()  # without torch
        with locks.inside(self.output):
            return self._run(attackers, values, report or _silent, progress)

    def _check(self) -> tuple[tuple[Attacker, ...], dict[str, Any]]:
        """(attackers, settings as given), after every check that needs no torch."""
        attackers = named([name.strip() for name in self.attackers])
        check_encoders(self.encoders)
        typed = pairs("--set", self.values, form="NAME=VALUE or ATTACKER.NAME=VALUE")
        values = {**_yaml(self.settings), **typed}
        given(values)
        which_preset(self.preset, 0)
        if (self.unrelated is None) != (self.unrelated_noun is None):
            raise UsageError("--unrelated and --unrelated-noun belong together; give both or neither")
        _check_output(self.output)
        check_device(self.device)
        hub.check_name(self.model, prediction=self.prediction, config=self.model_config)
        if self.original is not None:
            hub.check_name(self.original)
        for folder in (self.images, self.held_out, self.unseen, self.class_pictures, self.unrelated):
            check_pictures(folder)
        self._nouns()  # whether unprotected subjects are there
        if self.unprotected is None and self.unprotected_held_out is not None:
            raise UsageError("--unprotected-held-out needs --unprotected, the folder that it belongs to")
        check_exists(self.requested.pattern, "--pattern")
        return attackers, values

    def _run(
        self,
        attackers: tuple[Attacker, ...],
        values: dict[str, Any],
        report: Callable[[str], None],
        progress: Progress | None,
    ) -> Verdict:
        from unlikeness.diffusion.fingerprint import fingerprint
        from unlikeness.diffusion.model import TextToImage
        from unlikeness.immunize import record
        from unlikeness.subjects import Subject, load_folder
        from unlikeness.verify.certificate import RECORD, check_own, sign, summary, write_certificate
        from unlikeness.verify.controls import toybox_subject
        from unlikeness.verify.protective import pools, recorded, says_output
        from unlikeness.verify.run import verify_subject

        names = check_encoders(self.encoders or ("toybox",))
        embedders = [load_encoder(name, device=pick_device(self.device)) for name in names]
        _check_names(embedders)
        model = TextToImage.from_pretrained(
            self.model, device=self.device, dtype="float32", carried=False,
            **hub.given(self.model, self.prediction, self.model_config),
        )  # fmt: skip
        for name in names:
            check_side(name, model.resolution, f"{self.model} draws")
        if model.single is not None:
            report(model.single.line)
        content = record.read(model.source) or {}
        runs = (content, *content.get("earlier", []))
        new = self.added.without({one for run in runs for one in digests(run)})
        if self.sign and new:
            raise UsageError(
                "--sign is for the model as it is, and --lora or --embedding adds to it; leave one out"
            )
        model = new.to(model)
        for noun, where in self._nouns().items():
            if warning := model.conditioner.check_noun(noun, where):
                report(warning)
        if self.sign and not (model.source is not None and (model.source / RECORD).is_file()):
            raise UsageError(f"{self.model} has no {RECORD} to sign; leave --sign out")

        def folder(path: Path | None) -> Any:
            return None if path is None else load_folder(path, size=model.resolution, report=report)

        subject = Subject(folder(self.images), self.class_noun, self.identifier or _USUAL)
        check_own(self.output, subject.digest, fingerprint(model))
        known = recorded(content, subject)
        if known is not None:
            if self.identifier is None and known.identifier:
                subject = replace(subject, identifier=known.identifier)
            if warning := _other_words(known, subject):
                report(warning)
        elif self.requested.kind is None and says_output(content):
            report(
                f"none of the subjects in {RECORD} has one of these pictures, so no protective output is "
                "looked for; name one with --protective-output"
            )
        words = pools(content, None if known is None else known.run)
        preset = preset_values("verify", self.preset, model.resolution)
        base, overrides = given({**preset, **words, **values})
        output = self.requested.resolve(subject, known, resolution=model.resolution, device=str(model.device))
        unprotected = self._unprotected(model, subject.identifier, report)
        original = self._original(model, content, report)
        control = toybox_subject(model, subject) if original is None and not unprotected else None
        unrelated = None
        if self.unrelated is not None and self.unrelated_noun is not None:
            unrelated = Subject(folder(self.unrelated), self.unrelated_noun)
        verdict = verify_subject(
            model, subject, folder(self.held_out), embedder=embedders[0], further=embedders[1:],
            attackers=attackers, base=base,
            overrides=overrides, contexts=self.contexts, of_class=folder(self.class_pictures),
            original=original, unseen=folder(self.unseen), unrelated=unrelated, unprotected=unprotected,
            control=control, output=output, measure_quality=self.quality and self.original is not None,
            work=self.output / WORK, report=report, progress=progress,
        )  # fmt: skip
        verdict = replace(verdict, about={**verdict.about, **self.added.record()})
        made = write_certificate(verdict, self.output)
        if model.source is not None:
            sign(model.source, self.output, summary(made), in_place=self.sign)
        return verdict

    def _original(
        self, model: TextToImage, content: Mapping[str, Any], report: Callable[[str], None]
    ) -> TextToImage | None:
        """The model before its immunization: the user's, else the toybox if the record names it."""
        from unlikeness.diffusion.fingerprint import fingerprint
        from unlikeness.diffusion.model import TextToImage
        from unlikeness.verify.certificate import RECORD
        from unlikeness.verify.controls import original_of, originals

        if self.original is None:
            toybox = original_of(model, content)
            if toybox is not None:
                report(f"the original is the toybox, as {RECORD} says")
            return None if toybox is None else self.added.to(toybox)
        original = self.added.to(
            TextToImage.from_pretrained(
                self.original, device=self.device, dtype="float32",
                **hub.given(self.original, self.prediction, self.model_config),
            )
        )  # fmt: skip
        if (known := originals(content)) and fingerprint(original) not in known:
            report(
                f"--original {self.original} has other weights than the model that {RECORD} names, and "
                "what attackers learn from it may say little about this one"
            )
        return original

    def _nouns(self) -> dict[str, str]:
        """The option that names each class noun, by the noun."""
        nouns = {self.class_noun: "--class-noun"}
        if self.unrelated_noun is not None:
            nouns.setdefault(self.unrelated_noun, "--unrelated-noun")
        for noun, _, _ in [] if self.unprotected is None else find_subjects(self.unprotected):
            nouns.setdefault(noun, f"--unprotected {self.unprotected}: class noun")
        return nouns

    def _unprotected(
        self, model: TextToImage, identifier: str, report: Callable[[str], None]
    ) -> list[UnprotectedSubject]:
        """The unprotected subjects, with the protected one's identifier."""
        from unlikeness.subjects import Subject, load_folder
        from unlikeness.verify.controls import UnprotectedSubject

        if self.unprotected is None:
            return []
        found, size = [], model.resolution
        for noun, name, folder in find_subjects(self.unprotected):
            subject = Subject.from_folder(folder, noun, identifier, size=size, report=report)
            held_out = None
            if self.unprotected_held_out is not None:
                held_out = load_folder(self.unprotected_held_out / noun / name, size=size, report=report)
            found.append(UnprotectedSubject(f"{noun}-{name}", subject, held_out))
        return found


def find_subjects(folder: Path) -> list[tuple[str, str, Path]]:
    """(class noun, name, folder) of each FOLDER/NOUN/NAME, sorted. UsageError if there is none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give one with a folder NOUN/NAME for each subject")
    found = [
        (noun.name, one.name, one)
        for noun in sorted(folder.iterdir())
        if noun.is_dir() and not noun.name.startswith(".")
        for one in sorted(noun.iterdir())
        if one.is_dir() and not one.name.startswith(".")
    ]
    if not found:
        raise UsageError(f"{folder} holds no subject; put each one's pictures into a folder NOUN/NAME")
    return found


def _other_words(known: Recorded, subject: Subject) -> str:
    """A warning if the attackers' words differ from the protected ones by more than case; else empty."""
    options = {
        "--identifier": (known.identifier, subject.identifier),
        "--class-noun": (known.class_noun, subject.class_noun),
    }
    differs = {name: pair for name, pair in options.items() if pair[0] and pair[0].lower() != pair[1].lower()}
    if not differs:
        return ""
    before, now = (" ".join(words) for words in zip(*differs.values(), strict=True))
    return (
        f"the subject was protected as {before!r} and is attacked as {now!r}, as {' and '.join(differs)} "
        f"{'say' if len(differs) > 1 else 'says'}: no attacker here is the white box"
    )


def _check_output(output: Path) -> None:
    """UsageError if the folder holds something else than a verification."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; give a folder")
    if (
        output.is_dir()
        and any(not locks.is_own(entry.name) for entry in output.iterdir())
        and not ((output / WORK).is_dir() or (output / FILE).is_file())
    ):
        raise UsageError(
            f"{output} already holds something that is no certificate, and is left alone; give another folder"
        )


def _yaml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    found = {str(name): value for name, value in read_lines(path, "the settings").items()}
    inner = [str(name) for value in found.values() if isinstance(value, dict) for name in value]
    given_in(str(path), [*found, *inner])
    return found


def _check_names(encoders: Sequence[Encoder]) -> None:
    """UsageError if two encoders would have one name in the certificate."""
    names = [one.name for one in encoders]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two encoders are called {twice}; give folders of different names")


def _silent(line: str) -> None:
    return
