"""Pictures that are held out are in nobody's hands: checked by the digests of their pixels."""

from __future__ import annotations

from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.provenance import pixel_digest

__all__ = ["check_apart"]


def check_apart(what: str, images: Tensor | None, others: str, learnt: Tensor | None) -> None:
    """UsageError if one of `images` is among `learnt`, both [N, 3, H, W] in [0, 1]; None for no pictures.

    what, others: what the two are called in the sentence. Only pictures whose pixels are alike at eight bits
    are found, not one that was saved anew or cropped.
    """
    if images is None or learnt is None:
        return
    known = {pixel_digest(image) for image in learnt}
    shared = sum(pixel_digest(image) in known for image in images)
    if shared:
        raise UsageError(
            f"{shared} of the {len(images)} {what} are among {others} too; give each picture to one of them "
            "(folders are read with all folders in them)"
        )
