"""What a record says about its making: versions, names without paths, digests without pixels."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["file_digest", "own_name", "pixel_digest", "versions"]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in ("unlikeness", "torch", "diffusers", "transformers", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def own_name(called: str) -> str:
    """A hub name unchanged; the last part of the path to a file or folder."""
    path = Path(called).expanduser()
    return path.resolve().name if path.exists() else called


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixel_digest(images: Tensor) -> str:
    """SHA-256 of images at eight bits and of their shape; floats lie in [0, 1]."""
    import torch

    if images.dtype != torch.uint8:
        images = (images * 255).round().clamp(0, 255).to(torch.uint8)
    pixels = images.contiguous().cpu().numpy()
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
