"""What protections do to the autoencoders of real models, and how visible they are, on photographs.

    python -m benchmarks.real_encoders FOLDER --against taef2_encoder.pth,taesana_encoder.pth
    python -m benchmarks.real_encoders FOLDER --against ... --square 192 --limit 12 --rows encoder,...
    python -m benchmarks.real_encoders FOLDER --against ... --weights without-sana=FILE --rows without-sana

FOLDER: photographs that no training saw. All rows at 36 dB of PSNR or fainter, 8/255. The results file holds
no file name of yours. Pictures are reduced to a short side of 256 px and saved without loss, then protected.
Gradient methods take minutes a picture of that size. --square 192 gives them the squares in the middle alone,
of 192 px, and writes a results file of its own.
Latent displacement: `unlikeness.measure.latents`, at that size.
Visibility: SSIM, and the strongest regular pattern in flat areas (`unlikeness.measure.patterns`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import common
from unlikeness.autoencoders.names import title
from unlikeness.errors import UsageError
from unlikeness.measure.intervals import Interval, bootstrap_mean
from unlikeness.measure.latents import displacements
from unlikeness.measure.matching import check_size, matched
from unlikeness.measure.report import compare
from unlikeness.protect import registry
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.surrogates import Surrogates
from unlikeness.protect.tiling import batches
from unlikeness.settings import build

NAME = "real_encoders"
PSNR, SIDE, BUDGET = 36.0, 256, 8.0
ROWS: dict[str, tuple[str, dict[str, object]]] = {
    "rid-photo": ("rid", {"weights": "rid-photo"}),
    "rid-toybox": ("rid", {"weights": "rid-toybox"}),
    "encoder": ("encoder", {}),
    "encoder-everywhere": ("encoder", {"flat": 1.0}),
    "encoder-plain": ("encoder", {"flat": 1.0, "transforms": False}),
    "encoder-from-noise": ("encoder", {"start": "noise"}),
}
"""Row -> method and settings. everywhere: without the contrast map. plain: without views, too."""


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="photographs; they are never touched")
    parser.add_argument("--against", required=True, help="autoencoders: names or files, with commas between")
    parser.add_argument("--rows", default="rid-photo,rid-toybox", help="with commas between")
    parser.add_argument("--weights", action="append", default=[], metavar="ROW=FILE", help="a network")
    parser.add_argument("--square", type=int, metavar="SIDE", help="squares of this side [px]")
    parser.add_argument("--limit", type=int, default=60, help="pictures, spread evenly")
    args = parser.parse_args(argv)
    rows = dict(ROWS)
    for text in args.weights:
        row, equals, file = text.partition("=")
        if not equals:
            raise UsageError(f"--weights {text} must be ROW=FILE")
        rows[row] = ("rid", {"weights": file})
    if unknown := [row for row in args.rows.split(",") if row not in rows]:
        raise UsageError(f"--rows {unknown[0]} is none; there are {', '.join(rows)}")
    side = args.square or SIDE
    check_size(side)
    surrogates = Surrogates.named(args.against, resolution=side)
    about = {"against": [one.name for one in surrogates], "side": side, "psnr": PSNR, "seed": args.seed}
    name = NAME
    if args.square:
        about["square"], name = True, f"{NAME}_{side}"
    results = common.Results(common.results_file(name, args), NAME, about, fresh=args.fresh, keep=args.keep)
    chosen = matched(args.folder, args.folder).sample(2 if args.quick else args.limit)
    pictures = [_reduced(file, side, square=bool(args.square)) for _, file, _ in chosen.pairs]
    for row in args.rows.split(","):
        results.cell(row, partial(measured, *rows[row], pictures, surrogates, args.seed))
    results.finish({})
    print(render(results.record))


def measured(
    method: str, values: Mapping[str, object], pictures: Sequence[Image.Image], surrogates: Surrogates,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Protect the pictures, and measure the copies."""
    settings = build(registry.settings_type(method), {**values, "budget": BUDGET})
    perturber = registry.create(method, surrogates if registry.needs_model(method) else None, settings)
    with tempfile.TemporaryDirectory() as folder:
        originals, copies = Path(folder, "in"), Path(folder, "out")
        originals.mkdir()
        for place, picture in enumerate(pictures):
            picture.save(originals / f"{place:03}.png")
        protect_folder(
            [originals], copies, perturber, method=method, seed=seed, psnr=PSNR,
            batch_size=batches.default_batch_size(perturber.resolution, surrogates.device),
        )  # fmt: skip
        visible = compare(originals, copies, seed=seed)
        encoders = {one.name: one.autoencoder for one in surrogates}
        moved = displacements(matched(originals, copies), encoders, size=surrogates.resolution, seed=seed)
    flat = [one.pattern.worst for one in visible.pictures if one.pattern.worst is not None]
    ssim = [one.ssim for one in visible.pictures if one.ssim is not None]
    return {
        "pictures": len(moved.pictures),
        "moved": {one.name: _cells(one.protected) for one in moved.autoencoders},
        "noise": {one.name: _cells(one.noise) for one in moved.autoencoders},
        "psnr": None if moved.psnr is None else asdict(moved.psnr),
        "ssim": asdict(bootstrap_mean([ssim], seed=seed)),
        "flat": asdict(bootstrap_mean([flat], seed=seed)) if flat else None,
        "flat_pictures": len(flat),
        "flat_below_one": sum(one < 1 for one in flat),
    }


def _reduced(file: Path, side: int, *, square: bool) -> Image.Image:
    """The picture with a short side of `side` px, so that the autoencoders see what was protected; or the
    square in its middle, which is all that the measure sees."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    factor = side / min(picture.size)
    width, height = (max(round(length * factor), side) for length in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side)) if square else picture


def _cells(intervals: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    return {way: asdict(interval) for way, interval in intervals.items()}


def render(record: Mapping[str, Any]) -> str:
    """One table of displacement and one of visibility."""
    cells, names = record["cells"], record["about"]["against"]
    ways = list(next(iter(cells.values()))["moved"][names[0]])
    moved = [
        [f"{label} ({cell['pictures']})", title(name), *(_shown(figures[name][way]) for way in ways)]
        for row, cell in cells.items()
        for label, figures in ((f"`{row}`", cell["moved"]), (f"noise of `{row}`'s strength", cell["noise"]))
        for name in names
    ]
    seen = [
        [
            f"`{row}`", _shown(cell["psnr"], 1), _shown(cell["ssim"], 3),
            "–" if cell["flat"] is None else _shown(cell["flat"]),
            f"{cell['flat_below_one']} of {cell['flat_pictures']}",
        ]
        for row, cell in cells.items()
    ]  # fmt: skip
    heads = ["", "PSNR [dB]", "SSIM", "pattern in flat areas (1: just noticed)", "pictures below 1"]
    return "\n\n".join([common.table(["", "encoder", *ways], moved), common.table(heads, seen)])


def _shown(found: Mapping[str, Any], digits: int = 2) -> str:
    interval = Interval(**found)
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


if __name__ == "__main__":
    common.main(cli)
