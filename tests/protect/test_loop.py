"""The gradient loop: right gradients, projection, every picture on its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.protect.test_walk import quick
from tests.tiny import pictures, tiny_model

from unlikeness import protect
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.methods.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.methods.photoguard import PhotoGuard, PhotoGuardSettings
from unlikeness.seeds import normal, picture_generators

METHODS = ["encoder", "advdm", "photoguard", "noise"]
"""Those that protect each picture on its own."""


@pytest.mark.parametrize("name", ["advdm", "photoguard"])
def test_the_gradient_is_that_of_finite_differences(weights: Path, name: str) -> None:
    made = protect.create(name, tiny_model(weights, "v_prediction", dtype="float64"))
    assert isinstance(made, GradientProtection)
    images = pictures(2).double()
    direction = normal(images, picture_generators([5, 6]))

    def value(at: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return made.objective(made.surrogates[0], at, picture_generators([1, 2]))

    gradient = made.gradient(images, picture_generators([1, 2]))
    h = 1e-5
    slope = (value(images + h * direction) - value(images - h * direction)) / (2 * h)
    assert gradient.dtype == torch.float64
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), slope, rtol=1e-4, atol=1e-9)


def test_projection_is_onto_the_nearest_point(model: TextToImage) -> None:
    made = AdvDM(model, AdvDMSettings(budget=51.0))  # 0.2
    original = torch.tensor([0.5, 0.5, 0.1, 0.9]).reshape(1, 1, 2, 2)
    asked = torch.tensor([0.6, 0.9, -0.5, 1.5]).reshape(1, 1, 2, 2)
    wanted = torch.tensor([0.6, 0.7, 0.0, 1.0]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(made.project(asked, original), wanted)


@pytest.mark.parametrize("name", METHODS)
def test_a_picture_depends_on_its_own_seed_and_not_on_its_company(model: TextToImage, name: str) -> None:
    made = protect.create(name, model, quick(name))
    images = pictures(4)
    together = made.perturb(images, [10, 11, 12, 13])
    mixed = made.perturb(images[[2, 0, 3, 3]], [12, 10, 7, 8])
    assert torch.equal(mixed[0], together[2])
    assert torch.equal(mixed[1], together[0])
    assert not torch.equal(mixed[2], mixed[3])
    assert torch.equal(together, made.perturb(images, [10, 11, 12, 13]))


def test_without_a_random_start_the_loop_starts_from_the_picture(model: TextToImage) -> None:
    made = PhotoGuard(model, PhotoGuardSettings(random_start=False, steps=1, step_size=2.0))
    images = pictures(1) * 0.5 + 0.25
    moved = (made.perturb(images, [0]) - images).abs() * 255
    torch.testing.assert_close(moved.max(), torch.tensor(2.0), atol=1e-3, rtol=0)


def test_no_weight_gets_a_gradient_and_the_model_is_left_as_it_was(model: TextToImage) -> None:
    model.denoiser.train().requires_grad_(True)
    try:
        AdvDM(model, AdvDMSettings(steps=1)).perturb(pictures(1), [0])
        assert model.denoiser.training
        assert all(p.requires_grad and p.grad is None for p in model.denoiser.parameters())
        assert not any(p.requires_grad for p in model.autoencoder.network.parameters())
    finally:
        model.freeze()


def test_progress_is_told_after_every_step(model: TextToImage) -> None:
    seen: list[int] = []
    PhotoGuard(model, PhotoGuardSettings(steps=3)).perturb(pictures(1), [0], seen.append)
    assert seen == [1, 2, 3]


def test_half_precision_computes_and_stays_within_the_budget(weights: Path) -> None:
    half = tiny_model(weights, dtype="bfloat16")
    images = pictures(1)
    result = AdvDM(half, AdvDMSettings(steps=2)).perturb(images, [0])
    assert result.dtype == torch.float32
    assert 0 < (result - images).abs().max() <= 8 / 255 + 1e-7


def test_wrong_shapes_are_usage_errors(model: TextToImage) -> None:
    made = AdvDM(model, AdvDMSettings(steps=1))
    with pytest.raises(UsageError, match="one seed a picture"):
        made.perturb(pictures(2), [0])
    with pytest.raises(UsageError, match=r"\[B, 3, H, W\]"):
        made.perturb(pictures(2)[0], [0])
