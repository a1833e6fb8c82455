"""RID as a protection: any weights, any size, one pass, the budget kept."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.protect.rid.official import checkpoint, written

from unlikeness import protect
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.methods.rid import Rid, RidSettings
from unlikeness.protect.rid import torch_engine
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.onnx_file import export_onnx
from unlikeness.protect.rid.saved import read_saved
from unlikeness.protect.rid.train.pictures import dead_leaves
from unlikeness.protect.rid.weights import load_protector, save_protector
from unlikeness.protect.settings import ResolutionMode
from unlikeness.protect.tiling.tiles import grids


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small random network that does something."""
    torch.manual_seed(0)
    network = Protector(NetworkSettings(fine=8, middle=8, coarse=8))
    torch.nn.init.normal_(network.leave.weight, std=0.3)
    path = tmp_path / "small.safetensors"
    save_protector(network, path, about={"resolution": 32})
    return path


def leaves(count: int, side: int = 64) -> torch.Tensor:
    drawn = np.stack([dead_leaves(np.random.default_rng(i), side) for i in range(count)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_it_is_what_the_network_says_within_bfloat16(file: Path, engine: str) -> None:
    made = Rid(None, RidSettings(weights=str(file), budget=6.0), engine=engine)
    assert made.engine == engine
    assert made.resolution == 32
    images = leaves(2, 50)
    with torch.no_grad():
        delta = load_protector(file).network(images, torch.full((2,), 6.0))
    wanted = (images + delta).clamp(0, 1)
    assert (made.perturb(images, [0, 1]) - wanted).abs().max() < 0.05 * 6 / 255
    assert (wanted - images).abs().max() > 2 / 255


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_seeds_change_nothing_and_company_neither(file: Path, engine: str) -> None:
    made = Rid(None, RidSettings(weights=str(file)), engine=engine)
    images = leaves(4)
    together = made.perturb(images, [0, 1, 2, 3])
    assert torch.equal(together[[2, 0, 1, 3]], made.perturb(images[[2, 0, 1, 3]], [9, 8, 7, 6]))


def test_a_plane_of_budgets_leaves_the_rest_of_the_picture_alone(file: Path) -> None:
    made = Rid(None, RidSettings(weights=str(file)))
    images = leaves(1)
    plane = torch.zeros(1, 1, 64, 64)
    plane[..., :32, :] = 8.0
    delta = made.delta(images, plane)
    assert delta[..., 32:, :].abs().max() == 0
    assert delta[..., :32, :].abs().max() > 1 / 255


def test_the_shipped_network_serves_budgets_from_2_to_16() -> None:
    images = leaves(3, 96)
    energy = []
    for budget in (2.0, 4.0, 8.0, 16.0):
        delta = protect.create("rid", None, {"budget": budget}).perturb(images, range(3)) - images
        assert delta.abs().max() <= budget / 255 + 1e-6
        energy.append(float(delta.square().mean().sqrt()) * 255)
    assert energy == sorted(energy)
    assert energy[-1] > 4 * energy[0]


def test_at_the_pictures_own_size_it_works_in_large_tiles() -> None:
    assert len(grids((1000, 800), 64, ResolutionMode(mode="tiles"), Rid.tile)[0]) <= 9


def test_the_fingerprint_is_of_the_weights(file: Path, tmp_path: Path) -> None:
    first = Rid(None, RidSettings(weights=str(file))).fingerprint
    assert first == Rid(None, RidSettings(weights=str(file), budget=3.0)).fingerprint
    assert first != Rid(None, RidSettings()).fingerprint


@pytest.mark.parametrize("name", ["nothing.safetensors", "nothing.bin", "nothing.onnx", "rid-nowhere"])
def test_missing_weights_are_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnlikenessError) as caught:
        Rid(None, RidSettings(weights=str(tmp_path / name)))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_official_checkpoint_is_opened_in_either_format(tmp_path: Path) -> None:
    pickled = written(tmp_path, checkpoint())
    save_file(checkpoint(), tmp_path / "net.safetensors")
    first, second = (
        Rid(None, RidSettings(weights=str(path))) for path in (pickled, tmp_path / "net.safetensors")
    )
    assert first.fingerprint == second.fingerprint
    images = leaves(1)
    assert torch.equal(first.perturb(images, [0]), second.perturb(images, [0]))
    save_file({"lora.down": torch.ones(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(UsageError, match=r"lora\.safetensors are no official RID network"):
        Rid(None, RidSettings(weights=str(tmp_path / "lora.safetensors")))


@pytest.mark.parametrize("kind", ["ours", "official"])
def test_the_fingerprint_is_the_same_wherever_it_computes(
    kind: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file if kind == "ours" else written(tmp_path, checkpoint())
    marks = []
    for half in (False, True):
        monkeypatch.setattr(torch_engine, "computes_bfloat16", lambda device, half=half: half)
        marks.append(Rid(None, RidSettings(weights=str(path)), engine="torch").fingerprint)
    if kind == "ours":
        marks.append(Rid(None, RidSettings(weights=str(path)), engine="onnxruntime").fingerprint)
    assert len(set(marks)) == 1


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_arrays_give_what_tensors_give(file: Path, engine: str) -> None:
    made = Rid(None, RidSettings(weights=str(file)), engine=engine)
    images = leaves(2, 50)
    strength = torch.linspace(0, 1, 50).expand(2, 1, 50, 50).contiguous()
    steps: list[int] = []
    free = made.perturb_arrays(images.numpy(), None, [0, 1], steps.append)
    assert np.array_equal(free, made.perturb(images, [0, 1]).numpy())
    masked = made.perturb_arrays(images.numpy(), strength.numpy(), [0, 1])
    assert np.array_equal(masked, made.perturb_within(images, strength, [0, 1]).numpy())
    assert np.abs(masked - images.numpy())[..., 0].max() == 0
    assert steps == [1]
    with pytest.raises(UsageError, match="one seed a picture"):
        made.perturb_arrays(images.numpy(), None, [0])


def test_engines_that_do_not_fit_are_usage_errors(file: Path, tmp_path: Path) -> None:
    official = str(written(tmp_path, checkpoint()))
    export_onnx(read_saved(file), tmp_path / "ours.onnx")
    for weights, engine, device, why in (
        (str(file), "tensorrt", "auto", "engine must be one of auto, onnxruntime, torch"),
        (str(file), "onnxruntime", "cuda", "computes on the CPU, not on cuda"),
        (official, "onnxruntime", "auto", "authors is computed by torch"),
        (str(tmp_path / "ours.onnx"), "torch", "auto", "computed by onnxruntime, not by torch"),
    ):
        with pytest.raises(UsageError, match=why):
            Rid(None, RidSettings(weights=weights), device=device, engine=engine)


def test_torch_takes_over_where_onnx_runtime_is_missing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Rid(None, RidSettings(weights=str(file))).engine == "onnxruntime"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert Rid(None, RidSettings(weights=str(file))).engine == "torch"


def test_wrong_shapes_are_usage_errors(file: Path) -> None:
    made = Rid(None, RidSettings(weights=str(file)))
    with pytest.raises(UsageError, match="one seed a picture"):
        made.perturb(leaves(2), [0])
    with pytest.raises(UsageError, match="B, 3, H, W"):
        made.perturb(torch.zeros(3, 8, 8), [0])
