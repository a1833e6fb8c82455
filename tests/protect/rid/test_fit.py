"""Training a protector: from end to end on tiny models, resumed, against an ensemble, by regression."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from tests.protect.rid.small import FEW, SMALL
from tests.tiny import PIXELS, pictures
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.progress import Silent
from unlikeness.protect.methods.advdm import AdvDM
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.train import fit
from unlikeness.protect.rid.train.fit import train_protector
from unlikeness.protect.rid.train.pictures import Pictures
from unlikeness.protect.rid.train.recipe import CHECKPOINT, ProtectorRecipe
from unlikeness.protect.rid.train.trial import Trial, draw_budgets
from unlikeness.protect.rid.weights import load_protector
from unlikeness.training import train


class Killed(Silent):
    """Interrupts the training after so many steps."""

    def __init__(self, after: int) -> None:
        self.left, self.training = after, False

    def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
        self.training = unit == "step"

    def advance(self, n: int = 1, **figures: float) -> None:
        if self.training:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


def test_a_training_writes_weights_that_load(model: TextToImage, tmp_path: Path) -> None:
    recipe = ProtectorRecipe(**FEW, sds_weight=0.5)
    output = tmp_path / "new" / "ours.safetensors"
    before = torch.get_rng_state()
    wants = [p.requires_grad for p in model.denoiser.parameters()]
    made = train_protector(recipe, [model], output, work=tmp_path / "w", network=SMALL, names=["tiny"])
    assert torch.equal(torch.get_rng_state(), before)
    assert [p.requires_grad for p in model.denoiser.parameters()] == wants
    loaded = load_protector(output)
    assert (loaded.resolution, loaded.about["models"]) == (PIXELS, ["tiny"])
    assert loaded.about["recipe"] == {**FEW, "sds_weight": 0.5}
    for name, value in made.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value.half().float())
    with torch.no_grad():
        delta = made(pictures(2), torch.tensor([4.0, 8.0]))
    assert delta.any()
    assert (delta.abs().amax((1, 2, 3)) <= torch.tensor([4.0, 8.0]) / 255).all()


def test_a_killed_training_resumes_bit_by_bit(
    model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "train", partial(train, every=2))
    recipe = ProtectorRecipe(**FEW)
    whole = train_protector(recipe, [model], tmp_path / "a.safetensors", work=tmp_path / "a", network=SMALL)
    again = partial(train_protector, recipe, [model], tmp_path / "b.safetensors", work=tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        again(network=SMALL, progress=Killed(3))
    assert (tmp_path / "b" / CHECKPOINT).is_file()
    assert not (tmp_path / "b.safetensors").exists()
    resumed = again(network=SMALL)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    first, second = (load_file(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for changed in (ProtectorRecipe(**FEW, energy_share=0.3), ProtectorRecipe(**{**FEW, "seed": 1})):
        with pytest.raises(UsageError, match="belongs to another run"):
            train_protector(changed, [model], tmp_path / "c", work=tmp_path / "b", network=SMALL)
    with pytest.raises(UsageError, match="belongs to another run"):
        again(network=NetworkSettings(fine=4, middle=6, coarse=9))


def test_an_ensemble_trains_with_regression_too(
    model: TextToImage, other: TextToImage, tmp_path: Path
) -> None:
    recipe = ProtectorRecipe(**{**FEW, "steps": 2}, regression_weight=1.0, pairs=20, pair_steps=1)
    output = tmp_path / "ours.safetensors"
    train_protector(recipe, [other, model], output, work=tmp_path, network=SMALL, names=["a", "b"])
    loaded = load_protector(output)
    assert (loaded.resolution, loaded.about["models"]) == (PIXELS, ["a", "b"])


def test_regression_pulls_to_gradient_perturbations_that_are_made_once(
    model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Tensor] = []
    perturb = AdvDM.perturb

    def counted(self: AdvDM, images: Tensor, seeds: list[int]) -> Tensor:
        if len(made) == 1 and not (tmp_path / "again").exists():
            (tmp_path / "again").mkdir()
            raise KeyboardInterrupt
        made.append(perturb(self, images, seeds) - images)
        return made[-1] + images

    monkeypatch.setattr(AdvDM, "perturb", counted)
    recipe = ProtectorRecipe(
        **FEW,
        sds_weight=0,
        displacement_weight=0,
        regression_weight=1.0,
        pairs=18,
        pair_steps=2,
        pair_budget=6,
    )
    run = partial(train_protector, recipe, [model], tmp_path / "o.safetensors", work=tmp_path, network=SMALL)
    with pytest.raises(KeyboardInterrupt):
        run()
    run()
    assert len(made) == 2  # the first batch was not made again
    assert all(delta.abs().max() <= 6 / 255 + 1e-6 for delta in made)
    (tmp_path / CHECKPOINT).unlink()
    run()
    assert len(made) == 2


def test_pairs_that_cannot_be_written_are_one_sentence(
    model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    recipe = ProtectorRecipe(**FEW, regression_weight=1.0, pairs=1, pair_steps=1)
    with pytest.raises(UnlikenessError, match=r"00000\.safetensors cannot be written"):
        train_protector(recipe, [model], tmp_path / "o.safetensors", work=tmp_path, network=SMALL)


def test_a_masked_batch_trains_and_its_masked_out_region_is_untouched(
    model: TextToImage, tmp_path: Path
) -> None:
    recipe = ProtectorRecipe(**FEW, masked=1.0)
    network = train_protector(recipe, [model], tmp_path / "o.safetensors", work=tmp_path, network=SMALL)
    plane = draw_budgets(recipe, 4, 32, torch.Generator().manual_seed(3))
    with torch.no_grad():
        delta = network(pictures(4), plane)
    assert not delta[(plane == 0).expand_as(delta)].any()
    assert delta[(plane > 1).expand_as(delta)].all()
    empty = Trial(network, [model], recipe)(
        pictures(2), torch.zeros(2, 1, 32, 32), torch.Generator().manual_seed(0)
    )
    assert torch.isfinite(empty)


def test_a_users_own_pictures_take_their_share(model: TextToImage, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.new("RGB", (64, 64), (255, 0, 0)).save(folder / "red.png")
    recipe = ProtectorRecipe(**FEW, photos_share=0.75)
    found = Pictures(recipe, [folder], 40).gather(tmp_path / "pictures")
    drawn = found.draw(200, 16, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 3, 16, 16)
    red = ((drawn - torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)).abs() < 1e-3).flatten(1).all(1)
    assert 0.65 < float(red.float().mean()) < 0.85
    alone = Pictures(ProtectorRecipe(renders=0, leaves=0), [folder], 40)
    alone.gather(tmp_path / "pictures")
    assert (alone.draw(3, 16, torch.Generator().manual_seed(0))[:, 0] > 0.999).all()
    few = ProtectorRecipe(**{**FEW, "steps": 1})
    run = partial(train_protector, few, [model], tmp_path / "o.safetensors", work=tmp_path, network=SMALL)
    run(images=[folder])
    with pytest.raises(UsageError, match="belongs to another run"):
        run()


def test_what_cannot_be_trained_is_said_first(model: TextToImage, tmp_path: Path) -> None:
    nothing = ProtectorRecipe(renders=0, leaves=0)
    run = partial(train_protector, work=tmp_path / "work")
    with pytest.raises(UsageError, match="nothing to learn from"):
        run(nothing, [model], tmp_path / "o.safetensors")
    with pytest.raises(UsageError, match="needs something to protect against"):
        run(ProtectorRecipe(**FEW), [], tmp_path / "o.safetensors")
    with pytest.raises(UsageError, match="is where the checkpoint will be"):
        run(ProtectorRecipe(**FEW), [model], tmp_path / "work" / CHECKPOINT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no picture in"):
        run(nothing, [model], tmp_path / "o.safetensors", images=[tmp_path / "empty"])
    assert not (tmp_path / "work").exists()
    with pytest.raises(UsageError, match="model reads the first 16"):
        Trial(Protector(SMALL), [model], ProtectorRecipe(prompt="dog " * 30))


def test_what_is_asked_wrongly_is_told_before_anything_is_drawn(
    model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, work = ProtectorRecipe(**{**FEW, "steps": 2}), tmp_path / "w"
    train_protector(recipe, [model], tmp_path / "a.safetensors", work=work, network=SMALL)
    monkeypatch.setattr(Pictures, "gather", lambda *_: pytest.fail("pictures were drawn"))
    for wrong, said in (({"seed": 1}, "belongs to another run"), ({"prompt": "a " * 30}, "tokens")):
        other = ProtectorRecipe(**{**FEW, "steps": 2, **wrong})
        folder = work if "seed" in wrong else tmp_path / "new"
        with pytest.raises(UsageError, match=said):
            train_protector(other, [model], tmp_path / "b.safetensors", work=folder, network=SMALL)


def test_pictures_are_named_before_they_are_made(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", (40, 40), (200, 10, 10)).save(own / "a.png")
    for further in ({}, {"renders": 0}, {"renders": 0, "leaves": 0}):
        recipe = ProtectorRecipe(**{**FEW, **further})
        for images in ([], [own]) if recipe.renders or recipe.leaves else ([own],):
            made = Pictures(recipe, images, 16)
            named = made.source
            assert [bank.name for bank in made.gather(tmp_path / "banks").banks] == [
                part.split()[0] for part in named.split(", ")
            ]


def test_damaged_pairs_are_named(model: TextToImage, tmp_path: Path) -> None:
    recipe = ProtectorRecipe(**{**FEW, "steps": 1}, regression_weight=1.0, pairs=2, pair_steps=1)
    train_protector(recipe, [model], tmp_path / "a.safetensors", work=tmp_path / "w", network=SMALL)
    (file,) = (tmp_path / "w" / "pairs").rglob("*.safetensors")
    file.write_bytes(b"")
    (tmp_path / "w" / CHECKPOINT).unlink()
    with pytest.raises(UnlikenessError, match=r"00000\.safetensors is damaged .*; delete it to make it anew"):
        train_protector(recipe, [model], tmp_path / "b.safetensors", work=tmp_path / "w", network=SMALL)
