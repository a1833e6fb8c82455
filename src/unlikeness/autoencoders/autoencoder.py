"""An autoencoder of diffusers, seen as a Gaussian posterior over normalised latents."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness import finite
from unlikeness.autoencoders.tiny import TinyAutoencoder
from unlikeness.errors import UsageError

__all__ = ["Autoencoder", "Posterior", "randn", "samples"]

_SAMPLED = 64
"""Values of each weight that a fingerprint reads. Any training changes all of them."""


@dataclass(frozen=True)
class Posterior:
    """q(z0 | x): a diagonal Gaussian over normalised latents.

    mean, std: [B, C, h, w]. An autoencoder without a posterior (AutoencoderTiny) has std = 0.
    """

    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return self.mean.shape[0]

    def __getitem__(self, index: slice | Tensor | list[int]) -> Posterior:
        return Posterior(self.mean[index], self.std[index])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z0 [B, C, h, w] drawn from `generator`; differentiable w.r.t. the images (reparametrised)."""
        return self.mean + self.std * randn(tuple(self.mean.shape), self.mean, generator)

    @staticmethod
    def cat(parts: list[Posterior]) -> Posterior:
        """One posterior of several batches, in order."""
        return Posterior(torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts]))


def randn(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """N(0, I) on the generator's own device in float32, moved to `like`: one seed, one noise everywhere."""
    device = generator.device if generator is not None else like.device
    return torch.randn(shape, generator=generator, device=device).to(like.device, like.dtype)


class Autoencoder:
    """Any autoencoder of diffusers.

    Latents are normalised by the autoencoder's own configuration: `scaling_factor` and `shift_factor`, or a
    mean and a standard deviation for each channel (`latents_mean`, `latents_std`; FLUX.2's are weights). An
    autoencoder for video sees a picture as a film of one frame.

    network: the diffusers object.
    """

    def __init__(self, network: Any) -> None:
        self.network = network

    @classmethod
    def open(
        cls, name: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
        decoder: bool = True,
    ) -> Autoencoder:  # fmt: skip
        """Open an autoencoder, frozen.

        Example:
            `Autoencoder.open("sdxl:tiny")`, `Autoencoder.open("models/vae/ae.safetensors")`

        Args:
            name: a known name (see `autoencoders.names`), a folder of diffusers, a single file, or a name on
                the Hugging Face hub. Of a whole model only the `vae` part is read or fetched.
            decoder: whether to keep the decoder. Without it, only `encode` works, in less memory.

        Raises:
            UsageError: there is no autoencoder.
            UnlikenessError: a file is damaged or out of bounds, or could not be fetched.
            NotFiniteError: its latents are NaN or infinite.
        """
        from unlikeness.autoencoders.fetching import locate
        from unlikeness.autoencoders.names import source_of
        from unlikeness.autoencoders.opening import open_path, try_encoder

        known = str(name) if source_of(str(name)) else None
        opened = open_path(locate(str(name)), name=known, decoder=decoder)
        opened.to(torch.device(device), dtype)
        try_encoder(opened, f"the autoencoder {name}")
        return opened

    @property
    def factor(self) -> int:
        """Pixels per latent along a side."""
        config = self.network.config
        for name in ("scale_factor_spatial", "spatial_compression_ratio"):
            found = config.get(name) or getattr(self.network, name, None)
            if found:
                return int(found)
        blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels")
        if blocks:
            return int(2 ** (len(blocks) - 1))
        return int(2 ** len(config.temperal_downsample))

    @property
    def channels(self) -> int:
        """Channels C of the latents."""
        config = self.network.config
        return int(config.get("latent_channels") or config.z_dim)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.network.parameters()).device  # diffusers' own looks at all modules
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        dtype: torch.dtype = self.network.dtype
        return dtype

    @property
    def fingerprint(self) -> str:
        """Sixteen digits of the SHA-256 of the configuration and of a sample of every weight."""
        config = {k: v for k, v in self.network.config.items() if not k.startswith("_")}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        for sample in samples(self.network):
            digest.update(sample)
        return digest.hexdigest()[:16]

    def encode(self, images: Tensor) -> Posterior:
        """images [B, 3, H, W] in [0, 1] -> posterior over normalised latents [B, C, h, w].

        Differentiable w.r.t. the images.
        """
        pixels = 2 * images.to(self.device, self.dtype) - 1
        encoded = self.network.encode(pixels.unsqueeze(2) if self._films else pixels)
        if hasattr(encoded, "latent_dist"):
            mean, std = encoded.latent_dist.mean, encoded.latent_dist.std
        else:
            mean = encoded.latents if hasattr(encoded, "latents") else encoded.latent
            std = torch.zeros_like(mean)
        if self._films:
            mean, std = mean.squeeze(2), std.squeeze(2)
        scale, shift = self._normalisation(mean)
        return Posterior((mean - shift) * scale, std * scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents [B, C, h, w] -> images [B, 3, H, W], clamped to [0, 1].

        Without a gradient to keep, NotFiniteError if a value is NaN or infinite. UsageError if it was opened
        without its decoder.
        """
        if getattr(self.network, "decoder", self.network) is None:
            raise UsageError("this autoencoder was opened without its decoder, so it only encodes")
        latents = latents.to(self.device, self.dtype)
        scale, shift = self._normalisation(latents)
        raw = latents / scale + shift
        images: Tensor = self.network.decode(raw.unsqueeze(2) if self._films else raw).sample
        images = images.squeeze(2) if self._films else images
        if not images.requires_grad:  # clamping would turn infinity into white
            finite.check(images, finite.DECODER, self.dtype)
        return ((images + 1) / 2).clamp(0, 1)

    def to(self, device: torch.device, dtype: torch.dtype) -> Autoencoder:
        """Move and cast in place. Where that is faster, the convolutions are laid out channels-last: on CUDA,
        and those of a `TinyAutoencoder` on the CPU."""
        torch.nn.Module.to(self.network, device, dtype)
        fast = device.type == "cuda" or (device.type == "cpu" and isinstance(self.network, TinyAutoencoder))
        layout = torch.channels_last if fast else torch.contiguous_format
        self.network.to(memory_format=layout)
        return self

    def copy(self) -> Autoencoder:
        """Another one with weights of its own."""
        return Autoencoder(copy.deepcopy(self.network))

    @property
    def _films(self) -> bool:
        return bool(self.network.config.get("temperal_downsample"))

    def _normalisation(self, like: Tensor) -> tuple[Any, Any]:
        """(scale, shift): normalised = (raw − shift) · scale; numbers, or [1, C, 1, 1]."""
        config = self.network.config
        norm = getattr(self.network, "bn", None)
        if norm is not None:
            return self._phases(norm, like)
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean, std = (
                torch.tensor(config[name], device=like.device, dtype=like.dtype).reshape(1, -1, 1, 1)
                for name in ("latents_mean", "latents_std")
            )
            return float(config.get("scaling_factor") or 1) / std, mean
        return float(config.get("scaling_factor") or 1), float(config.get("shift_factor") or 0)

    def _phases(self, norm: torch.nn.BatchNorm2d, like: Tensor) -> tuple[Tensor, Tensor]:
        """FLUX.2's (scale, shift), [1, C, h, w].

        Its denoiser sees patches of 2 × 2 latents, and each place in a patch has a mean and a deviation of
        its own. Here the latents stay unpatched.
        """
        tall, wide = self.network.config["patch_size"]
        h, w = like.shape[-2:]

        def spread(values: Tensor) -> Tensor:
            patch = values.to(like.device, like.dtype).reshape(1, -1, tall, wide)
            return patch.repeat(1, 1, -(-h // tall), -(-w // wide))[..., :h, :w]

        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        return spread(1 / torch.sqrt(variance.float() + norm.eps)), spread(mean)


def samples(network: Any) -> Iterator[bytes]:
    """Name, shape and first values of every weight, for a fingerprint."""
    for name, weight in network.named_parameters():
        sample = weight.detach().flatten()[:_SAMPLED].float().cpu().numpy()
        yield f"{name} {tuple(weight.shape)}".encode() + sample.tobytes()
