"""Displacement is relative to other pictures; noise of the same energy stands beside it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from unlikeness.autoencoders import Autoencoder
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.measure import latents, matched
from unlikeness.measure.latents import displacements, sample_sentences
from unlikeness.measure.report import to_json
from unlikeness.measure.ways import WAYS, noisy, opened_pair, seen


class Means(nn.Module):
    """An encoder that can be followed by hand: latents are the means of 8 × 8 pixels, in [-1, 1]."""

    config = {"scaling_factor": 1.0}  # noqa: RUF012
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain), requires_grad=False)
        self.batches: list[int] = []

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        self.batches.append(len(pixels))
        return SimpleNamespace(latents=self.gain * F.avg_pool2d(pixels, 8))


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def picture(grey: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.full((*size, 3), grey)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Greys of 50, 100 and 150, their copies 10 steps lighter."""
    for i, grey in enumerate((50, 100, 150)):
        write(tmp_path / "photos" / f"{i}.png", picture(grey))
        write(tmp_path / "protected" / f"{i}.png", picture(grey + 10))
    return tmp_path / "photos", tmp_path / "protected"


def test_a_displacement_is_relative_to_the_distance_of_other_pictures(folders: tuple[Path, Path]) -> None:
    """50 is 50 and 100 away from the others, so a change of 10 steps is 10 / 75 of another picture."""
    report = displacements(matched(*folders), {"means": Autoencoder(Means())}, size=64)
    assert [one.protected["means"]["as it is"] for one in report.pictures] == pytest.approx(
        [10 / 75, 10 / 50, 10 / 75], rel=1e-4
    )
    (found,) = report.autoencoders
    assert found.protected["as it is"].value == pytest.approx((10 / 75 + 10 / 50 + 10 / 75) / 3, rel=1e-4)
    assert set(found.protected) == set(WAYS)
    assert report.psnr is not None
    assert report.psnr.value == pytest.approx(20 * np.log10(255 / 10), abs=0.01)
    # Means of 64 pixels average white noise away, but no shift of the whole picture.
    assert found.noise["as it is"].value < found.protected["as it is"].value / 4
    assert found.sentence == (
        "moves what the encoder of means sees 0.16 as far as another picture would; noise of the same "
        f"strength {found.noise['as it is'].value:.2f}"
    )


def test_a_displacement_does_not_depend_on_the_scale_of_latents(folders: tuple[Path, Path]) -> None:
    both = {"one": Autoencoder(Means()), "seven": Autoencoder(Means(7.0))}
    report = displacements(matched(*folders), both, size=64)
    for one in report.pictures:
        assert one.protected["one"] == pytest.approx(one.protected["seven"], rel=1e-4)
        assert one.noise["one"] == pytest.approx(one.noise["seven"], rel=1e-4)
    assert report.autoencoders[0].fingerprint != report.autoencoders[1].fingerprint


def test_batches_are_small_and_the_report_is_reproducible_json(folders: tuple[Path, Path]) -> None:
    network = Means()
    first = to_json(displacements(matched(*folders), {"means": Autoencoder(network)}, size=64, seed=3))
    assert max(network.batches) <= 4
    again = to_json(displacements(matched(*folders), {"means": Autoencoder(Means())}, size=64, seed=3))
    assert first == again
    assert json.loads(first)["size"] == 64


def test_the_latents_of_originals_are_computed_once(folders: tuple[Path, Path]) -> None:
    network = Means()
    displacements(matched(*folders), {"means": Autoencoder(network)}, size=64, ways=("as it is",))
    assert sum(network.batches) == 3 * 3  # original, protected, noise


def test_many_pictures_are_compared_with_some(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "OTHERS", 2)
    report = displacements(matched(*folders), {"means": Autoencoder(Means())}, size=64)
    figures = [one.protected["means"]["as it is"] for one in report.pictures]
    assert figures == pytest.approx([10 / 100, 10 / 50, 10 / 100], rel=1e-4)  # 0 and 2 stand for all


def test_noise_has_the_energy_of_the_change_even_at_the_ends_of_the_range() -> None:
    for grey in (0.0, 0.5, 1.0):
        before = torch.full((3, 64, 64), grey)
        after = (before + 0.03 * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))).clamp(
            0, 1
        )
        noised = noisy(before, after, torch.Generator().manual_seed(1))
        wanted, reached = ((image - before).square().mean() for image in (after, noised))
        assert float(reached) == pytest.approx(float(wanted), rel=0.03)
        assert noised.min() >= 0
        assert noised.max() <= 1
        assert torch.allclose((noised * 255).round() / 255, noised)


def test_original_and_copy_go_the_same_way() -> None:
    image = torch.rand(3, 96, 130, generator=torch.Generator().manual_seed(0))
    assert torch.equal(WAYS["as it is"](image), image)
    assert WAYS["half size"](image).shape == (3, 48, 65)
    assert (WAYS["JPEG 50"](image) - image).abs().mean() > (WAYS["JPEG 75"](image) - image).abs().mean() > 0
    for way in WAYS.values():
        assert seen(way(image), 64).shape == (3, 64, 64)


def test_a_large_picture_is_shrunk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlikeness.measure.ways.MOST_PIXELS", 1000)
    monkeypatch.setattr("unlikeness.measure.ways._BAND", 500)
    ramp = np.broadcast_to(np.arange(100)[:, None, None] * 2, (100, 77, 3))
    file = write(tmp_path / "a.png", ramp)
    image, _ = opened_pair(file, file, 1 << 20)
    assert image.shape == (3, 33, 25)
    assert torch.allclose(image[0, :, 0] * 255, torch.arange(33) * 6 + 2.0, atol=1e-3)


def test_a_long_strip_costs_no_more_than_its_middle(tmp_path: Path) -> None:
    ramp = np.broadcast_to((np.arange(70_000) % 251)[None, :, None], (2, 70_000, 3))
    strip = write(tmp_path / "a.png", ramp)
    turned = write(tmp_path / "b.png", ramp.transpose(1, 0, 2))
    for file, shape in ((strip, (3, 2, 16)), (turned, (3, 16, 2))):
        image, _ = opened_pair(file, file, 1 << 20)
        assert image.shape == shape
        assert image.flatten()[0] * 255 == 34_992 % 251
        assert all(seen(way(image), 64).shape == (3, 64, 64) for way in WAYS.values())


def test_unchanged_pictures_have_no_psnr_and_do_not_move(folders: tuple[Path, Path]) -> None:
    found = matched(folders[0], folders[0])
    report = displacements(found, {"means": Autoencoder(Means())}, size=64)
    assert report.psnr is None
    assert all(one.psnr is None and one.protected["means"]["JPEG 75"] == 0 for one in report.pictures)


def test_pairs_that_cannot_be_measured_are_lines_and_the_rest_goes_on(folders: tuple[Path, Path]) -> None:
    write(folders[0] / "wide.png", picture(80, (64, 80)))
    write(folders[1] / "wide.png", picture(80))
    write(folders[0] / "alone.png", picture(80))
    (folders[1] / "1.png").write_bytes(b"not a picture")
    report = displacements(matched(*folders), {"means": Autoencoder(Means())}, size=64)
    assert [one.name for one in report.pictures] == ["0.png", "2.png"]
    assert report.only_original == ("alone.png",)
    assert len(report.failed) == 2
    assert "1.png" in report.failed[0]
    assert "64 × 64 px, but its original has 80 × 64" in report.failed[1]


def test_too_few_pictures_sizes_and_encoders_are_one_sentence(folders: tuple[Path, Path]) -> None:
    means = {"means": Autoencoder(Means())}
    with pytest.raises(UsageError, match="single picture"):
        displacements(matched(folders[0] / "0.png", folders[1] / "0.png"), means)
    with pytest.raises(UsageError, match="multiple of 64"):
        displacements(matched(*folders), means, size=100)
    with pytest.raises(UsageError, match="no autoencoder"):
        displacements(matched(*folders), {})
    for name in ("0.png", "1.png"):
        (folders[1] / name).write_bytes(b"not a picture")
    with pytest.raises(UnlikenessError, match="two or more"):
        displacements(matched(*folders), means, size=64)
    pairs = [(folders[0] / f"{i}.png", folders[1] / f"{i}.png") for i in range(3)]
    with pytest.raises(UnlikenessError, match="two or more"):
        sample_sentences(pairs, means, size=64)


def test_the_same_pictures_everywhere_give_no_distance(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / "photos" / f"{i}.png", picture(90))
        write(tmp_path / "protected" / f"{i}.png", picture(95))
    with pytest.raises(UnlikenessError, match="pictures that differ"):
        displacements(
            matched(tmp_path / "photos", tmp_path / "protected"), {"means": Autoencoder(Means())}, size=64
        )


def test_an_encoder_that_gives_nan_is_named(folders: tuple[Path, Path]) -> None:
    with pytest.raises(NotFiniteError, match="encoder"):
        displacements(matched(*folders), {"broken": Autoencoder(Means(float("nan")))}, size=64)


def test_a_sample_has_a_sentence_for_each_encoder(folders: tuple[Path, Path]) -> None:
    pairs = [(folders[0] / f"{i}.png", folders[1] / f"{i}.png") for i in range(3)]
    both = {"one": Autoencoder(Means()), "two": Autoencoder(Means(2.0))}
    first, second = sample_sentences(pairs, both, size=64, most=2)
    assert first.startswith("moves what the encoder of one sees 0.10 as far as another picture would; noise")
    assert first.endswith("(measured on 2 pictures)")
    assert "of two " in second
    with pytest.raises(UnlikenessError, match="over the bound of 10"):
        sample_sentences(pairs, both, size=64, max_pixels=10)
    assert sample_sentences(pairs[:1], both, size=64) == []
    assert sample_sentences(pairs, {}, size=64) == []
