"""The pull of pictures at a model's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from experiments.gradient import gradient_norm
from tests.tiny import pictures, tiny_model

from unlikeness.diffusion.loss import diffusion_loss
from unlikeness.errors import NotFiniteError


def test_it_is_the_gradient_of_the_mean_loss_and_its_spread(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, dtype="float64")
    images = pictures(2).double()
    pull, noise = gradient_norm(model, images, "a photo of sks dog", seed=3, levels=3)

    z0 = model.encode_all(images).mean
    c = model.condition(["a photo of sks dog"])
    generator = torch.Generator().manual_seed(3)
    model.denoiser.requires_grad_(True)
    each = []
    for t in (0, 500, 999):
        for picture in torch.split(z0, 1):
            eps = torch.randn(picture.shape, generator=generator).double()
            loss = diffusion_loss(model, picture, c, t=torch.tensor([t]), eps=eps)
            grads = torch.autograd.grad(loss, list(model.denoiser.parameters()))
            each.append(torch.cat([g.flatten() for g in grads]))
    g = torch.stack(each)
    spread = g.var(0).sum()
    assert noise == pytest.approx(float(spread.sqrt()), rel=1e-4)
    assert pull == pytest.approx(
        float((g.mean(0).square().sum() - spread / len(g)).clamp_min(0).sqrt()), rel=1e-4
    )


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    gradient_norm(model, pictures(1), "a photo of sks dog", seed=0, levels=1)
    assert all(p.grad is None and not p.requires_grad for p in model.denoiser.parameters())


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    with torch.no_grad():
        next(model.denoiser.parameters()).fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="the gradient through the model"):
        gradient_norm(model, pictures(1), "a dog", seed=0, levels=1)
