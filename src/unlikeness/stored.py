"""Weights that strangers stored: tensors that lie on the mapped file, and are no larger than it.

A pickle is only read in torch's zip format and with `weights_only=True`: tensors, never code.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from struct import error as StructError
from typing import TYPE_CHECKING, Any

from unlikeness.foreign import UnreadableError, check_file, reason

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["open_pickle", "read_header", "read_safetensors", "read_tensors"]

_LARGEST_HEADER = 1 << 25
"""Bytes of a safetensors header; that of Stable Diffusion's U-Net has 80,000."""

# What torch.load(weights_only=True) raises on damaged bytes, found by damaging some.
_DAMAGE = (
    RuntimeError, UnpicklingError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    EOFError, OSError, OverflowError, MemoryError, StructError, zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip


def read_header(path: Path, *, folder: Path | None = None) -> dict[str, str]:
    """The texts in a safetensors file's header, after a check of the file. UnreadableError if it is none."""
    from safetensors import SafetensorError, safe_open

    _check_header(path, folder)
    try:
        with safe_open(path, framework="numpy") as file:  # which loads no torch
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UnreadableError(reason(error)) from error


def read_tensors(path: Path, *, folder: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a state dict that `torch.save` wrote, by name.

    Tensors of a safetensors file lie on the mapped file, so that nothing is read yet; those of a pickle are
    copied. folder: within which the file must lie. UnreadableError, with the reason, for anything else.
    """
    import torch

    if path.suffix.lower() == ".safetensors":
        return read_safetensors(path, folder=folder)
    loaded = open_pickle(path, folder=folder)
    if not isinstance(loaded, Mapping):
        raise UnreadableError(f"it holds a {type(loaded).__name__}, no state dict")
    found: dict[str, Tensor] = {}
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise UnreadableError(f"it holds {str(name)[:60]!r}, which is no tensor")
        if value.is_meta or value.nbytes > value.untyped_storage().nbytes():
            raise UnreadableError(f"{name[:60]} is cut short")
        found[name] = value.clone(memory_format=torch.contiguous_format)
    return found


def read_safetensors(path: Path, *, folder: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whatever its suffix: see `read_tensors`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_header(path, folder)
    try:
        return load_file(path)
    except (SafetensorError, *_DAMAGE) as error:
        raise UnreadableError(reason(error)) from error


def open_pickle(path: Path, *, folder: Path | None = None) -> Any:
    """What `torch.save` wrote, its tensors on the mapped file. UnreadableError, without torch's advice, if
    that cannot be read as tensors alone, or would unpack to more than the file's own size."""
    import torch

    check_file(path, folder)
    try:
        _check_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged bytes it says that they are an odd pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnreadableError:
        raise
    except zipfile.BadZipFile as error:
        raise UnreadableError("it is not in the zip format of torch.save") from error
    except _DAMAGE as error:
        foreign = re.search(r"GLOBAL ([\w.]+) w(?:as|hose)", str(error))
        if foreign is not None:
            name = foreign[1][:80]
            raise UnreadableError(f"it asks for {name}, which is refused: only tensors are read") from error
        raise UnreadableError("it is damaged, or holds more than tensors") from error


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        inside = archive.infolist()
    stored = all(one.compress_type == zipfile.ZIP_STORED for one in inside)
    if not stored or sum(one.file_size for one in inside) > path.stat().st_size:
        raise UnreadableError("it is compressed, as torch.save does not")


def _check_header(path: Path, folder: Path | None) -> None:
    check_file(path, folder)
    try:
        with path.open("rb") as file:
            start = file.read(9)
        size = path.stat().st_size
    except OSError as error:
        raise UnreadableError(reason(error)) from error
    length = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:] != b"{":
        raise UnreadableError("it is no safetensors file")
    if length > size - 8:
        raise UnreadableError("it is cut short")
    if length > _LARGEST_HEADER:
        raise UnreadableError(f"its header is larger than {_LARGEST_HEADER} bytes")
