"""`protect` with a network needs NumPy, Pillow and ONNX Runtime alone: torch is never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.protect.test_tiles import write

from unlikeness.protect.methods.rid import Rid, RidSettings

BLOCKED = ("torch", "onnx", "diffusers", "transformers", "accelerate", "peft", "huggingface_hub", "scipy")

CODE = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from unlikeness.cli import main
sys.exit(main(sys.argv[1:]))
"""


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, timeout=120)


def test_a_folder_is_protected(tmp_path: Path) -> None:
    """With masks and a PSNR, at both sizes; then the run is repeated, and planned."""
    photos, masks, out = tmp_path / "photos", tmp_path / "masks", tmp_path / "out"
    photos.mkdir()
    for name in ("a.png", "b.jpg"):
        write(photos / name, 150, 90)
    write(photos / "grey.png", 90, 60, "L")
    masks.mkdir()
    Image.fromarray(np.tile(np.linspace(0, 255, 150).astype(np.uint8), (90, 1))).save(masks / "a.png")
    words = [str(photos), "-o", str(out), "--mask", str(masks), "--psnr", "36", "--at", "both"]
    done = cli("protect", *words, "-q")
    assert done.returncode == 0, done.stderr
    assert "3 protected" in done.stdout
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert {line["recipe"]["engine"] for line in lines} == {"onnxruntime"}
    assert all(line["computed"]["engine"].startswith("onnxruntime 1") for line in lines)
    assert "3 done before" in cli("protect", *words, "-q").stdout
    assert cli("protect", *words, "-q", "--dry-run").stdout.splitlines()[-1].startswith("3 pictures")


def test_what_needs_torch_says_so(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 40, 30)
    words = ["protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--device", "cuda"]
    done = cli(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "device cuda needs PyTorch, which cannot be imported (No module named 'torch')" in done.stderr


@pytest.mark.parametrize("side", [48, 50])
def test_both_engines_give_the_same_picture(side: int) -> None:
    """Within one level, and nearly always the same one."""
    images = np.random.default_rng(side).random((2, 3, side, side)).astype(np.float32)
    strength = np.linspace(0, 1, side * side, dtype=np.float32).reshape(1, 1, side, side).repeat(2, 0)
    made = [Rid(None, RidSettings(), engine=engine) for engine in ("onnxruntime", "torch")]
    assert made[0].fingerprint == made[1].fingerprint
    first, second = (np.rint(255 * one.perturb_arrays(images, strength, [0, 1])) for one in made)
    assert np.abs(first - np.rint(255 * images)).max() > 2
    assert np.abs(first - second).max() <= 1
    exact = made[1].dtype == "torch.float32"
    assert (first == second).mean() > (0.999 if exact else 0.97)
