"""An exported protector on ONNX Runtime: called like `Protector`, torch tensors in and out."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError, parse_json, reason
from unlikeness.protect.rid.export import DIGEST, ONNX_FORMAT, digest

__all__ = ["OnnxProtector"]

OPERATORS = frozenset(
    (
        "Add", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Gather", "Min", "Mod", "Mul", "Neg",
        "Range", "Shape", "Sigmoid", "Slice", "SpaceToDepth", "Squeeze", "Sub", "Tanh",
    )
)  # fmt: skip
"""All that `export.py` writes."""


class OnnxProtector:
    """A file of `unlikeness export`, in float32 on the CPU.

    Args:
        path: the file.
        threads: that compute; None: as many as torch uses.

    Attributes:
        path: the file.
        resolution: of the models that the network was trained against [px].
        about: what `Loaded.about` said of the protector that was exported.

    Raises:
        UsageError: there is no such file, it is not of `unlikeness export`, or `threads` is below 1.
        UnlikenessError: onnxruntime is not installed, or the file is damaged.
    """

    def __init__(self, path: str | PathLike[str], *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        self.path = Path(path)
        data = _whole(self.path)
        _check_graph(self.path, data)
        ort = _onnxruntime()
        self._errors = _errors()
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        options.log_severity_level = 4  # what goes wrong is raised
        options.enable_mem_pattern = False  # plans memory for one size of picture: ours are of many
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
        self.about, self.resolution = _about(self.path, about)

    def __call__(self, images: Tensor, budget: Tensor) -> Tensor:
        """The perturbation δ, [B, 3, H, W], float32 on the images' device, nowhere beyond the budget.

        Args:
            images: [B, 3, H, W] in [0, 1], of any height and width.
            budget: n/255, [B], or a plane [B, 1, H, W] of the budget at each pixel.

        Raises:
            UsageError: tensors of another shape.
            UnlikenessError: ONNX Runtime gives up, as for want of memory.
        """
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise UsageError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        count, _, height, width = images.shape
        if budget.shape == (count,):
            budget = budget[:, None, None, None].expand(-1, 1, height, width)
        if budget.shape != (count, 1, height, width):
            raise UsageError(
                f"budget must be [{count}] or [{count}, 1, {height}, {width}], not {list(budget.shape)}"
            )
        try:
            delta = self._run(_array(images), _array(budget))
        except self._errors as error:
            raise UnlikenessError(
                f"{self.path} fails on {count} pictures of {width} × {height} px ({_short(error)}); "
                "give it less at a time"
            ) from error
        return torch.from_numpy(delta).to(images.device)

    def _run(self, images: npt.NDArray[np.float32], budget: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        (delta,) = self._session.run(["delta"], {"images": images, "budget": budget})
        found: npt.NDArray[Any] = delta
        if found.shape != images.shape or found.dtype != np.float32:
            raise UnlikenessError(
                f"{self.path} answers {list(found.shape)} for pictures of {list(images.shape)}; export it "
                "again"
            )
        return found


def _whole(path: Path) -> bytes:
    """The file, checked before ONNX Runtime sees it, which would believe a damaged size of terabytes."""
    if not path.is_file():
        raise UsageError(f"weights {path} are no file; name one that `unlikeness export` wrote")
    with path.open("rb") as file:
        head = file.read(200)
        if ONNX_FORMAT.encode() not in head:
            raise UsageError(f"{path} is not of `unlikeness export`; name another file")
        data = head + file.read()
    if not data.endswith(digest(data[:-DIGEST])):
        raise UnlikenessError(f"{path} is damaged, or was changed since its export; export it again")
    return data


def _check_graph(path: Path, data: bytes) -> None:
    """UnlikenessError for what no export contains: other operators, loops among them, or other files.

    It needs the package onnx, which comes with onnxruntime in the extra; without it, nothing is looked at.
    """
    try:
        import onnx
    except ImportError:
        return
    try:
        graph = onnx.load_model_from_string(data).graph
    except Exception as error:  # protobuf's own has no public name here
        raise UnlikenessError(f"{path} is damaged; export it again") from error
    other = {node.op_type for node in graph.node if node.op_type not in OPERATORS or node.domain}
    if other:
        names = one_line(", ".join(sorted(other)))[:80]
        raise UnlikenessError(f"{path} has operators that no export has ({names}); export it again")
    if any(tensor.data_location or tensor.external_data for tensor in graph.initializer):
        raise UnlikenessError(f"{path} keeps weights in other files, as no export does; export it again")


def _about(path: Path, text: str) -> tuple[Mapping[str, Any], int]:
    """What the metadata says, and the resolution in it [px]."""
    try:
        about = parse_json(text)
        side = about["resolution"]
    except (UnreadableError, LookupError, TypeError) as error:
        raise UnlikenessError(f"{path} says nothing of itself ({reason(error)}); export it again") from error
    if type(side) is not int or not 1 <= side <= 1 << 16:
        raise UnlikenessError(
            f"{path} says that its resolution is {str(side)[:40]}, which must be a whole number from 1 to "
            "65536; export it again"
        )
    return about, side


def _array(x: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = x.detach().to("cpu", torch.float32).contiguous().numpy()
    return array


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise UnlikenessError(
            'ONNX files need an extra that is not installed; pip install "unlikeness[onnx]"'
        ) from error
    module: ModuleType = onnxruntime
    return module


def _errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: classes of its own without a common parent, and three of Python's."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _short(error: Exception) -> str:
    return one_line(str(error))[:200]
