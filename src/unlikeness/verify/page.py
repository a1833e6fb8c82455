"""The certificate as one HTML file with pictures, and the same pictures as PNG grids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness import __version__
from unlikeness.files import replacing, write_text
from unlikeness.gallery import grid
from unlikeness.html import Shown, fill, show
from unlikeness.measure.similarity import SubjectSimilarity
from unlikeness.progress import format_seconds
from unlikeness.verify.attackers import EVERY, FURTHER
from unlikeness.verify.headline import called, headline
from unlikeness.verify.outcomes import RELEASED
from unlikeness.verify.quality import Drift, Quality
from unlikeness.verify.verdict import ORIGINAL, WORKS, Fidelity, Finding, Outcome, Verdict

__all__ = ["write_grids", "write_page"]

SHOWN = 6
"""Images of a kind on the page, and in a row of a grid."""


def write_grids(verdict: Verdict, folder: Path) -> None:
    """NAME.png for each attacker, for the original, and for the released model.

    Rows: the references; images of the attacked original, by the same attacker or else by `paper`; images of
    the attacked model at the training prompt, and in new contexts. Other grids of an earlier run are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sheets = {one.attacker.name: one for one in verdict.outcomes}
    if verdict.clean is not None:
        sheets["original"] = verdict.clean
    if verdict.released is not None:
        sheets[verdict.released.attacker.name] = verdict.released
    for name, one in sheets.items():
        rows = [verdict.references, one.generated.plain / 255]
        before = verdict.control(name) if verdict.control_of == ORIGINAL else None
        before = before or verdict.clean
        if before is not None and one is not verdict.clean:
            rows.insert(1, before.generated.plain / 255)
        if one.generated.elsewhere is not None:
            rows.append(one.generated.elsewhere / 255)
        with replacing(folder / f"{name}.png") as part:
            grid(torch.cat([_across(row) for row in rows]), columns=SHOWN).save(part, "PNG")
    for name in {"original", *(one.name for one in (RELEASED, *EVERY, *FURTHER))} - sheets.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)


def write_page(verdict: Verdict, made: Mapping[str, Any], path: Path) -> None:
    """The page, whole or not at all. made: the certificate's JSON."""
    worst = verdict.worst
    name = f"{made['about']['identifier']} {made['about']['class_noun']}"
    amount = "inconclusive" if verdict.kind == "inconclusive" else f"s {worst.s.value:.2f}"
    text = fill(
        "certificate.html",
        title=f"How much of {name} can still be copied: {amount}",
        verdict=verdict,
        worst=worst,
        note=headline(verdict),
        control=called(verdict.control_of),
        works=WORKS,
        bars=[(title, one.worst) for title, one in verdict.titled],
        rows=[_row(title, one, verdict) for title, one in [*verdict.titled, *_before(verdict)]],
        encoders=[made["about"].get("encoder"), *verdict.worst_by],
        by_encoder=[
            [title, _interval(one.worst), *(_interval(by.worst) for by in one.further.values())]
            for title, one in verdict.titled
        ],
        references=show(verdict.references[:SHOWN]),
        galleries=[(title, one, _gallery(one, verdict)) for title, one in verdict.titled],
        unprotected=[_unprotected(one, verdict) for one in verdict.unprotected],
        quality=None if verdict.quality is None else _quality(verdict.quality),
        about=made["about"],
        made=made,
        version=__version__,
    )
    write_text(path, text)


def _across(images: Tensor) -> Tensor:
    """`SHOWN` images, evenly chosen; fewer are filled up with white."""
    which = torch.linspace(0, len(images) - 1, min(SHOWN, len(images))).round().long()
    found = images[which]
    return torch.cat([found, torch.ones(SHOWN - len(found), *images.shape[1:])])


def _row(title: str, one: Outcome, verdict: Verdict) -> list[str]:
    control, found = _beside(one, verdict)
    shares = "" if control is None or control.detected is None else f"\n{control.detected}"
    return [
        f"{title}: {one.attacker.what}",
        _interval(one.s),
        "–" if one.elsewhere is None else f"{one.elsewhere.value:.2f}",
        *([] if verdict.output is None else [f"{one.detected or '–'}"]),
        "–" if control is None else _interval(control.worst) + shares,
        "–" if found is None else found.kind,
        format_seconds(one.seconds),
    ]


def _interval(s: SubjectSimilarity) -> str:
    return f"{s.value:.2f}\n{s.low:.2f} to {s.high:.2f}"


def _before(verdict: Verdict) -> list[tuple[str, Outcome]]:
    if verdict.control_before is None:
        return []
    return [(f"{called(verdict.control_of)}, before any attack", verdict.control_before)]


def _beside(one: Outcome, verdict: Verdict) -> tuple[Outcome | None, Finding | None]:
    """An attacker's control and finding; neither for the original and the released model."""
    if all(one is not outcome for outcome in verdict.outcomes):
        return None, None
    return verdict.control(one.attacker.name), verdict.findings[one.attacker.name]


def _gallery(one: Outcome, verdict: Verdict) -> list[list[Shown]]:
    """Rows at the training prompt, in new contexts, and of the control unless it has its own gallery."""
    rows = [show(one.generated.plain[:SHOWN] / 255)]
    if one.generated.elsewhere is not None:
        count = len(one.generated.elsewhere)
        which = torch.linspace(0, count - 1, min(SHOWN, count)).round().long().tolist()
        places = [one.generated.places[i] for i in which]
        rows.append(show(one.generated.elsewhere[which] / 255, places))
    control, _ = _beside(one, verdict)
    if control is not None and control is not verdict.clean:
        pictures = control.generated.plain[:SHOWN] / 255
        rows.append(show(pictures, [f"The same attack on {called(verdict.control_of)}"] * len(pictures)))
    return rows


def _unprotected(one: Fidelity, verdict: Verdict) -> list[str]:
    before, kept, s, detected = one.original, one.kept, one.outcome.s, one.outcome.detected
    return [
        f"{one.name} ({one.class_noun})" + ("" if one.held_out else ", not held out"),
        _interval(s),
        "–" if before is None else f"{before.s.value:.2f}",
        "–" if kept is None else f"{kept:.0%}",
        *([] if verdict.output is None else [f"{detected or '–'}"]),
    ]


def _quality(quality: Quality) -> list[list[str]]:
    """Rows: figure, this model against the original, the original against other images of itself."""

    def number(value: float | None) -> str:
        return "too few pictures" if value is None else f"{value:.4g}"

    d, other = quality.drift, quality.sampling
    lines = [
        ["Fréchet distance", number(d.distance.frechet), number(other.distance.frechet)],
        ["kernel distance", number(d.distance.kernel), number(other.distance.kernel)],
        ["precision: share of images like the original's", f"{d.precision:.2f}", f"{other.precision:.2f}"],
        ["recall: share of the original's images covered", f"{d.recall:.2f}", f"{other.recall:.2f}"],
        [
            "diversity, as a share of the original's",
            f"{quality.diversity.value:.2f} ({quality.diversity.low:.2f} to {quality.diversity.high:.2f})",
            "1",
        ],
    ]
    if quality.notice is not None and quality.notice_before is not None:
        lines.append(["share with the protective output", f"{quality.notice}", f"{quality.notice_before}"])
    real: tuple[Drift | None, Drift | None] = (quality.model_to_real, quality.original_to_real)
    if real[0] is not None and real[1] is not None:
        now, before = real[0].distance, real[1].distance
        lines.append(["Fréchet distance to real pictures", number(now.frechet), number(before.frechet)])
        lines.append(["kernel distance to real pictures", number(now.kernel), number(before.kernel)])
    return lines
