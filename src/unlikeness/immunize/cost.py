"""What a run will cost: passes from a dry run, memory from its settings, time from a short probe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.diffusion.devices import training_precision
from unlikeness.diffusion.lora import adaptable_copy, add_lora
from unlikeness.diffusion.operations import rough_time
from unlikeness.eight_bit import state_bytes
from unlikeness.errors import UnlikenessError
from unlikeness.immunize.batch import with_references
from unlikeness.immunize.dry_run import Count, DryRun, Undrawn, anew
from unlikeness.immunize.l2p import trainable
from unlikeness.immunize.run import immunize
from unlikeness.progress import format_seconds
from unlikeness.words import in_bytes

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize import Defence
    from unlikeness.subjects import Subject

__all__ = ["Estimate", "check_memory", "check_time", "estimate", "memory"]

_FEW, _MORE = 1, 3
"""Inner steps of the two probes from which a longer outer step is extrapolated."""


@dataclass(frozen=True)
class Estimate:
    """The cost of one run.

    count: passes through denoisers. memory: bytes that are held throughout, by what they are for. peak: bytes
    at the probe's worst moment, None where the system does not tell; peak_of: what it is the peak of.
    outer_seconds: of one outer step; drawing_seconds: of all class pictures and pictures of prompts.
    """

    count: Count
    memory: Mapping[str, int]
    peak: int | None
    peak_of: str
    outer_steps: int
    outer_seconds: float
    drawing_seconds: float

    @property
    def seconds(self) -> float:
        """Of the whole run, loading and saving left out."""
        return self.drawing_seconds + self.outer_steps * self.outer_seconds

    def lines(self) -> list[str]:
        """As text, a fact a line."""
        c = self.count
        parts = ", ".join(f"{name} {in_bytes(size)}" for name, size in self.memory.items())
        told = [
            f"forward passes without a gradient: {c.without_gradient} "
            f"({c.drawing.pictures:,} to draw pictures, {c.original.pictures:,} of the original model)",
            f"forward passes with a gradient: {c.with_gradient} ({c.attack.pictures:,} of the "
            f"attackers, {c.protect.pictures:,} against them, {c.preserve.pictures:,} for what is kept)",
            f"backward passes: {c.with_gradient}",
            f"memory held: {in_bytes(sum(self.memory.values()))} ({parts})",
        ]
        if self.peak is not None:
            told.append(f"memory at most: {in_bytes(self.peak)} ({self.peak_of}, in a probe)")
        told.append(
            f"time: about {format_seconds(self.seconds)} ({format_seconds(self.drawing_seconds)} to draw "
            f"pictures, then {self.outer_steps:,} outer steps of {self.outer_seconds:.2f} s)"
        )
        return told


def estimate(
    model: TextToImage,
    defence: Defence,
    subjects: Sequence[Subject],
    prompts: Sequence[str] = (),
    *,
    original: TextToImage | None = None,
) -> Estimate:
    """Count, add up and try: a few outer steps of the real run, with random latents for class pictures.

    Nothing is written, and `model` is not changed. Of outer steps longer than three inner steps the time is
    that of shorter ones, drawn out in a straight line. The attackers of the probe are the run's first ones:
    where `low_rank` and the like leave a choice, others may take longer or shorter.
    """
    s, kept_to = defence.settings, original or model
    _reset_peak(model.device)
    run = DryRun(model, defence, subjects, prompts, original=original)
    if s.inner_steps > _MORE:
        few, more = (_outer(model, defence, subjects, prompts, kept_to, inner) for inner in (_FEW, _MORE))
        each = max((more - few) / (_MORE - _FEW), 0.0)
        outer = max(few - each * _FEW, 0.0) + each * s.inner_steps
        precision = training_precision(s.precision, model.device)
        with_references(kept_to, [run.batch()] * s.inner_steps, precision)  # the largest, for the peak
    else:
        outer = _outer(model, defence, subjects, prompts, kept_to, s.inner_steps)
    drawing_seconds = _drawing(kept_to, run.original.drawn, subjects[0].class_prompt)
    peak, peak_of = _peak(model.device)
    return Estimate(
        count=run.count(),
        memory=memory(model, defence, original=original),
        peak=peak,
        peak_of=peak_of,
        outer_steps=s.outer_steps,
        outer_seconds=outer,
        drawing_seconds=drawing_seconds,
    )


def memory(model: TextToImage, defence: Defence, *, original: TextToImage | None = None) -> dict[str, int]:
    """Bytes that a run holds from its first step to its last, by what they are for; activations come on top.

    model: whole, or `diffusion.opening.outline`.
    """
    s = defence.settings
    named = dict(model.denoiser.named_parameters())
    size = torch.promote_types(model.denoiser.dtype, torch.float32).itemsize
    every = _count(named.values()) * size
    trained = [p for name, p in named.items() if trainable(model, s, name)]
    if s.rank:
        trained = _adapter(model, s.rank, s.train)
    moved = _count(trained) * size
    low = _adapter(model, max(s.attack_ranks), "all") if s.attack_low_rank else []
    full = list(named.values()) if s.inner_steps and s.attack_low_rank < 1 else []
    reading = 0
    if s.attack_text_encoder:  # the attackers' own one, and what it is set back to
        full += model.conditioner.parameters()
        reading = _count(model.conditioner.parameters()) * size
    return {
        "original denoiser": _size(model.denoiser) + (0 if original is None else _size(original.denoiser)),
        "autoencoder and text encoder": sum(map(_size, model.networks)) - _size(model.denoiser),
        "attacked denoiser": every if s.inner_steps and not s.shares_weights else 0,
        "attacked text encoder": 2 * reading,
        "released weights": moved if s.inner_steps or s.rank else every,
        "their gradient": moved,
        "their AdamW states": state_bytes(trained, eight_bit=s.eight_bit_adam),
        "the attacker's low-rank updates": _count(low) * size,
        "the attacker's gradient": max(_count(full), _count(low)) * size,
        "the attacker's AdamW states": state_bytes([*full, *low], eight_bit=s.eight_bit_adam),
    }


def check_memory(held: Mapping[str, int], called: str, device: torch.device) -> str:
    """A line about the bytes that a run on the model `called` holds (`memory`). On a GPU autoencoder and
    text encoder wait on the CPU while the denoiser is trained. UnlikenessError if the machine has less."""
    has, most = _memory_of(device), sum(held.values())
    if device.type != "cpu":
        encoders = held["autoencoder and text encoder"]
        most = max(most - encoders, held["original denoiser"] + encoders)
    if has is not None and most > has:
        raise UnlikenessError(
            f"immunizing {called} holds {in_bytes(most)} and more for activations, and this machine has "
            f"{in_bytes(has)}; train low-rank updates (--set rank=16) or take a larger machine"
        )
    return f"{called} by its configuration: a run holds {in_bytes(most)}"


def check_time(
    outline: TextToImage, defence: Defence, subjects: Sequence[Subject], prompts: Sequence[str],
    device: torch.device,
) -> str:  # fmt: skip
    """A line about the time of a run, from a model without weights (`diffusion.opening.outline`)."""
    s, passes = defence.settings, DryRun(outline, defence, subjects, prompts).count()
    return rough_time(
        outline, device, training_precision(s.precision, device), without=passes.without_gradient.pictures,
        trained=passes.with_gradient.pictures, frozen=s.shares_weights, checkpointing=s.checkpointing,
    )  # fmt: skip


def _memory_of(device: torch.device) -> int | None:
    """Bytes that a device has; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _adapter(model: TextToImage, rank: int, group: str) -> list[Tensor]:
    """An adapter's weights."""
    return list(add_lora(adaptable_copy(model), rank=rank, group=group))


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def _size(module: Any) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _outer(
    model: TextToImage,
    defence: Defence,
    subjects: Sequence[Subject],
    prompts: Sequence[str],
    original: TextToImage,
    inner: int,
) -> float:
    """Seconds of an outer step with so many inner ones: the quicker of two, after one that warms up."""
    s = defence.settings
    depth = inner * s.attack_stride * s.episode if s.attack_depth else 0
    marks: list[float] = []

    def mark(_: int, __: float) -> None:
        _synchronize(model.device)
        marks.append(time.perf_counter())

    immunize(
        model,
        subjects,
        anew(defence, outer_steps=3, inner_steps=inner, attack_depth=depth, attack_from_start=False),
        original=Undrawn(original),
        prompts=prompts,
        after=mark,
    )
    return min(marks[1] - marks[0], marks[2] - marks[1])


def _drawing(model: TextToImage, drawings: Sequence[tuple[int, int]], prompt: str) -> float:
    """Seconds to draw all (pictures, solver steps), from one batch in one and in two solver steps."""
    total = sum(pictures for pictures, _ in drawings)
    if not total:
        return 0.0
    # A CPU takes nearly as long for each picture in a batch as for one alone.
    batch = min(16 if model.device.type != "cpu" else 2, total)

    def draw(steps: int) -> float:
        began = time.perf_counter()
        model.generate([prompt], seeds=range(batch), steps=steps, batch_size=batch)
        _synchronize(model.device)
        return time.perf_counter() - began

    draw(1)
    one, two = draw(1), draw(2)
    once = max(two - one, 0.0)
    rest = max(one - once, 0.0)
    return sum((rest + once * steps) * pictures / batch for pictures, steps in drawings)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> tuple[int | None, str]:
    """(bytes, what they are the peak of)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "on the GPU"
    try:
        import resource
    except ImportError:  # Windows
        return None, ""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of this process, loading included"
