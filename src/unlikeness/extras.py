"""Extras: packages that only some commands need, and what to type where they are missing.

`pip install unlikeness` brings what `protect` with a network, `page`, `measure`, `purify` with filters,
`export` and `surrogates` need. Everything that opens a model or trains needs the extra `models`.
"""

from __future__ import annotations

from importlib.util import find_spec

from unlikeness.errors import UnlikenessError

__all__ = ["EXTRAS", "check_extra"]

EXTRAS = {
    "models": (
        "torch", "diffusers", "transformers", "peft", "accelerate", "huggingface_hub", "tokenizers", "yaml",
        "jinja2", "gguf",
    ),
    "c2pa": ("c2pa", "cryptography"),
    "eight-bit": ("bitsandbytes",),
    "serve": ("fastapi", "uvicorn", "python_multipart"),
    "ray": ("ray",),
}  # fmt: skip
"""What an extra brings, by the names that Python imports."""


def check_extra(extra: str, what: str) -> None:
    """UnlikenessError, with what to type, if `extra` is not installed. Nothing is imported.

    what: what needs it.
    """
    for name in EXTRAS[extra]:
        if not _found(name):
            raise UnlikenessError(
                f"{what} needs an extra that is not installed ({name} is missing); "
                f'pip install "unlikeness[{extra}]"'
            )


def _found(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a finder refuses it, or a half-loaded module has no spec
        return False
