"""Where the shipped weights lie."""

from __future__ import annotations

from pathlib import Path

from unlikeness.errors import UnlikenessError

FOLDER = Path(__file__).parent


def model_path() -> Path:
    """The diffusers folder of the toybox's text-to-image model."""
    return _present(FOLDER / "model", "model")


def identity_path() -> Path:
    """The weights of the identity encoder, safetensors."""
    return _present(FOLDER / "identity.safetensors", "identity")


def classifier_path() -> Path:
    """The weights of the classifier of class nouns and contexts, safetensors."""
    return _present(FOLDER / "classifier.safetensors", "classifier")


def _present(path: Path, recipe: str) -> Path:
    if not path.exists():
        raise UnlikenessError(
            f"the toybox weights {path} are missing; `unlikeness toybox train {recipe}` makes them"
        )
    return path
