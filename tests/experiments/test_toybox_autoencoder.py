"""Autoencoders for the toybox: what is measured of them, and how they are made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from experiments.toybox_autoencoder import (
    BUDGET,
    ROWS,
    Code,
    Row,
    in_basis,
    linear,
    measured,
    new_network,
    present,
    trained,
)
from torch import Tensor


def pictures(count: int, generator: torch.Generator, side: int = 32) -> Tensor:
    """Far enough from black and white that no change is clamped."""
    return 0.2 + 0.6 * torch.rand(count, 3, side, side, generator=generator)


IMAGES = pictures(6, torch.Generator().manual_seed(0), 16)


def test_of_the_pixels_themselves_noise_and_attack_move_by_the_budget() -> None:
    found = measured(Code(lambda x: x, lambda x: x + 0.1), IMAGES, 2, 30, 0)
    flat = IMAGES.flatten(1)
    far = torch.cdist(flat[:2], flat).sum(1) / 5
    expected = float((BUDGET * flat.shape[1] ** 0.5 / far).mean())
    assert found["noise"]["value"] == pytest.approx(expected, rel=1e-4)
    assert found["attack"]["value"] == pytest.approx(expected, rel=1e-4)
    assert found["psnr"]["value"] == pytest.approx(20.0, abs=1e-3)


def test_an_attack_finds_what_noise_does_not() -> None:
    found = measured(Code(lambda x: F.avg_pool2d(x, 8), None), IMAGES, 2, 30, 0)
    assert found["attack"]["value"] > 6 * found["noise"]["value"]
    assert "psnr" not in found


def test_linear_codes_keep_the_most_and_every_coefficient_alike() -> None:
    few, all_ = (linear(Row(kind="linear", factor=4, channels=c), IMAGES) for c in (8, 48))
    latents = few.encode(IMAGES).permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(latents.cov(), torch.eye(8), atol=1e-3, rtol=0)
    assert few.reconstruct
    assert all_.reconstruct
    torch.testing.assert_close(all_.reconstruct(IMAGES), IMAGES, atol=1e-4, rtol=0)
    assert (few.reconstruct(IMAGES) - IMAGES).abs().mean() > 0.05


@pytest.mark.parametrize("patches", [False, True])
def test_another_basis_has_latents_of_one_size(patches: bool) -> None:
    scale = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1)
    found = in_basis(Code(lambda x: x * scale, None), IMAGES, patches=patches).encode(IMAGES)
    assert found.shape == ((6, 12, 8, 8) if patches else (6, 3, 16, 16))
    torch.testing.assert_close(found.std((0, 2, 3)), torch.ones(found.shape[1]), atol=1e-2, rtol=0)


def test_a_training_starts_from_the_toybox_and_continues_exactly(tmp_path: Path) -> None:
    row, old = ROWS["critic"], present().state_dict()
    ends = []
    for stops in ((2,), (1, 2)):
        for steps in stops:
            network = new_network(row)
            assert all(torch.equal(old[key], value) for key, value in network.state_dict().items())
            trained(network, row, steps, tmp_path / f"{len(stops)}.safetensors", pictures)
        ends.append(network.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in old)
    assert not torch.equal(ends[0]["encoder.conv_in.weight"], old["encoder.conv_in.weight"])


def test_rows_of_other_shapes_have_theirs() -> None:
    for name, shape in (("channels-12", (1, 12, 8, 8)), ("channels-4-of-8px", (1, 4, 4, 4))):
        network = new_network(ROWS[name])
        assert network.encode(torch.zeros(1, 3, 32, 32)).latent_dist.mean.shape == shape
