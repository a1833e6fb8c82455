"""Bounds of the configurations of diffusers' autoencoders: far beyond any published model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
    whole,
)

__all__ = ["RULES", "rules_of"]

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

_FLUX2: dict[str, Rule] = {
    **{name: rule for name, rule in _VAE.items() if not name.endswith("_factor")},
    "decoder_block_out_channels": NULL | each(WIDTH),
    "batch_norm_eps": number(1e-12, 1),
    "batch_norm_momentum": number(0, 1),
    "patch_size": each(whole(1, 8), 2, 2),
}

RULES: Mapping[str, Mapping[str, Rule]] = {
    "AutoencoderKL": _VAE, "AutoencoderKLFlux2": _FLUX2, "AutoencoderTiny": _TINY
}  # fmt: skip
"""Class of diffusers -> its settings and their bounds."""


_COUNTED = re.compile(r"(?!.*_types?$).*(?:layers|blocks|num_|depth|factor|downsample|patch)")


class _Others(dict[str, Rule]):
    """The bounds of a class without an entry in `RULES`: small counts of layers, else those of `check`."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and _COUNTED.match(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        return _COUNT if key in self else default


_FEW = whole(0, 64) | number(0, 64) | FLAG | NULL
_COUNT = _FEW | each(_FEW | each(_FEW, 64, 0), 64, 0)


def rules_of(kind: str) -> Mapping[str, Rule]:
    """The bounds of a class; for one without an entry, small counts and `configs.check`'s own."""
    return RULES.get(kind, _Others())
