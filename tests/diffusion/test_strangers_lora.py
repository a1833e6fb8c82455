"""A stranger's LoRA: its header reaches no library, and what does not fit is one sentence, soon."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import tiny_model

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.lora import add_lora, load_lora, read_lora
from unlikeness.diffusion.lora_updates import weight_after
from unlikeness.diffusion.lora_writing import FILE, save_lora
from unlikeness.errors import NotFiniteError, UnlikenessError
from unlikeness.foreign import UnreadableError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def file(model: TextToImage, tmp_path: Path) -> Path:
    adapted = model.copy()
    for p in add_lora(adapted, rank=2):
        p.data.normal_(generator=torch.Generator().manual_seed(p.numel()))
    return save_lora(adapted, tmp_path)


def said(file: Path, about: Any) -> None:
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(load_file(file), file, {"format": "pt", "lora_adapter_metadata": text})


def refused(model: TextToImage, file: Path, words: str = "") -> None:
    began = time.perf_counter()
    with pytest.raises(UnlikenessError, match="cannot be used with this model") as caught:
        load_lora(model, file)
    assert time.perf_counter() - began < 20
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_each_tensor_may_have_its_own_precision(model: TextToImage, file: Path, tmp_path: Path) -> None:
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
    mixed = {name: one.to(kinds[i % len(kinds)]) for i, (name, one) in enumerate(load_file(file).items())}
    save_file(mixed, tmp_path / "mixed.safetensors")
    save_file({name: one.float() for name, one in mixed.items()}, tmp_path / "whole.safetensors")
    one, other = (load_lora(model, tmp_path / f"{name}.safetensors") for name in ("mixed", "whole"))
    for a, b in zip(one.denoiser.parameters(), other.denoiser.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    mixed[next(iter(mixed))].view(-1)[0] = torch.nan
    save_file(mixed, tmp_path / "nan.safetensors")
    with pytest.raises(NotFiniteError, match="not finite"):
        load_lora(model, tmp_path / "nan.safetensors")


@pytest.mark.parametrize(
    "about",
    ["{", "[]", "[" * 200_000, "NaN", {"unet.r": 10**9}, {"unet.r": 0}, {"unet.r": "2"}, {"unet.r": True},
     {"unet.lora_alpha": "4"}, {"unet.lora_alpha": 1e30}, {"unet.rank_pattern": {"(a+)+$": 2}},
     {"unet.rank_pattern": {"to_q": 10**9}}, {"unet.alpha_pattern": []}, {"unet.target_modules": "(.*)*x"},
     {"unet.target_modules": ["to_q", 3]}],
)  # fmt: skip
def test_a_header_that_no_lora_has_is_refused(model: TextToImage, file: Path, about: Any) -> None:
    said(file, about)
    refused(model, file)


def test_settings_that_lead_to_other_libraries_are_not_handed_on(model: TextToImage, file: Path) -> None:
    plain = load_lora(model, file)
    rank = {"unet.r": 2, "unet.lora_alpha": 2, "unet.target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
    more = {
        "unet.megatron_config": {"a": 1}, "unet.megatron_core": "antigravity",
        "unet.init_lora_weights": "eva",
        "unet.auto_mapping": {"base_model_class": "Mine"}, "unet.loftq_config": {"loftq_bits": 4},
        "unet.modules_to_save": ["conv_in"], "unet.exclude_modules": "(a+)+$",
        "base_model_name_or_path": "x/y",
    }  # fmt: skip
    said(file, {**rank, **more})
    assert read_lora(file, ("unet", "text_encoder"))[1] == rank
    z, t, c = torch.ones(1, 4, 8, 8), torch.tensor([5]), model.condition(["a dog"])
    with torch.no_grad():
        assert torch.equal(load_lora(model, file).predict(z, t, c), plain.predict(z, t, c))


def test_tensors_that_are_no_factors_are_refused(model: TextToImage, file: Path) -> None:
    tensors = load_file(file)
    down = next(name for name in tensors if "lora_A" in name or "lora.down" in name)
    for name, value in (
        (down, torch.zeros(10**9, 0)),
        (down, torch.zeros(5000, 1)),
        (down, torch.zeros(2, 3)),
        (down, torch.zeros(2, 2, dtype=torch.int64)),
        ("unet.(a+)+$.lora_A.weight", torch.zeros(2, 2)),
        ("unet.x\n.lora_A.weight", torch.zeros(2, 2)),
        ("x" * 400, torch.zeros(2, 2)),
    ):
        save_file({**tensors, name: value}, file)
        refused(model, file)
    file.write_bytes(b"x" * 100)
    refused(model, file, "no safetensors")
    assert file.name == FILE


def test_too_little_memory_is_no_fault_of_the_file(
    model: TextToImage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("unlikeness.diffusion.lora.read_lora", full)
    with pytest.raises(MemoryError):
        load_lora(model, file)


def test_a_core_of_a_lokr_is_no_larger_than_the_weight_on_the_way() -> None:
    for inner, core in (
        ((1, 8 * 8 * 9), (1, 2, 1, 1)),  # einsum would make 8·8·9 x 2, then 8·8·9 x 1
        ((1, 1), (1, 2, 8 * 9, 8)),
    ):
        roles = {
            "lokr_w1": torch.ones(1, 1), "lokr_w2_a": torch.ones(inner), "lokr_w2_b": torch.ones(2, 1),
            "lokr_t2": torch.ones(core),
        }  # fmt: skip
        with pytest.raises(UnreadableError, match="for a weight of"):
            weight_after(torch.zeros(8, 8, 3, 3), roles, scale=None, strength=1)


@pytest.mark.parametrize(("number", "fits"), [("", True), ("1", True), ("0", False)])
def test_only_numbered_text_encoders_have_layers(
    number: str, fits: bool, model: TextToImage, tmp_path: Path
) -> None:
    name = f"lora_te{number}_text_model_encoder_layers_0_self_attn_q_proj"
    path = tmp_path / "a.safetensors"
    save_file(
        {f"{name}.lora_down.weight": torch.ones(1, 32), f"{name}.lora_up.weight": torch.ones(32, 1)}, path
    )
    if fits:
        load_lora(model, path)
    else:
        refused(model, path, "no layer for")
