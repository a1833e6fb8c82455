"""Words for users and from users: as text that models can read, with hints for misspellings; sizes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from unlikeness.errors import UsageError

__all__ = ["as_text", "closest", "in_bytes", "with_article"]

_SOUNDS_LIKE_YOU = ("uni", "use", "usu", "eu", "ute", "uku", "one", "once", "ufo")
_SILENT_H = ("hour", "heir", "honest", "honour", "honor")


def as_text(name: str, words: str) -> str:
    """`words` without blanks around them. UsageError, which calls them `name`, for text that is not Unicode.

    A folder name in another encoding than UTF-8 is an example: no tokenizer reads it.
    """
    try:
        words.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the {name} {words!r} is no UTF-8 text; write it in UTF-8") from error
    return words.strip()


def with_article(noun: str) -> str:
    """ "a dog", "an apple", "a unicorn", "an hour": by sound, as far as the spelling shows it."""
    word = noun.strip().lower()
    vowel = word[:1] in tuple("aeiou") and not word.startswith(_SOUNDS_LIKE_YOU)
    return f"{'an' if vowel or word.startswith(_SILENT_H) else 'a'} {noun.strip()}"


def closest(word: str, known: Iterable[str]) -> str:
    """ " (did you mean backpack?)", with up to three known words that are spelt alike; or ""."""
    near = difflib.get_close_matches(word.strip().lower(), known, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def in_bytes(size: int) -> str:
    """ "1.5 GiB", "20.0 MiB"."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
