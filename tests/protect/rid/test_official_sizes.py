"""The official network, which knows one size, on pictures of any."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.protect.rid.official import images

from unlikeness.errors import UsageError
from unlikeness.protect.rid.official import OfficialRid


@pytest.mark.parametrize("way", ["resize", "tiles"])
@pytest.mark.parametrize("size", [(16, 16), (37, 50), (5, 90), (16, 7), (1, 1)])
def test_any_size_is_changed_everywhere_and_within_the_budget(
    official: OfficialRid, way: str, size: tuple[int, int]
) -> None:
    x = images(2, 3, *size)
    for budget in (0.0, 4.0, 255.0):
        delta = official.delta(x, budget, way=way, batch_size=3)
        assert delta.shape == x.shape
        assert delta.dtype == x.dtype
        assert delta.abs().max() <= budget / 255
        assert delta.abs().mean() >= 0.02 * budget / 255
    one = official.delta(x[1:], 4, way=way)
    torch.testing.assert_close(official.delta(x, 4, way=way)[1:], one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", ["resize", "tiles"])
def test_at_its_own_size_the_perturbation_is_the_networks(official: OfficialRid, way: str) -> None:
    x = images(1, 3, 16, 16)
    torch.testing.assert_close(official.delta(x, 8, way=way), official(x) * (8 / 255), rtol=0, atol=1e-7)


def test_resizing_sees_the_whole_picture_antialiased(official: OfficialRid) -> None:
    x = images(1, 3, 40, 56)
    small = F.interpolate(x, (16, 16), mode="bilinear", antialias=True)
    large = F.interpolate(official(small), (40, 56), mode="bilinear")
    torch.testing.assert_close(official.delta(x, 8), large * (8 / 255), rtol=0, atol=1e-6)


def test_tiles_hold_the_central_square_whole_and_mirror_small_pictures(official: OfficialRid) -> None:
    x = images(1, 3, 48, 36)
    centre = official.delta(x, 255, way="tiles", overlap=0.0)[..., 16:32, 10:26]
    torch.testing.assert_close(centre, official(x[..., 16:32, 10:26]), rtol=0, atol=1e-6)
    small = images(1, 3, 16, 5)
    mirrored = torch.cat([small, small.flip(3), small, small.flip(3)], dim=3)[..., :16]
    wanted = official(mirrored)[..., :5]
    torch.testing.assert_close(official.delta(small, 255, way="tiles"), wanted, rtol=0, atol=1e-6)


def test_tiles_are_cross_faded(official: OfficialRid) -> None:
    """A flat picture looks the same to each tile, so a blend lies between known values."""
    x = torch.full((1, 3, 16, 24), 0.4)
    unit = official(x[..., :16])
    blended = official.delta(x, 255, way="tiles", overlap=0.5)
    # Tiles start at 0, 4 and 8; the fade between the first two runs over the pixels 4 to 11.
    torch.testing.assert_close(blended[..., :4], unit[..., :4], rtol=0, atol=1e-6)
    first, second = unit[..., 4:12], unit[..., 0:8]
    middle = blended[..., 4:8]
    low, high = torch.minimum(first, second)[..., :4], torch.maximum(first, second)[..., :4]
    assert (middle >= low - 1e-6).all()
    assert (middle <= high + 1e-6).all()
    assert ((middle - first[..., :4]).abs() > 1e-4).any()
    assert ((middle - second[..., :4]).abs() > 1e-4).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": images(3, 16, 16)}, r"images must be \[B, 3, H, W\]"),
        ({"images": images(1, 4, 16, 16)}, r"images must be \[B, 3, H, W\]"),
        ({"images": images(1, 3, 0, 16)}, r"images must be \[B, 3, H, W\]"),
        ({"images": images(1, 3, 16, 16).byte()}, r"floats, not .* in torch\.uint8"),
        ({"budget": -1.0}, "budget must be from 0 to 255"),
        ({"budget": math.nan}, "budget must be from 0 to 255"),
        ({"way": "fit"}, "way must be one of resize, tiles"),
        ({"overlap": 0.6}, "overlap must be from 0 to 0.5"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_misuse_is_named(official: OfficialRid, change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"images": images(1, 3, 16, 16), "budget": 8.0, **change}
    with pytest.raises(UsageError, match=words):
        official.delta(**arguments)


def test_the_network_itself_takes_its_own_size_only(official: OfficialRid) -> None:
    with pytest.raises(UsageError, match=r"images must be \[B, 3, 16, 16\], not \[1, 3, 16, 20\]"):
        official(images(1, 3, 16, 20))
