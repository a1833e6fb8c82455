"""Every attacker does what its line in the table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import encoder_of
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.lora import has_lora
from unlikeness.errors import UsageError
from unlikeness.personalize.data import MIXES, mixed
from unlikeness.presets import preset_values
from unlikeness.subjects import Subject
from unlikeness.verify import Priors, VerifySettings, attacker, attackers, named, run_attacker
from unlikeness.verify.attackers import EVERY, FURTHER, Attacker, personalizer
from unlikeness.verify.settings import given
from unlikeness.verify.threat_model import augmented, taught

NAMES = [one.name for one in attackers()]


def weights(model: TextToImage) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.denoiser.parameters()])


def settings(name: str, **values: Any) -> Any:
    return personalizer(attacker(name), VerifySettings(**values)).settings


def test_the_paper_comes_first_and_names_are_unique() -> None:
    assert NAMES[0] == "paper"
    assert len(set(NAMES)) == len(NAMES) == 12


@pytest.mark.parametrize("name", NAMES)
def test_learns_and_leaves_the_model_alone(
    name: str, model: TextToImage, subject: Subject, base: VerifySettings
) -> None:
    before = weights(model)
    attacked = run_attacker(model, subject, attacker(name), base, unseen=subject.images.flip(-1))
    assert torch.equal(weights(model), before)
    if attacker(name).method == "lora":
        assert has_lora(attacked.model)
    else:
        assert not torch.equal(weights(attacked.model), before)
    assert not any(p.requires_grad for p in attacked.model.denoiser.parameters())
    assert (encoder_of(attacked.model) is not encoder_of(model)) == (name == "text-encoder")
    assert bool(attacked.losses) == (name == "converged")


def test_what_they_set_otherwise() -> None:
    usual: dict[str, Any] = {"steps": 30, "learning_rate": 3e-4, "lora_learning_rate": 2e-3, "batch_size": 3}
    assert settings("paper", **usual).steps == 30
    assert settings("paper", **usual).batch_size == 3
    assert settings("patient", **usual).steps == 120
    assert settings("slow", **usual).steps == 90
    assert settings("slow", **usual).learning_rate == pytest.approx(1e-4)
    assert (settings("lora-4", **usual).rank, settings("lora-32", **usual).rank) == (4, 32)
    assert settings("lora-4", **usual).learning_rate == 2e-3
    assert settings("text-encoder", **usual).text_encoder
    assert settings("augmented", **usual).flip
    own = personalizer(attacker("lora-4"), VerifySettings(**usual), {"lora-4": {"learning_rate": "1e-2"}})
    assert own.settings.learning_rate == 1e-2
    with pytest.raises(UsageError, match="rank is no setting"):
        personalizer(attacker("paper"), VerifySettings(), {"paper": {"rank": 3}})


def test_what_they_teach(subject: Subject) -> None:
    words = {name: taught(subject, attacker(name), subject.images).instance_prompt for name in NAMES}
    assert words.pop("other-identifier") == "a photo of t@t dog"
    assert words.pop("unseen-prompt") == "an image of sks dog"
    assert set(words.values()) == {"a photo of sks dog"}
    assert taught(subject, attacker("unseen-prompt")).class_prompt == "an image of a dog"
    same_word = Subject(subject.images, "dog", "t@t")
    assert taught(same_word, attacker("other-identifier")).identifier == "sks"

    other = subject.images.flip(-1)
    assert torch.equal(taught(subject, attacker("unseen-pictures"), other).images, other)
    assert torch.equal(taught(subject, attacker("paper"), other).images, subject.images)
    with pytest.raises(UsageError, match="--unseen"):
        taught(subject, attacker("unseen-pictures"))


@pytest.mark.parametrize("one", FURTHER, ids=lambda one: one.name)
def test_attackers_that_run_where_they_are_named(one: Attacker, model: TextToImage, subject: Subject) -> None:
    other = subject.images.flip(-1)
    quick = VerifySettings(steps=1, class_images=0, learning_rate=1e-5, lora_learning_rate=1e-4)
    found = run_attacker(model, subject, attacker(one.name), quick, unseen=other)
    word = "sks" if one.method in ("dreambooth", "lora") else "<sks>"
    assert found.subject.instance_prompt == f"a photo of {word} dog"
    assert found.model.condition([found.subject.instance_prompt]).tokens.isfinite().all()
    clean = sum(torch.equal(a, b) for a, b in zip(taught(subject, one, other).images, other, strict=True))
    assert clean == {"mixed-one": 1, "mixed-half": 1, "mixed-all-but-one": 1}.get(one.name, 0)
    assert named([]) == EVERY
    assert one not in EVERY


def test_a_mix_replaces_the_first_pictures() -> None:
    protected, clean = torch.zeros(5, 3, 8, 8), torch.ones(4, 3, 8, 8)
    counts = [int(mixed(protected, clean, how)[:, 0, 0, 0].sum()) for how in MIXES]
    assert counts == [0, 1, 2, 4]
    with pytest.raises(UsageError, match="needs 4 clean pictures, and there are 3"):
        mixed(protected, clean[:3], "all-but-one")
    with pytest.raises(UsageError, match="valid are: none, one, half, all-but-one"):
        mixed(protected, clean, "most")


def test_augmented_pictures_are_the_clean_ones_and_two_washed_copies(subject: Subject) -> None:
    clean, jpeg, blurred = torch.split(augmented(subject.images), 2)
    assert torch.equal(clean, subject.images)
    for washed in (jpeg, blurred):
        assert 0 < (washed - clean).abs().mean() < 0.1


def test_class_pictures_are_drawn_once_for_all_that_share_them(
    model: TextToImage, original: TextToImage, subject: Subject, base: VerifySettings
) -> None:
    priors = Priors(model)
    one, other = (
        settings("paper", class_images=2, class_steps=2),
        settings("lora-4", class_images=2, class_steps=2),
    )
    drawn = priors.of("a photo of a dog", one)
    assert drawn is not None
    assert priors.of("a photo of a dog", other) is drawn
    assert priors.of("an image of a dog", one) is not drawn
    assert priors.of("a photo of a dog", settings("paper", class_images=0)) is None
    assert Priors(model, {"a photo of a dog": drawn}).of("a photo of a dog", settings("paper")) is drawn
    with pytest.raises(UsageError, match="another model"):
        run_attacker(original, subject, attacker("paper"), base, priors=priors)


def test_something_unrelated_is_learnt_first(
    model: TextToImage, subject: Subject, base: VerifySettings
) -> None:
    found = [
        weights(run_attacker(model, subject, attacker(name), base, unrelated=unrelated).model)
        for name, unrelated in (
            ("paper", None), ("pre-tuned", None), ("pre-tuned", Subject(subject.images.flip(1), "cat")),
        )
    ]  # fmt: skip
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
    nothing = VerifySettings(steps=1, class_images=0)
    with pytest.raises(UsageError, match="--unrelated"):
        run_attacker(model, subject, attacker("pre-tuned"), nothing)


def test_names_are_checked() -> None:
    assert [one.name for one in named(["lora-4", "paper", "paper"])] == ["paper", "lora-4"]
    assert named([]) == (*attackers(), attacker("gray-box"))
    assert named(["gray-box"]) == (attacker("gray-box"),)
    with pytest.raises(UsageError, match="did you mean patient"):
        named(["pateint"])


def test_settings_from_text(tmp_path: Path) -> None:
    base, own = given({"steps": "7", "lora-4.rank": "8", "slow": {"steps": 3, "clip": "2"}})
    assert base.steps == 7
    assert own == {"lora-4": {"rank": "8"}, "slow": {"steps": 3, "clip": "2"}}
    with pytest.raises(UsageError, match="stepps is no setting"):
        given({"stepps": "7"})
    with pytest.raises(UsageError, match="is no attacker"):
        given({"lora-5.rank": "8"})
    assert given(preset_values("verify", "auto", 64))[0].steps == 400
    assert given(preset_values("verify", "auto", 512))[0].steps == 800
    with pytest.raises(UsageError, match="is no preset"):
        preset_values("verify", "tiny", 64)
