"""FLUX.1, Stable Diffusion 3 / 3.5 and Z-Image against plain diffusers, on small random models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.tiny import PIXELS, pictures
from tests.tiny_flow import QWEN_TOKENS, T5_TOKENS, write_flux, write_sd3, write_z_image

from benchmarks import parity
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.lora import load_lora
from unlikeness.diffusion.lora_writing import save_lora
from unlikeness.diffusion.loss import diffusion_loss, draw
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.personalize import personalize
from unlikeness.subjects import Subject

PROMPTS = ["a photo of a dog", "dog"]


@dataclass(frozen=True)
class Kind:
    """How a model is written, and how its plain pipeline is called."""

    write: Callable[..., Path]
    options: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    guidance: float = 3.5
    steps: int = 28


KINDS = {
    "flux-dev": Kind(write_flux, call={"max_sequence_length": T5_TOKENS}),
    "flux-schnell": Kind(
        write_flux, {"guidance": False}, {"max_sequence_length": T5_TOKENS}, guidance=0.0, steps=4
    ),
    "sd3.5": Kind(write_sd3, call={"max_sequence_length": T5_TOKENS}, guidance=4.5, steps=40),
    "sd3-without-t5": Kind(write_sd3, {"t5": False, "newer": False}, guidance=7.0),
    "sd3.5-turbo": Kind(write_sd3, call={"max_sequence_length": T5_TOKENS}, guidance=0.0, steps=4),
    "z-image": Kind(write_z_image, call={"max_sequence_length": QWEN_TOKENS}, guidance=4.0, steps=50),
    "z-image-turbo": Kind(write_z_image, call={"max_sequence_length": QWEN_TOKENS}, guidance=0.0, steps=8),
}

EVERY = pytest.mark.parametrize("name", KINDS)
TRAINED = pytest.mark.parametrize("name", ["flux-dev", "flux-schnell", "sd3.5", "sd3-without-t5", "z-image"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("flow")
    return {name: kind.write(base / name, **kind.options) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, TextToImage]:
    return {name: TextToImage.from_pretrained(folder, device="cpu") for name, folder in folders.items()}


def pipeline(folder: Path) -> Any:
    bare = json.loads((folder / "model_index.json").read_text()).get("text_encoder_3") == [None, None]
    without: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None} if bare else {}
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, **without)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def plain(pipe: Any, kind: Kind) -> torch.Tensor:
    """The picture that the pipeline itself draws."""
    drawn: torch.Tensor = pipe(
        PROMPTS[0], height=PIXELS, width=PIXELS, num_inference_steps=3, guidance_scale=kind.guidance,
        generator=torch.Generator().manual_seed(3), output_type="pt", **kind.call,
    ).images  # fmt: skip
    return drawn


def ours(model: TextToImage) -> torch.Tensor:
    """The same picture."""
    return model.generate(PROMPTS[:1], seeds=[3], steps=3)


@EVERY
def test_draws_bit_for_bit_what_plain_diffusers_draws(
    name: str, folders: dict[str, Path], models: dict[str, TextToImage]
) -> None:
    drawn = ours(models[name])
    assert drawn.shape == (1, 3, PIXELS, PIXELS)
    assert drawn.std() > 0.01
    assert torch.equal(drawn, plain(pipeline(folders[name]), KINDS[name]))
    both = models[name].generate(PROMPTS, seeds=[3, 3], steps=3)
    assert torch.allclose(both[:1], drawn, atol=1e-4)
    assert (both[0] - both[1]).abs().mean() > 0.01


@EVERY
def test_a_kind_has_the_guidance_and_steps_it_was_made_for(name: str, models: dict[str, TextToImage]) -> None:
    defaults, kind = models[name].defaults, KINDS[name]
    assert (defaults.guidance, defaults.steps, defaults.sampler) == (kind.guidance, kind.steps, "euler")


def test_dev_is_told_its_guidance_and_schnell_is_not(models: dict[str, TextToImage]) -> None:
    dev, schnell = models["flux-dev"], models["flux-schnell"]
    low, high = (dev.generate(["dog"], seeds=[0], steps=2, guidance=g) for g in (1.0, 8.0))
    assert not torch.equal(low, high)
    none, off = (schnell.generate(["dog"], seeds=[0], steps=2, guidance=g) for g in (0.0, 1.0))
    assert torch.equal(none, off)
    with pytest.raises(UsageError, match="negative prompt"):
        dev.generate(["dog"], seeds=[0], steps=2, negative_prompt="cat")


@TRAINED
@torch.no_grad()
def test_the_loss_is_that_of_diffusers_example_script(
    name: str, folders: dict[str, Path], models: dict[str, TextToImage]
) -> None:
    model = models[name]
    z0 = model.encode_all(pictures(3)).mean
    noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([979, 499, 0])
    loss = diffusion_loss(model, z0, model.condition([parity.PROMPT]), t=t, eps=noise)
    example = parity.LOSSES[model.family.pipeline](pipeline(folders[name]), z0, t, noise)
    assert abs(float(loss - example)) < 1e-6


@TRAINED
def test_levels_are_drawn_as_by_diffusers_example_script(name: str, models: dict[str, TextToImage]) -> None:
    from diffusers.training_utils import compute_density_for_timestep_sampling

    scheme = "logit_normal" if name.startswith("sd3") else "none"
    u = compute_density_for_timestep_sampling(
        scheme, 20_000, 0.0, 1.0, 1.29, generator=torch.Generator().manual_seed(0)
    )
    model = models[name]
    z0 = torch.zeros(20_000, 1, 1, 1)
    t, _ = draw(model, z0, torch.Generator().manual_seed(1))
    for share in (0.1, 0.5, 0.9):
        assert abs(float(u.quantile(share)) - float((t / 1000).quantile(share))) < 0.02


QUICK = {"steps": 2, "class_images": 2, "class_steps": 1, "learning_rate": 1e-2}


@TRAINED
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_lora_is_trained_and_drawn_with_by_plain_diffusers(
    checkpointing: bool, name: str, folders: dict[str, Path], models: dict[str, TextToImage], tmp_path: Path
) -> None:
    model = models[name]
    settings = {**QUICK, "rank": 2, "checkpointing": checkpointing}
    tuned = personalize(model, Subject(pictures(2), "dog"), "lora", settings)
    save_lora(tuned, tmp_path / "lora")
    drawn = ours(tuned)
    assert (drawn - ours(model)).abs().mean() > 1e-3
    pipe = pipeline(folders[name])
    pipe.load_lora_weights(tmp_path / "lora")
    assert torch.allclose(plain(pipe, KINDS[name]), drawn, atol=1e-5)
    assert torch.allclose(ours(load_lora(model, tmp_path / "lora")), drawn, atol=1e-5)


@pytest.mark.parametrize("name", ["flux-dev", "sd3.5", "z-image"])
def test_a_fully_tuned_model_opens_in_the_plain_pipeline(
    name: str, folders: dict[str, Path], models: dict[str, TextToImage], tmp_path: Path
) -> None:
    settings = {**QUICK, "learning_rate": 1e-3}
    tuned = personalize(models[name], Subject(pictures(2), "dog"), "dreambooth", settings)
    out = tuned.save_pretrained(tmp_path / "out")
    opened = ours(TextToImage.from_pretrained(out, device="cpu"))
    assert torch.equal(plain(pipeline(out), KINDS[name]), opened)
    assert torch.allclose(opened, ours(tuned), atol=1e-5)
    assert not torch.allclose(opened, ours(models[name]), atol=1e-3)
    encoder = tuned.family.encoders[-1]  # transformers 4 names the weights of a first CLIP otherwise
    for part in ("vae", "text_encoder_2" if encoder != "text_encoder" else encoder):
        [before], [after] = ((one / part).glob("*.safetensors") for one in (folders[name], out))
        assert before.read_bytes() == after.read_bytes()


@TRAINED
def test_the_targets_of_a_lora_are_all_there(name: str, models: dict[str, TextToImage]) -> None:
    names = [module for module, _ in models[name].denoiser.named_modules()]
    for target in models[name].family.lora_targets:
        assert any(f".{module}".endswith(f".{target}") for module in names), target


@EVERY
def test_a_saved_copy_draws_the_same_and_has_the_same_weights(
    name: str, models: dict[str, TextToImage], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    model, kind = models[name], KINDS[name]
    out = model.save_pretrained(tmp_path / name)
    assert torch.equal(plain(pipeline(out), kind), ours(model))
    again = TextToImage.from_pretrained(out, device="cpu")
    assert again.defaults == model.defaults
    assert torch.equal(ours(again), ours(model))
    assert model.source is not None
    for part in model.family.networks:
        [before] = (model.source / part).glob("*.safetensors")
        [after] = (out / part).glob("*.safetensors")
        one, other = load_file(before), load_file(after)
        named = {key.removeprefix("text_model."): value for key, value in other.items()}
        for key, value in one.items():
            assert torch.equal(value, named[key.removeprefix("text_model.")])


def test_a_prompts_meaning_reaches_each_text_encoder(models: dict[str, TextToImage]) -> None:
    c = models["sd3.5"].condition(PROMPTS)
    assert c.tokens.shape == (2, 16 + T5_TOKENS, 40)
    assert not torch.equal(c.tokens[0, :16], c.tokens[1, :16])
    assert not torch.equal(c.tokens[0, 16:], c.tokens[1, 16:])
    bare = models["sd3-without-t5"].condition(PROMPTS)
    assert bare.tokens.shape == (2, 16 + 256, 40)
    assert not bare.tokens[:, 16:].any()
    assert c.pooled is not None
    assert c.pooled.shape == (2, 20)


def changed(folder: Path, tmp_path: Path, file: str, **values: Any) -> Path:
    """A copy of the model with other values in one of its JSON files."""
    out = Path(shutil.copytree(folder, tmp_path / "changed"))
    content = json.loads((out / file).read_text()) | values
    (out / file).write_text(json.dumps(content))
    return out


@pytest.mark.parametrize(
    ("name", "file", "values", "error", "said"),
    [
        ("flux-dev", "transformer/config.json", {"num_layers": 10**6}, UnlikenessError, "num_layers = 10{6}"),
        ("flux-dev", "transformer/config.json", {"axes_dims_rope": [4, 4, 4]}, UnlikenessError, "add up"),
        ("flux-dev", "transformer/config.json", {"in_channels": 96}, UsageError, "FLUX Fill"),
        ("flux-dev", "model_index.json", {"_class_name": "FluxFillPipeline"}, UsageError, "FluxFillPipeline"),
        ("flux-dev", "text_encoder_2/config.json", {"d_model": 10**6}, UnlikenessError, "d_model = 1000000"),
        ("flux-dev", "text_encoder_2/config.json", {"vocab_size": 10}, UnlikenessError, "those below 10"),
        ("flux-dev", "scheduler/scheduler_config.json", {"shift": 0}, UnlikenessError, "shift = 0"),
        ("sd3.5", "transformer/config.json", {"sample_size": 64}, UnlikenessError, "pos_embed_max_size"),
        ("sd3.5", "transformer/config.json", {"in_channels": 9}, UsageError, "inpainting"),
        ("sd3.5", "model_index.json", {"tokenizer_3": [None, None]}, UnlikenessError, "only one of"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_refused_in_one_sentence(
    name: str, file: str, values: dict[str, Any], error: type[Exception], said: str,
    folders: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(error, match=said):
        TextToImage.from_pretrained(changed(folders[name], tmp_path, file, **values), device="cpu")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"type": "BPE", "vocab": {}, "merges": []}, "Unigram"),
        ({"type": "Unigram", "vocab": [["a", "b"]]}, "pair of a short text"),
        ({"type": "Unigram", "vocab": []}, "Unigram"),
        ({"type": "Unigram", "vocab": [["a" * 201, -1.0]]}, "short text"),
    ],
)
def test_a_damaged_t5_tokenizer_is_refused(
    model: dict[str, Any], said: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    out = changed(folders["flux-dev"], tmp_path, "tokenizer_2/tokenizer.json", model=model)
    with pytest.raises(UnlikenessError, match=said):
        TextToImage.from_pretrained(out, device="cpu")


def test_a_t5_tokenizer_on_which_its_library_panics_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    normalizer = {"type": "Precompiled", "precompiled_charsmap": "!!"}
    out = changed(folders["flux-dev"], tmp_path, "tokenizer_2/tokenizer.json", normalizer=normalizer)
    with pytest.raises(UnlikenessError, match=r"tokenizer of model .* cannot be used"):
        TextToImage.from_pretrained(out, device="cpu")


def test_a_t5_tokenizer_without_its_file_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(folders["flux-dev"], tmp_path / "changed"))
    (out / "tokenizer_2" / "tokenizer.json").unlink()
    with pytest.raises(UnlikenessError, match=r"has no tokenizer\.json"):
        TextToImage.from_pretrained(out, device="cpu")
