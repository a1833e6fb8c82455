"""Does our network gain from int8 on a CPU? Time, error of δ and protection beside float32 and bfloat16.

    python -m benchmarks.rid_int8

The exported network at 512 × 512 on ONNX Runtime, in float32 and quantised three ways: dynamically (scales
found anew in each pass), statically with the convolutions alone in int8, and statically with every operation
that has an int8 kernel. Beside them the same network in PyTorch, in float32 and in bfloat16; `protect` runs
the latter where the CPU computes in it. All take turns in one process, on one thread.

Times are the process's own CPU time, which other programs on the machine disturb least; the median of all
rounds counts. Scales are calibrated on pictures that the errors are not measured on. What the errors do to
the protection is the toybox's diffusion loss on unseen subjects' pictures at its own size.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import common
from benchmarks.publishing import eight_bits
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.loss import mean_loss_over_levels
from unlikeness.errors import UnlikenessError
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.protect.rid.network import Protector
from unlikeness.protect.rid.onnx_file import export_onnx
from unlikeness.protect.rid.saved import read_saved
from unlikeness.protect.rid.train.pictures import dead_leaves
from unlikeness.protect.rid.weights import Loaded, load_protector
from unlikeness.toybox.cast import unseen
from unlikeness.toybox.world import sample_picture, to_images

NAME = "rid_int8"
SIDE = 512
BUDGET = 8.0
ROUNDS, PICTURES, CALIBRATION, SUBJECTS = 30, 8, 16, 12
REFERENCE = "ONNX, float32"
CODE = ("src/unlikeness/protect", "src/unlikeness/diffusion")

_MEASURED, _CALIBRATION = 9_000_101, 9_000_102

Floats = npt.NDArray[np.float32]
Run = Callable[[Floats], Floats]
"""A picture [1, 3, H, W] in [0, 1] -> its δ at 8/255."""


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    side, rounds, subjects = (64, 2, 1) if args.quick else (SIDE, ROUNDS, SUBJECTS)
    loaded = load_protector("rid-toybox")
    model = TextToImage.from_pretrained(args.model, device="cpu", dtype="float32")
    about = {
        "weights": common.weights_digest(loaded.network), "model": common.model_name(args.model),
        "model_weights": common.model_digest(model), "subjects": subjects, "side": side, "rounds": rounds,
        "budget": BUDGET, "pictures": PICTURES, "calibration": CALIBRATION, "seed": args.seed,
        "quick": args.quick,
    }  # fmt: skip
    results = common.Results(
        common.results_file(NAME, args), NAME, about, fresh=args.fresh, keep=args.keep,
        code=common.code_digest(*CODE),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        made = variants(loaded, Path(folder), pictures(CALIBRATION, side, (_CALIBRATION, args.seed)))
        results.cell("passes", lambda: passes(made, side, rounds, args.seed))
        results.cell("loss", lambda: losses(made, model, subjects, args.seed))
    results.finish({})
    print(render(results.record))


def losses(made: Mapping[str, Run], model: TextToImage, subjects: int, seed: int) -> dict[str, Any]:
    """The frozen model's diffusion loss on protected pictures over that on clean ones, for each variant."""
    raised: dict[str, list[list[float]]] = {name: [] for name in made}
    for who in unseen(subjects, seed):
        clean = who.subject(2)
        look = partial(mean_loss_over_levels, model, prompt=clean.class_prompt, seed=seed, levels=10, draws=2)
        base = look(clean.images)
        for name, run in made.items():
            deltas = [torch.from_numpy(run(picture[None].numpy())) for picture in clean.images]
            raised[name].append([look(eight_bits((clean.images + torch.cat(deltas)).clamp(0, 1))) / base])
    found = {name: bootstrap_mean(values, seed=seed) for name, values in raised.items()}
    return {"raised": {name: {"value": f.value, "low": f.low, "high": f.high} for name, f in found.items()}}


def passes(made: Mapping[str, Run], side: int, rounds: int, seed: int) -> dict[str, Any]:
    """CPU time of a pass and the error of δ, for each variant."""
    shown = pictures(PICTURES, side, (_MEASURED, seed))
    cpu: dict[str, list[float]] = {name: [] for name in made}
    wall: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(rounds + 1):  # the first is not counted
        for name, run in made.items():
            began, spent = time.perf_counter(), time.process_time()
            run(shown[turn % len(shown)])
            if turn:
                cpu[name].append(time.process_time() - spent)
                wall[name].append(time.perf_counter() - began)
    exact = [made[REFERENCE](picture) for picture in shown]
    found = {}
    for name, run in made.items():
        off = [(run(picture) - delta) * 255 for picture, delta in zip(shown, exact, strict=True)]
        found[name] = {
            "cpu_ms": round(float(np.median(cpu[name])) * 1000, 2),
            "least_cpu_ms": round(min(cpu[name]) * 1000, 2),
            "wall_ms": round(float(np.median(wall[name])) * 1000, 2),
            "max_error": round(float(max(np.abs(each).max() for each in off)), 4),
            "rms_error": round(float(np.sqrt(np.mean([np.square(each).mean() for each in off]))), 4),
        }
    rms = float(np.sqrt(np.mean([np.square(delta * 255).mean() for delta in exact])))
    return {"variants": found, "rms": round(rms, 3), "instructions": instructions()}


def instructions() -> list[str]:
    """What this CPU has of the instructions that matter here; none are known off Linux."""
    info = Path("/proc/cpuinfo")
    known = set(info.read_text(encoding="utf-8").split()) if info.exists() else set()
    wanted = {"avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp"}
    return sorted(known & wanted)


def pictures(count: int, side: int, seed: tuple[int, int]) -> list[Floats]:
    """Pictures with the statistics of photographs and renders, in turn: [1, 3, side, side] each."""
    rng = np.random.default_rng(seed)
    made = [dead_leaves(rng, side) if i % 2 else sample_picture(rng)[0].render(side) for i in range(count)]
    return [to_images(each[None]).numpy() for each in made]


def variants(loaded: Loaded, folder: Path, calibration: Sequence[Floats]) -> dict[str, Run]:
    """All that is compared, by name. UnlikenessError without onnx and onnxruntime."""
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    except ImportError as error:
        raise UnlikenessError(
            'quantising needs an extra that is not installed; pip install "unlikeness[onnx]"'
        ) from error

    plain = folder / "float32.onnx"
    export_onnx(read_saved(loaded.path), plain)
    dynamic, convolutions, everything = (folder / f"{name}.onnx" for name in ("dynamic", "conv", "all"))
    quantize_dynamic(plain, dynamic, op_types_to_quantize=["Conv"], weight_type=QuantType.QUInt8)
    static = partial(
        quantize_static, plain, quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    static(convolutions, _Reader(calibration), op_types_to_quantize=["Conv"])
    static(everything, _Reader(calibration), op_types_to_quantize=["Conv", "Add", "Mul", "Sigmoid"])
    return {
        "PyTorch, bfloat16": _torch(loaded.network, torch.bfloat16),
        "PyTorch, float32": _torch(loaded.network, torch.float32),
        REFERENCE: _onnx(plain),
        "ONNX, int8, dynamic": _onnx(dynamic),
        "ONNX, int8, static, convolutions": _onnx(convolutions),
        "ONNX, int8, static, all that can be": _onnx(everything),
    }


class _Reader:
    """Pictures for the calibration, one at a time, then None: what `quantize_static` asks for."""

    def __init__(self, calibration: Sequence[Floats]) -> None:
        self._left = iter([_feed(picture) for picture in calibration])

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._left, None)


def _feed(picture: Floats) -> dict[str, Floats]:
    return {"images": picture, "budget": np.full_like(picture[:, :1], BUDGET)}


def _onnx(path: Path) -> Run:
    """On one thread, with the options of `OnnxProtector`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_mem_pattern = False
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(picture: Floats) -> Floats:
        (delta,) = session.run(["delta"], _feed(picture))
        found: Floats = delta
        return found

    return run


def _torch(network: Protector, dtype: torch.dtype) -> Run:
    """As `open_network` prepares it: channels last."""
    made = Protector(network.settings)
    made.load_state_dict(network.state_dict())
    made = made.to(dtype).eval()
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def run(picture: Floats) -> Floats:
        images = torch.from_numpy(picture)
        seen = torch.cat([2 * images - 1, torch.full_like(images[:, :1], BUDGET / 16)], 1)
        unit = made.unit(seen.to(dtype).contiguous(memory_format=torch.channels_last))
        found: Floats = (unit.float() * (BUDGET / 255)).numpy()
        return found

    return run


def render(record: Mapping[str, Any]) -> str:
    """The table of docs/performance.md."""
    found, about = record["cells"]["passes"], record["about"]
    raised = record["cells"]["loss"]["raised"]
    plain = found["variants"][REFERENCE]["cpu_ms"]
    rows = [
        [name, f"{f['cpu_ms']:.1f}", f"{plain / f['cpu_ms']:.2f}", f"{f['rms_error']:.3f}",
         f"{f['max_error']:.2f}", common.interval(raised[name])]
        for name, f in found["variants"].items()
    ]  # fmt: skip
    head = ["network", "a pass [ms]", "times as fast as ONNX, float32", "RMS error of δ [n/255]",
            "largest [n/255]", "loss over clean"]  # fmt: skip
    has = ", ".join(found["instructions"]) or "unknown instructions"
    return "\n\n".join([
        common.table(head, rows),
        f"{about['side']} × {about['side']}, one thread, all in turn in one process: medians of "
        f"{about['rounds']} passes, in CPU time, while the machine was busy with other work "
        f"(CPU with {has}). "
        f"Errors against ONNX, float32, at {about['budget']:g}/255 over {about['pictures']} pictures "
        f"(renders and dead leaves), where δ has a root mean square of {found['rms']:.2f}/255; scales "
        f"calibrated on {about['calibration']} others. Loss: the toybox's diffusion loss on "
        f"{about['subjects']} unseen subjects, 2 pictures each, seed {about['seed']}; intervals: "
        "95 %, bootstrap over subjects.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
