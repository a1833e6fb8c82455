"""A protector as an ONNX file: written for any batch, height and width, and run by ONNX Runtime.

    images [batch, 3, height, width] in [0, 1], budget [batch, 1, height, width] in n/255
    -> delta [batch, 3, height, width]

The graph holds everything, including the mirroring of sizes that are no multiple of 16, so that a program in
any language needs only the file. It is built node by node with onnx alone: tracing would freeze the sizes of
an example, and torch's exporter differs between versions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unlikeness import __version__
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.files import replacing
from unlikeness.foreign import parse_json, reason
from unlikeness.protect.rid.network import BLOCK, MULTIPLE, Protector
from unlikeness.protect.rid.settings import LARGEST_BUDGET
from unlikeness.protect.rid.weights import Loaded, side_of

__all__ = ["DIGEST", "ONNX_FORMAT", "OnnxProtector", "digest", "export_onnx"]

ONNX_FORMAT = "unlikeness protector onnx 1"
"""The model's description begins with it, within the file's first 200 bytes."""

DIGEST = 64
"""Length of a `digest` [bytes]. The file ends with one."""

OPERATORS = frozenset(
    (
        "Add", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Gather", "Min", "Mod", "Mul", "Neg",
        "Range", "Shape", "Sigmoid", "Slice", "SpaceToDepth", "Squeeze", "Sub", "Tanh",
    )
)  # fmt: skip
"""All operators that an export contains."""

_OPSET, _IR = 17, 8  # of 2022; nothing newer is needed

_WHAT = (
    "images [batch, 3, height, width] in [0, 1] and a budget plane [batch, 1, height, width] in n/255 "
    "(2 to 16; 0 where nothing may change) -> delta, nowhere beyond the budget; "
    "the protected picture is images + delta, clamped to [0, 1]."
)
_EXTRA = 'an extra that is not installed; pip install "unlikeness[onnx]"'


def export_onnx(loaded: Loaded, path: Path) -> None:
    """Write `path` in one move, in float32. UnlikenessError if the package onnx is not installed.

    Its metadata hold "about" (`Loaded.about` as JSON) and "sha256" (of the file up to there).
    """
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise UnlikenessError(f"writing ONNX needs {_EXTRA}") from error

    graph = _Graph()
    _protector(graph, loaded.network)
    sizes = [("images", 3), ("budget", 1), ("delta", 3)]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, "height", "width"])
        for name, channels in sizes
    ]
    made = helper.make_graph(graph.nodes, "protector", values[:2], values[2:], graph.tensors)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="unlikeness",
        producer_version=__version__, doc_string=f"{ONNX_FORMAT}: {_WHAT}",
    )  # fmt: skip
    about = json.dumps({**loaded.about, "resolution": loaded.resolution})
    helper.set_model_props(model, {"about": about, "sha256": "0" * DIGEST})
    data = model.SerializeToString(deterministic=True)[:-DIGEST]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(data + digest(data))


def digest(data: bytes) -> bytes:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest().encode()


class _Graph:
    """A graph under construction. Every method adds nodes or tensors and returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        from onnx import helper

        name = name or f"{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def tensor(self, value: Tensor | Sequence[int] | int | float, name: str | None = None) -> str:
        """Integers become int64, everything else float32."""
        from onnx import numpy_helper

        name = name or f"constant.{len(self.tensors)}"
        if isinstance(value, Tensor):
            array = value.detach().float().cpu().contiguous().numpy()
        else:
            array = np.asarray(value)
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, name: str, module: nn.Module, x: str, weight: Tensor | None = None) -> str:
        """A convolution or its transpose, under the state dict's names; `weight` goes before its own."""
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        assert module.bias is not None
        kernel = self.tensor(module.weight if weight is None else weight, f"{name}.weight")
        bias = self.tensor(module.bias, f"{name}.bias")
        kind = "ConvTranspose" if isinstance(module, nn.ConvTranspose2d) else "Conv"
        pads = [int(side) for side in module.padding] * 2
        return self.node(kind, x, kernel, bias, name=name, strides=list(module.stride), pads=pads)

    def silu(self, x: str) -> str:
        return self.node("Mul", x, self.node("Sigmoid", x))

    def residuals(self, name: str, blocks: nn.Module, x: str) -> str:
        for i, block in enumerate(blocks.children()):
            first, second = block.children()
            inner = self.conv(f"{name}.{i}.first", first, self.silu(x))
            x = self.node("Add", x, self.conv(f"{name}.{i}.second", second, self.silu(inner)))
        return x

    def length(self, x: str, axis: int) -> str:
        """[1], int64."""
        return self.node("Shape", x, start=axis, end=axis + 1)

    def mirrored(self, x: str, axis: int) -> str:
        """Continue `x` to a multiple of 16: position L - 1 is followed by L - 1, ... 1, 0, 0, 1, ..."""
        length, zero, one = self.length(x, axis), self.tensor([0]), self.tensor(1)
        more = self.node("Mod", self.node("Neg", length), self.tensor(MULTIPLE))
        start = self.node("Squeeze", length, zero)
        end = self.node("Squeeze", self.node("Add", length, more), zero)
        period = self.node("Add", length, length)
        there = self.node("Mod", self.node("Range", start, end, one), period)
        back = self.node("Sub", self.node("Sub", period, one), there)
        further = self.node("Gather", x, self.node("Min", there, back), axis=axis)
        return self.node("Concat", x, further, axis=axis)


def _protector(g: _Graph, network: Protector) -> None:
    """`Protector.forward` and `Protector.unit`, line by line, from "images" and "budget" to "delta"."""
    two, one = g.tensor(2.0), g.tensor(1.0)
    signed = g.node("Sub", g.node("Mul", "images", two), one)
    seen = g.node("Concat", signed, g.node("Div", "budget", g.tensor(LARGEST_BUDGET)), axis=1)
    seen = g.mirrored(g.mirrored(seen, 2), 3)
    x = g.node("SpaceToDepth", seen, blocksize=BLOCK)
    x = g.conv("enter", network.enter, x, _for_space_to_depth(network.enter.weight))
    fine = g.residuals("down_fine", network.down_fine, x)
    x = g.conv("to_middle", network.to_middle, fine)
    middle = g.residuals("down_middle", network.down_middle, x)
    x = g.conv("to_coarse", network.to_coarse, middle)
    coarse = g.residuals("bottom", network.bottom, x)
    x = g.node("Add", middle, g.conv("from_coarse", network.from_coarse, coarse))
    middle = g.residuals("up_middle", network.up_middle, x)
    x = g.node("Add", fine, g.conv("from_middle", network.from_middle, middle))
    fine = g.residuals("up_fine", network.up_fine, x)
    x = g.conv("leave", network.leave, g.silu(fine))
    unit = g.node("Tanh", g.node("DepthToSpace", x, blocksize=BLOCK, mode="CRD"))
    size = g.node("Concat", g.length("images", 2), g.length("images", 3), axis=0)
    unit = g.node("Slice", unit, g.tensor([0, 0]), size, g.tensor([2, 3]))
    g.node("Mul", unit, g.node("Div", "budget", g.tensor(255.0)), name="delta")


def _for_space_to_depth(weight: Tensor) -> Tensor:
    """A kernel on pixel_unshuffle's channels (colour first) for those of ONNX (place in the block first)."""
    width, _, *side = weight.shape
    return weight.view(width, -1, BLOCK**2, *side).transpose(1, 2).reshape(weight.shape)


class OnnxProtector:
    """A file of `unlikeness export`, called like `Protector`, in float32 on the CPU.

    Args:
        path: the file.
        threads: number of computing threads; None: as many as torch uses.

    Attributes:
        path: the file.
        resolution: of the models that the network was trained against [px].
        about: `Loaded.about` of the exported protector.

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
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise UnlikenessError(f"ONNX files need {_EXTRA}") from error
        self._errors = _errors()
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        options.log_severity_level = 4  # errors are raised
        options.enable_mem_pattern = False  # it plans memory for one size of picture; ours have many
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
            self.about = parse_json(about)
            self.resolution = side_of(self.about)
        except (ValueError, LookupError, TypeError) as error:
            raise UnlikenessError(
                f"{self.path} says nothing of itself that can be used ({reason(error)}); export it again"
            ) from error

    def __call__(self, images: Tensor, budget: Tensor) -> Tensor:
        """The perturbation δ, [B, 3, H, W], float32 on the images' device, nowhere beyond the budget.

        Args:
            images: [B, 3, H, W] in [0, 1], of any height and width.
            budget: n/255, [B], or a plane [B, 1, H, W] of the budget at each pixel.

        Raises:
            UsageError: tensors of another shape.
            UnlikenessError: ONNX Runtime fails, as for want of memory.
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
            delta = self._run({"images": _array(images), "budget": _array(budget)})
        except self._errors as error:
            raise UnlikenessError(
                f"{self.path} fails on {count} pictures of {width} × {height} px ({_short(error)}); "
                "give it less at a time"
            ) from error
        if delta.shape != tuple(images.shape) or delta.dtype != np.float32:
            raise UnlikenessError(
                f"{self.path} answers {list(delta.shape)} for pictures of {list(images.shape)}; export it "
                "again"
            )
        return torch.from_numpy(delta).to(images.device)

    def _run(self, inputs: dict[str, npt.NDArray[np.float32]]) -> npt.NDArray[Any]:
        (delta,) = self._session.run(["delta"], inputs)
        found: npt.NDArray[Any] = delta
        return found


def _whole(path: Path) -> bytes:
    """The file, checked before ONNX Runtime reads it: that would try to allocate a damaged size."""
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
    """UnlikenessError for operators that no export contains, such as loops, and for weights in other files.

    It needs the package onnx, which comes with onnxruntime in the extra; without it, nothing is checked.
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


def _array(x: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = x.detach().to("cpu", torch.float32).contiguous().numpy()
    return array


def _errors() -> tuple[type[Exception], ...]:
    """The errors of ONNX Runtime: classes of its own without a common parent, and three of Python's."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _short(error: Exception) -> str:
    return one_line(str(error))[:200]
