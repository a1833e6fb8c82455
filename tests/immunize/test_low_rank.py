"""A low-rank change: θ = φ + BA, trained beside frozen weights and added to those that are saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.immunize.test_plain_diffusers import immunized
from tests.tiny import pictures, tiny_model, write_tiny
from tests.tiny_flow import write_flux, write_sd3, write_z_image
from tests.tiny_xl import write_tiny_xl
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.lora import adaptable_copy, add_lora, merged_copy
from unlikeness.errors import UsageError
from unlikeness.immunize import create, immunize, names, run
from unlikeness.immunize.cost import memory
from unlikeness.immunize.data import protected_subjects
from unlikeness.immunize.l2p import L2P, trainable
from unlikeness.immunize.preservation import Preservation
from unlikeness.immunize.release import as_stored, rounding
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject

FEW: dict[str, Any] = {
    "outer_steps": 2, "inner_steps": 2, "class_images": 4, "class_steps": 1, "batch_size": 2,
    "learning_rate": 1e-3, "attack_learning_rate": 1e-3, "rank": 2, "precision": "float32",
}  # fmt: skip
FURTHER: dict[str, dict[str, Any]] = {
    "divert": {"contexts": "{} x", "guidance": 2.0},
    "notice": {"contexts": "{} x", "target_noun": "mug", "output_pictures": 1},
    "persguard": {"contexts": "{} x", "output_pictures": 1, "inner_steps": 0},
    "combined": {"contexts": "{} x", "output_pictures": 1, "attack_ranks": "3", "attack_low_rank": 0.5},
    "imma": {"inner_steps": 1},
    "apdm": {"preserve_weight": 1.0, "attack_depth": 4},
}


def values(model: TextToImage) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.denoiser.named_parameters()}


@pytest.mark.parametrize("method", names())
def test_every_method_trains_it_and_leaves_the_original(
    method: str, exact: TextToImage, dog: Subject, cat: Subject
) -> None:
    before = values(exact)
    settings = {**FEW, **FURTHER.get(method, {})}
    released = immunize(exact, [dog, cat], method, settings, prompts=["a cup"])
    assert all(torch.equal(p, before[name]) for name, p in values(exact).items())
    merged = values(merged_copy(released))
    moved = {name for name, p in before.items() if not torch.equal(p, merged[name])}
    layers = ".attn2." if method == "imma" else ".attn"
    assert moved == {
        name for name in before if layers in name and "norm" not in name and not name.endswith(".bias")
    }
    for name in moved:
        assert torch.linalg.matrix_rank(merged[name] - before[name], rtol=1e-9) <= 2


def test_its_gradient_is_that_of_the_weights(exact: TextToImage, dog: Subject) -> None:
    """At B = 0 that of B is G Aᵀ, where G is the weight's own gradient in a run without `rank`."""
    low = {"attack_low_rank": 1.0, "attack_ranks": (3,), "preserve_weight": 0.5, "preserve_class": 1.0}
    found: list[dict[str, Tensor]] = []
    for rank in (0, 2):
        defence = create("apdm", {**FEW, **low, "rank": rank})
        s = defence.settings
        working = adaptable_copy(exact) if rank else exact.copy()
        down = add_lora(working, rank=2)[::2] if rank else []
        subjects = protected_subjects(exact, [dog], s)
        held = Preservation(None, [], s, subjects, "float32")
        loop = L2P(working, exact, defence, subjects, preservation=held)
        trained = [name for name, _ in working.denoiser.named_parameters() if trainable(working, s, name)]
        loop(0, step_generator(0, 0))
        found.append({
            name: theta.grad for name, theta in zip(trained, loop.theta, strict=True)
            if theta.grad is not None
        })  # fmt: skip
    whole, factors = found
    ups = [name for name in factors if ".lora_B." in name]
    assert len(ups) == len(down) > 0
    for name, a in zip(ups, down, strict=True):
        g = whole[name.replace(".lora_B.default.", ".")]
        assert float(g.norm()) > 0
        torch.testing.assert_close(factors[name], g @ a.detach().T, rtol=1e-6, atol=1e-12)
        assert not factors[name.replace("lora_B", "lora_A")].any()


def test_nothing_holds_a_second_denoiser(
    dog: Subject, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(weights)
    own = {p.data_ptr() for p in model.denoiser.parameters()}
    held: list[int] = []
    step = L2P.attack_step

    def watched(loop: L2P, generator: torch.Generator) -> None:
        step(loop, generator)
        assert loop.attacker.attack.rank == 2
        every = {p.data_ptr(): p.numel() for p in loop.working.denoiser.parameters()}
        held.append(sum(numel for at, numel in every.items() if at not in own))
        assert all(p.grad is None for p in loop.working.denoiser.parameters() if p.data_ptr() in own)

    monkeypatch.setattr(L2P, "attack_step", watched)
    released = immunize(model, [dog], "apdm", {**FEW, "checkpointing": True})
    one = sum(p.numel() for name, p in released.denoiser.named_parameters() if ".lora_" in name)
    assert held
    assert set(held) == {2 * one}
    said = memory(model, create("apdm", FEW))
    assert said.pop("original denoiser") == sum(p.numel() for p in model.denoiser.parameters()) * 4
    said.pop("autoencoder and text encoder")
    assert sum(said.values()) == 8 * one * 4  # weights, gradient and two moments of either adapter


def test_a_run_goes_on_and_an_old_checkpoint_is_still_its_own(
    exact: TextToImage, dog: Subject, tmp_path: Path
) -> None:
    wanted = values(immunize(exact, [dog], "apdm", {**FEW, "outer_steps": 3}))
    file = tmp_path / "state.safetensors"
    immunize(exact, [dog], "apdm", FEW, checkpoint=file)
    found = values(immunize(exact, [dog], "apdm", {**FEW, "outer_steps": 3}, checkpoint=file))
    assert all(torch.equal(p, found[name]) for name, p in wanted.items())
    with pytest.raises(UsageError, match="another run"):
        immunize(exact, [dog], "apdm", {**FEW, "rank": 3}, checkpoint=file)
    before = run._identity(create("apdm", {**FEW, "rank": 0}), exact, exact, [dog], [])
    assert "rank" not in before


def test_full_attacks_move_the_weights_below_it_and_give_them_back(exact: TextToImage, dog: Subject) -> None:
    """A full attack in the same run needs a denoiser of its own, in which only the adapter stays."""
    mixed = {"attack_ranks": "3", "attack_low_rank": 0.5, "outer_steps": 4, "seed": 1}
    released = immunize(exact, [dog], "apdm", {**FEW, **mixed})
    own = dict(exact.denoiser.named_parameters())
    for name, p in released.denoiser.named_parameters():
        if ".lora_" not in name:
            assert torch.equal(p, own[name.replace(".base_layer.", ".")])
            assert p is not own[name.replace(".base_layer.", ".")]


@pytest.mark.parametrize("write", [write_tiny, write_tiny_xl, write_flux, write_sd3, write_z_image])
def test_the_release_opens_in_its_plain_pipeline(write: Callable[..., Path], tmp_path: Path) -> None:
    model = write(tmp_path / "model")
    further = ["--outer-steps", "2", "--inner-steps", "1", "--learning-rate", "1e-3", "--method", "apdm"]
    further += ["--set", "rank=2", "--set", "class_images=3", "--set", "class_steps=1"]
    out = immunized(str(model), pictures(3), tmp_path, *further)
    kept = json.loads((out / "immunization.json").read_text())["settings"]
    assert (kept["rank"], kept["attack_ranks"], kept["attack_low_rank"]) == (2, [2], 1.0)
    before, after = (diffusers.DiffusionPipeline.from_pretrained(folder) for folder in (model, out))
    targets = TextToImage.from_pretrained(model, device="cpu").family.lora_targets
    for name, part in before.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        old, new = part.state_dict(), getattr(after, name).state_dict()
        assert list(old) == list(new)
        moved = {key.removesuffix(".weight") for key in old if not torch.equal(old[key], new[key])}
        assert bool(moved) == (name in ("unet", "transformer"))
        assert all(key.endswith(targets) for key in moved)


def test_rounding_is_told_of_the_sum(dog: Subject, weights: Path) -> None:
    """In bfloat16 small updates vanish, though A and B are kept in float32."""
    model = tiny_model(weights)
    model.to(dtype="bfloat16")
    released = immunize(model, [dog], "apdm", {**FEW, "learning_rate": 1e-5})
    half, whole = (as_stored(released, dtype) for dtype in (torch.bfloat16, torch.float32))
    assert rounding(model, released, half) > 0.2
    assert rounding(model, released, whole) < 1e-3


@pytest.mark.parametrize(
    ("method", "given", "told"),
    [
        ("divert", {"rank": 2000}, "rank must be at most 1024"),
        ("apdm", {"rank": 4, "attack_low_rank": 0.5}, "attack_low_rank needs attack_ranks"),
    ],
)
def test_wrong_settings_are_refused(method: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        create(method, given)
