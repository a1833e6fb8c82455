"""Methods that train a new word, and DoRA: their gradients and files are those of plain diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0
from safetensors.torch import load_file, save_file
from tests.tiny import encoder_of, pictures, tiny_model
from tests.tiny_flow import write_flux, write_sd3, write_z_image
from tests.tiny_xl import tiny_xl, write_tiny_xl

from unlikeness.diffusion import TextToImage, diffusion_loss
from unlikeness.diffusion.adapters import Embedding
from unlikeness.diffusion.condition import Condition
from unlikeness.diffusion.embeddings import load_embedding
from unlikeness.diffusion.lora import load_lora
from unlikeness.diffusion.words import FILE
from unlikeness.errors import UsageError
from unlikeness.personalize import Personalizer, create, known_as
from unlikeness.personalize.record import record, save
from unlikeness.subjects import Subject

SUBJECT = Subject(pictures(2, seed=5), "dog")
PROMPT = "a photo of <sks> dog"
T = torch.tensor([300, 700])


def made(name: str, **values: Any) -> Personalizer:
    return create(name, {"steps": 2, "learning_rate": 1e-2, "prior_weight": 0.0, **values})


def written(model: TextToImage, method: Personalizer, folder: Path) -> TextToImage:
    tuned = method.personalize(model, SUBJECT)
    save(tuned, folder, record("a method", method, known_as(method, SUBJECT), "tiny"), method)
    return tuned


def noise(model: TextToImage) -> torch.Tensor:
    return torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(1))


def answer(unet: Any, tokens: torch.Tensor) -> torch.Tensor:
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found: torch.Tensor = unet(z, T, encoder_hidden_states=tokens.expand(2, -1, -1)).sample
    return found


def plain_loss(pipe: Any, model: TextToImage) -> torch.Tensor:
    """L_diff as diffusers' scripts compute it, with the text encoder's gradient."""
    z0, eps = model.encode_all(SUBJECT.images).mean, noise(model)
    ids = pipe.tokenizer(
        [PROMPT] * 2, padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    f = pipe.unet(pipe.scheduler.add_noise(z0, eps, T), T, pipe.text_encoder(ids)[0]).sample
    return torch.nn.functional.mse_loss(f, eps)


def our_loss(tuned: TextToImage) -> torch.Tensor:
    c = tuned.condition([PROMPT], grad=True)
    return diffusion_loss(tuned, tuned.encode_all(SUBJECT.images).mean, c, t=T, eps=noise(tuned))


def plain_pipe(model: TextToImage, vector: torch.Tensor, folder: Path) -> Any:
    save_file({"<sks>": vector.detach()}, folder / "start.safetensors")
    pipe = StableDiffusionPipeline.from_pretrained(model.source)
    pipe.load_textual_inversion(folder / "start.safetensors")
    return pipe


def test_a_words_gradient_is_that_of_diffusers_script(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    tuned, [vectors] = made("textual_inversion", initializer="dog").trainable(model, "<sks>")  # type: ignore[attr-defined]
    number = model.conditioner.tokenizer("dog", add_special_tokens=False).input_ids
    assert torch.equal(vectors, encoder_of(model).get_input_embeddings().weight[number])
    pipe = plain_pipe(model, vectors, tmp_path)
    table = pipe.text_encoder.get_input_embeddings().weight.requires_grad_(True)
    plain_loss(pipe, model).backward()  # type: ignore[no-untyped-call]
    our_loss(tuned).backward()  # type: ignore[no-untyped-call]
    row = pipe.tokenizer.convert_tokens_to_ids("<sks>")
    assert torch.allclose(vectors.grad[0], table.grad[row], rtol=1e-3, atol=1e-7)
    assert float(vectors.grad.norm()) > 1e-5
    assert all(p.grad is None for p in encoder_of(tuned).parameters() if p is not vectors)


def test_custom_diffusions_gradient_and_layers_are_those_of_diffusers(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    method = made("custom_diffusion")
    tuned, parameters = method.trainable(model, "<sks>")  # type: ignore[attr-defined]
    pipe = plain_pipe(model, parameters[-1], tmp_path)
    weights = dict(model.denoiser.named_parameters())
    processors, names = {}, []
    for name, layer in pipe.unet.named_modules():
        if name.endswith((".attn1", ".attn2")):
            cross = name.endswith(".attn2")
            inner, width = layer.to_k.weight.shape
            own = CustomDiffusionAttnProcessor2_0(
                train_kv=cross, train_q_out=False, hidden_size=inner,
                cross_attention_dim=width if cross else None,
            )  # fmt: skip
            if cross:
                names.append(name)
                own.to_k_custom_diffusion.weight.data = weights[f"{name}.to_k.weight"].detach().clone()
                own.to_v_custom_diffusion.weight.data = weights[f"{name}.to_v.weight"].detach().clone()
            processors[f"{name}.processor"] = own
    pipe.unet.set_attn_processor(processors)
    plain_loss(pipe, model).backward()  # type: ignore[no-untyped-call]
    our_loss(tuned).backward()  # type: ignore[no-untyped-call]
    trained, processors = dict(tuned.denoiser.named_parameters()), pipe.unet.attn_processors
    assert len(parameters) == 2 * len(names) + 1
    for name in names:
        for part in ("to_k", "to_v"):
            theirs = getattr(processors[f"{name}.processor"], f"{part}_custom_diffusion").weight.grad
            ours = trained[f"{name}.{part}.weight"].grad
            assert ours is not None
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-7)
    tuned = written(model, method, tmp_path / "whole")
    for name in names:  # what diffusers' files of this method hold; its loader no longer puts them in
        for part in ("to_k", "to_v"):
            own = getattr(processors[f"{name}.processor"], f"{part}_custom_diffusion")
            own.weight.data = tuned.denoiser.get_submodule(f"{name}.{part}").weight.clone()
    whole = StableDiffusionPipeline.from_pretrained(tmp_path / "whole")
    tokens = tuned.condition([PROMPT]).tokens
    assert torch.equal(whole.encode_prompt(PROMPT, "cpu", 1, False)[0], tokens)
    with torch.no_grad():
        expected = answer(tuned.denoiser, tokens)
        assert torch.allclose(answer(pipe.unet, tokens), expected, atol=1e-5)
        assert torch.allclose(answer(whole.unet, tokens), expected, atol=1e-5)
        assert not torch.allclose(answer(model.denoiser, tokens), expected, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2])
def test_a_trained_word_loads_in_plain_diffusers_and_here(count: int, tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    tuned = written(model, made("textual_inversion", vectors=count), tmp_path / "word")
    assert sorted(one.name for one in (tmp_path / "word").iterdir()) == [FILE, "personalization.json"]
    pipe = StableDiffusionPipeline.from_pretrained(model.source)
    pipe.load_textual_inversion(tmp_path / "word" / FILE)
    tokens = tuned.condition([PROMPT]).tokens
    assert torch.equal(pipe.encode_prompt(PROMPT, "cpu", 1, False)[0], tokens)
    again = load_embedding(model, Embedding(str(tmp_path / "word" / FILE)))
    assert torch.equal(again.condition([PROMPT]).tokens, tokens)
    assert not torch.equal(model.condition([PROMPT]).tokens, tokens)


def test_xls_word_has_vectors_for_both_encoders(tmp_path: Path) -> None:
    model = tiny_xl(tmp_path)
    tuned = written(model, made("lora_ti", rank=4, initializer="dog"), tmp_path / "both")
    file = tmp_path / "both" / FILE
    found = load_file(file)
    assert {name: one.shape[1] for name, one in found.items()} == {"clip_l": 16, "clip_g": 24}
    pipe = StableDiffusionXLPipeline.from_pretrained(model.source)
    pipe.load_lora_weights(tmp_path / "both")
    for name, part in (("clip_l", ""), ("clip_g", "_2")):
        encoder, tokenizer = getattr(pipe, f"text_encoder{part}"), getattr(pipe, f"tokenizer{part}")
        pipe.load_textual_inversion(found[name], token="<sks>", text_encoder=encoder, tokenizer=tokenizer)
    c = tuned.condition([PROMPT])
    tokens, _, pooled, _ = pipe.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False)
    assert torch.allclose(tokens, c.tokens, atol=1e-5)
    assert c.pooled is not None
    assert torch.allclose(pooled, c.pooled, atol=1e-5)
    again = load_embedding(load_lora(model, tmp_path / "both"), Embedding(str(file), "<sks>"))
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (m.predict(z, T[:1], m.condition([PROMPT])) for m in (tuned, again))
    assert torch.allclose(one, other, atol=1e-4)


def test_a_dora_loads_in_plain_diffusers_and_here(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    tuned = written(model, made("lora", dora=True, rank=4, alpha=2.0, steps=8), tmp_path / "dora")
    [file] = (tmp_path / "dora").glob("*.safetensors")
    assert any("magnitude" in name for name in load_file(file))
    tokens = model.condition([PROMPT]).tokens
    pipe = StableDiffusionPipeline.from_pretrained(model.source)
    pipe.load_lora_weights(tmp_path / "dora")
    with torch.no_grad():
        expected = answer(tuned.denoiser, tokens)
        assert torch.allclose(answer(pipe.unet, tokens), expected, atol=1e-4)
        assert torch.allclose(answer(load_lora(model, file).denoiser, tokens), expected, atol=1e-4)
        assert not torch.allclose(answer(model.denoiser, tokens), expected, atol=1e-3)


@pytest.mark.parametrize("write", [write_tiny_xl, write_sd3, write_flux])
def test_every_family_with_a_clip_learns_a_word(write: Callable[..., Path], tmp_path: Path) -> None:
    model = TextToImage.from_pretrained(write(tmp_path / "model"), device="cpu")
    method = made("textual_inversion", initializer="dog")
    tuned = written(model, method, tmp_path / "word")
    c, before = tuned.condition([PROMPT, "a dog"]), model.condition(["a dog"])
    start = method.trainable(model, "<sks>")[0].condition([PROMPT])  # type: ignore[attr-defined]
    assert torch.equal(pooled(c)[1:], pooled(before))
    assert not torch.equal(pooled(c)[:1], pooled(start))
    again = load_embedding(model, Embedding(str(tmp_path / "word" / FILE), "<sks>"))
    assert torch.equal(pooled(again.condition([PROMPT])), pooled(c)[:1])


def pooled(condition: Condition) -> torch.Tensor:
    assert condition.pooled is not None
    return condition.pooled


def test_what_cannot_be_learnt_is_one_sentence(tmp_path: Path) -> None:
    model = TextToImage.from_pretrained(write_z_image(tmp_path / "z"), device="cpu")
    with pytest.raises(UsageError, match=r"for CLIP text encoders, and a .* has none; train a LoRA"):
        made("textual_inversion").personalize(model, SUBJECT)
    model = tiny_model(tmp_path)
    for identifier, said in (("my own", "no single word"), ("<" + "x" * 90 + ">", "no single word")):
        with pytest.raises(UsageError, match=said):
            made("textual_inversion").personalize(model, Subject(SUBJECT.images, "dog", identifier))
    tuned = made("textual_inversion").personalize(model, SUBJECT)
    with pytest.raises(UsageError, match="knows the word '<sks>' already; give another identifier"):
        made("textual_inversion").personalize(tuned, SUBJECT)
