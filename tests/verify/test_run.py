"""A whole verification: its headline, its cache, its checks, what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.verify.conftest import colours, tinted
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.measure.similarity import Pairs, mean_similarity, pair_similarities
from unlikeness.subjects import Subject
from unlikeness.verify import (
    UnprotectedSubject,
    Verdict,
    VerifySettings,
    named,
    outcomes,
    run_attacker,
    together,
    verify_subject,
)
from unlikeness.verify.evaluator import Evaluator, Generated
from unlikeness.verify.verdict import Outcome

TWO = named(["paper", "lora-4"])
PLACES = ("at 7",)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the attackers that ran, in order."""
    ran: list[str] = []
    real = run_attacker

    def run(model: TextToImage, subject: Subject, attacker: Any, *args: Any, **further: Any) -> Any:
        ran.append(attacker.name)
        return real(model, subject, attacker, *args, **further)

    monkeypatch.setattr(outcomes, "run_attacker", run)
    return ran


def outcome(name: str, s: float, elsewhere: float | None = None) -> Outcome:
    """An attacker with these cosines."""

    def pairs(value: float) -> Pairs:
        return Pairs(np.full((4, 3), value), np.zeros((5, 3)), np.ones((3, 3)))

    there = None if elsewhere is None else pairs(elsewhere)
    blank = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    return Outcome(
        named([name])[0], {"steps": 1}, "a photo of sks dog", 2, mean_similarity([pairs(s)], seed=0),
        None if there is None else mean_similarity([there], seed=0), (), 1.0,
        Generated(blank, None if there is None else blank, ("at 7",) * 4), pairs(s),
    )  # fmt: skip


def verdict(*found: Outcome, **further: Any) -> Verdict:
    return Verdict({}, torch.zeros(2, 3, 8, 8), True, found, {}, **further)


def test_the_headline_is_the_largest_s_of_all_attackers_and_prompts() -> None:
    three = verdict(outcome("paper", 0.1, 0.2), outcome("patient", 0.5, 0.3), outcome("lora-4", 0.2, 0.4))
    assert three.worst.attacker == "patient"
    assert three.worst.s.value == pytest.approx(0.5)
    elsewhere = verdict(outcome("paper", 0.1, 0.7), outcome("patient", 0.5, 0.3))
    assert elsewhere.worst.attacker == "paper"
    assert elsewhere.worst.s.value == pytest.approx(0.7)
    assert elsewhere.worst.prompt == "a photo of sks dog in new contexts"
    assert verdict(outcome("slow", -0.2)).worst.attacker == "slow"


def test_whether_the_attack_works_at_all() -> None:
    assert verdict(outcome("paper", 0.1)).attack_works is None
    assert verdict(outcome("paper", 0.1), clean=outcome("paper", 0.9)).attack_works is True
    assert verdict(outcome("paper", 0.1), clean=outcome("paper", 0.1)).attack_works is False


def test_several_subjects_together() -> None:
    found = [
        verdict(outcome("paper", a), outcome("slow", 0.1), clean=outcome("paper", 0.8)) for a in (0.2, 0.4)
    ]
    s = together(found)
    assert {name: one.value for name, one in s.items()} == pytest.approx(
        {"paper": 0.3, "slow": 0.1, "clean": 0.8}
    )
    assert s["paper"].subjects == 2
    assert (s["paper"].low, s["paper"].high) == pytest.approx((0.2, 0.4))
    with pytest.raises(UsageError, match="attacked by all: slow"):
        together([found[0], verdict(outcome("paper", 0.1), clean=outcome("paper", 0.9))])


def test_from_model_to_verdict(
    model: TextToImage, original: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor,
    base: VerifySettings,
) -> None:  # fmt: skip
    lines: list[str] = []
    other = UnprotectedSubject("cat-tom", Subject(tinted(2, (0.1, 0.9, 0.9)), "cat"), of_class=of_class)
    found = verify_subject(
        model, subject, held_out, embedder=colours, base=base,
        attackers=named(["paper", "unseen-pictures", "converged"]),
        contexts=PLACES, of_class=of_class, original=original, unprotected=[other], report=lines.append,
    )  # fmt: skip
    assert [one.attacker.name for one in found.outcomes] == ["paper", "converged"]
    assert "--unseen" in found.left_out["unseen-pictures"]
    for one in (*found.outcomes, found.clean):
        assert one is not None
        assert one.s.n_generated == len(one.generated.plain) == 2
        assert one.elsewhere is not None
        assert one.generated.elsewhere is not None
        assert one.elsewhere.n_generated == len(one.generated.elsewhere) == 1
        assert one.s.n_subject == 3
        assert one.s.low <= one.s.value <= one.s.high
        again = mean_similarity([one.pairs], seed=0)
        assert again == one.s
    assert len(found.outcomes[1].losses) == 2
    assert found.clean is not None
    assert not torch.equal(found.clean.generated.plain, found.outcomes[0].generated.plain)
    (cat,) = found.unprotected
    assert (cat.name, cat.class_noun, cat.held_out) == ("cat-tom", "cat", False)
    assert cat.outcome.prompt == "a photo of sks cat"
    assert cat.original is not None
    assert found.quality is not None
    assert found.quality.n == 6
    assert found.quality.prompt == "a photo of a dog"
    assert found.held_out
    assert found.about["references"] == 3
    assert found.about["settings"]["steps"] == 2
    assert [line.partition(":")[0] for line in lines] == [
        "original", "paper", "converged", "model-other-cat-tom", "original-other-cat-tom",
    ]  # fmt: skip


def test_goes_on_where_it_was(
    model: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor, base: VerifySettings,
    tmp_path: Path, trained: list[str],
) -> None:  # fmt: skip
    def run(**further: Any) -> Verdict:
        given: dict[str, Any] = {"base": base, "attackers": TWO, "work": tmp_path, **further}
        return verify_subject(
            model, subject, held_out, embedder=colours, of_class=of_class, contexts=PLACES, **given
        )

    first = run(attackers=TWO[:1])
    second = run()
    assert trained == ["paper", "lora-4"]  # the paper's attacker was not run again
    assert second.outcomes[0].s == first.outcomes[0].s
    assert torch.equal(second.outcomes[0].generated.plain, first.outcomes[0].generated.plain)
    run(overrides={"lora-4": {"rank": 2}})
    assert trained == ["paper", "lora-4", "lora-4"]  # its settings changed, and its alone
    run(base=replace(base, pictures=3))
    assert trained == ["paper", "lora-4", "lora-4", "paper", "lora-4"]
    assert not list(tmp_path.glob("*.training"))


def test_an_attacker_with_a_new_word_draws_with_it(
    model: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor, base: VerifySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked: list[str] = []
    whole = TextToImage.generate

    def generate(self: TextToImage, prompts: Any, **further: Any) -> Tensor:
        asked.extend(prompts)
        return whole(self, prompts, **further)

    monkeypatch.setattr(TextToImage, "generate", generate)
    found = verify_subject(
        model, subject, held_out, embedder=colours, attackers=named(["textual-inversion"]), base=base,
        contexts=PLACES, of_class=of_class,
    )  # fmt: skip
    assert found.outcomes[0].prompt == "a photo of <sks> dog"
    assert {"a photo of <sks> dog", "a photo of <sks> dog at 7"} <= set(asked)


def test_references_are_embedded_once(held_out: Tensor, of_class: Tensor) -> None:
    seen: list[int] = []

    def embedder(images: Tensor) -> Tensor:
        seen.append(len(images))
        return colours(images)

    stick = Evaluator(embedder, held_out, of_class, True)
    drawn = tinted(5, (0.9, 0.1, 0.1), seed=4)
    wanted = pair_similarities(colours, drawn, held_out, of_class)
    for _ in range(2):
        found = stick.pairs(drawn)
        for name in ("generated", "of_class", "subject"):
            assert np.array_equal(getattr(found, name), getattr(wanted, name))
    assert sorted(seen) == [3, 4, 5, 5]
    with pytest.raises(UsageError, match="at least 1 class picture"):
        Evaluator(colours, held_out, of_class[:0], True).pairs(drawn)


def test_without_held_out_pictures_it_says_so(
    model: TextToImage, subject: Subject, of_class: Tensor, base: VerifySettings
) -> None:
    found = verify_subject(
        model, subject, embedder=colours, attackers=TWO[:1], base=base, contexts=(), of_class=of_class
    )
    assert not found.held_out
    assert found.about["held_out"] is False
    assert torch.equal(found.references, subject.images)
    assert found.outcomes[0].elsewhere is None
    assert found.clean is None
    assert found.quality is None


@pytest.mark.parametrize("without", [{"class_images": 0}, {"prior_weight": 0.0}])
def test_without_pictures_to_tune_on_pre_tuned_is_left_out(
    without: dict[str, Any], model: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor,
    base: VerifySettings, trained: list[str],
) -> None:  # fmt: skip
    def run(unrelated: Subject | None = None) -> Verdict:
        return verify_subject(
            model, subject, held_out, embedder=colours, attackers=named(["paper", "pre-tuned"]),
            base=replace(base, **without), contexts=(), of_class=of_class, unrelated=unrelated,
        )  # fmt: skip

    assert "--unrelated" in run().left_out["pre-tuned"]
    assert trained == ["paper"]
    assert run(Subject(tinted(2, (0.1, 0.9, 0.9)), "cat")).left_out == {}


def test_misuse_is_refused_before_the_first_attack(
    model: TextToImage, subject: Subject, of_class: Tensor, base: VerifySettings, trained: list[str]
) -> None:
    def run(**further: Any) -> Verdict:
        given: dict[str, Any] = {"base": base, "attackers": TWO, "of_class": of_class, "contexts": ()}
        return verify_subject(model, subject, embedder=colours, **{**given, **further})

    with pytest.raises(UsageError, match="tokens, and the model reads"):
        run(contexts=("in a place that has a very long name",))
    with pytest.raises(UsageError, match=r"the prompt .* is no UTF-8 text"):
        run(contexts=("at \udcff",))
    with pytest.raises(UsageError, match="does not tell the subject"):
        run(of_class=subject.images)
    with pytest.raises(UsageError, match="no attacker is left"):
        run(attackers=named(["unseen-pictures"]))
    with pytest.raises(UsageError, match="is no setting"):
        run(overrides={"lora-4": {"ranks": 2}})
    with pytest.raises(UsageError, match="at least 2 subject pictures"):
        run(unprotected=[UnprotectedSubject("one", Subject(subject.images[:1], "cat"), of_class=of_class)])
    assert trained == []


def test_pictures_that_an_attacker_has_are_not_held_out(
    model: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor, base: VerifySettings,
    trained: list[str],
) -> None:  # fmt: skip
    def run(**further: Any) -> Verdict:
        given: dict[str, Any] = {"base": base, "attackers": TWO, "of_class": of_class, "contexts": ()}
        return verify_subject(model, subject, embedder=colours, **{**given, **further})

    shared = torch.cat([held_out, subject.images[1:]])
    with pytest.raises(UsageError, match=r"1 of the 4 held-out pictures .* are among the protected pictures"):
        run(held_out=shared)
    with pytest.raises(UsageError, match=r"2 of the 2 pictures of --unseen are among the protected pictures"):
        run(held_out=held_out, unseen=subject.images)
    with pytest.raises(UsageError, match=r"3 of the 3 held-out pictures .* are among those of --unseen"):
        run(held_out=held_out, unseen=shared.flip(0)[1:])
    with pytest.raises(UsageError, match=r"held-out pictures .* are among those of --unrelated"):
        run(held_out=held_out, unrelated=Subject(held_out[:1], "cat"))
    cat = Subject(tinted(2, (0.1, 0.9, 0.9)), "cat")
    with pytest.raises(UsageError, match=r"held-out pictures of tom .* are among its pictures"):
        run(held_out=held_out, unprotected=[UnprotectedSubject("tom", cat, cat.images)])
    assert trained == []
