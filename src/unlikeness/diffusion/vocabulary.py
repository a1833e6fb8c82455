"""Whether a model can read a class noun, and a prompt to its end.

A word that a model does not know leads to pictures of anything. A model of a small world, the toybox, knows
only the nouns of that world. Stable Diffusion's tokenizer has most English nouns as one piece or a few. A
word that falls into single letters was rare in its training.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from unlikeness.errors import UsageError
from unlikeness.words import as_text, closest

__all__ = ["check_noun", "only_nouns", "too_long", "unknown_in"]

_SMALL = 1000
"""A vocabulary of fewer tokens may be a small world's."""

_LETTERS = 1.75
"""A word in several pieces with fewer letters a piece is spelt rather than read (schnau-zer has 4.5)."""

_END = "</w>"
"""Behind the last piece of a word, in a CLIP's vocabulary."""


def only_nouns(tokenizer: Any) -> tuple[str, ...]:
    """The class nouns of the toybox, if the tokenizer is the toybox's; () for a model of any noun."""
    vocabulary = tokenizer.get_vocab()
    if len(vocabulary) >= _SMALL:
        return ()
    from unlikeness.toybox.world import CLASS_NOUNS

    return CLASS_NOUNS if all(noun + _END in vocabulary for noun in CLASS_NOUNS) else ()


def check_noun(tokenizer: Any, noun: str, where: str) -> str | None:
    """A warning if the model may not know this class noun; None if there is nothing to say.

    where: the option or setting that names the noun; the sentence begins with it.

    UsageError if the model cannot know the noun: it is not in a small world, or has letters for which the
    tokenizer has no token, or is not text.
    """
    words = _words(tokenizer, as_text(where, noun))
    nouns = only_nouns(tokenizer)
    ends = [[one] for one in nouns]  # a noun may follow other known words: "red mug"
    if nouns and not (all(len(word) == 1 for word in words) and _read(tokenizer, words)[-1:] in ends):
        raise UsageError(
            f"{where} {noun!r} is no class noun of the toybox, which draws only {', '.join(nouns)}; give one "
            f"of them{closest(noun, nouns)}"
        )
    if not words or any(_unread(tokenizer, word) for word in words):
        raise UsageError(
            f"{where} {noun!r} has letters that the model's tokenizer cannot read; give an English word in "
            "plain letters"
        )
    for word, text in zip(words, _read(tokenizer, words), strict=True):
        if len(word) > 1 and len(text) / len(word) < _LETTERS:
            return (
                f"{where} {text!r} falls into {len(word)} pieces of a letter or so, as words do that the "
                f"model hardly knows; a common English noun works better{closest(text, _known(tokenizer))}"
            )
    return None


def unknown_in(tokenizer: Any, prompt: str) -> str | None:
    """A warning if a prompt for a model of a small world names nothing in that world; None otherwise."""
    nouns = only_nouns(tokenizer)
    if not nouns or not prompt.strip():
        return None
    words = _read(tokenizer, _words(tokenizer, prompt))
    if any(word in nouns for word in words):
        return None
    near = [noun for word in words for noun in difflib.get_close_matches(word, nouns, n=1, cutoff=0.6)]
    start = prompt if len(prompt) <= 40 else f"{prompt[:40]}..."
    hint = f" (did you mean {near[0]}?)" if near else ""
    return (
        f"the prompt {start!r} names nothing that the toybox draws, which is {', '.join(nouns)}; "
        f"name one of them{hint}"
    )


def too_long(tokenizer: Any, prompt: str) -> str | None:
    """A warning if `prompt` is longer than the model reads (77 tokens for Stable Diffusion); None if not."""
    count, limit = len(tokenizer(prompt, verbose=False).input_ids), int(tokenizer.model_max_length)
    if count <= limit:
        return None
    start = prompt if len(prompt) <= 40 else f"{prompt[:40]}..."
    return (
        f"the prompt {start!r} has {count} tokens, and the model reads the first {limit}; "
        "shorten it, what is behind them has no effect"
    )


def _words(tokenizer: Any, text: str) -> list[list[int]]:
    """The tokens of each word. A tokenizer without ends of words gives a single word."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    words: list[list[int]] = [[]]
    for i, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
        words[-1].append(i)
        if token.endswith(_END):
            words.append([])
    return [word for word in words if word]


def _read(tokenizer: Any, words: Sequence[Sequence[int]]) -> list[str]:
    return [tokenizer.decode(word).strip() for word in words]


def _unread(tokenizer: Any, word: Sequence[int]) -> bool:
    return any(i in tokenizer.all_special_ids for i in word)


def _known(tokenizer: Any) -> list[str]:
    """Whole words of the vocabulary, three letters or more."""
    words = (token.removesuffix(_END) for token in tokenizer.get_vocab() if token.endswith(_END))
    return [word for word in words if len(word) > 2 and word.isascii() and word.isalpha()]
