"""Which of a component's weight files to read: safetensors before pickle, whole before half precision."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Weights", "choose_weights", "needed_files"]

_WEIGHTS = re.compile(
    r"^(?P<stem>diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<variant>[A-Za-z]\w*))?\.(?P<format>safetensors|bin)$"
)
_INDEX = re.compile(
    r"^(?P<stem>diffusion_pytorch_model|pytorch_model|model)"
    r"\.(?P<format>safetensors|bin)\.index(?:\.(?P<variant>[A-Za-z]\w*))?\.json$"
)
_SHARD = re.compile(
    r"^(?P<stem>diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<before>[A-Za-z]\w*))?"
    r"-\d+-of-\d+(?:\.(?P<variant>[A-Za-z]\w*))?\.(?P<format>safetensors|bin)$"
)
_ANY_WEIGHTS = re.compile(r"\.(safetensors|bin|ckpt|pt|pth|msgpack|h5|onnx|onnx_data|pb|tflite)$")
_CODE = (".py", ".pyc", ".so", ".ipynb")


@dataclass(frozen=True)
class Weights:
    """One complete set of weights in a folder: a single file, or an index with its shards."""

    format: str
    """"safetensors" or "bin" (a pickle)."""

    variant: str | None
    """"fp16", "non_ema", ... as in `model.fp16.safetensors`; None for the plain name."""

    sharded: bool


def choose_weights(names: Iterable[str], *, half: bool = False) -> Weights | None:
    """The set to read among the file names of one component's folder; None if it holds no weights.

    safetensors come before pickles, then the plain name, then "fp16", then any other variant; with `half`,
    "fp16" comes before the plain name.
    """
    found = []
    for name in names:
        match = _WEIGHTS.match(name) or _INDEX.match(name)
        if match:
            found.append(Weights(match["format"], match["variant"], name.endswith(".json")))
    order = ["fp16", None] if half else [None, "fp16"]

    def rank(weights: Weights) -> tuple[bool, int, str, bool]:
        place = order.index(weights.variant) if weights.variant in order else len(order)
        return weights.format == "bin", place, weights.variant or "", weights.sharded

    return min(found, key=rank, default=None)


def needed_files(names: Iterable[str], *, half: bool = False) -> list[str]:
    """The files of one component's folder that are worth fetching: no code, and no weights but the chosen."""
    names = sorted(names)
    chosen = choose_weights(names, half=half)

    def wanted(name: str) -> bool:
        match = _WEIGHTS.match(name) or _INDEX.match(name)
        if match and chosen:
            return Weights(match["format"], match["variant"], name.endswith(".json")) == chosen
        match = _SHARD.match(name)
        if match and chosen:
            variant = match["variant"] or match["before"]
            return chosen.sharded and (match["format"], variant) == (chosen.format, chosen.variant)
        return not _ANY_WEIGHTS.search(name) and not name.endswith((".index.json", *_CODE))

    return [name for name in names if wanted(name)]
