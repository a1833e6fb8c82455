"""A LoRA of the text encoders too: trained, written in both forms, and read by plain diffusers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import pictures, tiny_model
from tests.tiny_xl import tiny_xl

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.lora import has_lora, load_lora, merged_copy
from unlikeness.diffusion.lora_writing import save_lora
from unlikeness.errors import UsageError
from unlikeness.personalize import create, personalize
from unlikeness.personalize.cost import memory
from unlikeness.presets import ATTACKS, preset_values, which_preset
from unlikeness.subjects import Subject

SETTINGS: dict[str, Any] = {
    "steps": 2, "class_images": 2, "class_steps": 1, "learning_rate": 1e-2, "rank": 2, "alpha": 3.0,
    "text_encoder": True, "text_encoder_learning_rate": 3e-2,
}  # fmt: skip
SUBJECT = Subject(pictures(2), "dog")


def drawn(model: TextToImage) -> torch.Tensor:
    return model.generate([SUBJECT.instance_prompt], seeds=[3], steps=2)


@pytest.mark.parametrize("family", ["sd", "xl"])
def test_both_forms_draw_the_same_in_plain_diffusers(family: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path) if family == "sd" else tiny_xl(tmp_path)
    before = [p.clone() for p in model.conditioner.parameters()]
    tuned = personalize(model, SUBJECT, "lora", SETTINGS)
    assert all(map(torch.equal, before, model.conditioner.parameters()))
    assert not any(getattr(one, "peft_config", None) for one in model.conditioner.encoders.values())
    picture = drawn(tuned)
    assert (picture - drawn(model)).abs().mean() > 1e-4
    for form in ("diffusers", "kohya"):
        file = save_lora(tuned, tmp_path / form, form=form)
        names, encoders = load_file(file), model.family.lora_encoders
        starts = [f"{one}.text_model." for one in encoders]
        if form == "kohya":
            starts = ["lora_te_text"] if family == "sd" else ["lora_te1_text", "lora_te2_text"]
        for start in starts:
            ups = [one for name, one in names.items() if name.startswith(start) and "up" in name]
            assert len(ups) == 8
            assert any(bool(up.any()) for up in ups)  # XL does not read its last layers
        pipe = getattr(diffusers, model.family.pipeline).from_pretrained(model.source)
        pipe.load_lora_weights(file.parent)
        plain = TextToImage.from_parts(pipe.components, pipeline=model.family.pipeline)
        plain.freeze()
        assert torch.allclose(drawn(plain), picture, atol=1e-5)
        assert torch.allclose(drawn(load_lora(model, file)), picture, atol=1e-5)
    whole = TextToImage.from_pretrained(tuned.save_pretrained(tmp_path / "whole"), device="cpu")
    assert torch.allclose(drawn(whole), picture, atol=1e-5)
    again = merged_copy(tuned, conditioner=True)
    assert not has_lora(again)
    assert torch.allclose(drawn(again), picture, atol=1e-5)


def test_a_stopped_training_goes_on_and_the_memory_is_known(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    method, state = create("lora", SETTINGS), tmp_path / "state.safetensors"
    create("lora", {**SETTINGS, "steps": 1}).personalize(model, SUBJECT, checkpoint=state)
    resumed, whole = method.personalize(model, SUBJECT, checkpoint=state), method.personalize(model, SUBJECT)
    assert torch.equal(drawn(resumed), drawn(whole))
    one, other = (memory(model, create("lora", {"text_encoder": reads})) for reads in (False, True))
    added = 2 * 4 * 16 * (32 + 32) * 4  # layers, projections, rank, both widths, bytes
    assert other["weights that are trained"] - one["weights that are trained"] == added
    with pytest.raises(UsageError, match="has no effect without text_encoder"):
        create("lora", {"text_encoder_learning_rate": 1e-5})


def test_presets_of_others_are_for_their_method_alone() -> None:
    for one in ATTACKS:
        assert all((one.what, one.source))
        full, small = (
            asdict(create(one.method, preset_values("personalize", one.name, side, one.method)).settings)
            for side in (512, 64)
        )
        assert {name: full[name] for name in one.values} == one.values
        assert {name for name in full if full[name] != small[name]} <= {*one.toybox}
    for name in ("kohya-sd", "kohya-sdxl"):
        for command, method in (("personalize", "dreambooth"), ("immunize", "divert"), ("verify", "")):
            with pytest.raises(UsageError, match=f"{name} is for personalize lora alone"):
                which_preset(name, 0, command, method)
    with pytest.raises(UsageError, match="valid are: auto, stable-diffusion, toybox, kohya-sd, kohya-sdxl"):
        which_preset("kohya", 0, "personalize", "lora")
