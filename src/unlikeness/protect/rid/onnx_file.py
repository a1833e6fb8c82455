"""A protector as an ONNX file, and every protector of ours run by ONNX Runtime.

`graph` makes the graph. The file needs only it: a program in any language can run it. Neither torch nor the
package `onnx` is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unlikeness import __version__
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.files import replacing
from unlikeness.foreign import parse_json, reason
from unlikeness.protect.rid.graph import OPERATORS, protector_graph
from unlikeness.protect.rid.onnx_graph import model_bytes, unexpected
from unlikeness.protect.rid.saved import Saved, damaged, side_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DIGEST", "ONNX_FORMAT", "OnnxProtector", "digest", "export_onnx", "threads_here"]

Array = npt.NDArray[np.float32]

ONNX_FORMAT = "unlikeness protector onnx 1"
"""The model's description begins with it, within the file's first 200 bytes."""

_LARGEST = 1 << 30
"""Largest file [bytes]; ours are of 6 MB."""

DIGEST = 64
"""Length of a `digest` [bytes]. The file ends with one."""

_WHAT = (
    "images [batch, 3, height, width] in [0, 1] and a budget plane [batch, 1, height, width] in n/255 "
    "(2 to 16; 0 where nothing may change) -> delta, nowhere beyond the budget; "
    "the protected picture is images + delta, clamped to [0, 1]."
)


def export_onnx(saved: Saved, path: Path) -> None:
    """Write `path` in one move, in float32.

    Its metadata hold "about" (`Saved.about` as JSON) and "sha256" (of the file up to there).
    UnlikenessError if the weights do not fit the network's sizes.
    """
    data = _encoded(saved)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(data)


def _encoded(saved: Saved) -> bytes:
    try:
        graph = protector_graph(saved.settings, saved.arrays)
    except ValueError as error:
        raise damaged(saved.path, error) from error
    about = json.dumps({**saved.about, "resolution": saved.resolution})
    doc = f"{ONNX_FORMAT}: {_WHAT}"
    metadata = {"about": about, "sha256": "0" * DIGEST}
    data = model_bytes(graph, version=__version__, doc=doc, metadata=metadata)[:-DIGEST]
    return data + digest(data)


def digest(data: bytes) -> bytes:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest().encode()


def threads_here() -> int:
    """Threads to compute with: OMP_NUM_THREADS, else as many as this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and 0 < int(asked) < 1 << 10:
        return int(asked)
    usable = getattr(os, "sched_getaffinity", None)  # Linux
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


class OnnxProtector:
    """A protector run by ONNX Runtime, called like `Protector`, in float32 on the CPU.

    Args:
        source: a file of `unlikeness export`, or a file of `train-protector` that was read.
        threads: number of computing threads; None: `threads_here`.

    Attributes:
        path: the file.
        fingerprint: 16 digits of the SHA-256 of the file, or of what was read.
        resolution: of the models that the network was trained against [px].
        about: what the protector says of its training.

    Raises:
        UsageError: there is no such file, it is not of `unlikeness export`, or `threads` is below 1.
        UnlikenessError: onnxruntime is not installed, or the file is damaged.
    """

    def __init__(self, source: str | PathLike[str] | Saved, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        if isinstance(source, Saved):
            self.path, data = source.path, _encoded(source)
            self.fingerprint = source.fingerprint
        else:
            self.path = Path(source)
            data = _whole(self.path)
            self.fingerprint = hashlib.sha256(data).hexdigest()[:16]
            _check_graph(self.path, data)
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise UnlikenessError(
                f"ONNX Runtime cannot be imported ({one_line(str(error))}); pip install onnxruntime"
            ) from error
        self._errors = _errors()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or threads_here()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised
        options.enable_mem_pattern = False  # it plans memory for one size of picture; ours have many
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting costs no CPU time
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            about = self._session.get_modelmeta().custom_metadata_map.get("about", "")
            names = [one.name for one in (*self._session.get_inputs(), *self._session.get_outputs())]
        except self._errors as error:
            raise UnlikenessError(f"{self.path} cannot be used ({_short(error)}); export it again") from error
        if names != ["images", "budget", "delta"]:
            raise UnlikenessError(
                f"{self.path} does not lead from images and budget to delta; export it again"
            )
        try:
            self.about: Mapping[str, Any] = parse_json(about)
            self.resolution = side_of(self.about)
        except (ValueError, LookupError, TypeError) as error:
            raise UnlikenessError(
                f"{self.path} says nothing of itself that can be used ({reason(error)}); export it again"
            ) from error

    def arrays(self, images: Array, budget: Array) -> Array:
        """The perturbation δ, [B, 3, H, W], nowhere beyond the budget.

        Args:
            images: [B, 3, H, W] in [0, 1], of any height and width.
            budget: n/255, [B], or a plane [B, 1, H, W] of the budget at each pixel.

        Raises:
            UsageError: arrays of another shape.
            UnlikenessError: ONNX Runtime fails, as for want of memory.
        """
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise UsageError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        count, _, height, width = images.shape
        if budget.shape == (count,):
            budget = np.broadcast_to(budget[:, None, None, None], (count, 1, height, width))
        if budget.shape != (count, 1, height, width):
            raise UsageError(
                f"budget must be [{count}] or [{count}, 1, {height}, {width}], not {list(budget.shape)}"
            )
        try:
            (found,) = self._session.run(["delta"], {"images": _plain(images), "budget": _plain(budget)})
        except self._errors as error:
            raise UnlikenessError(
                f"{self.path} fails on {count} pictures of {width} × {height} px ({_short(error)}); "
                "give it less at a time"
            ) from error
        delta: npt.NDArray[Any] = found
        if delta.shape != images.shape or delta.dtype != np.float32:
            raise UnlikenessError(
                f"{self.path} answers {list(delta.shape)} for pictures of {list(images.shape)}; export it "
                "again"
            )
        return delta

    def __call__(self, images: Tensor, budget: Tensor) -> Tensor:
        """`arrays` for tensors: float32 on the images' device."""
        import torch

        given = (one.detach().to("cpu", torch.float32).numpy() for one in (images, budget))
        return torch.from_numpy(self.arrays(*given)).to(images.device)


def _whole(path: Path) -> bytes:
    """The file, checked before ONNX Runtime reads it: that would try to allocate a damaged size."""
    if not path.is_file():
        raise UsageError(f"weights {path} are no file; name one that `unlikeness export` wrote")
    with path.open("rb") as file:
        head = file.read(200)
        if ONNX_FORMAT.encode() not in head:
            raise UsageError(f"{path} is not of `unlikeness export`; name another file")
        data = head + file.read(_LARGEST)
    if len(data) > _LARGEST:
        raise UnlikenessError(f"{path} is larger than {_LARGEST >> 30} GiB, as no export is; export it again")
    if not data.endswith(digest(data[:-DIGEST])):
        raise UnlikenessError(f"{path} is damaged, or was changed since its export; export it again")
    return data


def _check_graph(path: Path, data: bytes) -> None:
    """UnlikenessError for operators that no export has, such as loops, and for weights in other files."""
    try:
        fault = unexpected(data, OPERATORS)
    except ValueError as error:
        raise UnlikenessError(f"{path} is damaged; export it again") from error
    if fault is not None:
        raise UnlikenessError(f"{path}: {one_line(fault)[:120]}; export it again")


def _plain(array: npt.NDArray[Any]) -> Array:
    return np.ascontiguousarray(array, np.float32)


def _errors() -> tuple[type[Exception], ...]:
    """The errors of ONNX Runtime: classes of its own without a common parent, and three of Python's."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _short(error: Exception) -> str:
    return one_line(str(error))[:200]
