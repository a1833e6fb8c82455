"""Which protectors there are, told without torch."""

from __future__ import annotations

from pathlib import Path

from unlikeness.errors import UsageError
from unlikeness.foreign import UnreadableError
from unlikeness.tensors import read_header

__all__ = ["FORMAT", "SHIPPED", "check_weights", "is_protector"]

SHIPPED = Path(__file__).parent / "shipped"
"""The folder of the weights that travel with the package: NAME.safetensors, with its model card NAME.md."""

FORMAT = "unlikeness protector 1"
"""What a protector's file calls itself."""


def is_protector(path: Path) -> bool:
    """Has `train-protector` written this file?"""
    try:
        return read_header(path).get("format") == FORMAT
    except UnreadableError:
        return False


def check_weights(name_or_path: str) -> Path:
    """The file of a shipped protector's name, or of any file that is there; UsageError if there is none."""
    path, shipped = Path(name_or_path), SHIPPED / f"{name_or_path}.safetensors"
    if path.name == name_or_path and shipped.is_file():  # ./NAME is a file
        return shipped
    if not (name_or_path and path.is_file()):
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.safetensors"))) or "none"
        raise UsageError(f"weights {name_or_path} are no file and no shipped protector (there are: {known})")
    return path
