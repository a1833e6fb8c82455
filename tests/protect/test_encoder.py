"""The method `encoder`: what it moves, within which bounds, and against what the command line says."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.autoencoders import tiny_files
from tests.protect.test_tiles import write
from tests.tiny import pictures

from unlikeness import protect
from unlikeness.autoencoders import Autoencoder
from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.measure.patterns import flat_pattern
from unlikeness.protect.aims import Aims, rms
from unlikeness.protect.methods.encoder import Encoder, EncoderSettings, room
from unlikeness.protect.methods.noise import Noise, NoiseSettings
from unlikeness.protect.methods.rid import Rid, RidSettings
from unlikeness.protect.published import preset_of
from unlikeness.protect.settings import ENCODER_PRESETS
from unlikeness.protect.surrogates import Surrogate, Surrogates
from unlikeness.protect.trainers_view import VIEWS, View
from unlikeness.seeds import normal, picture_generators


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny autoencoders of different factors."""
    folder = tmp_path_factory.mktemp("encoders")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return (
            tiny_files.write(folder / "first_encoder.pth", tiny_files.encoder_weights(factor=8)),
            tiny_files.write(folder / "second_encoder.safetensors", tiny_files.encoder_weights(factor=32)),
        )


@pytest.fixture(scope="module")
def both(files: tuple[Path, Path]) -> list[Surrogate]:
    return [Surrogate(Autoencoder.open(file), 64, file.stem) for file in files]


def textured(count: int, size: int = 64) -> torch.Tensor:
    """Pictures with a flat left half and a textured right half."""
    images = pictures(count, size=size) * 0.5 + 0.25
    images[..., : size // 2] = 0.5
    grain = torch.rand(count, 1, size, size // 2, generator=torch.Generator().manual_seed(1)) - 0.5
    images[..., size // 2 :] += 0.4 * grain
    return images


def moved(surrogate: Surrogate, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Distance of the latents, in distances between pictures, [B]."""
    aims = Aims()
    with torch.no_grad():
        return rms(aims.latents(surrogate, after) - aims.latents(surrogate, before)) / aims.spread(surrogate)


def test_it_moves_every_surrogate_more_than_noise_of_its_energy(both: list[Surrogate]) -> None:
    images = textured(2)
    result = Encoder(both, EncoderSettings(flat=1.0)).perturb(images, [0, 1])
    energy = (result - images).square().mean().sqrt()
    noise = Noise(both, NoiseSettings(budget=float(energy) * 255)).perturb(images, [0, 1])
    for surrogate in both:
        assert (moved(surrogate, images, result) > 2 * moved(surrogate, images, noise)).all()


def test_the_change_keeps_to_psnr_and_to_less_where_the_picture_is_flat(both: list[Surrogate]) -> None:
    images = textured(2)
    delta = Encoder(both, EncoderSettings(psnr=34, flat=0.25, steps=6)).perturb(images, [0, 1]) - images
    assert (-10 * delta.square().mean((1, 2, 3)).log10() >= 34 - 1e-3).all()
    assert delta[..., :25].abs().max() <= 2 / 255 + 1e-6
    assert delta.abs().max() > 3 / 255
    assert delta.abs().max() <= 8 / 255 + 1e-6


def test_it_starts_from_the_network_and_leaves_no_pattern_where_the_picture_is_flat(
    both: list[Surrogate],
) -> None:
    images = textured(1, 96)
    network = Rid(None, RidSettings()).perturb(images, [0]) - images
    made = Encoder(both, EncoderSettings(flat=1.0))
    made.begin(images)
    start = made.start(images, picture_generators([0])) - images
    assert float(torch.cosine_similarity(start.flatten(), network.flatten(), 0)) > 0.8
    worst = []
    for flat in (0.1, 1.0):
        result = Encoder(both, EncoderSettings(steps=2, flat=flat)).perturb(images, [0])
        found = flat_pattern(images[0], (result[0] * 255).round() / 255).worst
        assert found is not None
        worst.append(found)
    assert worst[0] <= 1 < worst[1]


def test_the_estimate_counts_views_by_their_pixels(
    both: list[Surrogate], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    plain = Encoder(both[0], EncoderSettings(transforms=False, steps=4))
    assert plain.seconds(64, 10) == pytest.approx(10 * (4 + 0.45))
    views = Encoder(both[0], EncoderSettings(steps=4))
    assert views.seconds(64, 1) < 0.9 * plain.seconds(64, 1) * (4 + 3 * 0.45) / (4 + 0.45)


def test_of_a_model_only_the_autoencoder_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the whole model was opened")

    monkeypatch.setattr(TextToImage, "from_pretrained", refuse)
    (tmp_path / "in").mkdir()
    for i in range(2):
        Image.effect_noise((70, 64), 40 + 40 * i).convert("RGB").save(tmp_path / "in" / f"{i}.png")
    command = ["protect", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", "toybox", "-q"]
    assert main([*command, "--method", "encoder", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert "The protection moves what the encoder of toybox sees" in said
    assert "computed against the toybox's model" in said
    found = Surrogates.apart("toybox")
    assert found is not None
    assert (found.resolution, found[0].model, found[0].toy) == (64, None, True)
    assert Surrogates.apart("owner/name@branch") is None
    (tmp_path / "a.safetensors").touch()
    assert Surrogates.apart(tmp_path / "a.safetensors") is None


def test_room_is_least_where_nothing_hides_a_change() -> None:
    found = room(textured(1), 0.25)
    assert found.shape == (1, 1, 64, 64)
    torch.testing.assert_close(found[..., :25], torch.full((1, 1, 64, 25), 0.25))
    assert found[..., 40:].mean() > 0.9
    assert (room(textured(1), 1.0) == 1).all()
    shading = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert room(shading, 0.25)[..., 8:-8].max() < 0.3


def test_a_picture_without_colour_stays_without_and_does_not_change_its_neighbour(
    both: list[Surrogate],
) -> None:
    images = textured(2)
    images[0] = images[0].mean(0, keepdim=True)
    made = Encoder(both, EncoderSettings(steps=4))
    result = made.perturb(images, [0, 1])
    assert (result[0] - result[0, :1]).abs().max() < 1e-6
    assert (result[1] - images[1]).abs().max() > 1 / 255
    assert (result[1] - images[1] - (result[1] - images[1]).mean(0)).abs().max() > 1 / 255


def test_the_gradient_is_that_of_finite_differences(model: TextToImage) -> None:
    double = model.autoencoder.copy().to(torch.device("cpu"), torch.float64)
    made = Encoder(Surrogate(double, 32), EncoderSettings(transforms=False))
    original = pictures(2).double()
    images = original + 0.02 * normal(original, picture_generators([1, 2]))
    direction, h = normal(images, picture_generators([5, 6])), 1e-5

    def value(at: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return made.objective(made.surrogates[0], at, [])

    made.begin(original)
    gradient = made.gradient(images, [])
    slope = (value(images + h * direction) - value(images - h * direction)) / (2 * h)
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slope, rtol=1e-4, atol=1e-9)


def test_the_objective_target_comes_closer_to_the_farthest_target(both: list[Surrogate]) -> None:
    images, aims = textured(2), Aims()
    surrogate = both[0]
    with torch.no_grad():
        clean = aims.latents(surrogate, images)
        target = aims.farthest(surrogate, clean, 64, 64)
    away = rms(clean - target)
    settings = EncoderSettings(objective="target", transforms=False, flat=1.0, psnr=20, steps=12)
    result = Encoder(surrogate, settings).perturb(images, [0, 1])
    with torch.no_grad():
        assert (rms(aims.latents(surrogate, result) - target) < away).all()


@pytest.mark.parametrize("objective", ["away", "posterior", "target"])
def test_a_picture_depends_on_its_own_seed_for_every_objective(both: list[Surrogate], objective: str) -> None:
    made = Encoder(both, EncoderSettings(objective=objective, steps=3))
    images = textured(3)
    together = made.perturb(images, [10, 11, 12])
    mixed = made.perturb(images[[2, 0, 0]], [12, 10, 7])
    assert torch.equal(mixed[0], together[2])
    assert torch.equal(mixed[1], together[0])
    assert not torch.equal(mixed[2], mixed[1])


def test_pictures_whose_gain_has_stopped_rest_and_the_others_go_on(both: list[Surrogate]) -> None:
    images = textured(2)
    images[0] = 0.0  # black: nothing below it
    seen: list[int] = []
    settings = EncoderSettings(steps=400, transforms=False)
    Encoder(both[1], settings).perturb(images, [0, 1], seen.append)
    assert 2 <= len(seen) < 400
    first = Encoder(both[1], settings).perturb(images[:1].expand(2, -1, -1, -1), [0, 1])
    again = Encoder(both[1], settings).perturb(images, [0, 1])
    assert torch.equal(first[0], again[0])


def test_a_target_picture_is_part_of_the_fingerprint(both: list[Surrogate], tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), (250, 10, 10)).save(tmp_path / "a.png")
    made = Encoder(both, EncoderSettings(objective="target", target=str(tmp_path / "a.png"), steps=2))
    assert len(made.fingerprint.split()) == 4  # two models, a network, a picture
    assert (made.perturb(textured(1), [0]) - textured(1)).abs().max() > 1 / 255
    with pytest.raises(UsageError, match="target must be farthest, grey, zero, pattern or a picture"):
        Encoder(both, EncoderSettings(target="gray"))


def test_views_have_whole_latents_at_the_side_of_the_trainer() -> None:
    images = pictures(2, size=64)
    assert View()(images, 64, 8).shape[-2:] == (64, 64)
    assert View()(images, 96, 8).shape[-2:] == (96, 96)
    assert View(0.75, "area", shift=3)(images, 64, 16).shape[-2:] == (48, 48)
    assert View(1.5)(images, 64, 8).shape[-2:] == (64, 64)
    assert View(1.5)(images, 32, 8).shape[-2:] == (48, 48)
    assert View()(torch.rand(1, 3, 100, 150), 64, 8).shape[-2:] == (64, 96)
    assert View(shift=5, shrunk=0.5)(torch.rand(1, 3, 2, 3), 32, 32).shape[-2:] == (32, 64)
    torch.testing.assert_close(View(flipped=True)(images, 64, 8), images.flip(-1))
    large = torch.rand(1, 3, 128, 192)
    seen = View(1.5, corner=(1, 0))(large, 64, 8)
    assert seen.shape[-2:] == (64, 64)
    torch.testing.assert_close(seen, View(1.5)(large, 64, 8)[..., 32:, :64])
    assert View(1.5, corner=(1, 0)).pixels(128, 192, 64, 8) == 64 * 64
    assert View(0.75).pixels(64, 64, 64, 8) == 48 * 48
    assert View(2.0, corner=(1, 1))(images, 64, 8).shape[-2:] == (64, 64)
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 3, 64, 64)
    assert (View(shrunk=0.5)(stripes, 64, 8) - 0.5).abs().mean() < 0.1
    assert {view.filter for view in VIEWS} == {"bilinear", "bicubic", "area"}


@pytest.mark.parametrize("name", ENCODER_PRESETS)
def test_every_preset_is_made_of_settings(name: str, both: list[Surrogate]) -> None:
    values = preset_of("encoder", name)
    assert set(values) <= {field.name for field in dataclasses.fields(EncoderSettings)}
    made = protect.create("encoder", both, {**values, "steps": 2})
    assert (made.perturb(textured(1), [0]) - textured(1)).abs().max() > 1 / 255


def test_the_command_says_against_what_and_does_not_do_it_twice(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = write(tmp_path / "a.png", 70, 64), tmp_path / "out"
    command = ["protect", str(source), "-o", str(output), "--against", f"{files[0]},{files[1]}"]
    command += ["--steps", "2", "-q", "--psnr", "38"]
    assert main([*command, "--dry-run"]) == 0
    assert "nothing was written; computed against first_encoder" in capsys.readouterr().out
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "1 protected, largest change" in said
    assert "computed against first_encoder" in said
    assert " and second_encoder" in said
    (line,) = (output / "manifest.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["recipe"]["method"] == "encoder"
    assert entry["recipe"]["settings"]["psnr"] == 38
    assert len(entry["recipe"]["fingerprint"].split()) == 3  # with the network that starts
    assert entry["against"]["fingerprints"] == entry["recipe"]["fingerprint"].split()[:2]
    assert entry["psnr"] > 37.5
    assert main(command) == 0
    assert "1 done before" in capsys.readouterr().out


def test_a_method_of_a_denoiser_refuses_autoencoders(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.png", 50, 40)
    command = ["protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--method", "advdm"]
    assert main([*command, "--against", str(files[0])]) == 2
    assert "is only an autoencoder, and this method needs a whole model" in capsys.readouterr().err
