"""The losses against their formulas, number by number."""

from __future__ import annotations

import math

import pytest
import torch

from unlikeness.immunize import losses
from unlikeness.immunize.losses import preference


@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_the_preference_loss_is_its_equation(beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    f, reference, target = (
        torch.randn(4, 2, 1, 2, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    terms = []
    for i in range(2):
        for k in range(2):
            for j in range(2):
                r = [
                    float((f[row, k, 0, j] - target[row, k, 0, j]) ** 2)
                    - float((reference[row, k, 0, j] - target[row, k, 0, j]) ** 2)
                    for row in (i, i + 2)
                ]
                terms.append(math.log(1 + math.exp(beta * (r[0] - r[1]))))
    assert float(preference(f, reference, target, beta)) == pytest.approx(sum(terms) / len(terms))


def test_the_preference_loss_leads_towards_generic_pictures_and_away_from_the_subject() -> None:
    target = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    f = torch.full_like(target, 0.5).requires_grad_(True)
    loss = preference(f, target + 0.5, target, 1.0)
    assert float(loss.detach()) == pytest.approx(math.log(2))  # as the original answers
    (gradient,) = torch.autograd.grad(loss, f)
    assert float(gradient[0]) > 0  # descent: nearer to the target of x⁺
    assert float(gradient[1]) == pytest.approx(-float(gradient[0]))


def test_the_adversarial_loss_is_the_negative_error() -> None:
    f, target = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    assert float(losses.adversarial(f, target)) == pytest.approx(-2.5)
    assert float(losses.error(f, target)) == pytest.approx(2.5)


def test_the_weighted_error_is_its_equation_and_its_goal_has_no_gradient() -> None:
    f, goal = (torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    w, cells = torch.tensor([2.0, 0.5]).double(), torch.rand(3, 3).double()
    loss = losses.weighted_error(f, goal, w, cells)
    squares = ((f - goal) ** 2).detach()
    expected = sum(
        float(w[i] * cells[y, x] * squares[i, c, y, x])
        for i in range(2) for c in range(4) for y in range(3) for x in range(3)
    )  # fmt: skip
    assert float(loss.detach()) == pytest.approx(expected / f.numel())
    loss.backward()  # type: ignore[no-untyped-call]
    assert goal.grad is None
    wanted = 2 * w[:, None, None, None] * cells * (f - goal).detach() / f.numel()
    assert f.grad is not None
    assert torch.allclose(f.grad, wanted)


def test_a_plain_error_is_its_equation_and_its_gradient() -> None:
    f, target = (torch.randn(2, 4, 3, 3, dtype=torch.float64) for _ in range(2))
    f.requires_grad_(True)
    [gradient] = torch.autograd.grad(losses.error(f, target), f)
    assert torch.allclose(gradient, 2 * (f - target).detach() / f.numel(), rtol=1e-5)
