"""Finding the protective output."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import pictures

from unlikeness.errors import UsageError
from unlikeness.immunize.outputs import watermark, watermarked
from unlikeness.measure.protective import FOUND, pattern_correlation, protective


def test_a_stamped_mark_is_found_and_a_clean_picture_has_none() -> None:
    images = torch.cat([pictures(20, size=64), torch.rand(20, 3, 64, 64)])
    clean, marked = (pattern_correlation(x, watermark()) for x in (images, watermarked(images, watermark())))
    assert float(marked.min()) > 0.99
    assert float(clean.max()) < FOUND
    found = protective("pattern", watermarked(images, watermark()), pattern=watermark())
    assert torch.equal(found, torch.ones(40).bool())


def test_the_mark_is_found_when_it_is_faint_noisy_or_moved_a_little() -> None:
    images = watermarked(pictures(8, size=64), watermark())
    faint = 0.5 + 0.3 * (images - 0.5)
    noisy = images + 0.15 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    moved = torch.roll(images, (-1, -1), (2, 3))
    for changed in (faint, noisy, moved):
        assert float(pattern_correlation(changed, watermark()).min()) > 0.7


def test_a_flat_picture_and_the_inverted_mark_are_not_found() -> None:
    assert float(pattern_correlation(torch.full((1, 3, 64, 64), 0.4), watermark()).abs().max()) < 1e-3
    inverted = 1 - watermarked(pictures(1, size=64), watermark())
    assert float(pattern_correlation(inverted, watermark()).max()) < FOUND


def test_a_tint_is_no_watermark() -> None:
    """A lawn is as green as a green mark, and has nothing of its form."""
    green = torch.zeros(3, 16, 16)
    green[1], green[1, :, 8:] = 1.0, 0.7
    lawn = torch.tensor([0.1, 0.6, 0.1]).view(1, 3, 1, 1) + 0.1 * torch.rand(16, 3, 64, 64)
    assert float(pattern_correlation(lawn, green).max()) < FOUND
    assert float(pattern_correlation(watermarked(lawn, green), green).min()) > 0.95


def test_it_is_the_correlation_written_out() -> None:
    images = torch.rand(3, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    side, slack = 12, 1
    small = F.interpolate(watermark()[None], (side, side), mode="bilinear", antialias=True)[0]
    m = (small - small.mean((1, 2), keepdim=True)).flatten().double()
    for image, found in zip(images, pattern_correlation(images, watermark()), strict=True):
        best = -1.0
        for up in range(slack + 1):
            for left in range(slack + 1):
                rows, columns = slice(40 - side - up, 40 - up), slice(50 - side - left, 50 - left)
                w = image[:, rows, columns]
                w = (w - w.mean((1, 2), keepdim=True)).flatten().double()
                best = max(best, float(w @ m / (w.norm() * m.norm())))
        assert float(found) == pytest.approx(best, abs=1e-5)


def test_classes_are_read() -> None:
    def read(images: torch.Tensor) -> list[str]:
        return ["dog", "cat", "mug"][: len(images)]

    images = pictures(3)
    assert protective("erasure", images, read=read, class_noun="dog").tolist() == [False, True, True]
    assert protective("target", images, read=read, target_noun="cat").tolist() == [False, True, False]


@pytest.mark.parametrize("kind", ["pattern", "erasure", "target", "smile"])
def test_what_is_missing_is_named(kind: str) -> None:
    with pytest.raises(UsageError, match="cannot be looked for"):
        protective(kind, pictures(1))


def test_a_flat_corner_beside_an_object_has_no_watermark() -> None:
    """Where a window is flat, variance and correlation are rounding, whatever lies beside it."""
    y = torch.linspace(0, 1, 16)
    gradient = y[:, None].expand(16, 16)[None].repeat(3, 1, 1)
    for size in (64, 512):
        images = torch.ones(4, 3, size, size)
        side = round(size * 0.3)
        for i, width in enumerate((1, 2, 3, 4)):
            images[i, :, :, -side - width : -side] = torch.rand(3, size, width)
        found = pattern_correlation(images, gradient)
        assert float(found.abs().max()) < FOUND
    assert float(pattern_correlation(watermarked(images, gradient), gradient).min()) > 0.95
    assert not pattern_correlation(images, torch.full((3, 16, 16), 0.5)).any()
