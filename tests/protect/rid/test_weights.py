"""A protector's file: there and back, by name or path, and no trust in what it says."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.protect.rid import settings
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.settings import is_protector
from unlikeness.protect.rid.weights import load_protector, save_protector

SMALL = NetworkSettings(fine=2, middle=3, coarse=4)


def protector(seed: int = 0) -> Protector:
    network = Protector(SMALL)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) / 4)
    return network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "ours.safetensors"
    save_protector(protector(), path, about={"resolution": 64, "models": ["toybox"]})
    return path


def rewritten(saved: Path, about: Any, **changed: torch.Tensor) -> Path:
    """The same file with another header or other tensors."""
    text = about if isinstance(about, str) else json.dumps(about)
    metadata = {"format": "unlikeness protector 1", "about": text}
    save_file({**load_file(saved), **changed}, saved, metadata=metadata)
    return saved


def test_what_is_saved_comes_back_to_half_precision(saved: Path) -> None:
    loaded = load_protector(saved)
    assert loaded.network.settings == SMALL
    assert (loaded.resolution, loaded.path, loaded.about["models"]) == (64, saved, ["toybox"])
    for name, value in protector().state_dict().items():
        found = loaded.network.state_dict()[name]
        assert found.dtype == torch.float32
        assert torch.equal(found, value.half().float())
    assert not loaded.network.training
    assert not any(p.requires_grad for p in loaded.network.parameters())
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_a_protector_that_cannot_be_written_is_one_sentence(saved: Path) -> None:
    assert saved.stat().st_mode & 0o777 == 0o666 & ~umask()
    with pytest.raises(UnlikenessError, match="cannot be written"):
        save_protector(protector(), saved / "ours.safetensors", about={"resolution": 64})


def test_weights_that_half_precision_does_not_hold_are_not_written(tmp_path: Path) -> None:
    network = protector()
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = 1e6
    with pytest.raises(NotFiniteError, match="not finite in float16"):
        save_protector(network, tmp_path / "ours.safetensors", about={"resolution": 64})
    assert not list(tmp_path.iterdir())


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_loaded_protector_computes(saved: Path) -> None:
    network = load_protector(str(saved)).network
    images = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    budget = torch.tensor([4.0, 8.0])
    expected = protector().requires_grad_(False)(images, budget)
    assert torch.allclose(network(images, budget), expected, atol=1e-4)
    assert expected.abs().max() > 1e-3


def test_saving_again_replaces_the_file(saved: Path) -> None:
    save_protector(protector(1), saved, about={"resolution": 32})
    loaded = load_protector(saved)
    assert loaded.resolution == 32
    assert torch.equal(loaded.network.enter.weight, protector(1).enter.weight.half().float())


def test_a_shipped_name_goes_before_a_file(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "SHIPPED", saved.parent)
    monkeypatch.chdir(tmp_path)
    save_protector(protector(1), Path("ours"), about={"resolution": 16})
    assert load_protector("ours").path == saved
    assert load_protector("./ours").resolution == 16
    with pytest.raises(UsageError, match=r"mine are no file and no shipped protector \(there are: ours\)"):
        load_protector("mine")


def test_every_shipped_protector_opens_and_has_its_card() -> None:
    for file in settings.SHIPPED.glob("*.safetensors"):
        loaded = load_protector(file.stem)
        assert loaded.path == file
        assert sum(p.numel() for p in loaded.network.parameters()) <= 5_000_000
        assert file.with_suffix(".md").is_file()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        load_protector(tmp_path)


def test_other_files_are_told_from_ours(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "lora.safetensors"
    save_file({"a": torch.ones(2)}, other)
    torch.save({"a": torch.ones(2)}, tmp_path / "pickle.bin")
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(UsageError, match=r"lora\.safetensors is no protector"):
        load_protector(other)
    for name in ("pickle.bin", "empty.safetensors"):
        with pytest.raises(UnlikenessError, match=f"{name} cannot be read") as caught:
            load_protector(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert not is_protector(tmp_path / name)
    assert is_protector(saved)
    assert not is_protector(other)
    assert not is_protector(tmp_path)
    assert not is_protector(tmp_path / "missing")


NETWORK = {"fine": 2, "middle": 3, "coarse": 4, "blocks": 1}


@pytest.mark.parametrize(
    "about",
    [
        "{",
        "[]",
        "3",
        "null",
        '{"network": {}, "resolution": Infinity}',
        "[" * 100_000,
        {"network": NETWORK},
        {"resolution": 64},
        {"network": NETWORK, "resolution": 0},
        {"network": NETWORK, "resolution": "wide"},
        {"network": {**NETWORK, "fine": 3}, "resolution": 64},
        {"network": {**NETWORK, "fine": 0}, "resolution": 64},
        {"network": {**NETWORK, "width": 3}, "resolution": 64},
        {"network": {**NETWORK, "blocks": 10**9}, "resolution": 64},
        {"network": {**NETWORK, "coarse": 10**6}, "resolution": 64},  # 36 TB, if one believed it
        {"network": {**NETWORK, "coarse": 10**18}, "resolution": 64},
        {"network": {**NETWORK, "coarse": 1e400}, "resolution": 64},
        {"network": "small", "resolution": 64},
        {"network": None, "resolution": 64},
    ],
)
def test_a_header_that_does_not_fit_is_damage(saved: Path, about: Any) -> None:
    with pytest.raises(UnlikenessError, match="is damaged") as caught:
        load_protector(rewritten(saved, about))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(saved)) + 300


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_weights_that_are_no_numbers_are_damage(saved: Path, value: float, dtype: torch.dtype) -> None:
    bad = torch.full((2,), value, dtype=dtype)
    with pytest.raises(UnlikenessError, match=r"enter\.bias is not finite"):
        load_protector(rewritten(saved, {"network": NETWORK, "resolution": 64}, **{"enter.bias": bad}))


def test_missing_and_further_weights_are_damage(saved: Path) -> None:
    about = {"network": NETWORK, "resolution": 64}
    with pytest.raises(UnlikenessError, match="is damaged"):
        load_protector(rewritten(saved, about, further=torch.zeros(1)))
    tensors = load_file(saved)
    del tensors["further"], tensors["leave.bias"]
    save_file(tensors, saved, metadata={"format": "unlikeness protector 1", "about": json.dumps(about)})
    with pytest.raises(UnlikenessError, match="is damaged"):
        load_protector(saved)


def test_corrupted_files_give_only_our_own_errors(saved: Path) -> None:
    """Truncated, overwritten in random places, mostly in the header, or with its numbers changed."""
    whole = saved.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    generator = torch.Generator().manual_seed(0)

    def number(below: int) -> int:
        return int(torch.randint(below, (1,), generator=generator))

    said = []
    for i in range(400):
        data = bytearray(whole)
        if i % 4 == 0:
            data = data[: number(len(data))]
        else:
            where = header + 8 if i % 4 < 3 else len(data)
            for _ in range(1 + number(3)):
                data[number(where)] = ord('0123456789{}[],:"Fx'[number(19)]) if i % 2 else number(256)
        saved.write_bytes(data)
        try:
            load_protector(saved)
        except UnlikenessError as error:
            said.append(str(error))
    assert len(said) > 200
    assert all(str(saved) in text and "\n" not in text for text in said)
