"""Which notice is looked for: what the record says or the user, with a mark or a reader to find it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import pictures
from tests.verify.records import Reads, run_of, some

from unlikeness.errors import UsageError
from unlikeness.gallery import to_pil
from unlikeness.immunize.outputs import mark
from unlikeness.provenance import pixel_digest
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import member
from unlikeness.verify import (
    Notice,
)
from unlikeness.verify.judge import eight_bits
from unlikeness.verify.protected import find
from unlikeness.verify.readers import load_reader
from unlikeness.verify.sought import Sought


def test_what_the_record_says_is_looked_for() -> None:
    one, mug = some(0), some(0, "mug")

    def notice(sought: Sought, subject: Subject = one, **settings: Any) -> Notice | None:
        record = run_of(subject, **settings)
        return sought.notice(subject, find(record, subject), resolution=64)

    assert notice(Sought()) is None
    assert notice(Sought(), behaviour="class") is None
    assert notice(Sought("none"), behaviour="target", target_noun="cat") is None
    target = notice(Sought(), behaviour="target", target_noun="cat")
    assert target is not None
    assert target.as_record() == {
        "behaviour": "target", "target_noun": "cat", "read_by": "toybox", "from": "immunization.json",
    }  # fmt: skip
    assert str(target) == "target, a cat instead of the dog"
    other = notice(Sought(target_noun="mug"), behaviour="target", target_noun="cat")
    assert other is not None
    assert other.target_noun == "mug"
    given = notice(Sought("erasure"), mug, behaviour="target", target_noun="cat")
    assert given is not None
    assert (given.kind, given.recorded, given.target_noun) == ("erasure", False, "")
    stamp = notice(Sought(), behaviour="pattern", pattern="")
    assert stamp is not None
    assert stamp.mark is not None
    assert torch.equal(stamp.mark, mark())
    assert stamp.as_record()["read_by"] is None


def test_blanks_around_a_noun_do_not_count() -> None:
    dog = Subject(pictures(1), "dog ")
    target = Sought("target", " cat ").notice(dog, None, resolution=64)
    erasure = Sought("erasure").notice(dog, None, resolution=64)
    assert target is not None
    assert erasure is not None
    assert replace(target, reader=Reads("cat")).shown(eight_bits(dog.images)).tolist() == [True]
    assert replace(erasure, reader=Reads("dog")).shown(eight_bits(dog.images)).tolist() == [False]
    with pytest.raises(UsageError, match="needs --target-noun"):
        Sought("target", "dog ").notice(dog, None, resolution=64)
    with pytest.raises(UsageError, match=r"target noun .* is no UTF-8 text"):
        Sought("target", "c\udce4t")


def test_a_mark_of_one_s_own(tmp_path: Path) -> None:
    one, file = some(0), tmp_path / "stop.png"
    to_pil(mark().flip(0)).save(file)
    protected = find(run_of(one, behaviour="pattern", pattern="stop.png"), one)
    notice = Sought(pattern=file).notice(one, protected, resolution=64)
    assert notice is not None
    assert notice.mark is not None
    assert torch.equal(notice.mark, mark().flip(0))
    digests = {"right": pixel_digest(mark().flip(0)), "wrong": pixel_digest(mark())}
    for which, digest in digests.items():
        record = {**run_of(one, behaviour="pattern", pattern="stop.png"), "pattern_sha256": digest}
        if which == "right":
            assert Sought(pattern=file).notice(one, find(record, one), resolution=64) is not None
            continue
        with pytest.raises(UsageError, match=r"stop\.png is not the mark"):
            Sought(pattern=file).notice(one, find(record, one), resolution=64)
        assert Sought("pattern", pattern=file).notice(one, find(record, one), resolution=64) is not None
    with pytest.raises(UsageError, match=r"a mark of its own \(stop\.png\).*give it with --pattern"):
        Sought().notice(one, protected, resolution=64)
    # A record comes with a download: no file that it names is opened.
    named = find(run_of(one, behaviour="pattern", pattern=str(file)), one)
    with pytest.raises(UsageError, match="give it with --pattern"):
        Sought().notice(one, named, resolution=64)


def test_misuse_is_told() -> None:
    one = some(0)
    with pytest.raises(UsageError, match="--protective-output smile is unknown"):
        Sought("smile")
    with pytest.raises(UsageError, match="--target-noun has no effect without --protective-output target"):
        Sought("erasure", target_noun="cat")
    with pytest.raises(UsageError, match="--pattern has no effect without --protective-output pattern"):
        Sought(pattern=Path("mark.png")).notice(one, None, resolution=64)
    for noun in ("", "dog"):
        with pytest.raises(UsageError, match="needs --target-noun, what is drawn instead of a dog"):
            Sought("target", noun).notice(one, None, resolution=64)
    with pytest.raises(UsageError, match="--classifier toybox has no effect"):
        Sought("pattern", reader="toybox").notice(one, None, resolution=64)
    with pytest.raises(UsageError, match="the toybox's classifier knows no rabbit"):
        Sought("target", "rabbit").notice(one, None, resolution=64)
    with pytest.raises(UsageError, match="reader nowhere is no folder here"):
        Sought("erasure", reader="nowhere").notice(one, None, resolution=64)


def test_the_toybox_s_classifier_reads_the_toybox_at_any_size() -> None:
    cat = member(2, "cat").subject(4).images
    reader = load_reader("auto", ["cat", "dog"], resolution=64)
    assert reader.name == "toybox"
    for images in (cat, torch.nn.functional.interpolate(cat, scale_factor=2.0, mode="bilinear")):
        assert list(reader(images)) == ["cat"] * 4
