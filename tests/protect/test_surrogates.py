"""An ensemble: the mean over its members, each at its own resolution; an autoencoder alone can be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.protect.rid.small import SMALL
from tests.tiny import pictures, tiny_model

from unlikeness import protect
from unlikeness.autoencoders import Autoencoder
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.protect.against import against_of
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.methods.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.methods.photoguard import PhotoGuard, PhotoGuardSettings
from unlikeness.protect.rid.network import Protector
from unlikeness.protect.rid.train.recipe import ProtectorRecipe
from unlikeness.protect.rid.train.trial import Trial
from unlikeness.protect.surrogates import Surrogate, Surrogates
from unlikeness.seeds import picture_generators


def alone(model: TextToImage) -> Surrogate:
    return Surrogate(model.autoencoder, model.resolution, "an encoder")


def test_a_gradient_is_the_mean_over_the_members(model: TextToImage, weights: Path) -> None:
    other = tiny_model(weights, "v_prediction")
    images = pictures(2)

    def gradient(models: Any) -> torch.Tensor:
        made = PhotoGuard(models, PhotoGuardSettings())
        return made.gradient(images, picture_generators([1, 2]))

    both = gradient([model, other])
    torch.testing.assert_close(both, (gradient(model) + gradient(other)) / 2)
    made = protect.create("advdm", [model, other], {"steps": 2})
    assert isinstance(made, GradientProtection)
    assert against_of(made).models == (model.name, other.name)
    assert len(made.fingerprint.split()) == 2
    assert (made.perturb(images, [0, 1]) - images).abs().max() > 1 / 255


def test_an_autoencoder_is_enough_for_what_moves_latents(model: TextToImage) -> None:
    images = pictures(2)
    whole, part = (
        PhotoGuard(one, PhotoGuardSettings(steps=4)).perturb(images, [0, 1]) for one in (model, alone(model))
    )
    assert torch.equal(whole, part)
    with pytest.raises(UsageError, match="an encoder is only an autoencoder, and this method needs a whole"):
        AdvDM(alone(model), AdvDMSettings())
    found = Surrogates.of([model, alone(model)])
    assert found.resolution == model.resolution
    assert found[1].fingerprint == Autoencoder(model.autoencoder.network).fingerprint
    assert not found.against.toy
    found[1].check()


def test_a_protector_learns_from_autoencoders_too(model: TextToImage) -> None:
    network = Protector(SMALL)
    recipe = ProtectorRecipe(pull_weight=1.0)
    trial = Trial(network, [model, alone(model)], recipe)
    loss = trial(pictures(2), torch.tensor([8.0, 8.0]), torch.Generator().manual_seed(0))
    torch.autograd.backward(loss)
    gradient = network.leave.weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
