"""An autoencoder from a stranger's folder or file, its configuration in bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.autoencoders.autoencoder import Autoencoder
from unlikeness.autoencoders.tiny import is_tiny, tiny_autoencoder
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError
from unlikeness.networks.building import build, fill, quiet
from unlikeness.networks.configs import (
    ACTIVATION,
    FLAG,
    LAYERS,
    NULL,
    WIDTH,
    Rule,
    each,
    number,
    one_of,
    read_config,
    read_object,
    whole,
)
from unlikeness.networks.weights import read_weights
from unlikeness.tensors import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RULES", "open_autoencoder", "open_file", "open_path"]

_VAE: dict[str, Rule] = {
    "in_channels": whole(3, 3),
    "out_channels": whole(3, 3),
    "latent_channels": whole(1, 256),
    "block_out_channels": each(WIDTH),
    "down_block_types": each(one_of("DownEncoderBlock2D", "AttnDownEncoderBlock2D")),
    "up_block_types": each(one_of("UpDecoderBlock2D", "AttnUpDecoderBlock2D")),
    "layers_per_block": LAYERS,
    "norm_num_groups": WIDTH,
    "act_fn": ACTIVATION,
    "sample_size": whole(1, 1 << 14) | NULL,
    "scaling_factor": number(1e-6, 1e6),
    "shift_factor": NULL | number(-1e6, 1e6),
    "use_quant_conv": FLAG,
    "use_post_quant_conv": FLAG,
    "mid_block_add_attention": FLAG,
    "force_upcast": FLAG,
}

_TINY: dict[str, Rule] = {
    "in_channels": whole(3, 3),
    "out_channels": whole(3, 3),
    "latent_channels": whole(1, 256),
    "encoder_block_out_channels": each(WIDTH),
    "decoder_block_out_channels": each(WIDTH),
    "block_out_channels": each(WIDTH),
    "num_encoder_blocks": each(LAYERS),
    "num_decoder_blocks": each(LAYERS),
    "act_fn": ACTIVATION,
    "upsample_fn": one_of("nearest", "bilinear"),
    "upsampling_scaling_factor": whole(2, 2),
    "latent_magnitude": number(1e-6, 1e6),
    "latent_shift": number(-1e6, 1e6),
    "scaling_factor": number(1e-6, 1e6),
    "shift_factor": NULL | number(-1e6, 1e6),
    "force_upcast": FLAG,
}

RULES: Mapping[str, Mapping[str, Rule]] = {"AutoencoderKL": _VAE, "AutoencoderTiny": _TINY}
"""Class of diffusers -> its settings and their bounds."""


_COUNTED = re.compile(r"layers|blocks|num_|depth|factor|downsample|patch")


class _Others(dict[str, Rule]):
    """The bounds of a class without an entry in `RULES`: small counts of layers, else those of `check`."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and _COUNTED.search(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        return _COUNT if key in self else default


_FEW = whole(0, 64) | number(0, 64) | FLAG | NULL | one_of("pixel_shuffle", "interpolate")
_COUNT = _FEW | each(_FEW | each(_FEW, 64, 0), 64, 0)


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
        network = build(kind, read_config(folder, "", "config.json", kind, RULES.get(kind, _Others())), what)
        fill(network, read_weights(folder, "", half=False, pickles=False), what)
    return Autoencoder(network.requires_grad_(False))


def open_path(path: Path, *, decoder: bool = True) -> Autoencoder:
    """The autoencoder of a file, of a folder that holds it alone, or of the `vae` folder of a whole model.

    decoder: whether to open the decoder of a tiny autoencoder, too, which is a file of its own. Raises as
    `open_autoencoder` and `open_file`.
    """
    if path.is_file():
        return open_file(path, decoder=decoder)
    if not path.is_dir():
        raise UsageError(f"{path} is no file or folder; give an autoencoder's")
    inner = path if (path / "config.json").exists() else path / "vae"
    if not (inner / "config.json").exists():
        raise UsageError(f"{path} holds no autoencoder: there is no config.json in it, nor in a folder vae")
    return open_autoencoder(inner)


def open_file(file: Path, *, decoder: bool = True) -> Autoencoder:
    """The tiny autoencoder of a file (see `tiny`), with the decoder of the file beside it, if that is there.

    UsageError for a file of something else; UnlikenessError for a damaged one.
    """
    tensors = _read(file)
    what = f"the autoencoder {file}"
    if not is_tiny(tensors):
        raise UsageError(f"{file} holds no tiny autoencoder; give one, or a folder of diffusers")
    beside = file.with_name(file.name.replace("encoder", "decoder"))
    other = _read(beside) if decoder and beside != file and beside.exists() else None
    return Autoencoder(tiny_autoencoder(tensors, other, what).requires_grad_(False))


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)
    except UnreadableError as error:
        raise UnlikenessError(f"the autoencoder {file} cannot be read ({error}); fetch it again") from error
