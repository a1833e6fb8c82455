"""Small random Stable Diffusion XL models, written to disk in the real layout with plain diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tests.tiny import _vae, write_tokenizer

from unlikeness.diffusion import TextToImage


def write_tiny_xl(
    folder: Path, *, zeros: bool = True, spacing: str = "leading", variant: str | None = None, seed: int = 0
) -> Path:
    """Write a whole random model; returns the folder. Latents are 4 × 8 × 8, pictures 32 × 32.

    zeros: force_zeros_for_empty_prompt; spacing: the scheduler's timestep_spacing; variant: of the weights'
    names ("fp16" also halves them).
    """
    import diffusers
    import transformers

    for name in ("tokenizer", "tokenizer_2"):
        write_tokenizer(folder / name)
    # The second tokenizer fills up with another token, as the real one does.
    config = folder / "tokenizer_2" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token": "!"}))
    special = folder / "tokenizer_2" / "special_tokens_map.json"
    special.write_text(json.dumps(json.loads(special.read_text()) | {"pad_token": "!"}))
    tower: dict[str, Any] = {
        "vocab_size": 200, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16,
        "bos_token_id": 194, "eos_token_id": 195, "pad_token_id": 195, "intermediate_size": 32,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        one = transformers.CLIPTextModel(transformers.CLIPTextConfig(hidden_size=16, **tower))
        two = transformers.CLIPTextModelWithProjection(
            transformers.CLIPTextConfig(hidden_size=24, projection_dim=12, hidden_act="gelu", **tower)
        )
        unet = diffusers.UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
            cross_attention_dim=40, attention_head_dim=(2, 4), norm_num_groups=8, use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=12 + 6 * 8,
        )  # fmt: skip
        vae = _vae("kl")
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        timestep_spacing=spacing, interpolation_type="linear", use_karras_sigmas=False,
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")
    parts = {"vae": vae, "unet": unet, "text_encoder": one, "text_encoder_2": two}
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": diffusers.__version__,
        "force_zeros_for_empty_prompt": zeros,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    for name, part in parts.items():
        index[name] = ["transformers" if "text" in name else "diffusers", type(part).__name__]
        part = part.half() if variant == "fp16" else part
        part.save_pretrained(folder / name, **({"variant": variant} if variant else {}))
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def tiny_xl(folder: Path, *, seed: int = 0) -> TextToImage:
    """A small random model, written below `folder` and opened from there on the CPU."""
    path = folder / f"tiny-xl-{seed}"
    if not path.exists():
        write_tiny_xl(path, seed=seed)
    return TextToImage.from_pretrained(path, device="cpu", dtype="float32")
