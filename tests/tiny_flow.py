"""Small random flow-matching models (FLUX.1, Stable Diffusion 3, Z-Image), written in the real layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tests.tiny import PIXELS, write_tokenizer

T5_TOKENS = 24


def write_t5_tokenizer(folder: Path, *, length: int = T5_TOKENS) -> None:
    """T5's tokenizer.json (Unigram) over lower-case letters and a few words."""
    import transformers

    words = [("▁photo", -2.5), ("▁dog", -2.5), ("▁of", -2.5), ("▁a", -2.5)]
    letters = [(chr(code), -6.0 - code / 100) for code in range(97, 123)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    tokenizer = transformers.T5TokenizerFast(
        vocab=[*special, *words, *letters], extra_ids=0, additional_special_tokens=[], model_max_length=length
    )
    tokenizer.save_pretrained(folder)


def write_flux(
    folder: Path, *, guidance: bool = True, vae: str = "kl", singles: int = 1, seed: int = 0
) -> Path:
    """A whole random FLUX.1, dev or (guidance = False) schnell, with plain diffusers and transformers.

    singles: blocks with one stream, behind the one with two.
    """
    import diffusers
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        models = {
            "vae": flow_vae(vae),
            "transformer": diffusers.FluxTransformer2DModel(
                in_channels=16, num_layers=1, num_single_layers=singles, attention_head_dim=16,
                num_attention_heads=2, joint_attention_dim=24, pooled_projection_dim=32,
                guidance_embeds=guidance, axes_dims_rope=(4, 4, 8),
            ),
            "text_encoder": transformers.CLIPTextModel(_clip(32)),
            "text_encoder_2": _t5(24),
        }  # fmt: skip
    _awaken(models["transformer"])
    write_tokenizer(folder / "tokenizer")
    write_t5_tokenizer(folder / "tokenizer_2")
    dynamic: dict[str, Any] = {"shift": 3.0, "use_dynamic_shifting": True} if guidance else {}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**dynamic)
    return _write(
        folder, "FluxPipeline", models, scheduler, ("tokenizer", "CLIPTokenizer"),
        ("tokenizer_2", "T5TokenizerFast"), absent=("image_encoder", "feature_extractor"),
    )  # fmt: skip


def write_sd3(folder: Path, *, t5: bool = True, newer: bool = True, vae: str = "kl", seed: int = 0) -> Path:
    """A whole random Stable Diffusion 3.5 or (newer = False) 3, with or without T5."""
    import diffusers
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        models = {
            "vae": flow_vae(vae),
            "transformer": diffusers.SD3Transformer2DModel(
                sample_size=PIXELS // 4, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
                attention_head_dim=8, num_attention_heads=2, joint_attention_dim=40,
                caption_projection_dim=16, pooled_projection_dim=20, pos_embed_max_size=6,
                dual_attention_layers=(0,) if newer else (), qk_norm="rms_norm" if newer else None,
            ),
            "text_encoder": transformers.CLIPTextModelWithProjection(_clip(16, projection_dim=8)),
            "text_encoder_2": transformers.CLIPTextModelWithProjection(_clip(16, projection_dim=12)),
            **({"text_encoder_3": _t5(40)} if t5 else {}),
        }  # fmt: skip
    _awaken(models["transformer"])
    tokenizers = [("tokenizer", "CLIPTokenizer"), ("tokenizer_2", "CLIPTokenizer")]
    for name, _ in tokenizers:
        write_tokenizer(folder / name)
    if t5:
        write_t5_tokenizer(folder / "tokenizer_3")
        tokenizers.append(("tokenizer_3", "T5TokenizerFast"))
    absent = ("image_encoder", "feature_extractor", *(() if t5 else ("text_encoder_3", "tokenizer_3")))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return _write(folder, "StableDiffusion3Pipeline", models, scheduler, *tokenizers, absent=absent)


QWEN_TOKENS = 64

_SPOKEN = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}"
    "{{- '<|im_end|>' + '\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
)
"""What Qwen3's own template does with the turns of a conversation."""


def write_qwen_tokenizer(folder: Path, *, length: int = QWEN_TOKENS) -> None:
    """Qwen's files (tokenizer.json, vocab.json, merges.txt, a chat template) over all bytes."""
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    merges = [("d", "o"), ("do", "g"), ("Ġ", "a")]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*sorted(ByteLevel.alphabet()), *map("".join, merges), *special]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=merges, model_max_length=length,
        additional_special_tokens=special[1:], chat_template=_SPOKEN,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)


def write_z_image(folder: Path, *, vae: str = "kl", seed: int = 0) -> Path:
    """A whole random Z-Image, or Z-Image-Turbo if the folder's name says so."""
    import diffusers
    import transformers

    qwen = transformers.Qwen3Config(
        vocab_size=300, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=256,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        models = {
            "vae": flow_vae(vae),
            "transformer": diffusers.ZImageTransformer2DModel(
                in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
                cap_feat_dim=24, axes_dims=[4, 4, 8], axes_lens=[160, 12, 12],
            ),
            "text_encoder": transformers.Qwen3Model(qwen),
        }  # fmt: skip
    _awaken(models["transformer"])
    write_qwen_tokenizer(folder / "tokenizer")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return _write(folder, "ZImagePipeline", models, scheduler, ("tokenizer", "Qwen2Tokenizer"), absent=())


def flow_vae(kind: str) -> Any:
    """Without the convolutions around the latents that older autoencoders have, and with a shift."""
    import diffusers

    if kind == "tiny":
        return diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1), latent_channels=4,
            scaling_factor=1.0, shift_factor=0.0,
        )  # fmt: skip
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=PIXELS, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip


def _clip(width: int, **settings: Any) -> Any:
    import transformers

    return transformers.CLIPTextConfig(
        vocab_size=200, hidden_size=width, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=194, eos_token_id=195, pad_token_id=195, **settings,
    )  # fmt: skip


def _t5(width: int) -> Any:
    import transformers

    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=40, d_model=width, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )  # fmt: skip


@torch.no_grad()
def _awaken(transformer: Any) -> None:
    """Make a fresh transformer's answer depend visibly on prompt and level."""
    for name, weight in transformer.named_parameters():
        if weight.ndim > 1 and "norm" not in name:
            weight.mul_(1.5)


def _write(
    folder: Path, pipeline: str, models: dict[str, Any], scheduler: Any, *tokenizers: tuple[str, str],
    absent: tuple[str, ...],
) -> Path:  # fmt: skip
    import diffusers

    index: dict[str, Any] = {
        "_class_name": pipeline,
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(scheduler).__name__],
        **{name: [None, None] for name in absent},
        **{name: ["transformers", kind] for name, kind in tokenizers},
    }
    scheduler.save_pretrained(folder / "scheduler")
    for name, model in models.items():
        model.save_pretrained(folder / name)
        library = "transformers" if type(model).__module__.startswith("transformers") else "diffusers"
        index[name] = [library, type(model).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    (folder / "unlikeness.json").write_text(json.dumps({"default_resolution": PIXELS}))
    return folder
