"""Editing by windows, and the promise that no rounding ever oversteps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.pictures.makers import LOSSLESS, changed, image, samples

from unlikeness.errors import UsageError
from unlikeness.pictures import Edit, Picture, open_picture, save_picture
from unlikeness.pictures.colour import ColourModel, apply, to_rgb

MODELS = [
    ColourModel("grey"),
    ColourModel("rgb"),
    ColourModel("cmyk"),
    ColourModel("grey", "straight"),
    ColourModel("rgb", "premultiplied"),
]


def pixels_of(model: ColourModel, dtype: type, seed: int) -> NDArray[Any]:
    array = samples(model.colours + (model.alpha != "none"), dtype, seed)
    if model.alpha == "premultiplied":
        array[..., :-1] = np.minimum(array[..., :-1], array[..., -1:])
    return array


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    seed=st.integers(0, 2**32 - 1),
    budget=st.floats(0, 32),
)
def test_no_change_oversteps(model: ColourModel, dtype: type, seed: int, budget: float) -> None:
    pixels = pixels_of(model, dtype, seed)
    before = to_rgb(pixels, model)
    rng = np.random.default_rng(seed)
    wanted = (before + rng.uniform(-budget, budget, before.shape) / 255).astype(np.float32)
    asked = np.abs(np.clip(wanted, 0, 1) - before)
    hair = 1 / 64 / np.iinfo(dtype).max + 1e-6
    truncated = np.abs(to_rgb(apply(pixels, model, wanted, None), model) - before)
    if model.space == "grey":
        assert (truncated.max(axis=2) <= asked.max(axis=2) + hair).all()
    else:
        assert (truncated <= asked + hair).all()
    held = np.abs(to_rgb(apply(pixels, model, wanted, budget), model) - before)
    assert held.max() <= budget / 255 * (1 + 1e-4) + 1e-6


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("budget", [None, 8.0])
def test_no_change_changes_nothing(model: ColourModel, budget: float | None) -> None:
    """Also through the encoder's range and back, which costs float32 a few bits."""
    for dtype in (np.uint8, np.uint16):
        pixels = pixels_of(model, dtype, 3)
        rgb = to_rgb(pixels, model)
        there_and_back = (((rgb * 2 - 1) + 1) / 2).astype(np.float32)
        assert np.array_equal(apply(pixels, model, rgb, budget), pixels)
        assert np.array_equal(apply(pixels, model, there_and_back, budget), pixels)


def test_the_whole_budget_arrives() -> None:
    """A change of exactly 8/255 is eight levels, not seven, with a budget and without."""
    for dtype, levels in ((np.uint8, 8), (np.uint16, 2056)):
        pixels = np.clip(samples(3, dtype), 2056 if levels > 8 else 8, np.iinfo(dtype).max - levels)
        pixels = pixels.astype(dtype)
        model = ColourModel("rgb")
        for budget in (None, 8.0):
            moved = apply(pixels, model, to_rgb(pixels, model) + np.float32(8 / 255), budget)
            assert np.array_equal(moved.astype(int) - pixels, np.full(pixels.shape, levels))


def open_case(name: str, tmp_path: Path) -> Picture:
    LOSSLESS[name](tmp_path / "source")
    return open_picture(tmp_path / "source")


@pytest.mark.parametrize("name", ["png-rotated", "tiff-16-rgb", "tiff-cmyk", "tiff-premultiplied"])
def test_windows_are_parts_of_the_whole(name: str, tmp_path: Path) -> None:
    picture = open_case(name, tmp_path)
    width, height = picture.size
    assert np.array_equal(picture.window(2, 11, 3, 9), picture.rgb[2:11, 3:9])
    wanted = changed(picture)
    whole, parts = Edit(picture), Edit(picture)
    whole.write(0, 0, wanted)
    for y in range(0, height, 5):
        for x in range(0, width, 7):
            parts.write(y, x, wanted[y : y + 5, x : x + 7])
    assert np.array_equal(whole.stored, parts.stored)
    assert np.array_equal(parts.window(1, 6, 2, 9), whole.window(0, height, 0, width)[1:6, 2:9])


def test_a_window_written_again_replaces_the_first(tmp_path: Path) -> None:
    picture = open_case("png-rgb", tmp_path)
    edit = Edit(picture)
    edit.write(0, 0, changed(picture))
    assert edit.changed
    edit.write(0, 0, picture.rgb)
    assert not edit.changed


def test_the_source_array_cannot_be_written(tmp_path: Path) -> None:
    picture = open_case("png-rgb", tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0, 0] = 0


def test_grey_stays_grey_and_takes_the_mean(tmp_path: Path) -> None:
    picture = open_case("png-grey", tmp_path)
    rgb = picture.rgb[5:6, 5:6]
    edit = Edit(picture)
    edit.write(5, 5, rgb + np.array([9, 3, 0], np.float32) / 255)
    assert edit.stored[5, 5, 0] == picture.pixels[5, 5, 0] + 4


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    picture = open_case("png-rgb", tmp_path)
    edit = Edit(picture)
    with pytest.raises(UsageError, match="does not fit"):
        edit.write(20, 0, np.zeros((2, 2, 3), np.float32))
    with pytest.raises(UsageError, match="shape"):
        edit.write(0, 0, np.zeros((2, 2), np.float32))
    with pytest.raises(UsageError, match="not numbers"):
        edit.write(0, 0, np.full((2, 2, 3), np.nan, np.float32))
    with pytest.raises(UsageError, match="budget"):
        Edit(picture, budget=-1)
    with pytest.raises(IndexError):
        picture.window(0, 99, 0, 1)
    with pytest.raises(UsageError, match="shape"):
        save_picture(picture, np.zeros((2, 2, 3), np.float32), tmp_path / "target")
    with pytest.raises(UsageError, match="int64"):
        save_picture(picture, np.zeros((21, 34, 3), np.int64), tmp_path / "target")  # type: ignore[arg-type]
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_taken_too(dtype: type, tmp_path: Path) -> None:
    picture = open_case("png-16-rgb", tmp_path)
    wanted = samples(3, dtype, seed=9)
    save_picture(picture, wanted, tmp_path / "target")
    again = open_picture(tmp_path / "target").rgb
    assert np.abs(again - wanted / np.iinfo(dtype).max).max() < 2 / 65535


def test_a_large_picture_needs_no_float_copy(tmp_path: Path) -> None:
    """Peak of what numpy and Python allocate while a picture is edited in tiles: its integers, once more."""
    import tracemalloc

    side = 1500
    image("RGB").resize((side, side)).save(tmp_path / "source.png", compress_level=1)
    picture = open_picture(tmp_path / "source.png")
    tracemalloc.start()
    edit = Edit(picture, budget=8)
    for y in range(0, side, 250):
        edit.write(y, 0, picture.window(y, y + 250, 0, side) + np.float32(2 / 255))
    save_picture(picture, edit, tmp_path / "target.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * side * side + 250 * side * 3 * 4 * 10
