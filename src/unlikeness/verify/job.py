"""One verification from folders to a folder: what `unlikeness verify` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness import locks
from unlikeness.diffusion import hub
from unlikeness.diffusion.names import check_device
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, parse_yaml, read, reason
from unlikeness.measure.encoders import check_encoder, load_encoder
from unlikeness.paths import check_exists
from unlikeness.pictures.finding import check_pictures
from unlikeness.presets import preset_values, which_preset
from unlikeness.settings import pairs
from unlikeness.verify.attackers import Attacker, named
from unlikeness.verify.pools import Pools
from unlikeness.verify.settings import CONTEXTS, FILE, given
from unlikeness.verify.sought import Sought

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject
    from unlikeness.verify.protected import Protected
    from unlikeness.verify.run import Other
    from unlikeness.verify.verdict import Verdict

__all__ = ["Job", "find_others"]

_USUAL = "sks"
"""The identifier where neither the user nor the model's record names one."""

WORK = "work"
"""The folder of finished parts, beside the certificate."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The command line's words: see `cli.verify`. values: texts NAME=VALUE, over those of `settings`, which
    are over those of the model's record. identifier: None is the record's. sought: the notice to look for."""

    model: str
    images: Path
    class_noun: str
    output: Path
    identifier: str | None = None
    held_out: Path | None = None
    unseen: Path | None = None
    class_pictures: Path | None = None
    original: str | None = None
    others: Path | None = None
    others_held_out: Path | None = None
    unrelated: Path | None = None
    unrelated_noun: str | None = None
    attackers: tuple[str, ...] = ()
    contexts: tuple[str, ...] | None = None
    preset: str = "auto"
    settings: Path | None = None
    values: tuple[str, ...] = ()
    encoder: str = "toybox"
    sought: Sought = field(default_factory=Sought)
    quality: bool = True
    sign: bool = False
    device: str = "auto"

    def run(
        self, *, report: Callable[[str], None] | None = None, progress: Progress | None = None
    ) -> Verdict:
        """Attack, judge, and write the certificate into `output`.

        UsageError for what was asked wrongly, before any attack; UnlikenessError if something cannot be read
        or written, or a training diverges.
        """
        chosen, written = self._check()  # torch has not been imported before this
        with locks.inside(self.output):
            return self._run(chosen, written, report, progress)

    def _check(self) -> tuple[tuple[Attacker, ...], dict[str, Any]]:
        """The attackers and the settings as given; refuses what can be refused without torch."""
        chosen = named([name.strip() for name in self.attackers])
        check_encoder(self.encoder)
        said = pairs("--set", self.values, form="NAME=VALUE or ATTACKER.NAME=VALUE")
        written = {**_yaml(self.settings), **said}
        Pools.of(given(written)[0])
        which_preset(self.preset, 0)  # whether there is such a preset
        if (self.unrelated is None) != (self.unrelated_noun is None):
            raise UsageError("--unrelated and --unrelated-noun belong together; give both or neither")
        _check_output(self.output)
        check_device(self.device)
        hub.check_name(self.model)
        if self.original is not None:
            hub.check_name(self.original)
        folders = (self.images, self.held_out, self.unseen, self.class_pictures, self.unrelated)
        for folder in folders:
            check_pictures(folder)
        self._nouns()  # whether others are there
        if self.others is None and self.others_held_out is not None:
            raise UsageError("--unprotected-held-out needs --unprotected, the folder that it belongs to")
        check_exists(self.sought.pattern, "--pattern")
        return chosen, written

    def _run(
        self,
        chosen: tuple[Attacker, ...],
        written: dict[str, Any],
        report: Callable[[str], None] | None,
        progress: Progress | None,
    ) -> Verdict:
        from unlikeness.diffusion.fingerprint import fingerprint
        from unlikeness.diffusion.model import TextToImage
        from unlikeness.diffusion.vocabulary import check_noun
        from unlikeness.immunize import record
        from unlikeness.subjects import Subject, load_folder
        from unlikeness.verify.certificate import check_own, summary, write_certificate
        from unlikeness.verify.judge import AtResolution
        from unlikeness.verify.protected import find, has_notice, pools
        from unlikeness.verify.run import verify_subject
        from unlikeness.verify.signing import RECORD, sign
        from unlikeness.verify.world import original_of, originals, unprotected

        embedder = AtResolution(load_encoder(self.encoder))
        model = TextToImage.from_pretrained(self.model, device=self.device, dtype="float32")
        for noun, where in self._nouns().items():
            if (told := check_noun(model.conditioner.tokenizer, noun, where)) and report:
                report(told)
        if self.sign and not (model.source is not None and (model.source / RECORD).is_file()):
            raise UsageError(f"{self.model} has no {RECORD} to sign; leave --sign out")

        def folder(path: Path | None) -> Any:
            return None if path is None else load_folder(path, size=model.resolution, report=report)

        subject = Subject(folder(self.images), self.class_noun, self.identifier or _USUAL)
        check_own(self.output, subject.digest, fingerprint(model))
        said = record.read(model.source) or {}
        protected = find(said, subject)
        recorded = "" if protected is None else protected.identifier
        if self.identifier is None and recorded:
            subject = replace(subject, identifier=recorded)
        if report and protected is not None and (other := _named_otherwise(protected, subject)):
            report(other)
        drawn_from = pools(said, None if protected is None else protected.run)
        preset = preset_values("verify", self.preset, model.resolution)
        base, overrides = given({**preset, **drawn_from, **written})
        if report and self.sought.behaviour is None and protected is None and has_notice(said):
            report(
                f"none of the subjects in {RECORD} has one of these pictures, so no notice is looked for; "
                "--protective-output looks for one"
            )
        device = str(model.device)
        notice = self.sought.notice(subject, protected, resolution=model.resolution, device=device)
        others = self._others(model, subject.identifier, report)
        original = control = None
        if self.original is not None:
            original = TextToImage.from_pretrained(self.original, device=self.device, dtype="float32")
            if report and (known := originals(said)) and fingerprint(original) not in known:
                report(
                    f"--original {self.original} has other weights than the model that {RECORD} names, and "
                    "what attackers learn from it may say little about this one"
                )
        elif (original := original_of(model, said)) is not None:
            if report:
                report(f"the original is the toybox, as {RECORD} says")
        elif not others:
            control = unprotected(model, subject)
        unrelated = None
        if self.unrelated is not None and self.unrelated_noun is not None:
            unrelated = Subject(folder(self.unrelated), self.unrelated_noun)
        verdict = verify_subject(
            model,
            subject,
            folder(self.held_out),
            embedder=embedder,
            attackers=chosen,
            base=base,
            overrides=overrides,
            contexts=CONTEXTS if self.contexts is None else self.contexts,
            of_class=folder(self.class_pictures),
            original=original,
            unseen=folder(self.unseen),
            unrelated=unrelated,
            others=others,
            control=control,
            notice=notice,
            measure_quality=self.quality and self.original is not None,
            work=self.output / WORK,
            tell=report,
            progress=progress,
        )
        made = write_certificate(verdict, self.output)
        if model.source is not None:
            sign(model.source, self.output, summary(made), in_place=self.sign)
        return verdict

    def _nouns(self) -> dict[str, str]:
        """What names each class noun, once, by the noun."""
        nouns = {self.class_noun: "--class-noun"}
        if self.unrelated_noun is not None:
            nouns.setdefault(self.unrelated_noun, "--unrelated-noun")
        for noun, _, _ in [] if self.others is None else find_others(self.others):
            nouns.setdefault(noun, f"--unprotected {self.others}: class noun")
        return nouns

    def _others(
        self, model: TextToImage, word: str, report: Callable[[str], None] | None
    ) -> list[Other]:
        """The unprotected subjects, taught under the protected one's identifier."""
        from unlikeness.subjects import Subject, load_folder
        from unlikeness.verify.run import Other

        if self.others is None:
            return []
        found = []
        for noun, name, folder in find_others(self.others):
            subject = Subject.from_folder(folder, noun, word, size=model.resolution, report=report)
            held_out = None
            if self.others_held_out is not None:
                held_out = load_folder(
                    self.others_held_out / noun / name, size=model.resolution, report=report
                )
            found.append(Other(f"{noun}-{name}", subject, held_out))
        return found


def find_others(folder: Path) -> list[tuple[str, str, Path]]:
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


def _named_otherwise(protected: Protected, subject: Subject) -> str:
    """One sentence if the attackers' words are not the protected ones, case aside; else empty."""
    options = {
        "--identifier": (protected.identifier, subject.identifier),
        "--class-noun": (protected.class_noun, subject.class_noun),
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
    """UsageError if there is something that is no verification."""
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
    try:
        content = parse_yaml(read(path).decode("utf-8"))
    except (UnreadableError, UnicodeDecodeError) as error:
        raise UnlikenessError(
            f"the settings {path} cannot be read ({reason(error)}); give a YAML file"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"the settings {path} must be lines NAME: VALUE")
    return {str(name): value for name, value in content.items()}
