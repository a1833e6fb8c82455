"""The subject similarity of folders of pictures, by one or several encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from unlikeness.diffusion.devices import pick_device
from unlikeness.errors import UsageError
from unlikeness.measure.encoders import Encoder, check_side, load_encoder
from unlikeness.measure.similarity import SubjectSimilarity, mean_similarity, pairs_of, unit
from unlikeness.provenance import pixel_digest
from unlikeness.subjects import central_square, read_folder

__all__ = ["embed_folder", "read_vectors", "similarities"]

_AT_ONCE = 32


def similarities(
    names: Sequence[str], *, generated: Path, subject: Path, of_class: Path, seed: int = 0,
    device: str = "auto", report: Callable[[str], None] | None = None,
) -> dict[str, SubjectSimilarity]:  # fmt: skip
    """s by each of these encoders (`encoders.load_encoder`), by name.

    Pictures are read one by one, so that memory does not grow with their number or size.

    Raises:
        UsageError: a wrong name; pictures that an encoder does not know, too few, or generated ones that are
            among the others; an encoder that does not tell the subject from its class.
        UnlikenessError: an encoder or a folder cannot be read.
    """
    encoders = {name: load_encoder(name, device=pick_device(device)) for name in names}
    folders = (generated, subject, of_class)
    known = [embed_folder(list(encoders.values()), folder, report=report) for folder in folders]
    (_, drawn), *others = known
    for folder, (_, digests) in zip(folders[1:], others, strict=True):
        if same := sum(one in digests for one in drawn):
            raise UsageError(
                f"{same} of the pictures in {generated} are in {folder} too, bit for bit, and would be "
                "compared with themselves; give pictures that the model drew"
            )
    found = {}
    for i, name in enumerate(encoders):
        try:
            found[name] = mean_similarity([pairs_of(*(vectors[i] for vectors, _ in known))], seed=seed)
        except UsageError as error:
            raise UsageError(f"encoder {name}: {error}") from error
    return found


def embed_folder(
    encoders: Sequence[Encoder], folder: Path, *, report: Callable[[str], None] | None = None
) -> tuple[list[Tensor], list[str]]:
    """(unit vectors [N, D] by each encoder, digests), as `read_vectors`; UsageError for a zero vector."""
    found, digests = read_vectors(encoders, folder, report=report)
    return [unit(v, faces=one.faces) for one, v in zip(encoders, found, strict=True)], digests


def read_vectors(
    encoders: Sequence[Encoder], folder: Path, *, report: Callable[[str], None] | None = None
) -> tuple[list[Tensor], list[str]]:
    """(vectors [N, D] by each encoder, digests) of the pictures below `folder`, each opened once.

    report: gets a line on each file that cannot be read.
    """
    waiting: list[list[Tensor | None]] = [[] for _ in encoders]
    parts: list[list[Tensor]] = [[] for _ in encoders]
    digests: list[str] = []

    def embed() -> None:
        for encoder, views, done in zip(encoders, waiting, parts, strict=True):
            if views:
                done.append(encoder.of_views(views))
                views.clear()

    for rgb in read_folder(folder, report=report):
        image = torch.from_numpy(rgb).permute(2, 0, 1)
        digests.append(pixel_digest(image))
        for encoder, views in zip(encoders, waiting, strict=True):
            if encoder.square:
                check_side("toybox", min(image.shape[-2:]), f"the pictures in {folder} are")
            views.append(encoder.view(central_square(rgb, encoder.square) if encoder.square else image))
        if len(digests) % _AT_ONCE == 0:
            embed()
    embed()
    return [torch.cat(done) for done in parts], digests
