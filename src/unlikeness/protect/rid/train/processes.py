"""One training in several processes, one for each device, started by `accelerate launch` or `torchrun`.

Every process has the whole network and draws its own share of each batch. The gradients are averaged before
the optimizer step, so that all networks stay identical bit for bit. A single process does not import
accelerate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor

from unlikeness.diffusion.devices import pick_device
from unlikeness.errors import UsageError
from unlikeness.seeds import derive, step_generator

__all__ = ["Processes", "launched"]

_PATIENCE = timedelta(hours=12)
"""How long a process waits for another one, which may be drawing pictures or computing pairs."""


@dataclass(frozen=True)
class Processes:
    """This process among `count`; `rank` 0 writes the files."""

    rank: int = 0
    count: int = 1
    device: torch.device | None = None
    """The process's own; None: the user's choice."""
    main_first: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, repr=False)
    """A context in which the first process makes files, and the others then find them."""
    mean: Callable[[Tensor], Tensor] = field(default=Tensor.clone, repr=False)
    """The mean of a tensor over all processes."""

    @property
    def main(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """This process's part of a batch. UsageError if the parts are not equal."""
        if batch_size % self.count:
            raise UsageError(
                f"a batch of {batch_size} pictures cannot be shared by {self.count} processes; give a "
                f"--batch-size that is a multiple of {self.count}"
            )
        return batch_size // self.count

    def generator(self, common: torch.Generator, seed: int, index: int) -> torch.Generator:
        """For this process's own draws in step `index`; alone, the step's own, `common`."""
        return common if self.count == 1 else step_generator(derive(seed, "process", self.rank), index)

    def averaged(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """A scalar with the mean of all processes' losses as value, and of their gradients as gradient.

        Alone, this is `loss`. All processes must call it equally often.
        """
        if self.count == 1:
            return loss
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        flat = self.mean(torch.cat([loss.detach().reshape(1), *(g.flatten() for g in gradients)]))
        value, *means = torch.split(flat, [1, *(p.numel() for p in parameters)])
        # Linear in each parameter with the mean as slope, and zero where the parameters are.
        total: Tensor = value.squeeze(0)
        for p, mean in zip(parameters, means, strict=True):
            total = total + ((p - p.detach()) * mean.view_as(p)).sum()
        return total


@contextmanager
def launched(device: str = "auto") -> Iterator[Processes]:
    """The processes of a launcher, connected while the block runs; without a launcher this one alone.

    Args:
        device: auto (each process its own GPU, or the CPU where there is none) or cpu.

    Raises:
        UsageError: several processes and a device by name.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Processes()
        return
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device} would be every process's; leave it out, or give cpu")
    from accelerate import PartialState
    from accelerate.utils import reduce

    state = PartialState(cpu=device == "cpu" or pick_device().type == "cpu", timeout=_PATIENCE)
    try:
        yield Processes(
            state.process_index, state.num_processes, state.device, state.main_process_first, reduce
        )
    finally:
        state.destroy_process_group()
