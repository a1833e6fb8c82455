"""A tiny random model, and an embedder that needs no weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch.nn.functional as F
from tests.tiny import tiny_model
from torch import Tensor

from unlikeness.demo.story import Evaluator
from unlikeness.diffusion import TextToImage


def colours(images: Tensor) -> Tensor:
    """An embedder that knows subjects by the colours in their middle, whatever the size."""
    side = images.shape[-1] // 4
    return F.normalize(images[..., side:-side, side:-side].mean((2, 3)) - 0.5, dim=1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    """It draws in two solver steps."""
    made = tiny_model(tmp_path_factory.mktemp("models"))
    made.defaults = replace(made.defaults, steps=2)
    return made


@pytest.fixture
def evaluator(monkeypatch: pytest.MonkeyPatch) -> Evaluator:
    """Of few pictures; the loss is that of few levels."""
    monkeypatch.setattr("unlikeness.demo.story.LEVELS", 3)
    return Evaluator(colours, held_out=3, of_class=4)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs, one in a folder and with a name that HTML would trip over, and a broken file."""
    import numpy as np
    from PIL import Image

    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "trip/b <1>.jpg"):
        Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder
