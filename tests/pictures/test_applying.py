"""The quick way to write RGB gives the same integers as the general one."""

from __future__ import annotations

import numpy as np
import pytest

from unlikeness.pictures.colour import ColourModel, apply


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("budget", [0.0, 0.4, 3.5, 8.0, 300.0])
@pytest.mark.parametrize("channels", [3, 4])
def test_plain_colours(dtype: type[np.uint8 | np.uint16], budget: float, channels: int) -> None:
    """Colours multiplied by a full alpha take the general way."""
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    pixels = rng.integers(0, top, (20, 30, channels), dtype, endpoint=True)
    pixels[:3], pixels[3:6] = 0, top
    pixels[..., 3:] = top
    rgb = (pixels[..., :3] / top + rng.normal(0, 0.05, (20, 30, 3))).astype(np.float32)
    plain = ColourModel("rgb", "straight" if channels == 4 else "none")
    found = apply(pixels, plain, rgb, budget)
    with_alpha = pixels if channels == 4 else np.dstack((pixels, np.full((20, 30, 1), top, dtype)))
    wanted = apply(with_alpha, ColourModel("rgb", "premultiplied"), rgb, budget)[..., :channels]
    assert found.dtype == dtype
    assert np.array_equal(found, wanted)
    assert np.abs(found.astype(int) - pixels.astype(int)).max() <= budget * top / 255
