"""The visitor's own photographs: protected as a folder, and shown before and after."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from unlikeness.demo.page import figure, page, table
from unlikeness.diffusion import TextToImage
from unlikeness.pictures import open_picture
from unlikeness.progress import Progress
from unlikeness.protect import batches, registry
from unlikeness.protect.folder import Outcome, protect_folder
from unlikeness.settings import build

SHOWN = 12
"""Pictures in the report; the manifest lists all."""

_VIEW = 360


def protect_photographs(
    photos: Path,
    output: Path,
    model: TextToImage,
    *,
    model_name: str,
    method: str = "advdm",
    budget: float = 8.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Protect the folder `photos` into `output`/protected and write `output`/report.html."""
    values: dict[str, object] = {"budget": budget}
    perturber = registry.create(method, model, build(registry.method(method).settings_type, values))
    output.mkdir(parents=True, exist_ok=True)
    outcome = protect_folder(
        [photos],
        output / "protected",
        perturber,
        method=method,
        model=model_name,
        seed=seed,
        batch_size=batches.default_batch_size(perturber.resolution, model.device),
        progress=progress,
    )
    _write(photos, output, outcome, budget, model_name)
    return outcome


def _write(photos: Path, output: Path, outcome: Outcome, budget: float, model_name: str) -> None:
    names = [entry.path for entry in outcome.protected] + list(outcome.before)
    shown = []
    for name in sorted(names)[:SHOWN]:
        before = open_picture(photos / name if photos.is_dir() else photos).rgb
        after = open_picture(output / "protected" / name).rgb
        trio = (before, after, np.clip(0.5 + 10 * (after - before), 0, 1))
        words = (name, "protected", "what changed, 10 times as strong")
        parts = "".join(figure(_view(rgb), text) for rgb, text in zip(trio, words, strict=True))
        shown.append(f'<div class="row wide">{parts}</div>')
    rows = [
        [
            entry.path,
            "–" if entry.linf is None else f"{entry.linf:.0f}",
            "–" if entry.psnr is None else f"{entry.psnr:.1f}",
            "–" if entry.ssim is None else f"{entry.ssim:.3f}",
        ]
        for entry in outcome.protected
    ]
    skipped = "".join(f"<li>{escape(entry.reason or '')}</li>" for entry in outcome.skipped)
    body = f"""
<h1>Your photographs, protected</h1>
<p class="lead">{len(outcome.protected)} protected now, {len(outcome.before)} before,
{len(outcome.skipped)} skipped.
Originals are untouched; the protected copies are in the folder <code>protected</code> beside this page,
under the same
names.</p>
<div class="verdict">The change was computed against the model <code>{escape(model_name)}</code>
with at most {budget:g} of 255 per colour value. It misleads models like that one; against others, measure
before
you trust it. The embedded
toybox is a small stand-in: for Stable Diffusion, give its folder or hub name with <code>--model</code>.</div>
{"".join(shown)}
<h2>Every picture</h2>
{table(["picture", "largest change, of 255", "PSNR [dB]", "SSIM"], rows)}
{f"<h2>Skipped</h2><ul>{skipped}</ul>" if skipped else ""}
"""
    part = output / ".report.part"
    part.write_text(page("Your photographs, protected", body), encoding="utf-8")
    part.replace(output / "report.html")


def _view(rgb: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Image.Image:
    image = Image.fromarray((rgb * 255).round().astype(np.uint8))
    image.thumbnail((_VIEW, _VIEW))
    return image
