"""The report of a folder of cells: Markdown, CSV, and one page with pictures and curves."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unlikeness import __version__
from unlikeness.bench.curves import charts
from unlikeness.bench.rows import Quality, Row, read, rows
from unlikeness.errors import UnlikenessError
from unlikeness.files import write_text
from unlikeness.foreign import UnreadableError, parse_yaml
from unlikeness.html import Shown, fill, show
from unlikeness.verify.verdict import REFUSED, WORKS

__all__ = ["write"]

PUBLISHED = Path(__file__).with_name("published.yaml")
PICTURES = "pictures"
_SHOWN = 12
"""Rows with pictures on the page at most."""
_LARGEST = 4096
"""Side of a strip at most [px]; a larger one is left out."""

HEAD = ["defence", "attack", "s", "at the prompt", "in new contexts", "unprotected", "outcome",
        "unreadable", "quality", "PSNR [dB]", "subjects"]  # fmt: skip


def write(folder: Path) -> list[str]:
    """Write report.html, report.md and report.csv into the folder; lines for the terminal.

    UnlikenessError if there are no cells, or a record cannot be read.
    """
    done, failed = read(folder)
    found = rows(done)
    if not found:
        raise UnlikenessError(
            f"{folder} holds no finished cell ({failed[0].get('sentence')}); repeat `unlikeness bench run`"
        )
    broken = Counter(str(one.get("sentence")) for one in failed)
    write_text(folder / "report.csv", _csv(found))
    write_text(folder / "report.md", _markdown(found, broken))
    write_text(folder / "report.html", _page(folder, found, broken))
    worst = found[0]
    return [
        f"worst attack: {worst.attack} on {worst.cell.defence.title}, s {worst.worst.value:.2f}",
        *(f"failed, {count} cells: {sentence}" for sentence, count in broken.items()),
        str(folder / "report.html"),
    ]


def by_defence(found: Sequence[Row]) -> list[Row]:
    """The worst row of each defence, the highest s first; `found` is sorted so."""
    first: dict[str, Row] = {}
    for one in found:
        first.setdefault(one.cell.defence.title, one)
    return list(first.values())


def line(one: Row) -> list[str]:
    """A row under `HEAD`, as text."""
    return [
        one.cell.defence.title, one.attack,
        f"{one.worst.value:.2f} [{one.worst.low:.2f}, {one.worst.high:.2f}]", _number(one.s.value),
        _number(None if one.new_contexts is None else one.new_contexts.value), _number(one.unprotected),
        one.outcome,
        _share(one.figure("unreadable")), _spoiled(one), _number(one.visible.get("psnr"), 1),
        str(one.subjects) if one.seeds == 1 else f"{one.subjects} × {one.seeds} seeds",
    ]  # fmt: skip


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _share(one: Quality | None) -> str:
    if one is None:
        return "–"
    return f"{one.value:.0%}" + ("" if one.clean is None else f" ({one.clean:.0%})")


def _spoiled(one: Row) -> str:
    """The quality figure that says most: without a reference if there is one, else the distance."""
    for name in ("CLIP-IQA", "NIQE", "FDFR", "KID", "FID"):
        if (found := one.figure(name)) is not None:
            beside = "" if found.clean is None else f" ({found.clean:.2f})"
            return f"{name} {found.value:.2f}{beside}"
    return "–"


def _csv(found: Sequence[Row]) -> str:
    names = list(dict.fromkeys((q.name, q.by) for one in found for q in one.quality))
    head = ["kind", "defence", "budget", "attacker", "steps", "purifier", "s", "s_low", "s_high",
            "s_at_prompt", "s_new_contexts", "s_unprotected", "outcome", "linf", "psnr", "ssim", "subjects",
            "seeds", "pictures", "seconds"]  # fmt: skip
    for name, by in names:
        title = f"{name} {by}".strip()
        head += [title, f"{title}, unprotected"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    for one in found:
        c, own = one.cell, {(q.name, q.by): q for q in one.quality}
        values: list[Any] = [
            c.defence.kind, c.defence.name, c.defence.budget, c.attacker, one.steps, c.purifier,
            one.worst.value, one.worst.low, one.worst.high, one.s.value,
            None if one.new_contexts is None else one.new_contexts.value, one.unprotected, one.outcome,
            *(one.visible.get(name) for name in ("linf", "psnr", "ssim")), one.subjects, one.seeds,
            one.s.n_generated, one.seconds,
        ]  # fmt: skip
        for key in names:
            values += [own[key].value, own[key].clean] if key in own else [None, None]
        table.writerow("" if v is None else f"{v:.5g}" if isinstance(v, float) else v for v in values)
    return text.getvalue()


def _markdown(found: Sequence[Row], broken: Mapping[str, int]) -> str:
    parts = ["# Benchmark", "The worst attack on each defence:", _table(HEAD, map(line, by_defence(found)))]
    if beside := published(found):
        parts += ["Published figures beside measured ones:", _table(_PUBLISHED, beside)]
    parts += ["All rows:", _table(HEAD, map(line, found)), *_notes(broken)]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], lines: Any) -> str:
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    cells = [[one.replace("|", "\\|") for one in row] for row in (head, rule, *lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _notes(broken: Mapping[str, int]) -> list[str]:
    return [
        "s: 0 is any member of the class, 1 the subject itself; the larger of the training prompt and new "
        "contexts, with a 95 % interval over subjects and pictures. In brackets behind a share or a quality: "
        f"the same of the unprotected control. An attack has learnt from s {WORKS:g} on; protected is an "
        f"interval below {REFUSED:g} where the control is learnt; where it is not, the row is inconclusive.",
        *(f"Failed, {count} cells: {sentence}" for sentence, count in broken.items()),
    ]


_PUBLISHED = ["defence", "source", "measure", "published", "unprotected", "left", "left here"]


def published(found: Sequence[Row]) -> list[list[str]]:
    """Figures of papers for defences that were measured, beside the share of the control's s left here."""
    try:
        content = parse_yaml(PUBLISHED.read_text(encoding="utf-8"))
    except (OSError, UnreadableError) as error:
        raise UnlikenessError(f"{PUBLISHED} cannot be read ({error}); install the package again") from error
    made = []
    for one in content:
        same = [
            row for row in found
            if row.cell.defence.method == one["defence"] and row.cell.attacker == one["attacker"]
            and (row.cell.steps, row.cell.purifier) == (None, "none")
        ]  # fmt: skip
        for row in same:
            left = row.worst.value / row.unprotected if row.unprotected and row.unprotected >= WORKS else None
            made.append([
                f"{row.cell.defence.title}, {one['attacker']}", one["source"], one["measure"],
                f"{one['value']:.2f}", f"{one['unprotected']:.2f}",
                f"{one['value'] / one['unprotected']:.0%}", "inconclusive" if left is None else f"{left:.0%}",
            ])  # fmt: skip
    return made


def _page(folder: Path, found: Sequence[Row], broken: Mapping[str, int]) -> str:
    first = by_defence(found)
    bare = next((one for one in first if one.cell.defence.kind == "none"), first[0])
    return fill(
        "bench.html", title="Benchmark", head=HEAD, defences=[line(one) for one in first],
        bare=bare, strongest=None if bare is first[-1] else first[-1],
        bars=[(f"{one.cell.defence.title}: {one.attack}", one.worst) for one in first[:16]],
        rows=[line(one) for one in found], charts=charts(found), published=published(found),
        published_head=_PUBLISHED, galleries=_galleries(folder, first), notes=_notes(broken),
        version=__version__,
    )  # fmt: skip


def _galleries(folder: Path, first: Sequence[Row]) -> list[tuple[str, str, list[Shown]]]:
    found = []
    for one in first[:_SHOWN]:
        strips = [strip for name in one.names[:2] if (strip := _strip(folder / PICTURES / f"{name}.png"))]
        if strips:
            found.append((one.cell.defence.title, f"{one.attack}, s {one.worst.value:.2f}", show(strips)))
    return found


def _strip(path: Path) -> Image.Image | None:
    """A strip of pictures; None if it is gone or is no such picture."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.convert("RGB") if max(picture.size) <= _LARGEST else None
    except (OSError, ValueError, SyntaxError):
        return None
