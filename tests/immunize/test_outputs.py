"""Each subject's own protective output, and the method `notice`, which is made for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.immunize.test_divert import FEW

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.immunize import create, immunize
from unlikeness.immunize.data import protected_subjects
from unlikeness.immunize.methods.settings import DivertSettings, NoticeSettings, PersGuardSettings
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.immunize.subject_list import Listed, check_outputs, own_outputs
from unlikeness.presets import preset_values
from unlikeness.settings import build
from unlikeness.subjects import Subject

REX, ANNA = Listed(Path("rex"), "dog"), Listed(Path("anna"), "person", "zwx", "target", "cat")


def test_a_subject_has_its_own_output_or_the_common_one() -> None:
    given = {"outer_steps": 3, "protective_output": "erasure"}
    made = own_outputs([REX, ANNA], given, PersGuardSettings)
    assert made == {"outer_steps": 3, "protective_output": ["erasure", "target"], "target_noun": ["", "cat"]}
    assert given == {"outer_steps": 3, "protective_output": "erasure"}
    assert own_outputs([ANNA, REX], {}, PersGuardSettings)["protective_output"] == ["target", "pattern"]
    assert own_outputs([ANNA, REX], {}, DivertSettings)["protective_output"] == ["target", "class"]
    assert own_outputs([REX], {}, DivertSettings) == {}
    both = build(PersGuardSettings, {"protective_output": "erasure,target", "target_noun": ",cat"})
    check_outputs(both, [REX, ANNA])


def test_a_method_without_protective_outputs_refuses_them() -> None:
    values = own_outputs([ANNA], {}, ImmunizeSettings)
    with pytest.raises(UsageError, match="protective_output is no setting"):
        create("apdm", values)


@pytest.mark.parametrize(
    ("values", "subjects", "message"),
    [
        ({"protective_output": "pattern,erasure"}, [REX], "there are 1"),
        ({"protective_output": "target", "target_noun": "cat,mug,dog"}, [REX, REX], "cat,mug,dog"),
        ({"protective_output": "erasure,target", "target_noun": "cat,"}, [REX, ANNA], r"2 \(person\)"),
    ],
)
def test_outputs_that_do_not_fit_the_subjects_are_refused(
    values: dict[str, Any], subjects: list[Listed], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_outputs(build(PersGuardSettings, values), subjects)


@pytest.mark.parametrize(("name", "value"), [("pattern_weight", 2.0), ("avoidance", 0.5)])
def test_a_setting_of_one_kind_is_refused_with_another(name: str, value: float) -> None:
    its = {"pattern_weight": "pattern", "avoidance": "erasure"}[name]
    further: dict[str, Any] = {"target_noun": ("cat",), name: value}
    check_outputs(NoticeSettings(protective_output=("target", its), **further), [REX, ANNA])
    with pytest.raises(UsageError, match=f"{name} has no effect without protective output {its}"):
        check_outputs(NoticeSettings(**further), [ANNA])


def test_a_list_and_a_flag_do_not_both_go_in_turn() -> None:
    with pytest.raises(UsageError, match="leave one of the two out"):
        own_outputs([REX, ANNA], {"protective_output": "pattern,erasure"}, PersGuardSettings)


def test_notice_needs_a_target_noun() -> None:
    with pytest.raises(UsageError, match="needs target_noun"):
        create("notice")


def test_a_method_that_is_not_known_has_a_preset_too() -> None:
    assert preset_values("immunize", "toybox", 512, "somebody's")["batch_size"] == 4
    assert preset_values("immunize", "auto", 512, "divert") == {}
    with pytest.raises(UsageError, match="large is no preset; valid are: auto, stable-diffusion, toybox"):
        preset_values("immunize", "large", 64, "divert")


def test_notice_is_divert_with_these_settings(exact: TextToImage, dog: Subject, cat: Subject) -> None:
    few = {**FEW, "attack_stride": 1, "attack_depth": 0, "outer_steps": 3, "batch_size": 2}
    made: Any = create("notice", {**few, "protective_output": "target,erasure", "target_noun": "cat"})
    kept = protected_subjects(exact, [dog, cat], made.settings)
    made.prepare(exact, kept)
    assert [made.outputs[one].kind for one in kept] == ["target", "erasure"]
    released = immunize(exact, [dog], "notice", {**few, "target_noun": "cat"})
    same = {
        "guidance": 3.0, "weight_cap": 100.0, "preserve_cap": 100.0, "attack_text_encoder": 0.0,
        "preserve_empty": 0.3, "preserve_batch_size": 4,
    }  # fmt: skip
    others = {"unprotected_every": 3, "unprotected_from": 0.3, "unprotected_placed": 0.8}
    by_hand = {**few, **same, **others, "protective_output": "target"}
    as_divert = immunize(exact, [dog], "divert", {**by_hand, "target_noun": "cat"})
    for one, other in zip(released.denoiser.parameters(), as_divert.denoiser.parameters(), strict=True):
        assert one.equal(other)
