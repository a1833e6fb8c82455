"""Finished parts of a run: made once for each name and key, whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from unlikeness.cache import Cache
from unlikeness.errors import UnlikenessError


def test_a_part_is_made_once_for_each_key(tmp_path: Path) -> None:
    made: list[int] = []

    def make(_: Path) -> dict[str, Tensor]:
        made.append(len(made))
        return {"x": torch.full((2,), float(len(made)))}

    cache = Cache(tmp_path / "work")
    first = cache.part("a name/with signs", {"steps": 1}, make)
    again = Cache(tmp_path / "work").part("a name/with signs", {"steps": 1}, make)
    assert torch.equal(first.tensors["x"], again.tensors["x"])
    assert made == [0]
    assert cache.part("a name/with signs", {"steps": 2}, make).tensors["x"].tolist() == [2.0, 2.0]
    assert len(list((tmp_path / "work").iterdir())) == 2


@pytest.mark.parametrize("folder", [True, False])
def test_the_state_of_a_training_stays_until_the_part_is_there(folder: bool, tmp_path: Path) -> None:
    def stopped(state: Path) -> dict[str, Tensor]:
        file = state / "state" if folder else state
        file.parent.mkdir(exist_ok=True)
        file.write_text("half")
        raise KeyboardInterrupt

    def resumed(state: Path) -> dict[str, Tensor]:
        assert (state / "state" if folder else state).read_text() == "half"
        return {"x": torch.zeros(1)}

    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.part("a", {}, stopped)
    cache.part("a", {}, resumed)
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]


def test_without_a_folder_nothing_is_kept() -> None:
    states: list[Path] = []

    def make(state: Path) -> dict[str, Tensor]:
        state.write_text("state")
        states.append(state)
        return {"x": torch.zeros(1)}

    for _ in range(2):
        assert Cache(None).part("a", {}, make).tensors["x"].tolist() == [0.0]
    assert len(states) == 2
    assert not any(state.parent.exists() for state in states)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.part("a", {}, lambda _: {"x": torch.zeros(1)})
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    with pytest.raises(UnlikenessError, match=r"a-.* is damaged .*; delete it and start again"):
        cache.part("a", {}, lambda _: {})
