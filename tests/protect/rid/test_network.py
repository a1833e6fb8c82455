"""The perturbation network: bounded by the budget, for any size, and local."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.protect.rid.network import MULTIPLE, NetworkSettings, Protector, mirrored

SMALL = NetworkSettings(fine=6, middle=8, coarse=10)
SIZES = [(1, 1), (1, 40), (3, 2), (16, 16), (17, 31), (37, 53), (64, 48)]

RADIUS = 135
"""px: measured by `reach`, and what `Protector` says: δ at a pixel depends on nothing further away."""


def random_protector(
    settings: NetworkSettings = SMALL, *, gain: float = 1.0, dtype: torch.dtype = torch.float32
) -> Protector:
    """No weight of it is zero; `gain` drives the last layer, and with it tanh, into saturation."""
    network = Protector(settings).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            fan = weight[0].numel() if weight.ndim > 1 else 4
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64) / math.sqrt(fan)
            weight.copy_(drawn * (gain if name.startswith("leave") else 1.0))
    return network.requires_grad_(False)


def noise(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_it_begins_at_no_change_and_can_learn_from_there() -> None:
    network = Protector(SMALL)
    delta = network(noise(2, 20, 30), torch.tensor([4.0, 16.0]))
    assert not delta.any()
    delta.sum().backward()
    assert network.leave.weight.grad is not None
    assert network.leave.weight.grad.abs().max() > 0


def test_it_has_at_most_five_million_parameters() -> None:
    assert sum(p.numel() for p in Protector().parameters()) <= 5_000_000


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_any_size_keeps_to_the_budget_of_each_picture(height: int, width: int) -> None:
    network = random_protector(gain=100.0)
    budget = torch.tensor([0.5, 8.0, 16.0])
    delta = network(noise(3, height, width), budget)
    assert delta.shape == (3, 3, height, width)
    largest = delta.abs().amax((1, 2, 3))
    assert (largest <= budget / 255).all()
    assert (largest >= 0.9 * budget / 255).all()  # driven hard, it spends what it has


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_plane_bounds_every_pixel_by_its_own_budget(height: int, width: int) -> None:
    network = random_protector(gain=100.0)
    plane = 16 * torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(1))
    plane[:, :, : height // 2] = 0
    delta = network(noise(2, height, width), plane)
    assert (delta.abs() <= plane / 255).all()
    assert not delta[:, :, : height // 2].any()
    assert delta[:, :, height // 2 :].any()


def test_a_constant_plane_is_the_same_as_a_number() -> None:
    network, images = random_protector(), noise(2, 21, 33)
    budget = torch.tensor([3.0, 11.0])
    plane = budget.view(-1, 1, 1, 1).expand(-1, 1, 21, 33)
    assert torch.equal(network(images, budget), network(images, plane))


def test_a_picture_is_independent_of_its_batch() -> None:
    network, images = random_protector(), noise(3, 32, 48)
    budget = torch.tensor([2.0, 8.0, 16.0])
    together = network(images, budget)
    for i in range(3):
        assert torch.allclose(network(images[i : i + 1], budget[i : i + 1])[0], together[i], atol=1e-6)


def test_the_budget_is_an_input_and_not_only_a_factor() -> None:
    network, images = random_protector(), noise(1, 32, 32)
    low, high = network(images, torch.tensor([2.0])), network(images, torch.tensor([16.0]))
    assert not torch.allclose(low * 8, high, rtol=0.01, atol=1e-4)


def test_a_batch_of_half_precision_keeps_to_the_budget_too() -> None:
    network = random_protector(gain=100.0, dtype=torch.bfloat16)
    images = noise(2, 19, 35).bfloat16()
    budget = torch.tensor([8.0, 16.0])
    delta = network(images, budget)
    assert delta.dtype == torch.bfloat16
    assert (delta.float().abs().amax((1, 2, 3)) <= (budget.bfloat16() / 255).float()).all()


def reach(settings: NetworkSettings) -> tuple[int, int]:
    """[px] to the left and to the right: how far from a changed column δ changes, at its worst place."""
    network = random_protector(settings, dtype=torch.float64)
    length, middle = 384, 176
    images = noise(1, MULTIPLE, length).double()
    budget = torch.tensor([8.0], dtype=torch.float64)
    before = network(images, budget)
    before_at, after_at = 0, 0
    for at in range(middle, middle + MULTIPLE):
        other = images.clone()
        other[..., at] = 1 - other[..., at]
        moved = ((network(other, budget) - before).abs().amax((0, 1, 2)) > 0).nonzero().flatten()
        before_at = max(before_at, at - int(moved.min()))
        after_at = max(after_at, int(moved.max()) - at)
    return before_at, after_at


@pytest.mark.parametrize("settings", [SMALL, NetworkSettings()])
def test_a_pixel_sees_its_neighbourhood_only(settings: NetworkSettings) -> None:
    assert max(reach(settings)) == RADIUS


def test_pictures_that_differ_far_away_get_the_same_change_here() -> None:
    network = random_protector(dtype=torch.float64)
    left = noise(1, 64, 400).double()
    other = torch.cat([left[..., :200], noise(1, 64, 200, seed=9).double()], 3)
    budget = torch.tensor([8.0], dtype=torch.float64)
    a, b = network(left, budget), network(other, budget)
    far = 200 - RADIUS
    assert torch.equal(a[..., :far], b[..., :far])
    assert not torch.allclose(a[..., 200:], b[..., 200:])


def test_a_picture_may_be_cut_into_overlapping_tiles() -> None:
    """Tiles that begin at multiples of 16 px and carry a margin give what the whole picture gives."""
    network = random_protector(dtype=torch.float64)
    images = noise(1, 48, 480).double()
    budget = torch.tensor([8.0], dtype=torch.float64)
    whole = network(images, budget)
    margin = math.ceil(RADIUS / MULTIPLE) * MULTIPLE
    cut = 240
    left = network(images[..., : cut + margin], budget)[..., :cut]
    right = network(images[..., cut - margin :], budget)[..., margin:]
    assert torch.allclose(torch.cat([left, right], 3), whole, atol=1e-12)


def test_the_change_moves_along_with_the_picture() -> None:
    network = random_protector(dtype=torch.float64)
    images = noise(1, 32, 480).double()
    budget = torch.tensor([8.0], dtype=torch.float64)
    moved = network(images[..., MULTIPLE:], budget)
    inner = slice(RADIUS, 300)
    assert torch.allclose(network(images, budget)[..., MULTIPLE:][..., inner], moved[..., inner], atol=1e-12)


def test_mirroring_continues_a_picture_as_often_as_it_takes() -> None:
    image = torch.arange(3.0).view(1, 1, 1, 3)
    assert mirrored(image, 2, 8)[0, 0].tolist() == [[0, 1, 2, 2, 1, 0, 0, 1]] * 2
    assert mirrored(torch.ones(1, 1, 1, 1), 16, 16).shape == (1, 1, 16, 16)


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="fine must be at least 1"):
        NetworkSettings(fine=0)


DETAIL = NetworkSettings(fine=6, middle=8, coarse=10, sees="detail")


def test_a_network_that_sees_detail_leaves_flat_areas_alone() -> None:
    network = random_protector(DETAIL, gain=4)
    flat = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 3, 50, 66)
    assert float(network(flat, torch.full((3,), 8.0)).abs().max()) < 1e-6
    textured = noise(2, 50, 66)
    for budget in (2.0, 16.0):
        delta = network(textured, torch.full((2,), budget))
        assert delta.any()
        assert float(delta.abs().max()) <= budget / 255
    grain = 0.5 + (textured - 0.5) * 2 / 255
    faint = network(grain, torch.full((2,), 8.0)).square().mean()
    assert faint < 0.02 * network(textured, torch.full((2,), 8.0)).square().mean()


@pytest.mark.parametrize("size", SIZES)
def test_detail_is_taken_at_any_size_and_from_nearby_alone(size: tuple[int, int]) -> None:
    network = random_protector(DETAIL)
    images, budget = noise(1, *size), torch.full((1,), 8.0)
    delta = network(images, budget)
    assert delta.shape == images.shape
    assert delta.isfinite().all()
    wide = torch.cat([images, noise(1, size[0], 600)], 3)
    with torch.no_grad():
        more = network(torch.cat([wide, 1 - noise(1, size[0], 64, seed=1)], 3), budget)
        less = network(torch.cat([wide, noise(1, size[0], 64, seed=2)], 3), budget)
    torch.testing.assert_close(more[..., : size[1]], less[..., : size[1]])


def test_a_network_that_sees_detail_can_learn_from_its_start() -> None:
    network = Protector(DETAIL)
    network(noise(1, 32, 32), torch.tensor([8.0])).square().sum().backward()
    assert network.leave.weight.grad is not None
    assert network.leave.weight.grad.any()
