"""The one training target, against its formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from unlikeness.diffusion import Schedule
from unlikeness.errors import UsageError

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def latents(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Z0, EPS, T = latents(0), latents(1), torch.tensor([0, 400, 999])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_target_is_the_literal_formula(prediction_type: str) -> None:
    schedule = Schedule.from_scheduler(DDPMScheduler(prediction_type=prediction_type, **BETAS))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    a = torch.cumprod(1 - betas, 0)[T].reshape(3, 1, 1, 1)
    expected = {
        "epsilon": EPS,
        "v_prediction": a.sqrt() * EPS - (1 - a).sqrt() * Z0,
        "sample": Z0,
    }[prediction_type]
    assert torch.allclose(schedule.target(Z0, EPS, T), expected, atol=1e-5)
    assert torch.allclose(schedule.add_noise(Z0, EPS, T), a.sqrt() * Z0 + (1 - a).sqrt() * EPS, atol=1e-5)


def test_flow_matching_runs_straight_from_image_to_noise() -> None:
    schedule = Schedule.from_scheduler(FlowMatchEulerDiscreteScheduler())
    assert schedule.prediction_type == "flow"
    sigma = ((T + 1) / 1000).double().reshape(3, 1, 1, 1)
    assert torch.equal(schedule.target(Z0, EPS, T), EPS - Z0)
    assert torch.allclose(schedule.add_noise(Z0, EPS, T), (1 - sigma) * Z0 + sigma * EPS, atol=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_agrees_with_diffusers(prediction_type: str) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction_type, **BETAS)
    schedule = Schedule.from_scheduler(scheduler)
    z0, eps = Z0.float(), EPS.float()
    assert torch.allclose(schedule.add_noise(z0, eps, T), scheduler.add_noise(z0, eps, T), atol=1e-6)
    if prediction_type == "v_prediction":
        assert torch.allclose(schedule.target(z0, eps, T), scheduler.get_velocity(z0, eps, T), atol=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample", "flow"])
def test_the_exact_answer_gives_z0_and_noise_back(prediction_type: str) -> None:
    scheduler = (
        FlowMatchEulerDiscreteScheduler()
        if prediction_type == "flow"
        else DDIMScheduler(prediction_type=prediction_type, **BETAS)
    )
    schedule = Schedule.from_scheduler(scheduler)
    z_t = schedule.add_noise(Z0, EPS, T)
    f = schedule.target(Z0, EPS, T)
    assert torch.allclose(schedule.predict_z0(f, z_t, T), Z0, atol=1e-5)
    assert torch.allclose(schedule.predict_eps(f, z_t, T), EPS, atol=1e-5)
    assert torch.allclose(schedule.answer(Z0, z_t, T), f, atol=1e-5)
    one = schedule.answer(Z0[0], z_t, T)  # of the same z0 for all
    assert torch.allclose(schedule.predict_z0(one, z_t, T), Z0[:1].expand_as(z_t), atol=1e-5)


def test_alpha_bar_is_the_share_of_signal() -> None:
    scheduler = DDPMScheduler(**BETAS)
    schedule = Schedule.from_scheduler(scheduler)
    assert torch.allclose(schedule.alpha_bar, scheduler.alphas_cumprod, atol=1e-6)
    assert schedule.steps == 1000


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(UsageError, match="prediction type 'score'"):
        Schedule.from_alpha_bar(torch.linspace(0.9, 0.1, 10), "score")


def test_levels_are_drawn_uniformly_by_default_and_told_as_they_are() -> None:
    schedule = Schedule.from_scheduler(DDPMScheduler(**BETAS))
    t = schedule.draw(4000, torch.Generator().manual_seed(0), "cpu")
    assert torch.equal(t, torch.randint(1000, (4000,), generator=torch.Generator().manual_seed(0)))
    assert schedule.told(t) is t


@pytest.mark.parametrize(("shift", "middle"), [(1.0, 0.5), (3.0, 0.75)])
def test_a_flow_draws_the_middle_more_often_and_its_shift_moves_it(shift: float, middle: float) -> None:
    schedule = Schedule.from_scheduler(FlowMatchEulerDiscreteScheduler(shift=shift))
    t = schedule.draw(20_000, torch.Generator().manual_seed(0), "cpu")
    assert t.dtype == torch.long
    assert 0 <= int(t.min()) <= int(t.max()) < 1000
    sigma = schedule.noise[t]
    assert abs(float(sigma.median()) - middle) < 0.02
    assert (t.float() / 1000 - 0.5).abs().lt(0.1).float().mean() > 0.25  # a uniform draw has 0.2


@pytest.mark.parametrize("settings", [{}, {"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True}])
def test_a_flow_has_the_levels_and_times_of_diffusers_training_scripts(settings: dict[str, Any]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    schedule = Schedule.from_scheduler(scheduler)
    t = torch.arange(1000)
    assert torch.equal(schedule.noise, scheduler.sigmas.flip(0))
    assert torch.equal(schedule.told(t), scheduler.timesteps.flip(0))
    time = torch.tensor([731.25])
    assert schedule.told(time) is time


def test_a_flows_levels_can_be_drawn_evenly() -> None:
    schedule = Schedule.from_scheduler(FlowMatchEulerDiscreteScheduler(), density="uniform")
    t = schedule.draw(4000, torch.Generator().manual_seed(0), "cpu")
    assert torch.equal(t, torch.randint(1000, (4000,), generator=torch.Generator().manual_seed(0)))


def test_the_weighting_z0_counts_the_error_of_z0() -> None:
    schedule = Schedule.from_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0), weighting="z0")
    z_t, f = schedule.add_noise(Z0, EPS, T), latents(2)
    weight = schedule.weight(T)
    assert weight is not None
    weighted = weight.view(3, 1, 1, 1) * (f - schedule.target(Z0, EPS, T)).square()
    assert torch.allclose(weighted, (schedule.predict_z0(f, z_t, T) - Z0).square(), atol=1e-6)
    assert Schedule.from_scheduler(FlowMatchEulerDiscreteScheduler()).weight(T) is None


@pytest.mark.parametrize("wrong", [("flow", "uniform", "sigma"), ("epsilon", "uniform", "z0")])
def test_an_unknown_weighting_is_refused(wrong: tuple[str, str, str]) -> None:
    table = torch.linspace(0, 1, 10)
    with pytest.raises(UsageError, match=r"weighting '\w+' is unknown"):
        Schedule(1 - table, table, *wrong)


def test_an_unknown_density_is_refused() -> None:
    table = torch.linspace(0, 1, 10)
    with pytest.raises(UsageError, match="density 'normal' is unknown"):
        Schedule(1 - table, table, "flow", "normal")
