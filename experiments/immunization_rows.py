"""The rows of the tables of immunized models: each a method and its settings, by name."""

from __future__ import annotations

from typing import Any

from experiments.tried_rows import TRIED
from unlikeness.errors import UsageError

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
    "divert-tenth": ("divert", {**_DIVERT, "learning_rate": 3e-5}),
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
    "target-often-tenth": ("divert", {**_OFTEN, "learning_rate": 2e-5, "behaviour": "target"}),
    "target-often-start": ("divert", {**_OFTEN, "from_start": True, "behaviour": "target"}),
    "target-often-faster": ("divert", {**_OFTEN, "learning_rate": 3e-4, "behaviour": "target"}),
    "target-often-longer": ("divert", {**_OFTEN, "outer_steps": 1600, "behaviour": "target"}),
    "target-often-2": ("divert", {**_OFTEN, "bystanders": 2, "behaviour": "target"}),
    "target-often-2-faster": (
        "divert", {**_OFTEN, "bystanders": 2, "learning_rate": 3e-4, "behaviour": "target"},
    ),
    "pattern-often": ("divert", {**_OFTEN, "behaviour": "pattern"}),
    "pattern-often-weighted": ("divert", {**_OFTEN, "mark_weight": 10.0, "behaviour": "pattern"}),
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
holds. Ours, at a tenth of its rate, with and without its parts, against attackers of whom none trains the
text encoder, of these with every third attack one that is to succeed, against several kinds of attackers, and
against LoRAs alone, with plain and with guided answers. The comparisons. APDM's ablations (its Tables 4 to
7), of half the length. PersGuard's behaviours as published, its retention (λ2 = 1 unless the name says
another), and the same behaviours along simulated attacks (`divert`): with guided answers, the class held
harder at high noise, and bystanders besides, of one subject, of one with the answers without words held, of
that one with fewer bystanders, of half the length or with half batches, of these with places named more
often, and then with a step after every gradient (also with more bystanders, a larger learning rate, or for
twice the steps; and with the mark's errors counted more, alone or with a gradient before an attack's first
step; or with an erasure led away from the class, and that gradient; or another class with that gradient), of
one under words from pools (with and without a step after every gradient; and a mark, as before), of several;
and without guidance. APDM and PersGuard in one run."""

MAIN = ("none", "apdm", "divert", "adversarial", "imma")
"""The rows that are measured unless others are asked for."""


def settings_of(row: str) -> tuple[str, dict[str, Any]]:
    """Method and settings of a row; ("", {}) for "none". Of a row that a search tries too, and of each with
    another number of outer steps, as in "apdm@400". UsageError for an unknown one."""
    name, at, steps = row.partition("@")
    method, settings = {"none": ("", {}), **ROWS, **TRIED}.get(name, (None, {}))
    if method is None or (at and not steps.isdecimal()):
        raise UsageError(f"{row} is no row; there are {', '.join((*ROWS, *TRIED))}, also as ROW@STEPS")
    return method, {**settings, "outer_steps": int(steps)} if at else settings


def rows_of(text: str, *, original: bool = True) -> list[str]:
    """The rows of a flag, separated by commas; with `original` also "none". UsageError for an unknown one."""
    known = [*(["none"] if original else []), *ROWS]
    for row in text.split(","):
        if row not in known:
            raise UsageError(f"--rows {row} is no row; there are {', '.join(known)}")
    return text.split(",")
