"""One walk over all protections. A new method joins by its registration."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from tests.protect.folders import lines, run
from tests.protect.test_tiles import write
from tests.tiny import pictures
from torch import Tensor

from unlikeness import protect
from unlikeness.diffusion import TextToImage, diffusion_loss
from unlikeness.protect.base import GradientProtection
from unlikeness.protect.together import TogetherProtection
from unlikeness.seeds import picture_generators

SMALL: dict[str, object] = {
    "steps": 8, "rounds": 1, "clean_steps": 1, "perturbed_steps": 1, "pgd_steps": 6, "step_size": 1.0,
    "trials": 1, "train_steps": 1, "interval": 1, "advance": 1, "search_steps": 2, "prior_weight": 0.0,
    "pictures": 3, "batch_size": 2, "class_noun": "dog", "start": "noise",
}  # fmt: skip
"""Values for settings of these names."""

BEATS_NOTHING = {
    "noise": "the control",
    "rid": "its network was trained against other models",
    "encoder": "test_encoder.py measures it, on every surrogate",
}
"""Methods whose objective is not compared with noise here, and why."""


def quick(name: str, steps: int | None = None) -> dict[str, object]:
    """Settings with which a method takes a moment. steps: gradient steps, instead of enough for an effect."""
    known = {field.name for field in fields(protect.method(name).settings_type)}
    fewer = {} if steps is None else dict.fromkeys(("steps", "pgd_steps", "search_steps"), steps)
    return {setting: value for setting, value in {**SMALL, **fewer}.items() if setting in known}


def optimised(made: object, images: Tensor, original: Tensor) -> float:
    """What a method raises, over draws that it has not used."""
    with torch.no_grad():
        if isinstance(made, GradientProtection):
            made.begin(original.repeat(12, 1, 1, 1))
            seen = images.repeat(12, 1, 1, 1)
            draws = picture_generators(range(900, 900 + len(seen)))
            return float(made.objective(made.surrogates[0], seen, draws).mean())
        assert isinstance(made, TogetherProtection)
        z0 = made.model.encode(images).mean.repeat(24, 1, 1, 1)
        c, generator = made.model.condition([made.prompt]), torch.Generator().manual_seed(9)
        return float(diffusion_loss(made.model, z0, c, generator=generator))


@pytest.mark.parametrize("name", protect.names())
def test_every_method_keeps_its_bounds_and_beats_noise(model: TextToImage, name: str) -> None:
    images = pictures(2)
    images[0, :, :8] = images[0, :, :8].round()  # at the ends of the range
    kept, told = images.clone(), list[int]()
    made = protect.create(name, model, {**quick(name), "budget": 4.0})
    result = made.perturb(images, [1, 2], told.append)
    moved = result - images
    assert 2 / 255 < float(moved.abs().max()) <= 4 / 255 + 1e-7
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(images, kept)
    assert told == sorted(told)
    if isinstance(made, TogetherProtection):
        assert told == [*range(1, made.steps + 1)]

    torch.manual_seed(99)
    again = protect.create(name, model, {**quick(name), "budget": 4.0})
    if hasattr(again, "together"):
        assert torch.equal(again.perturb(images, [1, 2]), result)
    else:
        assert torch.equal(again.perturb(images.flip(0), [2, 1]).flip(0), result)

    if name not in BEATS_NOTHING:
        signs = torch.randn(images.shape, generator=torch.Generator().manual_seed(3)).sign()
        noise = (images + signs * moved.square().mean((1, 2, 3), keepdim=True).sqrt()).clamp(0, 1)
        before, of_noise, after = (optimised(made, x, images) for x in (images, noise, result))
        assert after > before
        assert after - before > 2 * (of_noise - before)


@pytest.mark.parametrize("name", protect.names())
def test_a_run_of_every_method_goes_on_and_says_against_what(
    model: TextToImage, tmp_path: Path, name: str
) -> None:
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        write(tmp_path / "in" / f"{number}.png", 20, 20, seed=number)
    for _ in range(2):
        made = protect.create(name, model, quick(name, steps=1))
        outcome = run(tmp_path / "in", tmp_path / "out", made)
        (tmp_path / "out" / "2.png").unlink()
    assert outcome.before == ["1.png"]
    first, second, again = lines(tmp_path / "out")
    assert first["against"]["claim"] == second["against"]["claim"]
    assert again["output_digest"] == second["output_digest"]
