"""Whether a model knows a class noun: a word that it does not know leads to pictures of anything.

A model of a small world, the toybox, knows the nouns of that world alone. Stable Diffusion's tokenizer has
most English nouns as one piece or a few; what falls into single letters is a word that it has hardly met.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from unlikeness.errors import UsageError

__all__ = ["check_noun", "closest", "only_nouns", "unknown_in"]

_SMALL = 1000
"""A vocabulary of fewer tokens may be a small world's."""

_LETTERS = 1.75
"""A word in several pieces with fewer letters a piece is spelt rather than read (schnau-zer has 4.5)."""

_END = "</w>"
"""Behind the last piece of a word, in a CLIP's vocabulary."""


def only_nouns(tokenizer: Any) -> tuple[str, ...]:
    """The class nouns that a model with this tokenizer can draw: the toybox's; () for all others, which are
    open to any noun."""
    vocabulary = tokenizer.get_vocab()
    if len(vocabulary) >= _SMALL:
        return ()
    from unlikeness.toybox.world import CLASS_NOUNS

    return CLASS_NOUNS if all(noun + _END in vocabulary for noun in CLASS_NOUNS) else ()


def check_noun(tokenizer: Any, noun: str, where: str) -> str | None:
    """A sentence to tell if the model may not know this class noun; None if there is nothing to tell.

    where: the option or setting that names the noun, with which the sentence begins.

    Raises:
        UsageError: the model cannot know it: it is none of a small world's, or has letters that the tokenizer
            has no token for, or is no text.
    """
    from unlikeness.subjects import as_text

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
    """A sentence if a prompt for a model of a small world names nothing that is in it; None for others."""
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


def closest(word: str, known: Sequence[str]) -> str:
    """ " (did you mean backpack?)", with up to three known words that are spelt alike; empty if none is."""
    near = difflib.get_close_matches(word.strip().lower(), known, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _words(tokenizer: Any, text: str) -> list[list[int]]:
    """The tokens of each word; all as one word for a tokenizer that does not say where words end."""
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
