"""What a record says about its making: versions, names without paths, digests without pixels."""

from __future__ import annotations

import ast
import hashlib
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["code_digest", "file_digest", "own_name", "pixel_digest", "versions"]


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


def code_digest(paths: Iterable[Path], root: Path) -> str:
    """SHA-256, hexadecimal, of what modules do: of their code without comments and docstrings.

    paths: files, or folders with all that is below. A module is named by its place below `root`.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            code = _code_of(file, file.stat().st_mtime_ns)
            digest.update(f"{file.relative_to(root).as_posix()}\n{code}\n".encode())
    return digest.hexdigest()


@cache
def _code_of(file: Path, changed: int) -> str:
    """A module's code without comments and docstrings. changed: when its file was written."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A lone string is a docstring, of whatever it stands below.
            said = [n for n in body if not _is_text(n)]
            node.body = said or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_text(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return False
    return isinstance(node.value.value, str)
