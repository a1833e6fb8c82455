"""What a page says follows the figures, whatever they are."""

from __future__ import annotations

import math

import pytest

from unlikeness.demo.words import count_word, verdict


def s(value: float, spread: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


@pytest.mark.parametrize(
    ("clean", "protected", "noise", "kind", "words"),
    [
        (s(0.8), s(0.2), None, "good", "lost most"),
        (s(0.8), s(0.2), s(0.75), "good", "left s = 0.75"),
        (s(0.8), s(0.2), s(0.22), "mixed", "does not show that the computed change does better"),
        (s(0.8), s(0.6), None, "mixed", "lost part"),
        (s(0.8), s(0.78), None, "bad", "did not hold"),
        (s(0.98, 0.02), s(0.88, 0.03), None, "bad", "a little less"),
        (s(0.8, 0.3), s(0.4, 0.3), None, "bad", "within the chance"),
        (s(0.6), s(0.8), None, "bad", "made things worse"),
        (s(0.1), s(0.0), None, "open", "nothing that the protection could have prevented"),
        (s(0.4, 0.5), s(0.0), None, "open", "nothing that the protection could have prevented"),
        (s(0.8), s(-0.3), None, "good", "lost most"),
        (s(0.8), s(math.nan), None, "open", "no finite number"),
        (s(0.8), s(-math.inf), s(0.7), "open", "no finite number"),
        (s(math.nan), s(0.2), None, "open", "no finite number"),
        (s(0.8), s(0.2), s(math.nan), "open", "no finite number"),
    ],
)
def test_the_verdict_follows_the_figures(
    clean: dict[str, float],
    protected: dict[str, float],
    noise: dict[str, float] | None,
    kind: str,
    words: str,
) -> None:
    found = verdict(clean, protected, noise)
    assert found.kind == kind
    assert words in f"{found.title} {found.text}"
    assert f"{clean['value']:.2f}" in found.text


def test_numbers_in_words() -> None:
    assert [count_word(n) for n in (1, 5, 12)] == ["one", "five", "12"]


def test_a_subject_that_was_drawn_before_any_training_was_not_learnt() -> None:
    assert verdict(s(0.8), s(0.2), None, s(0.1)).kind == "good"
    assert verdict(s(0.5), s(0.1), None, s(0.45)).kind == "open"
