"""`protect` on a folder of real photographs: is everything there, within the budget, at which rate?

    python -m benchmarks.photographs FOLDER
    python -m benchmarks.photographs FOLDER --method photoguard --budget 8 --limit 200

Run again, it continues. The results file holds no file name of yours.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import common
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.devices import pick_device
from unlikeness.errors import PictureError, UsageError
from unlikeness.pictures import open_picture
from unlikeness.progress import on_stderr
from unlikeness.protect import registry
from unlikeness.protect.files.check import compare
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.files.manifest import Manifest
from unlikeness.protect.files.targets import Target, find_targets
from unlikeness.protect.files.worker import HAIR
from unlikeness.protect.tiling import batches
from unlikeness.settings import build

NAME = "photographs"


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="photographs; they are never touched")
    parser.add_argument("--output", type=Path, default=common.RUNS / "photographs", help="protected copies")
    parser.add_argument("--method", default="rid")
    parser.add_argument("--budget", type=float, default=8.0, help="n/255")
    parser.add_argument("--steps", type=int, default=None, help="gradient steps, if not the method's own")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many files, by name")
    args = parser.parse_args(argv)
    values: dict[str, object] = {"budget": args.budget}
    if args.steps or args.quick:
        values["steps"] = args.steps or 2
    found = registry.method(args.method)
    if "steps" not in found.settings_type.__dataclass_fields__:
        values.pop("steps", None)
    settings = build(found.settings_type, values)
    limit = 4 if args.quick else args.limit
    targets = first_files(args.folder, args.output, limit)
    model = TextToImage.from_pretrained(args.model, device=args.device) if found.needs_model else None
    perturber = registry.create(args.method, model, settings)
    about = {
        "model": None if model is None else common.model_name(args.model),
        "weights": getattr(perturber, "fingerprint", None),
        "method": args.method,
        "settings": {name: getattr(settings, name) for name in settings.__dataclass_fields__},
        "seed": args.seed,
        "files": len(targets),
        "scale": "fit",
    }
    device = pick_device(args.device) if model is None else model.device
    results = common.Results(common.results_file(NAME, args), NAME, about, fresh=args.fresh)
    with on_stderr() as progress:
        began = time.perf_counter()
        outcome = protect_folder(
            [args.folder],
            args.output,
            perturber,
            method=args.method,
            model=None if model is None else args.model,
            seed=args.seed,
            limit=limit,
            batch_size=batches.default_batch_size(perturber.resolution, device),
            progress=progress,
        )
        took = time.perf_counter() - began
    now = len(outcome.protected) + len(outcome.skipped)
    if outcome.protected or "rate" not in results.cells:
        pixels = sum((entry.width or 0) * (entry.height or 0) for entry in outcome.protected)
        results.cells["rate"] = {
            "pictures": now,
            "seconds": round(took, 1),
            "per_second": now / took,
            "megapixels_per_second": pixels / 1e6 / took,
            "done_before": len(outcome.before),
        }
    results.cells["audit"] = audit(targets, args.output, args.budget)
    results.finish({}, device=device)
    print(render(results.record))


def first_files(folder: Path, output: Path, limit: int | None) -> list[Target]:
    """The first `limit` files of the folder, or all. UsageError for no folder or a limit below 1."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name a folder with photographs")
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}, but it must be 1 or more")
    return find_targets([folder], output)[:limit]


def audit(targets: Sequence[Target], output: Path, budget: float) -> dict[str, Any]:
    """Every input against its manifest line and its output, read again from disk and compared anew."""
    entries = Manifest(output).entries
    counts: Counter[str] = Counter(
        dict.fromkeys(("protected", "skipped", "lost", "over_budget", "metadata_changed", "size_changed"), 0)
    )
    formats: Counter[str] = Counter()
    exact: list[float] = []
    lossy: list[float] = []
    psnrs: list[float] = []
    ssims: list[float] = []
    for target in targets:
        entry = entries.get(target.name)
        status = entry["status"] if entry else "lost"
        if status == "protected" and not target.path.is_file():
            status = "lost"
        counts[status] += 1
        if status != "protected":
            continue
        try:
            before, after = open_picture(target.source), open_picture(target.path)
        except PictureError:
            counts["protected"] -= 1
            counts["lost"] += 1
            continue
        formats[before.format] += 1
        if before.size != after.size:
            counts["size_changed"] += 1
            continue
        seen = compare(before, after)
        (exact if before.lossless else lossy).append(seen.linf)
        counts["over_budget"] += before.lossless and seen.linf > budget + HAIR
        counts["metadata_changed"] += metadata(target.source) != metadata(target.path)
        psnrs += [] if seen.psnr is None else [seen.psnr]
        ssims += [] if seen.ssim is None else [seen.ssim]
    return {
        "inputs": len(targets),
        **counts,
        "formats": dict(sorted(formats.items())),
        "linf_lossless": max(exact, default=None),
        "linf_lossy_median": float(np.median(lossy)) if lossy else None,
        "psnr": float(np.mean(psnrs)) if psnrs else None,
        "ssim": float(np.mean(ssims)) if ssims else None,
    }


def metadata(path: Path) -> dict[str, Any]:
    """Everything beside the pixels: mode, every EXIF tag (those of sub-folders too), ICC and XMP."""
    with Image.open(path) as image:
        exif = image.getexif()
        folders = {pointer: dict(exif.get_ifd(pointer)) for pointer in (0x8769, 0x8825, 0xA005)}
        # Where in the file a sub-folder lies is no metadata.
        tags = {tag: value for tag, value in exif.items() if tag not in folders}
        # Strips and compression of a TIFF stand in the same table as its EXIF tags.
        # What Photoshop adds there shows the picture unprotected, and is left out: layers and a thumbnail.
        layout = {273, 278, 279, 259, 317, 322, 323, 324, 325, 34377, 37724}
        layout = layout if image.format == "TIFF" else set()
        return {
            "format": image.format,
            "mode": image.mode,
            "exif": repr({tag: value for tag, value in sorted(tags.items()) if tag not in layout}),
            "folders": repr(folders),
            "icc": image.info.get("icc_profile"),
            "xmp": image.info.get("xmp"),
        }


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    a, rate, about = record["cells"]["audit"], record["cells"]["rate"], record["about"]
    formats = ", ".join(f"{count} {name}" for name, count in a["formats"].items())
    budget = about["settings"]["budget"]

    def or_none(value: float | None, unit: str, digits: int = 2) -> str:
        return "–" if value is None else f"{value:.{digits}f}{unit}"

    rows = [
        ["photographs", f"{a['inputs']} ({formats})"],
        ["in the manifest as protected", a["protected"]],
        ["in the manifest as skipped, with the reason", a["skipped"]],
        ["lost", a["lost"]],
        ["over the budget (lossless formats)", a["over_budget"]],
        ["size changed", a["size_changed"]],
        ["EXIF, ICC, XMP or mode changed", a["metadata_changed"]],
        ["largest L∞, lossless formats", or_none(a["linf_lossless"], "/255")],
        ["median L∞, lossy formats (with their compression)", or_none(a["linf_lossy_median"], "/255")],
        ["mean PSNR, SSIM", f"{or_none(a['psnr'], ' dB')}, {or_none(a['ssim'], '', 4)}"],
        ["pictures in a second", f"{rate['per_second']:.3g} ({rate['pictures']} in {rate['seconds']:.0f} s)"],
        ["megapixels in a second", f"{rate['megapixels_per_second']:.3g}"],
    ]
    device = record.get("environment", {}).get("device", "")
    return "\n\n".join([
        common.table(["", f"{about['method']}, {budget:g}/255"], rows),
        f"On {device}, " + (f"model {about['model']}." if about["model"] else "without a model."),
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
