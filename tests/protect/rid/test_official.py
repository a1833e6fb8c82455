"""The official RID network: equal to its literal description."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.protect.rid.official import DEAD, checkpoint, images, literal, written

from unlikeness.errors import UsageError
from unlikeness.protect.rid.official import OfficialRid, load_official, official_like


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


def test_every_part_of_the_literal_network_matters(tmp_path: Path, official: OfficialRid) -> None:
    """So the equality above cannot hold by a part that both leave out."""
    x = images(1, 3, 16, 16)
    state = checkpoint()
    for name in state:
        # Not a constant, which the bias of a key would cancel in the softmax.
        changed = state | {name: state[name] * 1.5}
        distance = (load_official(written(tmp_path, changed))(x) - official(x)).abs().max()
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


def test_dead_parameters_may_be_missing(tmp_path: Path, official: OfficialRid) -> None:
    alive = {name: v for name, v in checkpoint().items() if not DEAD.search(name)}
    x = images(1, 3, 16, 16)
    assert torch.equal(load_official(written(tmp_path, alive))(x), official(x))


def test_the_same_architecture_with_random_weights(official: OfficialRid) -> None:
    like = official_like(width=32, depth=2, patch=4, side=16)
    assert [(n, p.shape) for n, p in like.named_parameters()] == [
        (n, p.shape) for n, p in official.named_parameters()
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
