"""How the toybox's weights are made: `unlikeness toybox train vae|model|identity|classifier`."""

from __future__ import annotations

from unlikeness import looked_up

__getattr__ = looked_up(
    __name__,
    {
        "vae": ("train_vae",),
        "model": ("load_autoencoder", "train_model"),
        "evaluators": ("train_classifier", "train_identity"),
    },
)
