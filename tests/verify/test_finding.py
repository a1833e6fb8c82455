"""A low s counts only if the same attacker learns an unprotected subject."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from tests.verify.test_run import outcome, verdict

from unlikeness.verify import named
from unlikeness.verify.headline import headline
from unlikeness.verify.verdict import ORIGINAL, Finding, Outcome, finding


def between(low: float, value: float, high: float, name: str = "paper") -> Outcome:
    """An outcome with this interval."""
    one = outcome(name, 0)
    return replace(one, s=replace(one.s, low=low, value=value, high=high))


def few(one: Outcome) -> Outcome:
    """The same figures over three pictures."""
    return replace(one, s=replace(one.s, n_generated=3))


@pytest.mark.parametrize(
    ("of", "control", "wanted"),
    [
        (between(0.2, 0.3, 0.4), between(0.8, 0.9, 1.0), Finding("learnt")),
        (outcome("paper", 0.1, 0.5), outcome("paper", 0.9), Finding("learnt")),
        (outcome("paper", 0.5), None, Finding("learnt")),
        (outcome("paper", 0.1), None, Finding("inconclusive", "alone")),
        (outcome("paper", 0.1), outcome("paper", 0.1), Finding("inconclusive", "weak")),
        (outcome("paper", 0.1), outcome("paper", 0.29), Finding("inconclusive", "weak")),
        (between(0.0, 0.05, 0.1), between(0.05, 0.5, 0.9), Finding("inconclusive", "unclear")),
        (between(-0.2, 0.1, 0.5), outcome("paper", 0.1), Finding("inconclusive", "weak")),
        (between(-0.5, -0.3, -0.2), between(-0.1, 0.4, 0.9), Finding("inconclusive", "weak")),
        (between(0.0, 0.05, 0.1), between(0.2, 0.5, 0.9), Finding("protected")),
        (between(0.0, 0.1, 0.2), between(0.3, 0.5, 0.9), Finding("little")),
        (outcome("paper", 0.05, 0.2), outcome("paper", 0.9, 0.8), Finding("little")),
        (outcome("paper", 0.05, 0.1), outcome("paper", 0.1, 0.8), Finding("protected")),
        (outcome("paper", 0.05), between(math.nan, math.nan, math.nan), Finding("inconclusive", "weak")),
        (between(0.0, math.nan, 0.1), outcome("paper", 0.9), Finding("inconclusive", "failed")),
        (between(math.nan, 0.1, math.nan), outcome("paper", 0.9), Finding("inconclusive", "failed")),
        (between(-math.inf, -math.inf, 0.0), outcome("paper", 0.9), Finding("inconclusive", "failed")),
        (between(-0.2, 0.1, 0.5), outcome("paper", 0.9), Finding("inconclusive", "unclear")),
        (few(outcome("paper", 0.1)), outcome("paper", 0.9), Finding("inconclusive", "unclear")),
        (outcome("paper", 0.1), few(outcome("paper", 0.9)), Finding("inconclusive", "weak")),
    ],
)
def test_one_attacker(of: Outcome, control: Outcome | None, wanted: Finding) -> None:
    assert finding(of, control) == wanted


def test_a_control_that_is_no_better_than_before_any_attack_was_not_learnt() -> None:
    """A subject that looks like what its model draws anyway has a high s without anybody having learnt it."""
    of, control = outcome("paper", 0.05), between(0.4, 0.5, 0.6)
    assert finding(of, control, between(0.0, 0.1, 0.39)).kind == "protected"
    assert finding(of, control, between(0.2, 0.3, 0.4)) == Finding("inconclusive", "weak")
    assert finding(of, control, between(math.nan, math.nan, math.nan)) == Finding("inconclusive", "weak")
    found = verdict(of, clean=control, control_of=ORIGINAL, control_before=outcome("paper", 0.7))
    assert found.kind == "inconclusive"


def of_three(**further: Any) -> Any:
    """paper and slow learnt nothing, and their controls learnt; what differs is given."""
    given: dict[str, Any] = {
        "clean": outcome("paper", 0.9),
        "controls": {"slow": outcome("slow", 0.8)},
        "control_of": ORIGINAL,
        **further,
    }
    return verdict(outcome("paper", 0.05), outcome("slow", 0.1), **given)


def test_green_only_if_every_attacker_could_have_learnt_the_subject() -> None:
    found = of_three()
    assert (found.kind, found.conclusive) == ("protected", True)
    told = headline(found)
    assert told.kind == "good"
    assert str(told).startswith(
        "No attacker learnt the subject (at most s 0.10, 0.10 to 0.10). "
        "The same attackers learn the subject from the original (s 0.80 to 0.90). Not tried: patient, "
    )
    for further, text in (
        ({"controls": {"slow": outcome("slow", 0.2)}}, "the attacker slow is too weak"),
        ({"controls": {}}, "slow"),
        ({"failed": {"lora-4": "it diverged"}}, "an attack failed. lora-4 failed: it diverged."),
        ({"clean": None, "controls": {}, "control_of": ""}, "not compared"),
        (
            {"clean": outcome("paper", 0.1), "controls": {"slow": outcome("slow", 0.1)}},
            "these attackers are too weak. paper and slow did not clearly learn the subject from",
        ),
    ):
        found = of_three(**further)
        assert (found.kind, found.conclusive) == ("inconclusive", False)
        assert headline(found).kind == "open"
        assert headline(found).title.startswith("Inconclusive: ")
        assert text in str(headline(found))


def test_one_who_learnt_decides_it_and_what_is_open_is_told() -> None:
    found = verdict(outcome("paper", 0.1), outcome("slow", 0.5), failed={"lora-4": "it diverged"})
    assert (found.kind, found.conclusive) == ("learnt", False)
    told = headline(found)
    assert told.kind == "bad"
    assert told.title.startswith("The attacker slow learnt the subject")
    assert "What paper would learn without a protection is not known." in told.text
    assert "lora-4 failed: it diverged." in told.text


def test_what_is_no_number_is_nobodys_success_and_nobodys_failure() -> None:
    lost = between(math.nan, math.nan, math.nan, "slow")
    found = verdict(lost, outcome("paper", 0.05), clean=outcome("paper", 0.9), control_of=ORIGINAL)
    assert found.worst.attacker == "paper"
    assert found.kind == "inconclusive"
    assert "slow failed: no finite figure." in headline(found).text


def test_what_was_left_out_is_named_where_it_might_reassure() -> None:
    found = of_three()
    not_tried = headline(found).text.partition("Not tried: ")[2].rstrip(".").split(", ")
    assert {"paper", "slow", *not_tried} == {one.name for one in named([])}
    assert "Not tried" not in headline(of_three(clean=outcome("paper", 0.0))).text
