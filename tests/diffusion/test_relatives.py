"""Pipelines with the same parts open as their family; schedules that a family cannot use are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.tiny import write_tiny

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.families import FAMILIES, RELATIVES
from unlikeness.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny")


def changed(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_relatives_are_classes_of_diffusers() -> None:
    known = set(dir(diffusers)) & set(RELATIVES)
    assert len(known) > 0.8 * len(RELATIVES)  # some come and go between versions
    assert set(FAMILIES) & set(RELATIVES.values())


def test_a_pipeline_with_the_same_parts_opens_as_its_family(folder: Path, tmp_path: Path) -> None:
    plain = TextToImage.from_pretrained(folder, device="cpu").generate(["a dog"], seeds=[1], steps=2)
    for name in ("StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"):
        changed(folder / "model_index.json", {"_class_name": name})
        model = TextToImage.from_pretrained(folder, device="cpu")
        assert torch.equal(model.generate(["a dog"], seeds=[1], steps=2), plain)
    changed(folder / "model_index.json", {
        "_class_name": "StableDiffusionControlNetPipeline", "controlnet": ["diffusers", "ControlNetModel"],
    })  # fmt: skip
    model = TextToImage.from_pretrained(folder, device="cpu")
    index = json.loads((model.save_pretrained(tmp_path / "saved") / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert "controlnet" not in index
    changed(folder / "model_index.json", {"controlnet": ["mine", "Mine"], "_class_name": "Mine"})
    with pytest.raises(UsageError, match="not supported"):
        TextToImage.from_pretrained(folder, device="cpu")


def test_a_schedule_of_flow_matching_is_refused_for_a_stable_diffusion(folder: Path) -> None:
    diffusers.FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    changed(folder / "model_index.json", {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]})
    with pytest.raises(UsageError, match=r"FlowMatchEulerDiscreteScheduler, which is never loaded"):
        TextToImage.from_pretrained(folder, device="cpu")


def test_a_flow_through_a_noise_schedule_is_refused(folder: Path) -> None:
    changed(folder / "scheduler" / "scheduler_config.json", {"use_flow_sigmas": True})
    with pytest.raises(UsageError, match="draws along a flow"):
        TextToImage.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_predicted_noise_needs_a_signal_at_every_level(prediction: str, folder: Path) -> None:
    diffusers.DDIMScheduler(
        rescale_betas_zero_snr=True, prediction_type=prediction, timestep_spacing="trailing"
    ).save_pretrained(folder / "scheduler")
    changed(folder / "model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]})
    if prediction == "v_prediction":
        assert TextToImage.from_pretrained(folder, device="cpu").schedule.signal[-1] < 1e-3
        return
    with pytest.raises(UsageError, match="ends at pure noise"):
        TextToImage.from_pretrained(folder, device="cpu")
