"""Pictures of any size: within the budget, without seams, and strong where a trainer looks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from unlikeness.diffusion import TextToImage, diffusion_loss
from unlikeness.pictures import Edit, Picture, open_picture
from unlikeness.protect.base import Perturber
from unlikeness.protect.methods.advdm import AdvDM, AdvDMSettings
from unlikeness.protect.methods.noise import Noise, NoiseSettings
from unlikeness.protect.settings import ProtectSettings, ResolutionMode
from unlikeness.protect.tiling import batches
from unlikeness.protect.tiling.tiles import PictureTiles, grids
from unlikeness.viewing import viewed


def write(path: Path, width: int, height: int, mode: str = "RGB", seed: int = 0) -> Path:
    """A smooth random picture, kept away from black and white."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (5, 7, 3), dtype=np.uint8))
    coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


class Smooth:
    """The same smooth pattern for the same content: like a network, it agrees with itself across tiles."""

    resolution = 32
    settings = ProtectSettings(budget=8.0)

    def perturb(
        self, images: torch.Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
    ) -> torch.Tensor:
        return (images + (images - 0.5).clamp(-1, 1) * (16 / 255)).clamp(0, 1)


def protected(
    path: Path, perturber: Perturber, at: ResolutionMode, batch_size: int = 4
) -> tuple[Picture, Edit]:
    class Work(PictureTiles[Picture, Edit]):
        pixels = 0

    picture = open_picture(path)
    budget = perturber.settings.budget
    edit = Edit(picture, budget=budget)
    work = Work(picture, edit, resolution=perturber.resolution, budget=budget, at=at, seed=1)
    assert list(batches.run([work], perturber, batch_size=batch_size)) == [work]
    return picture, edit


def delta(picture: Picture, edit: Edit) -> np.ndarray:
    width, height = picture.size
    return (edit.window(0, height, 0, width) - picture.rgb) * 255


@pytest.mark.parametrize("mode", ["fit", "tiles", "both"])
@pytest.mark.parametrize(
    "size", [(32, 32), (100, 75), (75, 100), (500, 20), (7, 300), (20, 20), (1, 1), (200, 90)]
)
def test_any_size_is_changed_everywhere_and_within_the_budget(
    tmp_path: Path, model: TextToImage, mode: str, size: tuple[int, int]
) -> None:
    path = write(tmp_path / "a.png", *size)
    picture, edit = protected(path, Noise(model, NoiseSettings()), ResolutionMode(mode=mode))
    change = delta(picture, edit)
    assert change.shape == (size[1], size[0], 3)
    assert np.abs(change).max() <= 8.001
    assert np.abs(change).mean() > 2


def test_the_small_copy_is_bounded_however_long_a_picture_is() -> None:
    for size in [(4000, 3000), (100_000, 100), (100_000_000, 1), (30, 1_000_000)]:
        (grid,) = grids(size, 64, ResolutionMode())
        assert len(grid) <= 29
        assert grid.rows.tile <= 128
        assert grid.size[0] * grid.size[1] <= 24 * 128 * 128
    (photo,) = grids((4000, 3000), 64, ResolutionMode())
    assert (photo.size, photo.rows.tile, len(photo)) == ((171, 128), 128, 3)


def test_a_grey_picture_keeps_the_strength_of_a_coloured_one(tmp_path: Path, model: TextToImage) -> None:
    path = write(tmp_path / "grey.png", 32, 32, mode="L")
    change = delta(*protected(path, Noise(model, NoiseSettings()), ResolutionMode(mode="tiles")))
    np.testing.assert_allclose(np.abs(change), 8, atol=1e-3)


def test_a_grey_picture_is_changed_no_more_than_a_coloured_one(tmp_path: Path) -> None:
    class Half(Smooth):
        """Half of the budget, the same in all channels."""

        def perturb(
            self, images: torch.Tensor, seeds: Sequence[int], on_step: Callable[[int], None] | None = None
        ) -> torch.Tensor:
            return images + 0.5 * (super().perturb(images, seeds, on_step) - images).mean(1, keepdim=True)

    path = write(tmp_path / "grey.png", 96, 64, mode="L")
    picture, edit = protected(path, Half(), ResolutionMode(mode="tiles"))
    wanted = np.clip((picture.rgb - 0.5) * 16, -8, 8) / 2
    assert np.abs(delta(picture, edit) - wanted).max() <= 0.51


def test_tiles_of_one_picture_show_no_seams(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", 300, 210)
    picture, edit = protected(path, Smooth(), ResolutionMode(mode="tiles"))
    wanted = np.clip((picture.rgb - 0.5) * 16, -8, 8)
    assert np.abs(delta(picture, edit) - wanted).max() <= 0.51


@pytest.mark.parametrize("mode", ["fit", "tiles"])
def test_independent_tiles_are_no_rougher_at_their_borders_than_elsewhere(
    tmp_path: Path, model: TextToImage, mode: str
) -> None:
    path = write(tmp_path / "a.png", 512, 160)
    at = ResolutionMode(mode=mode)
    picture, edit = protected(path, AdvDM(model, AdvDMSettings(steps=4)), at, batch_size=8)
    steps = np.abs(np.diff(delta(picture, edit), axis=1)).mean(axis=(0, 2))
    (grid,) = grids(picture.size, 32, ResolutionMode(mode=mode))
    zoom = picture.size[0] / grid.size[0]
    starts = list(grid.columns.starts[1:])
    ends = [start + grid.columns.tile for start in grid.columns.starts[:-1]]
    borders = sorted({round(at * zoom) - 1 + k for at in starts + ends for k in (-1, 0, 1)})
    assert len(borders) > 6
    assert steps[borders].mean() < 1.15 * np.median(steps)


def test_fit_is_strong_where_a_trainer_looks_and_full_size_tiles_and_noise_are_not(
    tmp_path: Path, model: TextToImage
) -> None:
    path = write(tmp_path / "a.png", 256, 192, seed=3)

    def loss(rgb: np.ndarray) -> float:
        seen = Image.fromarray((rgb * 255).round().astype(np.uint8)).resize(
            (43, 32), Image.Resampling.LANCZOS
        )
        square = np.asarray(seen.crop((5, 0, 37, 32)), dtype=np.float32) / 255
        images = torch.from_numpy(square).permute(2, 0, 1)[None].expand(64, -1, -1, -1)
        t = torch.arange(64) * model.schedule.steps // 64
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            z0 = model.encode(images).sample(generator)
            return float(diffusion_loss(model, z0, model.condition(["a photo"]), t=t, generator=generator))

    clean = loss(open_picture(path).rgb)
    advdm, noise = AdvDM(model, AdvDMSettings(steps=25)), Noise(model, NoiseSettings())

    def rise(perturber: Perturber, mode: str) -> float:
        _, edit = protected(path, perturber, ResolutionMode(mode=mode), batch_size=8)
        return loss(edit.window(0, 192, 0, 256)) / clean - 1

    fit = rise(advdm, "fit")
    assert fit > 0.15
    assert rise(noise, "fit") < 0.2 * fit
    assert rise(noise, "tiles") < 0.2 * fit


def test_a_large_picture_needs_little_memory_beside_itself(tmp_path: Path, model: TextToImage) -> None:
    picture = open_picture(write(tmp_path / "a.png", 3000, 2000))
    edit = Edit(picture, budget=8)
    noise = Noise(model, NoiseSettings())
    tracemalloc.start()
    try:
        for mode in ("fit", "tiles"):
            work = PictureTiles(picture, edit, resolution=32, budget=8, at=ResolutionMode(mode=mode), seed=0)
            for tile in work.tiles():
                image = torch.from_numpy(tile.image).permute(2, 0, 1)[None]
                work.accept(tile, (noise.perturb(image, [0]) - image)[0].permute(1, 2, 0).numpy())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6  # one float copy of the whole would be 72 MB
    assert np.abs(edit.window(900, 950, 0, 3000) - picture.window(900, 950, 0, 3000)).mean() > 0.01


def test_a_picture_does_not_depend_on_its_company_nor_on_the_place_in_a_batch(
    tmp_path: Path, model: TextToImage
) -> None:
    advdm = AdvDM(model, AdvDMSettings(steps=3))

    class Work(PictureTiles[Picture, Edit]):
        pixels = 0

    def works(names: Sequence[str]) -> list[Work]:
        opened = [open_picture(tmp_path / name) for name in names]
        return [
            Work(p, Edit(p, budget=8), resolution=32, budget=8, at=ResolutionMode(), seed=len(p.path.name))
            for p in opened
        ]

    for k, size in enumerate([(64, 64), (90, 64), (30, 30)]):
        write(tmp_path / f"{'x' * (k + 1)}.png", *size, seed=k)
    together = list(batches.run(works(["x.png", "xx.png", "xxx.png"]), advdm, batch_size=3))
    alone = list(batches.run(works(["xx.png"]), advdm, batch_size=3))
    assert [work.picture.path.name for work in together] == ["x.png", "xx.png", "xxx.png"]
    np.testing.assert_array_equal(together[1].edit.stored, alone[0].edit.stored)


def test_large_pictures_do_not_pile_up_until_a_batch_is_full(
    tmp_path: Path, model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "HELD_PIXELS", 5000)
    path = write(tmp_path / "a.png", 64, 64)
    opened = 0

    class Work(PictureTiles[Picture, Edit]):
        pixels = 64 * 64

    def works() -> Iterator[Work]:
        nonlocal opened
        for _ in range(6):
            opened += 1
            picture = open_picture(path)
            yield Work(picture, Edit(picture), resolution=32, budget=8, at=ResolutionMode(), seed=0)

    run = batches.run(works(), Noise(model, NoiseSettings()), batch_size=100)
    for k, _ in enumerate(run):
        assert opened <= k + 2


def test_the_model_sees_a_larger_tile_through_the_trainers_resizing(model: TextToImage) -> None:
    images = torch.rand(1, 3, 80, 64, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(images, (40, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(viewed(images, model.resolution), wanted)
    assert viewed(wanted, model.resolution) is wanted
