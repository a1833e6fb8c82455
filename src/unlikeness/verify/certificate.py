"""A verdict as `certificate.json`: figures, settings, seeds, versions, digests; no picture of the subject."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unlikeness.errors import UsageError
from unlikeness.files import write_text
from unlikeness.foreign import UnreadableError, read_json, reason
from unlikeness.measure.similarity import SubjectSimilarity
from unlikeness.provenance import versions
from unlikeness.verify.headline import headline
from unlikeness.verify.notice import Seen
from unlikeness.verify.quality import Quality
from unlikeness.verify.settings import FILE
from unlikeness.verify.verdict import Fidelity, Outcome, Verdict

__all__ = ["FILE", "SCHEMA", "certificate", "check_own", "summary", "write_certificate"]

SCHEMA = 2
"""Raised when a name or a meaning in the file changes. 2: `verdict`, `control_of`, `control_before`,
`failed`, and of each attacker `outcome`, `why` and `control`; the rest is as in 1."""


def certificate(verdict: Verdict) -> dict[str, Any]:
    """All that was found, JSON-able; the headline is the worst attacker, the verdict what all show."""
    worst, told = verdict.worst, headline(verdict)
    return {
        "schema": SCHEMA,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "headline": {"attacker": worst.attacker, "prompt": worst.prompt, "s": asdict(worst.s)},
        "verdict": {
            "outcome": verdict.kind,
            "conclusive": verdict.conclusive,
            "title": told.title,
            "text": told.text,
        },
        "control_of": verdict.control_of or None,
        "control_before": None if verdict.untaught is None else _outcome(verdict.untaught),
        "held_out": verdict.held_out,
        "attack_works_on_original": verdict.attack_works,
        "attackers": {one.attacker.name: _attacked(one, verdict) for one in verdict.outcomes},
        "left_out": dict(verdict.left_out),
        "failed": dict(verdict.failed),
        "original": None if verdict.clean is None else _outcome(verdict.clean),
        "notice": None if verdict.notice is None else verdict.notice.as_record(),
        "released": None if verdict.released is None else _outcome(verdict.released),
        "unprotected": [_fidelity(one) for one in verdict.others],
        "quality": None if verdict.quality is None else _quality(verdict.quality),
        "about": dict(verdict.about),
        "versions": versions(),
    }


def summary(made: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a certificate that goes into an immunized model's own record."""

    def short(s: Mapping[str, Any]) -> dict[str, Any]:
        return {name: round(s[name], 4) for name in ("value", "low", "high")} | {"n": s["n_generated"]}

    found: dict[str, Any] = {
        "certificate": FILE,
        "made": made["made"],
        "class_noun": made["about"]["class_noun"],
        "pictures_sha256": made["about"]["pictures_sha256"],
        "held_out": made["held_out"],
        "verdict": made["verdict"]["outcome"],
        "control_of": made["control_of"],
        "worst": {"attacker": made["headline"]["attacker"], "s": short(made["headline"]["s"])},
        "attackers": {
            name: {**short(one["s"]), "outcome": one["outcome"]} for name, one in made["attackers"].items()
        },
        "left_out": sorted(made["left_out"]),
        "failed": sorted(made["failed"]),
        "unprotected": [
            {"name": one["name"], "s": short(one["model"]["s"]), "kept": one["kept"]}
            for one in made["unprotected"]
        ],
        "quality": None,
    }
    if made["notice"] is not None:
        found["notice"] = {
            "behaviour": made["notice"]["behaviour"],
            "target_noun": made["notice"]["target_noun"],
            "released": _shares(made["released"]["notice"]),
            "attackers": {name: _shares(one["notice"]) for name, one in made["attackers"].items()},
            "unprotected": {
                one["name"]: _shares(seen)
                for one in made["unprotected"]
                if (seen := one["model"]["notice"]) is not None
            },
            "class_prompt": _unasked(made["quality"]),
        }
    if made["quality"] is not None:
        quality = made["quality"]
        found["quality"] = {
            "n": quality["n"],
            "frechet": quality["drift"]["distance"]["frechet"],
            "kernel": quality["drift"]["distance"]["kernel"],
            "diversity": quality["diversity"]["value"],
            "precision": quality["drift"]["precision"],
            "recall": quality["drift"]["recall"],
        }
    return found


def check_own(folder: Path, pictures: str, model: str) -> None:
    """UsageError if `folder` has the certificate of other pictures or of another model, or one that cannot be
    read.

    pictures: `Subject.digest`; model: its `fingerprint`.
    """
    path = folder / FILE
    if not path.is_file():
        return
    try:
        about = read_json(path, most=1 << 26)["about"]
        said = about["pictures_sha256"], about["model"]
    except (UnreadableError, LookupError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read ({reason(error)}), and is left alone; delete it, or name another --output"
        ) from error
    named = zip(said, (pictures, model), ("other pictures", "another model"), strict=True)
    differs = [words for before, now, words in named if before != now]
    if differs:
        whose = " and of ".join(differs)
        raise UsageError(f"{path} is the certificate of {whose}, and is left alone; name another --output")


def write_certificate(verdict: Verdict, folder: Path) -> dict[str, Any]:
    """Write certificate.json, certificate.html and the grids into `folder`; returns the JSON's content.

    It replaces what is there of an earlier one: see `check_own`.
    """
    from unlikeness.verify.page import write_grids, write_page

    made = certificate(verdict)
    write_grids(verdict, folder / "grids")
    write_page(verdict, made, folder / "certificate.html")
    write_text(folder / FILE, json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return made


def _s(s: SubjectSimilarity | None) -> dict[str, Any] | None:
    return None if s is None else asdict(s)


def _seen(seen: Seen | None) -> dict[str, Any] | None:
    if seen is None:
        return None
    return {
        "at_training_prompt": asdict(seen.plain),
        "in_new_contexts": None if seen.elsewhere is None else asdict(seen.elsewhere),
    }


def _shares(seen: Mapping[str, Any]) -> dict[str, float | None]:
    """The values of what `_seen` made."""
    return {name: None if part is None else round(part["value"], 4) for name, part in seen.items()}


def _unasked(quality: Mapping[str, Any] | None) -> float | None:
    """Share of the released model's class pictures that show the notice; None if that was not looked at."""
    seen = None if quality is None else quality["notice"]
    return None if seen is None else round(seen["value"], 4)


def _outcome(one: Outcome) -> dict[str, Any]:
    return {
        "what": one.attacker.what,
        "s": _s(one.s),
        "s_in_new_contexts": _s(one.elsewhere),
        "notice": _seen(one.seen),
        "prompt": one.prompt,
        "pictures_learnt": one.pictures_learnt,
        "method": one.attacker.method,
        "settings": dict(one.settings),
        "losses": list(one.losses),
        "seconds": round(one.seconds, 1),
    }


def _attacked(one: Outcome, verdict: Verdict) -> dict[str, Any]:
    """An attacker's outcome with what it shows, beside its control."""
    found, control = verdict.findings[one.attacker.name], verdict.control(one.attacker.name)
    return {
        **_outcome(one),
        "outcome": found.kind,
        "why": found.why or None,
        "control": None if control is None else _outcome(control),
    }


def _fidelity(one: Fidelity) -> dict[str, Any]:
    return {
        "name": one.name,
        "class_noun": one.class_noun,
        "held_out": one.held_out,
        "kept": one.kept,
        "model": _outcome(one.outcome),
        "original": None if one.original is None else _outcome(one.original),
    }


def _quality(quality: Quality) -> dict[str, Any]:
    return {**asdict(quality), "real_drift": quality.real_drift}
