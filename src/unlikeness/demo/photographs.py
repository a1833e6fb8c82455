"""A user's own photographs: protected as a folder, and shown before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unlikeness import __version__
from unlikeness.autoencoders import Autoencoder
from unlikeness.demo.closeups import compared
from unlikeness.demo.page import GAIN, check_own
from unlikeness.demo.settings import chosen_method
from unlikeness.errors import UnlikenessError
from unlikeness.files import write_text
from unlikeness.html import Note, fill
from unlikeness.measure.latents import LatentReport, displacements
from unlikeness.measure.matching import Matched
from unlikeness.progress import Progress
from unlikeness.protect import registry
from unlikeness.protect.against import Against, against_of
from unlikeness.protect.files.folder import Outcome, protect_folder
from unlikeness.protect.files.manifest import Manifest
from unlikeness.protect.surrogates import Models
from unlikeness.protect.tiling import batches
from unlikeness.settings import build

__all__ = ["PAGE", "protect_photographs"]

PAGE = "photographs.html"
HEAD = ("largest change, of 255", "PSNR [dB]", "SSIM")
SHOWN = 12
"""Pictures on the page. The manifest lists all."""
MEASURED = 6
"""Pictures that the autoencoders look at, spread evenly over all."""
LISTED = 200
"""Lines of a table on the page."""


def protect_photographs(
    photos: Path,
    output: Path,
    model: Models,
    *,
    model_name: str,
    autoencoders: Mapping[str, Autoencoder] | None = None,
    size: int = 512,
    method: str | None = None,
    budget: float = 8.0,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Protect `photos` (a folder or a picture) into OUTPUT/protected, and show the first ones on a page.

    Writes photographs.html and photographs.json. Files in `output` do not count as photographs. method: see
    `chosen_method`. autoencoders: by name; the page shows how far the change moves what they see, at a short
    side of `size` px. Raises what that and `protect_folder` raise, and UsageError if photographs.html is not
    an earlier demo's.
    """
    method = chosen_method(method, model_name)
    page = output / PAGE
    check_own(page, {"recipe", "protected", "version"})
    values: dict[str, object] = {"budget": budget}
    if steps is not None:
        values["steps"] = steps
    found = registry.method(method)
    perturber = registry.create(method, model, build(found.settings_type, values))
    against = against_of(perturber)
    folder = output / "protected"
    device = getattr(model, "device", "cpu")
    outcome = protect_folder(
        [photos], folder, perturber,
        method=method, model=model_name if registry.needs_model(method) else None, seed=seed,
        batch_size=batches.default_batch_size(perturber.resolution, device),
        exclude=[output], progress=progress,
    )  # fmt: skip
    manifest = Manifest(folder)
    done = sorted([*(entry.path for entry in outcome.protected), *outcome.before])
    entries = [manifest.entries[name] for name in done]
    measured = _measured(photos, folder, done, autoencoders or {}, size, seed, progress)
    about = {
        "version": __version__,
        "recipe": entries[0]["recipe"] if entries else None,
        "protected": len(outcome.protected),
        "done_before": len(outcome.before),
        "unchanged": len(outcome.unchanged),
        "skipped": len(outcome.skipped),
        "lossless": _summary([e for e in entries if e["lossless"]]),
        "lossy": _summary([e for e in entries if not e["lossless"]]),
        "toybox": against.toy,
        "against": against.record(),
        "latents": asdict(measured) if isinstance(measured, LatentReport) else None,
    }
    written = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    write_text(page.with_suffix(".json"), written, errors="replace")
    _tell(photos, output, outcome, entries, about, budget, _warning(against, entries), measured)
    return outcome


def _measured(
    photos: Path,
    folder: Path,
    names: Sequence[str],
    autoencoders: Mapping[str, Autoencoder],
    size: int,
    seed: int,
    progress: Progress | None,
) -> LatentReport | str:
    """What the autoencoders see of a sample, or a sentence that says why there is nothing."""
    if len(names) < 2:
        return "This is measured from two pictures on, because it is relative to other pictures."
    if not autoencoders:
        return (
            "There is no distilled autoencoder on this machine to measure this with. unlikeness surrogates "
            "lists them. --against names one, such as flux2:tiny, which is a download of some megabytes."
        )
    root = photos if photos.is_dir() else photos.parent
    pairs = Matched(tuple((name, root / name, folder / name) for name in names)).sample(MEASURED)
    try:
        return displacements(pairs, autoencoders, size=size, seed=seed, progress=progress)
    except UnlikenessError as error:  # the pictures are protected, and the page says so
        return f"This could not be measured: {error}."


def _encoders(measured: LatentReport | str) -> dict[str, Any]:
    """What the page says about the autoencoders."""
    if isinstance(measured, str):
        return {"why": measured, "head": [], "rows": [], "sentences": [], "pictures": 0, "size": 0}
    rows = []
    for one in measured.autoencoders:
        for word, figures in (("protected", one.protected), ("noise", one.noise)):
            cells = [f"{i.value:.2f} [{i.low:.2f}, {i.high:.2f}]" for i in figures.values()]
            rows.append([one.name if word == "protected" else "", word, *cells])
    return {
        "why": "",
        "head": ["encoder of", "", *measured.autoencoders[0].protected],
        "rows": rows,
        "sentences": [f"The protection {one.sentence}." for one in measured.autoencoders],
        "pictures": len(measured.pictures),
        "size": measured.size,
    }


def _summary(entries: Sequence[dict[str, Any]]) -> dict[str, float | int | None]:
    """Number of pictures, the largest L∞ [n/255], and mean PSNR [dB] and SSIM where they exist."""

    def mean(name: str) -> float | None:
        values = [e[name] for e in entries if e[name] is not None]
        return round(sum(values) / len(values), 4) if values else None

    largest = max((e["linf"] for e in entries), default=None)
    return {"pictures": len(entries), "linf": largest, "psnr": mean("psnr"), "ssim": mean("ssim")}


def _tell(
    photos: Path,
    output: Path,
    outcome: Outcome,
    entries: Sequence[dict[str, Any]],
    about: dict[str, Any],
    budget: float,
    warning: Note,
    measured: LatentReport | str,
) -> None:
    root = photos if photos.is_dir() else photos.parent
    shown = [
        (entry["path"], compared(root / entry["path"], output / "protected" / entry["path"], gain=GAIN))
        for entry in entries[:SHOWN]
    ]
    kinds = {"lossless": "formats that keep every value", "lossy": "formats that compress"}
    text = fill(
        "photographs.html",
        title="Your photographs, protected",
        version=__version__,
        total=len(entries),
        earlier=len(outcome.before),
        warning=warning,
        budget=budget,
        shown=shown,
        encoders=_encoders(measured),
        head=list(HEAD),
        summary=[
            [label, str(about[kind]["pictures"]), *_cells(about[kind])]
            for kind, label in kinds.items()
            if about[kind]["pictures"]
        ],
        lines=[[entry["path"], *_cells(entry), entry["note"] or ""] for entry in entries[:LISTED]],
        unchanged=[f"{entry.path}: {entry.note}" for entry in outcome.unchanged[:LISTED]],
        unchanged_count=len(outcome.unchanged),
        skipped=[entry.reason for entry in outcome.skipped[:LISTED]],
        skipped_count=len(outcome.skipped),
    )
    write_text(output / PAGE, text, errors="replace")


def _warning(against: Against, entries: Sequence[dict[str, Any]]) -> Note:
    """The note at the top: whether anything was protected, and against what."""
    if not entries:
        return Note(
            "bad", "Nothing was protected", "No picture was changed. The lists below give the reasons."
        )
    if against.kind == "control":
        return Note(
            "bad",
            "This is plain noise, and no protection",
            "It is for comparison: random changes of the same size. Choose another method to protect.",
        )
    if against.toy:
        return Note(
            "bad",
            "This was a trial: it does not protect against Stable Diffusion",
            "The change was computed against the small embedded toy model. It does nothing against Stable "
            "Diffusion or any model that people use. To protect pictures, name the model that an attacker "
            "would use: unlikeness protect --help says how. "
            f"This change was computed with: {against.source}.",
        )
    if not against.models:
        return Note("bad", "It is unknown what this protects against", f"{against.sentence}.")
    return Note(
        "open",
        f"Computed against {against.opponents}",
        "It may do nothing against other models, or once a picture was compressed, resized or cleaned. It is "
        "not known to stop a fine-tune: measure before you trust it. "
        f"It was computed with: {against.source}.",
    )


def _cells(figures: dict[str, Any]) -> list[str]:
    """L∞, PSNR and SSIM as text."""
    styles = {"linf": "{:.3g}", "psnr": "{:.1f}", "ssim": "{:.3f}"}
    return ["–" if figures[name] is None else style.format(figures[name]) for name, style in styles.items()]
