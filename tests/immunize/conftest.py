"""A tiny model in float64 and subjects for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import pictures, tiny_model

from unlikeness.diffusion import TextToImage
from unlikeness.subjects import Subject


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def exact(weights: Path) -> TextToImage:
    """Epsilon prediction, float64. Nothing changes it: the methods promise that."""
    return tiny_model(weights, dtype="float64")


@pytest.fixture(scope="session")
def dog() -> Subject:
    return Subject(pictures(3, seed=1), "dog")


@pytest.fixture(scope="session")
def cat() -> Subject:
    return Subject(pictures(2, seed=2), "cat")
