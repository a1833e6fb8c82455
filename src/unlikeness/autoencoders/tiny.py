"""Tiny autoencoders in the format of their author: `taesd`, `taesdxl`, `taesd3`, `taef1`, `taef2`, `taesana`.

They are distilled: small networks whose latents are close to those of a large autoencoder, in the normalised
form that the denoiser sees. An encoder and a decoder are files of their own, `..._encoder` and `..._decoder`,
with numbered names (`0.weight`, `1.conv.0.weight`, ...). diffusers' single files with both
(`encoder.layers.0.weight`, ...) are read too. Names and shapes of the tensors give the layers.

Source: github.com/madebyollin/taesd.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.networks.building import fill, sentence

__all__ = ["TinyAutoencoder", "is_tiny", "tiny_autoencoder"]

_ENCODERS = {8: "cb" + 3 * "sbbb" + "c", 32: "drdrb" + 3 * "sbbb" + "c"}
_DECODERS = {8: "tcr" + 3 * "bbbun" + "bc", 32: "tcr" + 5 * "bbbun" + "bc"}
"""Pixels per latent -> the layers, a letter each. Convolutions: c; d with stride 2; s with stride 2 and n
with stride 1, both without bias. The others: b block; r ReLU; t the tanh that bounds latents; u enlarging."""

_WIDEST = 1024
"""Bound on channels; known ones have up to 256."""

_NUMBERED = re.compile(r"(?:(encoder|decoder)\.layers\.)?(\d{1,2})\.([\w.]+)")


class _Bounded(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return 3 * torch.tanh(z / 3)


class _Block(nn.Module):
    def __init__(self, narrow: int, wide: int, pooled: int | None) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(narrow, wide)]
        for _ in range(2):
            layers += [nn.ReLU(), _conv(wide, wide)]
        self.conv = nn.Sequential(*layers)
        self.skip = nn.Identity() if narrow == wide else nn.Conv2d(narrow, wide, 1, bias=False)
        self.pool = None if pooled is None else nn.Sequential(
            nn.Conv2d(narrow, pooled, 1, bias=False), nn.GroupNorm(4, pooled), nn.ReLU(),
            nn.Conv2d(pooled, narrow, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + self.skip(x))


_PLAIN: dict[str, Callable[[], nn.Module]] = {
    "r": nn.ReLU, "t": _Bounded, "u": partial(nn.Upsample, scale_factor=2)
}  # fmt: skip
"""Layers without weights."""


def _conv(narrow: int, wide: int, stride: int = 1, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=bias)


@dataclass(frozen=True)
class _Encoded:
    latents: Tensor


@dataclass(frozen=True)
class _Decoded:
    sample: Tensor


class TinyAutoencoder(nn.Module):
    """Encoder, and decoder if there is one, with the interface of diffusers' autoencoders.

    config: `latent_channels`, `scale_factor_spatial` and `scaling_factor`.
    """

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential | None, config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.config = config

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def encode(self, pixels: Tensor) -> _Encoded:
        """pixels [B, 3, H, W] in [-1, 1]. The layers are made for [0, 1]."""
        return _Encoded(self.encoder((pixels + 1) / 2))

    def decode(self, latents: Tensor) -> _Decoded:
        """Pixels in about [-1, 1]. There must be a decoder."""
        assert self.decoder is not None
        return _Decoded(2 * self.decoder(latents) - 1)


def is_tiny(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a tiny autoencoder, as far as their names tell."""
    return bool(tensors) and all(_NUMBERED.fullmatch(name) for name in tensors)


def tiny_autoencoder(
    tensors: Mapping[str, Tensor], decoder: Mapping[str, Tensor] | None, what: str
) -> TinyAutoencoder:
    """The network with these weights, in eval mode.

    Args:
        tensors: of the encoder's file, or of a file with both parts.
        decoder: of the decoder's file, if there is one.
        what: the network's name in a message.

    Raises:
        UsageError: a decoder alone.
        UnlikenessError: other layers, or widths out of bounds.
    """
    parts: dict[str, dict[int, dict[str, Tensor]]] = {"encoder": {}, "decoder": {}}
    for source, home in ((tensors, "encoder"), (decoder or {}, "decoder")):
        for name, tensor in source.items():
            found = _NUMBERED.fullmatch(name)
            if found is None:
                raise UnlikenessError(
                    f"{what} holds {one_line(name)[:60]!r}, which no tiny autoencoder has; fetch it again"
                )
            part = found[1] or home
            number = int(found[2]) + (found[1] == "decoder")  # diffusers does not count the tanh
            parts[part].setdefault(number, {})[found[3]] = tensor
    if not parts["encoder"] or _factor(parts["encoder"], _DECODERS):
        raise UsageError(f"{what} is a decoder, and pictures need an encoder; give the file of the encoder")
    factor, encoder = _built(parts["encoder"], _ENCODERS, what)
    channels = encoder[-1].out_channels
    config = {"latent_channels": channels, "scale_factor_spatial": factor, "scaling_factor": 1.0}
    decoding = None
    if parts["decoder"]:
        other, decoding = _built(parts["decoder"], _DECODERS, what)
        if other != factor or decoding[1].in_channels != channels:
            raise UnlikenessError(
                f"{what} has an encoder and a decoder of different models; fetch them again"
            )
    return TinyAutoencoder(encoder, decoding, config).eval()


def _factor(layers: Mapping[int, Any], known: Mapping[int, str]) -> int | None:
    """The compression of the known layout whose layers with weights are these."""
    for factor, letters in known.items():
        if set(layers) == {i for i, letter in enumerate(letters) if letter not in _PLAIN}:
            return factor
    return None


def _built(
    layers: Mapping[int, Mapping[str, Tensor]], known: Mapping[int, str], what: str
) -> tuple[int, nn.Sequential]:
    """Compression and layers. The shapes of the tensors give the widths, which must follow one another."""
    factor = _factor(layers, known)
    if factor is None:
        raise UnlikenessError(
            f"{what} has {len(layers)} layers with weights, which are not those of a known tiny autoencoder; "
            "fetch it again, or give the whole autoencoder"
        )
    made: list[nn.Module] = []
    widths: list[tuple[int, int]] = []
    with sentence(what), torch.device("meta"):
        for i, letter in enumerate(known[factor]):
            if letter in _PLAIN:
                made.append(_PLAIN[letter]())
                continue
            tensors = layers[i]
            narrow, wide = _widths(tensors.get("conv.0.weight" if letter == "b" else "weight"), what)
            widths.append((narrow, wide))
            if letter == "b":
                pool = tensors.get("pool.0.weight")
                made.append(_Block(narrow, wide, None if pool is None else _widths(pool, what)[1]))
            else:
                made.append(_conv(narrow, wide, 2 if letter in "ds" else 1, bias=letter in "cd"))
    network = nn.Sequential(*made)
    flat = {f"{i}.{name}": tensor for i, named in layers.items() for name, tensor in named.items()}
    fill(network, flat, what)
    if any(before[1] != after[0] for before, after in pairwise(widths)):
        raise UnlikenessError(f"{what} has layers whose channels do not follow one another; fetch it again")
    if (widths[0][0] if known is _ENCODERS else widths[-1][1]) != 3:
        raise UnlikenessError(f"{what} is not for pictures of three colours; fetch another one")
    return factor, network


def _widths(weight: Tensor | None, what: str) -> tuple[int, int]:
    """Channels in and out of a convolution."""
    if weight is None or weight.ndim != 4 or not all(1 <= n <= _WIDEST for n in weight.shape[:2]):
        raise UnlikenessError(
            f"{what} has a layer without a convolution of at most {_WIDEST} channels; fetch it again"
        )
    return weight.shape[1], weight.shape[0]
