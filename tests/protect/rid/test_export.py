"""A protector as ONNX: the same numbers as torch's for every size, and no trust in a file."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.methods.rid import Rid, RidSettings
from unlikeness.protect.rid.graph import OPERATORS
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.onnx_file import DIGEST, OnnxProtector, digest, export_onnx
from unlikeness.protect.rid.onnx_graph import unexpected
from unlikeness.protect.rid.opening import open_network
from unlikeness.protect.rid.saved import Saved

SIZES = [(1, 1), (1, 40), (3, 2), (16, 16), (17, 31), (37, 53), (64, 48)]
ABOUT = {"resolution": 64, "models": ["toybox", "größer"], "version": "0.1.0"}


def protector(blocks: int = 1, gain: float = 1.0, sees: str = "colours") -> Protector:
    """No weight of it is zero, so that every node of the graph has a part in the answer."""
    network = Protector(NetworkSettings(fine=8, middle=8, coarse=8, blocks=blocks, sees=sees))
    generator = torch.Generator().manual_seed(blocks)
    with torch.no_grad():
        for weight in network.parameters():
            fan = weight[0].numel() if weight.ndim > 1 else 4
            weight.copy_(torch.randn(weight.shape, generator=generator) * (gain / fan**0.5))
    return network.requires_grad_(False)


def loaded(network: Protector) -> Saved:
    arrays = {name: value.float().numpy() for name, value in network.state_dict().items()}
    return Saved(network.settings, arrays, Path("ours.safetensors"), 64, ABOUT)


def noise(count: int, channels: int, height: int, width: int) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(height))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "ours.onnx"
    export_onnx(loaded(protector()), path)
    return path


@pytest.mark.parametrize(("blocks", "sees"), [(1, "colours"), (2, "colours"), (1, "detail"), (2, "detail")])
def test_onnx_runtime_computes_what_torch_does(tmp_path: Path, blocks: int, sees: str) -> None:
    network, path = protector(blocks, sees=sees), tmp_path / "ours.onnx"
    export_onnx(loaded(network), path)
    exported = OnnxProtector(path, threads=1)
    for height, width in SIZES:
        for count in (1, 3):
            images = noise(count, 3, height, width)
            for budget in (torch.tensor([2.0, 8.0, 16.0])[:count], 16 * noise(count, 1, height, width)):
                expected, found = network(images, budget), exported(images, budget)
                flat = sees == "detail" and height * width == 1
                assert flat or expected.abs().max() > 1e-3
                assert (found.shape, found.dtype) == (expected.shape, torch.float32)
                assert (found - expected).abs().max() <= 1e-5, (height, width, count)


def test_it_stays_within_the_budget_where_tanh_saturates(tmp_path: Path) -> None:
    export_onnx(loaded(protector(gain=5.0)), tmp_path / "strong.onnx")
    budget = 16 * noise(2, 1, 40, 40)
    budget[..., :20] = 0
    delta = OnnxProtector(tmp_path / "strong.onnx")(noise(2, 3, 40, 40), budget)
    share = delta.abs()[..., 20:] / (budget[..., 20:] / 255)
    assert not delta[..., :20].any()
    assert share.max() <= 1 + 1e-6
    assert share.median() > 0.99


def test_tensors_of_any_layout_and_precision_will_do(file: Path) -> None:
    exported, images = OnnxProtector(file), noise(2, 3, 20, 30).bfloat16()
    expected = exported(images.float(), torch.tensor([8.0, 4.0]))
    strided = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    found = exported(strided, torch.tensor([8, 4]))
    assert torch.equal(found, expected)
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_the_file_says_what_it_is(file: Path) -> None:
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "images": ["batch", 3, "height", "width"],
        "budget": ["batch", 1, "height", "width"],
        "delta": ["batch", 3, "height", "width"],
    }
    assert "n/255" in model.doc_string
    exported = OnnxProtector(str(file))
    assert (exported.about, exported.resolution, exported.path) == (ABOUT, 64, file)


def test_exporting_again_gives_the_same_file_and_leaves_no_other(file: Path) -> None:
    before = file.read_bytes()
    export_onnx(loaded(protector().bfloat16().float()), file)
    assert file.read_bytes() != before
    export_onnx(loaded(protector()), file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken.onnx").mkdir()
    with pytest.raises(OSError, match="taken"):
        export_onnx(loaded(protector()), tmp_path / "taken.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.onnx"]


def test_the_method_opens_it(file: Path) -> None:
    opened = open_network(str(file), "cpu")
    images, plane = noise(1, 3, 20, 20), torch.full((1, 1, 20, 20), 8.0)
    assert opened.resolution == 64
    assert torch.allclose(opened.tensors(images, plane), protector()(images, plane), atol=1e-5)


def test_wrong_shapes_are_usage_errors(file: Path) -> None:
    exported = OnnxProtector(file)
    for images in (torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(0, 3, 8, 8)):
        with pytest.raises(UsageError, match="B, 3, H, W"):
            exported(images, torch.ones(1))
    for budget in (torch.ones(()), torch.ones(2), torch.ones(1, 1, 8, 9), torch.ones(1, 3, 8, 8)):
        with pytest.raises(UsageError, match="budget must be"):
            exported(torch.zeros(1, 3, 8, 8), budget)
    with pytest.raises(UsageError, match="threads"):
        OnnxProtector(file, threads=0)


def test_other_files_are_told_from_ours(file: Path, tmp_path: Path) -> None:
    bare = onnx.load(file)
    bare.doc_string = ""
    onnx.save(bare, tmp_path / "bare.onnx")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("dear reader")
    for name in ("bare", "empty", "text"):
        with pytest.raises(UsageError, match=rf"{name}\.onnx is not of `unlikeness export`"):
            OnnxProtector(tmp_path / f"{name}.onnx")
    for path in (tmp_path, tmp_path / "missing.onnx"):
        with pytest.raises(UsageError, match="no file"):
            OnnxProtector(path)


def test_a_damaged_file_is_never_run(file: Path) -> None:
    """Cut off or with one byte changed, anywhere behind the name of the format."""
    whole = file.read_bytes()
    for where in range(200, len(whole), len(whole) // 50):
        for damaged in (whole[:where], whole[:where] + bytes([whole[where] ^ 4]) + whole[where + 1 :]):
            file.write_bytes(damaged)
            with pytest.raises(UnlikenessError, match="damaged") as caught:
                OnnxProtector(file)
            assert str(file) in str(caught.value)
    file.write_bytes(whole)
    assert OnnxProtector(file).resolution == 64


def test_onnx_runtime_is_named_where_it_is_missing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package onnx is never needed."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    export_onnx(loaded(protector()), file.with_name("other.onnx"))
    assert OnnxProtector(file.with_name("other.onnx")).resolution == 64
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnlikenessError, match="pip install onnxruntime"):
        OnnxProtector(file)


def test_an_exported_protector_is_on_no_other_device(file: Path) -> None:
    with pytest.raises(UsageError, match="an exported protector computes on the CPU, not on cuda:1"):
        Rid(None, RidSettings(weights=str(file)), device="cuda:1")
    assert str(Rid(None, RidSettings(weights=str(file)), device="cpu").device) == "cpu"


def rewritten(path: Path, about: str | None = None, change: Callable[[Any], None] | None = None) -> Path:
    """The exported file with another `about` or graph, its digest made anew as a stranger can."""
    model = onnx.load(path)
    said = {one.key: one.value for one in model.metadata_props}
    del model.metadata_props[:]
    if change is not None:
        change(model)
    said |= {"sha256": "0" * DIGEST, **({} if about is None else {"about": about})}
    onnx.helper.set_model_props(model, said)
    data = model.SerializeToString(deterministic=True)[:-DIGEST]
    path.write_bytes(data + digest(data))
    return path


@pytest.mark.parametrize(
    "about",
    ["", "{", "[]", "3", "[" * 200_000, "{}", '{"resolution": null}', '{"resolution": "64"}',
     '{"resolution": 0}', '{"resolution": -1}', '{"resolution": 1000000000}',
     '{"resolution": 1e999}', '{"resolution": true}',
     '{"resolution": 64, "resolution": 64}'],
)  # fmt: skip
def test_what_a_file_says_of_itself_is_checked(file: Path, about: str) -> None:
    with pytest.raises(UnlikenessError, match=r"says (nothing of itself|that its resolution is)") as caught:
        OnnxProtector(rewritten(file, about))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(file)) + 300


def test_operators_and_outputs_that_no_export_has_are_refused(file: Path) -> None:
    whole = file.read_bytes()

    def loop(model: Any) -> None:
        body = onnx.helper.make_graph([], "body", [], [])
        model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["x"], body=body))

    def elsewhere(model: Any) -> None:
        model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL

    def sparse(model: Any) -> None:
        model.graph.sparse_initializer.add().dims.append(1)

    def other_domain(model: Any) -> None:
        model.graph.node[0].domain = "com.microsoft"

    def renamed(model: Any) -> None:
        model.graph.input[0].name = "pictures"
        for node in model.graph.node:
            node.input[:] = ["pictures" if name == "images" else name for name in node.input]

    for change, why in (
        (loop, r"operators that no export has \(Loop\)"),
        (other_domain, r"operators that no export has \(com\.microsoft\.Mul\)"),
        (elsewhere, "in other files"),
        (sparse, "its graph has a part that no export has"),
        (renamed, "does not lead from images and budget to delta"),
    ):
        with pytest.raises(UnlikenessError, match=why):
            OnnxProtector(rewritten(file, change=change))
        file.write_bytes(whole)
    assert OnnxProtector(file).resolution
    model = onnx.load(file)
    model.functions.add().name = "Conv"
    assert "a part that no export has" in str(unexpected(model.SerializeToString(), OPERATORS))


def test_nonsense_is_told_from_a_graph(file: Path) -> None:
    """Bytes changed at random, or cut off."""
    whole = file.read_bytes()
    assert unexpected(whole, OPERATORS) is None
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(len(whole), (1200,), generator=generator).tolist()
    values = torch.randint(256, (1200,), generator=generator).tolist()
    said = 0
    for i in range(400):
        data = bytearray(whole[: places[3 * i]] if i % 4 == 0 else whole)
        for k in range(3 * i, 3 * i + 3):
            data[places[k] % len(data)] = values[k]
        try:
            said += unexpected(bytes(data), OPERATORS) is not None
        except ValueError:
            said += 1
    assert said > 100


def test_weights_that_do_not_fit_are_damage(tmp_path: Path) -> None:
    good = loaded(protector())
    less = {name: array for name, array in good.arrays.items() if name != "enter.bias"}
    shorter = {**good.arrays, "enter.bias": good.arrays["enter.bias"][:-1]}
    for arrays, why in (
        (less, "enter.bias is missing"),
        (shorter, r"enter.bias has the shape \[7\], not \[8\]"),
        ({**good.arrays, "further": good.arrays["enter.bias"]}, "further, which the network has not"),
    ):
        with pytest.raises(UnlikenessError, match=why):
            export_onnx(dataclasses.replace(good, arrays=arrays), tmp_path / "ours.onnx")
    assert not list(tmp_path.iterdir())
