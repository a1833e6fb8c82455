"""The story on the toybox: an attacker copies a subject, from untouched and from protected pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness import __version__, pictures
from unlikeness.autoencoders import Posterior
from unlikeness.cache import Cache
from unlikeness.demo.page import check_own
from unlikeness.demo.report import Report, write_report
from unlikeness.demo.settings import DemoSettings
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.diffusion.loss import mean_loss_over_levels
from unlikeness.errors import UnlikenessError
from unlikeness.files import replacing, write_text
from unlikeness.gallery import to_pil
from unlikeness.measure.similarity import Embedder, subject_similarity
from unlikeness.measure.visibility import linf, psnr, ssim
from unlikeness.personalize import create, personalize
from unlikeness.personalize.data import class_prior
from unlikeness.progress import Progress, Silent
from unlikeness.protect import registry
from unlikeness.protect.against import against_of
from unlikeness.protect.base import Perturber
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.tiling import batches
from unlikeness.seeds import STORY
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import Member, class_pictures, member

__all__ = ["PAGE", "Evaluator", "run"]

PAGE = "report.html"

_TRAINED_ON = {
    "clean": "untouched pictures",
    "protected": "protected pictures",
    "noise": "pictures with plain noise",
}

LEVELS = 50
"""Noise levels over which the loss of the untrained model is averaged."""


@dataclass(frozen=True)
class Evaluator:
    """The similarity metric: an image encoder, and the numbers of renders that it compares with."""

    embedder: Embedder
    held_out: int = 10
    of_class: int = 24


@dataclass(frozen=True)
class _Stage:
    """What all acts share. common: the key that all cached parts have in common."""

    model: TextToImage
    evaluator: Evaluator
    settings: DemoSettings
    who: Member
    cache: Cache
    common: Mapping[str, Any]
    progress: Progress

    @property
    def contexts(self) -> list[str]:
        """The contexts that the attacker's pictures do not show, or all contexts if they show every one."""
        known = self.who.contexts()
        return known[self.settings.pictures :] or known

    @property
    def places(self) -> list[str]:
        return [self.contexts[i % len(self.contexts)] for i in range(self.settings.elsewhere)]


def run(
    model: TextToImage,
    evaluator: Evaluator,
    output: Path,
    settings: DemoSettings,
    *,
    model_name: str = "toybox",
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run the story in `output` and write report.html and report.json; returns the content of the latter.

    A stopped run goes on, also in the middle of a training. Finished trainings, generated pictures and
    protected files are used again where everything that they depend on is the same, such as the weights of
    the model.

    Args:
        model_name: name of the model in manifest and report.
        say: called with the name of each stage as it begins.
    """
    page = output / PAGE
    check_own(page, {"acts", "versions"})
    ways = {"clean": None, "protected": settings.method} | ({"noise": "noise"} if settings.noise else {})
    perturbers = {
        method: registry.create(method, model, {"budget": settings.budget, **_own(method)})
        for method in ways.values()
        if method
    }
    who = member(settings.seed, settings.class_noun)
    common = {"model": fingerprint(model), "version": __version__, "class_noun": settings.class_noun}
    stage = _Stage(model, evaluator, settings, who, Cache(output / "work"), common, progress or Silent())
    steps = count(1)

    def tell(text: str) -> None:
        if say is not None:
            say(f"{next(steps)}/{2 * len(ways)} {text}")

    tell("pictures of the subject, and of the model before any training")
    folder = output / "story"  # away from what protecting a visitor's photographs puts in `output`
    files = _write_pictures(who, settings, folder / "pictures")
    originals = _read(files)
    subject = Subject(originals, settings.class_noun)
    key = {**common, "seed": settings.seed, "n": settings.generated}
    before = stage.cache.part("before", key, lambda _: _draw(model, subject, stage, 0)).tensors
    prior = _prior(stage, subject)
    acts: dict[str, dict[str, Any]] = {"before": {"s": _similarity(stage, before["plain"])}}
    drawn, learnt_from = {"before": before}, {"clean": originals}
    for name, method in ways.items():
        if method is not None:
            tell(f"protect the pictures with {method}")
            learnt_from[name] = _protect(stage, files, folder / name, method, perturbers[method], model_name)
        tell(f"the attacker trains on {_TRAINED_ON[name]}")
        drawn[name] = _copy(stage, name, Subject(learnt_from[name], settings.class_noun), prior)
        acts[name] = {
            "s": _similarity(stage, drawn[name]["plain"]),
            **_looks(stage, originals, learnt_from[name]),
        }

    record = {
        "settings": asdict(settings),
        "dreambooth": asdict(create("dreambooth", settings.attack).settings),
        "protection": asdict(perturbers[settings.method].settings),
        "protection_fingerprint": getattr(perturbers[settings.method], "fingerprint", None),
        "protection_against": against_of(perturbers[settings.method]).record(),
        "model": model_name,
        "model_fingerprint": common["model"],
        "versions": {"unlikeness": __version__, "torch": torch.__version__},
        "subject_sha256": subject.digest,
        "contexts": stage.contexts,
        "acts": acts,
    }
    write_text(page.with_suffix(".json"), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_report(page, Report(settings, record, learnt_from, drawn, who.held_out(6), stage.places))
    return record


def _own(method: str) -> dict[str, object]:
    """Settings beside the budget: of rid the network that was trained against the toybox."""
    return {"weights": "rid-toybox"} if method == "rid" else {}


def _write_pictures(who: Member, settings: DemoSettings, folder: Path) -> list[Path]:
    """The attacker's pictures as PNG files, named by class noun, seed and number."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i, image in enumerate(who.subject(settings.pictures).images):
        file = folder / f"{settings.class_noun}-{settings.seed}-{i + 1}.png"
        with replacing(file) as part:
            to_pil(image).save(part, "PNG")
        files.append(file)
    return files


def _read(files: list[Path]) -> Tensor:
    """[N, 3, H, W] in [0, 1], as the attacker reads them."""
    return torch.stack([torch.from_numpy(pictures.open_picture(file).rgb).permute(2, 0, 1) for file in files])


def _protect(
    stage: _Stage, files: list[Path], folder: Path, method: str, perturber: Perturber, model_name: str
) -> Tensor:
    """Protect the files as `unlikeness protect` does, into `folder`, and read them back.

    UnlikenessError if one of them was not protected.
    """
    outcome = protect_folder(
        files, folder, perturber,
        method=method, model=model_name if registry.needs_model(method) else None, seed=stage.settings.seed,
        batch_size=batches.default_batch_size(perturber.resolution, stage.model.device),
        progress=stage.progress,
    )  # fmt: skip
    for entry in (*outcome.skipped, *outcome.unchanged):
        raise UnlikenessError(f"{method} did not protect {entry.path} ({entry.reason or entry.note})")
    return _read([folder / file.name for file in files])


def _prior(stage: _Stage, subject: Subject) -> Posterior | None:
    """Class pictures of the model for prior preservation, the same for all acts."""
    settings = create("dreambooth", stage.settings.attack).settings
    if not settings.class_images:
        return None

    def make(_: Path) -> dict[str, Tensor]:
        prior = class_prior(stage.model, subject.class_prompt, settings, progress=stage.progress)
        return {"mean": prior.mean, "std": prior.std}

    key = {**stage.common, "class_images": settings.class_images}
    found = stage.cache.part("class", key, make).tensors
    return Posterior(found["mean"].to(stage.model.device), found["std"].to(stage.model.device))


def _copy(stage: _Stage, name: str, subject: Subject, prior: Posterior | None) -> dict[str, Tensor]:
    """Pictures of a DreamBooth on `subject`. Settings, class pictures and seeds are the same in all acts."""

    def make(checkpoint: Path) -> dict[str, Tensor]:
        tuned = personalize(
            stage.model, subject, "dreambooth", stage.settings.attack,
            prior=prior, checkpoint=checkpoint, progress=stage.progress,
        )  # fmt: skip
        return _draw(tuned, subject, stage, stage.settings.elsewhere)

    key = {
        **stage.common,
        **stage.settings.attack,
        "n": [stage.settings.generated, stage.settings.elsewhere],
        "pictures": subject.digest,
    }
    return stage.cache.part(name, key, make).tensors


def _draw(model: TextToImage, subject: Subject, stage: _Stage, elsewhere: int) -> dict[str, Tensor]:
    """Pictures at the training prompt, and `elsewhere` of them in new contexts."""
    n = stage.settings.generated
    prompts = [subject.instance_prompt] * n
    prompts += [f"{subject.instance_prompt} {place}" for place in stage.places[:elsewhere]]
    first = STORY + 1000 * stage.settings.seed
    images = model.generate(prompts, seeds=range(first, first + len(prompts)), progress=stage.progress)
    return {"plain": images[:n]} | ({"elsewhere": images[n:]} if elsewhere else {})


def _similarity(stage: _Stage, images: Tensor) -> dict[str, float]:
    """Similarity s of generated pictures, with its interval, to held-out pictures of the subject."""
    seed = stage.settings.seed
    s = subject_similarity(
        stage.evaluator.embedder,
        generated=images,
        subject=stage.who.held_out(stage.evaluator.held_out),
        of_class=class_pictures(stage.settings.class_noun, stage.evaluator.of_class, seed=1 + seed),
        seed=seed,
    )
    return {"value": s.value, "low": s.low, "high": s.high}


def _looks(stage: _Stage, originals: Tensor, seen: Tensor) -> dict[str, Any]:
    """The untrained model's loss on the pictures, and how far they are from the originals."""
    class_prompt = Subject(originals, stage.settings.class_noun).class_prompt
    loss = mean_loss_over_levels(stage.model, seen, class_prompt, seed=stage.settings.seed, levels=LEVELS)
    if torch.equal(originals, seen):
        return {"loss": loss}
    return {
        "loss": loss,
        "linf": float(linf(originals, seen).max()),
        "psnr": float(psnr(originals, seen).mean()),
        "ssim": float(ssim(originals, seen).mean()),
    }
