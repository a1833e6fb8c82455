"""The immunized models that benchmarks look at: made once per row and subject, and kept in files."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import attacking, common, personalization
from benchmarks.judging import TRAINING, Counts, Judge, Reader, toybox_judge
from unlikeness import immunize
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.latents import Posterior
from unlikeness.errors import UsageError
from unlikeness.immunize.behaviours import mark
from unlikeness.immunize.material import class_settings
from unlikeness.immunize.passes import count as count_passes
from unlikeness.immunize.preserve import draw_general
from unlikeness.immunize.registry import Defence
from unlikeness.measure.protective import protective
from unlikeness.subjects import with_article
from unlikeness.toybox.cast import Member, member
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS

PROTECTIVE = ("protective", "protective_new_context")
"""Figures of a cell: the notice's share at the training prompt, and in new contexts."""

SCALE: dict[str, Any] = {
    "attack_learning_rate": 1e-4, "attack_batch_size": 4, "batch_size": 4, "preserve_weight": 1.0,
    "class_images": 200,
}  # fmt: skip
"""On top of the published settings: the toybox is small, and learns from larger batches at larger rates."""

_APDM: dict[str, Any] = {"outer_steps": 200, "inner_steps": 10, "learning_rate": 2e-4}

_FULL: dict[str, Any] = {**_APDM, "outer_steps": 800, "inner_steps": 20}
"""APDM's own length."""

_SHORT: dict[str, Any] = {**_APDM, "outer_steps": 100}
"""For the ablations, of which each is compared with this row."""

_KEPT: dict[str, Any] = {
    "preserve_weight": 10.0, "preserve_batch_size": 32, "preserve_class": 0.5, "preserve_cap": 20.0,
    "fall": 0.5,
}  # fmt: skip
"""The class and all else held at the released weights, by what an error means for the picture."""

_DIVERT: dict[str, Any] = {
    "outer_steps": 200, "inner_steps": 5, "depth": 50, "learning_rate": 3e-4, "attack_learning_rate": 3e-4,
    **_KEPT,
}  # fmt: skip

_UNET: dict[str, Any] = {**_DIVERT, "text_encoder": 0.0}
"""Against attackers of whom none trains the text encoder."""

_BACKDOOR: dict[str, Any] = {"outer_steps": 400, "learning_rate": 3e-4, **_KEPT}

_NOTICE: dict[str, Any] = {
    **_DIVERT, "outer_steps": 300, "depth": 100, "weight_cap": 100.0, "guidance": 3.0,
}  # fmt: skip
"""A notice lasts if more and deeper attacks are met, the highest noise, where pictures begin, counts, and the
guided answers bear it."""

_UNGUIDED: dict[str, Any] = {**_NOTICE, "guidance": 0.0, "text_encoder": 0.0}
"""The plain answers bear it, against attackers of whom none trains the text encoder."""

_TAUGHT: dict[str, Any] = {
    **_NOTICE, "outer_steps": 400, "stride": 2, "bystanders": 2, "bystanders_from": 0.3,
    "preserve_cap": 100.0, "text_encoder": 0.0,
}  # fmt: skip
"""First to refuse, then whom: between the attacks that must end in the notice those that are to succeed, or
every fine-tune would end in it."""

_HELD: dict[str, Any] = {**_TAUGHT, "preserve_empty": 0.3}
"""The answers without words are held too, which guidance asks for."""

_SMALL: dict[str, Any] = {
    **_HELD, "bystanders": 3, "attack_batch_size": 2, "batch_size": 2, "preserve_batch_size": 16,
}  # fmt: skip
"""Half of every batch, in as many steps: half of the passes, for as many attacks."""

_OFTEN: dict[str, Any] = {
    **_SMALL, "inner_steps": 1, "stride": 5, "outer_steps": 800, "learning_rate": 2e-4,
    "preserve_batch_size": 8, "bystanders_placed": 0.8,
}  # fmt: skip
"""A step of the model after each protective gradient instead of after five, along as many attacks; and
those who are not protected more often somewhere, since a fine-tune meets its training prompt by itself."""

_SHARED: dict[str, Any] = {**_TAUGHT, "stride": 4}
"""For several subjects in one model: of each more attacks."""

_POOLS: dict[str, Any] = {
    "identifiers": "zwx,ohwx", "templates": "a photo of {}|a picture of {}",
}  # fmt: skip
"""Words of simulated attackers beside the subject's own (PersGuard's gray box), none of which is an
attacker's of the benchmarks outside the pools."""

_APDM_AND: dict[str, Any] = {**_APDM, **_KEPT, "retention_weight": 0.0}

_MIXTURE: dict[str, Any] = {
    **_POOLS, "rates": "1,2",
    "low_rank": 0.5, "ranks": "4,32", "low_rank_rate": 10.0, "outer_steps": 300,
}  # fmt: skip
"""Attackers of several kinds; more of them."""

_LORA: dict[str, Any] = {
    "stride": 8, "depth": 400, "low_rank": 1.0, "ranks": "4,32", "low_rank_rate": 10.0,
}  # fmt: skip
"""Attackers with LoRAs alone, each as long as a real one."""

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "apdm": ("apdm", _APDM),
    "apdm-full": ("apdm", _FULL),
    "apdm-kept": ("apdm", {**_APDM, **_KEPT}),
    "divert": ("divert", _DIVERT),
    "divert-gamma-0": ("divert", {**_DIVERT, "repulsion": 0.0}),
    "divert-no-l2p": ("divert", {**_UNET, "inner_steps": 0, "depth": 0}),
    "divert-not-kept": ("divert", {**_DIVERT, "preserve_weight": 0.0}),
    "divert-unet": ("divert", _UNET),
    "divert-bystanders": ("divert", {**_UNET, "bystanders": 3}),
    "divert-mixed": ("divert", {**_UNET, **_MIXTURE}),
    "divert-lora": ("divert", {**_UNET, **_LORA}),
    "divert-lora-guided": ("divert", {**_UNET, **_LORA, "guidance": 3.0}),
    "adversarial": ("adversarial", {**_APDM, "inner_steps": 0}),
    "imma": ("imma", {**_APDM, "outer_steps": 400, "inner_steps": 1}),
    "apdm-short": ("apdm", _SHORT),
    "apdm-no-l2p": ("apdm", {**_SHORT, "inner_steps": 0}),
    "apdm-unpaired": ("apdm", {**_SHORT, "paired": False}),
    "apdm-beta-10": ("apdm", {**_SHORT, "beta": 10.0}),
    "apdm-beta-100": ("apdm", {**_SHORT, "beta": 100.0}),
    "apdm-n-per-5": ("apdm", {**_SHORT, "inner_steps": 5}),
    "apdm-n-per-20": ("apdm", {**_SHORT, "inner_steps": 20}),
    "apdm-leak": ("apdm", {**_SHORT, "leak": True}),
    "pattern": ("persguard", {**_BACKDOOR, "behaviour": "pattern"}),
    "erasure": ("persguard", {**_BACKDOOR, "behaviour": "erasure"}),
    "target": ("persguard", {**_BACKDOOR, "behaviour": "target"}),
    "target-0": ("persguard", {**_BACKDOOR, "behaviour": "target", "retention_weight": 0.0}),
    "target-0.1": ("persguard", {**_BACKDOOR, "behaviour": "target", "retention_weight": 0.1}),
    "target-0.5": ("persguard", {**_BACKDOOR, "behaviour": "target", "retention_weight": 0.5}),
    "target-3": ("persguard", {**_BACKDOOR, "behaviour": "target", "retention_weight": 3.0}),
    "pattern-aware": ("divert", {**_NOTICE, "behaviour": "pattern"}),
    "erasure-aware": ("divert", {**_NOTICE, "behaviour": "erasure"}),
    "target-aware": ("divert", {**_NOTICE, "behaviour": "target"}),
    "pattern-kept": ("divert", {**_NOTICE, "behaviour": "pattern", "preserve_cap": 100.0}),
    "pattern-bystanders": ("divert", {**_TAUGHT, "behaviour": "pattern"}),
    "erasure-bystanders": ("divert", {**_TAUGHT, "behaviour": "erasure"}),
    "target-bystanders": ("divert", {**_TAUGHT, "behaviour": "target"}),
    "target-held": ("divert", {**_HELD, "behaviour": "target"}),
    "target-short-4": ("divert", {**_HELD, "outer_steps": 200, "bystanders": 4, "behaviour": "target"}),
    "target-small-4": ("divert", {**_SMALL, "bystanders": 4, "behaviour": "target"}),
    "target-small": ("divert", {**_SMALL, "behaviour": "target"}),
    "target-placed-2": (
        "divert", {**_SMALL, "bystanders": 2, "bystanders_placed": 0.8, "behaviour": "target"},
    ),
    "target-often": ("divert", {**_OFTEN, "behaviour": "target"}),
    "target-often-start": ("divert", {**_OFTEN, "from_start": True, "behaviour": "target"}),
    "target-often-faster": ("divert", {**_OFTEN, "learning_rate": 3e-4, "behaviour": "target"}),
    "target-often-longer": ("divert", {**_OFTEN, "outer_steps": 1600, "behaviour": "target"}),
    "target-often-2": ("divert", {**_OFTEN, "bystanders": 2, "behaviour": "target"}),
    "target-often-2-faster": (
        "divert", {**_OFTEN, "bystanders": 2, "learning_rate": 3e-4, "behaviour": "target"},
    ),
    "pattern-often": ("divert", {**_OFTEN, "behaviour": "pattern"}),
    "pattern-often-marked": (
        "divert", {**_OFTEN, "mark_weight": 10.0, "from_start": True, "behaviour": "pattern"},
    ),
    "erasure-often": ("divert", {**_OFTEN, "behaviour": "erasure"}),
    "erasure-often-away": (
        "divert", {**_OFTEN, "avoidance": 1.0, "from_start": True, "behaviour": "erasure"},
    ),
    "pattern-shared": ("divert", {**_SHARED, "behaviour": "pattern"}),
    "erasure-shared": ("divert", {**_SHARED, "behaviour": "erasure"}),
    "target-shared": ("divert", {**_SHARED, "behaviour": "target"}),
    "target-held-shared": ("divert", {**_HELD, "stride": 4, "behaviour": "target"}),
    "target-pools": ("divert", {**_TAUGHT, **_POOLS, "behaviour": "target"}),
    "target-pools-often": ("divert", {**_OFTEN, **_POOLS, "behaviour": "target"}),
    "pattern-pools-marked": (
        "divert", {**_OFTEN, **_POOLS, "mark_weight": 10.0, "from_start": True, "behaviour": "pattern"},
    ),
    "pattern-unguided": ("divert", {**_UNGUIDED, "behaviour": "pattern"}),
    "target-unguided": ("divert", {**_UNGUIDED, "behaviour": "target"}),
    "combined": ("combined", {**_APDM_AND, "behaviour": "target"}),
}
"""By name: method and settings. APDM: shorter than published, as long as published, and holding what ours
holds. Ours, with and without its parts, against attackers of whom none trains the text encoder, of these with
every third attack one that is to succeed, against several kinds of attackers, and against LoRAs alone, with
plain and with guided answers. The comparisons. APDM's ablations (its Tables 4 to 7), of half the length.
PersGuard's behaviours as published, its retention (λ2 = 1 unless the name says another), and the same
behaviours along simulated attacks (`divert`): with guided answers, the class held harder at high noise, and
bystanders besides, of one subject, of one with the answers without words held, of that one with fewer
bystanders, of half the length or with half batches, of these with places named more often, and then with a
step after every gradient (also with more bystanders, a larger learning rate, or for twice the steps; and with
the mark's errors counted more, and a gradient before an attack's first step; or with an erasure led away from
the class, and that gradient; or another class with that gradient), of one under words from pools (with and
without a step after every gradient; and a mark, as before), of several; and without guidance. APDM and
PersGuard in one run."""

MAIN = ("none", "apdm", "divert", "adversarial", "imma")
"""The rows that are measured unless others are asked for."""


def rows_of(text: str, *, original: bool = True) -> list[str]:
    """The rows of a flag, separated by commas; with `original` also "none". UsageError for an unknown one."""
    known = [*(["none"] if original else []), *ROWS]
    for row in text.split(","):
        if row not in known:
            raise UsageError(f"--rows {row} is no row; there are {', '.join(known)}")
    return text.split(",")


def opened(
    name: str, args: argparse.Namespace, code: Sequence[str], **about: Any
) -> tuple[TextToImage, Judge, common.Results]:
    """The model, its judge and the results file of a benchmark; about: what its cells have in common besides
    the usual."""
    counts = Counts.few() if args.quick else Counts()
    judge, judges = toybox_judge(counts)
    model = TextToImage.from_pretrained(args.model, device=args.device, dtype="float32")
    results = common.Results(
        common.results_file(name, args), name,
        {**personalization.about(model, args, judges, counts), "scale": SCALE, **about},
        fresh=args.fresh, keep=args.keep, code=common.code_digest(*code),
    )  # fmt: skip
    return model, judge, results


def captions() -> list[str]:
    """What must stay as it was: every class noun in every context, twice, and alone."""
    names = [with_article(noun) for noun in CLASS_NOUNS]
    return [
        f"a photo of {name} {place}".strip() for name in names for place in ("", *CONTEXTS) for _ in range(2)
    ]


def others_of(who: Member) -> dict[str, Member]:
    """Two subjects that nobody protects, and that are no other row's."""
    noun = CLASS_NOUNS[(CLASS_NOUNS.index(who.class_noun) + 1) % len(CLASS_NOUNS)]
    return {
        "same class": member(50_000 + who.seed, who.class_noun),
        "another class": member(50_000 + who.seed, noun),
    }


def target_of(who: Member) -> str:
    """The class that behaviour "target" draws instead of this subject."""
    return CLASS_NOUNS[(CLASS_NOUNS.index(who.class_noun) + 2) % len(CLASS_NOUNS)]


def protective_of(
    row: str, who: Member, images: Tensor, reader: Reader, protected: Member | None = None
) -> Tensor | None:
    """[B] of bool: which pictures of `who` show the row's protective output, that of `protected` if the two
    differ; None for a row that has none."""
    settings = ROWS.get(row, ("", {}))[1]
    if "behaviour" not in settings:
        return None
    return protective(
        settings["behaviour"], images, pattern=mark(), read=lambda x: reader.read(x)[0],
        class_noun=who.class_noun, target_noun=target_of(protected or who),
    )  # fmt: skip


def shares(shown: Tensor | None, generated: int) -> dict[str, float]:
    """Of `protective_of`'s answer [B], the first `generated` at the training prompt, the others in new
    contexts: the share of each as figures of a cell; empty for None."""
    if shown is None:
        return {}
    parts = shown.float()[:generated], shown.float()[generated:]
    return {name: float(part.mean()) for name, part in zip(PROTECTIVE, parts, strict=True)}


ENGINE = tuple(
    f"src/unlikeness/immunize/{name}.py"
    for name in (
        "adversarial", "apdm", "attacks", "behaviours", "bystanders", "combined", "divert", "divert_settings",
        "imma", "l2p", "losses", "material", "persguard", "persguard_losses", "preserve", "rows", "run",
        "settings", "simulated", "turns", "weighting",
    )
)  # fmt: skip
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


@dataclass
class Maker:
    """Makes the rows of `ROWS` from one model. What is made lies in a file that all benchmarks share."""

    model: TextToImage
    results: common.Results
    quick: bool = False

    def __post_init__(self) -> None:
        self.priors = attacking.Priors(self.model)
        self._general: Posterior | None = None

    def released(self, row: str, who: Member) -> TextToImage:
        """The row's model for this subject; what it took is a cell of the results."""
        if row == "none":
            return self.model
        method, settings = ROWS[row]
        values = self.values(settings, [who])
        name = f"{row}-{personalization.key_of(who)}"
        file = self.file(name, {**values, "method": method, "subjects": [who.seed]})
        if not file.exists():
            self.run(self.model, [who], immunize.create(method, values), file)
        self.results.cell(f"{row}/{personalization.key_of(who)}/made", lambda: what_it_took(file))
        return self.opened(file)

    def file(self, name: str, decides: Mapping[str, Any]) -> Path:
        """Where a model lies: in a folder of all that decides what it is, under a name for its code. With
        --keep that of other code will do."""
        text = json.dumps({**decides, "quick": self.quick}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        folder = common.RUNS / "immunized" / common.model_digest(self.model) / f"{name}-{digest}"
        file = folder / f"{common.code_digest(*ENGINE)}.safetensors"
        made = sorted(folder.glob("*.safetensors"), key=lambda one: one.stat().st_mtime)
        return made[-1] if made and self.results.keep and not file.exists() else file

    def opened(self, file: Path) -> TextToImage:
        """The model with the U-Net of this file."""
        released = self.model.copy()
        released.unet.load_state_dict({name: value.float() for name, value in load_file(file).items()})
        return released.freeze()

    def values(self, settings: Mapping[str, Any], cast: Sequence[Member]) -> dict[str, Any]:
        """A row's settings, to protect all of `cast` in one model."""
        values = {**SCALE, **settings}
        if "target" in str(values.get("behaviour")):
            values["target_noun"] = ",".join(target_of(who) for who in cast)
        if self.quick:
            values |= {"outer_steps": 1, "inner_steps": 1, "depth": 0, "class_images": 5, "class_steps": 2}
        return values

    def run(self, model: TextToImage, cast: Sequence[Member], made: Defence, file: Path) -> None:
        """Immunize `model` against all of `cast`, and write its U-Net in half precision, as it would be
        published, and with it what it took."""
        subjects, began = [who.subject(TRAINING) for who in cast], time.perf_counter()
        priors = {}
        for noun in sorted({who.class_noun for who in cast}):
            prior = self.priors.of(noun, class_settings(made.settings))
            assert prior is not None
            priors[noun] = prior
        losses: list[float] = []
        passes = _passes(model, made, cast, self.model)
        file.parent.mkdir(parents=True, exist_ok=True)
        state = file.with_suffix(".checkpoint")
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
        weights = {name: p.half().contiguous() for name, p in released.unet.state_dict().items()}
        part = file.with_name(f".{file.name}.part")
        save_file(weights, part, metadata={"took": json.dumps(took)})
        part.replace(file)
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
