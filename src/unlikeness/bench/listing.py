"""Every name that a suite may use, with a line on what it is: `unlikeness bench list`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from unlikeness import immunize, personalize, purify
from unlikeness.bench.suites import load, shipped
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.measure.metrics import METRICS
from unlikeness.plugins import Methods
from unlikeness.presets import ATTACKS
from unlikeness.protect.registry import METHODS as PROTECTIONS
from unlikeness.verify.attackers import FURTHER, attackers
from unlikeness.words import closest

__all__ = ["listing"]

_METRICS = {
    "s": "is it the subject? 0 is any member of the class, 1 the subject itself (`measure similarity`)",
    "unreadable": "is it spoiled? share of pictures that are not read as the class",
    "FDFR, ISM": "share of pictures without a face; cosine of the faces to the subject's (encoder dlib)",
    "CLIP-IQA, CLIP-T": "quality without a reference; fit to the prompt (encoder clip)",
    "NIQE": "local statistics, against those of the control's pictures",
    "FID, KID": "distances to the control's pictures",
    "L-infinity, PSNR, SSIM": "how visible a protection of pictures is",
}


def listing(kind: str | None = None) -> Iterator[str]:
    """Lines: a title for each kind, and under it a name and its explanation. UsageError for no kind."""
    kinds = {
        "suites": _suites, "defences": _defences, "attackers": _attackers, "purifiers": _purifiers,
        "metrics": _metrics,
    }  # fmt: skip
    if kind is not None and kind not in kinds:
        raise UsageError(f"{kind} is no kind of name{closest(kind, kinds)}; valid are: {', '.join(kinds)}")
    for title, make in kinds.items():
        if kind in (None, title):
            found = dict(make())
            width = max(map(len, found))
            yield f"{title}:"
            yield from (f"  {name:<{width}}  {what}" for name, what in found.items())


def _suites() -> Iterator[tuple[str, str]]:
    for name in shipped():
        yield name, load(name).plan.about


def _defences() -> Iterator[tuple[str, str]]:
    yield "none", "nothing: what every attacker gets from an unprotected subject"
    yield "all-pictures, all-models", "every one below that is for pictures, or for models"
    yield from ((name, f"pictures: {what}") for name, what in _of(PROTECTIONS))
    yield from ((name, f"model: {what}") for name, what in _of(immunize.METHODS))


def _attackers() -> Iterator[tuple[str, str]]:
    yield "all", "every one below that is possible"
    yield from ((one.name, one.what) for one in (*attackers(), *FURTHER))
    yield from ((one.name, f"{one.what} ({one.source})") for one in ATTACKS)
    yield from _of(personalize.METHODS)


def _purifiers() -> Iterator[tuple[str, str]]:
    yield "none, all", "no purification; every one below with its default"
    for name, what in _of(purify.METHODS):
        main = purify.METHODS.settings_type(name).main
        yield name if main is None else f"{name}[:{main}]", what


def _metrics() -> Iterator[tuple[str, str]]:
    yield from _METRICS.items()
    yield from _of(METRICS)


def _of(methods: Methods[Any, Any]) -> Iterator[tuple[str, str]]:
    """Each method and the first line of its class; of another package's that is faulty, what is wrong."""
    for name in methods.names():
        try:
            said = inspect.getdoc(methods.load(name)) or inspect.getdoc(methods.settings_type(name)) or ""
        except UnlikenessError as error:
            said = one_line(str(error))
        first = one_line(said.split("\n\n")[0])
        other = "" if name in methods.homes else f" (of another package: {methods.outside()[name].value})"
        yield name, f"{first}{other}"
