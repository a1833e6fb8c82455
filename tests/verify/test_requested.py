"""The protective output to look for: the user's or the record's."""

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
from unlikeness.immunize.outputs import watermark
from unlikeness.measure.classifiers import load_classifier
from unlikeness.provenance import pixel_digest
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import member
from unlikeness.verify import (
    ProtectiveOutput,
)
from unlikeness.verify.evaluator import eight_bits
from unlikeness.verify.protective import Requested, recorded


def test_what_the_record_says_is_looked_for() -> None:
    one, mug = some(0), some(0, "mug")

    def resolved(requested: Requested, subject: Subject = one, **settings: Any) -> ProtectiveOutput | None:
        record = run_of(subject, **settings)
        return requested.resolve(subject, recorded(record, subject), resolution=64)

    assert resolved(Requested()) is None
    assert resolved(Requested(), behaviour="class") is None
    assert resolved(Requested("none"), behaviour="target", target_noun="cat") is None
    target = resolved(Requested(), behaviour="target", target_noun="cat")
    assert target is not None
    assert target.as_record() == {
        "behaviour": "target", "target_noun": "cat", "read_by": "toybox", "from": "immunization.json",
    }  # fmt: skip
    assert str(target) == "target, a cat instead of the dog"
    other = resolved(Requested(target_noun="mug"), behaviour="target", target_noun="cat")
    assert other is not None
    assert other.target_noun == "mug"
    given = resolved(Requested("erasure"), mug, behaviour="target", target_noun="cat")
    assert given is not None
    assert (given.kind, given.recorded, given.target_noun) == ("erasure", False, "")
    stamp = resolved(Requested(), behaviour="pattern", pattern="")
    assert stamp is not None
    assert stamp.watermark is not None
    assert torch.equal(stamp.watermark, watermark())
    assert stamp.as_record()["read_by"] is None


def test_blanks_around_a_noun_do_not_count() -> None:
    dog = Subject(pictures(1), "dog ")
    target = Requested("target", " cat ").resolve(dog, None, resolution=64)
    erasure = Requested("erasure").resolve(dog, None, resolution=64)
    assert target is not None
    assert erasure is not None
    assert replace(target, classifier=Reads("cat")).shown(eight_bits(dog.images)).tolist() == [True]
    assert replace(erasure, classifier=Reads("dog")).shown(eight_bits(dog.images)).tolist() == [False]
    with pytest.raises(UsageError, match="needs --target-noun"):
        Requested("target", "dog ").resolve(dog, None, resolution=64)
    with pytest.raises(UsageError, match=r"target noun .* is no UTF-8 text"):
        Requested("target", "c\udce4t")


def test_a_watermark_of_one_s_own(tmp_path: Path) -> None:
    one, file = some(0), tmp_path / "stop.png"
    to_pil(watermark().flip(0)).save(file)
    protected = recorded(run_of(one, behaviour="pattern", pattern="stop.png"), one)
    notice = Requested(pattern=file).resolve(one, protected, resolution=64)
    assert notice is not None
    assert notice.watermark is not None
    assert torch.equal(notice.watermark, watermark().flip(0))
    digests = {"right": pixel_digest(watermark().flip(0)), "wrong": pixel_digest(watermark())}
    for which, digest in digests.items():
        record = {**run_of(one, behaviour="pattern", pattern="stop.png"), "pattern_sha256": digest}
        if which == "right":
            assert Requested(pattern=file).resolve(one, recorded(record, one), resolution=64) is not None
            continue
        with pytest.raises(UsageError, match=r"stop\.png is not the watermark"):
            Requested(pattern=file).resolve(one, recorded(record, one), resolution=64)
        assert (
            Requested("pattern", pattern=file).resolve(one, recorded(record, one), resolution=64) is not None
        )
    with pytest.raises(UsageError, match=r"a watermark of its own \(stop\.png\).*give it with --pattern"):
        Requested().resolve(one, protected, resolution=64)
    # A record comes with a download: no file that it names is opened.
    named = recorded(run_of(one, behaviour="pattern", pattern=str(file)), one)
    with pytest.raises(UsageError, match="give it with --pattern"):
        Requested().resolve(one, named, resolution=64)


def test_misuse_is_refused() -> None:
    one = some(0)
    with pytest.raises(UsageError, match="--protective-output smile is unknown"):
        Requested("smile")
    with pytest.raises(UsageError, match="--target-noun has no effect without --protective-output target"):
        Requested("erasure", target_noun="cat")
    with pytest.raises(UsageError, match="--pattern has no effect without --protective-output pattern"):
        Requested(pattern=Path("mark.png")).resolve(one, None, resolution=64)
    for noun in ("", "dog"):
        with pytest.raises(UsageError, match="needs --target-noun, drawn instead of a dog"):
            Requested("target", noun).resolve(one, None, resolution=64)
    with pytest.raises(UsageError, match="--classifier toybox has no effect"):
        Requested("pattern", classifier="toybox").resolve(one, None, resolution=64)
    with pytest.raises(UsageError, match="the toybox's classifier knows no rabbit"):
        Requested("target", "rabbit").resolve(one, None, resolution=64)
    with pytest.raises(UsageError, match="classifier nowhere is no folder here"):
        Requested("erasure", classifier="nowhere").resolve(one, None, resolution=64)


def test_the_toybox_s_classifier_reads_the_toybox_at_any_size() -> None:
    cat = member(2, "cat").subject(4).images
    classifier = load_classifier("auto", ["cat", "dog"], resolution=64)
    assert classifier.name == "toybox"
    for images in (cat, torch.nn.functional.interpolate(cat, scale_factor=2.0, mode="bilinear")):
        assert list(classifier(images)) == ["cat"] * 4
