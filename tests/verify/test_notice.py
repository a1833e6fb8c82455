"""The notice: that it is found, and that it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import pictures
from tests.verify.conftest import colours, tinted
from tests.verify.records import Reads
from tests.verify.test_certificate import about, whole
from tests.verify.test_run import outcome
from torch import Tensor

from unlikeness.cache import Cache
from unlikeness.diffusion import TextToImage
from unlikeness.immunize.outputs import mark, stamped
from unlikeness.measure.share import share
from unlikeness.subjects import Subject
from unlikeness.verify import (
    Notice,
    Other,
    Priors,
    Seen,
    Verdict,
    VerifySettings,
    named,
    outcomes,
    verify_subject,
)
from unlikeness.verify.certificate import certificate, summary, write_certificate
from unlikeness.verify.judge import Drawn, eight_bits
from unlikeness.verify.outcomes import RELEASED, Attacks, Target


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
    attacks = Attacks(base, {}, (), None, None, Cache(tmp_path), print, None)
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
