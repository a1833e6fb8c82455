"""A protector's file as NumPy reads it: sizes, weights, and what it says of itself. No torch is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, parse_json, reason
from unlikeness.protect.rid.settings import FORMAT, NetworkSettings, check_weights
from unlikeness.settings import build
from unlikeness.tensors import read_arrays, read_header

__all__ = ["Saved", "damaged", "read_saved", "side_of"]


@dataclass(frozen=True)
class Saved:
    """A file of `train-protector`.

    settings: the network's sizes. arrays: its state dict, float32 and finite, not checked for names and
    shapes. resolution, about: as in `weights.Loaded`.
    """

    settings: NetworkSettings
    arrays: Mapping[str, npt.NDArray[np.float32]]
    path: Path
    resolution: int
    about: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """A digest of the weights, the same on every device and in every engine."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            digest.update(name.encode())
            digest.update(self.arrays[name].tobytes())
        return digest.hexdigest()[:16]


def read_saved(name_or_path: str | Path = "rid-photo") -> Saved:
    """A shipped protector by its name, or a file of `train-protector`.

    Raises:
        UsageError: there is no such file or name, or the file is no protector.
        UnlikenessError: the file is damaged.
    """
    path = check_weights(str(name_or_path))
    try:
        metadata = read_header(path)
        if metadata.get("format") != FORMAT:  # another file may be large
            raise UsageError(f"{path} is no protector of `unlikeness train-protector`; name another file")
        arrays = read_arrays(path)
    except UnreadableError as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); fetch it again") from error
    try:
        about = parse_json(metadata["about"])
        resolution = side_of(about)
        settings = _sizes(about["network"], len(arrays))
        floats = {name: _floats(name, one) for name, one in arrays.items()}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged(path, error) from error
    return Saved(settings, floats, path, resolution, about)


def damaged(path: Path, error: Exception) -> UnlikenessError:
    return UnlikenessError(f"{path} is damaged ({reason(error)}); fetch it again")


def side_of(about: Any) -> int:
    """The resolution [px] in a file's own description. KeyError, TypeError, ValueError if there is none."""
    side = about["resolution"]
    if type(side) is not int or not 1 <= side <= 1 << 16:
        raise ValueError(f"its resolution is {str(side)[:40]}, which must be a whole number from 1 to 65536")
    return side


def _sizes(network: Any, count: int) -> NetworkSettings:
    settings = build(NetworkSettings, dict(network))
    if settings.blocks > count:  # the sizes that a file claims must cost no time
        raise ValueError(f"{count} tensors for {settings.blocks} blocks")
    return settings


def _floats(name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if array.dtype.kind != "f":
        raise ValueError(f"{name[:60]} holds no floating-point numbers")
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32)
    if not np.isfinite(floats).all():
        raise ValueError(f"{name[:60]} is not finite")
    return floats
