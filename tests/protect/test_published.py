"""What each published method is about."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.protect.test_walk import quick
from tests.tiny import pictures
from torch import Tensor

from unlikeness import protect
from unlikeness.diffusion import TextToImage, diffusion_loss
from unlikeness.diffusion.lora import merged_copy
from unlikeness.errors import UsageError
from unlikeness.protect import learning
from unlikeness.protect.methods import caat, simac
from unlikeness.protect.methods.ace import Ace, AceSettings
from unlikeness.protect.methods.aspl import Aspl, AsplSettings
from unlikeness.protect.methods.caat import Caat, CaatSettings
from unlikeness.protect.methods.dct import Dct, DctSettings, blocks_to_frequencies
from unlikeness.protect.methods.metacloak import MetaCloak, MetaCloakSettings, transformed
from unlikeness.protect.methods.sds import Sds, SdsSettings
from unlikeness.protect.methods.simac import SimAC, SimACSettings
from unlikeness.protect.methods.universal import Universal, UniversalSettings
from unlikeness.protect.published import PRESETS, method_of_preset, preset_of
from unlikeness.protect.settings import PgdSettings
from unlikeness.seeds import picture_generators
from unlikeness.settings import build

SMALL: dict[str, Any] = {"learning_rate": 1e-3, "prior_weight": 0.0, "class_noun": "dog"}


def loss(model: TextToImage, images: Tensor, prompt: str = "a photo") -> float:
    z0 = model.encode_all(images).mean.repeat(32, 1, 1, 1)
    with torch.no_grad():
        draws = torch.Generator().manual_seed(5)
        return float(diffusion_loss(model, z0, model.condition([prompt]), generator=draws))


def test_sds_lowers_or_raises_the_loss_without_a_gradient_through_the_denoiser(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, graphs = TextToImage.predict, list[bool]()

    def seen(self: TextToImage, *given: Any) -> Tensor:
        graphs.append(torch.is_grad_enabled())
        return predict(self, *given)

    images = pictures(2)
    clean = loss(model, images)
    monkeypatch.setattr(TextToImage, "predict", seen)
    raised, lowered = (
        Sds(model, SdsSettings(direction=way, steps=16)).perturb(images, [1, 2])
        for way in ("maximise", "minimise")
    )
    monkeypatch.undo()
    assert graphs == [False] * 32
    assert loss(model, raised) > 1.1 * clean > 1.1 * 1.02 * loss(model, lowered)


def test_ace_has_one_target_for_all_pictures_and_for_both_parts(model: TextToImage) -> None:
    images, seeds = pictures(2), [4, 5]
    made = Ace(model, AceSettings(steps=12, latent_weight=0.5))
    (surrogate,) = made.surrogates
    squares = ((torch.arange(128) // 8)[:, None] + torch.arange(128) // 8) % 2
    small = F.interpolate(squares.float().expand(1, 3, -1, -1), (32, 32), mode="bilinear", antialias=True)
    target = model.encode(small).mean.detach()

    z0, t, eps = surrogate.drawn(model.encode(images), picture_generators(seeds))
    answer = model.predict(model.schedule.add_noise(z0, eps, t), t, model.condition(["a photo"] * 2))
    score, latent = (
        (part - target).square().flatten(1).mean(1) for part in (answer, model.encode(images).mean)
    )
    value = made.objective(surrogate, images, picture_generators(seeds))
    torch.testing.assert_close(value, -score - 0.5 * latent, rtol=1e-4, atol=1e-5)

    with torch.no_grad():
        before, after = (model.encode(x).mean for x in (images, made.perturb(images, seeds)))
    far, near = ((z - target).square().flatten(1).mean(1) for z in (before, after))
    assert (near < 0.95 * far).all()
    mist = Ace(model, build(AceSettings, preset_of("ace", "mist-loss")))
    raised = diffusion_loss(model, z0, model.condition(["a photo"]), t=t, eps=eps, reduce="none")
    value = mist.objective(mist.surrogates[0], images, picture_generators(seeds))
    torch.testing.assert_close(value, raised - 1.6 * latent, rtol=1e-4, atol=1e-5)


def test_dct_changes_no_frequency_above_the_highest(model: TextToImage) -> None:
    images = pictures(1, size=40) * 0.5 + 0.25
    made = Dct(model, DctSettings(steps=4, step_size=3.0, highest=3))
    moved = made.perturb(images, [0]) - images
    found = blocks_to_frequencies(moved).abs().amax((0, 1, 2, 3))
    place = torch.arange(8)
    low = place[:, None] + place <= 3
    assert float(found[~low].max()) < 1e-6
    assert float(found[low].min()) > 1e-3
    assert 0.9 * 8 / 255 < float(moved.abs().max()) <= 8 / 255 + 1e-7


def test_the_universal_perturbation_is_the_same_for_all_and_costs_no_gradient(
    model: TextToImage, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = UniversalSettings(steps=2, pictures=2, batch_size=2, cache=str(tmp_path / "kept"))
    first = Universal(model, settings)
    delta = first.delta

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model computes")

    for name in ("encode", "predict"):
        monkeypatch.setattr(TextToImage, name, never)
    monkeypatch.setattr(type(model.autoencoder), "encode", never)
    images = pictures(3, size=64) * 0.8 + 0.1
    for made in (first, Universal(model, settings)):  # the second one reads it from the cache
        moved = made.perturb(images, [1, 2, 3]) - images
        torch.testing.assert_close(moved[0], moved[2], atol=1e-6, rtol=0)
        torch.testing.assert_close(moved[1][:, ::2, ::2], delta[0], atol=1e-6, rtol=0)
    strength = torch.zeros(3, 1, 64, 64)
    assert torch.equal(first.perturb_within(images, strength, [1, 2, 3]), images)
    with pytest.raises(AssertionError, match="a model computes"):
        Universal(model, UniversalSettings(steps=4, cache=settings.cache)).perturb(images, [1, 2, 3])


def test_simac_searches_the_levels_where_the_gradient_is_large(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = simac._Chosen(model, PgdSettings(random_start=False), "a photo", 1.0)

    def sized(self: Any, _: Any, __: Any, image: Tensor, t: int, ___: Any) -> Tensor:
        return torch.full_like(image, t)  # the gradient grows with the level

    monkeypatch.setattr(simac._Chosen, "_at", sized)
    made.levels = [made.search(pictures(1), seed, 50) for seed in (1, 2)]
    for levels in made.levels:
        assert 60 <= len(levels) <= 100
        assert float(levels.float().mean()) > 750
    assert not torch.equal(*(levels[:60] for levels in made.levels))
    made.part = slice(1, 2)
    drawn = [int(made._drawn(1000, picture_generators([seed]), 1)) for seed in range(20)]
    assert set(drawn) <= set(made.levels[1].tolist())
    assert len(made.search(pictures(1), 1, 3)) >= 1000 - 3 * 40


def test_simacs_feature_loss_has_a_gradient_and_without_it_and_the_search_it_is_aspl(
    model: TextToImage,
) -> None:
    few: dict[str, Any] = {**SMALL, "rounds": 2, "clean_steps": 1, "perturbed_steps": 1, "pgd_steps": 2}
    images, seeds = pictures(2), [1, 2]
    aspl = Aspl(model, AsplSettings(**few)).perturb(images, seeds)
    released = SimAC(model, SimACSettings(search_steps=0, feature_weight=0.0, **few))
    assert torch.equal(released.perturb(images, seeds), aspl)

    made = simac._Chosen(model, PgdSettings(random_start=False), "a photo", 1.0)
    made.part = slice(0, 2)
    made.begin(images)
    (surrogate,) = made.surrogates
    there, here = (
        made.objective(surrogate, x, picture_generators(seeds)) for x in (images * 0.97, images)
    )
    made.weight = 0.0
    plain, same = (made.objective(surrogate, x, picture_generators(seeds)) for x in (images * 0.97, images))
    assert (there > plain).all()
    torch.testing.assert_close(here, same)  # at the picture itself the features are the same
    gradients = []
    for weight in (0.0, 1.0):
        made.weight = weight
        gradients.append(made.gradient(images * 0.97, picture_generators(seeds)))
    assert float((gradients[1] - gradients[0]).abs().max()) > 1e-3 * float(gradients[0].abs().max())


def test_metacloak_computes_through_transforms_along_one_fine_tune(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharp = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = transformed(sharp, picture_generators(range(64)))
    kept, flipped = ((seen - x).square().mean((1, 2, 3)) for x in (sharp, sharp.flip(-1)))
    assert 16 < int((flipped < kept).sum()) < 48
    assert (seen.std((1, 2, 3)) <= sharp.std((1, 2, 3)) + 1e-6).all()

    starts: list[Tensor] = []
    ascend = learning.Run.ascend

    def spied(self: Any, steps: int) -> None:
        starts.append(self.learner.parameters[0].detach().clone())
        ascend(self, steps)

    monkeypatch.setattr(learning.Run, "ascend", spied)
    told: list[int] = []
    settings = MetaCloakSettings(trials=2, train_steps=4, interval=2, advance=1, pgd_steps=1, **SMALL)
    made = MetaCloak(model, settings)
    made.perturb(pictures(2), [1, 2], told.append)
    moves, trained = made.work()
    assert (told, made.steps) == ([*range(1, moves + trained + 1)], moves + trained)
    assert (moves, len(starts), trained) == (12, 12, 12 + 2 * 4)
    assert MetaCloak(model, MetaCloakSettings(class_noun="dog")).work()[0] == 14_400
    first, second = starts[:6], starts[6:]
    for k in (0, 2, 4):  # θ_0, θ_I, θ_2I: the same in each trial, whatever the pictures have become
        assert torch.equal(first[k], second[k])
        assert not torch.equal(first[k], first[k + 1])
    assert not torch.equal(first[0], first[2])
    assert torch.equal(first[0], next(model.denoiser.parameters()))


def test_caat_trains_keys_and_values_of_cross_attention_alone(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[TextToImage] = []

    def spied(original: TextToImage) -> TextToImage:
        kept.append(merged_copy(original))
        return kept[-1]

    monkeypatch.setattr(caat, "merged_copy", spied)
    made = Caat(model, CaatSettings(steps=3, learning_rate=1e-3, prompt="a photo"))
    made.perturb(pictures(5), range(5))  # more than a batch
    (tuned,) = kept
    own = dict(model.denoiser.named_parameters())
    changed = {name for name, p in tuned.denoiser.named_parameters() if not torch.equal(p, own[name])}
    assert changed == {name for name in own if ".attn2.to_k." in name or ".attn2.to_v." in name}
    assert changed


def test_a_preset_names_its_method_and_its_settings_are_the_methods_own() -> None:
    for method, presets in PRESETS.items():
        for name, values in presets.items():
            build(protect.method(method).settings_type, values)
            assert preset_of(method_of_preset(name), name) == values
    with pytest.raises(UsageError, match="preset fsmg is for the method aspl, not sds"):
        preset_of("sds", "fsmg")


@pytest.mark.parametrize("name", ["sds", "ace", "aspl", "simac", "metacloak", "caat"])
def test_an_autoencoder_alone_is_refused_in_one_sentence(model: TextToImage, name: str) -> None:
    from unlikeness.protect.surrogates import Surrogate

    alone = Surrogate(model.autoencoder, 32, "sdxl-vae")
    with pytest.raises(UsageError, match="sdxl-vae is only an autoencoder, and this method needs a whole"):
        protect.create(name, alone, quick(name))
