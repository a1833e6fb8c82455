"""The fixtures of the benchmarks' tests, and a tiny model in a folder."""

from __future__ import annotations

from typing import Any

import pytest
from tests.benchmarks.conftest import apart, judge, model, models
from tests.tiny import write_tiny

from experiments import drift_curve, immunization, immunizing
from unlikeness.verify.attack import Attacked

__all__ = ["apart", "judge", "model", "models"]


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags of a smoke run, with a small random model that reads prompts as long as the toybox's."""
    folder = write_tiny(tmp_path_factory.mktemp("models") / "tiny", tokens=77)
    return ["--quick", "--device", "cpu", "--model", str(folder)]


@pytest.fixture(autouse=True)
def _few_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What must stay as it was is drawn for every one of these prompts."""
    few = immunizing.captions()[::20]
    for module in (drift_curve, immunization, immunizing):
        monkeypatch.setattr(module, "captions", lambda: few)


@pytest.fixture
def unattacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the attackers, who have tests of their own: they return the released model."""

    def attacked(released: Any, subject: Any, *_: Any, **__: Any) -> Attacked:
        return Attacked(released, subject)

    monkeypatch.setattr("experiments.immunization.run_attacker", attacked)
