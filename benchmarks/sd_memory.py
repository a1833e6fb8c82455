"""Memory and seconds of a personalization step at Stable Diffusion 1.5's full size, with random weights.

    python -m benchmarks.sd_memory                    on a CUDA GPU
    python -m benchmarks.sd_memory --device cpu       slow, and 16 GB or more

The weights' values change neither. One step is DreamBooth's or LoRA's as the library runs it: pictures of the
subject and of its class together (prior preservation), forward, backward, clipping, AdamW. float32 is without
TF32. bfloat16: a frozen model in bfloat16, trained weights in float32 under autocast.
"""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks import attacking, common
from unlikeness import personalize
from unlikeness.autoencoders import Posterior
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.devices import pick_device
from unlikeness.errors import UsageError
from unlikeness.subjects import Subject
from unlikeness.toybox.recipes.tokenizer import write_tokenizer

NAME = "sd_memory"
MIB = 2**20


@dataclass(frozen=True)
class Architecture:
    """Stable Diffusion 1.5's configuration (its own config.json files); smaller values for tests."""

    latent_size: int = 64
    unet_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    unet_layers: int = 2
    heads: int = 8
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    vae_layers: int = 2
    groups: int = 32
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    vocabulary: int = 49408
    tokens: int = 77


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--methods", default="dreambooth,lora")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    args = parser.parse_args(argv)
    if args.device == "auto" and not torch.cuda.is_available():
        raise UsageError("no CUDA GPU is here; give --device cpu to measure on the CPU, which takes long")
    device = pick_device(args.device)
    steps = 2 if args.quick else args.steps
    about = {
        "architecture": asdict(Architecture()),
        "device": common.environment(device)["device"],
        "steps": steps,
        "seed": args.seed,
    }
    results = common.Results(
        common.results_file(NAME, args), NAME, about,
        fresh=args.fresh, code=common.code_digest(*attacking.CODE), keep=args.keep,
    )  # fmt: skip
    for method in args.methods.split(","):
        for dtype in args.dtypes.split(","):
            results.cell(
                f"{method}/{dtype}",
                lambda method=method, dtype=dtype: measure(  # type: ignore[misc]
                    Architecture(), method, dtype, device=device, steps=steps, seed=args.seed
                ),
            )
    results.finish({}, device=device)
    print(render(results.record))


def stable_diffusion(shape: Architecture, device: torch.device, dtype: torch.dtype, seed: int) -> TextToImage:
    """A model of this architecture with random weights; its tokenizer knows letters only."""
    blocks = len(shape.unet_channels)
    torch.manual_seed(seed)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=shape.latent_size,
            in_channels=4,
            out_channels=4,
            block_out_channels=shape.unet_channels,
            layers_per_block=shape.unet_layers,
            down_block_types=("CrossAttnDownBlock2D",) * (blocks - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (blocks - 1),
            cross_attention_dim=shape.text_width,
            attention_head_dim=shape.heads,
            norm_num_groups=shape.groups,
        )
        vae = AutoencoderKL(
            block_out_channels=shape.vae_channels,
            layers_per_block=shape.vae_layers,
            down_block_types=("DownEncoderBlock2D",) * len(shape.vae_channels),
            up_block_types=("UpDecoderBlock2D",) * len(shape.vae_channels),
            latent_channels=4,
            norm_num_groups=shape.groups,
            sample_size=shape.latent_size * 2 ** (len(shape.vae_channels) - 1),
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.text_width,
                intermediate_size=4 * shape.text_width,
                num_hidden_layers=shape.text_layers,
                num_attention_heads=shape.text_heads,
                max_position_embeddings=shape.tokens,
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), ["a photo of sks dog"])
        tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=shape.tokens)
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    parts = {"vae": vae, "unet": unet, "text_encoder": text_encoder, "tokenizer": tokenizer}
    model = TextToImage.from_parts({**parts, "scheduler": scheduler})
    return model.to(device, dtype).freeze()


class Clock:
    """A progress that notes when each step ended, and forgets the memory that was needed before the first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ends: list[float] = []

    def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
        self.ends = []
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.advance()

    def advance(self, n: int = 1, **figures: float) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter())

    def close(self) -> None:
        return

    def seconds(self, skip: int) -> list[float]:
        """Of each step after the first `skip`, which warm up."""
        return [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)][skip:]


def measure(
    shape: Architecture, method: str, dtype: str, *, device: torch.device, steps: int, seed: int
) -> dict[str, Any]:
    """Train for a few steps; seconds a step, and the most memory that was held [MiB]."""
    # Both are switches of the whole process, set as torch sets them by default for matrix products.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    model = stable_diffusion(shape, device, torch.float32 if dtype == "float32" else torch.bfloat16, seed)
    side = model.resolution
    generator = torch.Generator().manual_seed(seed)
    subject = Subject(torch.rand(4, 3, side, side, generator=generator), "dog")
    z0 = torch.randn(4, *model.latent_shape, generator=generator).to(device, model.dtype)
    clock = Clock(device)
    warmup = min(3, steps - 1)
    settings = {"steps": steps + warmup, "batch_size": 1, "precision": dtype, "seed": seed}
    prior = Posterior(z0, torch.zeros_like(z0))
    tuned = personalize.personalize(model, subject, method, settings, prior=prior, progress=clock)
    took = clock.seconds(warmup)
    figures = {
        "seconds_a_step": statistics.median(took),
        "slowest_step": max(took),
        "steps": len(took),
        "trained_parameters": trained(tuned, method),
        "unet_parameters": sum(p.numel() for p in model.denoiser.parameters()),
        "pictures_a_step": "1 + 1",
        "memory_mib": memory(device),
    }
    del tuned, model, prior, z0
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return figures


def trained(tuned: TextToImage, method: str) -> int:
    """How many numbers the method trained."""
    named = tuned.denoiser.named_parameters()
    return sum(p.numel() for name, p in named if method != "lora" or "lora" in name)


def memory(device: torch.device) -> int:
    """The most memory held: on a GPU since training began, on a CPU since the process did [MiB]."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device)) // MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (MIB if sys.platform == "darwin" else 1024)


def render(record: Mapping[str, Any]) -> str:
    """The table of docs/performance.md."""
    rows = []
    for key, f in record["cells"].items():
        method, _, dtype = key.partition("/")
        rows.append([
            method, dtype, f"{f['trained_parameters'] / 1e6:.1f} M", f"{f['seconds_a_step']:.3f}",
            f"{f['memory_mib'] / 1024:.1f}",
        ])  # fmt: skip
    side = 8 * record["about"]["architecture"]["latent_size"]
    return "\n\n".join([
        common.table(["method", "precision", "trained", "seconds a step", "peak memory [GiB]"], rows),
        f"{record['about']['device']}; {side} px, one picture of the subject and one of its class a step, "
        f"U-Net alone, median of {record['about']['steps']} steps. On a GPU the peak is that of training.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
