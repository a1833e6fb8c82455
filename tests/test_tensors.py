"""Weights on disk: complete, under their own name only, and readable as any other new file."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unlikeness.errors import UnlikenessError
from unlikeness.foreign import UnreadableError
from unlikeness.tensors import read_tensors, save_tensors


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_file_has_the_permissions_of_any_new_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.safetensors"
    for value in (1.0, 2.0):
        save_tensors({"a": torch.full((2,), value)}, path, {"format": "pt"})
        assert path.stat().st_mode & 0o777 == 0o640
        assert torch.equal(load_file(path)["a"], torch.full((2,), value))
        assert list(path.parent.iterdir()) == [path]
    assert os.umask(0o027) == 0o027


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("file/a.safetensors", "folder.safetensors", "a" * 300):
        path = tmp_path / name
        with pytest.raises(UnlikenessError, match="cannot be written") as caught:
            save_tensors({"a": torch.ones(2)}, path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]


def test_many_names_of_the_same_bytes_do_not_fill_the_memory(tmp_path: Path) -> None:
    one = torch.zeros(1000, 100)
    torch.save({"a": one, "tied": one}, tmp_path / "tied.pth")
    assert read_tensors(tmp_path / "tied.pth").keys() == {"a", "tied"}
    torch.save({f"a{i}": one for i in range(100)}, tmp_path / "bomb.pth")
    with pytest.raises(UnreadableError, match="far more than its own size"):
        read_tensors(tmp_path / "bomb.pth")


def test_a_name_that_is_no_text_is_not_written_out(tmp_path: Path) -> None:
    torch.save({(1, 2): torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(UnreadableError, match="a tuple as a name"):
        read_tensors(tmp_path / "a.pth")


def test_a_key_of_nested_tuples_is_refused_before_it_is_used(tmp_path: Path) -> None:
    """Each level is the level below it twice: forty of them take 2⁴⁰ steps, and 200 bytes."""
    code = b"\x80\x02}q\x00K\x01\x85q\x01"
    code += b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(1, 41))
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "a.ckpt") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.ckpt", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, code + b"K\x01s." if name.endswith("data.pkl") else content)
    began = time.perf_counter()
    with pytest.raises(UnreadableError, match="it nests tuples too deeply"):
        read_tensors(tmp_path / "b.ckpt")
    assert time.perf_counter() - began < 2
