"""Encoding, embedding, predicting: shapes, gradients, caches, copies, devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import encoder_of, pictures, tiny_model
from torch import Tensor

from unlikeness.diffusion import Condition, diffusion_loss, draw, loss
from unlikeness.diffusion.devices import pick_device, pick_dtype
from unlikeness.errors import UsageError


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_its_formula(prediction_type: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, prediction_type)
    z0 = model.encode_all(pictures(3)).mean
    c = model.condition(["a dog", "a photo", "x"])
    t, eps = draw(model, z0, torch.Generator().manual_seed(7))
    a = model.scheduler.alphas_cumprod[t].reshape(3, 1, 1, 1)
    z_t = a.sqrt() * z0 + (1 - a).sqrt() * eps
    f = model.denoiser(z_t, t, encoder_hidden_states=c.tokens).sample
    target = {"epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * z0, "sample": z0}[
        prediction_type
    ]
    expected = (f - target).square()
    given = diffusion_loss(model, z0, c, t=t, eps=eps, reduce="none")
    assert torch.allclose(given, expected.mean((1, 2, 3)), rtol=1e-4)
    drawn = diffusion_loss(model, z0, c, generator=torch.Generator().manual_seed(7))
    assert torch.allclose(drawn, expected.mean(), rtol=1e-4)


@pytest.mark.parametrize(("prediction_type", "vae"), [("epsilon", "kl"), ("v_prediction", "tiny")])
def test_the_gradient_of_the_loss_reaches_the_pixels(prediction_type: str, vae: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, prediction_type, vae, dtype="float64")
    images = (0.25 + 0.5 * pictures(2)).double()
    c = model.condition(["a photo of a dog"])
    t = torch.tensor([120, 640])
    eps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        z0 = model.encode(x).sample(torch.Generator().manual_seed(2))
        return diffusion_loss(model, z0, c, t=t, eps=eps)

    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    step = 1e-5
    with torch.no_grad():
        slope = (loss(images + step * direction) - loss(images - step * direction)) / (2 * step)
    assert slope.abs() > 1e-6
    assert torch.allclose((gradient * direction).sum(), slope, rtol=1e-4)


def test_the_mean_loss_is_the_same_in_parts_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = tiny_model(tmp_path), pictures(5)
    asked: list[int] = []
    predict = model.predict

    def counted(z_t: Tensor, t: Tensor, c: Condition) -> Tensor:
        asked.append(len(z_t))
        return predict(z_t, t, c)

    monkeypatch.setattr(model, "predict", counted)
    whole = loss.mean_loss_over_levels(model, images, "a photo", seed=3, levels=2, draws=2)
    assert asked == [10, 10]
    monkeypatch.setattr(loss, "_AT_ONCE", 4 * 4 * 8 * 8)
    parts = loss.mean_loss_over_levels(model, images, "a photo", seed=3, levels=2, draws=2)
    assert asked[2:] == [4, 4, 2, 4, 4, 2]
    assert parts == pytest.approx(whole, rel=1e-5)


def test_encoding_honours_scale_and_shift(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    plain = model.encode(pictures(1))
    model.autoencoder.network.register_to_config(scaling_factor=0.5, shift_factor=0.25)
    shifted = model.encode(pictures(1))
    assert torch.allclose(shifted.mean / 0.5 + 0.25, plain.mean / 0.18215, atol=1e-5)
    assert torch.allclose(shifted.std / 0.5, plain.std / 0.18215, atol=1e-6)
    raw = model.autoencoder.network.decode(shifted.mean / 0.5 + 0.25).sample
    assert torch.allclose(model.decode(shifted.mean), (raw / 2 + 0.5).clamp(0, 1), atol=1e-6)


def test_a_posterior_draws_from_its_generator_alone(tmp_path: Path) -> None:
    posterior = tiny_model(tmp_path).encode_all(pictures(5), batch_size=2)
    assert len(posterior) == 5
    one = posterior.sample(torch.Generator().manual_seed(4))
    torch.manual_seed(123)
    assert torch.equal(one, posterior.sample(torch.Generator().manual_seed(4)))
    spread = (one - posterior.mean) / posterior.std
    assert 0.8 < spread.std() < 1.2
    assert torch.equal(posterior[1:3].mean, posterior.mean[1:3])


def test_embeddings_match_the_text_encoder_and_are_computed_once(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    calls = []
    handle = encoder_of(model).register_forward_hook(lambda *_: calls.append(1))
    c = model.condition(["a dog", "a photo of a dog", "a dog"]).tokens
    assert c.shape == (3, 16, 32)
    assert torch.equal(c[0], c[2])
    assert torch.equal(model.condition(["a photo of a dog"]).tokens[0], c[1])
    assert len(calls) == 2
    handle.remove()
    tokenizer = model.conditioner.tokenizer
    ids = tokenizer(["a dog"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    assert torch.allclose(encoder_of(model)(ids)[0][0], c[0], atol=1e-5)


def test_embeddings_follow_a_text_encoder_that_trains(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    before = model.condition(["a dog"]).tokens
    encoder_of(model).requires_grad_(True)
    optimizer = torch.optim.AdamW(encoder_of(model).parameters(), lr=0.1, fused=True)
    c = model.condition(["a dog"], grad=True).tokens
    assert c.requires_grad
    torch.autograd.backward(c.square().mean())
    optimizer.step()
    assert not model.condition(["a dog"]).tokens.requires_grad
    assert not torch.equal(model.condition(["a dog"]).tokens, before)


def test_a_copy_has_its_own_unet_and_shares_the_rest(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    other = model.copy()
    assert other.autoencoder.network is model.autoencoder.network
    assert encoder_of(other) is encoder_of(model)
    with torch.no_grad():
        other.denoiser.conv_in.weight.add_(1)
    assert not torch.equal(other.denoiser.conv_in.weight, model.denoiser.conv_in.weight)
    assert model.copy(conditioner=True).conditioner is not model.conditioner


def test_a_loaded_model_is_frozen(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    for module in model.networks:
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())


def test_bfloat16_spares_the_autoencoder(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, dtype="bf16")
    assert model.dtype == torch.bfloat16
    assert model.autoencoder.network.dtype == torch.float32
    loss = diffusion_loss(model, model.encode(pictures(1)).mean, model.condition(["a dog"]))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_autocast_is_close_and_leaves_the_weights_alone(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    z0, c = model.encode_all(pictures(2)).mean, model.condition(["a dog"])

    def loss() -> torch.Tensor:
        return diffusion_loss(model, z0, c, generator=torch.Generator().manual_seed(0))

    full = loss()
    with model.autocast(None):
        assert torch.equal(loss(), full)
    with model.autocast("bfloat16"):
        mixed = loss()
    assert mixed != full
    assert torch.allclose(mixed, full, rtol=0.02)
    assert model.dtype == torch.float32


def test_devices_and_dtypes_by_name() -> None:
    cpu = torch.device("cpu")
    assert pick_device("cpu") == cpu
    assert pick_dtype("auto", cpu) == torch.float32
    assert pick_dtype("auto", torch.device("mps")) == torch.float16
    assert pick_dtype("bf16", cpu) == pick_dtype(torch.bfloat16, cpu) == torch.bfloat16
    for wrong in ("gpu", "cuda:99"):
        with pytest.raises(UsageError, match=f"device .*{wrong}"):
            pick_device(wrong)
    with pytest.raises(UsageError, match="dtype 'int8'"):
        pick_dtype("int8", cpu)
