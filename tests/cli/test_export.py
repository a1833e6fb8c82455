"""`unlikeness export`, as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unlikeness.cli import main
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.onnx_file import OnnxProtector
from unlikeness.protect.rid.weights import load_protector, save_protector


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network = Protector(NetworkSettings(fine=8, middle=8, coarse=8))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) / 8)
    save_protector(network, tmp_path / "ours.safetensors", about={"resolution": 64, "models": ["toybox"]})
    return tmp_path / "ours.safetensors"


def test_it_writes_what_onnx_runtime_computes_the_same_with(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "ours.onnx"
    done = subprocess.run(
        [sys.executable, "-m", "unlikeness", "export", "--weights", str(weights), "-o", str(output)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"exported {weights}: {output}\n"
    loaded, exported = load_protector(weights), OnnxProtector(output)
    assert exported.about == loaded.about
    images = torch.rand(2, 3, 21, 30, generator=torch.Generator().manual_seed(0))
    expected = loaded.network(images, torch.tensor([8.0, 4.0]))
    assert expected.abs().max() > 1e-3
    assert torch.allclose(exported(images, torch.tensor([8.0, 4.0])), expected, atol=1e-5)


def test_nothing_is_replaced_unless_asked(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "ours.onnx"
    output.write_text("mine")
    command = ["export", "--weights", str(weights), "--output", str(output)]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "--overwrite" in err
    assert err.count("\n") == 1
    assert output.read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert OnnxProtector(output).resolution == 64


def test_misuse_is_one_line_and_writes_nothing(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    torch.save({}, tmp_path / "ASDS-eps-12_255.bin")
    good = tmp_path / "good.onnx"
    before = sorted(tmp_path.rglob("*"))
    wrong = {
        "ends in .onnx": (weights, tmp_path / "ours.pt"),
        "is a folder": (weights, tmp_path / "folder.onnx"),
        "is no folder": (weights, weights / "ours.onnx"),
        "no shipped protector": (tmp_path / "missing", good),
        "only those become ONNX": (tmp_path / "ASDS-eps-12_255.bin", good),
    }
    for named, (source, output) in wrong.items():
        assert main(["export", "--weights", str(source), "--output", str(output)]) == 2, named
        out, err = capsys.readouterr()
        assert out == ""
        assert named in err
        assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_it_needs_neither_torch_nor_onnx(weights: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules.update(torch=None, onnx=None, onnxruntime=None); "
    done = subprocess.run(
        [
            sys.executable, "-c", code + "from unlikeness.cli import main; sys.exit(main(sys.argv[1:]))",
            "export", "--weights", str(weights), "--output", str(tmp_path / "ours.onnx"),
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert OnnxProtector(tmp_path / "ours.onnx").resolution == 64
