"""Words of several tokens, as Textual Inversion adds them to a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["Expanding", "expanding", "plain"]


class Expanding:
    """A tokenizer that reads an added word as its several tokens. Everything else is the tokenizer's own."""

    def __init__(self, tokenizer: Any, words: Mapping[str, str]) -> None:
        self.plain, self.words = tokenizer, dict(words)
        longest_first = sorted(self.words, key=len, reverse=True)  # a word may begin with another
        self.found = re.compile("|".join(map(re.escape, longest_first)))

    def __call__(self, text: Any, **how: Any) -> Any:
        texts = [text] if isinstance(text, str) else list(text)
        texts = [self.found.sub(lambda match: self.words[match[0]], one) for one in texts]
        return self.plain(texts[0] if isinstance(text, str) else texts, **how)

    def __getattr__(self, name: str) -> Any:
        if name in ("plain", "words", "found"):  # of a copy that is not made yet
            raise AttributeError(name)
        return getattr(self.plain, name)

    def __len__(self) -> int:
        return len(self.plain)


def expanding(tokenizer: Any) -> Any:
    """The tokenizer; where it has an added word of several vectors (`word`, `word_1`, ..., as diffusers
    numbers them), one that reads the word as all of them."""
    added = tokenizer.get_added_vocab()
    words = {}
    for word in added:
        count = 1
        while f"{word}_{count}" in added:
            count += 1
        if count > 1:
            words[word] = " ".join([word, *(f"{word}_{i}" for i in range(1, count))])
    return Expanding(plain(tokenizer), words) if words else tokenizer


def plain(tokenizer: Any) -> Any:
    """transformers' own object."""
    return tokenizer.plain if isinstance(tokenizer, Expanding) else tokenizer
