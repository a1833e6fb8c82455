"""Quantized weights: opened as the numbers that they stand for, or refused by name.

`bitsandbytes.safetensors` holds what bitsandbytes 0.50.2 itself made of one matrix on a CPU
(`quantize_4bit` as nf4 with nested statistics and as fp4, `int8_vectorwise_quant`), and what it makes of each
again (`dequantize_4bit`, `int8_vectorwise_dequant`).
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file
from tests.original import flux_transformer
from tests.tiny_flow import write_flux

from unlikeness.diffusion import TextToImage, hub
from unlikeness.diffusion.opening import outline
from unlikeness.diffusion.single_file.writing import check_layout
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.immunize.release import stored
from unlikeness.networks.gguf import read_gguf, read_gguf_header
from unlikeness.networks.quantized import dequantized

OWN = Path(__file__).with_name("bitsandbytes.safetensors")
Q8 = gguf.GGMLQuantizationType.Q8_0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_flux(tmp_path / "flux")


def four_bits(weight: torch.Tensor, name: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A matrix in nf4 as bitsandbytes stores it, without nested statistics, and what it stands for."""
    table = load_file(OWN)["nf4.weight.quant_map"]
    blocks = torch.nn.functional.pad(weight.reshape(-1), (0, -weight.numel() % 64)).reshape(-1, 64)
    largest = blocks.abs().amax(1)
    codes = (blocks[..., None] / largest[:, None, None] - table).abs().argmin(-1)
    stands = (table[codes] * largest[:, None]).reshape(-1)[: weight.numel()].reshape(weight.shape)
    flat = codes.reshape(-1)[: weight.numel()].to(torch.uint8).reshape(-1, 2)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(weight.shape)}
    return {
        name: (flat[:, 0] << 4 | flat[:, 1])[:, None],
        f"{name}.absmax": largest,
        f"{name}.quant_map": table,
        f"{name}.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode())).byte(),
    }, stands


def quantized_folder(folder: Path) -> dict[str, torch.Tensor]:
    """Write the transformer's matrices in nf4. Returns what all of its weights stand for."""
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    plain, written = load_file(file), dict[str, torch.Tensor]()
    for name, one in list(plain.items()):
        if one.ndim == 2 and "blocks." in name:
            packed, plain[name] = four_bits(one, name)
            written |= packed
        else:
            written[name] = one
    save_file(written, file)
    config = folder / "transformer" / "config.json"
    how = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": how}))
    return plain


def test_values_are_those_of_bitsandbytes() -> None:
    tensors = load_file(OWN)
    expected = {name: tensors.pop(name) for name in list(tensors) if name.endswith(".expected")}
    found = dequantized(tensors, "x")
    assert found.keys() == {"nf4.weight", "fp4.weight", "int8.weight"}
    for name, one in expected.items():
        ours = found[name.replace("expected", "weight")]
        if one.dtype == torch.bfloat16:  # to which bitsandbytes rounds
            assert torch.equal(ours.to(one.dtype), one)
        else:
            torch.testing.assert_close(ours, one)


def test_a_folder_of_bitsandbytes_opens_in_full(folder: Path, tmp_path: Path) -> None:
    stands = quantized_folder(folder)
    model = TextToImage.from_pretrained(folder, device="cpu")
    for name, one in model.denoiser.state_dict().items():
        torch.testing.assert_close(one, stands[name])
    assert stored(folder)["transformer"] == torch.bfloat16
    saved = model.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in (saved / "transformer" / "config.json").read_text()
    again = TextToImage.from_pretrained(saved, device="cpu")
    how: dict[str, Any] = {"seeds": [1], "steps": 1}
    drawn = again.generate(["a dog"], **how)  # of the same weights at other places in memory
    torch.testing.assert_close(drawn, model.generate(["a dog"], **how), atol=1e-5, rtol=0)


def test_scales_of_float8_are_not_dropped(folder: Path) -> None:
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    plain, name = load_file(file), "transformer_blocks.0.attn.to_q.weight"
    eight = (plain[name] / 4).to(torch.float8_e4m3fn)
    scale = name.replace("weight", "scale_weight")
    beside = {name: eight, scale: torch.tensor(4.0), "scaled_fp8": torch.zeros(2)}
    save_file({**plain, **beside}, file)
    opened = TextToImage.from_pretrained(folder, device="cpu").denoiser.state_dict()[name]
    assert torch.equal(opened, eight.float() * 4)
    save_file({**plain, **beside, name.replace("weight", "weight_scale_2"): torch.ones(1)}, file)
    with pytest.raises(UsageError, match=r"the transformer of model .* is quantized \(by .*weight_scale_2\)"):
        TextToImage.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    ("end", "tensor"),
    [
        (".quant_map", torch.zeros(15)), (".absmax", torch.zeros(1)), (".absmax", torch.zeros(6).byte()),
        (".quant_state.bitsandbytes__nf4", torch.zeros(4).byte()), ("", torch.zeros(9).byte()),
        (".quant_state.bitsandbytes__nf4", torch.tensor(list(b'{"blocksize": 64, "shape": [4]}')).byte()),
    ],
)  # fmt: skip
def test_damaged_tensors_beside_a_weight_are_one_sentence(end: str, tensor: torch.Tensor) -> None:
    packed, _ = four_bits(torch.ones(6, 64), "a.weight")
    with pytest.raises(UnlikenessError, match=r"a quantized a\.weight that does not fit"):
        dequantized({**packed, f"a.weight{end}": tensor}, "x")


def write_gguf(model: TextToImage, file: Path) -> dict[str, torch.Tensor]:
    """The transformer in its original layout, matrices in 8 bits. Returns what they stand for."""
    writer, stands = gguf.GGUFWriter(file, "flux"), {}
    for name, one in flux_transformer(model.denoiser).items():
        values = one.numpy()
        if one.ndim == 2 and one.shape[1] % 32 == 0:
            packed = quantize(values, Q8)
            writer.add_tensor(name, packed, raw_dtype=Q8)
            values = dequantize(packed, Q8)
        else:
            writer.add_tensor(name, values)
        stands[name] = torch.from_numpy(values.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stands


def test_a_gguf_file_opens_in_full(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TextToImage.from_pretrained(folder, device="cpu")
    file = tmp_path / "flux1-dev-Q8_0.gguf"
    stands = write_gguf(model, file)
    line = str(hub.check_name(str(file), config=str(folder)))
    assert "is a single file of FLUX.1" in line
    assert "its weights are quantized (GGUF), and opened in full; it lacks vae" in line
    opened = TextToImage.from_pretrained(file, device="cpu", model_config=folder)
    found = flux_transformer(opened.denoiser)
    assert found.keys() == stands.keys()
    assert all(torch.equal(one, stands[name]) for name, one in found.items())
    assert opened.generate(["a dog"], seeds=[1], steps=1).isfinite().all()
    bare = outline(file, model_config=folder)
    assert [p.shape for p in bare.denoiser.parameters()] == [p.shape for p in model.denoiser.parameters()]
    assert opened.single is not None
    with pytest.raises(UsageError, match=r"is quantized \(GGUF\).* leave --single-file out"):
        check_layout(opened.single)
    monkeypatch.setitem(sys.modules, "gguf.constants", None)
    with pytest.raises(UsageError, match="needs the package gguf; install it with `pip install gguf`"):
        TextToImage.from_pretrained(file, device="cpu", model_config=folder)


def test_damaged_gguf_files_are_one_sentence_soon(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(TextToImage.from_pretrained(folder, device="cpu"), file)
    whole = file.read_bytes()
    huge = struct.pack("<Q", 1 << 60)
    key = struct.pack("<Q", 1) + b"k"
    start = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    for content in (
        b"", b"GGUF", b"x" * 99, whole[:40], whole[: len(whole) // 3], start + huge, start + key + huge,
        start + key + struct.pack("<II", 9, 8) + huge, start + key + struct.pack("<II", 9, 4) + huge,
        start + key + struct.pack("<II", 9, 9) + huge, b"GGUF" + struct.pack("<I", 3) + huge * 2,
        start + key + struct.pack("<II", 4, 1) + key + struct.pack("<I", 9),
        start + key + struct.pack("<II", 4, 1) + key + struct.pack("<I", 2) + huge * 2,
    ):  # fmt: skip
        file.write_bytes(content)
        began = time.perf_counter()
        with pytest.raises(UnlikenessError, match="cannot be read") as caught:
            TextToImage.from_pretrained(file, device="cpu", model_config=folder)
        assert time.perf_counter() - began < 2
        assert "\n" not in str(caught.value)


def test_a_shape_that_gguf_cannot_hold_is_restored(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
    whole = torch.arange(192.0).reshape(2, 3, 4, 8)
    writer.add_array("comfy.gguf.orig_shape.a", list(whole.shape))
    writer.add_tensor("a", whole.reshape(6, 32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_gguf_header(tmp_path / "a.gguf").shapes == {"a": (2, 3, 4, 8)}
    assert torch.equal(read_gguf(tmp_path / "a.gguf", torch.float32)["a"], whole)
