"""The image encoders of `--encoder`: of photographs, of faces, and the toybox's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unlikeness.diffusion.hub import at_home
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.fetching import fetch
from unlikeness.measure.faces import DLIB, check_faces, load_dlib, load_onnx, onnx_file
from unlikeness.settings import named
from unlikeness.words import closest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "ENCODERS", "PHOTOGRAPHS", "TOYBOX_SIDE", "Encoder", "check_encoder", "check_encoders", "check_side",
    "folder_of", "load_encoder",
]  # fmt: skip

PHOTOGRAPHS: dict[str, str] = {
    "clip": "openai/clip-vit-large-patch14",
    "dino": "facebook/dino-vits16",
    "dinov2": "facebook/dinov2-base",
}
"""Encoders of photographs by name, and where the hub has them."""

ENCODERS: tuple[str, ...] = (*PHOTOGRAPHS, DLIB, "toybox")

TOYBOX_SIDE = 128
"""Longest short side [px] of pictures that the toybox's encoder takes: its own pictures have 64 px."""

_AT_ONCE = 32
_CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Encoder:
    """Pictures to vectors, a bounded number at a time.

    Attributes:
        name: in records. digest: of what decides its vectors; empty for the toybox's.
        view: what the network is given of one picture [3, H, W] in [0, 1], of one shape; None if there is
            nothing to look at, such as no face.
        vectors: [B, ...] of these to [B, width].
        faces: whether it looks at faces only. A picture without one has a row of NaN.
        square: the side [px] to which files are brought first, cropped to their central square; None: files
            keep their size.
    """

    name: str
    view: Callable[[Tensor], Tensor | None]
    vectors: Callable[[Tensor], Tensor]
    width: int
    digest: str = ""
    faces: bool = False
    square: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """[B, width] of images [B, 3, H, W] in [0, 1]."""
        return self.of_views([self.view(image) for image in images])

    def of_views(self, views: Sequence[Tensor | None]) -> Tensor:
        """[B, width], on the CPU, of what `view` gave; a row of NaN where it gave nothing."""
        import torch

        found = torch.full((len(views), self.width), float("nan"))
        there = [i for i, view in enumerate(views) if view is not None]
        with torch.no_grad():
            for first in range(0, len(there), _AT_ONCE):
                some = there[first : first + _AT_ONCE]
                batch = torch.stack([view for i in some if (view := views[i]) is not None])
                found[some] = self.vectors(batch).detach().float().cpu()
        return found


def check_encoders(names: Sequence[str]) -> tuple[str, ...]:
    """The names without repetitions; raises as `check_encoder`."""
    for name in names:
        check_encoder(name)
    return tuple(dict.fromkeys(names))


def check_encoder(name: str) -> None:
    """UsageError for what can be no encoder, as far as that is known without torch and without the hub.

    UnlikenessError for a folder whose configuration cannot be read.
    """
    if name in ENCODERS:
        if name == DLIB:
            check_faces()
        return
    path = at_home(name, "encoder")
    if onnx_file(path) is not None:
        check_faces()
        return
    if path.is_dir():
        from unlikeness.measure.towers import kind_of

        kind_of(path)
        return
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name:
        raise UsageError(
            f"{named('encoder')} {name!r} is unknown{closest(name, ENCODERS)}; known: {', '.join(ENCODERS)}, "
            "a model's folder or an ONNX file here, or a hub name OWNER/REPOSITORY"
        )


def check_side(name: str, side: int, what: str) -> None:
    """UsageError if the encoder cannot judge pictures with a short side of `side` [px].

    what: the pictures, as the start of a sentence, such as "the pictures in rex are".
    """
    if name == "toybox" and side > TOYBOX_SIDE:
        others = ", ".join((*PHOTOGRAPHS, DLIB))
        raise UsageError(
            f"the encoder toybox knows the toybox's pictures alone, and {what} photographs of {side} px; "
            f"name another with {named('encoder')}: {others}, a folder or a hub name"
        )


def load_encoder(name: str, *, device: str | torch.device = "cpu") -> Encoder:
    """An encoder by its name in `ENCODERS`, hub name (downloaded into the hub's cache), folder or ONNX file.

    Raises:
        UsageError: an unknown name, or a model of an unknown kind.
        UnlikenessError: it is not on this machine and cannot be fetched; it is damaged or out of bounds.
    """
    check_encoder(name)
    if name == "toybox":
        return _toybox()
    if name == DLIB:
        return load_dlib()
    from unlikeness.measure.towers import load_tower
    from unlikeness.provenance import own_name

    path = at_home(name, "encoder")
    if name not in ENCODERS and (file := onnx_file(path)) is not None:
        return load_onnx(file, own_name(name))
    tower = load_tower(folder_of(name), device=device)
    return Encoder(own_name(name), tower.view, tower.vectors, tower.width, tower.digest)


def folder_of(name: str) -> Path:
    """The folder of an encoder of transformers by its folder or hub name, fetched if need be."""
    path = at_home(name, "encoder")
    if name not in ENCODERS and path.is_dir():
        return path
    return _fetched(PHOTOGRAPHS.get(name, name), name)


def _toybox() -> Encoder:
    from unlikeness.toybox.evaluators import load_identity
    from unlikeness.toybox.world import SIZE
    from unlikeness.viewing import at_side

    def view(image: Tensor) -> Tensor:
        check_side("toybox", min(image.shape[-2:]), "these are")
        return at_side(image[None], SIZE)[0]

    return Encoder("toybox", view, load_identity(), 64, square=SIZE)


def _fetched(repository: str, name: str) -> Path:
    """The folder of a hub name in the hub's cache. Its kind is judged before weights are fetched."""
    from unlikeness.measure.towers import kind_of
    from unlikeness.networks.weights import needed_files

    said = f"the encoder {name}" + ("" if name == repository else f" ({repository})")

    def weights(files: list[str]) -> list[str]:
        here = [file for file in files if "/" not in file and file.endswith((".json", ".safetensors"))]
        chosen = [file for file in needed_files(here) if file in _CONFIGS or file.startswith("model")]
        if not any(file.endswith(".safetensors") for file in chosen):
            raise UsageError(
                f"{said} has no weights as safetensors on the hub; name another, or give a folder"
            )
        return chosen

    try:
        folder = fetch(repository, said, lambda files: [file for file in _CONFIGS if file in files])
        kind_of(folder)
        return fetch(repository, said, weights)
    except UnlikenessError as error:
        if "not in the hub cache" not in str(error):
            raise
        raise UnlikenessError(
            f"{said} is not on this machine, and the hub was not reached; run `hf download {repository}` "
            "where there is a network, or give the folder of a copy"
        ) from error
