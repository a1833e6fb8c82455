"""L_per against a literal transcription, and what a personalization learns from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import encoder_of, pictures, tiny_model

from unlikeness.autoencoders import Posterior
from unlikeness.diffusion import Condition
from unlikeness.errors import UsageError
from unlikeness.personalize.data import Data, class_prior, prepare
from unlikeness.personalize.objective import PersonalizationStep, personalization_loss
from unlikeness.personalize.settings import PersonalizeSettings
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject

SETTINGS = PersonalizeSettings(class_images=3, class_steps=2, batch_size=2, prior_weight=0.7)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_its_formula_in_one_call(prediction_type: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, prediction_type)
    x, x_class = pictures(2, seed=1), pictures(2, seed=2)
    z0, z0_class = model.encode_all(x).mean, model.encode_all(x_class).mean
    c, c_class = model.condition(["a photo of sks dog"]), model.condition(["a photo of a dog"])
    t = torch.tensor([10, 300, 700, 990])
    eps = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    calls = []
    model.denoiser.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    given = personalization_loss(model, z0, c, z0_class, c_class, prior_weight=0.7, t=t, eps=eps)
    assert calls == [4]

    def l_diff(z: torch.Tensor, cond: Condition, part: slice) -> torch.Tensor:
        a = model.scheduler.alphas_cumprod[t[part]].reshape(-1, 1, 1, 1)
        z_t = a.sqrt() * z + (1 - a).sqrt() * eps[part]
        f = model.denoiser(z_t, t[part], encoder_hidden_states=cond.expand(len(z)).tokens).sample
        target = eps[part]
        if prediction_type == "v_prediction":
            target = a.sqrt() * eps[part] - (1 - a).sqrt() * z
        loss: torch.Tensor = ((f - target) ** 2).mean()
        return loss

    expected = l_diff(z0, c, slice(0, 2)) + 0.7 * l_diff(z0_class, c_class, slice(2, 4))
    assert torch.allclose(given, expected, rtol=1e-4)
    alone = personalization_loss(model, z0, c, t=t[:2], eps=eps[:2])
    assert torch.allclose(alone, l_diff(z0, c, slice(0, 2)), rtol=1e-4)
    with pytest.raises(UsageError, match="c_class"):
        personalization_loss(model, z0, c, z0_class)


def test_a_step_depends_on_its_index_and_seed_alone(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    subject = Subject(pictures(3), "dog")
    step = PersonalizationStep(model, subject, prepare(model, subject, SETTINGS), SETTINGS)
    first = step(4, step_generator(0, 4))
    torch.manual_seed(99)
    assert torch.equal(step(4, step_generator(0, 4)), first)
    assert not torch.equal(step(5, step_generator(0, 5)), first)


def test_without_a_prior_the_class_prompt_is_not_embedded(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    subject, settings = Subject(pictures(1), "dog"), PersonalizeSettings(class_images=0)
    sizes = []
    encoder_of(model).register_forward_hook(lambda _, __, out: sizes.append(len(out[0])))
    material = prepare(model, subject, settings)
    step = PersonalizationStep(model, subject, material, settings, text_encoder=True)
    trained = step(0, step_generator(0, 0))
    assert sizes == [1]
    frozen = PersonalizationStep(model, subject, material, settings)(0, step_generator(0, 0))
    assert torch.allclose(trained, frozen, rtol=1e-2)


def test_the_prior_is_what_the_model_itself_draws(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    prior = class_prior(model, "a photo of a dog", SETTINGS)
    drawn = model.generate(["a photo of a dog"], seeds=range(1_000_000, 1_000_003), steps=2)
    expected = model.encode_all((drawn * 255).round() / 255)
    assert torch.allclose(prior.mean, expected.mean, atol=1e-4)
    subject = Subject(pictures(1), "dog")
    assert torch.equal(prepare(model, subject, SETTINGS).prior.mean, prior.mean)  # type: ignore[union-attr]
    assert prepare(model, subject, SETTINGS, prior=prior).prior is prior
    for without in (PersonalizeSettings(class_images=0), PersonalizeSettings(prior_weight=0)):
        assert prepare(model, subject, without).prior is None


def test_the_subjects_pictures_take_turns() -> None:
    mean = torch.arange(5.0).reshape(5, 1, 1, 1)
    material = Data(Posterior(mean, torch.zeros_like(mean)), 5, None)
    seen = []
    for index in range(5):
        z0, z0_class = material.draw(index, 3, step_generator(0, index))
        assert z0_class is None
        seen += z0.flatten().tolist()
    assert sorted(seen) == sorted(list(range(5)) * 3)


def test_views_are_flips_and_crops_of_the_right_size(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, vae="tiny")
    subject = Subject(pictures(2), "dog")
    flipped = prepare(model, subject, PersonalizeSettings(class_images=0, flip=True))
    assert len(flipped.subject) == 4
    assert torch.allclose(flipped.subject[2:].mean, model.encode_all(subject.images.flip(-1)).mean, atol=1e-5)
    cropped = prepare(model, subject, PersonalizeSettings(class_images=0, crop=0.8, views=3))
    assert cropped.subject.mean.shape == (6, 4, 8, 8)
    assert not torch.allclose(cropped.subject[:2].mean, cropped.subject[2:4].mean)
    large = Subject(pictures(2, size=48), "dog")
    assert prepare(model, large, PersonalizeSettings(class_images=0)).subject.mean.shape == (2, 4, 8, 8)
