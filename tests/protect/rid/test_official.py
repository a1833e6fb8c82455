"""The official RID network: equal to its literal description, any size, and no trust in a file."""

from __future__ import annotations

import argparse
import math
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect.rid.official import OfficialRid, budget_of_name, load_official, official_like

State = dict[str, Tensor]
DEAD = re.compile(r"^t_embedder|^y_embedder|adaLN_modulation.1.weight$")


def checkpoint(
    *,
    width: int = 32,
    depth: int = 2,
    patch: int = 4,
    grid: int = 4,
    hidden: int | None = None,
    seed: int = 0,
) -> State:
    """A random network under the public DiT's names; nothing in it is zero."""
    hidden = hidden or 4 * width
    generator = torch.Generator().manual_seed(seed)
    state: State = {}

    def linear(name: str, rows: int, columns: int, bias: float = 0.3) -> None:
        state[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) * columns**-0.5
        state[f"{name}.bias"] = torch.randn(rows, generator=generator) * bias

    linear("x_embedder.proj", width, 3 * patch**2)
    state["x_embedder.proj.weight"] = state["x_embedder.proj.weight"].view(width, 3, patch, patch)
    state["pos_embed"] = torch.randn(1, grid**2, width, generator=generator)
    linear("t_embedder.mlp.0", width, 256)
    linear("t_embedder.mlp.2", width, width)
    state["y_embedder.embedding_table.weight"] = torch.randn(11, width, generator=generator)
    for i in range(depth):
        linear(f"blocks.{i}.attn.qkv", 3 * width, width)
        linear(f"blocks.{i}.attn.proj", width, width)
        linear(f"blocks.{i}.mlp.fc1", hidden, width)
        linear(f"blocks.{i}.mlp.fc2", width, hidden)
        linear(f"blocks.{i}.adaLN_modulation.1", 6 * width, width)
    linear("final_layer.adaLN_modulation.1", 2 * width, width)
    linear("final_layer.linear", 3 * patch**2, width)
    return state


def literal(state: State, images: Tensor, heads: int) -> Tensor:
    """The network as it is described, nothing folded: tanh of the unpatchified output, [B, 3, H, W]."""
    s = {name: value.to(images.dtype) for name, value in state.items()}
    width, _, p, _ = s["x_embedder.proj.weight"].shape

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-6)

    def silu(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    def gelu(x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return x * (1 + scale[:, None]) + shift[:, None]

    def attention(name: str, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        q, k, v = (
            part.reshape(batch, count, heads, width // heads).transpose(1, 2)
            for part in linear(f"{name}.qkv", x).chunk(3, dim=-1)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(width // heads), dim=-1)
        return linear(f"{name}.proj", (weights @ v).transpose(1, 2).reshape(batch, count, width))

    c = images.new_zeros(len(images), width)
    x = F.conv2d(2 * images - 1, s["x_embedder.proj.weight"], s["x_embedder.proj.bias"], stride=p)
    x = x.flatten(2).transpose(1, 2) + s["pos_embed"]
    for i in range(sum(name.endswith("attn.qkv.bias") for name in s)):
        block = f"blocks.{i}"
        modulation = linear(f"{block}.adaLN_modulation.1", silu(c)).chunk(6, dim=1)
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_msa[:, None] * attention(f"{block}.attn", modulate(norm(x), shift_msa, scale_msa))
        hidden = gelu(linear(f"{block}.mlp.fc1", modulate(norm(x), shift_mlp, scale_mlp)))
        x = x + gate_mlp[:, None] * linear(f"{block}.mlp.fc2", hidden)
    shift, scale = linear("final_layer.adaLN_modulation.1", silu(c)).chunk(2, dim=1)
    x = linear("final_layer.linear", modulate(norm(x), shift, scale))
    n = math.isqrt(x.shape[1])
    x = torch.einsum("bhwpqc->bchpwq", x.reshape(len(x), n, n, p, p, 3))
    return torch.tanh(x.reshape(len(x), 3, n * p, n * p))


def written(folder: Path, state: Mapping[str, Any], name: str = "net.bin") -> Path:
    torch.save(dict(state), folder / name)
    return folder / name


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> OfficialRid:
    return load_official(written(tmp_path_factory.mktemp("net"), checkpoint()))


@pytest.mark.parametrize(("heads", "hidden"), [(8, None), (4, None), (8, 48)])
def test_it_is_the_literal_network(tmp_path: Path, heads: int, hidden: int | None) -> None:
    state = checkpoint(hidden=hidden)
    path = written(tmp_path, state)
    x = images(2, 3, 16, 16)
    wanted = literal(state, x.double(), heads)
    assert wanted.abs().mean() > 0.2
    exact = load_official(path, heads=heads, dtype=torch.float64)(x)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact, wanted, rtol=0, atol=1e-12)
    single = load_official(path, heads=heads)(x)
    assert single.dtype == torch.float32
    assert (single - wanted).abs().max() < 1e-5
    assert (single - literal(state, x, heads)).abs().max() < 1e-5


def test_every_part_of_the_literal_network_matters(tmp_path: Path, network: OfficialRid) -> None:
    """So the equality above cannot hold by a part that both leave out."""
    x = images(1, 3, 16, 16)
    state = checkpoint()
    for name in state:
        # Not a constant, which the bias of a key would cancel in the softmax.
        changed = state | {name: state[name] * 1.5}
        distance = (load_official(written(tmp_path, changed))(x) - network(x)).abs().max()
        assert (distance > 1e-3) == (DEAD.search(name) is None), name


def test_it_is_the_literal_network_at_full_width(tmp_path: Path) -> None:
    state = checkpoint(width=1152, depth=1, patch=16, grid=4)
    x = images(1, 3, 64, 64)
    single = load_official(written(tmp_path, state))(x)
    assert (single - literal(state, x, 8)).abs().max() < 1e-5


def test_bfloat16_comes_close(tmp_path: Path) -> None:
    state = checkpoint()
    x = images(2, 3, 16, 16)
    half = load_official(written(tmp_path, state), dtype=torch.bfloat16)(x)
    assert half.dtype == torch.float32
    assert (half - literal(state, x, 8)).abs().mean() < 0.02


def test_dead_parameters_are_dropped_and_nothing_keeps_the_file_alive(tmp_path: Path) -> None:
    state = checkpoint()
    loaded = load_official(written(tmp_path, state))
    held = list(loaded.parameters()) + list(loaded.buffers())
    dead = sum(value.numel() for name, value in state.items() if DEAD.search(name))
    modulation = 2 * 6 * 32 + 2 * 32
    embedding = 32  # its bias is in the positions
    assert (
        sum(p.numel() for p in held) == sum(v.numel() for v in state.values()) - dead - modulation - embedding
    )
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in held)
    assert not any(p.requires_grad for p in held)
    assert not loaded.training


def test_dead_parameters_may_be_missing(tmp_path: Path, network: OfficialRid) -> None:
    alive = {name: v for name, v in checkpoint().items() if not DEAD.search(name)}
    x = images(1, 3, 16, 16)
    assert torch.equal(load_official(written(tmp_path, alive))(x), network(x))


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
    tmp_path: Path, network: OfficialRid, wrap: Callable[[State], dict[str, Any]]
) -> None:
    x = images(1, 3, 16, 16)
    assert torch.equal(load_official(written(tmp_path, wrap(checkpoint())))(x), network(x))


def test_safetensors_are_opened(tmp_path: Path, network: OfficialRid) -> None:
    save_file(checkpoint(), tmp_path / "net.safetensors")
    loaded = load_official(tmp_path / "net.safetensors")
    x = images(1, 3, 16, 16)
    assert torch.equal(loaded(x), network(x))
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in loaded.parameters())


@pytest.mark.parametrize("way", ["resize", "tiles"])
@pytest.mark.parametrize("size", [(16, 16), (37, 50), (5, 90), (16, 7), (1, 1)])
def test_any_size_is_changed_everywhere_and_within_the_budget(
    network: OfficialRid, way: str, size: tuple[int, int]
) -> None:
    x = images(2, 3, *size)
    for budget in (0.0, 4.0, 255.0):
        delta = network.delta(x, budget, way=way, batch_size=3)
        assert delta.shape == x.shape
        assert delta.dtype == x.dtype
        assert delta.abs().max() <= budget / 255
        assert delta.abs().mean() >= 0.02 * budget / 255
    one = network.delta(x[1:], 4, way=way)
    torch.testing.assert_close(network.delta(x, 4, way=way)[1:], one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", ["resize", "tiles"])
def test_at_its_own_size_the_perturbation_is_the_networks(network: OfficialRid, way: str) -> None:
    x = images(1, 3, 16, 16)
    torch.testing.assert_close(network.delta(x, 8, way=way), network(x) * (8 / 255), rtol=0, atol=1e-7)


def test_resizing_sees_the_whole_picture_antialiased(network: OfficialRid) -> None:
    x = images(1, 3, 40, 56)
    small = F.interpolate(x, (16, 16), mode="bilinear", antialias=True)
    large = F.interpolate(network(small), (40, 56), mode="bilinear")
    torch.testing.assert_close(network.delta(x, 8), large * (8 / 255), rtol=0, atol=1e-6)


def test_tiles_hold_the_central_square_whole_and_mirror_small_pictures(network: OfficialRid) -> None:
    x = images(1, 3, 48, 36)
    centre = network.delta(x, 255, way="tiles", overlap=0.0)[..., 16:32, 10:26]
    torch.testing.assert_close(centre, network(x[..., 16:32, 10:26]), rtol=0, atol=1e-6)
    small = images(1, 3, 16, 5)
    mirrored = torch.cat([small, small.flip(3), small, small.flip(3)], dim=3)[..., :16]
    wanted = network(mirrored)[..., :5]
    torch.testing.assert_close(network.delta(small, 255, way="tiles"), wanted, rtol=0, atol=1e-6)


def test_tiles_are_cross_faded(network: OfficialRid) -> None:
    """A flat picture looks the same to each tile, so a blend lies between known values."""
    x = torch.full((1, 3, 16, 24), 0.4)
    unit = network(x[..., :16])
    blended = network.delta(x, 255, way="tiles", overlap=0.5)
    # Tiles start at 0, 4 and 8; the fade between the first two runs over the pixels 4 to 11.
    torch.testing.assert_close(blended[..., :4], unit[..., :4], rtol=0, atol=1e-6)
    first, second = unit[..., 4:12], unit[..., 0:8]
    middle = blended[..., 4:8]
    low, high = torch.minimum(first, second)[..., :4], torch.maximum(first, second)[..., :4]
    assert (middle >= low - 1e-6).all()
    assert (middle <= high + 1e-6).all()
    assert ((middle - first[..., :4]).abs() > 1e-4).any()
    assert ((middle - second[..., :4]).abs() > 1e-4).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": images(3, 16, 16)}, r"images must be \[B, 3, H, W\]"),
        ({"images": images(1, 4, 16, 16)}, r"images must be \[B, 3, H, W\]"),
        ({"images": images(1, 3, 0, 16)}, r"images must be \[B, 3, H, W\]"),
        ({"images": images(1, 3, 16, 16).byte()}, r"floats, not .* in torch\.uint8"),
        ({"budget": -1.0}, "budget must be from 0 to 255"),
        ({"budget": math.nan}, "budget must be from 0 to 255"),
        ({"way": "fit"}, "way must be one of resize, tiles"),
        ({"overlap": 0.6}, "overlap must be from 0 to 0.5"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_misuse_is_named(network: OfficialRid, change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"images": images(1, 3, 16, 16), "budget": 8.0, **change}
    with pytest.raises(UsageError, match=words):
        network.delta(**arguments)


def test_the_network_itself_takes_its_own_size_only(network: OfficialRid) -> None:
    with pytest.raises(UsageError, match=r"images must be \[B, 3, 16, 16\], not \[1, 3, 16, 20\]"):
        network(images(1, 3, 16, 20))


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
    with pytest.raises(UnlikenessError, match=r"ask for argparse\.Namespace, which is refused"):
        load_official(path)


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("ASDS-eps-12_255.bin", 6.0),
        ("/eps-4_255/x/ASDS-EPS-16_255-v2.safetensors", 8.0),
        ("eps-7.5_255.bin", 3.75),
        ("eps-12_2550.bin", None),
        ("steps-12_255.bin", None),
        ("eps-600_255.bin", None),
        ("/eps-4_255/model.bin", None),
    ],
)
def test_a_files_name_claims_a_budget(name: str, budget: float | None) -> None:
    assert budget_of_name(name) == budget
    assert budget_of_name(Path(name)) == budget


def test_the_same_architecture_with_random_weights(network: OfficialRid) -> None:
    like = official_like(width=32, depth=2, patch=4, side=16)
    assert [(n, p.shape) for n, p in like.named_parameters()] == [
        (n, p.shape) for n, p in network.named_parameters()
    ]
    again = official_like(width=32, depth=2, patch=4, side=16, generator=torch.Generator().manual_seed(0))
    other = official_like(width=32, depth=2, patch=4, side=16, generator=torch.Generator().manual_seed(1))
    x = images(1, 3, 16, 16)
    assert torch.equal(like(x), again(x))
    assert not torch.equal(like(x), other(x))
    assert 0.1 < like(x).abs().mean() < 0.95
    with pytest.raises(UsageError, match="no multiple of the patch"):
        official_like(width=32, depth=2, patch=4, side=18)


def test_making_a_network_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    path = written(tmp_path, checkpoint())
    before = torch.random.get_rng_state()
    load_official(path)
    official_like(width=32, depth=1, patch=4, side=16)
    assert torch.equal(torch.random.get_rng_state(), before)
