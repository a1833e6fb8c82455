"""What a job computes: checked by the service, and done by a process of its own.

That process may take the memory and the time of a gradient method, is ended at once when the job is, and goes
when the service does. It reads one line, the task, and writes lines in JSON: how far it is, and the outcome.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from unlikeness import locks, protect
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.pictures import guard
from unlikeness.progress import Meter
from unlikeness.protect import registry
from unlikeness.protect.against import against_of
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.files.manifest import NAME
from unlikeness.protect.methods.rid import Rid
from unlikeness.protect.published import preset_of
from unlikeness.protect.settings import EncoderSettings, ResolutionMode, RidSettings
from unlikeness.protect.tiling import batches
from unlikeness.provenance import own_name
from unlikeness.serve.folders import pack, size_of
from unlikeness.serve.settings import WantedJob
from unlikeness.settings import build

if TYPE_CHECKING:
    from unlikeness.protect.base import Perturber

__all__ = ["COPIES", "ORIGINALS", "RESULT", "Offer", "done", "main"]

ORIGINALS, COPIES, RESULT = "in", "out", "result.zip"
"""Names in a job's folder."""
_ENCODERS_ALONE = ("encoder", "photoguard")
"""Methods that need no more of a model than its autoencoder."""
_EACH = 0.2
"""Seconds between two lines at least, unless a picture is finished."""
_PATIENCE = 60
"""Seconds until another process counts as one that goes on."""


@dataclass(frozen=True)
class Offer:
    """What jobs may compute with: whoever starts the service says it, since names may be files.

    networks: name -> weights of rid. against, model: as for `unlikeness protect`; at most one of them.
    """

    networks: Mapping[str, str]
    max_pixels: int
    against: str | None = None
    model: str | None = None

    @property
    def methods(self) -> list[str]:
        """Names of the methods that a job may choose."""
        if self.model is not None:
            return list(protect.names())
        return ["rid", *(_ENCODERS_ALONE if self.against is not None else ())]

    def task(self, wanted: WantedJob, *, weights: bool) -> dict[str, Any]:
        """The task of a job, which holds all that decides its pictures.

        weights: whether the job names a network. UsageError for a method that is not offered, and for
        settings that it does not have.
        """
        method = wanted.method
        if method not in self.methods:
            raise UsageError(
                f"method {method} is not offered by this service; valid are: {', '.join(self.methods)}"
            )
        kind = registry.settings_type(method)
        own = issubclass(kind, EncoderSettings)
        values: dict[str, object] = {"budget": wanted.budget}
        if wanted.preset is not None:
            values = {**preset_of(method, wanted.preset), **values}
        if wanted.steps is not None:
            values["steps"] = wanted.steps
        if own and wanted.psnr is not None:
            values["psnr"] = wanted.psnr
        if issubclass(kind, RidSettings) or weights:
            values["weights"] = self.networks[wanted.weights]
        build(kind, values)
        return {
            "method": method, "settings": values, "at": wanted.at, "psnr": wanted.psnr,
            "max_pixels": self.max_pixels, "against": self.against, "model": self.model,
        }  # fmt: skip


def main() -> None:
    """Do the task that the first line of the standard input holds, and end with that input."""
    say = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    task = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    folder = Path(task["folder"])
    try:
        _tell(say, outcome=done(task, folder, say))
    except (UnlikenessError, OSError, MemoryError) as error:
        said = str(error)
        if isinstance(error, MemoryError):
            said = "there is not enough memory; send smaller pictures"
        elif isinstance(error, OSError):
            said = f"the result cannot be written ({error.strerror}); try again later"
        _tell(say, fault=one_line(said).replace(f"{folder}{os.sep}", ""))


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _wait_until_free(folder: Path) -> None:
    """Wait for the process of a service that was killed, which ends just now."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            locks.check_free(folder)
        except UnlikenessError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def _tell(stream: TextIO, **said: Any) -> None:
    stream.write(json.dumps(said) + "\n")
    stream.flush()


def done(task: Mapping[str, Any], folder: Path, say: TextIO) -> dict[str, Any]:
    """Protect the folder's pictures and pack the copies. Return their numbers by status."""
    guard.prepare()
    method, copies = task["method"], folder / COPIES
    _wait_until_free(copies)
    protection, name = _protection(task)
    size = batches.default_batch_size(protection.resolution, getattr(protection, "device", "cpu"))
    outcome = protect_folder(
        [folder / ORIGINALS], copies, protection,
        method=method, model=name, at=ResolutionMode(mode=task["at"]), psnr=task["psnr"],
        max_pixels=task["max_pixels"], batch_size=size, progress=_Told(say, copies),
    )  # fmt: skip
    if not (copies / NAME).exists():
        raise UnlikenessError("nothing was written; send pictures")
    pack(copies, folder / RESULT)
    return {
        "protected": len(outcome.protected) + len(outcome.before), "unchanged": len(outcome.unchanged),
        "skipped": len(outcome.skipped), "against": against_of(protection).sentence,
    }  # fmt: skip


def _protection(task: Mapping[str, Any]) -> tuple[Perturber, str | None]:
    """The protection, and the name of what it computes against, as `unlikeness protect` opens them."""
    method = task["method"]
    settings = build(registry.settings_type(method), task["settings"])
    if isinstance(settings, RidSettings):
        network = Rid(None, settings)
        network.settings = replace(settings, weights=own_name(settings.weights))  # no path gets out
        return network, None
    from unlikeness.protect.surrogates import Surrogates

    if task["against"] is not None:
        encoders = Surrogates.named(task["against"], device="auto", dtype="auto")
        return registry.create(method, encoders, settings), ", ".join(one.name for one in encoders)
    model = str(task["model"])
    if isinstance(settings, EncoderSettings):
        apart = Surrogates.apart(model, device="auto", dtype="auto")
        if apart is not None:
            return registry.create(method, apart, settings), own_name(model)
    from unlikeness.diffusion import TextToImage

    whole = TextToImage.from_pretrained(model, device="auto", dtype="auto", carried=False)
    return registry.create(method, whole, settings), own_name(model)


class _Told:
    """Progress as lines."""

    def __init__(self, stream: TextIO, copies: Path) -> None:
        self._stream, self._copies = stream, copies
        self._meter = Meter(None)
        self._figures: dict[str, float] = {}
        self._next = 0.0

    def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
        self._meter = Meter(total, initial=initial)
        self._say()

    def advance(self, n: int = 1, **figures: float) -> None:
        self._meter.advance(n)
        self._figures.update(figures)
        if n or time.monotonic() >= self._next:
            self._say()

    def close(self) -> None:
        return

    def _say(self) -> None:
        left = self._meter.seconds_left
        _tell(
            self._stream, pictures=self._meter.total, finished=self._meter.done,
            step=self._figures.get("step"), seconds_left=None if left is None else round(left),
            bytes=size_of(self._copies),
        )  # fmt: skip
        self._next = time.monotonic() + _EACH
