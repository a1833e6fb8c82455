"""Encoders of faces, on the one portrait that a test library carries."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.measure import faces
from unlikeness.measure.encoders import check_encoder, load_encoder
from unlikeness.measure.similarity import embed_all

dlib = pytest.importorskip("dlib")


@pytest.fixture(scope="module")
def portrait() -> Tensor:
    """[3, 300, 250] in [0, 1] with one face."""
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.astronaut()[:300, 100:350].copy()).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("faces") / "w600k_tiny.onnx")


def write(path: Path, *, side: int = 112, kind: str = "AveragePool", further: int = 0) -> Path:
    """Means of 14 x 14 fields of the picture, as a vector."""
    onnx = pytest.importorskip("onnx")
    make, float_ = onnx.helper, onnx.TensorProto.FLOAT
    how = {"kernel_shape": [14, 14], "strides": [14, 14]} if kind == "AveragePool" else {}
    nodes = [make.make_node(kind, ["in"], ["mid"], **how), make.make_node("Flatten", ["mid"], ["out"])]
    sides = ["batch", 3, side, side]
    inputs = [
        make.make_tensor_value_info(name, float_, sides) for name in ("in", "other", "third")[: 1 + further]
    ]
    outputs = [make.make_tensor_value_info("out", float_, ["batch", None])]
    graph = make.make_graph(nodes, "tiny", inputs, outputs)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_dlibs_vectors_are_dlibs_own(portrait: Tensor) -> None:
    encoder = load_encoder("dlib")
    views = [encoder.view(image) for image in (portrait, torch.rand(3, 90, 90), torch.rand(3, 8, 8))]
    assert [view is None for view in views] == [False, True, True]
    found = encoder.of_views(views)
    assert found.shape == (3, 128)
    assert found.isnan().all(1).tolist() == [False, True, True]
    pixels = (portrait * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    box = dlib.get_frontal_face_detector()(pixels, 0)[0]
    marks = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))(pixels, box)
    network = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))
    wanted = torch.tensor(np.array(network.compute_face_descriptor(pixels, marks)))
    assert torch.allclose(found[0].double(), wanted.double(), atol=1e-4)
    unit = embed_all(encoder, portrait[None])
    assert float(unit.norm()) == pytest.approx(1)


def test_an_onnx_network_is_given_aligned_faces(portrait: Tensor, onnx_model: Path) -> None:
    encoder = load_encoder(str(onnx_model.parent))
    assert encoder.width == 3 * 8 * 8
    assert encoder.name == onnx_model.parent.name
    crop = encoder.view(portrait)
    assert crop is not None
    assert crop.shape == (3, 112, 112)
    assert float(crop.min()) >= -1
    assert float(crop.max()) <= 1
    wanted = torch.nn.functional.avg_pool2d(crop[None], 14).flatten(1)
    found = encoder.of_views([crop, None])
    assert torch.allclose(found[:1], wanted, atol=1e-5)
    assert bool(found[1].isnan().all())


def test_files_that_hide_work_or_read_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    model_opset = [onnx.helper.make_opsetid("", 17)]
    monkeypatch.chdir(tmp_path)
    weight = np.ones((3, 64), np.float32)
    (tmp_path / "other.bin").write_bytes(weight.tobytes())
    elsewhere = onnx.numpy_helper.from_array(weight, "w")
    elsewhere.ClearField("raw_data")
    elsewhere.data_location = onnx.TensorProto.EXTERNAL
    entry = elsewhere.external_data.add()
    entry.key, entry.value = "location", "other.bin"
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    places = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "places")
    sparse = onnx.helper.make_sparse_tensor(values, places, [3, 1 << 28])
    function = onnx.helper.make_function("own", "Relu", ["x"], ["y"], [], model_opset)
    pads = onnx.helper.make_attribute("pads", [40_000] * 4)

    def constant(**value: Any) -> Any:
        return lambda m: m.graph.node.append(onnx.helper.make_node("Constant", [], ["w"], **value))

    cases: dict[str, tuple[Any, str]] = {
        "elsewhere": (constant(value=elsewhere), "other files"),
        "sparse": (lambda m: m.graph.sparse_initializer.append(sparse), "sparse weights"),
        "constant": (constant(sparse_value=sparse), "sparse weights"),
        "function": (lambda m: m.functions.append(function), "functions"),
        "pads": (lambda m: m.graph.node[0].attribute.append(pads), "more than their side"),
    }
    for name, (change, words) in cases.items():
        model = onnx.load_model(write(tmp_path / f"{name}.onnx"))
        change(model)
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(UnlikenessError, match=words):
            load_encoder(str(tmp_path / f"{name}.onnx"))


def test_landmarks_come_to_their_places() -> None:
    angle, scale = 0.3, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.array(faces._POINTS) @ turn.T + [60, 40]
    pixels = np.zeros((320, 320, 3), np.uint8)
    for x, y in points.round().astype(int):
        pixels[y - 3 : y + 4, x - 3 : x + 4] = 255
    made = faces._aligned(pixels, points)
    for x, y in np.array(faces._POINTS).round().astype(int):
        assert made[y, x].min() > 200
    assert made.mean() < 20


def test_files_that_are_no_encoder_of_faces_are_refused(tmp_path: Path) -> None:
    cases: dict[str, Any] = {
        "damaged": (lambda p: p.write_bytes(b"nothing"), "is no ONNX file|cannot be run"),
        "side": (lambda p: write(p, side=98), "takes one picture"),
        "two": (lambda p: write(p, further=1), "takes one picture"),
        "grows": (lambda p: write(p, kind="Erf"), "computes with Erf"),
    }
    for name, (make, words) in cases.items():
        path = tmp_path / f"{name}.onnx"
        make(path)
        with pytest.raises(UnlikenessError, match=words) as caught:
            load_encoder(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="holds 4 ONNX files"):
        check_encoder(str(tmp_path))
    write(tmp_path / "w600k_r50.onnx")
    check_encoder(str(tmp_path))


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "find_spec", lambda name: None)
    with pytest.raises(UnlikenessError, match=r"need dlib and face_recognition_models.*unlikeness\[faces\]"):
        check_encoder("dlib")
