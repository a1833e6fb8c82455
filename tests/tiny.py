"""Small random Stable Diffusion models, written to disk in the real layout."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from unlikeness.diffusion import TextToImage

PIXELS = 32
"""Side of the tiny model's pictures; its latents are 4 × 8 × 8."""


def write_tokenizer(folder: Path, *, length: int = 16) -> None:
    """CLIP's own file layout (vocab.json, merges.txt, no tokenizer.json) over printable ASCII."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    vocab = [*letters, *(letter + "</w>" for letter in letters)]
    merges = ["d o", "do g</w>", "p h", "o t", "ot o</w>", "ph oto</w>"]
    vocab += [merge.replace(" ", "") for merge in merges]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_clip(path: Path, *, side: int = 16) -> Path:
    """A random CLIP of `side` px as transformers writes it, with its tokenizer and image processor."""
    import transformers

    write_tokenizer(path)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {"vocab_size": 200, "max_position_embeddings": 16, "bos_token_id": 194, "eos_token_id": 195}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config={**tower, **words, "pad_token_id": 195},
                vision_config={**tower, "image_size": side, "patch_size": 8},
                projection_dim=8,
                logit_scale_init_value=4.6,
            )
        )
        for weight in model.parameters():  # as it is initialised all pictures look alike to it
            if weight.ndim > 1:
                weight.data.mul_(20)
    model.save_pretrained(path)
    settings = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": side}, "resample": 3,
        "crop_size": {"height": side, "width": side}, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    return path


def write_tiny(
    folder: Path,
    *,
    prediction_type: str = "epsilon",
    vae: str = "kl",
    scheduler: str = "pndm",
    safety_checker: bool = False,
    sharded: bool = False,
    variant: str | None = None,
    pickled: bool = False,
    tokens: int = 16,
    seed: int = 0,
) -> Path:
    """Write a whole random model with plain diffusers and transformers; returns the folder.

    vae: "kl" or "tiny"; scheduler: "pndm" or "ddpm"; sharded: weights in several files with an index;
    variant: of the weights' names ("fp16" also halves them); pickled: .bin instead of safetensors;
    tokens: the longest prompt. Each kind is made once; further ones are its copies.
    """
    made = _made(prediction_type, vae, scheduler, safety_checker, sharded, variant, pickled, tokens, seed)
    torch.manual_seed(seed)
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder


_MADE = tempfile.TemporaryDirectory(prefix="tiny-")


@cache
def _made(
    prediction_type: str, vae: str, scheduler: str, safety_checker: bool, sharded: bool, variant: str | None,
    pickled: bool, tokens: int, seed: int,
) -> Path:  # fmt: skip
    """The folder of such a model, for this process."""
    import diffusers
    import transformers

    folder = Path(tempfile.mkdtemp(dir=_MADE.name)) / "model"
    torch.manual_seed(seed)
    write_tokenizer(folder / "tokenizer", length=tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=200, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=2, max_position_embeddings=tokens, bos_token_id=194, eos_token_id=195,
                pad_token_id=195,
            )
        )  # fmt: skip
        unet = diffusers.UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8,
        )  # fmt: skip
        autoencoder = _vae(vae)
    table: dict[str, Any] = {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
        "prediction_type": prediction_type,
    }  # fmt: skip
    noising = (
        diffusers.PNDMScheduler(skip_prk_steps=True, **table)
        if scheduler == "pndm"
        else diffusers.DDPMScheduler(clip_sample=False, **table)
    )
    noising.save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(noising).__name__],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": safety_checker,
    }
    models = {"vae": autoencoder, "unet": unet, "text_encoder": text_encoder}
    if safety_checker:
        models["safety_checker"] = _safety_checker()
        index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
        (folder / "feature_extractor").mkdir()
        (folder / "feature_extractor" / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "CLIPImageProcessor", "size": 16, "crop_size": 16})
        )
    for name, model in models.items():
        library = "transformers" if type(model).__module__.startswith("transformers") else "diffusers"
        if name == "safety_checker":
            library = "stable_diffusion"
        index[name] = [library, type(model).__name__]
        if variant == "fp16":
            model = model.half()
        options: dict[str, Any] = {"variant": variant} if variant else {}
        if sharded:
            options["max_shard_size"] = "60KB"
        if pickled:
            _pickle(model, folder / name)
        else:
            model.save_pretrained(folder / name, **options)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def tiny_model(
    folder: Path, prediction_type: str = "epsilon", vae: str = "kl", *, dtype: str = "float32", seed: int = 0
) -> TextToImage:
    """A small random model, written below `folder` and opened from there on the CPU."""
    path = folder / f"tiny-{prediction_type}-{vae}-{seed}"
    if not path.exists():
        write_tiny(path, prediction_type=prediction_type, vae=vae, seed=seed)
    return TextToImage.from_pretrained(path, device="cpu", dtype=dtype)


def encoder_of(model: TextToImage) -> Any:
    """The text encoder of a Stable Diffusion."""
    return model.conditioner.encoders["text_encoder"]


def pictures(count: int, *, seed: int = 0, size: int = PIXELS) -> torch.Tensor:
    """Smooth random images [count, 3, size, size] in [0, 1]."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)


def _vae(kind: str) -> Any:
    import diffusers

    if kind == "tiny":
        tiny = diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1), latent_channels=4,
        )  # fmt: skip
        # Untrained, it would decode everything to the dark end of the range.
        with torch.no_grad():
            tiny.decoder.layers[-1].weight.mul_(4)
            tiny.decoder.layers[-1].bias.fill_(0.5)
        return tiny
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=PIXELS, scaling_factor=0.18215,
    )  # fmt: skip


def _safety_checker() -> Any:
    import transformers
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"vocab_size": 200, "bos_token_id": 194, "eos_token_id": 195, "pad_token_id": 195}
    config = transformers.CLIPConfig(
        text_config={**tower, **tokens},
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    return StableDiffusionSafetyChecker(config)


def _pickle(model: Any, folder: Path) -> None:
    import transformers

    folder.mkdir()
    if isinstance(model, transformers.PreTrainedModel):
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_config(folder)
        torch.save(model.state_dict(), folder / "diffusion_pytorch_model.bin")
