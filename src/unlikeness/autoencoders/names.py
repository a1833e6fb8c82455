"""Names of the autoencoders that trainers show pictures through, and where they are found.

Seven autoencoders serve nearly all trainers. A name stands for one of them, whole (`sdxl`) or as its
distilled copy (`sdxl:tiny`). Groups stand for several. This file loads no torch and needs no network.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unlikeness.errors import UsageError, one_line
from unlikeness.provenance import own_name

__all__ = [
    "FOLDERS",
    "GROUPS",
    "KNOWN",
    "TINY",
    "Known",
    "Source",
    "check_name",
    "expand",
    "find",
    "source_of",
    "stands_for",
    "title",
]

TINY = ":tiny"
"""Behind a name: the distilled copy."""

FOLDERS = "UNLIKENESS_AUTOENCODERS"
"""The environment variable that names folders with files, separated as in PATH."""


@dataclass(frozen=True)
class Source:
    """Where an autoencoder comes from.

    repository: on the Hugging Face hub; None if it is not there. folder: in it. weights: the file of weights
    in that folder. files: names under which people keep it as a single file. address: a page that offers it.
    megabytes: of the download. licence: of the weights.
    """

    repository: str | None
    folder: str
    weights: str
    files: tuple[str, ...]
    address: str
    megabytes: int
    licence: str

    @property
    def single(self) -> bool:
        """Whether the weights are all there is, without a configuration."""
        return self.weights != _DIFFUSERS


@dataclass(frozen=True)
class Known:
    """stands_for: the models that people fine-tune with it."""

    stands_for: str
    whole: Source
    tiny: Source | None


_DIFFUSERS = "diffusion_pytorch_model.safetensors"
_ENDINGS = (".safetensors", ".pth")
_FILES = (*_ENDINGS, ".pt", ".bin", ".ckpt", ".gguf")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def _whole(
    repository: str, megabytes: int, licence: str, *files: str, folder: str = "vae", weights: str = _DIFFUSERS
) -> Source:
    return Source(repository, folder, weights, files, f"huggingface.co/{repository}", megabytes, licence)


def _tiny(stem: str, *, weights: str = _DIFFUSERS, hub: bool = True, megabytes: int = 10) -> Source:
    repository = f"madebyollin/{stem}" if hub else None
    address = f"huggingface.co/{repository}" if hub else "github.com/madebyollin/taesd"
    files = tuple(f"{stem}{part}{ending}" for part in ("_encoder", "") for ending in _ENDINGS)
    return Source(repository, "", weights, files, address, megabytes, "MIT")


KNOWN: dict[str, Known] = {
    "sd1": Known(
        "Stable Diffusion 1.x, Stable Diffusion 2.x",
        _whole(
            "stabilityai/sd-vae-ft-mse", 335, "MIT", "vae-ft-mse-840000-ema-pruned.safetensors", folder=""
        ),
        _tiny("taesd"),
    ),
    "sdxl": Known(
        "SDXL, Pony, Illustrious, Kolors",
        _whole("stabilityai/sdxl-vae", 335, "MIT", "sdxl_vae.safetensors", "sdxl.vae.safetensors", folder=""),
        _tiny("taesdxl"),
    ),
    "sd3": Known(
        "Stable Diffusion 3 and 3.5",
        _whole(
            "stabilityai/stable-diffusion-3.5-medium", 168, "Stability AI Community", "sd3_vae.safetensors"
        ),
        _tiny("taesd3"),
    ),
    "flux1": Known(
        "FLUX.1, Chroma, HiDream, Z-Image",
        _whole("Tongyi-MAI/Z-Image-Turbo", 168, "Apache-2.0", "ae.safetensors", "flux_vae.safetensors"),
        _tiny("taef1"),
    ),
    "flux2": Known(
        "FLUX.2",
        _whole("black-forest-labs/FLUX.2-klein-4B", 168, "Apache-2.0", "flux2-vae.safetensors"),
        _tiny("taef2", weights="taef2.safetensors"),
    ),
    "qwen": Known(
        "Qwen-Image, Wan 2.1",
        _whole(
            "Qwen/Qwen-Image", 254, "Apache-2.0", "qwen_image_vae.safetensors", "wan_2.1_vae.safetensors"
        ),
        None,
    ),
    "sana": Known(
        "Sana",
        _whole("mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers", 1250, "Apache-2.0", folder=""),
        _tiny("taesana", weights="taesana_encoder.pth", hub=False, megabytes=3),
    ),
}  # fmt: skip
"""Name -> what it stands for and where it is. Sizes are rounded."""

GROUPS: dict[str, tuple[str, ...]] = {
    "common": ("sd1", "sdxl", "flux1", "flux2", "qwen"),
    "all": tuple(KNOWN),
}
"""Name -> the autoencoders it stands for. With `:tiny`, those that have a distilled copy."""


def source_of(name: str) -> Source | None:
    """The source of a name such as `sdxl` or `sdxl:tiny`; None for anything else."""
    plain = name.removesuffix(TINY)
    known = KNOWN.get(plain)
    if known is None:
        return None
    return known.whole if plain == name else known.tiny


def stands_for(name: str) -> tuple[str, bool] | None:
    """A model of the autoencoder, and whether it is distilled: `sana:tiny` -> ("Sana", True).

    None for an unknown name. Files that have the name of a known source count as it.
    """
    for plain, known in KNOWN.items():
        for called, source in ((plain, known.whole), (plain + TINY, known.tiny)):
            if source is not None and (name == called or name.rpartition("/")[2] in source.files):
                return known.stands_for.split(",")[0], source is known.tiny
    return None


def title(name: str) -> str:
    """What a reader knows it by: `flux2:tiny` -> "FLUX.2 (distilled)"; the last part of a path to a file."""
    known = stands_for(name)
    return own_name(name) if known is None else known[0] + (" (distilled)" if known[1] else "")


def expand(names: str | Path | Iterable[str | Path]) -> list[str]:
    """Single names: texts are split at commas, groups become their members, and repetitions are left out.

    A path that exists is one name, whatever it holds. UsageError: see `check_name`; also if no name is left.
    """
    several = [names] if isinstance(names, str | Path) else list(names)
    found: list[str] = []
    for one in several:
        for name in [str(one)] if _there(str(one)) else [part.strip() for part in str(one).split(",")]:
            if name:
                found += _members(name)
    if not found:
        raise UsageError("no autoencoder is given; name one at least")
    for name in found:
        check_name(name)
    return list(dict.fromkeys(found))


def _members(name: str) -> list[str]:
    plain = name.removesuffix(TINY)
    if plain not in GROUPS:
        return [name]
    suffix = name[len(plain) :]
    return [f"{one}{suffix}" for one in GROUPS[plain] if source_of(f"{one}{suffix}") is not None]


def check_name(name: str) -> None:
    """UsageError for what is no known name, no path here, and cannot be a name on the hub either."""
    if source_of(name) is not None or _there(name):
        return
    said = one_line(name)[:80]
    plain = name.removesuffix(TINY)
    if plain in KNOWN:
        raise UsageError(f"there is no distilled autoencoder of {plain}; give {plain} itself")
    if not _HUB.fullmatch(name) or name.lower().endswith(_FILES):
        near = difflib.get_close_matches(plain, [*KNOWN, *GROUPS], 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"autoencoder {said} is no file or folder here and no known name{hint} "
            f"({', '.join([*KNOWN, *GROUPS])}; see `unlikeness surrogates`)"
        )


def find(name: str) -> Path | None:
    """The folder or file of a known name here: in the folders of `FOLDERS`, or in the hub's cache."""
    source = source_of(name)
    if source is None:
        return None
    for folder in filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)):
        for file in source.files:
            path = Path(folder) / file
            with suppress(RuntimeError):  # of a user without a home
                path = path.expanduser()
            if path.is_file():
                return path
    return None if source.repository is None else _cached(source)


def _cached(source: Source) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # without the extra `models`; who lists the names needs no cache
        return None
    if source.repository is None:
        return None
    inside = f"{source.folder}/" if source.folder else ""
    found = try_to_load_from_cache(source.repository, inside + source.weights)
    if not isinstance(found, str):
        return None
    if source.single:
        return Path(found)
    config = try_to_load_from_cache(source.repository, f"{inside}config.json")
    return Path(found).parent if isinstance(config, str) else None


def _there(name: str) -> bool:
    """Whether `name` is a path here, and no known name. A folder of the same name is ./NAME."""
    if source_of(name) is not None:
        return False
    try:
        return Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, or a user without a home
        return False
