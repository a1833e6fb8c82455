"""Every personalization: it learns the subject, changes what it may change, and leaves the model alone."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import SafetensorError
from tests.tiny import encoder_of, pictures, tiny_model

from unlikeness.diffusion import TextToImage, diffusion_loss
from unlikeness.diffusion.lora import has_lora, load_lora
from unlikeness.diffusion.lora_writing import FILE, save_lora
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.personalize import create, known_as, method, names, personalize
from unlikeness.personalize.data import class_prior
from unlikeness.subjects import Subject

QUICK: dict[str, dict[str, Any]] = {
    "dreambooth": {"steps": 40, "learning_rate": 2e-3, "class_images": 2, "class_steps": 2},
    "lora": {"steps": 40, "learning_rate": 2e-2, "class_images": 2, "class_steps": 2, "rank": 4},
    "lora_ti": {"steps": 40, "learning_rate": 2e-2, "class_images": 2, "class_steps": 2, "rank": 4},
    "textual_inversion": {"steps": 40, "learning_rate": 0.3},
    "custom_diffusion": {"steps": 40, "learning_rate": 1e-2, "class_images": 2, "class_steps": 2},
}
SUBJECT = Subject(pictures(2, seed=5), "dog")


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def known(name: str) -> Subject:
    return known_as(create(name), SUBJECT)


def loss_on_subject(model: TextToImage, subject: Subject = SUBJECT) -> float:
    z0 = model.encode_all(SUBJECT.images).mean.repeat(32, 1, 1, 1)
    c = model.condition([subject.instance_prompt])
    with torch.no_grad():
        return float(diffusion_loss(model, z0, c, generator=torch.Generator().manual_seed(0)))


def learnt(model: TextToImage, name: str) -> torch.Tensor:
    """All that a method may change: what the denoiser answers, and the prompt of the subject."""
    prompt = model.condition([known(name).instance_prompt])
    return torch.cat([answer(model).flatten(), prompt.tokens.flatten()])


def answer(model: Any) -> torch.Tensor:
    denoiser = model.denoiser if isinstance(model, TextToImage) else model.unet
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    c = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        f: torch.Tensor = denoiser(z, torch.tensor([3, 700]), encoder_hidden_states=c).sample
    return f


def test_every_method_is_tested_here() -> None:
    assert set(QUICK) == set(names())


@pytest.mark.parametrize("name", QUICK)
def test_learns_the_subject_and_leaves_the_model_alone(name: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    before = [state(part) for part in model.networks]
    tuned = personalize(model, SUBJECT, name, QUICK[name])
    for part, kept in zip(model.networks, before, strict=True):
        assert same(state(part), kept)
        assert not any(p.requires_grad for p in part.parameters())
    assert not has_lora(model)
    least = 0.995 if name == "textual_inversion" else 0.9  # a random text encoder's words say little
    assert loss_on_subject(tuned, known(name)) < least * loss_on_subject(model)
    assert not any(p.requires_grad for p in tuned.denoiser.parameters())
    again = personalize(model, SUBJECT, name, QUICK[name])
    assert torch.equal(learnt(again, name), learnt(tuned, name))


@pytest.mark.parametrize("name", QUICK)
def test_resumes_to_the_same_result(name: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    quick = {**QUICK[name], "steps": 6}
    whole = personalize(model, SUBJECT, name, quick)
    personalize(model, SUBJECT, name, {**quick, "steps": 3}, checkpoint=tmp_path / "state")
    resumed = personalize(model, SUBJECT, name, quick, checkpoint=tmp_path / "state")
    assert torch.equal(learnt(resumed, name), learnt(whole, name))
    other = tiny_model(tmp_path, seed=1)
    for base, subject in (
        (model, Subject(pictures(2, seed=6), "dog")),
        (model, Subject(SUBJECT.images, "cat")),
        (model, Subject(SUBJECT.images, "dog", "xyz")),
        (other, SUBJECT),
    ):
        with pytest.raises(UsageError, match="another run"):
            personalize(base, subject, name, quick, checkpoint=tmp_path / "state")
    with pytest.raises(UsageError, match="has 6 steps already"):
        personalize(model, SUBJECT, name, {**quick, "steps": 5}, checkpoint=tmp_path / "state")


@pytest.mark.parametrize("name", QUICK)
def test_settings_are_documented_and_strict(name: str) -> None:
    for field in fields(method(name).settings_type):
        assert field.metadata["doc"].endswith("."), field.name
    with pytest.raises(UsageError, match="learning_rate"):
        create(name, {"learning_rte": 1})
    with pytest.raises(UsageError, match="steps must be at least 1"):
        create(name, {"steps": "0"})


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean dreambooth"):
        create("dreamboth")


def test_dreambooth_trains_the_text_encoder_only_when_asked(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    quick = {**QUICK["dreambooth"], "steps": 2}
    assert personalize(model, SUBJECT, "dreambooth", quick).conditioner is model.conditioner
    before = state(encoder_of(model))
    embedded = model.condition(["a dog"])
    tuned = personalize(model, SUBJECT, "dreambooth", {**quick, "text_encoder": True})
    assert same(state(encoder_of(model)), before)
    assert not same(state(encoder_of(tuned)), before)
    assert not torch.equal(tuned.condition(["a dog"]).tokens, embedded.tokens)
    assert torch.equal(model.condition(["a dog"]).tokens, embedded.tokens)


def test_half_precision_models_are_trained_in_full(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, dtype="bfloat16")
    tuned = personalize(
        model, SUBJECT, "dreambooth", {**QUICK["dreambooth"], "steps": 2, "precision": "bfloat16"}
    )
    assert tuned.dtype == torch.float32
    assert model.dtype == torch.bfloat16
    assert model.autoencoder.network.dtype == torch.float32
    lora = personalize(model, SUBJECT, "lora", {**QUICK["lora"], "steps": 2})
    dtypes = {p.dtype for name, p in lora.denoiser.named_parameters() if "lora_" in name}
    assert dtypes == {torch.float32}


def test_a_divergence_is_told(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    with pytest.raises(UnlikenessError, match=r"DreamBooth diverged at step \d+"):
        personalize(model, SUBJECT, "dreambooth", {**QUICK["dreambooth"], "learning_rate": 1e30})


def test_lora_touches_the_attention_projections_alone(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    tuned = personalize(model, SUBJECT, "lora", {**QUICK["lora"], "steps": 2})
    base = {n.replace(".base_layer", ""): v for n, v in state(tuned.denoiser).items() if "lora_" not in n}
    assert same(base, state(model.denoiser))
    adapted = {name.split(".lora_")[0] for name in state(tuned.denoiser) if "lora_" in name}
    assert adapted == {
        name
        for name, _ in model.denoiser.named_modules()
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    }
    ranks = [v.shape[0] for name, v in state(tuned.denoiser).items() if "lora_A" in name]
    assert set(ranks) == {4}


def test_a_lora_file_loads_in_plain_diffusers_and_here(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    tuned = personalize(model, SUBJECT, "lora", QUICK["lora"])
    file = save_lora(tuned, tmp_path / "lora")
    assert file.stat().st_mode == (tmp_path / "tiny-epsilon-kl-0" / "model_index.json").stat().st_mode
    assert file.name == FILE
    pipe = StableDiffusionPipeline.from_pretrained(model.source)
    assert not torch.allclose(answer(pipe), answer(tuned), atol=1e-3)
    pipe.load_lora_weights(tmp_path / "lora")
    assert torch.allclose(answer(pipe), answer(tuned), atol=1e-4)
    assert torch.allclose(answer(load_lora(model, file)), answer(tuned), atol=1e-5)
    assert not has_lora(model)
    merged = tuned.save_pretrained(tmp_path / "merged")
    assert torch.allclose(answer(StableDiffusionPipeline.from_pretrained(merged)), answer(tuned), atol=1e-4)
    assert has_lora(tuned)
    assert torch.allclose(answer(tuned), answer(load_lora(model, tmp_path / "lora")), atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_a_model_with_a_lora_is_trained_with_it(name: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    file = save_lora(personalize(model, SUBJECT, "lora", QUICK["lora"]), tmp_path / "lora")
    adapted = load_lora(model, file)
    still = {**QUICK[name], "steps": 1, "learning_rate": 0.0}
    tuned = personalize(adapted, SUBJECT, name, still)
    assert torch.allclose(answer(tuned), answer(adapted), atol=1e-4)
    assert not torch.allclose(answer(tuned), answer(model), atol=1e-3)
    assert has_lora(tuned) == name.startswith("lora")
    assert not has_lora(adapted)  # what a file says is added to the weights


def test_a_lora_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    with pytest.raises(UsageError, match="no LoRA to save"):
        save_lora(model, tmp_path / "none")
    with pytest.raises(UsageError, match="none does not exist; give a"):
        load_lora(model, tmp_path / "none")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UnlikenessError, match=r"bad\.safetensors cannot be used"):
        load_lora(model, tmp_path / "bad.safetensors")
    tuned = personalize(model, SUBJECT, "lora", {**QUICK["lora"], "steps": 1})
    save_lora(tuned, tmp_path / "lora")
    with pytest.raises(UsageError, match="never overwritten"):
        save_lora(tuned, tmp_path / "lora")


def test_a_lora_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = personalize(tiny_model(tmp_path), SUBJECT, "lora", QUICK["lora"])

    def full(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(UnlikenessError, match="No space left"):
        save_lora(tuned, tmp_path / "lora")


def test_a_lora_file_counts_as_much_as_it_says(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(model.source)
    pipe.unet.add_adapter(
        LoraConfig(r=4, lora_alpha=16, init_lora_weights=False, target_modules=["to_q", "to_v"])
    )
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "lora", unet_lora_layers=get_peft_model_state_dict(pipe.unet),
        unet_lora_adapter_metadata=pipe.unet.peft_config["default"].to_dict(),
    )  # fmt: skip
    assert not torch.allclose(answer(pipe), answer(model), atol=1e-2)
    assert torch.allclose(answer(load_lora(model, tmp_path / "lora")), answer(pipe), atol=1e-4)


def test_half_a_lora_is_not_in_the_way_of_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = personalize(tiny_model(tmp_path), SUBJECT, "lora", {**QUICK["lora"], "steps": 1})

    def half(tensors: Any, file: str, *args: Any, **kwargs: Any) -> None:
        Path(file).write_bytes(b"half")
        raise SafetensorError("No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_file", half)
        with pytest.raises(UnlikenessError, match="No space left"):
            save_lora(tuned, tmp_path / "lora")
    assert not list((tmp_path / "lora").iterdir())
    assert save_lora(tuned, tmp_path / "lora").is_file()


@pytest.mark.parametrize("name", QUICK)
def test_a_wrong_checkpoint_is_told_before_class_pictures_are_drawn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tmp_path)
    personalize(model, SUBJECT, name, {**QUICK[name], "steps": 2}, checkpoint=tmp_path / "state")
    monkeypatch.setattr(TextToImage, "generate", lambda *_, **__: pytest.fail("pictures were drawn"))
    for wrong, said in (({"seed": 1}, "another run"), ({"steps": 1}, "has 2 steps already")):
        with pytest.raises(UsageError, match=said):
            personalize(model, SUBJECT, name, {**QUICK[name], **wrong}, checkpoint=tmp_path / "state")


def test_class_pictures_of_ones_own_count_though_none_are_to_be_drawn(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    quick = {**QUICK["dreambooth"], "steps": 2}
    prior = class_prior(model, SUBJECT.class_prompt, create("dreambooth", quick).settings)
    own = personalize(model, SUBJECT, "dreambooth", {**quick, "class_images": 0}, prior=prior)
    assert torch.equal(answer(own), answer(personalize(model, SUBJECT, "dreambooth", quick)))
    without = personalize(model, SUBJECT, "dreambooth", {**quick, "class_images": 0})
    assert not torch.equal(answer(own), answer(without))
