"""What a model's record says of a subject: its protective output, and the protection's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import pictures
from tests.verify.records import run_of, some

from unlikeness.errors import UsageError
from unlikeness.subjects import Subject
from unlikeness.verify import (
    ThreatModel,
    VerifySettings,
    attacker,
)
from unlikeness.verify.protective import pools, recorded, says_output
from unlikeness.verify.threat_model import taught


def kind_of(record: Mapping[str, Any], subject: Subject) -> str | None:
    found = recorded(record, subject)
    return None if found is None else found.kind


def test_outputs_go_to_the_subjects_round_robin() -> None:
    cast = [some(seed) for seed in range(3)]
    record = run_of(*cast, behaviour="pattern, erasure")
    assert [kind_of(record, one) for one in cast] == ["pattern", "erasure", "pattern"]
    assert says_output(record)
    assert kind_of(record, some(9)) is None
    targets = run_of(*cast, behaviour="target", target_noun="mug, cat")
    assert [found.target_noun for one in cast if (found := recorded(targets, one))] == ["mug", "cat", "mug"]


def test_divert_to_the_class_and_other_methods_have_no_output() -> None:
    one, other = some(0), some(1)
    assert [kind_of(run_of(one, other, behaviour="class,target"), x) for x in (one, other)] == ["", "target"]
    for settings in ({}, {"behaviour": "class"}, {"behaviour": 3}, {"behaviour": ""}):
        record = run_of(one, **settings)
        assert kind_of(record, one) == ""
        assert not says_output(record)
    bare = {"method": "apdm"}
    assert recorded(bare, one) is None
    assert not says_output(bare)
    assert pools(bare) == {}


def test_a_subject_is_known_by_one_of_its_pictures() -> None:
    one = some(0)
    record = run_of(one, behaviour="erasure")
    assert kind_of(record, replace(one, images=torch.cat([one.images[1:], pictures(1, seed=7)]))) == "erasure"
    assert kind_of(record, replace(one, images=one.images.flip(3))) is None


def test_the_last_immunization_that_protected_it_counts() -> None:
    one, other = some(0), some(1)
    first = run_of(one, other, behaviour="pattern", identifiers="zwx")
    second = run_of(one, behaviour="target", target_noun="cat")
    last = {**run_of(some(2), behaviour="erasure"), "earlier": [first, second]}
    assert kind_of(last, one) == "target"
    assert kind_of(last, other) == "pattern"
    protected = recorded(last, other)
    assert protected is not None
    assert pools(last, protected.run) == {
        "pool_identifiers": ["zwx"], "pool_templates": [], "protected_identifiers": ["sks"],
    }  # fmt: skip


def test_a_black_box_has_no_word_of_any_immunization_s_subjects() -> None:
    one, other = some(0), replace(some(1), identifier="t@t")
    protected_later = {**run_of(other), "earlier": [run_of(one)]}
    alone = run_of(replace(one, identifier="t@t"))
    for record, words in ((protected_later, ["t@t", "sks"]), (alone, ["t@t"])):
        protected = recorded(record, one)
        assert protected is not None
        known = pools(record, protected.run)
        assert known == {"protected_identifiers": words}
        black = taught(one, attacker("other-identifier"), threat=ThreatModel.of(VerifySettings(**known)))  # type: ignore[arg-type]
        assert black.identifier == "ohwx"


def test_the_record_s_pools_are_what_is_beyond_the_white_box() -> None:
    assert pools(run_of(identifiers="", templates="a photo of {}")) == {}
    assert pools(run_of(identifiers="", templates="a photo of {}|a {}")) == {
        "pool_identifiers": [], "pool_templates": ["a photo of {}", "a {}"],
    }  # fmt: skip


def test_the_white_box_has_the_record_s_prompt_and_the_black_box_no_protected_word() -> None:
    one, other = some(0), replace(some(1), identifier="t@t")
    record = run_of(one, other, templates="a picture of {}|an image of {}")
    assert pools(record) == {
        "pool_identifiers": [], "pool_templates": ["a picture of {}", "an image of {}"],
        "protected_template": "a picture of {}", "protected_identifiers": ["sks", "t@t"],
    }  # fmt: skip
    found = ThreatModel.of(VerifySettings(**pools(record)))  # type: ignore[arg-type]
    prompts = {
        name: taught(one, attacker(name), threat=found).instance_prompt
        for name in ("paper", "other-identifier", "unseen-prompt", "gray-box")
    }
    assert prompts == {
        "paper": "a picture of sks dog", "other-identifier": "a picture of ohwx dog",
        "unseen-prompt": "a rendering of sks dog", "gray-box": "an image of sks dog",
    }  # fmt: skip
    with pytest.raises(UsageError, match="protected_template: 'a dog'"):
        ThreatModel.of(VerifySettings(protected_template="a dog"))
