"""Tensors in files: strangers' are read with care, our own are complete or not there.

Tensors that are read lie on the mapped file, and are no larger than it. A pickle is read only in torch's zip
format and with `weights_only=True`: tensors, never code. torch is imported where a function needs it, so that
a header can be read without it.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from struct import error as StructError
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UnlikenessError, one_line
from unlikeness.files import replacing
from unlikeness.foreign import UnreadableError, check_file, parse_json, reason
from unlikeness.pickles import check_keys

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

__all__ = [
    "Layout", "Stored", "all_finite", "for_readers", "open_pickle", "read_arrays", "read_header",
    "read_layout", "read_safetensors", "read_tensors", "save_tensors", "written",
]  # fmt: skip

_LARGEST_HEADER = 1 << 25
"""Bytes of a safetensors header; that of Stable Diffusion's U-Net has 80,000."""

# What torch.load(weights_only=True) raises for damaged bytes, found by trial.
_DAMAGE = (
    RuntimeError, UnpicklingError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    EOFError, OSError, OverflowError, MemoryError, StructError, zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip


def read_header(path: Path, *, folder: Path | None = None) -> dict[str, str]:
    """The texts in a safetensors file's header. UnreadableError if the file is damaged or of another kind."""
    from safetensors import SafetensorError, safe_open

    _check_header(path, folder)
    try:
        with safe_open(path, framework="numpy") as file:  # which loads no torch
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UnreadableError(reason(error)) from error


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file. dtype: as in the header ("F16"); at: its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    at: int
    size: int


@dataclass(frozen=True)
class Layout:
    """The header of a safetensors file."""

    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]


def read_layout(path: Path, *, folder: Path | None = None) -> Layout:
    """The names, shapes and places of all tensors in a safetensors file, without torch and without a tensor.

    UnreadableError if the file is damaged, of another kind, or shorter or longer than its header says.
    """
    metadata = read_header(path, folder=folder)  # where safetensors checks shapes, places and the length
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(length), surrogates=True)
    header.pop("__metadata__", None)
    found = {
        name: Stored(
            one["dtype"], tuple(one["shape"]), 8 + length + one["data_offsets"][0],
            one["data_offsets"][1] - one["data_offsets"][0],
        )
        for name, one in header.items()
    }  # fmt: skip
    return Layout(found, metadata)


def read_tensors(path: Path, *, folder: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a state dict that `torch.save` wrote, by name.

    Tensors of a safetensors file lie on the mapped file, so nothing is read yet. Those of a pickle are
    copied. Several may lie on the same bytes, which all of them together must not exceed twice.
    folder: the file must lie in it. UnreadableError, with the reason, for anything else.
    """
    import torch

    if path.suffix.lower() == ".safetensors":
        return read_safetensors(path, folder=folder)
    loaded = open_pickle(path, folder=folder)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]  # as pytorch-lightning writes it
    if not isinstance(loaded, Mapping):
        raise UnreadableError(f"it holds a {type(loaded).__name__}, no state dict")
    found: dict[str, Tensor] = {}
    total, most = 0, 2 * path.stat().st_size
    for name, value in loaded.items():
        if not isinstance(name, str):
            raise UnreadableError(f"it holds a {type(name).__name__} as a name")
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise UnreadableError(f"it holds {name[:60]!r}, which is no tensor")
        if value.is_meta or value.nbytes > value.untyped_storage().nbytes():
            raise UnreadableError(f"{name[:60]} is cut short")
        total += value.nbytes
        if total > most:
            raise UnreadableError("it would unpack to far more than its own size")
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


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file as NumPy arrays, without torch. UnreadableError for damaged ones."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    _check_header(path, None)
    try:
        return load_file(path)
    except (SafetensorError, *_DAMAGE) as error:
        raise UnreadableError(reason(error)) from error


def open_pickle(path: Path, *, folder: Path | None = None) -> Any:
    """What `torch.save` wrote, its tensors on the mapped file.

    UnreadableError, without torch's advice, for a file that holds more than tensors, or that would unpack to
    more than its own size.
    """
    import torch

    check_file(path, folder)
    try:
        _check_zip(path)
        check_keys(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd pickle protocol, it says of damaged bytes
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


@contextlib.contextmanager
def written(failure: str, remedy: str) -> Iterator[None]:
    """Turn an error of writing into an UnlikenessError, "FAILURE (reason); REMEDY".

    safetensors is covered too, whose error is no OSError.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UnlikenessError(f"{failure} ({one_line(str(error))}); {remedy}") from error


def for_readers(*paths: Path) -> None:
    """Give files and folders the permissions of new ones. safetensors and tempfile let only the owner read.

    A file system without permissions stays as it is.
    """
    umask = os.umask(0o077)  # it can only be read by setting it
    os.umask(umask)
    for path in paths:
        with contextlib.suppress(OSError):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None, *, called: str = ""
) -> None:
    """Write contiguous tensors to `path` as safetensors, in one move. UnlikenessError if that fails.

    called: what the message calls the file.
    """
    from safetensors.torch import save_file

    with written(f"{called} {path} cannot be written".strip(), "free space there, or name another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file(dict(tensors), part, None if metadata is None else dict(metadata))
            for_readers(part)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no value is NaN or infinite. Reads each value once and waits once for the device."""
    import torch

    def finite(values: Tensor) -> Tensor:
        # The extremes carry NaN along, at a tenth of the cost of a check of each value.
        values = values.float() if values.itemsize == 1 else values  # float8 has no operations of its own
        known = values.device.type in ("cpu", "cuda")  # other devices may lack aminmax
        return (torch.stack(torch.aminmax(values)) if known else values).isfinite().all()

    with torch.no_grad():
        found = [finite(one.detach()) for one in tensors if one.numel() and one.is_floating_point()]
        return not found or bool(torch.stack([one.to(found[0].device) for one in found]).all())
