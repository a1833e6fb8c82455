"""One step of a protector's training: what it draws, whom it asks, what it makes of the answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.protect.rid.small import SMALL
from tests.tiny import pictures
from torch import Tensor

from unlikeness.diffusion import Condition, TextToImage
from unlikeness.errors import UsageError
from unlikeness.protect.rid.network import MULTIPLE, Protector
from unlikeness.protect.rid.train.augment import Augment
from unlikeness.protect.rid.train.pairs import Pairs
from unlikeness.protect.rid.train.recipe import ProtectorRecipe
from unlikeness.protect.rid.train.trial import Trial, draw_budgets, draw_side
from unlikeness.viewing import viewed


def test_an_ensemble_gives_each_model_its_own_view_and_embedding(
    model: TextToImage, other: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[tuple[int, ...], Tensor, tuple[int, ...]]] = {}

    def spied(name: str, spied_on: TextToImage) -> None:
        encode, predict = spied_on.autoencoder.encode, spied_on.predict
        views: list[tuple[int, ...]] = []

        def watched_encode(images: Tensor) -> Any:
            views.append(tuple(images.shape))
            return encode(images)

        def watched_predict(z_t: Tensor, t: Tensor, c: Condition) -> Tensor:
            seen[name] = (views[0], c.tokens, tuple(z_t.shape))
            return predict(z_t, t, c)

        monkeypatch.setattr(spied_on.autoencoder, "encode", watched_encode)
        monkeypatch.setattr(spied_on, "predict", watched_predict)

    spied("tiny", model)
    spied("other", other)
    network = Protector(SMALL)
    trial = Trial(network, [model, other], ProtectorRecipe(prompt="a photo of a dog"))
    images = pictures(3, size=48)
    loss = trial(images, torch.tensor([4.0, 8.0, 16.0]), torch.Generator().manual_seed(0))
    torch.autograd.backward(loss)
    assert network.leave.weight.grad is not None
    assert network.leave.weight.grad.abs().max() > 0
    assert trial.raised > 0
    assert (seen["tiny"][0], seen["tiny"][2]) == ((3, 3, 32, 32), (3, 4, 8, 8))
    assert (seen["other"][0], seen["other"][2]) == ((3, 3, 16, 16), (3, 6, 8, 8))
    for name, asked in (("tiny", model), ("other", other)):
        assert torch.equal(seen[name][1], asked.condition(["a photo of a dog"]).expand(3).tokens)


def test_the_loss_of_an_ensemble_is_the_mean_of_its_members(model: TextToImage) -> None:
    plain = ProtectorRecipe(visibility_weight=0, energy_weight=0, sds_weight=0, displacement_weight=1)
    torch.manual_seed(0)
    network = Protector(SMALL)
    torch.nn.init.normal_(network.leave.weight, std=0.1)
    still = Augment(jpeg=0, rescale=0, blur=0, noise=0)
    images, budget = pictures(2), torch.tensor([8.0, 8.0])
    losses = [
        Trial(network, models, plain, augment=still)(images, budget, torch.Generator().manual_seed(0))
        for models in ([model], [model, model, model])
    ]
    assert losses[0] < 0
    assert torch.allclose(losses[0], losses[1])


def test_regression_alone_learns_what_it_is_shown(model: TextToImage) -> None:
    recipe = ProtectorRecipe(
        sds_weight=0, displacement_weight=0, visibility_weight=0, energy_weight=0, regression_weight=1.0
    )
    images = pictures(8)
    pairs = Pairs(images, torch.where(images > 0.5, -1.0, 1.0) * 8 / 255)
    torch.manual_seed(0)
    network = Protector(SMALL)
    trial = Trial(network, [model], recipe, pairs=pairs)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    losses = []
    for i in range(40):
        optimizer.zero_grad()
        loss = trial(images[:2], torch.tensor([8.0, 8.0]), torch.Generator().manual_seed(i))
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(1, abs=1e-3)  # from δ = 0
    assert losses[-1] < 0.5
    with pytest.raises(UsageError, match="regression_weight needs"):
        Trial(network, [model], recipe)


def test_budgets_are_drawn_log_uniformly_and_masks_are_soft() -> None:
    recipe = ProtectorRecipe(masked=0.0)
    generator = torch.Generator().manual_seed(0)
    budget = draw_budgets(recipe, 4000, 16, generator)
    assert budget.shape == (4000,)
    assert budget.min() >= recipe.least_budget - 1e-4
    assert budget.max() <= recipe.most_budget + 1e-4
    middle = (recipe.least_budget * recipe.most_budget) ** 0.5
    assert 0.46 < float((budget < middle).float().mean()) < 0.54
    plane = draw_budgets(ProtectorRecipe(masked=1.0), 64, 48, generator)
    assert plane.shape == (64, 1, 48, 48)
    assert plane.min() == 0
    assert plane.max() <= recipe.most_budget + 1e-4
    share = float((plane == 0).float().mean())
    assert 0.2 < share < 0.8
    soft = (plane > 0) & (plane < plane.amax((1, 2, 3), keepdim=True))
    assert soft.float().mean() > 0.05
    kinds = [draw_budgets(ProtectorRecipe(masked=0.15), 1, 16, generator).ndim for _ in range(400)]
    assert 0.08 < kinds.count(4) / 400 < 0.22


def test_half_of_the_batches_are_at_the_resolution_and_the_others_larger() -> None:
    recipe, generator = ProtectorRecipe(largest_detail=3.0), torch.Generator().manual_seed(0)
    sides = [draw_side(recipe, 64, generator) for _ in range(400)]
    assert set(sides) == set(range(64, 193, MULTIPLE))
    assert 0.4 < sides.count(64) / 400 < 0.65


def test_a_trainers_view_has_the_resolution_on_the_short_side() -> None:
    assert viewed(torch.rand(1, 3, 48, 96), 32).shape == (1, 3, 32, 64)
    assert viewed(torch.rand(1, 3, 20, 10), 32).shape == (1, 3, 64, 32)
    same = torch.rand(1, 3, 32, 40)
    assert viewed(same, 32) is same


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"least_budget": 9.0, "most_budget": 8.0}, "least_budget"),
        ({"most_budget": 17.0}, "at most 16"),
        ({"sds_weight": 0.0, "displacement_weight": 0.0}, "are all 0"),
        ({"average": 1.0}, "average"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ProtectorRecipe(**settings)
