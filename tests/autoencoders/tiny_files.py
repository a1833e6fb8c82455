"""Tiny autoencoders with random weights, written in the layouts of their author and of diffusers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

__all__ = ["decoder_weights", "encoder_weights", "merged", "write"]


def encoder_weights(
    *, factor: int = 8, latents: int = 4, width: int = 8, pooled: bool = False
) -> dict[str, Tensor]:
    """By number and name, as in `taesd_encoder.pth` (8) or `taesana_encoder.pth` (32)."""
    found: dict[str, Tensor] = {}
    half = width // 2
    if factor == 8:
        _conv(found, "0", 3, width)
        _block(found, "1", width, width)
        number = 2
    else:
        _conv(found, "0", 3, half)
        _conv(found, "2", half, width)
        _block(found, "4", width, width)
        number = 5
    for stage in range(3):
        found[f"{number}.weight"] = torch.randn(width, width, 3, 3) * 0.1
        for i in range(1, 4):
            _block(found, f"{number + i}", width, width, pooled=pooled and stage == 2)
        number += 4
    _conv(found, str(number), width, latents)
    return found


def decoder_weights(
    *, factor: int = 8, latents: int = 4, width: int = 8, pooled: bool = False
) -> dict[str, Tensor]:
    """By number and name, as in `taesd_decoder.pth` (8) or `taesana_decoder.pth` (32)."""
    found: dict[str, Tensor] = {}
    _conv(found, "1", latents, width)
    number, stages = 3, 3 if factor == 8 else 5
    for stage in range(stages):
        for i in range(3):
            _block(found, f"{number + i}", width, width, pooled=pooled and stage == 0)
        found[f"{number + 4}.weight"] = torch.randn(width, width, 3, 3) * 0.1
        number += 5
    _block(found, str(number), width, width)
    _conv(found, str(number + 1), width, 3)
    return found


def merged(encoder: dict[str, Tensor], decoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """Both in one file, as diffusers numbers them: its decoder does not count the first layer, a tanh."""
    found = {f"encoder.layers.{name}": tensor for name, tensor in encoder.items()}
    for name, tensor in decoder.items():
        number, _, rest = name.partition(".")
        found[f"decoder.layers.{int(number) - 1}.{rest}"] = tensor
    return found


def write(file: Path, tensors: dict[str, Tensor]) -> Path:
    """As .pth or .safetensors, in half precision as the real ones are."""
    from safetensors.torch import save_file

    halved = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    if file.suffix == ".safetensors":
        save_file(halved, file)
    else:
        torch.save(halved, file)
    return file


def _conv(found: dict[str, Tensor], name: str, narrow: int, wide: int) -> None:
    found[f"{name}.weight"] = torch.randn(wide, narrow, 3, 3) * 0.1
    found[f"{name}.bias"] = torch.randn(wide) * 0.1


def _block(found: dict[str, Tensor], name: str, narrow: int, wide: int, *, pooled: bool = False) -> None:
    for i, before in ((0, narrow), (2, wide), (4, wide)):
        _conv(found, f"{name}.conv.{i}", before, wide)
    if narrow != wide:
        found[f"{name}.skip.weight"] = torch.randn(wide, narrow, 1, 1) * 0.1
    if pooled:
        found[f"{name}.pool.0.weight"] = torch.randn(4 * narrow, narrow, 1, 1) * 0.1
        found[f"{name}.pool.1.weight"] = torch.ones(4 * narrow)
        found[f"{name}.pool.1.bias"] = torch.zeros(4 * narrow)
        found[f"{name}.pool.3.weight"] = torch.randn(narrow, 4 * narrow, 1, 1) * 0.1
