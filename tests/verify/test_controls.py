"""Controls: which attackers get one, on which subject, and what a failed attack means."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.verify.conftest import colours, tinted
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.errors import NotFiniteError, UnlikenessError
from unlikeness.subjects import Subject
from unlikeness.verify import (
    Attacked,
    UnprotectedSubject,
    Verdict,
    VerifySettings,
    named,
    outcomes,
    verify_subject,
)

ATTACKERS = named(["paper", "lora-4"])


@dataclass
class Draws:
    """In the place of a personalized model: it draws these pictures, whatever it is asked."""

    images: Tensor

    def generate(self, prompts: list[str], *, seeds: range, **_: Any) -> Tensor:
        return self.images[torch.arange(len(seeds)) % len(self.images)]


@dataclass
class Attacks:
    """In the place of `run_attacker`. Each is (attacker, model, class noun).

    learn: those that learn the subject; all others draw something else. diverge: those whose training does.
    broken: those whose result draws pictures that are none. ran: all of them, in order. pictures: what each
    of them had.
    """

    learn: set[tuple[str, object, str]] = field(default_factory=set)
    diverge: set[tuple[str, object, str]] = field(default_factory=set)
    broken: set[tuple[str, object, str]] = field(default_factory=set)
    ran: list[tuple[str, object, str]] = field(default_factory=list)
    pictures: list[Tensor] = field(default_factory=list)

    def __call__(
        self, model: object, subject: Subject, attacker: Any, *args: Any, unseen: Tensor | None, **_: Any
    ) -> Attacked:
        this = attacker.name, model, subject.class_noun
        images = unseen if attacker.learns_from == "unseen" and unseen is not None else subject.images
        self.ran.append(this)
        self.pictures.append(images)
        if this in self.diverge:
            raise NotFiniteError("DreamBooth diverged at step 1")
        drawn = images if this in self.learn else tinted(1, (0.1, 0.9, 0.1))
        drawn = torch.full_like(drawn, torch.nan) if this in self.broken else drawn
        return Attacked(Draws(drawn), subject)  # type: ignore[arg-type]


@pytest.fixture
def attacks(monkeypatch: pytest.MonkeyPatch) -> Attacks:
    made = Attacks()
    monkeypatch.setattr(outcomes, "run_attacker", made)
    return made


@pytest.fixture
def verify(
    model: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor, base: VerifySettings
) -> Any:
    """Both attackers on the dog, unless told otherwise."""
    enough = replace(base, pictures=4)

    def run(**further: Any) -> Verdict:
        given: dict[str, Any] = {"attackers": ATTACKERS, "contexts": (), "measure_quality": False, **further}
        return verify_subject(
            model, subject, held_out, embedder=colours, base=enough, of_class=of_class, **given
        )

    return run


def cat() -> UnprotectedSubject:
    """A blue one, among green ones."""
    blue, green = (0.1, 0.1, 0.9), (0.1, 0.9, 0.1)
    return UnprotectedSubject(
        "cat-tom", Subject(tinted(2, blue), "cat"), tinted(3, blue, seed=1), tinted(2, green)
    )


def test_only_attackers_that_did_not_learn_are_repeated_on_the_original(
    verify: Any, attacks: Attacks, model: TextToImage, original: TextToImage, tmp_path: Path
) -> None:
    attacks.learn = {("paper", original, "dog"), ("paper", model, "dog"), ("lora-4", original, "dog")}
    lines: list[str] = []
    found = verify(original=original, work=tmp_path, report=lines.append)
    assert attacks.ran == [
        ("paper", original, "dog"), ("paper", model, "dog"), ("lora-4", model, "dog"),
        ("lora-4", original, "dog"),
    ]  # fmt: skip
    assert list(found.controls) == ["lora-4"]
    assert found.control_of == "the original"
    assert found.kind == "learnt"
    assert [one.kind for one in found.findings.values()] == ["learnt", "protected"]
    assert any("1 of 2 attackers did not learn the subject" in line for line in lines)

    # A run that goes on makes nothing again, and comes to the same.
    again = verify(original=original, work=tmp_path)
    assert len(attacks.ran) == 4
    assert again.controls["lora-4"].s == found.controls["lora-4"].s


@pytest.mark.parametrize(
    ("learning", "kind"),
    [((), "inconclusive"), (("paper",), "inconclusive"), (("lora-4",), "inconclusive"),
     (("paper", "lora-4"), "protected")],
)  # fmt: skip
def test_protected_only_where_all_learn_the_original(
    verify: Any, attacks: Attacks, original: TextToImage, learning: tuple[str, ...], kind: str
) -> None:
    attacks.learn = {(name, original, "dog") for name in learning}
    found = verify(original=original)
    assert found.kind == kind
    assert [one.why for one in found.findings.values()] == [
        "" if name in learning else "weak" for name in ("paper", "lora-4")
    ]


def test_without_an_original_an_unprotected_subject_is_the_control(
    verify: Any, attacks: Attacks, model: TextToImage
) -> None:
    tom = cat()
    attacks.learn = {("paper", model, "cat"), ("lora-4", model, "cat")}
    found = verify(unprotected=[tom])
    assert (found.kind, found.control_of) == ("protected", "cat-tom")
    assert attacks.ran.count(("paper", model, "cat")) == 1  # the fidelity's own attack is the control
    assert found.clean is None
    attacks.learn = set()
    assert verify(unprotected=[tom]).kind == "inconclusive"

    # One of the subject's class comes first, one that is given as the control before all.
    dog = UnprotectedSubject(
        "dog-rex", Subject(tinted(2, (0.1, 0.1, 0.8)), "dog"), tom.held_out, tom.of_class
    )
    assert verify(unprotected=[tom, dog]).control_of == "dog-rex"
    attacks.ran.clear()
    found = verify(control=tom)
    assert (found.control_of, found.unprotected) == ("cat-tom", ())
    assert attacks.ran == [(one.name, model, noun) for noun in ("dog", "cat") for one in ATTACKERS]


def test_without_both_nothing_is_shown(verify: Any, attacks: Attacks) -> None:
    found = verify()
    assert (found.kind, found.control_of, found.controls) == ("inconclusive", "", {})
    assert {one.why for one in found.findings.values()} == {"alone"}


def test_an_attacker_with_other_pictures_gets_the_control_subject_s(
    verify: Any, attacks: Attacks, model: TextToImage
) -> None:
    tom, unseen = cat(), tinted(2, (0.9, 0.1, 0.1), seed=7)
    verify(attackers=named(["unseen-pictures"]), unseen=unseen, control=tom)
    assert attacks.ran == [("unseen-pictures", model, "dog"), ("unseen-pictures", model, "cat")]
    assert torch.equal(attacks.pictures[0], unseen)
    assert torch.equal(attacks.pictures[1], tom.subject.images)


@pytest.mark.parametrize("way", ["diverge", "broken"])
def test_a_failed_attack_is_not_one_that_did_not_learn(
    way: str, verify: Any, attacks: Attacks, model: TextToImage, original: TextToImage
) -> None:
    attacks.learn = {(one.name, original, "dog") for one in ATTACKERS}
    setattr(attacks, way, {("lora-4", model, "dog")})
    found = verify(original=original)
    assert [one.attacker.name for one in found.outcomes] == ["paper"]
    assert list(found.failed) == ["lora-4"]
    assert found.kind == "inconclusive"

    # A control that fails is none, and is not tried twice.
    attacks.ran.clear()
    setattr(attacks, way, {("paper", original, "dog")})
    found = verify(original=original)
    assert list(found.failed) == ["paper, on the original"]
    assert (found.kind, found.findings["paper"].why) == ("inconclusive", "alone")
    assert attacks.ran.count(("paper", original, "dog")) == 1

    setattr(attacks, way, {(one.name, model, "dog") for one in ATTACKERS})
    with pytest.raises(UnlikenessError, match=r"every attacker failed \(paper: .*; lora-4: "):
        verify(original=original)


def test_the_prompts_of_all_attacked_subjects_are_checked_first(
    verify: Any, attacks: Attacks, of_class: Tensor
) -> None:
    noun = "a noun of very many letters"
    long = UnprotectedSubject("long", Subject(tinted(2, (0.1, 0.1, 0.9)), noun), of_class=of_class)
    with pytest.raises(UnlikenessError, match="tokens, and the model reads"):
        verify(control=long)
    with pytest.raises(UnlikenessError, match="tokens, and the model reads"):
        verify(unprotected=[long])
    assert attacks.ran == []
