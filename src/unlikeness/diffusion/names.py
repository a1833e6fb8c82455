"""Names of devices, precisions and samplers, checked without torch. `devices` knows what is there."""

from __future__ import annotations

import re

from unlikeness.errors import UsageError

__all__ = ["DTYPES", "SAMPLERS", "check_device", "check_dtype"]

SAMPLERS = ("dpm++", "ddim")
"""Of solvers, too: see `sampling.make_solver`."""

DTYPES = ("float64", "float32", "fp32", "float16", "fp16", "bfloat16", "bf16")

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device(device: str) -> None:
    """UsageError for what is the name of no device."""
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"device {device!r} is unknown; use auto, cpu, mps, cuda or cuda:N")


def check_dtype(dtype: str) -> None:
    """UsageError for what is the name of no precision."""
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"dtype {dtype!r} is unknown; use auto, {', '.join(DTYPES)}")
