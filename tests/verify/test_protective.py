"""Protective outputs: detection, and what the certificate says."""

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
from unlikeness.immunize.outputs import watermark, watermarked
from unlikeness.measure.intervals import share
from unlikeness.subjects import Subject
from unlikeness.verify import (
    Detected,
    Priors,
    ProtectiveOutput,
    UnprotectedSubject,
    Verdict,
    VerifySettings,
    named,
    outcomes,
    verify_subject,
)
from unlikeness.verify.certificate import certificate, summary, write_certificate
from unlikeness.verify.evaluator import Generated, eight_bits
from unlikeness.verify.outcomes import RELEASED, Attacks, Target


def test_shares_at_the_training_prompt_and_in_new_contexts() -> None:
    clean = pictures(4, size=64)
    plain = torch.cat([watermarked(clean[:3], watermark()), clean[3:]])
    drawn = Generated(eight_bits(plain), eight_bits(clean), ("at 7",) * 4)
    found = ProtectiveOutput("pattern", "dog", watermark=watermark()).detect(drawn)
    assert found.plain.value == 0.75
    assert found.elsewhere is not None
    assert found.elsewhere.value == 0
    assert str(found) == "75% / 0%"
    drawn = Generated(eight_bits(clean), None, ())
    classifier = Reads("dog", "cat", "mug", "dog")
    for output, value in (
        (ProtectiveOutput("target", "dog", "cat", classifier=classifier), 0.25),
        (ProtectiveOutput("erasure", "dog", classifier=classifier), 0.5),
    ):
        found = output.detect(drawn)
        assert (found.plain.value, found.elsewhere) == (value, None)


def test_it_is_looked_for_in_every_attacker_and_in_the_model_itself(
    model: TextToImage, original: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor,
    base: VerifySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lines: list[str] = []

    def run(output: ProtectiveOutput | None) -> Verdict:
        return verify_subject(
            model, subject, held_out, embedder=colours, base=base, attackers=named(["paper"]),
            contexts=("at 7",), of_class=of_class, original=original, output=output, measure_quality=False,
            work=tmp_path, report=lines.append,
        )  # fmt: skip

    plain = run(None)
    assert plain.released is None
    assert [title for title, _ in plain.titled] == ["paper, on the original", "paper"]
    assert all(one.detected is None for _, one in plain.titled)
    assert not any("protective output" in line for line in lines)

    monkeypatch.setattr(outcomes, "run_attacker", None)  # what is kept is looked at, and not made again
    watched = run(ProtectiveOutput("target", "dog", "cat", classifier=Reads("cat", "dog")))
    assert [title for title, _ in watched.titled] == ["paper, on the original", "released", "paper"]
    for _, one in watched.titled:
        assert one.detected is not None
        assert one.detected.plain.value == 0.5
        assert one.detected.elsewhere is not None
        assert (one.detected.elsewhere.value, one.detected.elsewhere.n) == (1.0, 1)
    assert watched.released is not None
    assert watched.released.pictures_learnt == 0
    assert watched.worst == plain.worst
    seeds = range(3_000_000, 3_000_002)
    itself = model.generate(["a photo of sks dog"], seeds=seeds, steps=base.solver_steps)
    assert torch.equal(watched.released.generated.plain, eight_bits(itself))
    assert any(line.startswith("released: s ") and "protective output 50% / 100%" in line for line in lines)


def test_it_is_looked_for_where_it_should_not_be(
    model: TextToImage, original: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor,
    base: VerifySettings, tmp_path: Path,
) -> None:  # fmt: skip
    cat = UnprotectedSubject("tom", Subject(tinted(2, (0.1, 0.9, 0.1)), "cat"), held_out, of_class)
    mug = UnprotectedSubject("cup", Subject(tinted(2, (0.1, 0.1, 0.9)), "mug"), held_out, of_class)
    output = ProtectiveOutput(
        "target", "dog", "cat", classifier=Reads("cat", "dog", "dog", "dog", "dog", "cat")
    )
    verdict = verify_subject(
        model, subject, held_out, embedder=colours, base=base, attackers=named(["paper"]),
        contexts=("at 7",), of_class=of_class, original=original, unprotected=[cat, mug], output=output,
        work=tmp_path,
    )  # fmt: skip
    found = {one.name: one.outcome.detected for one in verdict.unprotected}
    assert found["tom"] is None  # a fine-tune on a cat ends in a cat
    assert found["cup"] is not None
    assert found["cup"].plain.value == 0.5
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
    assert "share with the protective output" in page
    assert "50% / 100%" in page
    assert "and not show the protective output" in page


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

    classifier = Reads()
    monkeypatch.setattr(Reads, "__call__", lambda _, images: names(images))
    monkeypatch.setattr(outcomes, "generate_class", draw)
    attacks = Attacks(base, {}, (), None, None, Cache(tmp_path), print, None)
    now, before = Target(model, Priors(model)), Target(original, Priors(original))
    for recorded in (True, False):
        output = ProtectiveOutput("target", "dog", "cat", classifier=classifier, recorded=recorded)
        found = attacks.quality(now, before, "a photo of a dog", colours, None, output)
        assert found.notice is not None
        assert found.notice.value == 1
    assert drawn == [1, 2, 3]
    assert read == [6, 6]
    attacks.quality(now, before, "a photo of a dog", colours, None, replace(output, target_noun="mug"))
    assert drawn == [1, 2, 3, 1, 2]


def test_an_erasure_is_looked_for_in_the_class_itself_alone() -> None:
    erasure = ProtectiveOutput("erasure", "dog", classifier=Reads("dog"))
    assert erasure.of("cat") is None
    assert erasure.of("dog") is not None
    target = ProtectiveOutput("target", "dog", "cat", classifier=Reads("dog")).of("mug")
    assert target is not None
    assert (target.class_noun, target.target_noun) == ("mug", "cat")
    assert ProtectiveOutput("pattern", "dog", watermark=watermark()).of("mug") is not None


def detected(value: int) -> Detected:
    """In so many of four pictures, and in none of two in new contexts."""
    return Detected(share(torch.arange(4) < value), share(torch.zeros(2, dtype=torch.bool)))


def with_output() -> Verdict:
    return replace(
        whole(),
        outcomes=(replace(outcome("paper", 0.1, 0.2), detected=detected(3)),),
        clean=replace(outcome("paper", 0.9), detected=detected(0)),
        output=ProtectiveOutput("target", "dog", "<i>cat", classifier=Reads(), recorded=True),
        released=replace(outcome("paper", 0.0), attacker=RELEASED, detected=detected(4)),
    )


def test_the_certificate_has_them(tmp_path: Path) -> None:
    made = write_certificate(with_output(), tmp_path)
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
    for cell in (
        "protective output",
        "75% / 0%",
        "100% / 0%",
        "0% / 0%",
        "released: the model before any attack",
    ):
        assert f">{cell}</t" in page
    assert (tmp_path / "grids" / "released.png").is_file()


def test_without_an_output_there_is_none_in_the_certificate(tmp_path: Path) -> None:
    made = certificate(replace(whole(), about=about()))
    assert (made["notice"], made["released"], made["attackers"]["paper"]["notice"]) == (None, None, None)
    assert "notice" not in summary(made)
    write_certificate(whole(), tmp_path)
    page = (tmp_path / "certificate.html").read_text()
    assert ">output<" not in page
    assert "ProtectiveOutput" not in page
