"""Versions, names and digests of a record."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from unlikeness import __version__
from unlikeness.provenance import own_name, pixel_digest, versions


def test_versions_are_those_that_are_installed() -> None:
    found = versions()
    assert found["unlikeness"] == __version__
    assert list(found) == ["python", "unlikeness", "torch", "diffusers", "transformers", "peft"]


def test_a_path_does_not_get_into_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "network.safetensors").write_text("")
    assert own_name(str(tmp_path / "model")) == "model"
    assert own_name(str(tmp_path / "network.safetensors")) == "network.safetensors"
    assert own_name("someone/model") == "someone/model"
    monkeypatch.chdir(tmp_path / "model")
    assert own_name(".") == "model"


def test_a_digest_is_of_eight_bits_and_of_the_shape() -> None:
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    bits = (images * 255).round().to(torch.uint8)
    assert pixel_digest(images) == pixel_digest(bits) == pixel_digest(bits.double() / 255)
    assert pixel_digest(bits) == hashlib.sha256(b"(2, 3, 4, 5)" + bits.numpy().tobytes()).hexdigest()
    assert pixel_digest(bits) != pixel_digest(bits.reshape(2, 3, 5, 4))
    assert pixel_digest(bits.flip(3)) != pixel_digest(bits)
