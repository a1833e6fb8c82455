"""Int8: all variants find nearly the same δ, and the table says how near."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.rid_int8 import BUDGET, REFERENCE, passes, pictures, render, variants

from unlikeness.protect.rid.weights import load_protector

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_all_variants_find_nearly_the_same(tmp_path: Path) -> None:
    made = variants(load_protector("rid-toybox"), tmp_path, pictures(4, 64, (1, 2)))
    found = passes(made, 64, 1, 0)
    assert list(found["variants"]) == list(made)
    assert 2 < found["rms"] < BUDGET
    for name, figures in found["variants"].items():
        assert figures["rms_error"] < 0.1 * found["rms"]
        assert ("int8" in name) == (figures["rms_error"] > 0.02)
        assert 0 < figures["least_cpu_ms"] <= figures["cpu_ms"]
    assert found["variants"]["PyTorch, float32"]["max_error"] < 0.001
    picture = pictures(1, 48, (3, 4))[0]
    for run in made.values():
        assert np.abs(run(picture)).max() <= BUDGET / 255 + 1e-6
    cells = {
        "passes": found,
        "loss": {"raised": {name: {"value": 1.5, "low": 1.4, "high": 1.6} for name in made}},
    }
    counts = {"side": 64, "rounds": 1, "pictures": 8, "calibration": 4, "subjects": 1}
    text = render({"cells": cells, "about": {**counts, "budget": BUDGET, "seed": 0}})
    assert f"| {REFERENCE} |" in text
    assert "| 1.00 | 0.000 | 0.00 | 1.50 [1.40, 1.60] |" in text
