"""Official checkpoints as files: usual wrappings are opened, and no file is trusted."""

from __future__ import annotations

import argparse
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.protect.rid.official import State, checkpoint, images, written

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.rid.official import OfficialRid, load_official


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}, "steps": 10},
        lambda s: {"model": {k: v * 0 for k, v in s.items()}, "ema": s},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    ],
)
def test_usual_wrappings_are_opened(
    tmp_path: Path, official: OfficialRid, wrap: Callable[[State], dict[str, Any]]
) -> None:
    x = images(1, 3, 16, 16)
    assert torch.equal(load_official(written(tmp_path, wrap(checkpoint())))(x), official(x))


def test_safetensors_are_opened(tmp_path: Path, official: OfficialRid) -> None:
    save_file(checkpoint(), tmp_path / "net.safetensors")
    loaded = load_official(tmp_path / "net.safetensors")
    x = images(1, 3, 16, 16)
    assert torch.equal(loaded(x), official(x))
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in loaded.parameters())


def without(*names: str) -> State:
    return {name: value for name, value in checkpoint().items() if name not in names}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (without("blocks.1.mlp.fc2.bias"), r"they lack blocks\.1\.mlp\.fc2\.bias"),
        (without("x_embedder.proj.weight"), r"they hold no x_embedder\.proj\.weight"),
        (without("pos_embed"), "they lack pos_embed"),
        ({k: v for k, v in checkpoint().items() if not k.startswith("blocks.0")}, "they lack blocks.0"),
        ({k: v for k, v in checkpoint().items() if not k.startswith("blocks")}, "they hold no blocks"),
        (checkpoint() | {"extra.weight": torch.ones(2)}, r"they also hold extra\.weight"),
        (checkpoint() | {"pos_embed": torch.ones(1, 15, 32)}, r"pos_embed is \[1, 15, 32\]"),
        (checkpoint() | {"pos_embed": torch.ones(1, 16, 31)}, r"pos_embed is \[1, 16, 31\].*\[1, 16, 32\]"),
        (checkpoint() | {"pos_embed": torch.ones(3)}, r"pos_embed is \[3\]"),
        (checkpoint() | {"x_embedder.proj.weight": torch.ones(32, 4, 4, 4)}, r"x_embedder.*\[32, 4, 4, 4\]"),
        (checkpoint() | {"blocks.0.mlp.fc1.weight": torch.ones(())}, r"fc1\.\w+ is \["),
        (checkpoint() | {"blocks.1.attn.qkv.weight": torch.ones(32, 32)}, r"qkv\.weight is \[32, 32\]"),
        (checkpoint() | {"blocks.1.adaLN_modulation.1.weight": torch.ones(1, 1)}, r"1\.weight is \[1, 1\]"),
        (checkpoint() | {"final_layer.linear.bias": torch.ones(96)}, r"linear\.bias is \[96\]"),
        (checkpoint() | {"pos_embed": "text"}, "'pos_embed', which is no tensor of real numbers"),
        (checkpoint() | {"pos_embed": torch.ones(1, 16, 32).long()}, "no tensor of real numbers"),
        (checkpoint() | {"module.pos_embed": torch.ones(1, 16, 32)}, "'pos_embed' twice"),
        ({"a": 1}, "'a', which is no tensor"),
        ({}, r"they hold no x_embedder\.proj\.weight"),
    ],
)
def test_another_network_is_refused_by_name(tmp_path: Path, state: dict[str, Any], words: str) -> None:
    path = written(tmp_path, state)
    with pytest.raises(UsageError, match=words) as caught:
        load_official(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "list.bin")
    with pytest.raises(UsageError, match="hold a list, no state dict"):
        load_official(tmp_path / "list.bin")
    for path in (tmp_path / "missing.bin", tmp_path):
        with pytest.raises(UsageError, match="are no file"):
            load_official(path)


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, checkpoint())
    for heads in (5, 0, -8):
        with pytest.raises(UsageError, match="heads"):
            load_official(path, heads=heads)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bias = torch.zeros(32)
    bias[3] = math.nan
    path = written(tmp_path, checkpoint() | {"blocks.1.attn.proj.bias": bias})
    with pytest.raises(UnlikenessError, match=r"not finite in blocks\.1\.proj\.bias"):
        load_official(path)
    path = written(tmp_path, checkpoint() | {"final_layer.linear.bias": torch.full((48,), 1e6)})
    with pytest.raises(UnlikenessError, match=r"not finite in out\.bias"):
        load_official(path, dtype=torch.float16)


def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, checkpoint() | {"pos_embed": torch.ones(1).expand(1, 1 << 40, 32)})
    with pytest.raises(UnlikenessError, match="pos_embed is cut short"):
        load_official(path)


@pytest.mark.parametrize("name", ["net.bin", "net.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    save_file(checkpoint(), path) if path.suffix == ".safetensors" else written(tmp_path, checkpoint())
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(UnlikenessError, match="damaged") as caught:
        load_official(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_bytes_never_show_a_traceback(tmp_path: Path) -> None:
    path = written(tmp_path, checkpoint(width=8, depth=1, grid=1))
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        # The pickle lies at the beginning of the file, the list of its parts at the end.
        for at in torch.randint(-3000, 3000, (3,), generator=generator).tolist():
            damaged[at] = int(torch.randint(256, (), generator=generator))
        path.write_bytes(bytes(damaged))
        try:
            load_official(path)
        except UnlikenessError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 50


class Malicious:
    """Writes a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, trace = tmp_path / "net.bin", tmp_path / "trace"
    state = {**checkpoint(), "blocks.0.attn.qkv.bias": Malicious(trace)}
    if form == "plain":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(
        UnlikenessError, match="which is refused" if form == "zip" else "another format"
    ) as caught:
        load_official(path)
    assert not trace.exists()
    assert "\n" not in str(caught.value)
    if form == "zip":
        assert f"{os.name}.mkdir" in str(caught.value)


def test_a_harmless_object_beside_the_tensors_is_refused_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, {"model": checkpoint(), "args": argparse.Namespace(lr=1e-4)})
    with pytest.raises(UnlikenessError, match=r"asks for argparse\.Namespace, which is refused"):
        load_official(path)
