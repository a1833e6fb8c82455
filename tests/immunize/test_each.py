"""Each subject's own notice, and the method that is made for notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.immunize.test_divert import FEW

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.immunize import create, immunize
from unlikeness.immunize.data import keep
from unlikeness.immunize.each import check_turns, for_each
from unlikeness.immunize.methods.divert_settings import DivertSettings
from unlikeness.immunize.methods.notice import NoticeSettings
from unlikeness.immunize.methods.persguard import PersGuardSettings
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.immunize.subject_list import Listed
from unlikeness.presets import preset_values
from unlikeness.subjects import Subject

REX, ANNA = Listed(Path("rex"), "dog"), Listed(Path("anna"), "person", "zwx", "target", "cat")


def test_who_names_a_notice_has_it_and_the_others_have_the_common_one() -> None:
    given = {"outer_steps": 3, "behaviour": "erasure"}
    made = for_each([REX, ANNA], given, PersGuardSettings)
    assert made == {"outer_steps": 3, "behaviour": "erasure,target", "target_noun": ",cat"}
    assert given == {"outer_steps": 3, "behaviour": "erasure"}
    assert for_each([ANNA, REX], {}, PersGuardSettings)["behaviour"] == "target,pattern"
    assert for_each([ANNA, REX], {}, DivertSettings)["behaviour"] == "target,class"
    assert for_each([REX], {}, DivertSettings) == {}
    check_turns(PersGuardSettings(behaviour="erasure,target", target_noun=",cat"), [REX, ANNA])


def test_a_method_without_notices_refuses_them() -> None:
    values = for_each([ANNA], {}, ImmunizeSettings)
    with pytest.raises(UsageError, match="behaviour is no setting"):
        create("apdm", values)


@pytest.mark.parametrize(
    ("values", "subjects", "message"),
    [
        ({"behaviour": "pattern,erasure"}, [REX], "there are 1"),
        ({"behaviour": "target", "target_noun": "cat,mug,dog"}, [REX, REX], "target_noun cat,mug,dog"),
        ({"behaviour": "erasure,target", "target_noun": "cat,"}, [REX, ANNA], r"subject 2 \(person\)"),
    ],
)
def test_notices_that_do_not_fit_the_subjects_are_told(
    values: dict[str, Any], subjects: list[Listed], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_turns(PersGuardSettings(**values), subjects)


@pytest.mark.parametrize(("name", "value"), [("mark_weight", 2.0), ("avoidance", 0.5)])
def test_a_setting_of_one_behaviour_is_refused_with_another(name: str, value: float) -> None:
    its = {"mark_weight": "pattern", "avoidance": "erasure"}[name]
    further: dict[str, Any] = {"target_noun": "cat", name: value}
    check_turns(NoticeSettings(behaviour=f"target,{its}", **further), [REX, ANNA])
    with pytest.raises(UsageError, match=f"{name} has no effect without behaviour {its}"):
        check_turns(NoticeSettings(**further), [ANNA])


def test_a_list_and_a_flag_do_not_both_go_in_turn() -> None:
    with pytest.raises(UsageError, match="leave one of the two out"):
        for_each([REX, ANNA], {"behaviour": "pattern,erasure"}, PersGuardSettings)


def test_a_notice_of_another_class_needs_the_class() -> None:
    with pytest.raises(UsageError, match="needs target_noun"):
        create("notice")


def test_a_method_that_is_not_known_has_a_preset_too() -> None:
    assert preset_values("immunize", "toybox", 512, "somebody's")["batch_size"] == 4
    assert preset_values("immunize", "auto", 512, "divert") == {}
    with pytest.raises(UsageError, match="large is no preset; valid are: auto, stable-diffusion, toybox"):
        preset_values("immunize", "large", 64, "divert")


def test_a_notice_is_a_diversion_with_these_settings(exact: TextToImage, dog: Subject, cat: Subject) -> None:
    few = {**FEW, "stride": 1, "depth": 0, "outer_steps": 3, "batch_size": 2}
    made: Any = create("notice", {**few, "behaviour": "target,erasure", "target_noun": "cat"})
    kept = keep(exact, [dog, cat], made.settings)
    made.prepare(exact, kept)
    assert [made._notices[id(one)].kind for one in kept] == ["target", "erasure"]
    released = immunize(exact, [dog], "notice", {**few, "target_noun": "cat"})
    same = {
        "guidance": 3.0, "weight_cap": 100.0, "preserve_cap": 100.0, "text_encoder": 0.0,
        "preserve_empty": 0.3, "preserve_batch_size": 4,
    }  # fmt: skip
    others = {"bystanders": 3, "bystanders_from": 0.3, "bystanders_placed": 0.8}
    by_hand = {**few, **same, **others, "behaviour": "target"}
    as_divert = immunize(exact, [dog], "divert", {**by_hand, "target_noun": "cat"})
    for one, other in zip(released.denoiser.parameters(), as_divert.denoiser.parameters(), strict=True):
        assert one.equal(other)
