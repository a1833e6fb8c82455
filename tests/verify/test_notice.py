"""The notice: where it comes from, that it is found, and that it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import pictures
from tests.verify.conftest import colours, tinted
from tests.verify.test_certificate import about, whole
from tests.verify.test_run import outcome
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.gallery import to_pil
from unlikeness.immunize.behaviours import mark, stamped
from unlikeness.immunize.material import manifest, picture_digest
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.measure.share import share
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import member
from unlikeness.verify import (
    Notice,
    Other,
    Pools,
    Priors,
    Seen,
    Verdict,
    VerifySettings,
    attacker,
    named,
    outcomes,
    verify_subject,
)
from unlikeness.verify.certificate import certificate, summary, write_certificate
from unlikeness.verify.judge import Drawn, eight_bits
from unlikeness.verify.keep import keeper
from unlikeness.verify.outcomes import RELEASED, Attacks, Target
from unlikeness.verify.protected import find, has_notice, pools
from unlikeness.verify.readers import load_reader
from unlikeness.verify.sought import Sought
from unlikeness.verify.teaching import taught


class Reads:
    """Reads a picture's nouns off a list."""

    name = "list"

    def __init__(self, *nouns: str) -> None:
        self.nouns = nouns

    def __call__(self, images: Tensor) -> list[str]:
        return list(self.nouns[: len(images)])


def some(seed: int, noun: str = "dog") -> Subject:
    return Subject(pictures(2, seed=seed), noun)


def run_of(*subjects: Subject, **settings: Any) -> dict[str, Any]:
    """The part of an immunization's record that counts here."""
    return {
        "method": "persguard",
        "settings": settings,
        "subjects": [
            {
                "class_noun": one.class_noun,
                "identifier": one.identifier,
                "pictures_sha256": one.digest,
                "pairs": manifest(one, ImmunizeSettings()),
            }
            for one in subjects
        ],
        "earlier": [],
    }


def kind_of(record: Mapping[str, Any], subject: Subject) -> str | None:
    found = find(record, subject)
    return None if found is None else found.behaviour


def test_behaviours_go_to_the_subjects_in_turn() -> None:
    cast = [some(seed) for seed in range(3)]
    record = run_of(*cast, behaviour="pattern, erasure")
    assert [kind_of(record, one) for one in cast] == ["pattern", "erasure", "pattern"]
    assert has_notice(record)
    assert kind_of(record, some(9)) is None
    targets = run_of(*cast, behaviour="target", target_noun="mug, cat")
    assert [found.target_noun for one in cast if (found := find(targets, one))] == ["mug", "cat", "mug"]


def test_divert_to_the_class_and_methods_without_a_behaviour_have_no_notice() -> None:
    one, other = some(0), some(1)
    assert [kind_of(run_of(one, other, behaviour="class,target"), x) for x in (one, other)] == ["", "target"]
    for settings in ({}, {"behaviour": "class"}, {"behaviour": 3}, {"behaviour": ""}):
        record = run_of(one, **settings)
        assert kind_of(record, one) == ""
        assert not has_notice(record)
    bare = {"method": "apdm"}
    assert find(bare, one) is None
    assert not has_notice(bare)
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
    protected = find(last, other)
    assert protected is not None
    assert pools(last, protected.run) == {
        "pool_identifiers": "zwx", "pool_templates": "", "protected_identifiers": "sks",
    }  # fmt: skip


def test_a_black_box_has_no_word_of_any_immunization_s_subjects() -> None:
    one, other = some(0), replace(some(1), identifier="t@t")
    protected_later = {**run_of(other), "earlier": [run_of(one)]}
    alone = run_of(replace(one, identifier="t@t"))
    for record, words in ((protected_later, "t@t,sks"), (alone, "t@t")):
        protected = find(record, one)
        assert protected is not None
        known = pools(record, protected.run)
        assert known == {"protected_identifiers": words}
        black = taught(one, attacker("other-identifier"), pools=Pools.of(VerifySettings(**known)))  # type: ignore[arg-type]
        assert black.identifier == "ohwx"


def test_the_record_s_pools_are_what_is_beyond_the_white_box() -> None:
    assert pools(run_of(identifiers="", templates="a photo of {}")) == {}
    assert pools(run_of(identifiers="", templates="a photo of {}|a {}")) == {
        "pool_identifiers": "", "pool_templates": "a photo of {}|a {}",
    }  # fmt: skip


def test_the_white_box_has_the_record_s_prompt_and_the_black_box_nobody_s_word() -> None:
    one, other = some(0), replace(some(1), identifier="t@t")
    record = run_of(one, other, templates="a picture of {}|an image of {}")
    assert pools(record) == {
        "pool_identifiers": "", "pool_templates": "a picture of {}|an image of {}",
        "protected_template": "a picture of {}", "protected_identifiers": "sks,t@t",
    }  # fmt: skip
    found = Pools.of(VerifySettings(**pools(record)))  # type: ignore[arg-type]
    prompts = {
        name: taught(one, attacker(name), pools=found).instance_prompt
        for name in ("paper", "other-identifier", "unseen-prompt", "gray-box")
    }
    assert prompts == {
        "paper": "a picture of sks dog", "other-identifier": "a picture of ohwx dog",
        "unseen-prompt": "a rendering of sks dog", "gray-box": "an image of sks dog",
    }  # fmt: skip
    with pytest.raises(UsageError, match="protected_template: 'a dog'"):
        Pools.of(VerifySettings(protected_template="a dog"))


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
    digests = {"right": picture_digest(mark().flip(0)), "wrong": picture_digest(mark())}
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
    with pytest.raises(UsageError, match="--behaviour smile is unknown"):
        Sought("smile")
    with pytest.raises(UsageError, match="--target-noun has no effect without --behaviour target"):
        Sought("erasure", target_noun="cat")
    with pytest.raises(UsageError, match="--pattern has no effect without --behaviour pattern"):
        Sought(pattern=Path("mark.png")).notice(one, None, resolution=64)
    for noun in ("", "dog"):
        with pytest.raises(UsageError, match="needs --target-noun, what is drawn instead of a dog"):
            Sought("target", noun).notice(one, None, resolution=64)
    with pytest.raises(UsageError, match="--reader toybox has no effect"):
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


def test_shares_at_the_training_prompt_and_in_new_contexts() -> None:
    clean = pictures(4, size=64)
    plain = torch.cat([stamped(clean[:3], mark()), clean[3:]])
    drawn = Drawn(eight_bits(plain), eight_bits(clean), ("at 7",) * 4)
    found = Notice("pattern", "dog", mark=mark()).seen(drawn)
    assert found.plain.value == 0.75
    assert found.elsewhere is not None
    assert found.elsewhere.value == 0
    assert str(found) == "75% / 0%"
    drawn = Drawn(eight_bits(clean), None, ())
    reader = Reads("dog", "cat", "mug", "dog")
    for notice, value in (
        (Notice("target", "dog", "cat", reader=reader), 0.25),
        (Notice("erasure", "dog", reader=reader), 0.5),
    ):
        found = notice.seen(drawn)
        assert (found.plain.value, found.elsewhere) == (value, None)


def test_every_attacker_and_the_model_itself_are_looked_at(
    model: TextToImage, original: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor,
    base: VerifySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lines: list[str] = []

    def run(notice: Notice | None) -> Verdict:
        return verify_subject(
            model, subject, held_out, embedder=colours, base=base, attackers=named(["paper"]),
            contexts=("at 7",), of_class=of_class, original=original, notice=notice, measure_quality=False,
            work=tmp_path, tell=lines.append,
        )  # fmt: skip

    silent = run(None)
    assert silent.released is None
    assert [title for title, _ in silent.asked] == ["paper, on the original", "paper"]
    assert all(one.seen is None for _, one in silent.asked)
    assert not any("notice" in line for line in lines)

    monkeypatch.setattr(outcomes, "run_attacker", None)  # what is kept is looked at, and not made again
    told = run(Notice("target", "dog", "cat", reader=Reads("cat", "dog")))
    assert [title for title, _ in told.asked] == ["paper, on the original", "released", "paper"]
    for _, one in told.asked:
        assert one.seen is not None
        assert one.seen.plain.value == 0.5
        assert one.seen.elsewhere is not None
        assert (one.seen.elsewhere.value, one.seen.elsewhere.n) == (1.0, 1)
    assert told.released is not None
    assert told.released.pictures_learnt == 0
    assert told.worst == silent.worst
    seeds = range(3_000_000, 3_000_002)
    itself = model.generate(["a photo of sks dog"], seeds=seeds, steps=base.solver_steps)
    assert torch.equal(told.released.drawn.plain, eight_bits(itself))
    assert any(line.startswith("released: s ") and "notice 50% / 100%" in line for line in lines)


def test_it_is_looked_for_where_it_should_not_be(
    model: TextToImage, original: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor,
    base: VerifySettings, tmp_path: Path,
) -> None:  # fmt: skip
    cat = Other("tom", Subject(tinted(2, (0.1, 0.9, 0.1)), "cat"), held_out, of_class)
    mug = Other("cup", Subject(tinted(2, (0.1, 0.1, 0.9)), "mug"), held_out, of_class)
    notice = Notice("target", "dog", "cat", reader=Reads("cat", "dog", "dog", "dog", "dog", "cat"))
    verdict = verify_subject(
        model, subject, held_out, embedder=colours, base=base, attackers=named(["paper"]),
        contexts=("at 7",), of_class=of_class, original=original, others=[cat, mug], notice=notice,
        work=tmp_path,
    )  # fmt: skip
    seen = {one.name: one.outcome.seen for one in verdict.others}
    assert seen["tom"] is None  # a fine-tune on a cat ends in a cat
    assert seen["cup"] is not None
    assert seen["cup"].plain.value == 0.5
    assert verdict.quality is not None
    assert verdict.quality.notice is not None
    assert verdict.quality.notice_before is not None
    assert verdict.quality.notice.value == pytest.approx(1 / 3)
    assert verdict.quality.notice.n == 6
    made = write_certificate(verdict, tmp_path)
    short = summary(json.loads(json.dumps(made)))["notice"]
    assert short["unprotected"] == {"cup": {"at_training_prompt": 0.5, "in_new_contexts": 1.0}}
    assert short["class_prompt"] == pytest.approx(1 / 3, abs=1e-3)
    page = (tmp_path / "certificate.html").read_text()
    assert "share with the notice, unasked" in page
    assert "50% / 100%" in page
    assert "and not show the notice" in page


def test_the_class_is_drawn_and_read_only_where_it_is_needed(
    model: TextToImage, original: TextToImage, base: VerifySettings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    drawn: list[int] = []
    read: list[int] = []

    def draw(of: TextToImage, prompt: str, count: int, *_: Any, series: int, **__: Any) -> Tensor:
        drawn.append(series)
        return tinted(count, (0.9, 0.1, 0.1), seed=series)

    def names(images: Tensor) -> list[str]:
        read.append(len(images))
        return ["cat"] * len(images)

    reader = Reads()
    monkeypatch.setattr(Reads, "__call__", lambda _, images: names(images))
    monkeypatch.setattr(outcomes, "draw_class", draw)
    attacks = Attacks(base, {}, (), None, None, keeper(tmp_path), print, None)
    now, before = Target(model, Priors(model)), Target(original, Priors(original))
    for recorded in (True, False):
        notice = Notice("target", "dog", "cat", reader=reader, recorded=recorded)
        found = attacks.quality(now, before, "a photo of a dog", colours, None, notice)
        assert found.notice is not None
        assert found.notice.value == 1
    assert drawn == [1, 2, 3]
    assert read == [6, 6]
    attacks.quality(now, before, "a photo of a dog", colours, None, replace(notice, target_noun="mug"))
    assert drawn == [1, 2, 3, 1, 2]


def test_of_an_erasure_only_the_class_itself_is_asked_for() -> None:
    erasure = Notice("erasure", "dog", reader=Reads("dog"))
    assert erasure.of("cat") is None
    assert erasure.of("dog") is not None
    target = Notice("target", "dog", "cat", reader=Reads("dog")).of("mug")
    assert target is not None
    assert (target.class_noun, target.target_noun) == ("mug", "cat")
    assert Notice("pattern", "dog", mark=mark()).of("mug") is not None


def seen(value: int) -> Seen:
    """In so many of four pictures, and in none of two in new contexts."""
    return Seen(share(torch.arange(4) < value), share(torch.zeros(2, dtype=torch.bool)))


def with_notice() -> Verdict:
    return replace(
        whole(),
        outcomes=(replace(outcome("paper", 0.1, 0.2), seen=seen(3)),),
        clean=replace(outcome("paper", 0.9), seen=seen(0)),
        notice=Notice("target", "dog", "<i>cat", reader=Reads(), recorded=True),
        released=replace(outcome("paper", 0.0), attacker=RELEASED, seen=seen(4)),
    )


def test_the_certificate_has_them(tmp_path: Path) -> None:
    made = write_certificate(with_notice(), tmp_path)
    assert made["notice"]["behaviour"] == "target"
    assert made["notice"]["read_by"] == "list"
    found = made["attackers"]["paper"]["notice"]
    assert (found["at_training_prompt"]["value"], found["at_training_prompt"]["n"]) == (0.75, 4)
    assert found["in_new_contexts"]["value"] == 0
    assert made["released"]["notice"]["at_training_prompt"]["value"] == 1
    assert made["released"]["method"] == "none"
    assert made["original"]["notice"]["at_training_prompt"]["value"] == 0
    assert made["headline"]["attacker"] == "paper"
    short = summary(json.loads((tmp_path / "certificate.json").read_text()))
    assert short["notice"] == {
        "behaviour": "target", "target_noun": "<i>cat",
        "released": {"at_training_prompt": 1.0, "in_new_contexts": 0.0},
        "attackers": {"paper": {"at_training_prompt": 0.75, "in_new_contexts": 0.0}},
        "unprotected": {}, "class_prompt": None,
    }  # fmt: skip
    page = (tmp_path / "certificate.html").read_text()
    assert "<i>cat" not in page
    assert "&lt;i&gt;cat instead of the dog" in page
    assert "Classes are read by “list”." in page
    for cell in ("notice", "75% / 0%", "100% / 0%", "0% / 0%", "released: the model before any attack"):
        assert f">{cell}</t" in page
    assert (tmp_path / "grids" / "released.png").is_file()


def test_without_a_notice_there_is_none_in_the_certificate(tmp_path: Path) -> None:
    made = certificate(replace(whole(), about=about()))
    assert (made["notice"], made["released"], made["attackers"]["paper"]["notice"]) == (None, None, None)
    assert "notice" not in summary(made)
    write_certificate(whole(), tmp_path)
    page = (tmp_path / "certificate.html").read_text()
    assert ">notice<" not in page
    assert "Notice" not in page
