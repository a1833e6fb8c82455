"""What is particular to Z-Image: files as they are on the hub, its own guidance, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.diffusion.test_flow_families import changed
from tests.tiny_flow import QWEN_TOKENS, write_z_image

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.lora import load_lora
from unlikeness.errors import UnlikenessError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_z_image(tmp_path_factory.mktemp("z") / "z-image")


def drawn(folder: Path, **how: Any) -> torch.Tensor:
    return TextToImage.from_pretrained(folder, device="cpu").generate(["dog"], seeds=[1], steps=2, **how)


def test_files_as_on_the_hub_are_the_same_model(folder: Path, tmp_path: Path) -> None:
    """Weights of the whole language model, settings of an older transformers, a tokenizer without an end."""
    old = {"rope_theta": 10_000, "rope_scaling": None, "rope_parameters": None, "tie_word_embeddings": True}
    out = changed(folder, tmp_path, "text_encoder/config.json", **old)
    config = json.loads((out / "text_encoder" / "config.json").read_text())
    del config["rope_parameters"]
    (out / "text_encoder" / "config.json").write_text(json.dumps(config))
    weights = out / "text_encoder" / "model.safetensors"
    named = {f"model.{name}": tensor for name, tensor in load_file(weights).items()}
    save_file({**named, "lm_head.weight": torch.zeros(300, 24)}, weights)
    (out / "tokenizer" / "chat_template.jinja").unlink()
    assert torch.equal(drawn(out), drawn(folder))


def test_a_copy_has_the_template_that_was_read_and_nothing_of_the_folders(
    folder: Path, tmp_path: Path
) -> None:
    import transformers

    out = Path(TextToImage.from_pretrained(folder, device="cpu").save_pretrained(tmp_path / "out"))
    turn = [{"role": "user", "content": "a dog"}]
    said = [
        transformers.AutoTokenizer.from_pretrained(one / "tokenizer").apply_chat_template(
            turn, tokenize=False, add_generation_prompt=True
        )
        for one in (folder, out)
    ]
    assert said[0] == said[1] == "<|im_start|>user\na dog<|im_end|>\n<|im_start|>assistant\n"
    assert "enable_thinking" not in (out / "tokenizer" / "chat_template.jinja").read_text()


@pytest.mark.parametrize("form", ["diffusion_model.{}.{}", "lora_unet_{}.{}"])
def test_a_lora_of_other_trainers_is_read_as_plain_diffusers_reads_it(
    form: str, folder: Path, tmp_path: Path
) -> None:
    import diffusers

    tensors: dict[str, torch.Tensor] = {}
    random = torch.Generator().manual_seed(0)
    for layer in ("layers.1.attention.to_q", "noise_refiner.0.attention.to_out.0"):
        name = layer.replace(".", "_") if form.startswith("lora_unet") else layer
        for end, shape in (("lora_down.weight", (2, 32)), ("lora_up.weight", (32, 2))):
            tensors[form.format(name, end)] = torch.randn(shape, generator=random)
        tensors[form.format(name, "alpha")] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "lora.safetensors")
    model = load_lora(TextToImage.from_pretrained(folder, device="cpu"), tmp_path / "lora.safetensors")
    pipe = diffusers.ZImagePipeline.from_pretrained(folder)
    pipe.load_lora_weights(tmp_path / "lora.safetensors")
    pipe.fuse_lora()
    z_t, t = torch.randn(1, *model.latent_shape, generator=random), torch.tensor([500])
    c = model.condition(["dog"])
    read = model.family.predict(pipe.transformer, z_t, t, c)
    assert torch.allclose(model.family.predict(model.denoiser, z_t, t, c), read, atol=1e-5)
    plain = TextToImage.from_pretrained(folder, device="cpu")
    assert not torch.allclose(plain.family.predict(plain.denoiser, z_t, t, c), read, atol=1e-2)


def test_guidance_begins_above_0(folder: Path) -> None:
    assert not torch.equal(drawn(folder, guidance=1.0), drawn(folder, guidance=0.0))
    assert not torch.equal(drawn(folder, negative_prompt="cat"), drawn(folder))


def test_what_fills_up_a_short_prompt_is_not_read(folder: Path) -> None:
    model = TextToImage.from_pretrained(folder, device="cpu")
    c: Any = model.condition(["dog", "a photo of a dog"])
    assert c.tokens.shape == (2, QWEN_TOKENS, 24)
    assert 0 < c.read[0].sum() < c.read[1].sum() < QWEN_TOKENS
    z_t, t = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0)), [1, 500]
    f = model.predict(z_t, torch.tensor(t), c)
    c.tokens[~c.read] = 7.0
    assert torch.equal(model.predict(z_t, torch.tensor(t), c), f)


def test_rotary_embeddings_stay_float32(folder: Path) -> None:
    model = TextToImage.from_pretrained(folder, device="cpu")
    before = [buffer.clone() for buffer in model.conditioner.encoders["text_encoder"].buffers()]
    model.conditioner.to(dtype=torch.bfloat16)
    assert model.conditioner.dtype == torch.bfloat16
    after = list(model.conditioner.encoders["text_encoder"].buffers())
    assert before
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("file", "values", "error", "said"),
    [
        ("transformer/config.json", {"axes_lens": [65, 12, 12]}, UnlikenessError, "axes_lens with 65 places"),
        ("transformer/config.json", {"axes_dims": [4, 4, 4]}, UnlikenessError, "cannot be used"),
        ("transformer/config.json", {"all_patch_size": [4]}, UnlikenessError, "all_patch_size"),
        ("transformer/config.json", {"siglip_feat_dim": 8}, UnlikenessError, "must be null"),
        ("transformer/config.json", {"in_channels": 8}, UsageError, "text-to-image relative"),
        ("text_encoder/config.json", {"vocab_size": 20}, UnlikenessError, "those below 20"),
        ("text_encoder/config.json", {"rope_parameters": {"rope_type": "yarn"}}, UnlikenessError, "default"),
        ("unlikeness.json", {"default_resolution": 104}, UnlikenessError, "at most 96"),
        ("model_index.json", {"_class_name": "ZImageOmniPipeline"}, UsageError, "not supported"),
    ],
)
def test_what_does_not_fit_is_refused(
    file: str, values: dict[str, Any], error: type[Exception], said: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        TextToImage.from_pretrained(changed(folder, tmp_path, file, **values), device="cpu")
