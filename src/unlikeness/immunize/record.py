"""What was immunized, against what and at what cost: `immunization.json`, without a pixel of anybody."""

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
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.registry import Defence
    from unlikeness.subjects import Subject

__all__ = ["FILE", "LARGEST", "SCHEMA", "ended", "missing", "read", "record"]

FILE = "immunization.json"
LARGEST = 1 << 26
"""Bytes of a record: that of eight subjects has 20,000."""

SCHEMA = 1
"""Raised when a name or a meaning in the file changes."""

_TEXTS = ("class_noun", "identifier", "pictures_sha256")
"""What is a text of each subject."""


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
) -> dict[str, Any]:
    """All that a later reader needs to know of a run, JSON-able.

    Args:
        name: the method's, under which it is registered.
        model: as it was before the run. called: what the user called it, a hub name or a folder; of a
            folder only its own name is kept, as of a pattern's file. original: φ, where it was another one.
        earlier: the record that `model` itself carries, if it was immunized before (see `read`).

    It can be made before the run, whose seconds `ended` enters. "measured" stays null until `unlikeness
    verify` has something to enter.
    """
    from unlikeness.diffusion.fingerprint import fingerprint
    from unlikeness.immunize.data import manifest
    from unlikeness.immunize.outputs import mark_digest
    from unlikeness.immunize.passes import count

    s = defence.settings
    before = dict(earlier or {})
    history = before.pop("earlier", [])
    values = asdict(s)
    marked = mark_digest(s)
    if marked:
        values["pattern"] = Path(values["pattern"]).name
    return {
        "schema": SCHEMA,
        "method": name,
        "settings": values,
        "seeds": {key: value for key, value in values.items() if key == "seed" or key.endswith("_seed")},
        "model": own_name(called),
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
    """The record of a run that took so many seconds, from outer step `resumed_at` on if it was interrupted
    before."""
    took = {"seconds": round(seconds, 1), "resumed_at": resumed_at}
    return {**made, "cost": {**made["cost"], **took}}


def hub_name(called: str) -> str | None:
    """Where the model lives on the hub, if it was called by its name there."""
    if called.count("/") != 1 or Path(called).expanduser().is_dir():
        return None
    return ALIASES.get(called, called)


def read(folder: Path | None) -> dict[str, Any] | None:
    """The record of an immunized model; None for one that has none. UnlikenessError if it is damaged."""
    path = None if folder is None else folder / FILE
    if folder is None or path is None or not path.exists():
        return None
    try:
        content = read_json(path, folder=folder, most=LARGEST)
    except UnreadableError as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); fetch or make the model again") from error
    if not (_sound(content) and all(map(_sound, content.get("earlier", [])))):
        raise UnlikenessError(f"{path} is no record of an immunization; fetch or make the model again")
    found: dict[str, Any] = content
    return found


def missing(earlier: Mapping[str, Any], subjects: Sequence[Subject]) -> list[str]:
    """One sentence for each subject of earlier immunizations whose pictures are not all among those of
    `subjects`, and whose protection may therefore fade.

    Pictures are told by their digests, at the model's resolution.
    """
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
    """Whether what `missing`, `record` and a verification look at has its form."""
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
