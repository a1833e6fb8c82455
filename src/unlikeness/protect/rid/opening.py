"""One opener for every kind of network: which engine computes it, and where.

Our own networks run on ONNX Runtime on the CPU: it starts in a tenth of the time that torch takes to be
imported. PyTorch computes on a GPU, where ONNX Runtime is not installed, and for the authors' network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.extras import check_extra
from unlikeness.protect.rid.saved import read_saved
from unlikeness.protect.rid.settings import is_protector

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ENGINES", "Array", "Opened", "open_network"]

Array = npt.NDArray[np.float32]

ENGINES = ("auto", "onnxruntime", "torch")
"""What may compute a network. auto: see this module's description."""

_OFFICIAL = {".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True)
class Opened:
    """A network ready for use.

    Attributes:
        resolution: of the models that it was trained against [px].
        fingerprint: a digest of its weights, the same on every device.
        arrays: (images [B, 3, H, W] in [0, 1], budget plane [B, 1, H, W] in n/255) -> δ, nowhere beyond the
            budget.
        tensors: the same for tensors: float32, on the images' device.
        engine: "onnxruntime" or "torch".
        device, dtype: where and in which precision it computes, as torch names them.
        about: what its file says of its training; an official checkpoint says nothing.
    """

    resolution: int
    fingerprint: str
    arrays: Callable[[Array, Array], Array]
    tensors: Callable[[Tensor, Tensor], Tensor]
    engine: str
    device: str
    dtype: str
    about: Mapping[str, Any] = field(default_factory=dict)


def open_network(
    weights: str, device: str = "auto", *, way: str = "resize", engine: str = "auto"
) -> Opened:
    """Open by the file's suffix: .onnx, the official .bin (.pt, .pth, .ckpt), otherwise ours by name or file.

    A .safetensors file that `train-protector` did not write is read as an official one.

    Args:
        device: auto, cpu, mps, cuda or cuda:N. For our own networks, auto is the CPU where ONNX Runtime is
            installed.
        way: how the official network, which computes squares of one size, handles others:
            `OfficialRid.delta`.
        engine: one of `ENGINES`.

    Raises:
        UsageError, UnlikenessError: of the file's own reader; an unknown device or engine, or one that does
            not fit the file; no engine is installed.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    suffix = Path(weights).suffix.lower()
    if suffix == ".onnx":
        if device not in ("auto", "cpu"):
            raise UsageError(f"an exported protector computes on the CPU, not on {device}; leave device out")
        if engine == "torch":
            raise UsageError("an exported protector is computed by onnxruntime, not by torch")
        return _exported(weights)
    safetensors = suffix == ".safetensors" and Path(weights).is_file()
    if suffix in _OFFICIAL or (safetensors and not is_protector(Path(weights))):
        if engine == "onnxruntime":
            raise UsageError("the network of the method's authors is computed by torch, not by onnxruntime")
        _check_torch("the network of the method's authors")
        from unlikeness.protect.rid.torch_engine import open_official

        return open_official(weights, device, way)
    saved = read_saved(weights)
    if engine == "onnxruntime" or (engine == "auto" and device in ("auto", "cpu") and _has_runtime()):
        if device not in ("auto", "cpu"):
            raise UsageError(f"onnxruntime computes on the CPU, not on {device}; leave device out")
        from unlikeness.protect.rid.onnx_file import OnnxProtector

        run = OnnxProtector(saved)
        return Opened(
            saved.resolution, run.fingerprint, run.arrays, run, "onnxruntime", "cpu", "float32", saved.about
        )
    _check_torch(f"device {device}" if device not in ("auto", "cpu") else "a network without onnxruntime")
    from unlikeness.protect.rid.torch_engine import open_ours

    return open_ours(saved, device)


def _exported(weights: str) -> Opened:
    from unlikeness.protect.rid.onnx_file import OnnxProtector

    run = OnnxProtector(weights)
    return Opened(
        run.resolution, run.fingerprint, run.arrays, run, "onnxruntime", "cpu", "float32", run.about
    )


def _has_runtime() -> bool:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


def _check_torch(what: str) -> None:
    """UnlikenessError if torch is not installed, or cannot be imported."""
    check_extra("models", what)
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        raise UnlikenessError(
            f"{what} needs PyTorch, which cannot be imported ({one_line(str(error))}); install it again"
        ) from error
