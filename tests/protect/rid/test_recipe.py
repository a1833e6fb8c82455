"""Training a protector: from end to end on tiny models, resumed, against an ensemble, by regression."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from tests.tiny import PIXELS, pictures
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.progress import Silent
from unlikeness.protect.advdm import AdvDM
from unlikeness.protect.rid import recipe as rid
from unlikeness.protect.rid.augment import Augment, AugmentSettings
from unlikeness.protect.rid.network import MULTIPLE, NetworkSettings, Protector
from unlikeness.protect.rid.recipe import ProtectorRecipe, Trial, train_protector
from unlikeness.protect.rid.regression import Pairs
from unlikeness.protect.rid.weights import load_protector
from unlikeness.training import train

SMALL = NetworkSettings(fine=4, middle=6, coarse=8)
FEW: dict[str, Any] = {
    "steps": 5,
    "batch_size": 2,
    "renders": 3,
    "leaves": 3,
    "warmup": 1,
    "learning_rate": 0.01,
}


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


@pytest.fixture(scope="module")
def other(model: TextToImage) -> TextToImage:
    """A model of another resolution (16 px), other latents (6 channels), another text encoder's width."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8), layers_per_block=1, latent_channels=6, norm_num_groups=4,
            sample_size=16, scaling_factor=0.5,
        )  # fmt: skip
        unet = diffusers.UNet2DConditionModel(
            sample_size=8, in_channels=6, out_channels=6, layers_per_block=1, block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=24, attention_head_dim=4, norm_num_groups=4,
        )  # fmt: skip
        text_encoder = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=200, hidden_size=24, intermediate_size=32, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=16, bos_token_id=194, eos_token_id=195,
                pad_token_id=195,
            )
        )  # fmt: skip
    made = TextToImage(
        vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=model.tokenizer, scheduler=model.scheduler
    )
    assert (made.resolution, made.latent_shape) == (16, (6, 8, 8))
    return made.freeze()


def test_a_training_writes_weights_that_load(model: TextToImage, tmp_path: Path) -> None:
    recipe = ProtectorRecipe(**FEW, sds_weight=0.5)
    output = tmp_path / "new" / "ours.safetensors"
    before = torch.get_rng_state()
    wants = [p.requires_grad for p in model.unet.parameters()]
    made = train_protector(recipe, [model], output, work=tmp_path / "w", network=SMALL, names=["tiny"])
    assert torch.equal(torch.get_rng_state(), before)
    assert [p.requires_grad for p in model.unet.parameters()] == wants
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
    monkeypatch.setattr(rid, "train", partial(train, every=2))
    recipe = ProtectorRecipe(**FEW)
    whole = train_protector(recipe, [model], tmp_path / "a.safetensors", work=tmp_path / "a", network=SMALL)
    again = partial(train_protector, recipe, [model], tmp_path / "b.safetensors", work=tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        again(network=SMALL, progress=Killed(3))
    assert (tmp_path / "b" / rid.CHECKPOINT).is_file()
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


def test_an_ensemble_gives_each_model_its_own_view_and_embedding(
    model: TextToImage, other: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[tuple[int, ...], Tensor, tuple[int, ...]]] = {}

    def spied(name: str, spied_on: TextToImage) -> None:
        encode, predict = spied_on.encode, spied_on.predict
        views: list[tuple[int, ...]] = []

        def watched_encode(images: Tensor) -> Any:
            views.append(tuple(images.shape))
            return encode(images)

        def watched_predict(z_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
            seen[name] = (views[0], c, tuple(z_t.shape))
            return predict(z_t, t, c)

        monkeypatch.setattr(spied_on, "encode", watched_encode)
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
        assert torch.equal(seen[name][1], asked.embed(["a photo of a dog"]).expand(3, -1, -1))


def test_the_loss_of_an_ensemble_is_the_mean_of_its_members(model: TextToImage) -> None:
    plain = ProtectorRecipe(visibility_weight=0, energy_weight=0, sds_weight=0, displacement_weight=1)
    torch.manual_seed(0)
    network = Protector(SMALL)
    torch.nn.init.normal_(network.leave.weight, std=0.1)
    still = Augment(AugmentSettings(jpeg=0, rescale=0, blur=0, noise=0))
    images, budget = pictures(2), torch.tensor([8.0, 8.0])
    losses = [
        Trial(network, models, plain, augment=still)(images, budget, torch.Generator().manual_seed(0))
        for models in ([model], [model, model, model])
    ]
    assert losses[0] < 0
    assert torch.allclose(losses[0], losses[1])


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
    (tmp_path / rid.CHECKPOINT).unlink()
    run()
    assert len(made) == 2


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


def test_a_masked_batch_trains_and_its_masked_out_region_is_untouched(
    model: TextToImage, tmp_path: Path
) -> None:
    recipe = ProtectorRecipe(**FEW, masked=1.0)
    network = train_protector(recipe, [model], tmp_path / "o.safetensors", work=tmp_path, network=SMALL)
    plane = rid.draw_budgets(recipe, 4, 32, torch.Generator().manual_seed(3))
    with torch.no_grad():
        delta = network(pictures(4), plane)
    assert not delta[(plane == 0).expand_as(delta)].any()
    assert delta[(plane > 1).expand_as(delta)].all()
    empty = Trial(network, [model], recipe)(
        pictures(2), torch.zeros(2, 1, 32, 32), torch.Generator().manual_seed(0)
    )
    assert torch.isfinite(empty)


def test_budgets_are_drawn_log_uniformly_and_masks_are_soft() -> None:
    recipe = ProtectorRecipe(masked=0.0)
    generator = torch.Generator().manual_seed(0)
    budget = rid.draw_budgets(recipe, 4000, 16, generator)
    assert budget.shape == (4000,)
    assert budget.min() >= recipe.least_budget - 1e-4
    assert budget.max() <= recipe.most_budget + 1e-4
    middle = (recipe.least_budget * recipe.most_budget) ** 0.5
    assert 0.46 < float((budget < middle).float().mean()) < 0.54
    plane = rid.draw_budgets(ProtectorRecipe(masked=1.0), 64, 48, generator)
    assert plane.shape == (64, 1, 48, 48)
    assert plane.min() == 0
    assert plane.max() <= recipe.most_budget + 1e-4
    share = float((plane == 0).float().mean())
    assert 0.2 < share < 0.8
    soft = (plane > 0) & (plane < plane.amax((1, 2, 3), keepdim=True))
    assert soft.float().mean() > 0.05
    kinds = [rid.draw_budgets(ProtectorRecipe(masked=0.15), 1, 16, generator).ndim for _ in range(400)]
    assert 0.08 < kinds.count(4) / 400 < 0.22


def test_half_of_the_batches_are_at_the_resolution_and_the_others_larger() -> None:
    recipe, generator = ProtectorRecipe(largest_detail=3.0), torch.Generator().manual_seed(0)
    sides = [rid.draw_side(recipe, 64, generator) for _ in range(400)]
    assert set(sides) == set(range(64, 193, MULTIPLE))
    assert 0.4 < sides.count(64) / 400 < 0.65


def test_a_trainers_view_has_the_resolution_on_the_short_side() -> None:
    assert rid.viewed(torch.rand(1, 3, 48, 96), 32).shape == (1, 3, 32, 64)
    assert rid.viewed(torch.rand(1, 3, 20, 10), 32).shape == (1, 3, 64, 32)
    same = torch.rand(1, 3, 32, 40)
    assert rid.viewed(same, 32) is same


def test_a_users_own_pictures_take_their_share(model: TextToImage, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.new("RGB", (64, 64), (255, 0, 0)).save(folder / "red.png")
    recipe = ProtectorRecipe(**FEW, photos_share=0.75)
    found = rid.gather(recipe, [folder], 40, tmp_path / "pictures", None)
    drawn = found.draw(200, 16, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 3, 16, 16)
    red = ((drawn - torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)).abs() < 1e-3).flatten(1).all(1)
    assert 0.65 < float(red.float().mean()) < 0.85
    alone = rid.gather(ProtectorRecipe(renders=0, leaves=0), [folder], 40, tmp_path / "pictures", None)
    assert (alone.draw(3, 16, torch.Generator().manual_seed(0))[:, 0] > 0.999).all()
    few = ProtectorRecipe(**{**FEW, "steps": 1})
    run = partial(train_protector, few, [model], tmp_path / "o.safetensors", work=tmp_path, network=SMALL)
    run(images=[folder])
    with pytest.raises(UsageError, match="belongs to another run"):
        run()


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


def test_what_cannot_be_trained_is_said_first(model: TextToImage, tmp_path: Path) -> None:
    nothing = ProtectorRecipe(renders=0, leaves=0)
    run = partial(train_protector, work=tmp_path / "work")
    with pytest.raises(UsageError, match="nothing to learn from"):
        run(nothing, [model], tmp_path / "o.safetensors")
    with pytest.raises(UsageError, match="needs a model"):
        run(ProtectorRecipe(**FEW), [], tmp_path / "o.safetensors")
    with pytest.raises(UsageError, match="is where the checkpoint will be"):
        run(ProtectorRecipe(**FEW), [model], tmp_path / "work" / rid.CHECKPOINT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no picture in"):
        run(nothing, [model], tmp_path / "o.safetensors", images=[tmp_path / "empty"])
    assert not (tmp_path / "work").exists()
    with pytest.raises(UsageError, match="model reads the first 16"):
        Trial(Protector(SMALL), [model], ProtectorRecipe(prompt="dog " * 30))
