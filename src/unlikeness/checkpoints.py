"""A training's state in one safetensors file, with its numbers as JSON in that file's header.

The file is written beside its name and renamed, so it holds either the old state or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import parse_json, reason
from unlikeness.tensors import save_tensors

if TYPE_CHECKING:
    from unlikeness.training import Ema

_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError)

__all__ = ["load_checkpoint", "save_checkpoint", "steps_done"]


def save_checkpoint(
    path: Path,
    step: int,
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    identity: Mapping[str, Any],
) -> None:
    """Replace `path` with the state after `step` steps. UnlikenessError if it cannot be written."""
    tensors = {f"parameter.{i}": p for i, p in enumerate(parameters)}
    if ema is not None:
        tensors |= {f"average.{i}": average for i, average in enumerate(ema.averages)}
    state = optimizer.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for i, entries in state["state"].items():
        for name, value in _flat(entries):
            if isinstance(value, Tensor):
                tensors[f"optimizer.{i}.{name}"] = value
            else:
                numbers.setdefault(str(i), {})[name] = value
    header = {
        "step": step,
        "identity": identity,
        "updates": 0 if ema is None else ema.updates,
        "groups": state["param_groups"],
        "numbers": numbers,
    }
    # Copied to the CPU first: a training may fill the GPU's memory.
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: set[int] = set()
    for name, tensor in held.items():
        if tensor.data_ptr() in seen:  # a table that the states of an 8-bit optimizer share
            held[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    save_tensors(
        held,
        path,
        {"training": json.dumps(header)},
        called="the checkpoint",
    )


def _flat(entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The state of one parameter by name. That of an 8-bit optimizer is nested, and is read without, too."""
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield name, value


def steps_done(path: Path, identity: Mapping[str, Any]) -> int:
    """The steps that the run in the checkpoint `path` has done, from the header alone; 0 without a file.

    UsageError for another run or another kind of file; UnlikenessError for a damaged file.
    """
    from safetensors import safe_open

    if not path.exists():
        return 0
    _check_file(path)
    with _damage(path), safe_open(path, "pt") as file:
        return int(_header(path, file.metadata(), identity)["step"])


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn errors of a damaged file into an UnlikenessError."""
    try:
        yield
    except UsageError:  # a ValueError with its own message
        raise
    except (SafetensorError, *_DAMAGE) as error:
        raise UnlikenessError(
            f"the checkpoint {path} is damaged, or none ({reason(error)}); delete it, or give another name"
        ) from error


def _check_file(path: Path) -> None:
    """UsageError for what is no checkpoint at all, such as a folder or a picture, and so no damaged one."""
    if not path.is_file():
        raise UsageError(f"{path} is no file, and a checkpoint is one; give another name")
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) == 9 and start[8:] != b"{":  # of safetensors: eight bytes of a length, then JSON
        raise UsageError(f"{path} is no checkpoint of a training; give another name")


def _header(path: Path, metadata: Mapping[str, str] | None, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that `save_checkpoint` wrote beside the tensors. UsageError for another run."""
    if "training" not in (metadata or {}):
        raise UsageError(f"{path} is no checkpoint of a training; give another name")
    header: dict[str, Any] = parse_json((metadata or {})["training"], infinite=True)
    if header["identity"] != json.loads(json.dumps(identity)):
        raise _another(path)
    return header


def _another(path: Path) -> UsageError:
    return UsageError(f"the checkpoint {path} belongs to another run; delete it, or give another name")


def load_checkpoint(
    path: Path,
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    identity: Mapping[str, Any],
) -> int:
    """Restore everything from `path` in place. Returns the number of steps done.

    UsageError for another run (seed, settings or shapes differ) or another kind of file; UnlikenessError for
    a damaged file.
    """
    from safetensors import safe_open

    _check_file(path)
    with _damage(path), safe_open(path, "pt") as file:
        header = _header(path, file.metadata(), identity)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    other = _another(path)
    shapes = [
        tensors[name].shape for name in (f"parameter.{i}" for i in range(len(parameters))) if name in tensors
    ]
    if shapes != [p.shape for p in parameters] or f"parameter.{len(parameters)}" in tensors:
        raise other
    if (ema is not None) != ("average.0" in tensors):
        raise other
    with _damage(path):
        _restore(header, tensors, parameters, optimizer, ema)
        return int(header["step"])


def _restore(
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
) -> None:
    with torch.no_grad():
        for i, p in enumerate(parameters):
            p.copy_(tensors[f"parameter.{i}"])
        if ema is not None:
            ema.updates = int(header["updates"])
            for i, average in enumerate(ema.averages):
                average.copy_(tensors[f"average.{i}"])
    state: dict[int, dict[str, Any]] = {int(i): dict(entries) for i, entries in header["numbers"].items()}
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            number, _, entry = rest.partition(".")
            p = trained[int(number)]
            # Moments must have the memory layout of their parameter, for fused optimizers.
            like = (
                torch.empty_like(p, dtype=tensor.dtype)
                if tensor.shape == p.shape
                else torch.empty_like(tensor)
            )
            state.setdefault(int(number), {})[entry] = like.copy_(tensor)
    optimizer.load_state_dict({"state": state, "param_groups": header["groups"]})
