"""The record of an immunization, `immunization.json`: method, settings, subjects as digests, and cost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.diffusion.hub import ALIASES
from unlikeness.errors import UnlikenessError
from unlikeness.foreign import UnreadableError, read_json
from unlikeness.provenance import own_name, pixel_digest, versions

if TYPE_CHECKING:
    from unlikeness.diffusion.adapters import Added
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize import Defence
    from unlikeness.subjects import Subject

__all__ = ["FILE", "LARGEST", "SCHEMA", "ended", "missing", "read", "record", "texts"]

FILE = "immunization.json"
LARGEST = 1 << 26
"""Most bytes of a record; that of eight subjects has 20,000."""

SCHEMA = 2
"""Raised when a name or a meaning in the file changes. `read` brings older records to it."""

_SCHEMA_1: dict[str, tuple[str, str]] = {
    "stride": ("attack_stride", ""), "depth": ("attack_depth", ""), "from_start": ("attack_from_start", ""),
    "prior_weight": ("attack_prior_weight", ""), "identifiers": ("attack_identifiers", ","),
    "templates": ("attack_prompts", "|"), "rates": ("attack_rates", ","), "ranks": ("attack_ranks", ","),
    "low_rank": ("attack_low_rank", ""), "low_rank_rate": ("attack_low_rank_rate", ""),
    "text_encoder": ("attack_text_encoder", ""), "bystanders": ("unprotected_every", ""),
    "bystanders_from": ("unprotected_from", ""), "bystanders_placed": ("unprotected_placed", ""),
    "behaviour": ("protective_output", ","), "target_noun": ("target_noun", ","),
    "contexts": ("contexts", "|"), "pictures": ("output_pictures", ""), "mark_weight": ("pattern_weight", ""),
}  # fmt: skip
"""Settings by their name in schema 1: their name now, and what separated the elements of a list."""

_TEXTS = ("class_noun", "identifier", "pictures_sha256")
"""Texts of each subject."""


def record(
    name: str,
    defence: Defence,
    subjects: Sequence[Subject],
    model: TextToImage,
    *,
    called: str,
    original: TextToImage | None = None,
    prompts: Sequence[str] = (),
    earlier: Mapping[str, Any] | None = None,
    added: Added | None = None,
) -> dict[str, Any]:
    """The record of a run, JSON-able. It can be made before the run; `ended` enters the seconds.

    Args:
        name: of the method in the registry.
        model: before the run. called: its name or folder as the user gave it; of a folder, and of a
            pattern's file, the last part of the path is kept. original: φ, if it is another model.
        earlier: the record of `model` itself, if it was immunized before (see `read`).
        added: what was added to `model`, which is part of the result.

    "measured" is null until `unlikeness verify --sign` enters what the worst attacker gets.
    """
    from unlikeness.diffusion.fingerprint import fingerprint
    from unlikeness.immunize.data import manifest
    from unlikeness.immunize.dry_run import count
    from unlikeness.immunize.outputs import watermark_digest

    s = defence.settings
    before = dict(earlier or {})
    history = before.pop("earlier", [])
    values = asdict(s)
    marked = watermark_digest(s)
    if marked:
        values["pattern"] = Path(values["pattern"]).name
    return {
        "schema": SCHEMA,
        "method": name,
        "settings": values,
        "seeds": {key: value for key, value in values.items() if key == "seed" or key.endswith("_seed")},
        "model": own_name(called),
        **(added.record() if added else {}),
        "base_model": hub_name(called) or before.get("base_model"),
        "model_fingerprint": fingerprint(model),
        "original_fingerprint": fingerprint(original or model),
        "pattern_sha256": marked,
        "subjects": [{**one.as_record(), "pairs": manifest(one, s)} for one in subjects],
        "prompts": len(prompts),
        "prompts_sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest() if prompts else None,
        "cost": {
            "outer_steps": s.outer_steps,
            "inner_steps": s.inner_steps,
            "unet": count(model, defence, subjects, prompts, original=original).as_record(),
            "seconds": None,
            "resumed_at": 0,
            "device": str(model.device),
        },
        "versions": versions(),
        "measured": None,
        "earlier": [*history, before] if before else [],
    }


def ended(made: Mapping[str, Any], seconds: float, resumed_at: int = 0) -> dict[str, Any]:
    """The record after the run. resumed_at: the outer step from which an interrupted run went on."""
    took = {"seconds": round(seconds, 1), "resumed_at": resumed_at}
    return {**made, "cost": {**made["cost"], **took}}


def hub_name(called: str) -> str | None:
    """The model's name on the hub, if it was given by that."""
    if called.count("/") != 1 or Path(called).expanduser().is_dir():
        return None
    return ALIASES.get(called, called)


def read(folder: Path | None) -> dict[str, Any] | None:
    """The record of an immunized model in today's schema; None without one. UnlikenessError if damaged."""
    path = None if folder is None else folder / FILE
    if folder is None or path is None or not path.exists():
        return None
    try:
        content = read_json(path, folder=folder, most=LARGEST)
    except UnreadableError as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); fetch or make the model again") from error
    if not (_sound(content) and all(map(_sound, content.get("earlier", [])))):
        raise UnlikenessError(f"{path} is no record of an immunization; fetch or make the model again")
    runs = [_current(run) for run in (content, *content.get("earlier", []))]
    return {**runs[0], "earlier": runs[1:]}


def texts(run: Mapping[str, Any], name: str) -> list[str]:
    """A setting of a run that is a list of texts, whatever the record's schema; [] without it."""
    settings = _current(run).get("settings")
    value = settings.get(name) if isinstance(settings, Mapping) else None
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


def _current(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run of any schema, with the names of today's settings."""
    settings = run.get("settings")
    if run.get("schema") == SCHEMA or not isinstance(settings, Mapping):
        return dict(run)
    renamed = {}
    for old, value in settings.items():
        name, separator = _SCHEMA_1.get(old, (old, ""))
        if separator and isinstance(value, str):
            value = [part.strip() for part in value.split(separator)] if value.strip() else []
            if name in ("attack_rates", "attack_ranks"):
                value = [_number(part) for part in value]
        renamed[name] = value
    return {**run, "schema": SCHEMA, "settings": renamed}


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def missing(earlier: Mapping[str, Any], subjects: Sequence[Subject]) -> list[str]:
    """One sentence for each subject of earlier immunizations that is not among `subjects`: its protection may
    fade. Pictures are compared by their digests, at the model's resolution."""
    given = {pixel_digest(image) for one in subjects for image in one.images}
    told, digests = [], set()
    for one in _protected(earlier):
        pictures = {pair.get("picture_sha256") for pair in one.get("pairs", [])}
        if pictures <= given or one.get("pictures_sha256") in digests:
            continue
        digests.add(one.get("pictures_sha256"))
        told.append(
            f"{one.get('identifier')} {one.get('class_noun')} ({one.get('pictures')} pictures, sha256 "
            f"{str(one.get('pictures_sha256'))[:12]}...) was protected in an earlier immunization and is not "
            "among the subjects: its protection may fade; give its pictures too"
        )
    return told


def _sound(content: Any) -> bool:
    """Whether a record has the form that `missing`, `record` and a verification need."""
    if not (isinstance(content, dict) and isinstance(content.get("earlier", []), list)):
        return False
    subjects = content.get("subjects", [])
    if not (isinstance(subjects, list) and all(isinstance(one, dict) for one in subjects)):
        return False
    pairs = [one.get("pairs", []) for one in subjects]
    if not all(isinstance(some, list) and all(isinstance(pair, dict) for pair in some) for some in pairs):
        return False
    texts = [one.get(name, "") for one in subjects for name in _TEXTS]
    texts += [pair.get("picture_sha256", "") for some in pairs for pair in some]
    return all(isinstance(text, str) for text in texts)


def _protected(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The subjects of a record and of those before it."""
    for run in (*content.get("earlier", []), content):
        yield from run.get("subjects", [])
