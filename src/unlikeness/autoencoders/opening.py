"""An autoencoder from a stranger's folder or file, its configuration in bounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unlikeness import finite
from unlikeness.autoencoders.autoencoder import Autoencoder
from unlikeness.autoencoders.rules import RULES, rules_of
from unlikeness.autoencoders.tiny import is_tiny, tiny_autoencoder
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError
from unlikeness.networks.building import build, fill, quiet, sentence
from unlikeness.networks.configs import read_config, read_object
from unlikeness.networks.weights import read_weights
from unlikeness.tensors import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULES", "open_autoencoder", "open_file", "open_path", "try_encoder"]

_COARSEST = 256
"""Bound on the pixels per latent along a side; published ones have up to 128."""


def open_autoencoder(folder: Path) -> Autoencoder:
    """The autoencoder of a diffusers folder that holds it alone, frozen, on the CPU, as its files have it.

    Any autoencoder class of diffusers is opened. UsageError for another kind of network; UnlikenessError for
    a damaged one, or one out of bounds. Weights come from safetensors only, never from a pickle.
    """
    import diffusers

    kind = str(read_object(folder / "config.json", folder).get("_class_name", "AutoencoderKL"))
    if not (kind.startswith("Autoencoder") and kind.isidentifier() and hasattr(diffusers, kind)):
        raise UsageError(f"{folder} holds a {one_line(kind)[:60]}, which is no autoencoder of diffusers")
    what = f"the autoencoder {folder}"
    with quiet():
        network = build(kind, read_config(folder, "", "config.json", kind, rules_of(kind)), what)
        fill(network, read_weights(folder, "", half=False, pickles=False), what)
    return Autoencoder(network.requires_grad_(False))


def open_path(path: Path, *, name: str | None = None, decoder: bool = True) -> Autoencoder:
    """The autoencoder of a file, of a folder that holds it alone, or of the `vae` folder of a whole model.

    name: of the known autoencoder, if that is what the path stands for (see `names`). decoder: whether to
    keep the decoder, which takes most of the memory. Raises as `open_autoencoder` and `open_file`.
    """
    if path.is_file():
        opened = open_file(path, name=name, decoder=decoder)
    elif path.is_dir():
        inner = path if (path / "config.json").exists() else path / "vae"
        if not (inner / "config.json").exists():
            raise UsageError(f"{path} holds no autoencoder: there is no config.json in it, nor in vae/")
        opened = open_autoencoder(inner)
    else:
        raise UsageError(f"{path} is no file or folder; give an autoencoder's")
    if not decoder:
        _without_decoder(opened.network)
    return opened


def open_file(file: Path, *, name: str | None = None, decoder: bool = True) -> Autoencoder:
    """The autoencoder of a single file, frozen, on the CPU: a tiny one (see `tiny`) or a whole one.

    name: see `open_path`. decoder: whether to open the decoder of a tiny one, too, if its file is beside.
    UsageError for a file of something else; UnlikenessError for a damaged one.
    """
    tensors = _read(file)
    if is_tiny(tensors):
        beside = file.with_name(file.name.replace("encoder", "decoder"))
        other = _read(beside) if decoder and beside != file and beside.exists() else None
        network: Any = tiny_autoencoder(tensors, other, f"the autoencoder {file}")
    else:
        from unlikeness.autoencoders.original import autoencoder_of

        with quiet():
            network = autoencoder_of(tensors, file, name)
    return Autoencoder(network.requires_grad_(False))


@torch.no_grad()
def try_encoder(autoencoder: Autoencoder, what: str) -> None:
    """Encode the smallest picture, which shows whether the parts fit together.

    UnlikenessError if that fails, or gives latents of another shape than the configuration says;
    NotFiniteError if they are NaN or infinite.
    """
    with sentence(what):
        side = 2 * autoencoder.factor
    if not 2 <= side <= 2 * _COARSEST:
        raise UnlikenessError(
            f"{what} makes one latent of {side // 2} pixels a side, and known ones of at most {_COARSEST}; "
            "fetch or save it again"
        )
    with sentence(what):
        found = autoencoder.encode(torch.full((1, 3, side, side), 0.5)).mean
        wanted = (1, autoencoder.channels, 2, 2)
    if tuple(found.shape) != wanted:
        raise UnlikenessError(
            f"{what} encodes a picture to {list(found.shape)} where its configuration says {list(wanted)}; "
            "fetch or save it again"
        )
    finite.check(found, f"the encoder of {what}", autoencoder.dtype)


def _without_decoder(network: Any) -> None:
    for part in ("decoder", "post_quant_conv"):
        if getattr(network, part, None) is not None:
            setattr(network, part, None)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)
    except UnreadableError as error:
        raise UnlikenessError(f"the autoencoder {file} cannot be read ({error}); fetch it again") from error
