"""Stable Diffusion XL protected, immunized and verified, and attacked by plain diffusers alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from tests.immunize.test_plain_diffusers import immunized
from tests.protect.test_walk import quick
from tests.tiny import PIXELS, pictures
from tests.tiny_xl import write_tiny_xl
from tests.verify.conftest import QUICK, colours, tinted
from torch import Tensor

from unlikeness import protect
from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.gallery import to_pil
from unlikeness.immunize import cost, immunize, names
from unlikeness.subjects import Subject
from unlikeness.verify import VerifySettings, named, verify_subject

PROMPT = "a photo of sks dog"
UNTOUCHED = ("vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_xl(tmp_path_factory.mktemp("models") / "xl")


@pytest.fixture(scope="module")
def model(folder: Path) -> TextToImage:
    return TextToImage.from_pretrained(folder, device="cpu")


def test_a_picture_is_protected_against_it(model: TextToImage) -> None:
    images = pictures(2)
    for method in set(protect.names()) - {"rid", "noise"}:
        made = protect.create(method, model, quick(method, steps=1))
        moved = (made.perturb(images, [0, 1]) - images).abs()
        assert 0 < float(moved.max()) <= made.settings.budget / 255 + 1e-6, method


FEW: dict[str, Any] = {
    "outer_steps": 1, "inner_steps": 1, "class_images": 3, "class_steps": 1, "batch_size": 2,
}  # fmt: skip
FURTHER: dict[str, dict[str, Any]] = {
    "divert": {"contexts": "{} x", "guidance": 2.0, "class_weight": 1.0},
    "notice": {"contexts": "{} x", "target_noun": "cat", "output_pictures": 1, "inner_steps": 2},
    "persguard": {"contexts": "{} x", "pictures": 1, "inner_steps": 0},
    "combined": {"contexts": "{} x", "output_pictures": 1},
    "apdm": {"preserve_weight": 1.0, "preserve_empty": 0.5, "attack_text_encoder": 0.5},
}


@pytest.mark.parametrize("method", names())
def test_every_method_changes_the_unet_alone(method: str, model: TextToImage) -> None:
    settings = {**FEW, **FURTHER.get(method, {})}
    released = immunize(model, [Subject(pictures(2), "dog")], method, settings, prompts=["a cup"])
    for name in model.family.networks:
        before, after = (one.parts[name].state_dict() for one in (model, released))
        same = all(torch.equal(before[key], after[key]) for key in before)
        assert same == (name in UNTOUCHED)


class Lora:
    """A LoRA trained on a plain pipeline, as in diffusers' train_dreambooth_lora_sdxl.py."""

    def __init__(self, pipe: Any, images: Tensor) -> None:
        from peft import LoraConfig

        self.pipe = pipe
        pipe.unet.requires_grad_(False)
        targets = ["to_k", "to_q", "to_v", "to_out.0"]
        pipe.unet.add_adapter(
            LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=targets)
        )
        self.noising = DDPMScheduler.from_config(pipe.scheduler.config)
        with torch.no_grad():
            self.z0 = pipe.vae.encode(2 * images - 1).latent_dist.mean * pipe.vae.config.scaling_factor
            self.words, _, self.pooled, _ = pipe.encode_prompt(PROMPT, do_classifier_free_guidance=False)
        self.ids = torch.tensor([[PIXELS, PIXELS, 0, 0, PIXELS, PIXELS]], dtype=torch.float32)
        self.optimizer = torch.optim.AdamW([p for p in pipe.unet.parameters() if p.requires_grad], lr=3e-2)

    def loss(self, generator: torch.Generator, batch: int) -> Tensor:
        z0 = self.z0[torch.randint(len(self.z0), (batch,), generator=generator)]
        noise = torch.randn(z0.shape, generator=generator)
        t = torch.randint(1000, (batch,), generator=generator)
        f = self.pipe.unet(
            self.noising.add_noise(z0, noise, t), t, self.words.repeat(batch, 1, 1),
            added_cond_kwargs={
                "time_ids": self.ids.repeat(batch, 1), "text_embeds": self.pooled.repeat(batch, 1)
            },
        ).sample  # fmt: skip
        return F.mse_loss(f, noise)

    def measured(self) -> float:
        with torch.no_grad():
            return float(self.loss(torch.Generator().manual_seed(99), 64))

    def train(self, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            self.loss(generator, 4).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()


def test_an_immunized_model_is_attacked_with_diffusers_alone(folder: Path, tmp_path: Path) -> None:
    images = pictures(3)
    out = immunized(
        str(folder), images, tmp_path, "--outer-steps", "2", "--inner-steps", "1", "--learning-rate", "1e-4",
        "--set", "class_images=3", "--set", "class_steps=1", "--set", "contexts=a photo of {} a",
    )  # fmt: skip
    pipes = [StableDiffusionXLPipeline.from_pretrained(one, add_watermarker=False) for one in (folder, out)]
    for name in UNTOUCHED:
        before, after = (getattr(pipe, name).state_dict() for pipe in pipes)
        assert all(torch.equal(before[key], after[key]) for key in before)
    for name in ("vae", "text_encoder_2"):
        before, after = (next((one / name).glob("*.safetensors")).read_bytes() for one in (folder, out))
        assert before == after
    pipe = pipes[1]
    pipe.set_progress_bar_config(disable=True)

    def draw() -> Tensor:
        drawn: Tensor = pipe(
            PROMPT, num_inference_steps=4, generator=torch.Generator().manual_seed(5), output_type="pt"
        ).images
        return drawn

    first = draw()
    attack = Lora(pipe, images)
    before = attack.measured()
    attack.train(40)
    assert attack.measured() < 0.9 * before
    then = draw()
    assert then.isfinite().all()
    assert (then - first).abs().mean() > 0.005


def test_a_dry_run_says_the_memory_before_weights_are_loaded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, bare = tmp_path / "photos", shutil.copytree(folder, tmp_path / "bare")
    photos.mkdir()
    to_pil(pictures(1)[0]).save(photos / "0.png")
    next((bare / "unet").glob("*.safetensors")).unlink()
    words = ["immunize", "--model", str(bare), "--images", str(photos), "--class-noun", "dog", "--dry-run"]
    words += ["--output", str(tmp_path / "out"), "--device", "cpu", "--set", "contexts={} x"]
    assert main(words) == 2
    held, took, _, refused = capsys.readouterr().err.strip().splitlines()[-4:]
    assert re.search(r"by its configuration: a run holds \d+\.\d MiB$", held)
    assert re.match(r"time, roughly: \d+ (s|min|h)", took)
    assert "has no weights in unet/" in refused
    monkeypatch.setattr(cost, "_memory_of", lambda _: 1000)
    assert main(words) == 1
    refused = capsys.readouterr().err.strip().splitlines()[-1]
    assert "and this machine has" in refused


def test_it_is_verified(model: TextToImage) -> None:
    red, blue = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)
    settings = VerifySettings(**{**QUICK, "steps": 1, "class_steps": 1, "solver_steps": 1})
    found = verify_subject(
        model, Subject(tinted(2, red), "dog"), tinted(3, red, seed=1), embedder=colours,
        of_class=torch.cat([tinted(2, blue, seed=2), tinted(2, (0.1, 0.9, 0.1), seed=3)]),
        attackers=named(["paper", "lora-4"]), base=settings, contexts=("at 7",),
    )  # fmt: skip
    assert [one.attacker.name for one in found.outcomes] == ["paper", "lora-4"]
    assert -1 <= found.worst.s.value <= 1
