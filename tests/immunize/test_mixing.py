"""A share of the change, from the checkpoint of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_model

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.lora import add_lora, merged_copy
from unlikeness.errors import UsageError
from unlikeness.immunize import immunize
from unlikeness.immunize.mixing import mix
from unlikeness.subjects import Subject

FEW: dict[str, Any] = {
    "outer_steps": 2, "inner_steps": 1, "class_images": 4, "class_steps": 2, "batch_size": 1,
    "attack_batch_size": 1, "learning_rate": 1e-3, "precision": "float32",
}  # fmt: skip


def test_any_share_of_a_finished_run_without_another_step(
    exact: TextToImage, dog: Subject, tmp_path: Path
) -> None:
    checkpoint, steps = tmp_path / "state.safetensors", list[int]()
    whole = immunize(exact, [dog], "apdm", FEW, checkpoint=checkpoint, after=lambda n, _: steps.append(n))
    assert steps == [1, 2]
    less = immunize(
        exact, [dog], "apdm", {**FEW, "strength": 0.25}, checkpoint=checkpoint,
        after=lambda n, _: steps.append(n),
    )  # fmt: skip
    assert steps == [1, 2]
    changed = 0
    for name, before in exact.unet.named_parameters():
        trained, released = (one.unet.get_parameter(name) for one in (whole, less))
        torch.testing.assert_close(released, before + 0.25 * (trained - before), rtol=0, atol=1e-12)
        changed += not torch.equal(trained, before)
    assert changed


def test_what_a_run_began_from_includes_its_adapters(weights: Path) -> None:
    model = tiny_model(weights, dtype="float64")
    for p in add_lora(model, rank=2):
        p.data.normal_()
    base = merged_copy(model)
    trained = merged_copy(model)
    for p in trained.unet.parameters():
        p.data += 1
    mixed = mix(trained, model, 0.5)
    for p, before in zip(mixed.unet.parameters(), base.unet.parameters(), strict=True):
        torch.testing.assert_close(p, before + 0.5)


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_no_change_at_all_and_more_than_all_of_it_are_refused(
    exact: TextToImage, dog: Subject, strength: float
) -> None:
    with pytest.raises(UsageError, match="strength"):
        immunize(exact, [dog], "apdm", {**FEW, "strength": strength})
