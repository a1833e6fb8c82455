"""A layer's weight after an update that was read from a LoRA file.

s is the scale, α / rank; u the strength that the user asks for; W the weight.

| kind | weight |
|---|---|
| LoRA (Hu et al. 2022) | W + u s · up · down |
| LoCon (LyCORIS, Yeh et al. 2024) | the same on a convolution; with a middle factor, Tucker's product |
| LoHa (Hyeon-Woo et al. 2022) | W + u s · (a₁ b₁) ∘ (a₂ b₂) |
| LoKr (LyCORIS) | W + u s · w₁ ⊗ w₂ |
| DoRA (Liu et al. 2024) | W + u (m V / ‖V‖ − W), with V the weight at u = 1 |
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from unlikeness.foreign import UnreadableError

__all__ = ["bias_after", "weight_after"]

Roles = Mapping[str, Tensor]


@torch.no_grad()
def weight_after(weight: Tensor, roles: Roles, *, scale: float | None, strength: float) -> Tensor:
    """The new weight, float32 at least, in the shape of `weight`.

    scale: s, where the file's header says it; None: from its α, or 1. UnreadableError for factors that do not
    give this shape. No product is larger than the weight.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    roles = {name: one.to(wide.device, wide.dtype) for name, one in roles.items() if name != "bias"}
    magnitude = roles.get("magnitude", roles.get("dora_scale"))
    delta = _delta(wide, roles, scale)
    if delta is None:
        return wide
    if magnitude is None:
        return wide + strength * delta
    return wide + strength * (_decomposed(wide + delta, magnitude, "magnitude" in roles) - wide)


def bias_after(bias: Tensor, roles: Roles, *, scale: float | None, strength: float) -> Tensor:
    """The same for the bias: a change that the file holds whole, or the bias of PEFT's `lora_B`."""
    change = roles["bias"].to(bias.device, torch.float32)
    if change.shape != bias.shape:
        raise UnreadableError(f"it has a bias of shape {list(change.shape)} for one of {list(bias.shape)}")
    own = scale if scale is not None and "up" in roles else 1.0
    return bias.to(torch.promote_types(bias.dtype, torch.float32)) + strength * own * change


def _delta(weight: Tensor, roles: Roles, scale: float | None) -> Tensor | None:
    kinds = [kind for kind, needs in _NEEDS.items() if needs & roles.keys()]
    if not kinds:
        if roles.keys() & {"alpha", "magnitude", "dora_scale", "mid"}:
            raise UnreadableError(f"it has a {sorted(roles)[0]} without the update that it belongs to")
        return None
    if len(kinds) > 1:
        raise UnreadableError("it has updates of two kinds for one layer")
    kind = kinds[0]
    try:
        if kind == "diff":
            _fits(roles["diff"].numel() == weight.numel(), roles["diff"], weight)
            return roles["diff"].reshape(weight.shape)
        if kind == "lokr":
            return _kronecker(weight, roles, scale)
        return _FORMULAS[kind](weight, roles) * _scale(roles, scale, _rank(kind, roles))
    except KeyError as error:
        raise UnreadableError(f"an update lacks its {error.args[0]}") from error


_NEEDS = {
    "lora": {"up", "down"},
    "loha": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    "lokr": {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"},
    "diff": {"diff"},
}


def _scale(roles: Roles, scale: float | None, rank: int) -> float:
    if scale is not None:
        return scale
    alpha = roles.get("alpha")
    return 1.0 if alpha is None else float(alpha.reshape(-1)[0]) / rank


def _rank(kind: str, roles: Roles) -> int:
    return int(roles["down"].shape[0] if kind == "lora" else roles["hada_w1_b"].shape[0])


def _fits(holds: bool, one: Tensor, weight: Tensor) -> None:
    if not holds:
        raise UnreadableError(
            f"it has an update of shape {list(one.shape)} for a weight of {list(weight.shape)}"
        )


def _flat(one: Tensor) -> Tensor:
    return one.reshape(one.shape[0], -1)


def _lora(weight: Tensor, roles: Roles) -> Tensor:
    up, down = roles["up"], roles["down"]
    out, rest = weight.shape[0], weight.numel() // weight.shape[0]
    if "mid" in roles:
        return _tucker(roles["mid"], _flat(up).T, _flat(down), weight)
    _fits(up.numel() == out * up.shape[1] and up.shape[0] == out, up, weight)
    _fits(down.numel() == down.shape[0] * rest and down.shape[0] == up.shape[1], down, weight)
    return (_flat(up) @ _flat(down)).reshape(weight.shape)


def _tucker(core: Tensor, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Σ core[i, j, ...] first[i, p] second[j, r] -> [p, r, ...] (Tucker 1966; LyCORIS' `rebuild_tucker`)."""
    fits = core.ndim >= 2 and core.shape[0] == first.shape[0] and core.shape[1] == second.shape[0]
    _fits(fits and (first.shape[1], second.shape[1], *core.shape[2:]) == tuple(weight.shape), core, weight)
    return torch.einsum("ij...,ip,jr->pr...", core, first, second)


def _hadamard(weight: Tensor, roles: Roles) -> Tensor:
    found = []
    for i in "12":
        a, b = roles[f"hada_w{i}_a"], roles[f"hada_w{i}_b"]
        if f"hada_t{i}" in roles:
            found.append(_tucker(roles[f"hada_t{i}"], a, b, weight))
            continue
        _fits(a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0], a, weight)
        _fits(a.shape[0] == weight.shape[0] and a.shape[0] * b.shape[1] == weight.numel(), b, weight)
        found.append((a @ b).reshape(weight.shape))
    return found[0] * found[1]


_FORMULAS = {"lora": _lora, "loha": _hadamard}


def _kronecker(weight: Tensor, roles: Roles, scale: float | None) -> Tensor:
    rank = None
    factors = []
    for i in "12":
        whole = roles.get(f"lokr_w{i}")
        if whole is None:
            a, b = roles[f"lokr_w{i}_a"], roles[f"lokr_w{i}_b"]
            rank = b.shape[0]
            if i == "2" and "lokr_t2" in roles:
                core = roles["lokr_t2"]
                _fits(a.ndim == b.ndim == 2 and core.shape[:2] == (a.shape[0], rank), core, weight)
                # Each side, so that what einsum makes on the way is bounded by the weight and the rank.
                inner = a.shape[1] <= weight.shape[0] and b.shape[1] <= weight.shape[1]
                _fits(inner and core.shape[2:] == weight.shape[2:], core, weight)
                whole = torch.einsum("ij...,ip,jr->pr...", core, a, b)
            else:
                _fits(a.ndim == 2 and a.shape[1] == rank, a, weight)
                _fits(a.shape[0] * b.numel() <= weight.numel() * rank, b, weight)
                whole = a @ _flat(b)
        factors.append(whole)
    first, second = factors
    _fits(first.numel() * second.numel() == weight.numel(), second, weight)
    _fits(first.ndim == 2 and weight.shape[0] == first.shape[0] * second.shape[0], first, weight)
    sides = (weight.shape[0] // first.shape[0], weight.shape[1] // first.shape[1], *weight.shape[2:])
    _fits(prod(sides) == second.numel() and weight.shape[1] % first.shape[1] == 0, second, weight)
    own = 1.0 if rank is None else _scale(roles, scale, rank)  # whole factors have no rank
    first = first.reshape(*first.shape, *[1] * (weight.ndim - 2))
    return torch.kron(first, second.reshape(sides).contiguous()) * own


def _decomposed(wide: Tensor, magnitude: Tensor, of_rows: bool) -> Tensor:
    """m V / ‖V‖. The norm is that of each output, or, in older files, of each input (their m is [1, in])."""
    rows = of_rows or magnitude.shape[0] == wide.shape[0] or magnitude.ndim == 1
    side = 0 if rows else 1
    if magnitude.numel() != wide.shape[side]:
        raise UnreadableError(
            f"it has a DoRA magnitude of shape {list(magnitude.shape)} for a weight of {list(wide.shape)}"
        )
    others = [axis for axis in range(wide.ndim) if axis != side]
    shape = [wide.shape[axis] if axis == side else 1 for axis in range(wide.ndim)]
    norm = wide.square().sum(others, keepdim=True).sqrt()
    return wide * (magnitude.reshape(shape) / norm.clamp_min(torch.finfo(wide.dtype).tiny))
