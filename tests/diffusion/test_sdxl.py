"""Stable Diffusion XL: opened, drawn, trained and saved as plain diffusers does it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
)
from tests.tiny import pictures
from tests.tiny_xl import write_tiny_xl

from unlikeness.diffusion import TextToImage, diffusion_loss, draw
from unlikeness.diffusion.families import Defaults
from unlikeness.diffusion.families.sdxl import StableDiffusionXL
from unlikeness.diffusion.lora import load_lora
from unlikeness.diffusion.lora_writing import save_lora
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.personalize import personalize
from unlikeness.subjects import Subject

SOLVERS: dict[str, Any] = {
    "dpm++": DPMSolverMultistepScheduler, "ddim": DDIMScheduler, "euler": EulerDiscreteScheduler,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_xl(tmp_path_factory.mktemp("models") / "xl")


@pytest.fixture
def model(folder: Path) -> TextToImage:
    return TextToImage.from_pretrained(folder, device="cpu")


def plain(folder: Path, sampler: str | None = None) -> Any:
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    if sampler is not None:
        unclipped = {"clip_sample": False} if sampler == "ddim" else {}
        pipe.scheduler = SOLVERS[sampler].from_config(pipe.scheduler.config, **unclipped)
    return pipe


def drawn(pipe: Any, *, seed: int = 3, steps: int = 3, guidance: float = 5.0, **how: Any) -> torch.Tensor:
    images: torch.Tensor = pipe(
        "a photo of a dog", generator=torch.Generator().manual_seed(seed), num_inference_steps=steps,
        guidance_scale=guidance, output_type="pt", **how,
    ).images  # fmt: skip
    return images


@pytest.mark.parametrize("sampler", SOLVERS)
def test_draws_bit_for_bit_what_the_pipeline_draws(sampler: str, folder: Path, model: TextToImage) -> None:
    pipe = plain(folder, sampler)
    ours = model.generate(["a photo of a dog"], seeds=[3], steps=3, sampler=sampler)
    assert ours.shape == (1, 3, 32, 32)
    assert ours.std() > 0.01
    assert torch.equal(ours, drawn(pipe))
    how: dict[str, Any] = {"steps": 2, "guidance": 2.5, "negative_prompt": "a cat"}
    ours = model.generate(["a photo of a dog"], seeds=[4], sampler=sampler, **how)
    assert torch.equal(ours, drawn(pipe, seed=4, **how))
    once = model.generate(["a photo of a dog"], seeds=[5], sampler=sampler, guidance=0.0, steps=1)
    assert torch.equal(once, drawn(pipe, seed=5, guidance=0.0, steps=1))


def test_no_prompt_is_zeros_only_where_the_model_says_so(tmp_path: Path, model: TextToImage) -> None:
    nothing, empty = model.condition([None]), model.condition([""])
    assert not nothing.tokens.any()
    assert nothing.pooled is not None
    assert not nothing.pooled.any()
    assert empty.tokens.any()
    both = model.condition(["a dog", None, "a cat"])
    assert [bool(row.tokens.any()) for row in (both[:1], both[1:2], both[2:])] == [True, False, True]
    other = write_tiny_xl(tmp_path / "other", zeros=False)
    opened = TextToImage.from_pretrained(other, device="cpu")
    assert opened.condition([None]).tokens.any()
    ours = opened.generate(["a photo of a dog"], seeds=[3], steps=2, sampler="euler")
    assert torch.equal(ours, drawn(plain(other, "euler"), steps=2))
    copy = opened.save_pretrained(tmp_path / "copy")
    assert json.loads((copy / "model_index.json").read_text())["force_zeros_for_empty_prompt"] is False


def script_loss(pipe: Any, z0: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """The loss of train_dreambooth_lora_sdxl.py, written with diffusers' calls, for pictures of 32 px."""
    noising = DDPMScheduler.from_config(pipe.scheduler.config)
    embedded, _, pooled, _ = pipe.encode_prompt("a photo of sks dog", do_classifier_free_guidance=False)
    ids = torch.tensor([[32, 32, 0, 0, 32, 32]], dtype=embedded.dtype).repeat(len(z0), 1)
    prediction = pipe.unet(
        noising.add_noise(z0, eps, t), t, embedded.repeat(len(z0), 1, 1),
        added_cond_kwargs={"time_ids": ids, "text_embeds": pooled.repeat(len(z0), 1)},
    ).sample  # fmt: skip
    return F.mse_loss(prediction.float(), eps.float(), reduction="mean")


def test_the_loss_is_that_of_the_training_script(folder: Path, model: TextToImage) -> None:
    pipe = plain(folder)
    latents = pipe.vae.encode(2 * pictures(3) - 1).latent_dist.mean * pipe.vae.config.scaling_factor
    z0 = model.encode_all(pictures(3)).mean
    assert torch.allclose(z0, latents, atol=1e-6)
    t, eps = draw(model, z0, torch.Generator().manual_seed(7))
    with torch.no_grad():
        wanted = script_loss(pipe, z0, t, eps)
        found = diffusion_loss(model, z0, model.condition(["a photo of sks dog"]), t=t, eps=eps)
    assert abs(float(wanted - found)) < 1e-6


QUICK = {"steps": 2, "class_images": 2, "class_steps": 1, "learning_rate": 1e-2}


def test_a_saved_lora_draws_the_same_in_the_plain_pipeline(
    folder: Path, model: TextToImage, tmp_path: Path
) -> None:
    tuned = personalize(model, Subject(pictures(2), "dog"), "lora", QUICK)
    file = save_lora(tuned, tmp_path / "lora")
    how: dict[str, Any] = {"seeds": [3], "steps": 2, "sampler": "euler"}
    ours = tuned.generate(["a photo of a dog"], **how)
    assert not torch.allclose(ours, model.generate(["a photo of a dog"], **how), atol=1e-4)
    pipe = plain(folder, "euler")
    pipe.load_lora_weights(str(file.parent))
    assert torch.equal(ours, drawn(pipe, steps=2))
    again = load_lora(model, file).generate(["a photo of a dog"], **how)  # merged: other roundings
    assert torch.allclose(ours, again, atol=1e-5)


@pytest.mark.parametrize("text_encoder", [False, True])
def test_a_fully_tuned_model_opens_in_the_plain_pipeline(
    text_encoder: bool, folder: Path, model: TextToImage, tmp_path: Path
) -> None:
    settings = {**QUICK, "learning_rate": 1e-4, "text_encoder": text_encoder}
    tuned = personalize(model, Subject(pictures(2), "dog"), "dreambooth", settings)
    out = tuned.save_pretrained(tmp_path / "out")
    ours = tuned.generate(["a photo of a dog"], seeds=[3], steps=2, sampler="euler")
    assert torch.equal(ours, drawn(plain(out, "euler"), steps=2))
    for part in ("vae", "text_encoder", "text_encoder_2"):
        before, after = (next((one / part).glob("*.safetensors")).read_bytes() for one in (folder, out))
        # transformers 4 names the first encoder's weights otherwise, and a copy is for both.
        if part != "text_encoder":
            assert (before == after) == (part == "vae" or not text_encoder)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_copy_is_the_same_model_and_a_variant_opens(variant: str | None, tmp_path: Path) -> None:
    folder = write_tiny_xl(tmp_path / "xl", variant=variant)
    model = TextToImage.from_pretrained(folder, device="cpu", dtype="float32")
    again = TextToImage.from_pretrained(model.save_pretrained(tmp_path / "copy"), device="cpu")
    how: dict[str, Any] = {"seeds": [1], "steps": 2}
    assert torch.equal(model.generate(["a dog"], **how), again.generate(["a dog"], **how))
    assert again.defaults == model.defaults == Defaults(guidance=5.0)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("sdxl-turbo", 1), ("sdxl-lightning", 4), ("SDXL-Lightning-8step", 8), ("lightning_2step", 2),
        ("turbotax", None), ("stable-diffusion-xl-base-1.0", None),
    ],
)  # fmt: skip
def test_turbo_and_lightning_are_recognised_by_name(name: str, steps: int | None) -> None:
    unet = SimpleNamespace(config=SimpleNamespace(time_cond_proj_dim=None))
    found = StableDiffusionXL().defaults({"unet": unet, "scheduler": None}, name)
    if steps is None:
        assert found == StableDiffusionXL.usual
    else:
        assert found == Defaults(guidance=0.0, steps=steps, sampler="euler", spacing="trailing")


def test_turbo_draws_as_it_was_distilled_and_so_does_its_copy(tmp_path: Path) -> None:
    folder = write_tiny_xl(tmp_path / "sdxl-turbo", spacing="trailing")
    model = TextToImage.from_pretrained(folder, device="cpu")
    wanted = drawn(plain(folder), guidance=0.0, steps=1)
    assert torch.equal(model.generate(["a photo of a dog"], seeds=[3]), wanted)
    other = TextToImage.from_pretrained(model.save_pretrained(tmp_path / "released"), device="cpu")
    assert other.defaults == model.defaults
    assert torch.equal(other.generate(["a photo of a dog"], seeds=[3]), wanted)
    own = json.loads((tmp_path / "released" / "unlikeness.json").read_text())
    assert own == {
        "default_guidance": 0.0, "default_steps": 1, "default_sampler": "euler",
        "default_spacing": "trailing",
    }  # fmt: skip


def changed(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_is_no_base_model_is_named(tmp_path: Path) -> None:
    folder = write_tiny_xl(tmp_path / "xl")
    for values, error, words in (
        ({"projection_class_embeddings_input_dim": 12 + 5 * 8}, UsageError, "is a refiner"),
        ({"projection_class_embeddings_input_dim": 61}, UnlikenessError, r"12 \+ 6 × 8"),
        ({"addition_embed_type": None}, UnlikenessError, "must be one of text_time"),
        ({"in_channels": 9}, UsageError, "9 input channels"),
    ):
        kept = (folder / "unet" / "config.json").read_text()
        changed(folder, "unet/config.json", **values)
        with pytest.raises(error, match=words):
            TextToImage.from_pretrained(folder, device="cpu")
        (folder / "unet" / "config.json").write_text(kept)
    kept = (folder / "model_index.json").read_text()
    changed(folder, "model_index.json", text_encoder=[None, None], tokenizer=[None, None])
    with pytest.raises(UsageError, match=r"has no text_encoder, as its .* \(a refiner or"):
        TextToImage.from_pretrained(folder, device="cpu")
    (folder / "model_index.json").write_text(kept)
    changed(folder, "tokenizer_2/tokenizer_config.json", model_max_length=8)
    with pytest.raises(UnlikenessError, match="tokenizers of 16 and 8 tokens"):
        TextToImage.from_pretrained(folder, device="cpu")


def test_the_ids_and_the_pooled_vector_go_with_the_prompts(model: TextToImage) -> None:
    c = model.condition(["a dog", "a cat"])
    assert [tensor.shape for tensor in c.tensors()] == [(2, 16, 40), (2, 12), (2, 6)]
    assert c[1:].expand(3).tensors()[2].tolist() == [[32, 32, 0, 0, 32, 32]] * 3
    swapped = replace(c[[1, 0]])
    assert swapped.pooled is not None
    assert c.pooled is not None
    assert torch.equal(swapped.pooled[0], c.pooled[1])
