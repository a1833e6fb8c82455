"""The figures of a certificate in the record that an immunized model carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.files import write_text
from unlikeness.foreign import UnreadableError, read_json
from unlikeness.immunize.record import LARGEST

__all__ = ["RECORD", "sign"]

RECORD = "immunization.json"


def sign(model: Path, output: Path, summary: Mapping[str, Any], *, in_place: bool = False) -> Path | None:
    """Write a copy of the model's immunization.json with `summary` under "measured" into `output`.

    "measured" holds a summary for each subject, by the digest of its pictures, so that verifying one leaves
    what was measured of another. in_place: replace the model's own record too, whole or not at all.

    Returns the copy's path; None for a model that has no record. UsageError for `in_place` without one.
    """
    record = model / RECORD
    if not record.is_file():
        if in_place:
            raise UsageError(f"{model} has no {RECORD} to sign; leave --sign out, or give an immunized model")
        return None
    try:
        content = read_json(record, folder=model, most=LARGEST)
    except UnreadableError as error:
        raise UnlikenessError(f"{record} cannot be read ({error}); fetch or make the model again") from error
    if not isinstance(content, dict):
        raise UnlikenessError(f"{record} is not a JSON object; fetch or make the model again")
    measured = content.get("measured")
    earlier = measured if isinstance(measured, dict) else {}
    content["measured"] = {**earlier, str(summary["pictures_sha256"]): dict(summary)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    for path in (output / RECORD, *([record] if in_place else [])):
        write_text(path, text)
    return output / RECORD
