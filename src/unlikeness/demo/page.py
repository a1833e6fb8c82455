"""What both pages of the demo share: differences, and the check for earlier results."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.foreign import UnreadableError, read_json

__all__ = ["GAIN", "check_own", "difference"]

GAIN = 10
"""Factor by which a difference is amplified in a page."""


def difference(before: Tensor, after: Tensor, gain: float = GAIN) -> Tensor:
    """The change, `gain` times as strong, around middle grey."""
    return (0.5 + gain * (after - before)).clamp(0, 1)


def check_own(page: Path, keys: set[str]) -> None:
    """UsageError if `page`, or the JSON file of its name, exists and is not an earlier run's.

    keys: of that JSON file.
    """
    record = page.with_suffix(".json")
    if not (page.exists() or record.exists()):
        return
    try:
        made = read_json(record, most=1 << 26)
    except UnreadableError:
        made = None
    if not (isinstance(made, dict) and keys <= made.keys()):
        raise UsageError(
            f"{page} or {record.name} is there, and no earlier demo has made it; name another --output"
        )
