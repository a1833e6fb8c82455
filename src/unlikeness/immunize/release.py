"""An immunized model as a folder: weights, record and card, complete or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.diffusion.devices import pick_dtype
from unlikeness.files import replacing
from unlikeness.immunize import card
from unlikeness.immunize.precision import as_stored, rounding
from unlikeness.immunize.record import FILE
from unlikeness.paths import check_empty
from unlikeness.tensors import written

if TYPE_CHECKING:
    import torch

    from unlikeness.diffusion.model import TextToImage

__all__ = ["save"]


def save(
    model: TextToImage,
    released: TextToImage,
    folder: Path,
    made: Mapping[str, Any],
    *,
    dtype: str | torch.dtype | None = None,
) -> float:
    """Write what `immunize` made of `model` to a new folder: a diffusers model that any tool opens.

    Args:
        made: its record (`record.record`), written as immunization.json and told in README.md, below which
            the text of the original's README.md stays.
        dtype: of the weights in the files. None: that of the original's files, part by part.

    Returns:
        The share of the change that rounding to the files' precision undoes, in [0, ...): see
        `precision.rounding`. It is written into the record too.

    Raises:
        UsageError: the folder holds something already.
        UnlikenessError: it cannot be written; nothing of it is there then.
    """
    check_empty(folder)
    files = as_stored(released, None if dtype is None else pick_dtype(dtype, released.device))
    lost = rounding(model, released, files)
    content = {**made, "dtype": str(files.dtype).removeprefix("torch."), "lost_to_rounding": round(lost, 6)}
    text = card.card(content, card.read_card(model.source))
    as_json = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with written(f"the model cannot be saved to {folder}", "free space or give another folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as whole:
            files.save_pretrained(whole)
            (whole / FILE).write_text(as_json, "utf-8", errors="replace")
            (whole / card.FILE).write_text(text, "utf-8", errors="replace")
    return lost
