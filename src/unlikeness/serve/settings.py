"""Settings of the service: its limits, and what one request may choose. They are checked before it starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from unlikeness.errors import UsageError
from unlikeness.protect.settings import ProtectSettings, ResolutionMode
from unlikeness.settings import Checked, build, setting, with_default

__all__ = ["Limits", "Wanted", "WantedJob", "names_of", "parameters", "wanted"]

W = TypeVar("W", bound="Wanted")

_TYPES = {str: "string", int: "integer", float: "number"}


@dataclass(frozen=True, kw_only=True)
class Limits(Checked):
    """What a client may use."""

    max_bytes: int = setting(
        64 << 20, "Largest body of a request.", unit="bytes", source="ours", at_least=1 << 10,
        at_most=4 << 30,
    )  # fmt: skip
    max_pixels: int = setting(50_000_000, "Largest picture.", unit="px", source="ours", at_least=1)
    rate: int = setting(
        60, "Requests of one client in a minute; 0: any number.", source="ours", at_least=0,
        at_most=1_000_000,
    )  # fmt: skip
    queue: int = setting(
        32, "Pictures on the disk at a time, from upload to answer; others wait.", source="ours",
        at_least=1, at_most=10_000,
    )  # fmt: skip
    seconds: int = setting(
        120, "From the request to the answer's end.", unit="s", source="ours", at_least=1, at_most=86_400
    )
    job_bytes: int = setting(
        1 << 30, "Largest body of a job, and most bytes of its unpacked zip.", unit="bytes", source="ours",
        at_least=1 << 10, at_most=4 << 30,
    )  # fmt: skip
    job_seconds: int = setting(
        86_400, "Longest computing of a job.", unit="s", source="ours", at_least=1, at_most=30 * 86_400
    )
    disk: int = setting(
        16 << 30, "All jobs together.", unit="bytes", source="ours", at_least=1 << 20, at_most=1 << 50
    )
    keep: float = setting(
        24.0, "From a job's end until its result is deleted.", unit="h", source="ours", above=0.0,
        at_most=24 * 365,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Wanted(Checked):
    """What a request chooses: options of `unlikeness protect`, with its bounds and defaults."""

    budget: float = with_default(ProtectSettings, "budget", 8.0)
    psnr: float | None = setting(
        None, "Weaken the change until its PSNR is this high.", unit="dB", at_least=10.0, at_most=100.0
    )
    at: str = with_default(
        ResolutionMode, "mode", "fit",
        doc="Size to compute at. fit: the size that a trainer sees. tiles: the picture's own size. both: "
        "half of each.",
    )  # fmt: skip
    weights: str = setting("", "One of the networks that the service was started with. Default: the first.")


@dataclass(frozen=True, kw_only=True)
class WantedJob(Wanted):
    """What a job chooses."""

    method: str = setting("rid", "One of the methods that this service offers.")
    steps: int | None = setting(
        None, "Steps of a gradient method. Default: the method's own.", at_least=1, at_most=10_000
    )
    preset: str | None = setting(None, "Preset of the method encoder.")


def wanted(query: Iterable[tuple[str, str]], networks: Sequence[str], kind: type[W]) -> W:
    """The settings of a query.

    UsageError for an unknown name, a name that is given twice, a value that does not fit, or a network that
    is not one of `networks`.
    """
    values: dict[str, object] = {}
    for name, value in query:
        if name in values:
            raise UsageError(f"{name} is given twice; leave one out")
        values[name] = value
    found = build(kind, values)
    if not found.weights:
        return dataclasses.replace(found, weights=networks[0])
    if found.weights not in networks:
        raise UsageError(
            f"weights {found.weights} are none of this service's networks; valid are: {', '.join(networks)}"
        )
    return found


def names_of(weights: Sequence[str]) -> dict[str, str]:
    """Name -> weights: a file's name without its suffix, or the name of a shipped network as it is.

    UsageError if two have one name.
    """
    found: dict[str, str] = {}
    for one in weights:
        name = Path(one).stem if Path(one).suffix else one
        if name in found:
            raise UsageError(f"--weights {found[name]} and {one} are both called {name}; rename one file")
        found[name] = one
    return found


def parameters(kind: type[Wanted], valid: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The query's parameters for OpenAPI, from the fields of `kind`. valid: name -> what may be given."""
    found, hints = [], get_type_hints(kind)
    for field in dataclasses.fields(kind):
        about = field.metadata
        kinds = get_args(hints[field.name]) or (hints[field.name],)
        schema: dict[str, Any] = {"type": next(_TYPES[one] for one in kinds if one in _TYPES)}
        choices = list(valid.get(field.name, about["choices"]))
        default = choices[0] if field.default == "" else field.default
        if default is not None:
            schema["default"] = default
        if choices:
            schema["enum"] = choices
        for bound, key in (("above", "exclusiveMinimum"), ("at_least", "minimum"), ("at_most", "maximum")):
            if about[bound] is not None:
                schema[key] = about[bound]
        said = f"{about['doc']} [{about['unit']}]" if about["unit"] else about["doc"]
        found.append({"name": field.name, "in": "query", "required": False, "description": said,
                      "schema": schema})  # fmt: skip
    return found
