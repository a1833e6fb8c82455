"""Files as well-known models have them are in bounds, and mean what libraries take them for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import write_tokenizer
from transformers import CLIPTokenizer

from unlikeness.diffusion.families.stable_diffusion import StableDiffusion
from unlikeness.diffusion.tokens import load_tokenizer
from unlikeness.errors import UnlikenessError
from unlikeness.networks.building import build, fill
from unlikeness.networks.configs import SCHEDULER as BOUNDS
from unlikeness.networks.configs import check

UNET: dict[str, Any] = {
    "act_fn": "silu", "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False, "cross_attention_dim": 768, "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "freq_shift": 0, "in_channels": 4,
    "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32,
    "out_channels": 4, "sample_size": 64, "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
"""Of Stable Diffusion 1.5."""

LATER = {
    "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "dual_cross_attention": False,
    "sample_size": 96, "use_linear_projection": True, "num_class_embeds": None, "only_cross_attention": False,
    "upcast_attention": True,
}  # fmt: skip
"""Of Stable Diffusion 2.1, where it differs."""

NEW = {
    "time_cond_proj_dim": 256, "class_embed_type": None, "time_embedding_type": "positional", "dropout": 0.0,
    "attention_type": "default", "class_embeddings_concat": False, "conv_in_kernel": 3, "conv_out_kernel": 3,
    "cross_attention_norm": None, "mid_block_only_cross_attention": None, "time_embedding_act_fn": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "resnet_out_scale_factor": 1.0, "timestep_post_act": None,
    "resnet_skip_time_act": False, "resnet_time_scale_shift": "default", "time_embedding_dim": None,
    "transformer_layers_per_block": 1, "reverse_transformer_layers_per_block": None,
    "projection_class_embeddings_input_dim": None, "addition_embed_type_num_heads": 64,
    "num_attention_heads": None, "addition_embed_type": None, "addition_time_embed_dim": None,
    "encoder_hid_dim": None, "encoder_hid_dim_type": None,
}  # fmt: skip
"""What a distilled one (LCM), written by a later diffusers, has besides."""

SMALL = {
    "block_out_channels": [320, 640, 1280], "down_block_types": ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3, "mid_block_type": None, "layers_per_block": 1,
}  # fmt: skip
"""Of a distilled one without a middle."""

VAE = {
    "act_fn": "silu", "block_out_channels": [128, 256, 512, 512], "in_channels": 3, "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "layers_per_block": 2, "norm_num_groups": 32,
    "out_channels": 3, "sample_size": 512, "up_block_types": ["UpDecoderBlock2D"] * 4, "force_upcast": True,
    "scaling_factor": 0.18215, "latents_mean": None,
}  # fmt: skip

TINY = {
    "act_fn": "relu", "decoder_block_out_channels": [64] * 4, "encoder_block_out_channels": [64] * 4,
    "force_upcast": False, "in_channels": 3, "latent_channels": 4, "latent_magnitude": 3, "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1], "num_encoder_blocks": [1, 3, 3, 3], "out_channels": 3,
    "scaling_factor": 1.0, "upsampling_scaling_factor": 2, "block_out_channels": [64] * 4,
    "shift_factor": 0.0,
}  # fmt: skip
"""Of TAESD."""

TEXT = {
    "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072,
    "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "num_attention_heads": 12, "pad_token_id": 1,
    "num_hidden_layers": 12, "projection_dim": 768, "vocab_size": 49408,
}  # fmt: skip

SCHEDULER = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
    "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
    "clip_sample": False, "prediction_type": "v_prediction", "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False, "clip_sample_range": 1.0, "thresholding": False,
    "solver_type": "midpoint",
    "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0, "lambda_min_clipped": float("-inf"),
    "lower_order_final": True, "algorithm_type": "dpmsolver++", "solver_order": 2, "variance_type": None,
}  # fmt: skip

SIZES = {
    "Stable Diffusion 1.5": ("UNet2DConditionModel", UNET, 859_520_964),
    "Stable Diffusion 2.1": ("UNet2DConditionModel", {**UNET, **LATER}, 865_910_724),
    "distilled, a later diffusers": ("UNet2DConditionModel", {**UNET, **NEW}, 859_602_884),
    "distilled, without a middle": ("UNet2DConditionModel", {**UNET, **SMALL}, 323_384_964),
    "autoencoder": ("AutoencoderKL", VAE, 83_653_863),
    "tiny autoencoder": ("AutoencoderTiny", TINY, 2_445_063),
    "CLIP of 1.x": ("CLIPTextModel", TEXT, 123_060_480),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_well_known_network_is_in_bounds_and_built_without_memory(name: str) -> None:
    kind, config, parameters = SIZES[name]
    check(config, StableDiffusion.rules[kind], Path("config.json"))
    network = build(kind, config, name)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert all(p.is_meta for p in network.parameters())


def test_a_network_of_a_newer_library_is_one_sentence() -> None:
    with pytest.raises(UnlikenessError, match=r"^the transformer is a NewModel, .*; upgrade both$"):
        build("NewModel", {}, "the transformer")


def test_a_well_known_schedule_is_in_bounds() -> None:
    check(SCHEDULER, BOUNDS, Path("scheduler_config.json"))


def test_the_first_names_of_attention_are_understood() -> None:
    few = {"block_out_channels": [32, 32], "down_block_types": ["DownEncoderBlock2D"] * 2}
    vae = build("AutoencoderKL", {**VAE, **few, "up_block_types": ["UpDecoderBlock2D"] * 2}, "the vae")
    weights = {name: torch.rand(value.shape) for name, value in vae.state_dict().items()}
    old = {}
    for name, value in weights.items():
        for now, then in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{now}.", f".{then}.")
        old[name] = value
    assert "encoder.mid_block.attentions.0.query.weight" in old
    fill(vae, old, "the vae")
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())


def test_a_well_known_tokenizer_reads_as_transformers_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_tokenizer(folder / "tokenizer")
    marks = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    start, end = {"content": "<|startoftext|>", **marks}, {"content": "<|endoftext|>", **marks}
    for pad in ("<|endoftext|>", "!"):
        special = {"bos_token": start, "eos_token": end, "pad_token": pad, "unk_token": end}
        (folder / "tokenizer" / "special_tokens_map.json").write_text(json.dumps(special))
        typed = {"__type": "AddedToken"}
        config = {
            "add_prefix_space": False, "bos_token": {**typed, **start}, "do_lower_case": True,
            "eos_token": {**typed, **end}, "errors": "replace", "model_max_length": 16,
            "name_or_path": "openai/clip-vit-large-patch14", "pad_token": pad,
            "special_tokens_map_file": "./special_tokens_map.json", "tokenizer_class": "CLIPTokenizer",
            "unk_token": {**typed, **end},
        }  # fmt: skip
        (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
        theirs, ours = CLIPTokenizer.from_pretrained(folder / "tokenizer"), load_tokenizer(folder)
        words = ["a photo of sks dog", "", "It's 12 o'clock!", "DOG  dog\n!"]
        for padding in (False, "max_length"):
            asked = {"padding": padding, "max_length": 16, "truncation": True}
            assert ours(words, **asked)["input_ids"] == theirs(words, **asked)["input_ids"]
        assert ours.get_vocab() == theirs.get_vocab()
        assert ours.pad_token == pad
