"""The immunized models: made once per row and subject, and kept in files."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.judging import TRAINING, Counts, Judge, Reader, toybox_judge
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import attacking, common, personalization
from experiments.leak import create
from experiments.rows import SCALE, in_former_names, settings_of
from unlikeness import immunize
from unlikeness.autoencoders import Posterior
from unlikeness.diffusion import TextToImage
from unlikeness.immunize import Defence
from unlikeness.immunize.data import class_settings, draw_general
from unlikeness.immunize.dry_run import count as count_passes
from unlikeness.immunize.outputs import watermark
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.measure.protective import protective
from unlikeness.settings import build
from unlikeness.subjects import with_article
from unlikeness.toybox.cast import Member, member
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS

PROTECTIVE = ("protective", "protective_new_context")
"""Figures of a cell: the protective output's share at the training prompt, and in new contexts."""

def opened(
    name: str, args: argparse.Namespace, code: Sequence[str], **about: Any
) -> tuple[TextToImage, Judge, common.Results]:
    """The model, its judge and the results file of a benchmark; about: further facts that
    its cells have in common."""
    counts = Counts.few() if args.quick else Counts()
    judge, judges = toybox_judge(counts)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    results = common.Results(
        common.results_file(name, args, common.EXPERIMENTS), name,
        {**personalization.about(model, args, judges, counts), "scale": SCALE, **about},
        fresh=args.fresh, keep=args.keep, code=common.code_digest(*code),
    )  # fmt: skip
    return model, judge, results


def captions() -> list[str]:
    """Prompts whose images must not change: every class noun alone and in every context, twice each."""
    names = [with_article(noun) for noun in CLASS_NOUNS]
    return [
        f"a photo of {name} {place}".strip() for name in names for place in ("", *CONTEXTS) for _ in range(2)
    ]


def others_of(who: Member) -> dict[str, Member]:
    """Two unprotected subjects that no other row uses."""
    noun = CLASS_NOUNS[(CLASS_NOUNS.index(who.class_noun) + 1) % len(CLASS_NOUNS)]
    return {
        "same class": member(50_000 + who.seed, who.class_noun),
        "another class": member(50_000 + who.seed, noun),
    }


def target_of(who: Member) -> str:
    """The class that the protective output "target" draws instead of this subject."""
    return CLASS_NOUNS[(CLASS_NOUNS.index(who.class_noun) + 2) % len(CLASS_NOUNS)]


def protective_of(
    row: str, who: Member, images: Tensor, reader: Reader, protected: Member | None = None
) -> Tensor | None:
    """[B] of bool: which images of `who` show the protective output of the row, for the subject `protected`
    if given; None for a row without one."""
    settings = settings_of(row)[1]
    if "protective_output" not in settings:
        return None
    return protective(
        settings["protective_output"], images, pattern=watermark(), read=lambda x: reader.read(x)[0],
        class_noun=who.class_noun, target_noun=target_of(protected or who),
    )  # fmt: skip


def shares(shown: Tensor | None, generated: int) -> dict[str, float]:
    """Of `protective_of`'s result [B], the first `generated` at the training prompt, the others in new
    contexts: the share of each as figures of a cell; empty for None."""
    if shown is None:
        return {}
    parts = shown.float()[:generated], shown.float()[generated:]
    return {name: float(part.mean()) for name, part in zip(PROTECTIVE, parts, strict=True)}


ENGINE = ("src/unlikeness/immunize",)
"""The code that decides what an immunized model is."""


def what_it_took(file: Path) -> dict[str, Any]:
    """Seconds, steps and pictures through U-Nets, as `Maker.run` wrote them into its file."""
    with safe_open(file, framework="pt") as kept:
        took: dict[str, Any] = json.loads(kept.metadata()["took"])
    return took


def _passes(
    model: TextToImage, made: Defence, cast: Sequence[Member], original: TextToImage
) -> dict[str, int]:
    """Outer steps, and pictures through U-Nets with and without a gradient."""
    subjects = [who.subject(TRAINING) for who in cast]
    passes = count_passes(model, made, subjects, captions(), original=original).as_record()
    return {
        "outer_steps": made.settings.outer_steps,
        "pictures_with_gradient": passes["forward_with_gradient"]["pictures"],
        "pictures_without": passes["forward"]["pictures"],
    }


def rename_settings(state: Path, settings: ImmunizeSettings) -> None:
    """Write a checkpoint anew if it is from before settings of immunize were renamed."""
    with safe_open(state, framework="pt") as file:
        header = json.loads(file.metadata()["training"])
    old = header["identity"]["settings"]
    if "stride" not in old:
        return
    facts = {name: old.pop(name) for name in _FACTS if name in old}
    lasting = "outer_steps" in old
    new = asdict(build(type(settings), {name: v for name, v in old.items() if name not in _GONE}))
    if not lasting:
        del new["outer_steps"]
    header["identity"]["settings"] = {**new, **facts}
    part = state.with_name(f".{state.name}.part")
    save_file(load_file(state), part, metadata={"training": json.dumps(header)})
    part.replace(state)


_FACTS = ("method", "model", "original", "subjects", "prompts", "pattern")
_GONE = ("leak", "preserve_guidance")
"""What a checkpoint is about beside its settings, and settings that are gone."""


@dataclass
class Maker:
    """Makes rows from one model. What is made lies in a file that all benchmarks share.

    resumes: a row with more outer steps continues the same row with fewer, if its settings do not depend on
    the length. The state stays beside the models."""

    model: TextToImage
    results: common.Results
    quick: bool = False
    resumes: bool = False

    def __post_init__(self) -> None:
        self.priors = attacking.Priors(self.model)
        self._general: Posterior | None = None

    def released(self, row: str, who: Member) -> TextToImage:
        """The row's model for this subject; its cost becomes a cell of the results."""
        if row == "none":
            return self.model
        method, settings = settings_of(row)
        values = self.values(settings, [who])
        decides = {**values, "method": method, "subjects": [who.seed]}
        file = self.file(f"{row}-{personalization.key_of(who)}", decides)
        if not file.exists():
            made, state = create(method, values), None
            if self.resumes and not (made.settings.fall or made.settings.unprotected_from):
                del decides["outer_steps"]
                state = self.file(f"{method}-{personalization.key_of(who)}", decides, ".state")
            self.run(self.model, [who], made, file, state)
        self.results.cell(f"{row}/{personalization.key_of(who)}/made", lambda: what_it_took(file))
        return self.opened(file)

    def file(self, name: str, decides: Mapping[str, Any], end: str = ".safetensors") -> Path:
        """A model's file: in a folder named for all its settings, under a digest of the code. With --keep, a
        file of other code will do."""
        text = json.dumps({**in_former_names(decides), "quick": self.quick}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        folder = common.RUNS / "immunized" / common.model_digest(self.model) / f"{name}-{digest}"
        file = folder / f"{common.code_digest(*ENGINE)}{end}"
        made = sorted(folder.glob(f"[!.]*{end}"), key=lambda one: one.stat().st_mtime)
        return made[-1] if made and self.results.keep and not file.exists() else file

    def opened(self, file: Path) -> TextToImage:
        """The model with the U-Net of this file."""
        released = self.model.copy()
        released.denoiser.load_state_dict({name: value.float() for name, value in load_file(file).items()})
        return released.freeze()

    def values(self, settings: Mapping[str, Any], cast: Sequence[Member]) -> dict[str, Any]:
        """A row's settings, to protect all of `cast` in one model."""
        values = {**SCALE, **settings}
        if "target" in str(values.get("protective_output")):
            values["target_noun"] = ",".join(target_of(who) for who in cast)
        if self.quick:
            steps = min(values["outer_steps"], 2) if self.resumes else 1
            values |= {"outer_steps": steps, "inner_steps": 1, "attack_depth": 0}
            values |= {"class_images": 5, "class_steps": 2}
        return values

    def run(
        self, model: TextToImage, cast: Sequence[Member], made: Defence, file: Path, kept: Path | None = None
    ) -> None:
        """Immunize `model` against all of `cast`, and write its U-Net in half precision, as it would be
        published, and with it what it took. kept: where the state of the training is to stay."""
        subjects, began = [who.subject(TRAINING) for who in cast], time.perf_counter()
        priors = {}
        for noun in sorted({who.class_noun for who in cast}):
            prior = self.priors.of(noun, class_settings(made.settings))
            assert prior is not None
            priors[noun] = prior
        losses: list[float] = []
        passes = _passes(model, made, cast, self.model)
        file.parent.mkdir(parents=True, exist_ok=True)
        state = kept or file.with_suffix(".checkpoint")
        state.parent.mkdir(parents=True, exist_ok=True)
        if state.exists():
            rename_settings(state, made.settings)
        released = immunize.immunize(
            model, subjects, made, original=self.model, prompts=captions(), general=self.general(),
            priors=priors, checkpoint=state, after=lambda _, loss: losses.append(loss),
        )  # fmt: skip
        whole = made.settings.outer_steps / max(len(losses), 1)  # above 1 if an interrupted run went on
        took = {
            "made_seconds": round((time.perf_counter() - began) * whole, 1),
            "loss_last": losses[-1] if losses else None, **passes,
            **common.on_gpu(model.device),
        }  # fmt: skip
        weights = {name: p.half().contiguous() for name, p in released.denoiser.state_dict().items()}
        part = file.with_name(f".{file.name}.part")
        save_file(weights, part, metadata={"took": json.dumps(took)})
        part.replace(file)
        if kept is None:
            state.unlink(missing_ok=True)

    def general(self) -> Posterior:
        """The original's pictures of `captions`, drawn once."""
        if self._general is None:
            file = self.priors.folder / f"general{'-quick' if self.quick else ''}.safetensors"
            if not file.exists():
                drawn = draw_general(self.model, captions(), seed=2_500_000, steps=2 if self.quick else 25)
                file.parent.mkdir(parents=True, exist_ok=True)
                save_file({"mean": drawn.mean.contiguous(), "std": drawn.std.contiguous()}, file)
            kept = load_file(file)
            self._general = Posterior(*(kept[name].to(self.model.device) for name in ("mean", "std")))
        return self._general
