"""The weights in a part's folder: safetensors before pickle, full before half precision."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError
from unlikeness.networks.configs import read_object
from unlikeness.tensors import read_tensors

__all__ = ["Weights", "choose_weights", "needed_files", "read_weights"]

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
_ENCODERS = ("", "text_encoder", "text_encoder_2", "text_encoder_3")
_STEMS = dict.fromkeys(_ENCODERS, ("model.", "model-", "pytorch_model"))
_OTHER_STEMS = ("diffusion_pytorch_model",)
"""How the names of transformers' and of diffusers' weights begin: a folder may hold both."""

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


def read_weights(folder: Path, part: str, *, half: bool, pickles: bool = True) -> dict[str, Tensor]:
    """The tensors of a part by name, from the files that `choose_weights` prefers. part: "" for the folder
    itself. pickles: whether to read them where there is nothing else.

    UsageError if there are none; UnlikenessError if a file is damaged, missing, or not in the folder itself.
    """
    inside = folder / part
    names = [file.name for file in inside.iterdir()]
    names = [name for name in names if name.startswith(_STEMS.get(part, _OTHER_STEMS))] or names
    chosen = choose_weights(names, half=half)
    if chosen is None or (chosen.format == "bin" and not pickles):
        where = f" in {part}/" if part else ""
        kind = UsageError if pickles else UnlikenessError
        raise kind(f"model {folder} has no weights{where} (*.safetensors); fetch or save it again")
    found: dict[str, Tensor] = {}
    for name in _files(folder, inside, names, chosen, half):
        path = inside / name
        try:
            found |= read_tensors(path, folder=folder)
        except UnreadableError as error:
            raise UnlikenessError(
                f"the weights {path} cannot be read ({error}); fetch or save the model again"
            ) from error
    return found


def _files(folder: Path, inside: Path, names: list[str], chosen: Weights, half: bool) -> list[str]:
    """The files that hold the chosen weights: names alone, of files in this folder."""
    files = needed_files(names, half=half)
    weights = [name for name in files if name.endswith(f".{chosen.format}")]
    if not chosen.sharded:
        return weights
    path = inside / next(name for name in files if name.endswith(".json") and ".index." in name)
    where = read_object(path, folder, most=1 << 24).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise UnlikenessError(f"{path} has no weight_map from names to files; fetch or save the model again")
    for name in where.values():
        if name not in weights:
            raise UnlikenessError(
                f"{path} names the file {one_line(name)[:80]!r}, which is none of the folder's; "
                "fetch or save the model again"
            )
    return sorted(set(where.values()))
