"""A text-to-image latent diffusion model, seen as the operations that protection and its attackers need."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlikeness.diffusion import finite, latents
from unlikeness.diffusion.devices import pick_device, pick_dtype
from unlikeness.diffusion.family import Family, StableDiffusion
from unlikeness.diffusion.schedule import NoiseSchedule

if TYPE_CHECKING:
    from unlikeness.progress import Progress

__all__ = ["TextToImage"]


class TextToImage:
    """Autoencoder, U-Net, text encoder, tokenizer and schedule: a whole diffusers pipeline, taken apart.

    Images are [B, 3, H, W] in [0, 1]; latents z0 [B, C, h, w] are scaled, as the U-Net sees them; prompt
    embeddings c are [B, L, D]; noise levels t are long [B].

    Attributes:
        vae, unet, text_encoder, tokenizer, scheduler: the diffusers and transformers objects themselves.
        schedule: how noise is added and what the target is.
        family: what is particular to this kind of model.
        default_guidance: the classifier-free guidance scale that `generate` uses unless told.
        source: the folder that it was loaded from, if any; what `carried` names is copied from there on save.
        name: what it is called, if anything: "toybox", a hub name, or the folder's own name.
        carried: entries of model_index.json that are kept without being loaded (safety checker, ...).
    """

    def __init__(
        self,
        *,
        vae: Any,
        unet: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        family: Family | None = None,
        default_guidance: float | None = None,
        source: Path | None = None,
        carried: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.vae = vae
        self.unet = unet
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.scheduler = scheduler
        self.schedule = NoiseSchedule.from_scheduler(scheduler)
        self.family: Family = StableDiffusion() if family is None else family
        self.default_guidance = self.family.default_guidance if default_guidance is None else default_guidance
        self.source = source
        self.carried = dict(carried or {})
        self.name = name
        self._embedded: dict[str, Tensor] = {}
        self._embedded_at: tuple[int, ...] = ()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "toybox",
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> TextToImage:
        """Open a Stable Diffusion 1.x or 2.x model: a diffusers folder, a hub name, or the embedded "toybox".

        Args:
            device: "auto" (CUDA, else MPS, else CPU) or a torch device.
            dtype: "auto" (half precision on a GPU, float32 on the CPU) or a name like "bfloat16".
            revision: branch, tag or commit of a hub name.
            local_files_only: never ask the hub.

        Raises:
            UsageError: what is given is no such model, or device or dtype is wrong.
            UnlikenessError: the hub cannot be reached or does not know the name; a file is damaged.
            NotFiniteError: a weight is NaN or infinite.
        """
        from unlikeness.diffusion.hub import locate
        from unlikeness.diffusion.loading import load_folder
        from unlikeness.diffusion.trial import try_networks

        on = pick_device(device)
        precision = pick_dtype(dtype, on)
        half = precision in (torch.float16, torch.bfloat16)
        folder = locate(name_or_path, revision=revision, local_files_only=local_files_only, half=half)
        parts = load_folder(folder, dtype=precision)
        model = cls(
            vae=parts.vae,
            unet=parts.unet,
            text_encoder=parts.text_encoder,
            tokenizer=parts.tokenizer,
            scheduler=parts.scheduler,
            family=parts.family,
            default_guidance=parts.default_guidance,
            source=folder,
            carried=parts.carried,
            name=_name(name_or_path),
        )
        model.to(on, precision).freeze()
        finite.check_weights(model, f"model {name_or_path}")
        try_networks(folder, model)
        return model

    def save_pretrained(self, folder: str | Path, *, dtype: str | torch.dtype | None = None) -> Path:
        """Write the same diffusers layout, safetensors only; the folder appears complete or not at all.

        dtype: that of the files; None keeps the model's own. Adapters (LoRA) are merged into the weights.
        Raises UsageError if `folder` exists and is not empty.
        """
        from unlikeness.diffusion.saving import save_folder

        return save_folder(self, Path(folder), None if dtype is None else pick_dtype(dtype, self.device))

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        device: torch.device = self.unet.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The U-Net's precision."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def vae_scale(self) -> int:
        """Pixels per latent along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) at the model's own resolution."""
        size = self.unet.config.sample_size
        h, w = (size, size) if isinstance(size, int) else size
        return int(self.unet.config.in_channels), int(h), int(w)

    @property
    def resolution(self) -> int:
        """Side of the pictures it was trained on [px]."""
        return self.latent_shape[1] * self.vae_scale

    def to(
        self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> TextToImage:
        """Move and cast in place; what is None stays. What another model shares with this one (`copy`), such
        as a personalized one with its original, moves for both. On CUDA convolutions are laid out
        channels-last, which is slower elsewhere (`python -m benchmarks.unet_speed`).

        In half precision the autoencoder stays float32: of bfloat16, eight bits of mantissa would move pixels
        by more than the perturbations that this library measures; in float16 those of Stable Diffusion
        overflow.
        """
        on = self.device if device is None else pick_device(device)
        precision = self.dtype if dtype is None else pick_dtype(dtype, on)
        layout = torch.channels_last if on.type == "cuda" else torch.contiguous_format
        pixels = torch.promote_types(precision, torch.float32)
        for module, kind in ((self.unet, precision), (self.vae, pixels), (self.text_encoder, precision)):
            torch.nn.Module.to(module, on, kind)
        self.unet.to(memory_format=layout)
        self.vae.to(memory_format=layout)
        self.clear_cache()
        return self

    def freeze(self) -> TextToImage:
        """No parameter requires a gradient, all modules in eval mode. Returns itself."""
        for module in (self.vae, self.unet, self.text_encoder):
            module.requires_grad_(False).eval()
        return self

    def copy(self, *, text_encoder: bool = False) -> TextToImage:
        """Another model with its own U-Net (and text encoder, if asked), sharing everything else."""
        return TextToImage(
            vae=self.vae,
            unet=copy.deepcopy(self.unet),
            text_encoder=copy.deepcopy(self.text_encoder) if text_encoder else self.text_encoder,
            tokenizer=self.tokenizer,
            scheduler=self.scheduler,
            family=self.family,
            default_guidance=self.default_guidance,
            source=self.source,
            carried=self.carried,
            name=self.name,
        )

    @contextmanager
    def autocast(self, dtype: str | torch.dtype | None = "bfloat16") -> Iterator[None]:
        """Mixed precision around forward and loss (not backward). None, "float32": as if it were not there.

        On a CPU the fused attention's bfloat16 backward is slower than its float32 one, so that short
        sequences (up to 1,024 latents) take the plain matrix products instead.
        """
        precision = torch.float32 if dtype is None else pick_dtype(dtype, self.device)
        if precision not in (torch.bfloat16, torch.float16):
            yield
            return
        _, h, w = self.latent_shape
        plain = self.device.type == "cpu" and h * w <= 1024
        attention = sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
        with torch.autocast(self.device.type, precision), attention:
            yield

    def encode(self, images: Tensor) -> latents.Posterior:
        """images [B, 3, H, W] in [0, 1] -> posterior over scaled latents, differentiable w.r.t. them."""
        return latents.encode(self.vae, images.to(self.device))

    @torch.no_grad()
    def encode_all(self, images: Tensor, *, batch_size: int = 8) -> latents.Posterior:
        """`encode` without gradients, a batch at a time: for latents that are computed once and kept.

        NotFiniteError if one of them is NaN or infinite.
        """
        found = latents.Posterior.cat([self.encode(part) for part in torch.split(images, batch_size)])
        if not finite.all_finite([found.mean, found.std]):
            raise finite.not_finite(finite.ENCODER, self.vae.dtype)
        return found

    def decode(self, z0: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> images [B, 3, H, W] in [0, 1].

        Without a gradient to keep, NotFiniteError if a value is NaN or infinite.
        """
        return latents.decode(self.vae, z0.to(self.device))

    def embed(self, prompts: Sequence[str], *, grad: bool = False) -> Tensor:
        """Prompts -> c [B, L, D].

        Computed once per prompt and kept until the text encoder changes; with `grad` computed afresh, with
        the graph that trains the text encoder, and all that is kept is forgotten. NotFiniteError if what is
        kept would be NaN or infinite.
        """
        if isinstance(prompts, str):
            prompts = [prompts]
        if grad:
            self.clear_cache()  # a step will follow
            return self.family.embed(self.tokenizer, self.text_encoder, prompts)
        # In-place changes of a parameter raise its version, but not the steps of a fused optimizer.
        now = tuple(p._version for p in self.text_encoder.parameters())
        if now != self._embedded_at:
            self.clear_cache()
            self._embedded_at = now
        new = sorted({prompt for prompt in prompts if prompt not in self._embedded})
        if new:
            # What is kept is of full precision, even if asked for inside `autocast`.
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                embedded = self.family.embed(self.tokenizer, self.text_encoder, new)
            finite.check(embedded, finite.TEXT_ENCODER, self.text_encoder.dtype)
            self._embedded.update(zip(new, embedded, strict=True))
        return torch.stack([self._embedded[prompt] for prompt in prompts])

    def clear_cache(self) -> None:
        """Forget all embedded prompts."""
        self._embedded.clear()

    def predict(self, z_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """f_θ(z_t, t, c) [B, C, h, w] in the U-Net's dtype; z_t and c are cast to it."""
        return self.family.predict(self.unet, z_t, t, c)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        steps: int = 25,
        guidance: float | None = None,
        negative_prompt: str | Sequence[str] = "",
        batch_size: int = 16,
        sampler: str = "dpm++",
        progress: Progress | None = None,
    ) -> Tensor:
        """Draw one picture per seed: see `unlikeness.diffusion.sampling.generate`."""
        from unlikeness.diffusion.sampling import generate

        return generate(
            self,
            prompts,
            seeds=seeds,
            steps=steps,
            guidance=guidance,
            negative_prompt=negative_prompt,
            batch_size=batch_size,
            sampler=sampler,
            progress=progress,
        )


def _name(called: str | Path) -> str:
    """A hub name as it is; a folder's own name, without the way to it."""
    folder = Path(called).expanduser()
    return folder.resolve().name if folder.is_dir() else str(called)
