"""Conditions are handled as a whole, and what is kept of them never goes stale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import encoder_of, pictures, tiny_model
from torch import Tensor

from unlikeness import protect
from unlikeness.diffusion import Condition, TextToImage, diffusion_loss
from unlikeness.diffusion.families import Defaults
from unlikeness.diffusion.families.stable_diffusion import ClipConditioner, StableDiffusion
from unlikeness.immunize import immunize
from unlikeness.personalize import personalize
from unlikeness.subjects import Subject


@dataclass(frozen=True, eq=False)
class Sized(Condition):
    """A family's own condition, with a field more."""

    sizes: Tensor | None = None


def sized(count: int) -> Sized:
    rows = torch.arange(count)[:, None]
    return Sized(rows[:, :, None].expand(count, 2, 3).float(), rows.float(), sizes=rows)


def rows_of(condition: Condition) -> list[list[float]]:
    return [tensor.flatten(1)[:, 0].tolist() for tensor in condition.tensors()]


def test_every_field_is_indexed_expanded_and_concatenated() -> None:
    c = sized(4)
    assert len(c) == 4
    for index, wanted in (
        (slice(1, 3), [1, 2]),
        ([3, 0, 0], [3, 0, 0]),
        (torch.tensor([2, 2]), [2, 2]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        (slice(0), []),
    ):
        part = c[index]
        assert isinstance(part, Sized)
        assert part.tokens.shape[1:] == c.tokens.shape[1:]
        assert rows_of(part) == [wanted] * 3
    assert rows_of(c[2:3].expand(3)) == [[2, 2, 2]] * 3
    assert rows_of(c.expand(4)) == rows_of(c)
    both = Condition.cat([c[:1], c[2:]])
    assert isinstance(both, Sized)
    assert rows_of(both) == [[0, 2, 3]] * 3
    plain = Condition.cat([Condition(c.tokens), Condition(c.tokens)])
    assert plain.pooled is None
    assert len(plain) == 8


def test_only_floating_point_fields_are_cast_and_the_graph_is_left_behind() -> None:
    c = replace(sized(2), tokens=torch.ones(2, 2, 3, requires_grad=True))
    half = c.to(torch.device("cpu"), torch.bfloat16)
    assert [tensor.dtype for tensor in half.tensors()] == [torch.bfloat16, torch.bfloat16, torch.int64]
    assert c.to(torch.device("cpu")).tokens.dtype == torch.float32
    assert c.tokens.requires_grad
    assert not c.detach().tokens.requires_grad


def _step(model: TextToImage, fused: bool) -> None:
    weights = model.conditioner.parameters()
    model.conditioner.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=fused)
    torch.autograd.backward(model.condition(["a dog"], grad=True).tokens.square().mean())
    optimizer.step()
    model.conditioner.requires_grad_(False)


def _unseen(model: TextToImage) -> None:
    """A step of an optimizer without a call of the model between it and what was kept."""
    weights = model.conditioner.parameters()
    for p in weights:
        p.grad = torch.ones_like(p)
    torch.optim.AdamW(weights, lr=1e-5, fused=True).step()


def _load(model: TextToImage) -> None:
    encoder = encoder_of(model)
    encoder.load_state_dict({name: value * 1.01 for name, value in encoder.state_dict().items()})


@torch.no_grad()
def _in_place(model: TextToImage) -> None:
    for p in model.conditioner.parameters():
        p.mul_(1.001)


def _data(model: TextToImage) -> None:
    for p in model.conditioner.parameters():
        p.data = p.data * 1.001


def _exchanged(model: TextToImage) -> None:
    model.conditioner = model.conditioner.copy()
    _in_place(model)


CHANGES: dict[str, Callable[[TextToImage], None]] = {
    "a step": lambda model: _step(model, fused=False),
    "a fused step": lambda model: _step(model, fused=True),
    "a fused step that nobody sees": _unseen,
    "loaded weights": _load,
    "in place": _in_place,
    "other storage": _data,
    "another conditioner": _exchanged,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_kept_follows_the_weights(change: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    model.conditioner = model.conditioner.copy()
    before = model.condition(["a dog", "a cat"])
    calls: list[int] = []
    encoder_of(model).register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(model.condition(["a dog", "a cat"]).tokens, before.tokens)
    assert not calls
    CHANGES[change](model)
    found = model.condition(["a dog", "a cat"])
    with torch.no_grad():
        wanted = model.conditioner.encode(["a cat", "a dog"])
    assert torch.equal(found.tokens, wanted[[1, 0]].tokens)
    assert not torch.equal(found.tokens, before.tokens)


class Pooled(ClipConditioner):
    """Tokens, and their mean as a pooled vector."""

    def encode(self, prompts: Sequence[str]) -> Condition:
        tokens = super().encode(prompts).tokens
        return Sized(tokens, tokens.mean(1), sizes=torch.full((len(tokens), 2), 32))


class Richer(StableDiffusion):
    """A family whose denoiser needs every field of its condition, row by row."""

    def predict(self, denoiser: Any, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert isinstance(condition, Sized)
        assert condition.pooled is not None
        assert condition.sizes is not None
        assert condition.sizes.tolist() == [[32, 32]] * len(z_t)
        assert torch.allclose(condition.tokens.float().mean(1), condition.pooled.float(), atol=0.02)
        return super().predict(denoiser, z_t, t, condition)


@pytest.fixture
def richer(tmp_path: Path) -> TextToImage:
    model = tiny_model(tmp_path)
    conditioner = Pooled(model.conditioner.encoders, model.conditioner.tokenizers)
    return TextToImage(
        autoencoder=model.autoencoder, denoiser=model.denoiser, conditioner=conditioner,
        scheduler=model.scheduler, family=Richer(), defaults=Defaults(guidance=3.0),
    )  # fmt: skip


def test_drawing_and_the_loss_need_not_know_what_a_condition_holds(richer: TextToImage) -> None:
    images = richer.generate(["a dog", "a cat"], seeds=[0, 1], steps=2)
    assert images.shape == (2, 3, 32, 32)
    assert diffusion_loss(richer, richer.encode_all(images).mean, richer.condition(["a dog"])).isfinite()


@pytest.mark.parametrize("settings", [{}, {"text_encoder": True}, None])
def test_personalization_need_not_know(richer: TextToImage, settings: dict[str, Any] | None) -> None:
    method = "dreambooth" if settings is not None else "lora"
    quick = {"steps": 2, "class_images": 2, "class_steps": 1, **(settings or {})}
    tuned = personalize(richer, Subject(pictures(2), "dog"), method, quick)
    assert isinstance(tuned.family, Richer)
    assert isinstance(tuned.condition(["a dog"]), Sized)


@pytest.mark.parametrize("method", ["advdm", "photoguard"])
def test_protection_need_not_know(richer: TextToImage, method: str) -> None:
    made = protect.create(method, richer, {"steps": 2})
    assert made.perturb(pictures(2), [0, 1]).shape == (2, 3, 32, 32)


IMMUNIZING: dict[str, dict[str, Any]] = {
    "apdm": {"preserve_weight": 1.0, "text_encoder": 0.5},
    "divert": {"contexts": "{} x", "guidance": 2.0, "class_weight": 1.0},
    "persguard": {"contexts": "{} x", "pictures": 1, "retention_weight": 0.3},
}


@pytest.mark.parametrize("method", IMMUNIZING)
def test_immunization_need_not_know(richer: TextToImage, method: str) -> None:
    few = {"outer_steps": 2, "inner_steps": 1, "class_images": 4, "class_steps": 2, "batch_size": 2}
    released = immunize(
        richer, [Subject(pictures(2), "dog")], method, {**few, **IMMUNIZING[method]}, prompts=["a cup"]
    )
    assert isinstance(released.family, Richer)
