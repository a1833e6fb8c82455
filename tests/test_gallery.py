"""Folders of generated pictures: written as they come, with a grid that stays of a size people can open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.gallery import grid, save_generated


def images(count: int, side: int = 8) -> Tensor:
    """[count, 3, side, side], each of one grey."""
    return torch.linspace(0, 1, count)[:, None, None, None].expand(-1, 3, side, side)


def test_pictures_are_written_as_they_come(tmp_path: Path) -> None:
    written: list[int] = []

    def batches() -> Iterator[Tensor]:
        for batch in torch.split(images(5), 2):
            written.append(len(list(tmp_path.rglob("0*.png"))))
            yield batch

    how: dict[str, Any] = {"prompts": ["a dog"] * 5, "seeds": list(range(5)), "settings": {"steps": 2}}
    files = save_generated(batches(), tmp_path / "drawn", **how)
    assert written == [0, 2, 4]
    assert [file.name for file in files] == [f"000{i}.png" for i in range(5)]
    save_generated(images(5), tmp_path / "at once", **how)
    for name in (*(file.name for file in files), "grid.png", "generation.json"):
        assert (tmp_path / "drawn" / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()
    assert len(json.loads((tmp_path / "drawn" / "generation.json").read_text())["pictures"]) == 5


@pytest.mark.parametrize("count", [0, 2, 4])
def test_fewer_or_more_pictures_than_named_leave_no_folder(count: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        save_generated(images(count), tmp_path / "drawn", prompts=["a dog"] * 3, seeds=[0, 1, 2], settings={})
    assert list(tmp_path.iterdir()) == []


def test_a_grid_is_row_by_row() -> None:
    sheet = np.asarray(grid(images(5), columns=2))
    assert sheet.shape == (28, 18, 3)
    assert [int(sheet[y, x, 0]) for y in (0, 10, 20) for x in (0, 10)] == [0, 64, 128, 191, 255, 255]
    with pytest.raises(UsageError, match="at least one"):
        grid(images(0))


def test_a_grid_of_very_many_is_of_smaller_pictures() -> None:
    many = grid(images(300, side=64), columns=2)  # 9,600 pixels high, were they whole
    width, height = many.size
    assert height < 8192 + 2 * 150
    assert height > 7000
    assert width == 2 * 54 + 2
    assert Image.fromarray(np.asarray(many)[-54:, -54:]).getextrema() == ((255, 255),) * 3
