"""Our network as an ONNX graph, from the arrays of its file alone: without torch, in milliseconds.

    images [batch, 3, height, width] in [0, 1], budget [batch, 1, height, width] in n/255
    -> delta [batch, 3, height, width]

The graph holds everything, including the mirroring of sizes that are no multiple of 16, so that a program in
any language needs only the file. It is `network.Protector`, line by line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from unlikeness.protect.rid.onnx_graph import Graph
from unlikeness.protect.rid.settings import (
    BLOCK,
    HIDING,
    LARGEST_BUDGET,
    LEAST_CONTRAST,
    MULTIPLE,
    NetworkSettings,
)

__all__ = ["OPERATORS", "protector_graph"]

Array = npt.NDArray[Any]

OPERATORS = frozenset(
    (
        "Add", "AveragePool", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Gather", "Min",
        "Mod", "Mul", "Neg", "Range", "ReduceMean", "Shape", "Sigmoid", "Slice", "SpaceToDepth", "Sqrt",
        "Squeeze", "Sub", "Tanh",
    )
)  # fmt: skip
"""All operators of the graph."""


def protector_graph(settings: NetworkSettings, weights: Mapping[str, Array]) -> bytes:
    """The encoded graph of the network with these sizes and this state dict.

    ValueError, which names the tensor, if one is missing, is too many or has another shape.
    """
    bias = settings.sees == "colours"
    net = _Network(weights, bias)
    s, g = settings, net.graph
    two, one = g.tensor(2.0), g.tensor(1.0)
    signed = g.node("Sub", g.node("Mul", "images", two), one)
    if bias:
        signed = g.node("Concat", signed, g.node("Div", "budget", g.tensor(LARGEST_BUDGET)), axis=1)
    seen = _mirrored(g, _mirrored(g, signed, 2), 3)
    blocks, gate = g.node("SpaceToDepth", seen, blocksize=BLOCK), None
    if not bias:
        blocks, gate = _detail(g, seen, blocks)
    x = net.enter("enter", blocks, 4 if bias else 3, s.fine)
    fine = net.residuals("down_fine", x, s.fine, s.blocks)
    x = net.halved("to_middle", fine, s.fine, s.middle)
    middle = net.residuals("down_middle", x, s.middle, s.blocks)
    x = net.halved("to_coarse", middle, s.middle, s.coarse)
    coarse = net.residuals("bottom", x, s.coarse, 2 * s.blocks)
    x = g.node("Add", middle, net.doubled("from_coarse", coarse, s.coarse, s.middle))
    middle = net.residuals("up_middle", x, s.middle, s.blocks)
    x = g.node("Add", fine, net.doubled("from_middle", middle, s.middle, s.fine))
    fine = net.residuals("up_fine", x, s.fine, s.blocks)
    x = net.conv("leave", _silu(g, fine), s.fine, 3 * BLOCK**2)
    out = g.node("Tanh", x)
    out = out if gate is None else g.node("Mul", out, gate)
    unit = g.node("DepthToSpace", out, blocksize=BLOCK, mode="CRD")
    size = g.node("Concat", g.length("images", 2), g.length("images", 3), axis=0)
    unit = g.node("Slice", unit, g.tensor([0, 0]), size, g.tensor([2, 3]))
    g.node("Mul", unit, g.node("Div", "budget", g.tensor(255.0)), name="delta")
    if net.left:
        raise ValueError(f"it holds {min(net.left)[:60]}, which the network has not")
    axes = {
        name: ("batch", channels, "height", "width")
        for name, channels in (("images", 3), ("budget", 1), ("delta", 3))
    }
    return g.encoded({name: axes[name] for name in ("images", "budget")}, {"delta": axes["delta"]})


class _Network:
    """Layers under the state dict's names, each checked for its shape and added to the graph."""

    def __init__(self, weights: Mapping[str, Array], bias: bool) -> None:
        self.graph = Graph()
        self._bias = bias
        self.left = set(weights)
        self._weights = weights

    def _take(self, name: str, *shape: int) -> Array:
        if name not in self.left:
            raise ValueError(f"{name} is missing")
        array = self._weights[name]
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {list(array.shape)}, not {list(shape)}")
        self.left.remove(name)
        return array

    def _layer(
        self, kind: str, name: str, x: str, kernel: Array, channels: int, stride: int, pad: int
    ) -> str:
        inputs = [x, self.graph.tensor(kernel, f"{name}.weight")]
        if self._bias:
            inputs.append(self.graph.tensor(self._take(f"{name}.bias", channels), f"{name}.bias"))
        return self.graph.node(kind, *inputs, name=name, strides=[stride] * 2, pads=[pad] * 4)

    def conv(self, name: str, x: str, channels_in: int, channels: int) -> str:
        """3 × 3."""
        kernel = self._take(f"{name}.weight", channels, channels_in, 3, 3)
        return self._layer("Conv", name, x, kernel, channels, 1, 1)

    def enter(self, name: str, x: str, planes: int, channels: int) -> str:
        """`conv` of so many planes after SpaceToDepth.

        The kernel is for pixel_unshuffle's channels, colour first; those of ONNX have the place in the block
        first.
        """
        kernel = self._take(f"{name}.weight", channels, planes * BLOCK**2, 3, 3)
        turned = kernel.reshape(channels, planes, BLOCK**2, 3, 3).swapaxes(1, 2).reshape(kernel.shape)
        return self._layer("Conv", name, x, turned, channels, 1, 1)

    def halved(self, name: str, x: str, channels_in: int, channels: int) -> str:
        """2 × 2 at a stride of 2."""
        kernel = self._take(f"{name}.weight", channels, channels_in, 2, 2)
        return self._layer("Conv", name, x, kernel, channels, 2, 0)

    def doubled(self, name: str, x: str, channels_in: int, channels: int) -> str:
        """2 × 2 at a stride of 2, transposed."""
        kernel = self._take(f"{name}.weight", channels_in, channels, 2, 2)
        return self._layer("ConvTranspose", name, x, kernel, channels, 2, 0)

    def residuals(self, name: str, x: str, width: int, count: int) -> str:
        for i in range(count):
            inner = self.conv(f"{name}.{i}.first", _silu(self.graph, x), width, width)
            outer = self.conv(f"{name}.{i}.second", _silu(self.graph, inner), width, width)
            x = self.graph.node("Add", x, outer)
        return x


def _detail(g: Graph, seen: str, blocks: str) -> tuple[str, str]:
    """`network.detail`. seen: colours of 2x - 1. blocks: the same after SpaceToDepth."""
    sides, strides = [BLOCK] * 2, [BLOCK] * 2
    mean = _around(g, g.node("AveragePool", seen, kernel_shape=sides, strides=strides))
    deviation = g.node("Sub", blocks, g.node("Concat", *[mean] * BLOCK**2, axis=1))
    square = g.node("Mul", deviation, deviation)
    contrast = _around(g, g.node("ReduceMean", square, axes=[1], keepdims=1))
    root = g.node("Sqrt", g.node("Add", contrast, g.tensor(LEAST_CONTRAST**2)))
    gate = g.node("Div", contrast, g.node("Add", contrast, g.tensor(HIDING**2)))
    return g.node("Div", deviation, root), gate


def _around(g: Graph, x: str) -> str:
    """The mean of 3 × 3 positions, cut at the border."""
    return g.node("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, count_include_pad=0)


def _silu(g: Graph, x: str) -> str:
    return g.node("Mul", x, g.node("Sigmoid", x))


def _mirrored(g: Graph, x: str, axis: int) -> str:
    """Continue `x` to a multiple of 16: position L - 1 is followed by L - 1, ... 1, 0, 0, 1, ..."""
    length, zero, one = g.length(x, axis), g.tensor([0]), g.tensor(1)
    more = g.node("Mod", g.node("Neg", length), g.tensor(MULTIPLE))
    start = g.node("Squeeze", length, zero)
    end = g.node("Squeeze", g.node("Add", length, more), zero)
    period = g.node("Add", length, length)
    there = g.node("Mod", g.node("Range", start, end, one), period)
    back = g.node("Sub", g.node("Sub", period, one), there)
    further = g.node("Gather", x, g.node("Min", there, back), axis=axis)
    return g.node("Concat", x, further, axis=axis)
