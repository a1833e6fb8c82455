"""L∞, PSNR and SSIM mean what everybody means by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.measure import linf, psnr, ssim


def pair(height: int, width: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two smooth pictures with texture, [2,3,H,W], and noisy copies."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 5, 7, generator=generator)
    a = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    b = (a + noise * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    return a, b


@pytest.mark.parametrize(
    ("height", "width"), [(11, 11), (40, 61), (150, 33)]
)  # the last is more than one strip
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.2])
def test_ssim_agrees_with_scikit_image(height: int, width: int, noise: float) -> None:
    a, b = pair(height, width, noise)
    for i, ours in enumerate(ssim(a, b)):
        theirs = structural_similarity(
            a[i].permute(1, 2, 0).double().numpy(),
            b[i].permute(1, 2, 0).double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=2,
        )
        assert float(ours) == pytest.approx(theirs, abs=1e-4)


def test_psnr_agrees_with_scikit_image() -> None:
    a, b = pair(30, 40, 0.05)
    for i, ours in enumerate(psnr(a, b)):
        theirs = peak_signal_noise_ratio(a[i].double().numpy(), b[i].double().numpy(), data_range=1.0)
        assert float(ours) == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("n", [1, 4, 8, 16])
def test_linf_of_8_bit_pictures_is_exact(n: int) -> None:
    """A change of n/255 reads n, never n + 1e-5: a budget can be compared with <=."""
    levels = np.arange(256 - n, dtype=np.uint8)
    a = torch.from_numpy(levels.astype(np.float32) / 255).view(1, 1, 1, -1)
    b = torch.from_numpy((levels + n).astype(np.float32) / 255).view(1, 1, 1, -1)
    assert linf(a, b).tolist() == [n]
    assert linf(b, a).tolist() == [n]


def test_identical_pictures() -> None:
    a, _ = pair(20, 20, 0.0)
    assert linf(a, a).tolist() == [0, 0]
    assert psnr(a, a).tolist() == [float("inf")] * 2
    assert ssim(a, a).tolist() == pytest.approx([1, 1])


def test_each_picture_of_a_batch_has_its_own_figure() -> None:
    a, b = pair(20, 20, 0.05)
    b[1] = a[1]
    for measure in (linf, psnr, ssim):
        whole = measure(a, b)
        assert whole.shape == (2,)
        assert float(whole[0]) == pytest.approx(float(measure(a[:1], b[:1])[0]))
        assert float(whole[0]) != pytest.approx(float(whole[1]))


def test_different_shapes_and_tiny_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="one shape"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
    with pytest.raises(UsageError, match="11 × 11"):
        ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30))
