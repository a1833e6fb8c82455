"""The toybox story: a subject is copied from five pictures; they are protected, and it is copied again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness import __version__
from unlikeness.demo.keep import Kept
from unlikeness.demo.page import write_story
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.latents import Posterior
from unlikeness.diffusion.loss import mean_loss_over_levels
from unlikeness.gallery import to_pil
from unlikeness.measure.similarity import Embedder, subject_similarity
from unlikeness.measure.visibility import linf, psnr, ssim
from unlikeness.personalize import personalize
from unlikeness.personalize.material import class_prior
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.progress import Progress, Silent
from unlikeness.protect import batches, registry
from unlikeness.protect.folder import protect_folder
from unlikeness.settings import Checked, build, setting
from unlikeness.subjects import Subject, with_article
from unlikeness.toybox.cast import class_pictures, member


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Checked):
    """What the demo does. The defaults fit ten minutes on two cores."""

    class_noun: str = setting("robot", "What the subject is one of.")
    pictures: int = setting(5, "Pictures that the copier has.", unit="pictures", at_least=1, at_most=8)
    method: str = setting("advdm", "Protection.")
    budget: float = setting(8.0, "Largest change of a colour value.", unit="n/255", at_least=0.0)
    steps: int = setting(800, "DreamBooth steps.", unit="steps", at_least=1)
    learning_rate: float = setting(3e-4, "DreamBooth's step size.", at_least=0.0)
    class_images: int = setting(60, "Class pictures for prior preservation.", unit="pictures", at_least=0)
    generated: int = setting(8, "Pictures drawn per prompt.", unit="pictures", at_least=1)
    seed: int = setting(0, "Of the subject and everything else.", at_least=0)


@dataclass(frozen=True)
class Judge:
    """What tells a subject from its class. of_class: renders that s is measured against."""

    embedder: Embedder
    held_out: int = 10
    of_class: int = 24


@dataclass
class Act:
    """One training on one set of files, and what came of it."""

    name: str
    training: Tensor
    plain: Tensor
    elsewhere: Tensor
    s: dict[str, float]
    loss: float
    visibility: dict[str, float] = field(default_factory=dict)


def run(
    model: TextToImage,
    judge: Judge,
    output: Path,
    settings: DemoSettings,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Play the story in `output` and write report.html and report.json there; returns the record.

    A run that was stopped goes on: pictures, trainings and protected files that are there are used again
    where
    they were made with the same settings.
    """
    progress = progress or Silent()
    kept = Kept(output / "work", {**asdict(settings), "version": __version__})
    who = member(settings.seed, settings.class_noun)
    clean = who.subject(settings.pictures)
    contexts = who.contexts()[settings.pictures :] or who.contexts()
    originals, protected = output / "pictures", output / "protected"
    write_pictures(clean.images, originals, settings.class_noun)
    prior = kept.posterior("class", lambda: _prior(model, clean, settings, progress))
    first = _act("clean", model, clean, clean, contexts, judge, settings, prior, kept, progress)

    values: dict[str, object] = {"budget": settings.budget}
    perturber = registry.create(
        settings.method, model, build(registry.method(settings.method).settings_type, values)
    )
    protect_folder(
        [originals],
        protected,
        perturber,
        method=settings.method,
        model=str(model.source),
        seed=settings.seed,
        batch_size=batches.default_batch_size(perturber.resolution, model.device),
        progress=progress,
    )
    theirs = Subject.from_folder(
        protected, settings.class_noun, clean.identifier, size=clean.images.shape[-1]
    )
    second = _act("protected", model, theirs, clean, contexts, judge, settings, prior, kept, progress)
    for name, measure in (("linf", linf), ("psnr", psnr), ("ssim", ssim)):
        second.visibility[name] = float(measure(clean.images, theirs.images).mean())

    record = {
        "settings": asdict(settings),
        "version": __version__,
        "torch": torch.__version__,
        "subject_digest": clean.digest,
        "acts": {act.name: {"s": act.s, "loss": act.loss, **act.visibility} for act in (first, second)},
        "contexts": list(contexts),
    }
    (output / "report.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_story(output / "report.html", settings, record, first, second, who.held_out(4))
    return record


def write_pictures(images: Tensor, folder: Path, stem: str) -> None:
    """[N, 3, H, W] as stem-1.png, stem-2.png, ...; files of these names are replaced only if they differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        part = folder / f".{stem}-{i + 1}.part"
        to_pil(image).save(part, "PNG")
        file = folder / f"{stem}-{i + 1}.png"
        if file.exists() and file.read_bytes() == part.read_bytes():
            part.unlink()
        else:
            part.replace(file)


def _attack(settings: DemoSettings) -> dict[str, object]:
    return {
        "steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "batch_size": 4,
        "class_images": settings.class_images,
        "seed": settings.seed,
    }


def _prior(model: TextToImage, subject: Subject, settings: DemoSettings, progress: Progress) -> Posterior:
    common = build(PersonalizeSettings, _attack(settings))
    return class_prior(model, f"a photo of {with_article(subject.class_noun)}", common, progress=progress)


def _act(
    name: str,
    model: TextToImage,
    subject: Subject,
    clean: Subject,
    contexts: Sequence[str],
    judge: Judge,
    settings: DemoSettings,
    prior: Posterior,
    kept: Kept,
    progress: Progress,
) -> Act:
    """DreamBooth on `subject`, the same seeds in every act; measured against held-out pictures of `clean`."""
    n = settings.generated
    places = [contexts[i % len(contexts)] for i in range(n)]

    def draw() -> Tensor:
        checkpoint = kept.folder / f"{name}.checkpoint"
        tuned = personalize(
            model,
            subject,
            "dreambooth",
            _attack(settings),
            prior=prior,
            checkpoint=checkpoint,
            progress=progress,
        )
        prompts = [subject.instance_prompt] * n + [f"{subject.instance_prompt} {place}" for place in places]
        first = 5_000_000 + 1000 * settings.seed
        drawn = tuned.generate(prompts, seeds=range(first, first + 2 * n), progress=progress)
        checkpoint.unlink(missing_ok=True)
        return drawn

    drawn = kept.images(name, subject.images, draw)
    who = member(settings.seed, settings.class_noun)
    s = subject_similarity(
        judge.embedder,
        generated=drawn[:n],
        subject=who.held_out(judge.held_out),
        of_class=class_pictures(settings.class_noun, judge.of_class, seed=1 + settings.seed),
        seed=settings.seed,
    )
    loss = mean_loss_over_levels(model, subject.images, clean.class_prompt, seed=settings.seed, levels=50)
    figures = {"value": s.value, "low": s.low, "high": s.high}
    return Act(name, subject.images, drawn[:n], drawn[n:], figures, loss)
