"""Latent consistency models against plain diffusers, on small random models in the real layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.tiny import PIXELS, write_tiny
from tests.tiny_xl import write_tiny_xl

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.immunize.release import as_stored
from unlikeness.personalize.data import class_prior
from unlikeness.personalize.settings import PersonalizeSettings

KINDS = {
    "distilled": ("LatentConsistencyModelPipeline", 16, 8.0),
    "distilled xl": ("StableDiffusionXLPipeline", 16, 8.0),
    "with a LoRA": ("StableDiffusionPipeline", None, 1.0),
}
"""Kind -> its pipeline, the width of its embedded guidance, and the guidance that it draws with."""


def write_lcm(folder: Path, kind: str) -> Path:
    """A tiny model whose U-Net embeds guidance, or not, with the scheduler of the method."""
    pipeline, width, _ = KINDS[kind]
    write_tiny_xl(folder) if "XL" in pipeline else write_tiny(folder)
    if width is not None:
        old = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
        torch.manual_seed(1)
        unet = diffusers.UNet2DConditionModel.from_config({**old.config, "time_cond_proj_dim": width})
        unet.load_state_dict(old.state_dict(), strict=False)
        torch.nn.init.normal_(unet.time_embedding.cond_proj.weight)
        unet.save_pretrained(folder / "unet")
    diffusers.LCMScheduler().save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": pipeline, "scheduler": ["diffusers", "LCMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def plain(folder: Path, guidance: float, seed: int) -> torch.Tensor:
    """What the model's own pipeline draws in four steps."""
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    drawn: torch.Tensor = pipe(
        "a photo of a dog", height=PIXELS, width=PIXELS, num_inference_steps=4, guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed), output_type="pt",
    ).images  # fmt: skip
    return drawn


@pytest.mark.parametrize("kind", KINDS)
def test_draws_bit_for_bit_what_its_pipeline_draws(kind: str, tmp_path: Path) -> None:
    folder, guidance = write_lcm(tmp_path / "model", kind), KINDS[kind][2]
    model = TextToImage.from_pretrained(folder, device="cpu")
    defaults = model.defaults
    assert (defaults.guidance, defaults.steps, defaults.sampler) == (guidance, 4, "lcm")
    drawn = model.generate(["a photo of a dog"], seeds=[3])
    assert torch.equal(drawn, plain(folder, guidance, 3))
    both = model.generate(["a photo of a dog"], seeds=[4, 3])
    assert torch.allclose(both, torch.cat([plain(folder, guidance, 4), drawn]), atol=1e-4)
    copy = model.save_pretrained(tmp_path / "copy")
    assert not (copy / "unlikeness.json").exists()
    assert torch.equal(plain(copy, guidance, 3), drawn)
    if guidance > 1:
        low = model.generate(["a photo of a dog"], seeds=[3], guidance=2.0)
        assert not torch.allclose(low, drawn, atol=1e-4)
        with pytest.raises(UsageError, match="embeds guidance"):
            model.generate(["dog"], seeds=[0], negative_prompt="cat")


def test_class_pictures_are_drawn_as_it_was_distilled_for(tmp_path: Path) -> None:
    model = TextToImage.from_pretrained(write_lcm(tmp_path / "model", "distilled"), device="cpu")
    settings = PersonalizeSettings(class_images=2, class_seed=5)
    expected = model.encode_all((model.generate(["a dog"], seeds=[5, 6]) * 255).round() / 255)
    assert torch.equal(class_prior(model, "a dog", settings).mean, expected.mean)
    assert as_stored(model).defaults == model.defaults


def test_a_name_tells_and_other_models_may_draw_so(tmp_path: Path) -> None:
    named = TextToImage.from_pretrained(write_tiny(tmp_path / "someone-LCM-v2"), device="cpu")
    assert (named.defaults.sampler, named.defaults.guidance) == ("lcm", 1.0)
    usual = TextToImage.from_pretrained(write_tiny(tmp_path / "elcm"), device="cpu")
    assert usual.defaults.sampler == "dpm++"
    one, same = (usual.generate(["dog"], seeds=[1], steps=2, sampler="lcm") for _ in range(2))
    assert torch.equal(one, same)
    with pytest.raises(UsageError, match=r"steps \(51\) are too many for sampler lcm; 4 are usual"):
        usual.generate(["dog"], seeds=[1], steps=51, sampler="lcm")
    state = torch.get_rng_state()
    TextToImage.from_pretrained(tmp_path / "elcm", device="cpu")  # it tries a sampler that draws noise
    assert torch.equal(torch.get_rng_state(), state)
