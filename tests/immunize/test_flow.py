"""Protection and immunization of a flow-matching model, and an attack on the result by diffusers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional as F
from tests.immunize.test_plain_diffusers import immunized
from tests.protect.test_walk import quick
from tests.tiny import PIXELS, pictures
from tests.tiny_flow import T5_TOKENS, write_flux, write_sd3, write_z_image
from tests.verify.conftest import QUICK as SETTINGS
from tests.verify.conftest import colours, tinted
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.immunize import immunize, names
from unlikeness.protect import create
from unlikeness.protect import names as protections
from unlikeness.subjects import Subject
from unlikeness.verify import VerifySettings, named, verify_subject

WRITERS = pytest.mark.parametrize("write", [write_flux, write_sd3, write_z_image])

QUICK = (
    "--outer-steps", "2", "--inner-steps", "2", "--learning-rate", "1e-4", "--set", "class_images=3",
    "--set", "class_steps=2", "--set", "contexts=a photo of {} a",
)  # fmt: skip
FEW: dict[str, Any] = {"outer_steps": 2, "inner_steps": 1, "class_images": 3, "class_steps": 1}
FURTHER: dict[str, dict[str, Any]] = {
    "divert": {"contexts": "{} x", "guidance": 2.0, "attack_depth": 2},
    "notice": {"contexts": "{} x", "target_noun": "cat", "output_pictures": 1, "attack_depth": 0},
    "persguard": {"contexts": "{} x", "output_pictures": 1, "inner_steps": 0},
    "combined": {"contexts": "{} x", "output_pictures": 1, "attack_ranks": "2", "attack_low_rank": 0.5},
    "apdm": {"attack_text_encoder": 0.5, "checkpointing": True},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Callable[..., Path], TextToImage]:
    folder = tmp_path_factory.mktemp("flow")
    return {
        write: TextToImage.from_pretrained(write(folder / write.__name__), device="cpu")
        for write in (write_flux, write_sd3, write_z_image)
    }


@WRITERS
def test_a_picture_is_protected_against_it(
    write: Callable[..., Path], models: dict[Callable[..., Path], TextToImage]
) -> None:
    images = pictures(2)
    for method in set(protections()) - {"rid", "noise"}:
        made = create(method, models[write], quick(method, steps=1))
        moved = (made.perturb(images, [0, 1]) - images).abs()
        assert 0 < float(moved.max()) <= made.settings.budget / 255 + 1e-6, method


@WRITERS
@pytest.mark.parametrize("method", names())
def test_every_method_changes_the_transformer_alone(
    write: Callable[..., Path], method: str, models: dict[Callable[..., Path], TextToImage]
) -> None:
    model = models[write]
    before = [{name: p.clone() for name, p in one.named_parameters()} for one in model.networks]
    released = immunize(model, [Subject(pictures(2), "dog")], method, {**FEW, **FURTHER.get(method, {})})
    for part, was, kept, now in zip(
        model.family.networks, before, model.networks, released.networks, strict=True
    ):
        own, after = dict(kept.named_parameters()), dict(now.named_parameters())
        assert all(torch.equal(own[name], p) for name, p in was.items())
        assert all(torch.equal(after[name], p) for name, p in was.items()) == (part != "transformer")
        assert all(p.isfinite().all() for p in after.values())


@WRITERS
def test_a_model_is_verified(write: Callable[..., Path], tmp_path: Path) -> None:
    model = TextToImage.from_pretrained(write(tmp_path / "model"), device="cpu")
    subject = Subject(tinted(2, (0.9, 0.1, 0.1)), "dog")
    found = verify_subject(
        model, subject, tinted(3, (0.9, 0.1, 0.1), seed=1), embedder=colours, base=VerifySettings(**SETTINGS),
        attackers=named(["paper", "lora-4"]), contexts=(), of_class=tinted(4, (0.1, 0.1, 0.9), seed=2),
    )  # fmt: skip
    assert [one.attacker.name for one in found.outcomes] == ["paper", "lora-4"]
    assert all(one.generated.plain.float().std() > 0 for one in found.outcomes)


class FluxLora:
    """A LoRA trained on a plain pipeline, as in diffusers' example script."""

    def __init__(self, pipe: Any, images: Tensor, prompt: str) -> None:
        from peft import LoraConfig

        self.pipe = pipe
        pipe.transformer.requires_grad_(False)
        targets = ["attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "ff.net.0.proj", "ff.net.2"]
        pipe.transformer.add_adapter(
            LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=targets)
        )
        self.noising = diffusers.FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
        with torch.no_grad():
            config = pipe.vae.config
            encoded = pipe.vae.encode(2 * images - 1).latent_dist.mean
            self.z0 = (encoded - config.shift_factor) * config.scaling_factor
            self.words = pipe.encode_prompt(prompt, None, max_sequence_length=T5_TOKENS)
        self.optimizer = torch.optim.AdamW(
            [p for p in pipe.transformer.parameters() if p.requires_grad], lr=1e-2
        )

    def loss(self, generator: torch.Generator, batch: int) -> Tensor:
        z0 = self.z0[torch.randint(len(self.z0), (batch,), generator=generator)]
        noise = torch.randn(z0.shape, generator=generator)
        index = (torch.rand(batch, generator=generator) * 1000).long()
        sigmas = self.noising.sigmas[index].view(-1, 1, 1, 1)
        _, c, h, w = z0.shape
        noisy = self.pipe._pack_latents((1 - sigmas) * z0 + sigmas * noise, batch, c, h, w)
        embeds, pooled, text_ids = self.words
        f = self.pipe.transformer(
            hidden_states=noisy, timestep=self.noising.timesteps[index] / 1000,
            guidance=torch.full([batch], 3.5), pooled_projections=pooled.expand(batch, -1),
            encoder_hidden_states=embeds.expand(batch, -1, -1), txt_ids=text_ids,
            img_ids=self.pipe._prepare_latent_image_ids(batch, h // 2, w // 2, "cpu", torch.float32),
            return_dict=False,
        )[0]  # fmt: skip
        return F.mse_loss(f, self.pipe._pack_latents(noise - z0, batch, c, h, w))

    def measured(self) -> float:
        with torch.no_grad():
            return float(self.loss(torch.Generator().manual_seed(99), 32))

    def train(self, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            self.loss(generator, 4).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()


def test_an_immunized_flux_is_attacked_with_diffusers_alone(tmp_path: Path) -> None:
    images = pictures(3)
    out = immunized(str(write_flux(tmp_path / "model")), images, tmp_path, *QUICK)
    pipe = diffusers.FluxPipeline.from_pretrained(out)
    pipe.set_progress_bar_config(disable=True)

    def draw() -> Tensor:
        drawn: Tensor = pipe(
            "a photo of sks dog", height=PIXELS, width=PIXELS, num_inference_steps=4, guidance_scale=3.5,
            generator=torch.Generator().manual_seed(5), max_sequence_length=T5_TOKENS, output_type="pt",
        ).images  # fmt: skip
        return drawn

    first = draw()
    attack = FluxLora(pipe, images, "a photo of sks dog")
    before = attack.measured()
    attack.train(30)
    assert attack.measured() < 0.9 * before
    then = draw()
    assert then.isfinite().all()
    assert (then - first).abs().mean() > 0.005
