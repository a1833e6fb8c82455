"""Encoders of faces: dlib's, and ArcFace-like networks in an ONNX file.

dlib finds the largest face of a picture, and its landmarks turn and scale the face as the encoder was trained
to see it. A picture without a face has no vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError, read, reason

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from unlikeness.measure.encoders import Encoder

__all__ = ["DLIB", "check_faces", "load_dlib", "load_onnx", "onnx_file"]

DLIB = "dlib"
"""Name of dlib's encoder."""

_PACKAGES = ("dlib", "face_recognition_models")
_MOST_SIDE = 1024
"""Faces are looked for at this long side at most [px]."""

_SIDE = 112
_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Eyes, nose and corners of the mouth in a crop of 112 px, as ArcFace is trained (insightface)."""

_LARGEST = 1 << 30
_OPERATORS = frozenset(
    (
        "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "Div",
        "Dropout", "Flatten", "Gather", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity",
        "LeakyRelu", "LpNormalization", "MatMul", "MaxPool", "Mul", "PRelu", "ReduceL2", "ReduceMean", "Relu",
        "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
    )
)  # fmt: skip
"""Operators of a network of faces. None of them makes much more data than it is given."""


def check_faces() -> None:
    """UnlikenessError, with the remedy, unless the extra `faces` is installed. Imports neither package."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise UnlikenessError(
            f"encoders of faces need {' and '.join(missing)}, an extra that is not installed; "
            'pip install "unlikeness[faces]"'
        )


def load_dlib() -> Encoder:
    """dlib's ResNet of 128 dimensions (dlib.net, `face_recognition_models`), on crops of 150 px."""
    import numpy as np
    import torch

    from unlikeness.measure.encoders import Encoder

    check_faces()
    finder = _Finder()
    import dlib

    path = finder.folder / "dlib_face_recognition_resnet_model_v1.dat"
    network = dlib.face_recognition_model_v1(str(path))

    def view(image: Tensor) -> Tensor | None:
        found = finder.face(image, "shape_predictor_5_face_landmarks.dat")
        return None if found is None else torch.from_numpy(np.ascontiguousarray(dlib.get_face_chip(*found)))

    def vectors(crops: Tensor) -> Tensor:
        return torch.tensor(np.array([network.compute_face_descriptor(one.numpy()) for one in crops]))

    digest = hashlib.sha256(read(path, most=_LARGEST)).hexdigest()[:16]
    return Encoder(DLIB, view, vectors, 128, digest, faces=True)


def onnx_file(path: Path) -> Path | None:
    """The ONNX file of a path: itself, or those of a folder without config.json; None for another path.

    A folder with several, such as insightface's packs, leads to its recognition network, w600k_*.onnx.
    UsageError for several others.
    """
    if path.is_file() and path.suffix.lower() == ".onnx":
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    files = sorted(path.glob("*.onnx"))
    chosen = [file for file in files if file.name.startswith("w600k_")] or files
    if len(chosen) > 1:
        raise UsageError(f"{path} holds {len(chosen)} ONNX files; give the one that encodes faces")
    return chosen[0] if chosen else None


def load_onnx(path: Path, name: str) -> Encoder:
    """An ArcFace-like network: aligned faces [B, 3, 112, 112] to vectors [B, D], on the CPU.

    It is given RGB in [-1, 1], or in [0, 255] if its graph begins by scaling pictures itself.
    UnlikenessError if it is damaged, of other shapes, or has operators of no such network.
    """
    import numpy as np
    import torch

    from unlikeness.measure.encoders import Encoder

    check_faces()
    data, plain = _checked(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    run = _guarded(path)
    session = run(lambda: onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]))
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or list(inputs[0].shape[1:]) != [3, _SIDE, _SIDE]:
        raise UnlikenessError(
            f"{path} takes {[one.shape for one in inputs]}, and an encoder of faces takes one picture "
            f"[B, 3, {_SIDE}, {_SIDE}]; give such a file"
        )
    finder = _Finder()

    def view(image: Tensor) -> Tensor | None:
        found = finder.face(image, "shape_predictor_68_face_landmarks.dat")
        if found is None:
            return None
        pixels, marks = found
        points = np.array([[p.x, p.y] for p in marks.parts()], dtype=np.float64)
        own = [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
        crop = torch.from_numpy(_aligned(pixels, np.array(own))).permute(2, 0, 1).float()
        return crop if plain else (crop - 127.5) / 127.5

    def vectors(crops: Tensor) -> Tensor:
        pixels = crops.numpy()
        parts = np.split(pixels, len(pixels)) if inputs[0].shape[0] == 1 else [pixels]
        found = run(lambda: [session.run(None, {inputs[0].name: part})[0] for part in parts])
        return torch.from_numpy(np.concatenate(found))

    probe = vectors(torch.zeros(1, 3, _SIDE, _SIDE))
    if probe.ndim != 2 or not 16 <= probe.shape[1] <= 8192:
        raise UnlikenessError(f"{path} gives {list(probe.shape)}, which is no vector of a face; give another")
    digest = hashlib.sha256(data).hexdigest()[:16]
    return Encoder(name, view, vectors, int(probe.shape[1]), digest, faces=True)


def _checked(path: Path) -> tuple[bytes, bool]:
    """(the file, whether the network scales pictures itself)."""
    try:
        import onnx
    except ImportError as error:
        raise UnlikenessError(
            'reading ONNX needs an extra that is not installed; pip install "unlikeness[faces,onnx]"'
        ) from error
    try:
        data = read(path, most=_LARGEST)
        model = onnx.load_model_from_string(data)
    except UnreadableError as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); fetch it again") from error
    except Exception as error:
        raise UnlikenessError(f"{path} is no ONNX file ({reason(error)}); fetch it again") from error
    graph, kinds = model.graph, onnx.AttributeProto
    unused = (kinds.GRAPH, kinds.GRAPHS, kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS)
    other = sorted({one.op_type for one in graph.node} - _OPERATORS)
    if other or any(one.domain not in ("", "ai.onnx") for one in graph.node):
        words = one_line(", ".join(other))[:60] or "operators of its own"
        raise UnlikenessError(f"{path} computes with {words}, as no encoder of faces does; give another file")
    attributes = [one for node in graph.node for one in node.attribute]
    tensors = [*graph.initializer, *(t for one in attributes for t in (one.t, *one.tensors))]
    if any(one.data_location == onnx.TensorProto.EXTERNAL or one.external_data for one in tensors):
        raise UnlikenessError(f"{path} keeps weights in other files; give one that holds all of them")
    if model.functions or graph.sparse_initializer or any(one.type in unused for one in attributes):
        raise UnlikenessError(
            f"{path} has functions, sparse weights or graphs within its graph, as no encoder of faces does; "
            "give another file"
        )
    if any(abs(n) > _SIDE for one in attributes if one.name in ("pads", "strides") for n in one.ints):
        raise UnlikenessError(f"{path} pads pictures by more than their side; give another file")
    first = [one.op_type for one in graph.node[:8]]
    return data, "Sub" in first and "Mul" in first


def _guarded(path: Path) -> Callable[[Callable[[], Any]], Any]:
    def run(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except MemoryError:
            raise
        except Exception as error:
            raise UnlikenessError(f"{path} cannot be run ({reason(error)}); give another file") from error

    return run


class _Finder:
    """The largest face of a picture, and its landmarks."""

    @cached_property
    def folder(self) -> Path:
        """Where `face_recognition_models` keeps its files; the package itself is not imported."""
        check_faces()
        spec = find_spec("face_recognition_models")
        places = [] if spec is None else list(spec.submodule_search_locations or [])
        return Path(places[0]) / "models"

    @cached_property
    def _detector(self) -> Any:
        import dlib

        return dlib.get_frontal_face_detector()

    @cached_property
    def _predictors(self) -> dict[str, Any]:
        return {}

    def face(self, image: Tensor, marks: str) -> tuple[np.ndarray[Any, Any], Any] | None:
        """(pixels uint8 [H, W, 3], landmarks by the file `marks`) of [3, H, W] in [0, 1]; None: no face."""
        import dlib
        import numpy as np
        from PIL import Image

        values = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().contiguous().numpy()
        shown = Image.fromarray(values)
        shown.thumbnail((_MOST_SIDE, _MOST_SIDE), Image.Resampling.LANCZOS)
        pixels = np.array(shown)
        if min(pixels.shape[:2]) < 32:
            return None
        found = self._detector(pixels, 0) or self._detector(pixels, 1)
        if not found:
            return None
        if marks not in self._predictors:
            self._predictors[marks] = dlib.shape_predictor(str(self.folder / marks))
        largest = max(found, key=lambda box: box.area())
        return pixels, self._predictors[marks](pixels, largest)


def _aligned(pixels: np.ndarray[Any, Any], points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[112, 112, 3] uint8: turned, scaled and moved so that `points` [5, 2] lie where `_POINTS` are.

    The similarity transform with the least squared distance (Umeyama 1991).
    """
    import numpy as np
    from PIL import Image

    wanted = np.array(_POINTS)
    a, b = points - points.mean(0), wanted - wanted.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    flip = np.diag([1.0, np.sign(np.linalg.det(u @ vt))])
    turn = u @ flip @ vt
    scale = float((s * np.diag(flip)).sum() / (a**2).sum())
    back = turn.T / scale  # from the crop to the picture
    shift = points.mean(0) - back @ wanted.mean(0)
    shift = shift + 0.5 - back @ [0.5, 0.5]  # PIL counts from the corners of pixels
    row = (back[0, 0], back[0, 1], shift[0], back[1, 0], back[1, 1], shift[1])
    made = Image.fromarray(pixels).transform(
        (_SIDE, _SIDE), Image.Transform.AFFINE, row, resample=Image.Resampling.BILINEAR
    )
    return np.array(made)
