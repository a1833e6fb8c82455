"""A tiny model under attack, and stand-ins for the judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch.nn.functional as F
from benchmarks.judging import Counts, Judge
from tests.tiny import tiny_model
from torch import Tensor

from benchmarks import common
from unlikeness.diffusion import TextToImage
from unlikeness.toybox.world import CONTEXTS


class Colours:
    """Tells pictures apart by the colours in their middle, at any size; reads the same in every one."""

    def __call__(self, images: Tensor) -> Tensor:
        side = images.shape[-1]
        middle = images[..., side // 4 : -side // 4, side * 3 // 8 : -side * 3 // 8]
        return F.normalize(F.adaptive_avg_pool2d(middle - 0.5, (4, 1)).flatten(1), dim=1)

    def read(self, images: Tensor) -> tuple[list[str], list[str]]:
        return ["dog"] * len(images), [next(iter(CONTEXTS))] * len(images)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever a benchmark keeps lies in this test's own folder."""
    monkeypatch.setattr(common, "RUNS", tmp_path / "runs")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny models, each written once."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def model(models: Path) -> TextToImage:
    """Opened for each test, which may change it."""
    return tiny_model(models)


@pytest.fixture
def judge() -> Judge:
    """Of few pictures, drawn in one solver step."""
    return Judge(Colours(), Colours(), replace(Counts.few(), steps=1))
