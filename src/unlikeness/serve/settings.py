"""Settings of the service: its limits, and what one request may choose. They are checked before it starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlikeness.errors import UsageError
from unlikeness.protect.settings import ProtectSettings, ResolutionMode
from unlikeness.settings import Checked, build, setting, with_default

__all__ = ["Limits", "Wanted", "names_of", "parameters", "wanted"]


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


def wanted(query: Iterable[tuple[str, str]], networks: Sequence[str]) -> Wanted:
    """The settings of a query.

    UsageError for an unknown name, a name that is given twice, a value that does not fit, or a network that
    is not one of `networks`.
    """
    values: dict[str, object] = {}
    for name, value in query:
        if name in values:
            raise UsageError(f"{name} is given twice; leave one out")
        values[name] = value
    found = build(Wanted, values)
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


def parameters(networks: Sequence[str]) -> list[dict[str, Any]]:
    """The query's parameters for OpenAPI, from the fields of `Wanted`."""
    found = []
    for field in dataclasses.fields(Wanted):
        about = field.metadata
        schema: dict[str, Any] = {"type": "string" if field.name in ("at", "weights") else "number"}
        default = networks[0] if field.name == "weights" else field.default
        if default is not None:
            schema["default"] = default
        choices = networks if field.name == "weights" else about["choices"]
        if choices:
            schema["enum"] = list(choices)
        for bound, key in (("above", "exclusiveMinimum"), ("at_least", "minimum"), ("at_most", "maximum")):
            if about[bound] is not None:
                schema[key] = about[bound]
        said = f"{about['doc']} [{about['unit']}]" if about["unit"] else about["doc"]
        found.append({"name": field.name, "in": "query", "required": False, "description": said,
                      "schema": schema})  # fmt: skip
    return found
