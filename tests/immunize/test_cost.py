"""What is said beforehand about passes and memory is what then happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.tiny import encoder_of, pictures, tiny_model, write_tiny
from torch import Tensor

from unlikeness.diffusion import TextToImage, loss
from unlikeness.diffusion.opening import outline
from unlikeness.immunize import cost, create, immunize
from unlikeness.immunize.cost import estimate, memory
from unlikeness.immunize.dry_run import Passes, count
from unlikeness.progress import format_seconds
from unlikeness.subjects import Subject

FEW: dict[str, Any] = {
    "outer_steps": 2, "inner_steps": 2, "class_images": 4, "class_steps": 2, "precision": "float32",
}  # fmt: skip
PROMPTS = ["a cup", "a house", "a tree"]


class Counter:
    """Every forward pass of any U-Net while `on`, and every backward pass through its answer."""

    def __init__(self) -> None:
        self.without, self.with_gradient, self.backward = Passes(), Passes(), Passes()

    @contextmanager
    def on(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        forward = diffusers.UNet2DConditionModel.forward

        def counted(unet: Any, sample: Tensor, *args: Any, **options: Any) -> Any:
            answer = forward(unet, sample, *args, **options)
            one = Passes(1, len(sample))
            if not answer[0].requires_grad:
                self.without += one
                return answer
            self.with_gradient += one
            answer[0].register_hook(lambda _: self._back(one))
            return answer

        with patch.context() as inside:
            inside.setattr(diffusers.UNet2DConditionModel, "forward", counted)
            yield

    def _back(self, one: Passes) -> None:
        self.backward += one


@pytest.fixture(scope="module")
def model(weights: Path) -> TextToImage:
    return tiny_model(weights)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    """The same model without weights."""
    return outline(write_tiny(tmp_path_factory.mktemp("bare") / "model"), dtype="float32")


@pytest.mark.parametrize(
    ("method", "further"),
    [
        ("apdm", {}),
        ("divert", {"rank": 2, "inner_steps": 2, "outer_steps": 2, "contexts": "{} x", "attack_depth": 4}),
        ("apdm", {"inner_steps": 0}),
        ("apdm", {"batch_size": 3, "attack_batch_size": 2, "class_weight": 0.0}),
        ("apdm", {"inner_steps": 4, "attack_depth": 8, "attack_prior_weight": 0.0, "preserve_weight": 1.0}),
        ("apdm", {"class_images": 18, "checkpointing": True}),
        ("apdm", {"attack_low_rank": 0.5, "attack_ranks": "2", "outer_steps": 5, "inner_steps": 1}),
        ("adversarial", {}),
        (
            "adversarial",
            {"batch_size": 2, "inner_steps": 0, "preserve_weight": 2.0, "preserve_batch_size": 5},
        ),
        ("imma", {"inner_steps": 1}),
        ("persguard", {"outer_steps": 5, "output_pictures": 2, "contexts": "{} here"}),
        (
            "persguard",
            {
                "outer_steps": 5,
                "inner_steps": 2,
                "output_pictures": 1,
                "contexts": "{} x",
                "protective_output": "pattern,erasure",
                "batch_size": 2,
            },
        ),
        ("divert", {"inner_steps": 2, "batch_size": 2, "contexts": "{} x", "preserve_weight": 0.0}),
        (
            "divert",
            {
                "inner_steps": 1,
                "attack_depth": 2,
                "preserve_batch_size": 3,
                "contexts": "{} x",
            },
        ),
        ("apdm", {"inner_steps": 2, "attack_stride": 3, "attack_depth": 12, "outer_steps": 5}),
        ("divert", {"inner_steps": 2, "outer_steps": 3, "attack_text_encoder": 0.6, "contexts": "{} x"}),
        ("divert", {"inner_steps": 2, "outer_steps": 2, "guidance": 3.0, "contexts": "{} x"}),
        (
            "divert",
            {
                "inner_steps": 1,
                "outer_steps": 7,
                "unprotected_every": 2,
                "unprotected_from": 0.4,
                "contexts": "{} x",
            },
        ),
        (
            "apdm",
            {
                "inner_steps": 2,
                "attack_depth": 4,
                "outer_steps": 9,
                "unprotected_every": 2,
                "attack_prior_weight": 0.0,
            },
        ),
        (
            "divert",
            {
                "inner_steps": 1,
                "attack_stride": 2,
                "attack_depth": 4,
                "outer_steps": 5,
                "unprotected_every": 2,
                "attack_from_start": True,
                "attack_text_encoder": 0.0,
                "contexts": "{} x",
            },
        ),
        (
            "divert",
            {
                "inner_steps": 2,
                "protective_output": "erasure",
                "avoidance": 1.0,
                "output_pictures": 1,
                "guidance": 3.0,
                "contexts": "a cup with {}",
            },
        ),
        ("combined", {"outer_steps": 3, "output_pictures": 1, "contexts": "{} x", "batch_size": 2}),
        ("combined", {"outer_steps": 3, "output_pictures": 1, "contexts": "{} x", "preference_weight": 0.0}),
        (
            "notice",
            {
                "target_noun": "mug,mug,cat",
                "inner_steps": 1,
                "attack_stride": 2,
                "attack_depth": 0,
                "outer_steps": 5,
                "contexts": "{} x",
                "output_pictures": 1,
            },
        ),
    ],
)
def test_the_count_of_passes_is_exact(
    model: TextToImage, bare: TextToImage, dog: Subject, cat: Subject, method: str, further: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = {**FEW, **further}
    # Few enough latents in a call that the original's answers come in several.
    monkeypatch.setattr(loss, "_AT_ONCE", 3 * 4 * 8 * 8)
    prompts = PROMPTS if settings.get("preserve_weight") else []  # without, divert keeps its classes alone
    subjects = [dog, cat, Subject(pictures(1), "dog", "zwx")]
    expected = count(model, create(method, settings), subjects, prompts)
    counter = Counter()
    with counter.on(monkeypatch):
        immunize(model, subjects, method, settings, prompts=prompts)
    assert count(bare, create(method, settings), subjects, prompts) == expected
    assert counter.without == expected.without_gradient
    assert counter.with_gradient == expected.with_gradient
    assert counter.backward == expected.with_gradient
    assert expected.as_record()["backward"] == vars(counter.backward)


def test_a_probe_tells_time_and_memory_and_changes_nothing(
    model: TextToImage, dog: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = [p.clone() for p in model.denoiser.parameters()]
    settings = {**FEW, "inner_steps": 6, "outer_steps": 500, "preserve_weight": 1.0}
    told = estimate(model, create("apdm", settings), [dog], PROMPTS)
    assert told.outer_seconds > 0
    assert told.seconds == told.drawing_seconds + 500 * told.outer_seconds
    assert told.peak is None or told.peak > sum(told.memory.values())
    text = "\n".join(told.lines())
    assert f"{500 * (6 * 3 + 6 * 2 + 4):,} pictures in {500 * 13:,} calls" in text
    assert format_seconds(told.seconds) in text
    assert all(torch.equal(p, was) for p, was in zip(model.denoiser.parameters(), before, strict=True))
    assert not list(tmp_path.iterdir())
    early = {**settings, "attack_from_start": True}  # whose probe is of attacks too short for that
    assert estimate(model, create("apdm", early), [dog], PROMPTS).outer_seconds > 0


def test_the_time_of_a_long_outer_step_is_drawn_out_from_short_ones(
    model: TextToImage, dog: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_outer", lambda *arguments: 2.0 + 0.5 * arguments[-1])
    for inner in (0, 1, 3, 4, 60):
        told = estimate(model, create("apdm", {**FEW, "inner_steps": inner}), [dog])
        assert told.outer_seconds == pytest.approx(2.0 + 0.5 * inner)


def test_memory_is_that_of_what_the_settings_train(model: TextToImage) -> None:
    unet = sum(p.numel() for p in model.denoiser.parameters()) * 4
    full = memory(model, create("apdm", FEW))
    assert full["attacked denoiser"] == full["released weights"] == full["original denoiser"] == unet
    assert full["their AdamW states"] == full["the attacker's AdamW states"] == 2 * unet
    cross = memory(model, create("apdm", {**FEW, "train": "cross-attention", "inner_steps": 0}))
    named = model.denoiser.named_parameters()
    assert cross["their gradient"] == sum(p.numel() for name, p in named if ".attn2." in name) * 4
    assert cross["the attacker's AdamW states"] == 0
    assert (cross["attacked denoiser"], cross["released weights"]) == (0, unet)  # no attack, no second one
    read = memory(model, create("apdm", {**FEW, "attack_text_encoder": 0.5}))
    encoder = sum(p.numel() for p in encoder_of(model).parameters()) * 4
    assert read["attacked text encoder"] == 2 * encoder
    assert read["the attacker's gradient"] == unet + encoder
