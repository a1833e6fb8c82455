"""What a trained perturbation must outlive: the real thing as far as its values go, with a gradient."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import pictures
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.protect.rid.train.augment import (
    Augment,
    blur,
    jpeg,
    noise,
    quantisation,
    rescale,
)

KINDS = ("jpeg", "rescale", "blur", "noise")
ONLY: dict[str, dict[str, Any]] = {kind: {other: float(other == kind) for other in KINDS} for kind in KINDS}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pillow(image: Tensor, quality: int, subsample: bool) -> Tensor:
    """[1, 3, H, W] through Pillow's JPEG."""
    rgb = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling="4:2:0" if subsample else "4:4:4")
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255


def test_the_tables_are_those_that_pillow_writes() -> None:
    tables = quantisation(torch.arange(1, 101))
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
        written = Image.open(file).quantization  # type: ignore[attr-defined]
        assert tables[quality - 1].tolist() == [list(written[0]), list(written[1])]


@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (61, 75), (40, 23)])
def test_jpeg_agrees_with_pillow(size: tuple[int, int], subsample: bool) -> None:
    smooth = torch.nn.functional.interpolate(pictures(4, seed=3), size=size, mode="bilinear")
    grainy = (smooth + 0.05 * torch.randn(smooth.shape, generator=source())).clamp(0, 1)
    for images, close in ((smooth, 1 / 255), (grainy, 1.5 / 255)):
        for i in range(len(images)):
            image = images[i : i + 1]
            for quality in (50, 75, 90):
                ours, real = jpeg(image, quality, subsample), pillow(image, quality, subsample)
                assert ours.shape == image.shape
                assert (ours - real).abs().mean() < close
                assert (ours - real).abs().mean() < 0.5 * (image - real).abs().mean()
    flat = torch.full((1, 3, *size), 101 / 255)
    assert (jpeg(flat, 75, subsample) - pillow(flat, 75, subsample)).abs().max() < 1.5 / 255


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 8), (8, 8)])
def test_jpeg_takes_any_size(size: tuple[int, int]) -> None:
    image = (0.3 + 0.4 * pictures(2))[..., : size[0], : size[1]].requires_grad_(True)
    for subsample in (True, False):
        result = jpeg(image, 75, subsample)
        assert result.shape == image.shape
        assert (result - image).abs().max() < 0.1
        (gradient,) = torch.autograd.grad(result.sum(), image)
        assert gradient.isfinite().all()
        if not subsample or size == (8, 8):  # no column or row counts twice: colours are kept in the mean
            torch.testing.assert_close(gradient, torch.ones_like(gradient))


def test_every_picture_has_its_own_quality() -> None:
    images = pictures(3)
    together = jpeg(images, torch.tensor([20, 60, 95]))
    for i, quality in enumerate((20, 60, 95)):
        torch.testing.assert_close(together[i : i + 1], jpeg(images[i : i + 1], quality))
    lost = (together - images).abs().flatten(1).mean(1)
    assert lost[0] > lost[1] > lost[2] > 0
    for wrong in (0, 101, torch.tensor([50, 200])):
        with pytest.raises(UsageError, match="quality must be 1 to 100"):
            jpeg(images[:2], wrong)


def test_the_gradient_knows_that_halved_chroma_is_lost_and_luma_is_not() -> None:
    image = (0.3 + 0.4 * pictures(1)).requires_grad_(True)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board = (((rows + columns) % 2) * 2.0 - 1.0)[None, None]
    grey = board.expand(1, 3, -1, -1)
    coloured = torch.cat([board / 0.299, -board / 0.587, 0 * board], 1)  # of no luminance
    weights = torch.randn(image.shape, generator=source())
    for subsample, kept in ((True, (1.0, 0.0)), (False, (1.0, 1.0))):
        (gradient,) = torch.autograd.grad((jpeg(image, 75, subsample) * weights).sum(), image)
        for direction, share in zip((grey, coloured), kept, strict=True):
            whole = float((weights * direction).sum())
            assert abs(whole) > 10
            assert abs(float((gradient * direction).sum()) - share * whole) < 0.02


def test_jpeg_is_not_coarser_under_autocast_or_for_half_precision() -> None:
    images = pictures(2)
    with torch.autocast("cpu", torch.bfloat16):
        inside, blurred = jpeg(images, 75), blur(images, 0.7)
    assert torch.equal(inside, jpeg(images, 75))
    assert torch.equal(blurred, blur(images, 0.7))
    assert jpeg(images.bfloat16(), 75).dtype == torch.bfloat16


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
def test_blur_is_a_gaussian(sigma: float) -> None:
    point = torch.zeros(1, 3, 31, 31)
    point[..., 15, 15] = 1
    spread = blur(point, sigma)
    at = torch.arange(31.0) - 15
    wanted = torch.exp(-0.5 * (at / sigma) ** 2)
    wanted = wanted / wanted.sum()
    torch.testing.assert_close(spread, torch.outer(wanted, wanted).expand_as(spread), atol=3e-3, rtol=0)
    torch.testing.assert_close(blur(torch.full((1, 3, 5, 4), 0.7), sigma), torch.full((1, 3, 5, 4), 0.7))
    assert torch.equal(blur(point, 0.0), point)


def test_noise_has_its_strength_for_each_picture() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    strength = ((noise(grey, torch.tensor([2.0, 8.0]), source()) - grey) * 255).flatten(1).std(1)
    torch.testing.assert_close(strength, torch.tensor([2.0, 8.0]), rtol=0.05, atol=0)
    ends = noise(torch.ones(1, 3, 8, 8), 8.0, source())
    assert ends.max() == 1
    assert ends.min() < 1


def test_rescaling_loses_what_a_smaller_picture_cannot_hold() -> None:
    smooth = pictures(1)
    fine = torch.zeros(1, 3, 32, 32)
    fine[..., ::2] = 0.1
    kept = rescale(smooth + fine, 0.5) - rescale(smooth, 0.5)
    assert (kept - 0.05)[..., 4:-4].abs().max() < 1e-3  # the stripes are gone, their mean is there
    assert (rescale(smooth, 0.5) - smooth).abs().mean() < 0.02
    assert torch.equal(rescale(smooth, 1.0), smooth)
    assert rescale(pictures(1)[..., :7, :5], 0.1).shape == (1, 3, 7, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_has_a_gradient_and_stays_in_the_range(kind: str) -> None:
    images = (0.2 + 0.6 * pictures(3)).requires_grad_(True)
    result = Augment(**ONLY[kind])(images, source(1))
    assert result.shape == images.shape
    assert 0 <= result.min() <= result.max() <= 1
    assert not torch.equal(result, images)
    (gradient,) = torch.autograd.grad(result.sum(), images)
    assert gradient.isfinite().all()
    assert abs(float(gradient.mean()) - 1) < 0.02  # a brighter picture gives a result as much brighter


def test_each_kind_is_drawn_as_often_and_as_strongly_as_it_says() -> None:
    images = pictures(2, size=16)
    augment = Augment(
        jpeg=0.1, rescale=0.2, blur=0.25, noise=0.15, quality=(60, 60), factor=(0.5, 0.5),
        blur_sigma=(0.8, 0.8), noise_sigma=(4.0, 4.0),
    )  # fmt: skip
    known = {"jpeg": jpeg(images, 60), "rescale": rescale(images, 0.5), "blur": blur(images, 0.8)}
    generator = source(3)
    counts = dict.fromkeys((*KINDS, "nothing"), 0)
    for _ in range(600):
        result = augment(images, generator)
        same = [kind for kind, wanted in known.items() if torch.equal(result, wanted)]
        if result is images:
            same = ["nothing"]
        elif not same:
            assert 3 < float((result - images)[(result > 0.1) & (result < 0.9)].std() * 255) < 5
            same = ["noise"]
        counts[same[0]] += 1
    expected = {"jpeg": 60, "rescale": 120, "blur": 150, "noise": 90, "nothing": 180}
    for kind, count in expected.items():
        assert abs(counts[kind] - count) < 4 * math.sqrt(count), counts


def test_half_of_the_batches_are_left_alone_by_default_and_the_generator_decides() -> None:
    images, augment = pictures(1, size=8), Augment()
    generator = source()
    untouched = sum(augment(images, generator) is images for _ in range(400))
    assert 160 < untouched < 240
    first = [augment(images, g) for g in [source(5)] for _ in range(8)]
    again = [augment(images, g) for g in [source(5)] for _ in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
