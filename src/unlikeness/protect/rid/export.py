"""A protector as an ONNX file: `Protector.forward` node by node, for any batch, height and width.

    images [batch, 3, height, width] in [0, 1], budget [batch, 1, height, width] in n/255
    -> delta [batch, 3, height, width]

Everything is in the graph, also the mirroring of sizes that are no multiple of 16, so that a program in any
language needs nothing but the file. It is written with onnx alone: no tracing, which would freeze the
sizes of an example, and no exporter of torch's, of which each version brings another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from unlikeness import __version__
from unlikeness.errors import UnlikenessError
from unlikeness.files import replacing
from unlikeness.protect.rid.network import BLOCK, LARGEST_BUDGET, MULTIPLE, Protector
from unlikeness.protect.rid.weights import Loaded

__all__ = ["DIGEST", "ONNX_FORMAT", "digest", "export_onnx"]

ONNX_FORMAT = "unlikeness protector onnx 1"
"""The model's description begins with it, within the file's first 200 bytes."""

DIGEST = 64
"""Length of what `digest` gives, and the file ends with [bytes]."""

_OPSET, _IR = 17, 8  # of 2022; nothing newer is needed

_WHAT = (
    "images [batch, 3, height, width] in [0, 1] and a budget plane [batch, 1, height, width] in n/255 "
    "(2 to 16; 0 where nothing may change) -> delta, nowhere beyond the budget; "
    "the protected picture is images + delta, clamped to [0, 1]."
)


def export_onnx(loaded: Loaded, path: Path) -> None:
    """Write `path` in one move, in float32.

    In the metadata are "about", what `Loaded.about` says as JSON, and "sha256", of the file up to there.

    Raises:
        UnlikenessError: the package onnx is not installed.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise UnlikenessError(
            'writing ONNX needs an extra that is not installed; pip install "unlikeness[onnx]"'
        ) from error

    graph = _Graph()
    _protector(graph, loaded.network)
    sizes = [("images", 3), ("budget", 1), ("delta", 3)]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, "height", "width"])
        for name, channels in sizes
    ]
    made = helper.make_graph(graph.nodes, "protector", values[:2], values[2:], graph.tensors)
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
        producer_name="unlikeness",
        producer_version=__version__,
        doc_string=f"{ONNX_FORMAT}: {_WHAT}",
    )
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
    """Nodes and tensors so far; every method adds to them and returns the name of its result."""

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
        return self.node(
            "ConvTranspose" if isinstance(module, nn.ConvTranspose2d) else "Conv",
            x,
            kernel,
            self.tensor(module.bias, f"{name}.bias"),
            name=name,
            strides=list(module.stride),
            pads=[int(side) for side in module.padding] * 2,
        )

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
        """Continued to a multiple of 16: behind position L - 1 comes what is at L - 1, ... 1, 0, 0, 1, ..."""
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
