"""What does an outer step of L2P cost? Ours against a plain version of the published one, on one model.

    python -m benchmarks.immunize_cost                          the toybox
    python -m benchmarks.immunize_cost --size sd --device cuda  Stable Diffusion 1.5's size, random weights

One case after the other, on a CPU in a process of its own: seconds for an inner step (median over outer
steps, after one that warms up), the peak of memory over what the loaded model takes, and U-Net calls and
pictures, counted by a hook. Both do APDM with batches of one and the same N_per. float32 is without TF32;
bfloat16 is autocast over weights in float32, of the published step too.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.published_l2p import PublishedL2P
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.devices import pick_device
from unlikeness.immunize import create
from unlikeness.immunize.data import protected_subjects
from unlikeness.immunize.l2p import L2P
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject
from unlikeness.training import adamw

NAME = "immunize_cost"
MIB = 2**20
CODE = (
    "src/unlikeness/immunize", "src/unlikeness/diffusion", "src/unlikeness/training.py",
    "benchmarks/published_l2p.py",
)  # fmt: skip
PUBLISHED = {"published, float32": "float32", "published, bfloat16": "bfloat16"}
OURS: dict[str, dict[str, object]] = {
    "ours, float32": {"precision": "float32"},
    "ours, bfloat16": {"precision": "bfloat16"},
    "ours, bfloat16, checkpointing": {"precision": "bfloat16", "checkpointing": True},
    "ours, bfloat16, attention alone": {"precision": "bfloat16", "train": "attention"},
    "ours, bfloat16, attention alone, checkpointing": {
        "precision": "bfloat16", "train": "attention", "checkpointing": True,
    },
}  # fmt: skip
CASES = (*PUBLISHED, *OURS)


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--size", default="toybox", choices=("toybox", "sd"))
    parser.add_argument("--inner-steps", type=int, default=20)
    parser.add_argument("--outer-steps", type=int, default=4, help="timed ones")
    parser.add_argument("--one", choices=CASES, help="measure this case here, and print its JSON")
    args = parser.parse_args(argv)
    if args.quick:
        args.inner_steps, args.outer_steps = 2, 1
    if args.one:
        print(json.dumps(measure(args)))
        return
    about = {
        "size": args.size, "inner_steps": args.inner_steps, "outer_steps": args.outer_steps,
        "seed": args.seed, "device": args.device,
    }  # fmt: skip
    name = NAME if args.size == "toybox" else f"{NAME}_{args.size}"
    results = common.Results(
        common.results_file(name, args), NAME, about,
        fresh=args.fresh, keep=args.keep, code=common.code_digest(*CODE),
    )  # fmt: skip
    device = pick_device(args.device)
    for case in CASES:
        args.one = case
        results.cell(
            case,
            lambda case=case: measure(args)  # type: ignore[misc]
            if device.type == "cuda"
            else alone(case, sys.argv[1:] if argv is None else argv),
        )
    results.finish(results.cells, device=device)
    print(render(results.record))


def alone(case: str, flags: Sequence[str]) -> Mapping[str, Any]:
    """The case in a process of its own: a CPU's peak of memory belongs to the process and cannot be reset."""
    command = [sys.executable, "-m", "benchmarks.immunize_cost", *flags, "--one", case]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=common.ROOT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def opened(args: Any) -> TextToImage:
    """The model; random weights for Stable Diffusion's size."""
    if args.size == "toybox":
        return TextToImage.from_pretrained("toybox", device=args.device, dtype="float32")
    from benchmarks.sd_memory import Architecture, stable_diffusion

    return stable_diffusion(Architecture(), pick_device(args.device), torch.float32, args.seed)


class Count:
    """Calls of U-Nets and the pictures in them, without and with a graph; deep copies of a U-Net share it."""

    def __init__(self) -> None:
        self.calls, self.pictures, self.calls_graph, self.pictures_graph = 0, 0, 0, 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Count:
        return self

    def __call__(self, module: Any, args: tuple[Any, ...]) -> None:
        self.calls += 1
        self.pictures += len(args[0])
        if torch.is_grad_enabled():
            self.calls_graph += 1
            self.pictures_graph += len(args[0])


def measure(args: Any) -> dict[str, Any]:
    """One case: seconds, memory, counts."""
    # Both are switches of the whole process, set as torch sets them by default for matrix products.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    model = opened(args)
    device = model.device
    generator = torch.Generator().manual_seed(args.seed)
    side = model.resolution
    subject = Subject(torch.rand(5, 3, side, side, generator=generator), "dog")
    members = torch.rand(20, 3, side, side, generator=generator)
    with torch.no_grad():
        prior = model.encode_all(members)
    base = _held(device)
    step: Any
    if args.one in PUBLISHED:
        published = PublishedL2P(
            model, subject.images, members[:5], members, (subject.instance_prompt, subject.class_prompt),
            inner_steps=args.inner_steps, learning_rate=5e-6, attack_learning_rate=5e-6, seed=args.seed,
        )  # fmt: skip
        unets = [published.original, published.theta]
        # Without the cache: the weights change between the calls of a step.
        lower = torch.autocast(
            device.type, torch.bfloat16, enabled=PUBLISHED[args.one] == "bfloat16", cache_enabled=False
        )
        step = lower(published.step)
    else:
        made = create("apdm", {**OURS[args.one], "inner_steps": args.inner_steps})
        working = model.copy()
        working.denoiser.train()
        if made.settings.checkpointing:
            working.denoiser.enable_gradient_checkpointing()
        protected = protected_subjects(model, [subject], made.settings, priors={"dog": prior})
        l2p = L2P(working, model, made, protected)
        optimizer = adamw(l2p.theta, lr=5e-6)
        unets = [model.denoiser, working.denoiser]
        indices = iter(range(10_000))

        def step() -> Tensor:
            index = next(indices)
            optimizer.zero_grad(set_to_none=True)
            loss = l2p(index, step_generator(args.seed, index))
            optimizer.step()
            return loss

    count = Count()
    # A deep copy takes its hooks along, so that the attacked U-Net counts too.
    for unet in unets:
        unet.register_forward_pre_hook(count)
    step()
    first = dict(vars(count))
    seconds = []
    for _ in range(args.outer_steps):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - began) / args.inner_steps)
    return {
        "seconds_a_step": statistics.median(seconds),
        "mib": (_peak(device) - base) / MIB,
        "unet_mib": sum(p.numel() * p.element_size() for p in model.denoiser.parameters()) / MIB,
        **{name: value / args.inner_steps for name, value in first.items()},
    }


def _held(device: torch.device) -> int:
    """The memory in use now, from which `_peak` counts; on a CPU the process's peak until now."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def render(record: Mapping[str, Any]) -> str:
    """The table of docs/performance.md."""
    cells = record["cells"]
    base = cells["published, float32"]
    rows = [
        [
            case, f"{c['seconds_a_step'] * 1000:.0f}", f"{base['seconds_a_step'] / c['seconds_a_step']:.1f}",
            f"{c['mib']:.0f}", f"{c['mib'] / base['mib']:.0%}",
            f"{c['calls']:.1f}", f"{c['pictures']:.1f}", f"{c['pictures_graph']:.1f}",
        ]
        for case, c in cells.items()
    ]  # fmt: skip
    head = ["an inner step of APDM", "ms", "times faster", "memory [MiB]", "of the published", "U-Net calls",
            "pictures in them", "of these with a backward pass"]  # fmt: skip
    about = record["about"]
    return "\n\n".join([
        common.table(head, rows),
        f"N_per {about['inner_steps']}, batches of one, median of {about['outer_steps']} outer steps. "
        f"Memory: peak over the loaded model, whose U-Net takes {base['unet_mib']:.0f} MiB. "
        f"{record['environment']['device']}.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
