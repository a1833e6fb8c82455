"""A text-to-image latent diffusion model, as the operations that protection and its attackers need."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness import finite
from unlikeness.autoencoders import Autoencoder, Posterior
from unlikeness.diffusion.condition import Condition, Conditioner, Remembered
from unlikeness.diffusion.devices import mixed_precision, pick_device, pick_dtype
from unlikeness.diffusion.families import Defaults, Family, family_of
from unlikeness.diffusion.schedule import Schedule
from unlikeness.diffusion.single_file.kinds import Found

__all__ = ["TextToImage"]


class TextToImage:
    """A whole diffusers pipeline, taken apart into four words.

    Images are [B, 3, H, W] in [0, 1]; latents z0 [B, C, h, w] are normalised, as the denoiser sees them;
    noise levels t are long [B].

    Attributes:
        autoencoder: images to latents and back.
        denoiser: the network that is trained, a diffusers object.
        conditioner: prompts to a `Condition`.
        schedule: how noise is added and what the target is.
        scheduler: diffusers' own scheduler object, from which solvers are made.
        family: what is particular to this kind of model.
        defaults: guidance, steps and sampler of `generate`, unless others are given.
        source: the folder that it was loaded from, if any; what `carried` names is copied from there on save.
        name: "toybox", a hub name, or the folder's own name, if any.
        carried: entries of model_index.json that are kept without being loaded (safety checker, ...).
        single: the single file that it came from, if any.
    """

    def __init__(
        self,
        *,
        autoencoder: Autoencoder,
        denoiser: Any,
        conditioner: Conditioner,
        scheduler: Any,
        family: Family,
        defaults: Defaults | None = None,
        source: Path | None = None,
        carried: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.denoiser = denoiser
        self.conditioner = conditioner
        self.scheduler = scheduler
        self.schedule: Schedule = family.schedule(scheduler)
        self.family = family
        self.defaults = family.usual if defaults is None else defaults
        self.source = source
        self.carried = dict(carried or {})
        self.name = name
        self.single: Found | None = None
        self._remembered = Remembered()

    @classmethod
    def from_parts(
        cls,
        parts: Mapping[str, Any],
        *,
        pipeline: str = "StableDiffusionPipeline",
        defaults: Defaults | None = None,
        source: Path | None = None,
        carried: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> TextToImage:
        """A model from the objects of a diffusers pipeline by name, as in its `components`."""
        family = family_of(pipeline)
        family = family.lacking(name for name in family.optional if parts.get(name) is None)
        told = {flag: carried[flag] for flag in family.flags if carried and flag in carried}
        drawn = family.defaults(parts, name or "") if defaults is None else defaults
        return cls(
            autoencoder=Autoencoder(parts[family.autoencoder]),
            denoiser=parts[family.denoiser],
            conditioner=family.conditioner(parts, {**family.flags, **told}, drawn.resolution),
            scheduler=parts["scheduler"],
            family=family,
            defaults=drawn,
            source=source,
            carried=carried,
            name=name,
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "toybox",
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        carried: bool = True,
        prediction: str | None = None,
        model_config: str | Path | None = None,
    ) -> TextToImage:
        """Open a model: a diffusers folder, a single file, a hub name, or the embedded "toybox".

        Args:
            device: "auto" (CUDA, else MPS, else CPU) or a torch device.
            dtype: "auto" (half precision on a GPU, float32 on the CPU) or a name like "bfloat16".
            revision: branch, tag or commit of a hub name.
            local_files_only: never ask the hub.
            carried: fetch also what is only copied when the model is saved (a safety checker, ...).
            prediction: "epsilon" or "v": what a single file predicts that does not say it.
            model_config: a diffusers folder with the configurations and tokenizers of a single file.

        Raises:
            UsageError: what is given is no such model, or device or dtype is wrong.
            UnlikenessError: the hub cannot be reached or does not know the name; a file is damaged.
            NotFiniteError: a weight is NaN or infinite.
        """
        from unlikeness.diffusion.opening import opened

        return opened(
            cls, name_or_path, device=device, dtype=dtype, revision=revision,
            local_files_only=local_files_only, carried=carried, prediction=prediction,
            model_config=model_config,
        )  # fmt: skip

    def save_pretrained(self, folder: str | Path, *, dtype: str | torch.dtype | None = None) -> Path:
        """Write the same diffusers layout, safetensors only; the folder appears complete or not at all.

        dtype: that of the files; None keeps the model's own. Adapters (LoRA) are merged into the weights.
        Raises UsageError if `folder` exists and is not empty.
        """
        from unlikeness.diffusion.saving import save_folder

        return save_folder(self, Path(folder), None if dtype is None else pick_dtype(dtype, self.device))

    @property
    def parts(self) -> dict[str, Any]:
        """The objects of the diffusers pipeline, by the names of their folders."""
        return {
            self.family.autoencoder: self.autoencoder.network,
            self.family.denoiser: self.denoiser,
            **self.conditioner.encoders,
            **self.conditioner.tokenizers,
            "scheduler": self.scheduler,
        }

    @property
    def networks(self) -> list[Any]:
        """All objects with weights: autoencoder, denoiser, text encoders."""
        return [self.parts[name] for name in self.family.networks]

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        device: torch.device = next(self.denoiser.parameters()).device  # diffusers' own looks at all modules
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's precision."""
        dtype: torch.dtype = self.denoiser.dtype
        return dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) at the model's own resolution."""
        side = (self.defaults.resolution or 0) // self.autoencoder.factor
        sides = (side, side) if side else self.family.latent_sides(self.denoiser)
        return self.autoencoder.channels, *sides

    @property
    def resolution(self) -> int:
        """Side of the pictures it was trained on [px]."""
        return self.latent_shape[1] * self.autoencoder.factor

    def to(
        self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> TextToImage:
        """Move and cast in place; what is None stays. Parts that a `copy` shares with its original move for
        both. On CUDA convolutions are laid out channels-last, which is slower elsewhere
        (`python -m benchmarks.unet_speed`).

        In half precision the autoencoder stays float32. Eight bits of mantissa (bfloat16) would move pixels
        by more than the perturbations that this library measures; in float16 Stable Diffusion's overflows.
        """
        on = self.device if device is None else pick_device(device)
        precision = self.dtype if dtype is None else pick_dtype(dtype, on)
        torch.nn.Module.to(self.denoiser, on, precision)
        self.denoiser.to(memory_format=torch.channels_last if on.type == "cuda" else torch.contiguous_format)
        self.autoencoder.to(on, torch.promote_types(precision, torch.float32))
        self.conditioner.to(on, precision)
        self._remembered.clear()
        return self

    def freeze(self) -> TextToImage:
        """No weight requires a gradient, all networks in eval mode. Returns itself."""
        for network in self.networks:
            network.requires_grad_(False).eval()
        return self

    def widen(self, *, conditioner: bool = False) -> TextToImage:
        """Cast the denoiser in place (and the conditioner, on request) to float32 at least, for training."""
        torch.nn.Module.to(self.denoiser, torch.promote_types(self.dtype, torch.float32))
        if conditioner:
            self.conditioner.widen()
        return self

    def copy(self, *, conditioner: bool = False, weights: bool = True) -> TextToImage:
        """A copy with a denoiser (and a conditioner) of its own; without `weights` they are shared."""
        shared = () if weights else (*self.denoiser.parameters(), *self.denoiser.buffers())
        copied = TextToImage(
            autoencoder=self.autoencoder,
            denoiser=copy.deepcopy(self.denoiser, {id(tensor): tensor for tensor in shared}),
            conditioner=self.conditioner.copy(weights=weights) if conditioner else self.conditioner,
            scheduler=self.scheduler,
            family=self.family,
            defaults=self.defaults,
            source=self.source,
            carried=self.carried,
            name=self.name,
        )
        copied.single = self.single
        return copied

    def autocast(self, dtype: str | torch.dtype | None = "bfloat16") -> AbstractContextManager[None]:
        """Mixed precision around forward and loss (not backward); None and "float32" change nothing."""
        _, h, w = self.latent_shape
        precision = torch.float32 if dtype is None else pick_dtype(dtype, self.device)
        return mixed_precision(self.device, precision, sequence=h * w)

    def encode(self, images: Tensor) -> Posterior:
        """images [B, 3, H, W] in [0, 1] -> posterior over normalised latents, differentiable w.r.t. them."""
        return self.autoencoder.encode(images)

    @torch.no_grad()
    def encode_all(self, images: Tensor, *, batch_size: int = 8) -> Posterior:
        """`encode` without gradients, a batch at a time: for latents that are computed once and kept.

        NotFiniteError if one of them is NaN or infinite.
        """
        found = Posterior.cat([self.encode(part) for part in torch.split(images, batch_size)])
        if not finite.all_finite([found.mean, found.std]):
            raise finite.not_finite(finite.ENCODER, self.autoencoder.dtype)
        return found

    def decode(self, z0: Tensor) -> Tensor:
        """Normalised latents [B, C, h, w] -> images [B, 3, H, W] in [0, 1].

        Without a gradient to keep, NotFiniteError if a value is NaN or infinite.
        """
        return self.autoencoder.decode(z0)

    def condition(self, prompts: Sequence[str | None], *, grad: bool = False) -> Condition:
        """What the prompts become, one row a prompt. None is no prompt, for the second half of guidance; in
        some families it differs from an empty one.

        They are kept until the encoders' weights change (`condition.Remembered`). With `grad` everything is
        computed anew, with the graph that trains the encoders, and nothing is kept. NotFiniteError if what is
        kept would be NaN or infinite.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        if grad:
            self._remembered.clear()  # a training step will follow
            return self.conditioner.encode_all(prompts)
        return self._remembered.of(self.conditioner, prompts, self.device)

    def predict(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """f_θ(z_t, t, condition) [B, C, h, w] in the denoiser's dtype, to which z_t and condition are cast.

        t: levels of `schedule` (long), or a solver's own times (floating-point).
        """
        return self.family.predict(self.denoiser, z_t, self.schedule.told(t), condition)

    def generate(self, prompts: Sequence[str], *, seeds: Sequence[int], **how: Any) -> Tensor:
        """Images [B, 3, H, W], float32 in [0, 1] on the CPU, one per seed.

        how: steps, guidance, negative_prompt, batch_size, sampler, progress; see `sampling.drawn`.
        """
        from unlikeness.diffusion.sampling import drawn

        return torch.cat(list(drawn(self, prompts, seeds=seeds, **how)))
