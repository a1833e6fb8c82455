"""Drawing pictures: the same as plain diffusers, and each picture from its own seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from tests.tiny import tiny_model, write_tiny

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.sampling import SAMPLERS, drawn, generators, initial_noise
from unlikeness.errors import UsageError


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("vae", ["kl", "tiny"])
def test_draws_what_plain_diffusers_draws(
    sampler: str, prediction_type: str, vae: str, tmp_path: Path
) -> None:
    folder = write_tiny(tmp_path / "model", prediction_type=prediction_type, vae=vae, scheduler="ddpm")
    model = TextToImage.from_pretrained(folder, device="cpu")
    ours = model.generate(
        ["a photo of a dog", "a cat"],
        seeds=[3, 4],
        steps=5,
        guidance=4.0,
        sampler=sampler,
        negative_prompt="x",
    )
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    solver = DDIMScheduler if sampler == "ddim" else DPMSolverMultistepScheduler
    pipe.scheduler = solver.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        ["a photo of a dog", "a cat"],
        negative_prompt=["x", "x"],
        latents=initial_noise(model.latent_shape, generators([3, 4])),
        num_inference_steps=5,
        guidance_scale=4.0,
        output_type="pt",
    ).images
    assert ours.shape == (2, 3, 32, 32)
    assert ours.std() > 0.01
    assert torch.allclose(ours, theirs, atol=1e-3)


def test_a_picture_depends_on_its_own_seed_only(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    together = model.generate(["a dog"], seeds=[5, 6, 7], steps=3, batch_size=3)
    apart = model.generate(["a dog"], seeds=[7, 5], steps=3, batch_size=1)
    assert torch.allclose(together[[2, 0]], apart, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)
    assert together.dtype == torch.float32
    assert 0 <= together.min() <= together.max() <= 1


def test_each_picture_may_be_led_away_from_other_words(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    away = ["a cat", "", "a house"]
    together = model.generate(
        ["a dog"], seeds=[5, 6, 7], steps=3, guidance=4.0, negative_prompt=away, batch_size=2
    )
    for i, words in enumerate(away):
        alone = model.generate(["a dog"], seeds=[5 + i], steps=3, guidance=4.0, negative_prompt=words)
        assert torch.allclose(together[i], alone[0], atol=1e-4)
    plain = model.generate(["a dog"], seeds=[5], steps=3, guidance=4.0)
    assert not torch.allclose(together[0], plain[0], atol=1e-3)


def test_guidance_of_one_needs_no_second_half(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    sizes = []
    model.denoiser.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    model.generate(["a dog"], seeds=[0, 1], steps=2, guidance=1.0)
    assert sizes == [2, 2]
    model.generate(["a dog"], seeds=[0, 1], steps=2, guidance=2.0)
    assert sizes[2:] == [4, 4]


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    with pytest.raises(UsageError, match="2 prompts for 3 seeds"):
        model.generate(["a", "b"], seeds=[1, 2, 3])
    with pytest.raises(UsageError, match="2 negative prompts for 3 seeds"):
        model.generate(["a"], seeds=[1, 2, 3], negative_prompt=["b", "c"])
    with pytest.raises(UsageError, match="steps"):
        model.generate(["a"], seeds=[1], steps=0)
    with pytest.raises(UsageError, match="sampler 'heun'"):
        model.generate(["a"], seeds=[1], sampler="heun")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_saved_copy_draws_what_its_model_draws(sampler: str, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    # As Stable Diffusion 1.5's own file: without timestep_spacing, which schedulers take differently.
    file = folder / "scheduler" / "scheduler_config.json"
    kept = {k: v for k, v in json.loads(file.read_text()).items() if k != "timestep_spacing"}
    file.write_text(json.dumps(kept))
    model = TextToImage.from_pretrained(folder, device="cpu")
    copy = TextToImage.from_pretrained(model.save_pretrained(tmp_path / "copy"), device="cpu")
    drawn = [one.generate(["a dog"], seeds=[1], steps=5, sampler=sampler) for one in (model, copy)]
    assert torch.equal(*drawn)


def test_more_steps_than_noise_levels_are_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    for sampler in SAMPLERS:
        for steps in (600, 1500):  # of 1,000 levels 600 would leave out the highest 400
            known = "sampler lcm" if (sampler, steps) == ("lcm", 600) else "1000 noise levels"
            with pytest.raises(UsageError, match=rf"steps \({steps}\) are too many for {known}"):
                model.generate(["a dog"], seeds=[0], steps=steps, sampler=sampler)
    with pytest.raises(UsageError, match="guidance must be a finite number, not nan"):
        model.generate(["a dog"], seeds=[0], steps=2, guidance=float("nan"))


def test_batches_come_one_by_one_and_are_checked_before_the_first(tmp_path: Path) -> None:
    model = TextToImage.from_pretrained(write_tiny(tmp_path / "model"))
    with pytest.raises(UsageError, match="batch_size"):
        drawn(model, ["a dog"], seeds=[0], batch_size=0)
    batches = list(drawn(model, ["a dog"], seeds=range(5), steps=2, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    whole = model.generate(["a dog"], seeds=range(5), steps=2, batch_size=2)
    assert torch.equal(torch.cat(batches), whole)
    assert not any(batch.requires_grad for batch in batches)
