"""Extras: packages that only some commands need, and what to type where they are missing.

`pip install unlikeness` brings what `protect` with a network, `measure`, `export` and `surrogates` need.
Everything that opens a model or trains needs the extra `models`.
"""

from __future__ import annotations

from importlib.util import find_spec

from unlikeness.errors import UnlikenessError

__all__ = ["MODELS", "check_models", "missing_models"]

MODELS = (
    "torch", "diffusers", "transformers", "peft", "accelerate", "huggingface_hub", "tokenizers", "yaml",
    "jinja2",
)  # fmt: skip
"""What the extra `models` brings, by the names that Python imports."""


def missing_models() -> list[str]:
    """Those of `MODELS` that cannot be found. Nothing is imported."""
    return [name for name in MODELS if not _found(name)]


def check_models(what: str) -> None:
    """UnlikenessError, with what to type, if the extra `models` is not installed. what: what needs it."""
    if missing := missing_models():
        raise UnlikenessError(
            f"{what} needs an extra that is not installed ({missing[0]} is missing); "
            'pip install "unlikeness[models]"'
        )


def _found(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a finder refuses it, or a half-loaded module has no spec
        return False
