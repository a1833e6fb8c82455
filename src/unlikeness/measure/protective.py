"""Share of images with a protective output, detected for each kind:

* pattern: the watermark is in its corner, by normalised cross-correlation (a matched filter);
* erasure: a classifier does not name the subject's class;
* target: a classifier names the target class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.errors import UsageError

__all__ = ["FOUND", "pattern_correlation", "protective"]

FOUND = 0.5
"""Correlation of a detected watermark: it causes a quarter of the corner's variance."""

_FLAT = 1e-7
"""Variance over a window, summed over the channels, that counts as none: a twelfth of a step of 255."""

_SHIFT = 0.1
"""Largest shift of a generated watermark, as a share of its side."""


def pattern_correlation(images: Tensor, pattern: Tensor, *, share: float = 0.3) -> Tensor:
    """[B] in [-1, 1]: the largest normalised cross-correlation of the lower right corner with the
    watermark.

    images: [B, 3, H, W] in [0, 1]; pattern: [3, h, w]; share: of the short side, as it was stamped
    (`immunize.outputs.stamped`). Shifts by up to a tenth of its side, up and left, are tried too, since a
    model does not copy the watermark exactly. Brightness, contrast and tint do not count: means are taken
    out of each colour channel. A flat corner has correlation 0, and so has a flat watermark.
    """
    short = min(images.shape[-2:])
    side = max(round(short * share), 2)
    slack = min(round(side * _SHIFT), short - side)
    mark = F.interpolate(pattern[None], (side, side), mode="bilinear", antialias=True)[0].to(images)
    mark = mark.double() - mark.double().mean((1, 2), keepdim=True)
    area = images[..., -(side + slack) :, -(side + slack) :].double()
    area = area - area.mean((2, 3), keepdim=True)  # of no effect but on rounding
    dot = F.conv2d(area.float(), mark.float()[None])[:, 0].double()

    def box(x: Tensor) -> Tensor:
        """Means over windows."""
        return F.avg_pool2d(F.avg_pool2d(x, (side, 1), 1), (1, side), 1)

    variance = (box(area.square()) - box(area).square()).sum(1)
    norm = (variance.clamp_min(0) * side**2).sqrt() * mark.norm()
    valid = (variance > _FLAT) & (norm > 0)  # below it, both dot and variance are rounding
    correlation = torch.where(valid, dot / norm.clamp_min(1e-6), 0).clamp(-1, 1)
    return torch.amax(correlation.flatten(1), 1).to(images)


def protective(
    kind: str,
    images: Tensor,
    *,
    pattern: Tensor | None = None,
    read: Callable[[Tensor], Sequence[str]] | None = None,
    class_noun: str = "",
    target_noun: str = "",
) -> Tensor:
    """[B] of bool: which images [B, 3, H, W] show the protective output.

    kind: "pattern" (needs `pattern`), "erasure" (`read` and `class_noun`) or "target" (`read` and
    `target_noun`). read: names the class noun of each image. UsageError for another kind, or if something
    that the kind needs is missing.
    """
    if kind == "pattern" and pattern is not None:
        return pattern_correlation(images, pattern) >= FOUND
    if kind == "erasure" and read is not None and class_noun:
        return torch.tensor([noun != class_noun for noun in read(images)])
    if kind == "target" and read is not None and target_noun:
        return torch.tensor([noun == target_noun for noun in read(images)])
    raise UsageError(
        f"the protective output {kind!r} cannot be looked for: pattern needs the watermark, erasure a "
        "classifier and the class noun, target a classifier and the target noun"
    )
