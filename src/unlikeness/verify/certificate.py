"""A verdict as `certificate.json`, and its summary in the record of an immunized model.

Both hold figures, settings, seeds, versions and digests; neither holds a picture of the subject.
"""

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
from unlikeness.immunize import record
from unlikeness.provenance import versions
from unlikeness.verify.headline import headline
from unlikeness.verify.protective import Detected
from unlikeness.verify.settings import FILE
from unlikeness.verify.verdict import Fidelity, Outcome, Verdict

__all__ = ["FILE", "RECORD", "SCHEMA", "certificate", "check_own", "sign", "summary", "write_certificate"]

RECORD = record.FILE

SCHEMA = 3
"""Raised when a name or a meaning in the file changes.

2: `verdict`, `control_of`, `control_before`, `failed`, and of each attacker `outcome`, `why` and `control`.
3: lists of words in `about.settings` are lists.
"""


def certificate(verdict: Verdict) -> dict[str, Any]:
    """All results, JSON-able."""
    worst, note = verdict.worst, headline(verdict)
    return {
        "schema": SCHEMA,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "headline": {"attacker": worst.attacker, "prompt": worst.prompt, "s": asdict(worst.s)},
        "further_encoders": {name: asdict(one) for name, one in verdict.worst_by.items()},
        "verdict": {
            "outcome": verdict.kind,
            "conclusive": verdict.conclusive,
            "title": note.title,
            "text": note.text,
        },
        "control_of": verdict.control_of or None,
        "control_before": _outcome(verdict.control_before),
        "held_out": verdict.held_out,
        "attack_works_on_original": verdict.attack_works,
        "attackers": {one.attacker.name: _attacked(one, verdict) for one in verdict.outcomes},
        "left_out": dict(verdict.left_out),
        "failed": dict(verdict.failed),
        "original": _outcome(verdict.clean),
        "notice": None if verdict.output is None else verdict.output.as_record(),
        "released": _outcome(verdict.released),
        "unprotected": [_fidelity(one) for one in verdict.unprotected],
        "quality": verdict.quality and {**asdict(verdict.quality), "real_drift": verdict.quality.real_drift},
        "about": dict(verdict.about),
        "versions": versions(),
    }


def summary(made: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a certificate that goes into an immunized model's record."""

    def short(s: Mapping[str, Any]) -> dict[str, Any]:
        return {name: round(s[name], 4) for name in ("value", "low", "high")} | {"n": s["n_generated"]}

    def shares(detected: Mapping[str, Any]) -> dict[str, float | None]:
        return {name: None if part is None else round(part["value"], 4) for name, part in detected.items()}

    quality, output = made["quality"], made["notice"]
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
    if made["further_encoders"]:
        found["encoder"] = made["about"]["encoder"]
        found["further_encoders"] = {
            name: {"attacker": one["attacker"], "s": short(one["s"])}
            for name, one in made["further_encoders"].items()
        }
    if output is not None:
        of_class = None if quality is None else quality["notice"]
        found["notice"] = {
            "behaviour": output["behaviour"],
            "target_noun": output["target_noun"],
            "released": shares(made["released"]["notice"]),
            "attackers": {name: shares(one["notice"]) for name, one in made["attackers"].items()},
            "unprotected": {
                one["name"]: shares(detected)
                for one in made["unprotected"]
                if (detected := one["model"]["notice"]) is not None
            },
            "class_prompt": None if of_class is None else round(of_class["value"], 4),
        }
    if quality is not None:
        drift = quality["drift"]
        found["quality"] = {
            "n": quality["n"],
            "frechet": drift["distance"]["frechet"],
            "kernel": drift["distance"]["kernel"],
            "diversity": quality["diversity"]["value"],
            "precision": drift["precision"],
            "recall": drift["recall"],
        }
    return found


def check_own(folder: Path, pictures: str, model: str) -> None:
    """UsageError if `folder` has a certificate of other pictures or of another model, or an unreadable one.

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

    They replace those of an earlier run: see `check_own`.
    """
    from unlikeness.verify.page import write_grids, write_page

    made = certificate(verdict)
    write_grids(verdict, folder / "grids")
    write_page(verdict, made, folder / "certificate.html")
    write_text(folder / FILE, json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return made


def sign(model: Path, output: Path, summary: Mapping[str, Any], *, in_place: bool = False) -> Path | None:
    """Write a copy of the model's immunization.json, with `summary` under "measured", into `output`.

    "measured" holds one summary for each subject, by the digest of its pictures.

    in_place: replace the model's own record too, whole or not at all.

    Returns the copy's path; None for a model without a record. UsageError for `in_place` without a record.
    """
    content = record.read(model)
    if content is None:
        if in_place:
            raise UsageError(f"{model} has no {RECORD} to sign; leave --sign out, or give an immunized model")
        return None
    measured = content.get("measured")
    earlier = measured if isinstance(measured, dict) else {}
    content["measured"] = {**earlier, str(summary["pictures_sha256"]): dict(summary)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    for path in (output / RECORD, *([model / RECORD] if in_place else [])):
        write_text(path, text)
    return output / RECORD


def _outcome(one: Outcome | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "what": one.attacker.what,
        "s": asdict(one.s),
        "s_in_new_contexts": one.elsewhere and asdict(one.elsewhere),
        "further_encoders": {
            name: {"s": asdict(by.s), "s_in_new_contexts": by.elsewhere and asdict(by.elsewhere)}
            for name, by in one.further.items()
        },
        "notice": _detected(one.detected),
        "prompt": one.prompt,
        "pictures_learnt": one.pictures_learnt,
        "method": one.attacker.method,
        "settings": dict(one.settings),
        "losses": list(one.losses),
        "seconds": round(one.seconds, 1),
    }


def _detected(detected: Detected | None) -> dict[str, Any] | None:
    if detected is None:
        return None
    return {
        "at_training_prompt": asdict(detected.plain),
        "in_new_contexts": detected.elsewhere and asdict(detected.elsewhere),
    }


def _attacked(one: Outcome, verdict: Verdict) -> dict[str, Any]:
    """An attacker's outcome with what it shows, and its control."""
    found = verdict.findings[one.attacker.name]
    return {
        **(_outcome(one) or {}),
        "outcome": found.kind,
        "why": found.why or None,
        "control": _outcome(verdict.control(one.attacker.name)),
    }


def _fidelity(one: Fidelity) -> dict[str, Any]:
    return {
        "name": one.name,
        "class_noun": one.class_noun,
        "held_out": one.held_out,
        "kept": one.kept,
        "model": _outcome(one.outcome),
        "original": _outcome(one.original),
    }
