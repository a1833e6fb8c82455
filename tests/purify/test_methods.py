"""Every purification: what all promise, and what each is for."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import pictures, tiny_model, write_tiny
from tests.tiny_flow import write_flux, write_sd3, write_z_image
from tests.tiny_xl import write_tiny_xl

from unlikeness import purify
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.purify.base import Purifier
from unlikeness.purify.denoising import denoised, unconditional
from unlikeness.purify.jpeg import JpegSettings
from unlikeness.purify.tiles import by_tiles
from unlikeness.seeds import derive, normal, picture_generators

METHODS = [
    "jpeg", "resize", "blur", "noise", "median", "bilateral", "vae", "diffpure", "gridpure", "upscale",
    "impress",
]  # fmt: skip
WITHOUT_SEED = ["jpeg", "resize", "blur", "median", "bilateral", "vae"]
QUICK: Mapping[str, Mapping[str, object]] = {
    "diffpure": {"steps": 2}, "gridpure": {"rounds": 2, "levels": 2}, "impress": {"steps": 1},
    "upscale": {"steps": 2},
}  # fmt: skip
"""Settings with which every test is quick; of other methods, the defaults."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_upscaler(tmp_path_factory.mktemp("upscalers") / "x4")


@pytest.fixture
def made(request: pytest.FixtureRequest, model: TextToImage, upscaler: Path) -> Purifier:
    own = {"upscaler": str(upscaler)} if request.param == "upscale" else {}
    return purify.create(request.param, model, {**QUICK.get(request.param, {}), **own})


def write_upscaler(folder: Path) -> Path:
    """A random upscaler of four times the side, by plain diffusers, from the parts of a Stable Diffusion."""
    parts = diffusers.StableDiffusionPipeline.from_pretrained(write_tiny(folder.with_name("parts")))
    torch.manual_seed(1)
    unet = diffusers.UNet2DConditionModel.from_config(
        parts.unet.config, in_channels=7, num_class_embeds=350  # the latent, the small picture, its noise
    )
    diffusers.StableDiffusionUpscalePipeline(
        vae=parts.vae, text_encoder=parts.text_encoder, tokenizer=parts.tokenizer, unet=unet,
        low_res_scheduler=diffusers.DDPMScheduler(), scheduler=diffusers.DDIMScheduler(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def washed(name: str, image: torch.Tensor, settings: Mapping[str, object] | None = None) -> torch.Tensor:
    return purify.create(name, settings=settings).purify(image, [0])


def grainy(count: int) -> torch.Tensor:
    """Pictures with everything in them: smooth parts, grain, both ends of the range."""
    images = pictures(count, seed=2)
    images = images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    images[..., :4, :4], images[..., -4:, -4:] = 0, 1
    return images.clamp(0, 1)


def test_every_method_is_tested_here() -> None:
    assert purify.names() == METHODS


@pytest.mark.parametrize("made", METHODS, indirect=True)
@pytest.mark.parametrize("size", [(32, 32), (17, 30), (1, 3)])
def test_a_picture_comes_back_in_its_size_and_range(made: Purifier, size: tuple[int, int]) -> None:
    images = grainy(2)[..., : size[0], : size[1]].requires_grad_(True)
    kept = images.detach().clone()
    result = made.purify(images, [1, 2])
    assert result.shape == images.shape
    assert result.dtype == torch.float32
    assert 0 <= result.min() <= result.max() <= 1
    assert not result.requires_grad
    assert torch.equal(images, kept)
    assert made.purify(images.double(), [1, 2]).dtype == torch.float64


@pytest.mark.parametrize("made", METHODS, indirect=True)
def test_a_picture_depends_on_itself_and_its_seed_alone(made: Purifier) -> None:
    images = grainy(3)
    together = made.purify(images, [5, 6, 7])
    torch.manual_seed(99)
    assert torch.equal(made.purify(images, [5, 6, 7]), together)
    assert torch.equal(made.purify(images[[2, 0]], [7, 5]), together[[2, 0]])
    assert torch.equal(made.purify(images[1:2], [6]), together[1:2])
    assert not torch.equal(together, images)


@pytest.mark.parametrize("made", WITHOUT_SEED, indirect=True)
def test_a_method_that_draws_nothing_needs_no_seed(made: Purifier) -> None:
    assert torch.equal(made.purify(grainy(1), [5]), made.purify(grainy(1), [6]))


@pytest.mark.parametrize("made", METHODS, indirect=True)
def test_wrong_shapes_are_usage_errors(made: Purifier) -> None:
    with pytest.raises(UsageError, match="one seed a picture: 2 pictures, 1 seeds"):
        made.purify(pictures(2), [0])
    with pytest.raises(UsageError, match=r"\[B, 3, H, W\]"):
        made.purify(pictures(2)[0], [0])


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_documented_and_strict(name: str, model: TextToImage) -> None:
    found = purify.method(name)
    assert found.__doc__
    for field in dataclasses.fields(found.settings_type):
        assert field.metadata["doc"].endswith(".")
        assert field.metadata["unit"] or field.type == "str"
        assert field.metadata["source"]
    assert found.settings_type.main in {field.name for field in dataclasses.fields(found.settings_type)}
    with pytest.raises(UsageError, match="no_such is no setting"):
        purify.create(name, model, {"no_such": 1})


def test_jpeg_is_pillows() -> None:
    image = grainy(1)
    rgb = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    lost = []
    for quality in (75, 50, 10):
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "JPEG", quality=quality)
        wanted = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
        result = washed("jpeg", image, {"quality": quality})
        assert torch.equal(result, wanted)
        lost.append(float((result - image).abs().mean()))
    assert torch.equal(washed("jpeg", image), washed("jpeg", image, {"quality": 75}))
    assert lost[0] < lost[1] < lost[2]


def test_resizing_removes_what_is_fine_and_keeps_what_is_smooth() -> None:
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board = ((rows + columns) % 2 * 2.0 - 1.0) * 0.1
    smooth = 0.2 + 0.6 * pictures(1)
    result = washed("resize", smooth + board)
    assert (result - smooth)[..., 4:-4, 4:-4].abs().mean() < 0.01
    assert (washed("resize", smooth + board, {"factor": 1}) - smooth).abs().mean() > 0.09
    ramp = torch.linspace(0.1, 0.9, 32).expand(1, 3, 32, 32)
    assert (washed("resize", ramp) - ramp).abs().max() < 0.03


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_blur_spreads_a_point_as_a_gaussian_of_its_width(sigma: float) -> None:
    point = torch.zeros(1, 3, 41, 41)
    point[..., 18:23, 18:23] = 1  # larger than a point, so that 8 bits can show its slopes
    result = washed("blur", point, {"sigma": sigma})
    assert abs(float(result.sum() / point.sum()) - 1) < 0.05
    profile = result[0, 0].sum(0) / result[0, 0].sum()
    variance = float((profile * (torch.arange(41) - 20) ** 2).sum())
    assert abs(variance - 2 - sigma**2) < 0.1 * (2 + sigma**2)  # a box of 5 has a variance of 2
    assert torch.equal(washed("blur", point, {"sigma": 0}), point)


def test_noise_has_its_strength_and_a_seed() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    made = purify.create("noise", settings={"sigma": 4})
    noise = made.purify(grey, [1, 2]) - grey
    assert abs(float(noise.std() * 255) - 4) < 0.1
    assert abs(float(noise.mean() * 255)) < 0.1
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(*made.purify(grey, [3, 3]))


def test_median_removes_specks_and_keeps_edges() -> None:
    edge = torch.full((1, 3, 16, 16), 51 / 255)
    edge[..., 8:] = 204 / 255
    specks = edge.clone()
    specks[..., 3, 3] = specks[..., 12, 5] = 1
    specks[..., 4, 12] = 0
    assert torch.equal(washed("median", specks), edge)
    with pytest.raises(UsageError, match="size must be odd"):
        washed("median", edge, {"size": 4})


def test_vae_decodes_the_posteriors_mean(model: TextToImage) -> None:
    images = pictures(2)
    with torch.no_grad():
        wanted = model.decode(model.encode(images).mean)
    torch.testing.assert_close(purify.create("vae", model).purify(images, [0, 1]), wanted)
    images[..., 30:, :] = images[..., 29:30, :]
    whole, odd = (purify.create("vae", model).purify(x, [0, 1]) for x in (images, images[..., :30, :]))
    assert torch.equal(odd, whole[..., :30, :])
    alone = purify.create("vae", model.autoencoder)
    assert torch.equal(alone.purify(images, [0, 1]), whole)
    with pytest.raises(UsageError, match="vae needs a model or an autoencoder"):
        purify.create("vae")


def test_an_autoencoder_is_opened_by_its_name(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model") / "vae"
    named = purify.create("vae", settings={"autoencoder": str(folder)})
    model = TextToImage.from_pretrained(tmp_path / "model", device="cpu")
    assert torch.equal(named.purify(pictures(1), [0]), purify.create("vae", model).purify(pictures(1), [0]))
    with pytest.raises(UsageError, match="diffpure needs a whole model"):
        purify.create("diffpure", model.autoencoder)


def test_upscaling_is_diffusers_own_and_comes_back_by_area_averages(upscaler: Path) -> None:
    image = pictures(1, size=8)
    done = washed("upscale", image, {"upscaler": str(upscaler), "sigma": 0, "steps": 3})
    pipeline = diffusers.StableDiffusionUpscalePipeline.from_pretrained(upscaler)
    source = picture_generators([derive(0, 0)])
    normal(image, source)  # the noise before, of which sigma 0 takes nothing
    large = pipeline(
        prompt="", image=image * 2 - 1, num_inference_steps=3, guidance_scale=1.0, generator=source[0],
        output_type="pt",
    ).images  # fmt: skip
    assert large.shape[-1] == 32
    torch.testing.assert_close(done, torch.nn.functional.avg_pool2d(large, 4))


def test_an_upscaler_is_a_pipeline_of_that_class(upscaler: Path, tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "model")
    custom = json.loads((upscaler / "model_index.json").read_text()) | {"unet": ["mine", "Unet"]}
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "model_index.json").write_text(json.dumps(custom))
    for name, words in {
        "": "upscale needs an upscaler",
        "./nowhere": "no folder here",
        str(model): "is a StableDiffusionPipeline, no StableDiffusionUpscalePipeline",
        str(tmp_path): "has no model_index.json",
        str(tmp_path / "custom"): "lacks a usable unet",
    }.items():
        with pytest.raises(UsageError, match=words):
            purify.create("upscale", settings={"upscaler": name})


def test_tiles_cover_a_picture_and_leave_no_seams() -> None:
    image = torch.rand(3, 50, 83, generator=torch.Generator().manual_seed(0))
    seen = []

    def same(tile: torch.Tensor, number: int) -> torch.Tensor:
        seen.append((number, tuple(tile.shape)))
        return tile

    result = by_tiles(image, same, side=35, cell=8, overlap=8)
    torch.testing.assert_close(result, image)
    assert seen == [(number, (1, 3, 32, 32)) for number in range(2 * 4)]
    constant = by_tiles(image, lambda tile, number: torch.full_like(tile, number), side=32, cell=8, overlap=8)
    assert (constant.diff(dim=2)[0, 0] <= 1 / 8).all()  # a step of 1 is spread over the overlap


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_the_denoiser_takes_all_noise_away_when_it_knows_the_picture(
    kind: str, model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "flow":
        model = TextToImage.from_pretrained(write_flux(tmp_path), device="cpu")
    else:
        monkeypatch.setattr(model, "schedule", replace(model.schedule, prediction_type=kind))
    tile = pictures(1, size=model.resolution)
    z0 = model.encode(tile).mean
    levels = []

    def knows(z_t: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
        levels.append(int(t))
        return model.schedule.answer(z0, z_t, t)

    monkeypatch.setattr(model, "predict", knows)
    condition = unconditional(model)
    result = denoised(model, tile, condition, levels=40, steps=5, seed=1, number=0)
    torch.testing.assert_close(result, model.decode(z0), atol=1e-3, rtol=0)
    assert levels == [39, 29, 20, 10, 0]
    levels.clear()
    denoised(model, tile, condition, levels=3, steps=9, seed=1, number=0)
    assert levels == [2, 1, 0]


@pytest.mark.parametrize("write", [write_flux, write_sd3, write_z_image, write_tiny_xl])
def test_families_of_every_kind_purify_by_diffusion(write: Callable[[Path], Path], tmp_path: Path) -> None:
    model = TextToImage.from_pretrained(write(tmp_path), device="cpu")
    images = pictures(1, size=model.resolution)[..., 3:, :]
    result = purify.create("diffpure", model, QUICK["diffpure"]).purify(images, [0])
    assert result.shape == images.shape
    assert (result - images).abs().max() > 0.01


def test_more_rounds_and_more_noise_move_a_picture_further(model: TextToImage) -> None:
    image = pictures(1)

    def moved(name: str, **settings: object) -> float:
        done = purify.create(name, model, settings).purify(image, [0])
        trip = purify.create("vae", model).purify(image, [0])
        return float((done - trip).abs().mean())

    assert moved("diffpure", strength=0.01, steps=2) < moved("diffpure", strength=0.9, steps=2)
    still = purify.create("gridpure", model, {"rounds": 2, "gamma": 1.0}).purify(image, [0])
    torch.testing.assert_close(still, image)


def test_impress_finds_a_picture_nearby_that_the_autoencoder_keeps(model: TextToImage) -> None:
    image = pictures(1)

    def lost(picture: torch.Tensor) -> float:
        again = model.decode(model.encode(picture).mean)
        return float((again - picture).square().mean().detach())

    free = {"noise": 0.0, "learning_rate": 0.05, "steps": 8, "alpha": 0.0}
    loose = purify.create("impress", model, free).purify(image, [0])
    bound = purify.create("impress", model, {**free, "alpha": 100.0, "distance": 0.0}).purify(image, [0])
    assert lost(loose) < 0.8 * lost(image)
    assert (bound - image).abs().mean() < 0.8 * (loose - image).abs().mean()
    assert all(weight.grad is None for weight in model.autoencoder.network.parameters())


def test_bilateral_removes_what_is_faint_and_keeps_edges() -> None:
    edge = torch.full((1, 3, 16, 24), 51 / 255)
    edge[..., 12:] = 204 / 255
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    board = ((rows + columns) % 2 * 2.0 - 1.0) * (4 / 255)
    result = washed("bilateral", edge + board)
    assert (result - edge)[..., 4:-4, 4:-4].abs().max() < 0.3 * (4 / 255)
    torch.testing.assert_close(washed("bilateral", edge), edge)
    wide = washed("bilateral", edge, {"colour": 255})
    assert (wide - edge).abs().max() > 0.1


def test_a_bilateral_filter_works_band_by_band(monkeypatch: pytest.MonkeyPatch) -> None:
    image = grainy(1)
    whole = washed("bilateral", image)
    monkeypatch.setattr("unlikeness.purify.bilateral._BAND_PIXELS", 5 * 32)
    assert torch.equal(washed("bilateral", image), whole)


def test_half_precision_autoencoders_give_pictures_too(tmp_path: Path) -> None:
    half = tiny_model(tmp_path, dtype="float16")
    result = purify.create("vae", half).purify(pictures(1), [0])
    assert result.dtype == torch.float32
    assert result.isfinite().all()


def test_unknown_methods_and_settings_of_others_are_refused() -> None:
    with pytest.raises(UsageError, match=r"jpg is no purification \(did you mean jpeg\?\)"):
        purify.create("jpg")
    with pytest.raises(UsageError, match="needs BlurSettings, not JpegSettings"):
        purify.create("blur", settings=JpegSettings())


def test_another_package_can_add_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        "outside": EntryPoint("outside", "unlikeness.purify.blur:Blur", purify.METHODS.group),
        "wrong": EntryPoint("wrong", "unlikeness.errors:UsageError", purify.METHODS.group),
    }
    monkeypatch.setattr(purify.METHODS, "outside", lambda: entries)
    assert purify.names() == [*METHODS, "outside", "wrong"]
    assert not torch.equal(washed("outside", grainy(1)), grainy(1))
    with pytest.raises(UnlikenessError, match="wrong has no settings_type"):
        purify.method("wrong")
