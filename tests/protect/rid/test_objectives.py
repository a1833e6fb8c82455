"""What a protector learns from: each term against its formula, and the U-Net stays out of the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import pictures, tiny_model
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.loss import mean_loss_over_levels
from unlikeness.measure.visibility import psnr
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.train import objectives
from unlikeness.protect.rid.train.augment import Augment
from unlikeness.protect.rid.train.recipe import ProtectorRecipe
from unlikeness.protect.rid.train.trial import Trial

T = torch.tensor([0, 400, 999])


def exact(weights: Path, prediction_type: str) -> TextToImage:
    """In float64, which autocast leaves alone."""
    return tiny_model(weights, prediction_type, dtype="float64")


def drawn(model: TextToImage, seed: int = 3) -> tuple[Tensor, Tensor]:
    """(ε, noise of the posterior) for three pictures."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, *model.latent_shape)
    eps, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return eps, noise


def literal(model: TextToImage, z0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(z_t, g, f − target) of METHODS.md, section 4, from the scheduler's own table and the U-Net itself."""
    config: Any = model.scheduler.config
    roots = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000, dtype=torch.float64)
    alpha_bar = (1 - roots.square()).cumprod(0)[T].view(-1, 1, 1, 1)
    z_t = alpha_bar.sqrt() * z0 + (1 - alpha_bar).sqrt() * eps
    c = model.condition(["a photo"]).expand(3).tokens
    with torch.no_grad():
        f = model.denoiser(z_t, T, encoder_hidden_states=c).sample
    v = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * z0
    error = f - (eps if config.prediction_type == "epsilon" else v)
    return z_t, (1 - alpha_bar) * error, error


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_adv_sds_is_its_formula_in_value_and_gradient(weights: Path, prediction_type: str) -> None:
    model = exact(weights, prediction_type)
    eps, noise = drawn(model)
    images = pictures(3).double()
    with torch.no_grad():
        q = model.encode(images)
    mean = q.mean.clone().requires_grad_(True)
    loss, raised = objectives.adv_sds(
        model, Posterior(mean, q.std), model.condition(["a photo"]), t=T, eps=eps, noise=noise
    )
    z_t, g, error = literal(model, q.mean + q.std * noise, eps)
    # The package's table of ᾱ is float32, which is what is left between the two.
    assert torch.allclose(loss, 0.5 * g.square().mean(), rtol=1e-4)
    assert torch.allclose(raised.double(), error.square().mean(), rtol=1e-4)
    (gradient,) = torch.autograd.grad(loss, mean)
    signal = model.schedule.signal.double()[T].view(-1, 1, 1, 1)  # d z_t / d z0
    assert torch.allclose(gradient / signal, -g / z_t.numel(), rtol=1e-3, atol=1e-9)
    assert g.abs().max() > 0.1


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_aim_lies_along_the_error_of_epsilon(weights: Path, prediction_type: str) -> None:
    """A step of descent moves z_t towards ε̂ − ε, which raises the loss, whatever the network predicts."""
    model = exact(weights, prediction_type)
    eps, noise = drawn(model)
    with torch.no_grad():
        q = model.encode(pictures(3).double())
    c = model.condition(["a photo"])
    mean = q.mean.clone().requires_grad_(True)
    loss, _ = objectives.adv_sds(model, Posterior(mean, q.std), c, t=T, eps=eps, noise=noise)
    (gradient,) = torch.autograd.grad(loss, mean)
    z_t = model.schedule.add_noise(q.mean + q.std * noise, eps, T)
    with torch.no_grad():
        z0_hat = model.schedule.predict_z0(model.predict(z_t, T, c.expand(3)), z_t, T)
    tables = (model.schedule.signal, model.schedule.noise)
    signal, sigma = (table.double()[T].view(-1, 1, 1, 1) for table in tables)
    eps_hat = (z_t - signal * z0_hat) / sigma
    cosine = torch.nn.functional.cosine_similarity(-gradient.flatten(1), (eps_hat - eps).flatten(1))
    assert (cosine[1:] > 0.99).all()  # at t = 0 the two are all rounding


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_images_gradient_passes_the_encoder_and_never_the_unet(
    weights: Path, prediction_type: str
) -> None:
    """It equals a vector-Jacobian product of x -> z_t that is made without the U-Net."""
    model = exact(weights, prediction_type)
    model.denoiser.requires_grad_(True)
    kept: list[Tensor] = []
    hooks = [
        part.register_forward_hook(lambda m, args, out: kept.append(out) if isinstance(out, Tensor) else None)
        for part in model.denoiser.modules()
    ]
    eps, noise = drawn(model)
    images = pictures(3).double().requires_grad_(True)
    c = model.condition(["a photo"])
    loss, raised = objectives.adv_sds(model, model.encode(images), c, t=T, eps=eps, noise=noise)
    torch.autograd.backward(loss)
    for hook in hooks:
        hook.remove()
    assert len(kept) > 20
    assert not any(out.requires_grad or out.grad_fn is not None for out in kept)
    assert all(p.grad is None for p in model.denoiser.parameters())
    assert raised.grad_fn is None

    def noised(x: Tensor) -> Tensor:
        q = model.encode(x)
        return model.schedule.add_noise(q.mean + q.std * noise, eps, T)

    with torch.no_grad():
        q = model.encode(images)
    z_t, g, _ = literal(model, q.mean + q.std * noise, eps)
    leaf = images.detach().requires_grad_(True)
    (expected,) = torch.autograd.grad(noised(leaf), leaf, -g / z_t.numel())
    assert images.grad is not None
    assert expected.abs().max() > 0
    error = (images.grad - expected).norm() / expected.norm()
    assert error < 1e-4


def test_descent_moves_z_t_along_g(weights: Path) -> None:
    model = exact(weights, "epsilon")
    eps, noise = drawn(model)
    q = model.encode(pictures(3).double())
    z0 = (q.mean + q.std * noise).detach().requires_grad_(True)
    c = model.condition(["a photo"])
    still = torch.zeros_like(z0)
    loss, _ = objectives.adv_sds(model, Posterior(z0, still), c, t=T, eps=eps, noise=noise)
    (gradient,) = torch.autograd.grad(loss, z0)
    _, g, _ = literal(model, z0.detach(), eps)
    moved = -gradient.flatten(1)
    assert torch.allclose(torch.cosine_similarity(moved, g.flatten(1)), torch.ones(3).double(), atol=1e-5)


def test_one_training_step_raises_the_frozen_models_loss(model: TextToImage) -> None:
    """On the step's own pictures, over 20 noise levels with 2 draws each; the opposite step lowers it."""
    recipe = ProtectorRecipe(displacement_weight=0.0, visibility_weight=0.0, energy_weight=0.0)
    images = pictures(16, seed=2)
    budget = torch.full((16,), 16.0)

    def loss_after(direction: float) -> float:
        torch.manual_seed(0)
        network = Protector(NetworkSettings(fine=8, middle=8, coarse=8))
        trial = Trial(network, [model], recipe, augment=Augment(jpeg=0, rescale=0, blur=0))
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
        (direction * trial(images, budget, torch.Generator().manual_seed(1))).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            protected = (images + network(images, budget)).clamp(0, 1)
        assert not torch.equal(protected, images)
        return mean_loss_over_levels(model, protected, "a photo", seed=0, levels=20, draws=2)

    clean = mean_loss_over_levels(model, images, "a photo", seed=0, levels=20, draws=2)
    up, down = loss_after(1.0), loss_after(-1.0)
    assert up > 1.002 * clean
    assert down < 0.998 * clean


def test_noised_draws_are_reproducible_and_cover_all_levels() -> None:
    q = Posterior(torch.zeros(64, 4, 2, 2), torch.zeros(64, 4, 2, 2))
    first = objectives.noised(q, 1000, torch.Generator().manual_seed(5))
    again = objectives.noised(q, 1000, torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    t, eps, noise = first
    assert t.shape == (64,)
    assert eps.shape == noise.shape == q.mean.shape
    assert 0 <= t.min() < 200 < 800 < t.max() < 1000
    assert not torch.equal(eps, noise)


def test_the_pull_is_the_share_of_the_way_to_the_target_that_is_left() -> None:
    clean, target = torch.zeros(2, 4, 3, 3), torch.ones(1, 4, 1, 1)
    half = Posterior(torch.full_like(clean, 0.5), torch.zeros_like(clean))
    at_start, at_target = (Posterior(torch.full_like(clean, v), torch.zeros_like(clean)) for v in (0.0, 1.0))
    assert float(objectives.pull(at_start, clean, target)) == pytest.approx(1)
    assert float(objectives.pull(half, clean, target)) == pytest.approx(0.25)
    assert float(objectives.pull(at_target, clean, target)) == 0


def test_regression_is_the_mean_square_in_budgets() -> None:
    delta = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) / 10
    budget = torch.tensor([4.0, 8.0])
    assert objectives.regression(delta, delta, budget) == 0
    wanted = delta - budget.view(-1, 1, 1, 1) / 255 * torch.tensor([1.0, 3.0]).view(-1, 1, 1, 1)
    assert torch.allclose(objectives.regression(delta, wanted, budget), torch.tensor((1.0 + 9.0) / 2))


def test_displacement_is_the_logarithm_of_the_mean_square() -> None:
    clean = torch.zeros(2, 4, 3, 3)
    moved = torch.stack([torch.full((4, 3, 3), 0.1), torch.full((4, 3, 3), 2.0)])
    value = objectives.displacement(Posterior(moved, moved), clean)
    assert torch.allclose(value, -(torch.tensor(2.0).log() + torch.tensor(401.0).log()) / 2)
    assert objectives.displacement(Posterior(clean, clean), clean) == 0
    further = objectives.displacement(Posterior(2 * moved, moved), clean)
    assert further < value < 0


def stripes(period: int) -> Tensor:
    """Of ±8/255, [1, 3, 60, 60]."""
    signs = torch.where(torch.arange(60) % period < period / 2, 1.0, -1.0)
    return (signs * 8 / 255).expand(1, 3, 60, 60).clone()


def test_visibility_is_that_of_coarse_patterns_where_nothing_hides_them() -> None:
    budget, flat = torch.tensor([8.0]), torch.full((1, 3, 60, 60), 0.5)
    generator = torch.Generator().manual_seed(0)
    texture = 0.5 + 0.2 * torch.randn(flat.shape, generator=generator)
    grains = torch.randn(flat.shape, generator=generator).sign() * 8 / 255
    shift = torch.full_like(flat, 8 / 255)

    def seen(delta: Tensor, images: Tensor = flat, budget: Tensor = budget) -> float:
        return float(objectives.visibility(delta, images, budget))

    assert seen(torch.zeros_like(flat)) == 0
    assert seen(shift) == pytest.approx(1, rel=1e-3)
    assert seen(grains) < 0.15
    assert 2 * seen(grains) < seen(stripes(10)) < seen(stripes(20)) < 1
    assert seen(stripes(10)) == pytest.approx(seen(stripes(10).mT))
    assert seen(shift, texture) < 0.05
    assert seen(shift / 2) == pytest.approx(seen(shift) / 4)
    assert seen(shift / 2, budget=budget / 2) == pytest.approx(seen(shift))


def test_visibility_is_the_same_where_a_picture_ends() -> None:
    """No frame of darker or brighter demands along the edge; pictures smaller than the window count too."""
    budget = torch.tensor([8.0])
    for size in ((1, 1), (2, 7), (60, 60)):
        flat = torch.full((1, 3, *size), 0.5)
        value = objectives.visibility(torch.full_like(flat, 8 / 255), flat, budget)
        assert torch.allclose(value, torch.tensor(1.0), rtol=1e-3)


def test_excess_energy_begins_at_the_share() -> None:
    budget = torch.tensor([8.0, 16.0])
    full = (budget / 255).view(-1, 1, 1, 1) * torch.ones(2, 3, 4, 4)
    assert objectives.excess_energy(0.5 * full, budget, 0.5) == 0
    assert torch.allclose(objectives.excess_energy(full, budget, 0.5), torch.tensor(0.75**2))
    one = torch.stack([full[0], 0 * full[1]])
    assert torch.allclose(objectives.excess_energy(one, budget, 0.5), torch.tensor(0.75**2 / 2))
    assert objectives.excess_energy(0.51 * full, budget, 0.5) > 0
    images = torch.full((1, 3, 16, 16), 0.5)  # its docstring's example
    assert float(psnr(images, images + 0.5 * 8 / 255)) == pytest.approx(36.1, abs=0.1)
