"""Prompts that are longer than a model can read: what is behind the end has no effect, and is said."""

from __future__ import annotations

from typing import Any

__all__ = ["too_long"]


def too_long(tokenizer: Any, prompt: str) -> str | None:
    """One sentence if `prompt` does not fit into the tokenizer's length (77 tokens for Stable Diffusion)."""
    count, limit = len(tokenizer(prompt, verbose=False).input_ids), int(tokenizer.model_max_length)
    if count <= limit:
        return None
    start = prompt if len(prompt) <= 40 else f"{prompt[:40]}..."
    return (
        f"the prompt {start!r} has {count} tokens, and the model reads the first {limit}; "
        "shorten it, what is behind them has no effect"
    )
