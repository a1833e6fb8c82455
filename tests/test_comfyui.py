"""The ComfyUI node, loaded and called as ComfyUI loads and calls a node, gives what `protect` gives."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unlikeness.errors import UsageError
from unlikeness.protect.files.folder import protect_folder
from unlikeness.protect.methods.rid import Rid, RidSettings

FILE = Path(__file__).parents[1] / "integrations" / "comfyui" / "unlikeness_protect.py"
KINDS = {"IMAGE", "MASK", "FLOAT", "INT", "STRING", "BOOLEAN"}


@pytest.fixture
def node() -> Any:
    """The one class of the file, by its name as its path, as ComfyUI's loader does."""
    spec = importlib.util.spec_from_file_location(str(FILE.with_suffix("")).replace(".", "_x_"), FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (name,) = module.NODE_CLASS_MAPPINGS
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == {name}
    return module.NODE_CLASS_MAPPINGS[name]


def execute(kind: Any, **given: Any) -> Tensor:
    """What ComfyUI does with a node of a workflow: inputs checked and filled in, a tuple of outputs back."""
    inputs = kind.INPUT_TYPES()
    assert set(inputs) <= {"required", "optional", "hidden"}
    words: dict[str, Any] = {}
    for part, wanted in inputs.items():
        for name, (type_, *options) in wanted.items():
            assert type_ in KINDS
            known = options[0] if options else {}
            if name in given:
                words[name] = given.pop(name)
            elif part == "required":
                words[name] = known["default"]
            if type_ == "FLOAT":
                assert known["min"] <= words[name] <= known["max"]
    assert not given
    result = getattr(kind(), kind.FUNCTION)(**words)
    assert isinstance(result, tuple)
    assert len(result) == len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES) == 1
    (image,) = result
    assert isinstance(image, Tensor)
    return image


def batch(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    levels = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)
    return torch.from_numpy(levels.astype(np.float32) / 255)


def test_the_node_says_what_it_is(node: Any) -> None:
    assert node.CATEGORY
    assert node.RETURN_TYPES == ("IMAGE",)
    assert callable(getattr(node, node.FUNCTION))


def test_a_picture_is_what_protect_saves(node: Any, tmp_path: Path) -> None:
    image = batch(1, 70, 110)
    Image.fromarray((image[0].numpy() * 255).round().astype(np.uint8)).save(tmp_path / "a.png")
    protect_folder([tmp_path / "a.png"], tmp_path / "out", Rid(None, RidSettings(budget=6)), method="rid")
    saved = np.asarray(Image.open(tmp_path / "out" / "a.png"), np.float32)
    made = execute(node, image=image, strength=6.0)
    assert made.shape == image.shape
    assert np.abs(made[0].numpy() * 255 - saved).max() <= 0.51
    assert 3 < float((made - image).abs().max()) * 255 <= 6.001


def test_a_batch_with_alpha_and_a_mask(node: Any) -> None:
    image = batch(2, 64, 80, 4).half()
    mask = torch.zeros(1, 64, 80)
    mask[:, :, 40:] = 1
    made = execute(node, image=image, mask=mask, strength=16.0)
    assert (made.dtype, made.shape) == (image.dtype, image.shape)
    assert torch.equal(made[..., 3], image[..., 3])
    assert torch.equal(made[:, :, :40], image[:, :, :40])
    assert all((one - other).abs().max() > 4 / 255 for one, other in zip(made, image, strict=True))


def test_values_beyond_the_range_and_wrong_inputs(node: Any) -> None:
    image = batch(1, 40, 40) * 1.2 - 0.1
    made = execute(node, image=image)
    assert made.min() >= 0
    assert made.max() <= 1
    for wrong, said in (
        ({"image": batch(1, 40, 40, 1)}, "height, width, 3"),
        ({"image": batch(1, 40, 40), "mask": torch.ones(1, 8, 8)}, "40 × 40 px"),
        ({"image": batch(1, 40, 40), "network": "nosuch"}, "nosuch"),
        ({"image": batch(1, 40, 40) * float("nan")}, "numbers"),
    ):
        with pytest.raises(UsageError, match=said):
            execute(node, **wrong)


def test_a_missing_package_is_a_sentence(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unlikeness.protect.pixels", None)
    with pytest.raises(RuntimeError, match="not installed for ComfyUI's Python"):
        execute(node, image=batch(1, 8, 8))
