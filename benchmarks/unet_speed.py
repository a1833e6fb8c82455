"""How fast does the toybox's U-Net train here? Pictures a second by precision, memory layout and batch size.

    python -m benchmarks.unet_speed --threads 1

Random weights; forward and backward, no optimizer. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import common
from unlikeness.toybox.recipes.model import new_unet
from unlikeness.toybox.recipes.tokenizer import LENGTH

CASES = ((torch.float32, False), (torch.float32, True), (torch.bfloat16, False), (torch.bfloat16, True))


def pictures_a_second(dtype: torch.dtype, channels_last: bool, batch: int, repeats: int) -> float:
    """Median over `repeats` timed steps, after one that is not."""
    torch.manual_seed(0)
    unet = new_unet()
    if channels_last:
        unet = unet.to(memory_format=torch.channels_last)
    size, channels = unet.config.sample_size, unet.config.in_channels
    z_t = torch.randn(batch, channels, size, size)
    c = torch.randn(batch, LENGTH, unet.config.cross_attention_dim)
    t = torch.randint(0, 1000, (batch,))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        half = dtype != torch.float32
        attention = sdpa_kernel(SDPBackend.MATH) if half else contextlib.nullcontext()
        with torch.autocast("cpu", torch.bfloat16, enabled=half), attention:
            loss = unet(z_t, t, c).sample.float().square().mean()
        loss.backward()
        seconds.append(time.perf_counter() - start)
    return batch / sorted(seconds[1:])[repeats // 2]


def cli(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", default="8,64", help="batch sizes, separated by commas")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    rows = []
    for batch in map(int, args.batches.split(",")):
        for dtype, channels_last in CASES:
            rate = pictures_a_second(dtype, channels_last, batch, args.repeats)
            layout = "channels last" if channels_last else "contiguous"
            rows.append([str(batch), str(dtype).removeprefix("torch."), layout, f"{rate:.0f}"])
    print(common.table(["batch", "autocast", "layout", "pictures a second"], rows))


if __name__ == "__main__":
    common.main(cli)
