"""Every protection within a budget that differs from pixel to pixel."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import pictures

from unlikeness.diffusion import TextToImage
from unlikeness.protect import registry
from unlikeness.protect.base import GradientProtection, perturb_within

FEW: dict[str, dict[str, object]] = {
    "rid": {},
    "encoder": {"steps": 2},
    "advdm": {"steps": 2},
    "photoguard": {"steps": 2},
    "noise": {},
    "aspl": {"rounds": 2, "pgd_steps": 8, "step_size": 1.0, "prior_weight": 0.0},
}


@pytest.mark.parametrize("method", FEW)
def test_every_pixel_keeps_its_own_budget_and_full_strength_is_no_mask(
    model: TextToImage, method: str
) -> None:
    protection = registry.create(method, model, {"budget": 8.0, **FEW[method]})
    images = pictures(2)
    strength = torch.linspace(0, 1, 32).expand(2, 1, 32, 32)
    moved = (perturb_within(protection, images, strength, [0, 1]) - images).abs() * 255
    assert (moved <= 8 * strength + 1e-3).all()
    assert not moved[..., 0].any()
    assert (moved[..., 24:] > 0).float().mean() > 0.7
    whole = perturb_within(protection, images, torch.ones(2, 1, 32, 32), [0, 1])
    torch.testing.assert_close(whole, protection.perturb(images, [0, 1]), rtol=0, atol=1e-6)


def test_a_gradient_spends_what_is_left_of_the_budget_where_it_may(model: TextToImage) -> None:
    """Steps within the mask, not a perturbation that is cut afterwards."""
    protection = registry.create("photoguard", model, {"budget": 8.0, "steps": 8})
    images = pictures(2)
    strength = torch.zeros(2, 1, 32, 32)
    strength[..., 16:] = 1
    inside = perturb_within(protection, images, strength, [0, 1])
    cut = images + (protection.perturb(images, [0, 1]) - images) * strength
    assert not torch.equal(inside, cut)
    assert isinstance(protection, GradientProtection)
    (surrogate,) = protection.surrogates
    raised, cut_raised = (protection.objective(surrogate, at, []).sum() for at in (inside, cut))
    assert raised > cut_raised
