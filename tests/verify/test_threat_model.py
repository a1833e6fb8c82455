"""White, gray and black box: the words that an attacker uses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.subjects import Subject
from unlikeness.verify import ThreatModel, VerifySettings, attacker, attackers, run_attacker
from unlikeness.verify.threat_model import taught

GRAY = attacker("gray-box")
WORDS, TEMPLATES = ("zwx", "ohwx"), ("a photo of {}", "a picture of {}")


def prompt(name: str, subject: Subject, pools: ThreatModel) -> str:
    return taught(subject, attacker(name), subject.images, pools).instance_prompt


def test_pools_come_from_the_settings() -> None:
    found = ThreatModel.of(
        VerifySettings(pool_identifiers=("zwx", "ohwx"), pool_templates=("a {}", "{} here"), seed=3)
    )
    assert found == ThreatModel(("zwx", "ohwx"), ("a {}", "{} here"), 3)
    assert ThreatModel.of(VerifySettings()) == ThreatModel()
    with pytest.raises(UsageError, match=r"pool_templates: 'a dog' must contain \{\}"):
        ThreatModel.of(VerifySettings(pool_templates=("a {}", "a dog")))


def test_the_white_box_uses_the_protected_words_whatever_the_pools(subject: Subject) -> None:
    names = {one.name for one in attackers()} - {"other-identifier", "unseen-prompt"}
    assert {prompt(name, subject, ThreatModel(WORDS, TEMPLATES)) for name in names} == {"a photo of sks dog"}


def test_the_gray_box_draws_one_of_each_by_the_seed(subject: Subject) -> None:
    drawn = [prompt("gray-box", subject, ThreatModel(WORDS, TEMPLATES, seed)) for seed in range(60)]
    every = {f"a {kind} of {word} dog" for kind in ("photo", "picture") for word in WORDS}
    assert set(drawn) == every
    assert min(drawn.count(one) for one in every) > 5
    assert drawn == [prompt("gray-box", subject, ThreatModel(WORDS, TEMPLATES, seed)) for seed in range(60)]
    learnt = taught(subject, GRAY, threat=ThreatModel(WORDS[:1], TEMPLATES[1:]))
    assert (learnt.instance_prompt, learnt.class_prompt) == ("a picture of zwx dog", "a picture of a dog")


def test_the_gray_box_is_never_the_white_one(subject: Subject) -> None:
    one_word = {prompt("gray-box", subject, ThreatModel((), TEMPLATES, seed)) for seed in range(9)}
    assert one_word == {"a picture of sks dog"}
    with_its_own = {prompt("gray-box", subject, ThreatModel(("SKS", "zwx"), (), seed)) for seed in range(9)}
    assert with_its_own == {"a photo of zwx dog"}


@pytest.mark.parametrize("pools", [ThreatModel(), ThreatModel(("sks",)), ThreatModel((), ("a photo of {}",))])
def test_without_pools_there_is_no_gray_box(pools: ThreatModel, subject: Subject) -> None:
    assert pools.words(GRAY, subject) is None
    with pytest.raises(UsageError, match=r"attacker gray-box needs pools .*pool_identifiers"):
        taught(subject, GRAY, threat=pools)


def test_the_black_box_keeps_out_of_the_pools(subject: Subject) -> None:
    assert prompt("other-identifier", subject, ThreatModel(WORDS, TEMPLATES)) == "a photo of t@t dog"
    assert (
        prompt("other-identifier", subject, ThreatModel(("T@T",))) == "a photo of ohwx dog"
    )  # sks is protected
    assert prompt("other-identifier", subject, ThreatModel(("t@t", "ohwx", "zwx"))) == "a photo of xjy dog"
    assert (
        prompt("other-identifier", replace(subject, identifier="t@t"), ThreatModel()) == "a photo of sks dog"
    )
    assert prompt("unseen-prompt", subject, ThreatModel(("t@t",), TEMPLATES)) == "an image of sks dog"
    pools = ThreatModel((), ("An image of {}", "a picture of {}"))
    assert prompt("unseen-prompt", subject, pools) == "a rendering of sks dog"


def test_a_black_box_whose_words_are_all_known_says_so(subject: Subject) -> None:
    every = ThreatModel(("t@t", "sks", "ohwx", "zwx", "xjy", "olis"))
    assert every.missing(attacker("paper"), subject) is None
    assert every.missing(attacker("unseen-prompt"), subject) is None
    with pytest.raises(UsageError, match=r"attacker other-identifier has no .* not in the pools"):
        taught(subject, attacker("other-identifier"), threat=every)


def test_the_attack_is_made_with_these_words(
    model: TextToImage, subject: Subject, base: VerifySettings
) -> None:
    known = replace(base, pool_identifiers=("zwx", "t@t"), pool_templates=("a photo of {}",))
    assert run_attacker(model, subject, attacker("other-identifier"), known).subject.identifier == "ohwx"
    attacked = run_attacker(model, subject, GRAY, known)
    assert attacked.subject.identifier in ("zwx", "t@t")
    with pytest.raises(UsageError, match="gray-box needs pools"):
        run_attacker(model, subject, GRAY, base)
