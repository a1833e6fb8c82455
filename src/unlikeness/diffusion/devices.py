"""Names of devices, precisions and samplers. The checks of names work without torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from unlikeness.errors import UsageError
from unlikeness.settings import named

if TYPE_CHECKING:
    import torch

    from unlikeness.diffusion.model import TextToImage

__all__ = [
    "DTYPES", "SAMPLERS", "aside", "check_device", "check_dtype", "computes_bfloat16", "mixed_precision",
    "pick_device", "pick_dtype", "training_precision",
]  # fmt: skip

SAMPLERS = ("dpm++", "ddim", "euler", "lcm")
"""See `solvers`. A family may take some of them only."""

DTYPES = {
    "float64": "float64", "float32": "float32", "fp32": "float32", "float16": "float16", "fp16": "float16",
    "bfloat16": "bfloat16", "bf16": "bfloat16",
}  # fmt: skip
"""Names of precisions -> torch's name."""

_SHORT = 1024

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device(device: str) -> None:
    """UsageError for a name of no device."""
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"{named('device')} {device!r} is unknown; use auto, cpu, mps, cuda or cuda:N")


def check_dtype(dtype: str) -> None:
    """UsageError for a name of no precision."""
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"{named('dtype')} {dtype!r} is unknown; use auto, {', '.join(DTYPES)}")


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """A device from its name. None and "auto": the first CUDA GPU, else Apple's MPS, else the CPU.

    UsageError for any other name and for a GPU that is not there; a device object may be of any kind.
    """
    import torch

    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise UsageError(
            f"{named('device')} {device!r} is unknown; use auto, cpu, mps, cuda or cuda:N"
        ) from error
    if isinstance(device, str) and picked.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {device} is not supported; use auto, cpu, mps, cuda or cuda:N")
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {device} is not on this machine; use auto or cpu")
    if picked.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device {device} is not on this machine; use auto or cpu")
    return picked


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """A floating dtype from its name (float32, fp32, float16, fp16, bfloat16, bf16, float64).

    None and "auto": for inference, bfloat16 on a CUDA GPU that computes it natively, float16 on other GPUs,
    float32 on the CPU. UsageError for anything else.
    """
    import torch

    if dtype is None or dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if computes_bfloat16(device) else torch.float16
        return torch.float16 if device.type == "mps" else torch.float32
    picked = dtype if isinstance(dtype, torch.dtype) else getattr(torch, DTYPES.get(dtype, ""), None)
    if picked is None or not picked.is_floating_point:
        raise UsageError(f"{named('dtype')} {dtype!r} is unknown; use auto, {', '.join(DTYPES)}")
    return picked


def computes_bfloat16(device: torch.device) -> bool:
    """Has it instructions for bfloat16, so that training in mixed precision is faster than in float32?

    CUDA GPUs from compute capability 8.0; CPUs with AVX-512 BF16 or AMX. Elsewhere bfloat16 is converted to
    float32 and back, which costs more than it saves.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # An older torch does not tell.
        has: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False


@contextmanager
def aside(model: TextToImage, *, conditioner: bool = True) -> Iterator[None]:
    """Inside, the autoencoder and the text encoders wait on the CPU, so that a training has their memory on a
    GPU. Conditions of before are kept. conditioner: False leaves the text encoders where they are."""
    import torch

    cpu, vae, words = torch.device("cpu"), model.autoencoder, model.conditioner
    encoders = list(words.encoders.values()) if conditioner else []
    at, words_at = vae.device, encoders[0].device if encoders else cpu
    if at != cpu:
        vae.to(cpu, vae.dtype)
    if words_at != cpu:
        words.to(cpu)
    try:
        yield
    finally:
        if at != cpu:
            vae.to(at, vae.dtype)
        if words_at != cpu:
            words.to(words_at)


def training_precision(name: str, device: torch.device) -> str:
    """`name`; for "auto" bfloat16 where the device computes it natively, else float32."""
    if name != "auto":
        return name
    return "bfloat16" if computes_bfloat16(device) else "float32"


@contextmanager
def mixed_precision(device: torch.device, precision: torch.dtype, *, sequence: int) -> Iterator[None]:
    """torch's autocast to `precision`; float32 and wider change nothing.

    sequence: tokens that attention compares. On a CPU the fused attention's bfloat16 backward is slower than
    its float32 one, so that short ones (up to 1,024) take the plain matrix products instead.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if precision not in (torch.bfloat16, torch.float16):
        yield
        return
    plain = device.type == "cpu" and sequence <= _SHORT
    attention = sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
    with torch.autocast(device.type, precision), attention:
        yield
