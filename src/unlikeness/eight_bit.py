"""AdamW whose moments are held in 8 bits, a quarter of the memory, through bitsandbytes (extra `eight-bit`).

Blocks of 256 numbers share a scale (Dettmers et al. 2022, arXiv 2110.02861). Tensors below 4,096 numbers keep
their moments in 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from unlikeness.errors import UnlikenessError
from unlikeness.extras import check_extra
from unlikeness.foreign import reason
from unlikeness.settings import named

__all__ = ["adamw8", "check_eight_bit", "state_bytes"]

_WHOLE_BELOW, _BLOCK = 4096, 256


def adamw8(parameters: Sequence[Tensor], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer. Its moments come into being with its first step, on the device of the parameters."""
    from bitsandbytes.optim import AdamW8bit

    made: torch.optim.Optimizer = AdamW8bit(
        parameters, lr=lr, weight_decay=weight_decay, min_8bit_size=_WHOLE_BELOW
    )
    return made


def state_bytes(parameters: Iterable[Tensor], *, eight_bit: bool) -> int:
    """Bytes of the two moments of AdamW for these weights, which are trained in float32 at least."""
    if not eight_bit:
        return sum(2 * p.numel() * torch.promote_types(p.dtype, torch.float32).itemsize for p in parameters)
    return sum(
        2 * (4 * n if n < _WHOLE_BELOW else n + 4 * -(-n // _BLOCK)) for n in (p.numel() for p in parameters)
    )


def check_eight_bit(device: torch.device) -> None:
    """Try one step on `device`, so that a run is refused before it draws anything.

    UnlikenessError if the extra is not installed, or bitsandbytes cannot do such a step there.
    """
    what = f"{named('eight_bit_adam')}=true"
    check_extra("eight-bit", what)
    weight = torch.ones(_WHOLE_BELOW, device=device, requires_grad=True)
    weight.grad = torch.ones_like(weight)
    try:
        adamw8([weight], lr=0.5, weight_decay=0.0).step()
        moved = float(weight.detach().mean())
    except Exception as error:
        raise UnlikenessError(f"{what} does not work on {device} ({reason(error)}); leave it out") from error
    if abs(moved - 0.5) > 0.01:
        raise UnlikenessError(
            f"{what} does not work on {device} (bitsandbytes computed a wrong step); leave it out"
        )
