"""How pictures and captions reach a training: filters, buckets, crops, posteriors, prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import pictures, tiny_model
from tests.tiny_xl import tiny_xl

from unlikeness.autoencoders import Posterior
from unlikeness.cli import main
from unlikeness.diffusion.families.sdxl import Sized
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.personalize.data import prepare
from unlikeness.personalize.fitting import bucket, fitted, step_of
from unlikeness.personalize.objective import PersonalizationStep
from unlikeness.personalize.settings import TrainerSettings
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject

NO_PRIOR = TrainerSettings(prior_weight=0.0)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize(("name", "shrinking", "enlarging"), [
    ("bilinear", "BILINEAR", "BILINEAR"), ("bicubic", "BICUBIC", "BICUBIC"),
    ("lanczos", "LANCZOS", "LANCZOS"), ("area", "BOX", "LANCZOS"),
])  # fmt: skip
def test_filters_are_those_of_pillow(name: str, shrinking: str, enlarging: str) -> None:
    for size, how in ((90, shrinking), (20, enlarging)):
        image = photo(size, size)
        ours = fitted(as_tensor(image), 32, 8, fit="square", filter=name)
        theirs = as_tensor(image.resize((32, 32), Image.Resampling[how])).float() / 255
        assert torch.equal(ours, theirs)
    wide = fitted(as_tensor(photo(64, 32)), 32, 8, fit="square", filter=name)
    assert torch.equal(wide, as_tensor(photo(64, 32))[:, :, 16:48].float() / 255)


def test_buckets_keep_the_aspect_within_the_area() -> None:
    assert [step_of(side, unit) for side, unit in ((512, 8), (1024, 16), (64, 4), (32, 4))] == [64, 64, 8, 4]
    assert bucket(600, 600, 512, 64) == (512, 512)
    assert bucket(3000, 4000, 512, 64) == (448, 576)
    assert bucket(4000, 3000, 512, 64) == (576, 448)
    for height, width in ((100, 5000), (5000, 100), (333, 1000), (1080, 1920)):
        h, w = bucket(height, width, 1024, 64)
        assert h * w <= 1024 * 1024
        assert all(n % 64 == 0 and 512 <= n <= 2048 for n in (h, w))
        assert (h < w) == (height < width)


def test_a_photograph_in_its_bucket_is_learnt_beside_square_class_pictures(tmp_path: Path) -> None:
    model = tiny_xl(tmp_path)
    sizes = ((32, 32), (64, 32), (64, 32), (32, 32), (32, 64))
    whole = tuple(as_tensor(photo(*size, seed)) for seed, size in enumerate(sizes))
    subject = Subject(pictures(5), "dog", whole=whole)
    how = TrainerSettings(fit="bucket", filter="area", batch_size=2)
    data = prepare(model, subject, how, prior=model.encode_all(pictures(2)))
    rounds = [data.pictures(i, 2) for i in range(6)]
    assert rounds == [[0, 3], [1, 2], [4, 4], [0, 3], [1, 2], [4, 4]]
    shapes = [tuple(data.draw(i, 2, step_generator(0, i))[0].shape[2:]) for i in range(3)]
    assert shapes[0] == (8, 8)
    assert shapes[1] == shapes[2][::-1] == (5, 11)
    step = PersonalizationStep(model, subject, data, how)
    seen = []
    model.denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0].shape[2:], kwargs["added_cond_kwargs"]["time_ids"])),
        with_kwargs=True,
    )
    assert bool(step(1, step_generator(0, 1)).isfinite())
    (own, sized), (of_class, square) = seen
    assert (tuple(own), sized[0].tolist()) == ((5, 11), [20, 44, 0, 0, 20, 44])
    assert (tuple(of_class), square[0].tolist()) == ((8, 8), [32, 32, 0, 0, 32, 32])
    assert isinstance(model.condition(["a dog"]), Sized)


def test_crops_are_cut_without_resizing(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    image = photo(48, 40)
    subject = Subject(pictures(1), "dog", whole=(as_tensor(image),))
    seen: list[torch.Tensor] = []
    encode = model.encode_all

    def noted(images: torch.Tensor) -> Posterior:
        seen.append(images)
        return encode(images)

    model.encode_all = noted  # type: ignore[method-assign, assignment]
    prepare(model, subject, replace(NO_PRIOR, fit="crop", views=3))
    [views] = seen
    assert views.shape == (3, 3, 32, 32)
    whole = as_tensor(image).float() / 255
    squares = whole.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    found = [[i for i, square in enumerate(squares) if torch.equal(view, square)] for view in views]
    assert all(found)
    assert len({*map(tuple, found)}) > 1


def test_a_cached_sample_and_the_mean_do_not_change_between_steps(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    subject = Subject(pictures(1), "dog")
    fresh, cached, mean = (
        [data.draw(i, 1, step_generator(0, i))[0] for i in (0, 1)]
        for how in ("sample", "cached", "mean")
        for data in [prepare(model, subject, replace(NO_PRIOR, posterior=how))]
    )
    assert not torch.equal(*fresh)
    assert torch.equal(*cached)
    assert torch.equal(*mean)
    assert torch.equal(mean[0], model.encode_all(subject.images).mean)
    assert not torch.equal(mean[0], cached[0])


def test_captions_are_read_beside_pictures_and_name_the_identifier(tmp_path: Path) -> None:
    texts = {"a": "a dog in the\n snow ", "b": "[trigger] asleep", "c": "sks dog, outdoors", "d": None}
    for name, text in texts.items():
        photo(32, 32).save(tmp_path / f"{name}.png")
        if text is not None:
            (tmp_path / f"{name}.txt").write_text(text)
    subject = Subject.from_folder([tmp_path, tmp_path / "a.png"], "dog", size=32, captions=True)
    expected = ["sks a dog in the snow", "sks asleep", "sks dog, outdoors", "a photo of sks dog"]
    assert subject.captioned_prompts == [*expected, expected[0]]
    assert replace(subject, identifier="<sks>").captioned_prompts[1] == "<sks> asleep"
    assert not Subject.from_folder(tmp_path, "dog", size=32).captions
    model = tiny_model(tmp_path / "models")
    for captions in (True, False):
        how = replace(NO_PRIOR, captions=captions, batch_size=2)
        step = PersonalizationStep(model, subject, prepare(model, subject, how), how)
        read: list[torch.Tensor] = []
        hook = model.denoiser.register_forward_pre_hook(
            lambda _, __, kwargs, read=read: read.append(kwargs["encoder_hidden_states"]), with_kwargs=True
        )
        step(1, step_generator(0, 1))
        hook.remove()
        prompts = expected[2:4] if captions else ["a photo of sks dog"] * 2
        assert torch.equal(read[0], model.condition(prompts).tokens)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnlikenessError, match=r"b\.txt is no caption .*; give a short text in UTF-8"):
        Subject.from_folder(tmp_path, "dog", size=32, captions=True)
    with pytest.raises(UsageError, match="2 pictures cannot have 1 captions"):
        Subject(pictures(2), "dog", captions=("one",))


def test_the_command_takes_several_folders_and_a_trainers_preset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(tmp_path).source
    for name, size in (("protected", (48, 32)), ("clean", (32, 32))):
        (tmp_path / name).mkdir()
        photo(*size).save(tmp_path / name / "a.png")
    (tmp_path / "clean" / "a.txt").write_text("a dog")
    command = ["personalize", "--model", str(model), "--class-noun", "dog", "--preset", "kohya-sd", "-q"]
    folders = ["--images", str(tmp_path / "protected"), "--images", str(tmp_path / "clean")]
    short = ["--steps", "2", "--rank", "2", "--output", str(tmp_path / "new")]
    assert main([*command, *folders, *short]) == 0
    assert "a photo of sks dog" in capsys.readouterr().out
    made = json.loads((tmp_path / "new" / "personalization.json").read_text())
    assert made["pictures"] == 2
    assert made["preset"] == "kohya-sd"
    how = {"fit": "bucket", "filter": "area", "posterior": "cached", "captions": True}
    assert how.items() <= made["settings"].items()
