"""Memory that weights, gradients and optimizer states take at full size, by family of models.

    python -m benchmarks.family_memory

It is computed from the published configurations on the meta device: nothing is loaded, and nothing trained.
Activations come on top. `benchmarks.sd_memory` measures a real step at Stable Diffusion 1.5's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffusers
import torch
import transformers

from benchmarks import common
from unlikeness import immunize, personalize
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.families import family_of
from unlikeness.diffusion.families.flow import FlowFamily
from unlikeness.immunize.cost import memory as of_immunizing
from unlikeness.personalize.cost import memory as of_personalizing

NAME = "family_memory"
RANK = 16
COMMANDS = ("protect", "lora", "dreambooth", "dreambooth_8", "immunize", "immunize_8", "immunize_rank")
CODE = (
    "benchmarks/family_memory.py", "src/unlikeness/personalize/cost.py", "src/unlikeness/immunize/cost.py",
    "src/unlikeness/eight_bit.py",
)  # fmt: skip


def cli(argv: Sequence[str] | None) -> None:
    args = common.parser(__doc__.split("\n")[0] if __doc__ else "").parse_args(argv)
    about = {"rank": personalize.create("lora").settings.rank}  # type: ignore[attr-defined]
    results = common.Results(
        common.results_file(NAME, args), NAME, about, fresh=args.fresh, code=common.code_digest(*CODE),
        keep=args.keep,
    )  # fmt: skip
    for name in list(FAMILIES)[: 1 if args.quick else None]:
        results.cell(name, lambda name=name: figures(name))  # type: ignore[misc]
    results.finish({}, device=torch.device("cpu"))
    print(render(results.record))


def figures(name: str) -> dict[str, Any]:
    """Parameters of the denoiser and of all else, and the bytes that each command holds."""
    half, whole = (model(name, dtype) for dtype in (torch.bfloat16, torch.float32))
    denoiser, short = _count(whole.denoiser), {"eight_bit_adam": True}
    return {
        "denoiser_parameters": denoiser,
        "other_parameters": sum(map(_count, whole.networks)) - denoiser,
        "protect": sum(
            p.numel() * p.element_size() for network in half.networks for p in network.parameters()
        ),
        "lora": sum(of_personalizing(half, personalize.create("lora")).values()),
        "dreambooth": sum(of_personalizing(whole, personalize.create("dreambooth")).values()),
        "dreambooth_8": sum(of_personalizing(whole, personalize.create("dreambooth", short)).values()),
        "immunize": sum(of_immunizing(whole, immunize.create("apdm")).values()),
        "immunize_8": sum(of_immunizing(whole, immunize.create("apdm", short)).values()),
        "immunize_rank": sum(of_immunizing(half, immunize.create("apdm", {"rank": RANK})).values()),
    }


def model(name: str, dtype: torch.dtype) -> TextToImage:
    """A model of this kind without weights, on the meta device; the autoencoder stays float32."""
    pipeline, make = FAMILIES[name]
    with torch.device("meta"):
        parts = make()
    for part, network in parts.items():
        if isinstance(network, torch.nn.Module) and part != "vae":
            network.to(dtype)
    flow = isinstance(family_of(pipeline), FlowFamily)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler() if flow else diffusers.DDPMScheduler()
    tokenizers = {name.replace("text_encoder", "tokenizer"): None for name in parts if "encoder" in name}
    return TextToImage.from_parts({**parts, **tokenizers, "scheduler": scheduler}, pipeline=pipeline).freeze()


def render(record: Mapping[str, Any]) -> str:
    """The table of docs/performance.md."""
    rows = [
        [
            name, f"{f['denoiser_parameters'] / 1e9:.2f}", f"{f['other_parameters'] / 1e9:.2f}",
            *(f"{f[command] / 2**30:.1f}" for command in COMMANDS),
        ]
        for name, f in record["cells"].items()
    ]  # fmt: skip
    head = [
        "model", "denoiser [10⁹ weights]", "all else", "protect, bfloat16 [GiB]", "LoRA, bfloat16 [GiB]",
        "DreamBooth, float32 [GiB]", "with 8-bit AdamW", "APDM, float32 [GiB]", "with 8-bit AdamW",
        "APDM of rank 16, bfloat16 [GiB]",
    ]  # fmt: skip
    return "\n\n".join([
        common.table(head, rows),
        "Weights, gradients and AdamW states, from the configurations alone. Activations come on top. The "
        f"LoRA is of rank {record['about']['rank']}. APDM of rank 16 is `immunize --set rank=16` on a GPU "
        "that computes bfloat16. 8-bit AdamW is `--set eight_bit_adam=true`. The text encoders are counted "
        "everywhere.",
    ])  # fmt: skip


def _count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _vae(**settings: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **settings,
    )  # fmt: skip


def _flow_vae() -> Any:
    return _vae(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False)


def _clip(kind: str, width: int, layers: int, heads: int) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, projection_dim=width,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def _t5() -> Any:
    config = transformers.T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return transformers.T5EncoderModel(config)


def _sd1() -> dict[str, Any]:
    unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return {"vae": _vae(), "unet": unet, "text_encoder": _clip("CLIPTextModel", 768, 12, 12)}


def _sdxl() -> dict[str, Any]:
    unet = diffusers.UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip
    return {
        "vae": _vae(),
        "unet": unet,
        "text_encoder": _clip("CLIPTextModel", 768, 12, 12),
        "text_encoder_2": _clip("CLIPTextModelWithProjection", 1280, 32, 20),
    }


def _sd3(layers: int, heads: int, places: int, dual: int) -> dict[str, Any]:
    transformer = diffusers.SD3Transformer2DModel(
        num_layers=layers, num_attention_heads=heads, caption_projection_dim=64 * heads,
        pos_embed_max_size=places, dual_attention_layers=tuple(range(dual)), qk_norm="rms_norm",
    )  # fmt: skip
    return {
        "vae": _flow_vae(),
        "transformer": transformer,
        "text_encoder": _clip("CLIPTextModelWithProjection", 768, 12, 12),
        "text_encoder_2": _clip("CLIPTextModelWithProjection", 1280, 32, 20),
        "text_encoder_3": _t5(),
    }


def _flux() -> dict[str, Any]:
    return {
        "vae": _flow_vae(),
        "transformer": diffusers.FluxTransformer2DModel(guidance_embeds=True),
        "text_encoder": _clip("CLIPTextModel", 768, 12, 12),
        "text_encoder_2": _t5(),
    }


def _z_image() -> dict[str, Any]:
    qwen = transformers.Qwen3Config(
        vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128,
    )  # fmt: skip
    return {
        "vae": _flow_vae(),
        "transformer": diffusers.ZImageTransformer2DModel(),
        "text_encoder": transformers.Qwen3Model(qwen),
    }


FAMILIES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "Stable Diffusion 1.5": ("StableDiffusionPipeline", _sd1),
    "Stable Diffusion XL": ("StableDiffusionXLPipeline", _sdxl),
    "Stable Diffusion 3.5 Medium": ("StableDiffusion3Pipeline", lambda: _sd3(24, 24, 384, 13)),
    "Stable Diffusion 3.5 Large": ("StableDiffusion3Pipeline", lambda: _sd3(38, 38, 192, 0)),
    "FLUX.1 dev": ("FluxPipeline", _flux),
    "Z-Image": ("ZImagePipeline", _z_image),
}
"""Published configurations: the pipeline class, and the networks by the names of their folders."""


if __name__ == "__main__":
    common.main(cli)
