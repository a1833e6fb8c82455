"""Noisy upscaling (Hönig et al. 2024, arXiv 2406.12027): noise, a diffusion upscaler, then down again.

torch is imported by what computes, so that a missing folder is named at once.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UsageError, one_line
from unlikeness.networks.configs import read_object
from unlikeness.purify.base import Model, PictureByPicture
from unlikeness.purify.settings import UpscaleSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Upscale", "UpscaleSettings", "Upscaler", "locate"]

_PIPELINE = "StableDiffusionUpscalePipeline"
_INDEX = "model_index.json"
_NETWORKS = ("unet", "vae", "text_encoder")
_CONFIGURED = ("unet", "vae", "scheduler", "low_res_scheduler")
_PARTS = (*_NETWORKS, "tokenizer", "scheduler", "low_res_scheduler")


class Upscaler:
    """A diffusion upscaler of diffusers: it draws a picture of several times the side.

    pipeline: a StableDiffusionUpscalePipeline. fingerprint: of its settings and a sample of every weight.
    """

    def __init__(self, pipeline: Any) -> None:
        from unlikeness.autoencoders.autoencoder import samples

        self.pipeline = pipeline
        digest = hashlib.sha256()
        for name in _CONFIGURED:
            config = dict(getattr(pipeline, name).config).items()
            kept = {key: value for key, value in config if not key.startswith("_")}
            digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
        for name in _NETWORKS:
            for sample in samples(getattr(pipeline, name)):
                digest.update(sample)
        self.fingerprint = digest.hexdigest()[:16]

    @classmethod
    def open(cls, name: str | Path, *, device: str | torch.device | None = None) -> Upscaler:
        """The upscaler of a diffusers folder or a hub name, such as stabilityai/stable-diffusion-x4-upscaler.

        Raises:
            UsageError: neither, or a pipeline of another class.
            UnlikenessError: it could not be fetched, or is damaged.
        """
        import diffusers

        from unlikeness.diffusion.devices import pick_device
        from unlikeness.networks.building import quiet, sentence

        folder, pipeline = locate(str(name)), None
        with quiet(), sentence(f"the upscaler {name}"):
            pipeline = diffusers.StableDiffusionUpscalePipeline.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, safety_checker=None, watermarker=None,
                feature_extractor=None,
            )  # fmt: skip
            pipeline.to(pick_device(device))
            pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline)

    @property
    def side(self) -> int:
        """Of the small pictures that it was trained on [px]."""
        return int(self.pipeline.unet.config.sample_size)


class Upscale(PictureByPicture[UpscaleSettings]):
    """Adds Gaussian noise, lets the upscaler draw the picture larger without a prompt, and makes it small
    again by area averages. In tiles of the upscaler's own size. model: None, or an open `Upscaler`."""

    settings_type = UpscaleSettings

    def __init__(self, model: Model | None, settings: UpscaleSettings) -> None:
        super().__init__(model, settings)
        self.upscaler = model if isinstance(model, Upscaler) else Upscaler.open(settings.upscaler)
        self.fingerprint = self.upscaler.fingerprint

    def one(self, image: Tensor, seed: int) -> Tensor:
        """See `PictureByPicture.one`."""
        from unlikeness.purify.tiles import by_tiles
        from unlikeness.seeds import derive

        def change(tile: Tensor, number: int) -> Tensor:
            return self._redrawn(tile, derive(seed, number))

        side = self.upscaler.side
        return by_tiles(image, change, side=side, cell=side, overlap=side // 4)

    def _redrawn(self, tile: Tensor, seed: int) -> Tensor:
        import torch.nn.functional as F

        from unlikeness.seeds import normal, picture_generators

        pipeline = self.upscaler.pipeline
        sources = picture_generators([seed])
        noisy = tile + normal(tile, sources) * (self.settings.sigma / 255)
        large = pipeline(
            prompt="", image=noisy.clamp(0, 1) * 2 - 1, num_inference_steps=self.settings.steps,
            guidance_scale=1.0, noise_level=self.settings.noise_level, generator=sources[0], output_type="pt",
        ).images  # fmt: skip
        return F.interpolate(large.float(), size=tile.shape[-2:], mode="area")


def locate(name: str) -> Path:
    """The upscaler's folder: one here, or that of the hub's cache, after what is missing was fetched.

    UsageError for what is neither, and for a pipeline of another class; UnlikenessError if the hub has none.
    """
    from unlikeness.fetching import fetch

    if not name:
        raise UsageError(
            "upscale needs an upscaler; give upscale:FOLDER or a hub name, such as "
            "upscale:stabilityai/stable-diffusion-x4-upscaler"
        )
    path = Path(name).expanduser()
    if not path.exists():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise UsageError(
                f"upscaler {one_line(name)} is no folder here; give a diffusers folder or a hub name"
            )

        def wanted(files: list[str]) -> list[str]:
            from huggingface_hub import snapshot_download

            from unlikeness.networks.weights import needed_files

            _judge(Path(snapshot_download(name, allow_patterns=[_INDEX])), name)
            inside = {part: [file for file in files if file.startswith(f"{part}/")] for part in _PARTS}
            names = {part: needed_files(Path(file).name for file in found) for part, found in inside.items()}
            return [_INDEX, *(f"{part}/{name}" for part in _PARTS for name in names[part])]

        path = fetch(name, f"upscaler {name}", wanted)
    _judge(path, name)
    return path


def _judge(folder: Path, name: str) -> None:
    """UsageError unless the folder's index names this pipeline, of parts of known libraries."""
    if not (folder / _INDEX).is_file():
        raise UsageError(f"upscaler {one_line(name)} has no {_INDEX}; give a diffusers folder or a hub name")
    index = read_object(folder / _INDEX, folder)
    kind = index.get("_class_name")
    if kind != _PIPELINE:
        said = one_line(str(kind))[:60]
        raise UsageError(f"{one_line(name)} is a {said}, no {_PIPELINE}; give such an upscaler")
    for part in _PARTS:
        entry = index.get(part)
        if not isinstance(entry, list) or len(entry) != 2 or entry[0] not in ("diffusers", "transformers"):
            raise UsageError(f"upscaler {one_line(name)} lacks a usable {part}; fetch or save it again")
