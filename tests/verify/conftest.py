"""A tiny model, a subject of one colour, an embedder of colours, and settings for seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import PIXELS, pictures, tiny_model
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.subjects import Subject
from unlikeness.verify import VerifySettings

QUICK: dict[str, Any] = {
    "steps": 2, "learning_rate": 1e-3, "lora_learning_rate": 1e-3, "class_images": 2, "class_steps": 2,
    "unrelated_steps": 2, "most_chunks": 2, "pictures": 2, "pictures_in_context": 1, "others_of_class": 3,
    "quality_pictures": 6, "solver_steps": 2, "precision": "float32",
}  # fmt: skip


def colours(images: Tensor) -> Tensor:
    """An embedder that knows pictures by their mean colour, whatever the size."""
    return F.normalize(images.mean((2, 3)) - 0.5, dim=1)


def tinted(count: int, colour: tuple[float, float, float], *, seed: int = 0) -> Tensor:
    """[count, 3, 32, 32] of nearly one colour."""
    return 0.9 * torch.tensor(colour).view(1, 3, 1, 1).expand(count, 3, PIXELS, PIXELS) + 0.1 * pictures(
        count, seed=seed
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return tiny_model(tmp_path_factory.mktemp("models"), seed=1)


@pytest.fixture
def subject() -> Subject:
    return Subject(tinted(2, (0.9, 0.1, 0.1)), "dog")


@pytest.fixture
def held_out() -> Tensor:
    return tinted(3, (0.9, 0.1, 0.1), seed=1)


@pytest.fixture
def of_class() -> Tensor:
    return torch.cat([tinted(2, (0.1, 0.1, 0.9), seed=2), tinted(2, (0.1, 0.9, 0.1), seed=3)])


@pytest.fixture
def base() -> VerifySettings:
    return VerifySettings(**QUICK)
