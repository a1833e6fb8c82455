"""Each method does what it is for, against the control."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.tiny import pictures, tiny_model

from unlikeness.diffusion import TextToImage, diffusion_loss
from unlikeness.errors import UsageError
from unlikeness.protect.methods.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.methods.noise import Noise, NoiseSettings
from unlikeness.protect.methods.photoguard import PhotoGuard, PhotoGuardSettings
from unlikeness.protect.surrogates import Surrogate
from unlikeness.seeds import picture_generators


def loss(model: TextToImage, images: torch.Tensor) -> torch.Tensor:
    """L_diff [B] over 48 draws that no protection has used."""
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():
        c = model.condition(["a photo"])
        z0 = [model.encode(images).sample(generator) for _ in range(48)]
        t = torch.arange(48) * model.schedule.steps // 48
        parts = [
            diffusion_loss(model, z, c, t=k.expand(len(z)), generator=generator, reduce="none")
            for z, k in zip(z0, t, strict=True)
        ]
    return torch.stack(parts).mean(0)


def test_advdm_raises_the_diffusion_loss_and_noise_does_not(model: TextToImage) -> None:
    images = pictures(4)
    clean = loss(model, images)
    advdm = AdvDM(model, AdvDMSettings(steps=40)).perturb(images, range(4))
    noise = Noise(model, NoiseSettings()).perturb(images, range(4))
    assert ((loss(model, advdm) / clean - 1) > 0.3).all()
    assert ((loss(model, noise) / clean - 1) < 0.05).all()


@pytest.mark.parametrize(("prediction_type", "vae"), [("v_prediction", "kl"), ("epsilon", "tiny")])
def test_advdm_raises_its_own_objective_for_every_kind_of_model(
    weights: Path, prediction_type: str, vae: str
) -> None:
    model = tiny_model(weights, prediction_type, vae)
    images = pictures(4)

    class Fixed(AdvDM):
        """The same t and ε in all steps."""

        def objective(self, surrogate: Surrogate, images: torch.Tensor, generators: object) -> torch.Tensor:
            return super().objective(surrogate, images, picture_generators([1, 2, 3, 4]))

    made = Fixed(model, AdvDMSettings(steps=10))
    (surrogate,) = made.surrogates
    with torch.no_grad():
        before = made.objective(surrogate, images, [])
        noise = made.objective(surrogate, Noise(model, NoiseSettings()).perturb(images, range(4)), [])
        after = made.objective(surrogate, made.perturb(images, range(4)), [])
    assert (after > before).all()
    assert (after - before > noise - before).all()


@pytest.mark.parametrize("target", ["grey", "zero", "picture"])
def test_photoguard_brings_the_latent_to_its_target(model: TextToImage, tmp_path: Path, target: str) -> None:
    if target == "picture":
        target = str(tmp_path / "target.png")
        Image.new("RGB", (40, 20), (250, 10, 10)).save(target)
    images = pictures(3)
    made = PhotoGuard(model, PhotoGuardSettings(steps=30, target=target))
    z_tgt = made.target_latent(made.surrogates[0], 32, 32)

    def distance(at: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return (model.encode(at).mean - z_tgt).square().flatten(1).sum(1)

    noise = Noise(model, NoiseSettings()).perturb(images, range(3))
    gained = distance(images) - distance(made.perturb(images, range(3)))
    assert (gained > 0.1 * distance(images)).all()
    assert (gained > 4 * (distance(images) - distance(noise)).abs()).all()


def test_photoguards_targets_are_what_their_names_say(model: TextToImage) -> None:
    zero, grey = (
        made.target_latent(made.surrogates[0], 32, 48)
        for made in (PhotoGuard(model, PhotoGuardSettings(target=target)) for target in ("zero", "grey"))
    )
    assert zero.shape == grey.shape == (1, 4, 8, 12)
    assert not zero.any()
    torch.testing.assert_close(grey, model.encode(torch.full((1, 3, 32, 48), 0.5)).mean)


def test_a_prompt_that_would_be_cut_is_a_usage_error(model: TextToImage) -> None:
    with pytest.raises(UsageError, match="has 22 tokens, and the model reads the first 16"):
        AdvDM(model, AdvDMSettings(prompt="dog " * 20))


def test_a_target_that_cannot_be_read_is_a_usage_error(model: TextToImage, tmp_path: Path) -> None:
    for target in ("gray", str(tmp_path)):
        with pytest.raises(
            UsageError, match=r"target must be grey, zero or a picture: .*(be read|not a file)"
        ):
            PhotoGuard(model, PhotoGuardSettings(target=target))


@pytest.mark.parametrize(("kind", "power"), [("sign", 1.0), ("uniform", 1 / 3)])
def test_noise_has_the_energy_that_its_kind_says(model: TextToImage, kind: str, power: float) -> None:
    images = torch.full((1, 3, 64, 64), 0.5)
    delta = Noise(model, NoiseSettings(kind=kind)).perturb(images, [0]) - images
    assert abs(float(delta.square().mean()) / (8 / 255) ** 2 - power) < 0.02
