"""Settings: lists, old names, and messages that name what is typed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from unlikeness.errors import UsageError
from unlikeness.settings import Checked, build, pairs, setting, typed, with_default


@dataclass(frozen=True, kw_only=True)
class Example(Checked):
    words: tuple[str, ...] = setting(("a",), "Words.", formerly=("old_words",))
    ranks: tuple[int, ...] = setting((), "Ranks.", at_least=1)
    rates: tuple[float, ...] = setting((1.0,), "Rates.", above=0.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["x", "y, z"], ("x", "y, z")),
        (("x",), ("x",)),
        ("x, y", ("x", "y")),
        (",y", ("", "y")),
        ("", ()),
        ('["x, y", "z"]', ("x, y", "z")),
        ("x|y, z", ("x", "y, z")),
    ],
)
def test_a_list_is_given_as_a_list_or_as_text(given: Any, expected: tuple[str, ...]) -> None:
    assert build(Example, {"words": given}).words == expected


def test_numbers_in_a_list_have_the_fields_type() -> None:
    made = build(Example, {"ranks": "4,32", "rates": [1, 0.5]})
    assert (made.ranks, made.rates) == ((4, 32), (1.0, 0.5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ranks": "4,x"}, "ranks must be numbers separated by commas"),
        ({"ranks": "4,0"}, "ranks must be at least 1"),
        ({"ranks": [4, 0.5]}, "ranks must be int"),
        ({"rates": "1,-1"}, "rates must be more than 0"),
        ({"rates": "inf"}, "rates must be a finite number"),
        ({"words": 3}, "words must be a list"),
        ({"words": "[x"}, "words is no JSON list"),
        ({"words": "x", "old_words": "y"}, "words is given twice"),
    ],
)
def test_a_wrong_list_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(Example, values)


def test_an_old_name_works_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert build(Example, {"old_words": "x"}).words == ("x",)
    assert [record.getMessage() for record in caplog.records] == [
        "old_words is called words now; the old name works for one more release"
    ]


def test_another_default_keeps_the_rest() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other(Example):
        ranks: tuple[int, ...] = with_default(Example, "ranks", (8,), source="here")

    field = Other.__dataclass_fields__["ranks"]
    assert (Other().ranks, field.metadata["source"], field.metadata["at_least"]) == ((8,), "here", 1)


def test_the_command_line_says_a_new_name_once_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with typed({}):
        for _ in range(2):
            assert build(Example, {"old_words": "x"}).words == ("x",)
    said = "unlikeness: old_words is called words now; the old name works for one more release\n"
    assert capsys.readouterr().err == said


def test_a_message_names_the_flag_or_else_the_setting() -> None:
    with typed({"rates": "--rates"}):
        with pytest.raises(UsageError, match=r"^--rates must be more than 0"):
            build(Example, {"rates": "-1"})
        with pytest.raises(UsageError, match=r"^--set ranks must be at least 1"):
            build(Example, pairs("--set", ["ranks=0"]))
        with pytest.raises(UsageError, match=r"^--network ranks must be at least 1"):
            build(Example, pairs("--network", ["ranks=0"]))
        with pytest.raises(UsageError, match=r"^--rates is given twice, then by --set rates=1"):
            pairs("--set", ["rates=1"], {"rates": 2})
    with pytest.raises(UsageError, match=r"^rates must"):
        build(Example, {"rates": "-1"})


def test_an_unknown_name_is_told_the_closest_three_at_most() -> None:
    with pytest.raises(UsageError, match=r"rate is no setting of Example \(did you mean rates\?\)$"):
        build(Example, {"rate": "1"})
    with pytest.raises(UsageError, match=r"zzz is no setting of Example \(the closest are \w+, \w+ or \w+"):
        build(Example, {"zzz": "1"})
    with typed({"steps": "--steps"}), pytest.raises(UsageError, match=r"^--steps is no setting of Exam.*; l"):
        build(Example, {"steps": 1})
