"""The sizes of published models, as their authors state them."""

from __future__ import annotations

import pytest
from benchmarks.report import BENCHMARKS

from benchmarks import family_memory


@pytest.mark.parametrize(
    ("name", "billions"), [("Stable Diffusion 1.5", 0.86), ("FLUX.1 dev", 11.9), ("Z-Image", 6.15)]
)
def test_the_denoiser_has_the_published_size(name: str, billions: float) -> None:
    found = family_memory.figures(name)
    assert found["denoiser_parameters"] / 1e9 == pytest.approx(billions, rel=0.01)
    assert found["protect"] < found["lora"] < found["dreambooth"] < found["immunize"]
    assert found["lora"] < found["immunize_rank"] < 1.1 * found["lora"]


def test_the_table_names_the_model_and_what_is_left_out() -> None:
    cell = dict.fromkeys(family_memory.COMMANDS, 2**30)
    cells = {"FLUX.1 dev": {"denoiser_parameters": 11.9e9, "other_parameters": 5e9, **cell}}
    shown = family_memory.render({"about": {"rank": 16}, "cells": cells})
    assert "| FLUX.1 dev | 11.90 | 5.00 | 1.0 |" in shown
    assert "Activations come on top" in shown
    assert BENCHMARKS[family_memory.NAME] == "benchmarks.family_memory"
