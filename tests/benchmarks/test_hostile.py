"""The hostile benchmark: its bombs are what they say, its counts see a fault, its table shows one."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from benchmarks.bombs import BOMBS, pixels_of
from benchmarks.interruptions import results
from PIL import Image

from benchmarks import hostile
from unlikeness.errors import PictureError
from unlikeness.pictures.kinds import format_of

LIGHT = [name for name in BOMBS if "GiB" not in name and "interlaced" not in name]


def test_there_are_sixty_bombs_of_every_format() -> None:
    assert len(BOMBS) >= 60
    formats = {name.partition(":")[0] for name in BOMBS}
    assert formats == {"tiff", "jpeg", "png", "webp", "bmp", "heic", "avif"}


@pytest.mark.parametrize("name", LIGHT[::4])
def test_a_bomb_is_small_and_looks_like_its_format(name: str) -> None:
    data = BOMBS[name]()
    assert len(data) < 15_000_000
    assert str(format_of(data[:4096])).lower() == name.partition(":")[0]


def test_mutants_come_from_their_seed_alone_and_are_damaged(tmp_path: Path) -> None:
    seeds = hostile.seed_files(tmp_path)
    assert len(seeds) >= 60
    first = [hostile.mutant(seeds, random.Random(i)) for i in range(50)]
    assert first == [hostile.mutant(seeds, random.Random(i)) for i in range(50)]
    assert sum(data in seeds for data in first) < 5


def test_what_is_neither_opened_nor_refused_is_counted_as_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hostile.mutated(6, tmp_path / "a", 0)
    assert found["wrong"] == 0
    assert found["opened"] + found["refused"] == 6

    def fails(path: Path, **_: object) -> Any:
        raise RuntimeError("a fault")

    def two_lines(path: Path, **_: object) -> Any:
        raise PictureError("two\nlines")

    for number, fault in enumerate((fails, two_lines)):
        monkeypatch.setattr(hostile, "open_picture", fault)
        assert hostile.mutated(3, tmp_path / f"b{number}", 0)["wrong"] == 3


def test_a_saved_picture_that_does_not_open_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoils(picture: object, pixels: object, target: Path, **_: object) -> None:
        target.write_bytes(b"nothing")

    monkeypatch.setattr(hostile, "save_picture", spoils)
    monkeypatch.setattr(hostile, "mutant", lambda seeds, draw: draw.choice(seeds))
    assert hostile.mutated(3, tmp_path / "c", 0)["wrong"] == 3


def test_a_slow_and_a_greedy_reader_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small() -> bytes:
        Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
        return (tmp_path / "small.png").read_bytes()

    monkeypatch.setattr(hostile, "SECONDS", 0.0)
    monkeypatch.setattr(hostile, "MEBIBYTES", -1e9)
    monkeypatch.setattr(hostile, "METHOD", "rid")  # without torch
    found = hostile.exploded({"png: a picture": small}, tmp_path / "bombs")
    assert (found["opened"], found["too_slow"], found["too_large"]) == (1, 1, 1)
    assert found["folder_good"]
    assert not found["folder_traceback"]
    assert found["folder_untold"] == 0


def test_results_of_a_run_leave_out_times_and_see_pixels(tmp_path: Path) -> None:
    for name, seconds, value in (("a", 1, 1), ("b", 2, 1), ("c", 1, 2)):
        folder = tmp_path / name / "run"
        folder.mkdir(parents=True)
        (folder / "manifest.jsonl").write_text(f'{{"path": "x", "seconds": {seconds}, "linf": 1}}\n' * value)
        (folder / "x").write_bytes(zlib.compress(bytes([value])))
    a, b, c = (results(tmp_path / name / "run") for name in "abc")
    assert a == b
    assert a["run/manifest.jsonl"] == c["run/manifest.jsonl"]
    assert a["run/x"] != c["run/x"]


def test_weights_are_compared_by_their_values_and_metadata(tmp_path: Path) -> None:
    def written(name: str, header: str, value: int) -> dict[str, str]:
        file = tmp_path / name / "run.safetensors"
        file.parent.mkdir()
        file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes([value]))
        return results(file.with_suffix(""))

    first = written("a", '{"__metadata__": {"a": "1", "b": "2"}}', 1)
    assert first == written("b", '{"__metadata__": {"b": "2", "a": "1"}}', 1)
    assert first != written("c", '{"__metadata__": {"a": "1", "b": "3"}}', 1)
    assert first != written("d", '{"__metadata__": {"a": "1", "b": "2"}}', 2)


def test_the_table_shows_what_went_wrong() -> None:
    cells = {
        "mutants/9": {
            "files": 9, "seeds": 3, "opened": 3, "refused": 4, "unwritable": 1, "wrong": 1, "longest": 2.0,
        },
        "kills/protect": {
            "kills": 5, "runs": 2, "equal": 1, "different": 1, "unfinished": 0, "leftovers": 0,
        },
        "two": {"statuses": [0, 0], "said": False, "equal": True},
    }  # fmt: skip
    table = hostile.render({"cells": cells})
    assert "1 otherwise; the slowest took 2.0 s" in table
    assert "1 otherwise, 0 unfinished" in table
    assert "**the second did not say so**" in table


def test_a_bomb_of_many_pixels_may_take_these() -> None:
    assert pixels_of("png: 190 interlaced megapixels of zeros") == 190_000_000
    assert pixels_of("jpeg: 4,000 scans of 36 megapixels") == 36_000_000
    assert pixels_of("webp: a canvas of 268 megapixels") == 0
    assert pixels_of("png: 300,000 chunks") == 0
