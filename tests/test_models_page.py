"""The table of docs/models.md: each cell that says yes is a test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COLUMNS = ("open", "single file", "generate", "LoRA", "full", "protect", "immunize", "verify")

_FLOW, _ON_FLOW = "diffusion/test_flow_families.py", "immunize/test_flow.py"
_XL, _ON_XL = "diffusion/test_sdxl.py", "immunize/test_sdxl.py"

_ORIGINAL = "diffusion/test_single_file_flow.py::test_a_whole_file_opens_and_a_changed_transformer_goes_back"

_FLOWING = {
    "open": f"{_FLOW}::test_a_saved_copy_draws_the_same_and_has_the_same_weights",
    "generate": f"{_FLOW}::test_draws_bit_for_bit_what_plain_diffusers_draws",
    "LoRA": f"{_FLOW}::test_a_lora_is_trained_and_drawn_with_by_plain_diffusers",
    "full": f"{_FLOW}::test_a_fully_tuned_model_opens_in_the_plain_pipeline",
    "protect": f"{_ON_FLOW}::test_a_picture_is_protected_against_it",
    "immunize": f"{_ON_FLOW}::test_every_method_changes_the_transformer_alone",
    "verify": f"{_ON_FLOW}::test_a_model_is_verified",
}

CELLS: dict[str, dict[str, str]] = {
    "Stable Diffusion 1 and 2": {
        "open": "diffusion/test_loading.py::test_opens_here_and_its_copy_opens_in_plain_diffusers",
        "single file": "diffusion/test_single_file.py",
        "generate": "benchmarks/test_parity.py::test_nothing_differs_from_plain_diffusers",
        "LoRA": "benchmarks/test_parity.py::test_nothing_differs_from_plain_diffusers",
        "full": "personalize/test_methods.py::test_learns_the_subject_and_leaves_the_model_alone",
        "protect": "protect/test_walk.py::test_every_method_keeps_its_bounds_and_beats_noise",
        "immunize": (
            "immunize/test_plain_diffusers.py::test_a_tiny_immunized_model_is_attacked_with_diffusers_alone"
        ),
        "verify": "verify/test_run.py::test_from_model_to_verdict",
    },
    "Stable Diffusion XL": {
        "open": f"{_XL}::test_a_copy_is_the_same_model_and_a_variant_opens",
        "single file": "diffusion/test_single_file.py::test_stable_diffusion_xl_opens_and_goes_back",
        "generate": f"{_XL}::test_draws_bit_for_bit_what_the_pipeline_draws",
        "LoRA": f"{_XL}::test_a_saved_lora_draws_the_same_in_the_plain_pipeline",
        "full": f"{_XL}::test_a_fully_tuned_model_opens_in_the_plain_pipeline",
        "protect": f"{_ON_XL}::test_a_picture_is_protected_against_it",
        "immunize": f"{_ON_XL}::test_every_method_changes_the_unet_alone",
        "verify": f"{_ON_XL}::test_it_is_verified",
    },
    "Stable Diffusion 3 and 3.5": {**_FLOWING, "single file": _ORIGINAL},
    "FLUX.1": {**_FLOWING, "single file": _ORIGINAL},
    "Z-Image": _FLOWING,
}
"""Family -> column -> its test, as FILE::FUNCTION, or a whole file."""


def test_the_page_says_what_is_tested() -> None:
    lines = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| family | open"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    rows = rows[: next(i for i, row in enumerate(rows) if row == [""])]
    assert tuple(rows[0][1:]) == COLUMNS
    said = {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in rows[2:]}
    assert said == {
        family: {column: "yes" if column in cells else "no" for column in COLUMNS}
        for family, cells in CELLS.items()
    }


@pytest.mark.parametrize("family", CELLS)
def test_each_cell_is_a_test(family: str) -> None:
    for test in CELLS[family].values():
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert any(name.startswith("test_") for name in names) if not function else function in names
