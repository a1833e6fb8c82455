"""A training in two processes: each draws its half of a batch, and both take the mean gradient."""

from __future__ import annotations

import shutil
import socket
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.protect.rid.small import FEW, SMALL
from tests.tiny import tiny_model
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from unlikeness.errors import UsageError
from unlikeness.protect.rid.train import fit
from unlikeness.protect.rid.train.fit import train_protector
from unlikeness.protect.rid.train.processes import Processes, launched
from unlikeness.protect.rid.train.recipe import CHECKPOINT, ProtectorRecipe
from unlikeness.seeds import step_generator
from unlikeness.training import train

RECIPE = ProtectorRecipe(**{**FEW, "steps": 4, "batch_size": 4})


def test_alone_nothing_is_different(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched("cuda:7") as alone:
        assert (alone.rank, alone.count, alone.device, alone.main) == (0, 1, None, True)
    generator, loss = torch.Generator(), torch.ones(())
    assert alone.share(3) == 3
    assert alone.generator(generator, 0, 5) is generator
    assert alone.averaged(loss, []) is loss


def test_a_batch_is_shared_in_equal_parts_and_drawn_by_each_for_itself() -> None:
    pair = [Processes(rank, 2) for rank in range(2)]
    assert [p.share(6) for p in pair] == [3, 3]
    assert [p.main for p in pair] == [True, False]
    with pytest.raises(UsageError, match="a batch of 5 pictures cannot be shared by 2 processes"):
        pair[0].share(5)
    draws = [
        float(torch.rand((), generator=p.generator(step_generator(seed, index), seed, index)))
        for p in pair
        for seed in range(2)
        for index in range(2)
    ]
    assert len(set(draws)) == 8
    again = pair[1].generator(torch.Generator(), 1, 1)
    assert float(torch.rand((), generator=again)) == draws[-1]


def test_a_device_by_name_is_not_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--device cuda:0 would be every process's"), launched("cuda:0"):
        pass


def test_the_gradient_is_the_mean_of_all_and_the_value_too() -> None:
    """Two processes in one, one after the other: what the first sends is what the second adds."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    for p in parameters:
        p.requires_grad_(True)

    def loss(of: int) -> Tensor:
        return (parameters[0] * (of + 1)).sin().sum() + of * (parameters[1] ** 2).sum()

    sent: list[Tensor] = []

    def send(flat: Tensor) -> Tensor:
        sent.append(flat)
        return flat

    Processes(0, 2, None, nullcontext, send).averaged(loss(0), parameters)
    receiving = Processes(1, 2, None, nullcontext, lambda flat: (flat + sent[0]) / 2)
    joint = receiving.averaged(loss(1), parameters)
    torch.autograd.backward(joint)
    wanted = torch.autograd.grad((loss(0) + loss(1)) / 2, parameters)
    for p, mean in zip(parameters, wanted, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, mean)
    torch.testing.assert_close(joint, (loss(0) + loss(1)) / 2)


def process(rank: int, port: int, folder: Path) -> None:
    """One of two: a whole training, and its second half from the first half's checkpoint."""
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    for name, value in {
        "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }.items():  # fmt: skip
        patch.setenv(name, value)
    model = tiny_model(folder / f"model{rank}")
    saves = folder / "whole" / CHECKPOINT
    sent: list[Tensor] = []
    seen: list[Tensor] = []

    def halfway(done: int, loss: float) -> None:
        if done == 2 and saves.exists():
            (folder / "half").mkdir()
            shutil.copy(saves, folder / "half" / CHECKPOINT)

    with launched("cpu") as joined:

        def mean(flat: Tensor) -> Tensor:
            sent.append(flat)
            seen.append(joined.mean(flat))
            return seen[-1]

        watched = Processes(joined.rank, joined.count, joined.device, joined.main_first, mean)
        run = partial(train_protector, RECIPE, [model], network=SMALL, names=["tiny"], processes=watched)
        if rank == 0:
            patch.setattr(fit, "train", partial(train, every=2, after=halfway))
        whole = run(folder / f"whole{rank}.safetensors", work=folder / "whole")
        patch.undo()
        with watched.main_first():
            pass
        resumed = run(folder / f"resumed{rank}.safetensors", work=folder / "half")
    states = {"whole": whole.state_dict(), "resumed": resumed.state_dict()}
    torch.save({**states, "sent": sent, "seen": seen}, folder / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(process, (port, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert len(first["sent"]) == 4 + 2
    for ours, theirs, mean, other in zip(first["sent"], second["sent"], first["seen"],
                                         second["seen"], strict=True):  # fmt: skip
        assert not torch.equal(ours, theirs)  # pictures of their own
        torch.testing.assert_close(mean, (ours + theirs) / 2)
        assert torch.equal(mean, other)
    assert all(torch.equal(a, b) for a, b in zip(first["seen"][2:4], first["seen"][4:], strict=True))
    for name, value in first["whole"].items():
        assert torch.equal(value, second["whole"][name])
        assert torch.equal(value, first["resumed"][name])
        assert torch.equal(value, second["resumed"][name])
    # The first alone has written.
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == [
        "resumed0.safetensors",
        "whole0.safetensors",
    ]
    assert [p.name for p in (tmp_path / "whole").glob("*.safetensors")] == [CHECKPOINT]
    with pytest.raises(UsageError, match="belongs to another run"):  # alone it would be another training
        train_protector(
            RECIPE, [tiny_model(tmp_path / "again")], tmp_path / "o.safetensors", work=tmp_path / "whole",
            network=SMALL, names=["tiny"],
        )  # fmt: skip
