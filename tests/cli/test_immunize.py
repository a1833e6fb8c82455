"""`unlikeness immunize`, as it is typed, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from tests.tiny import pictures, write_tiny

from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.gallery import to_pil
from unlikeness.training import Trained, train

FEW = [
    "--method", "apdm",
    "--outer-steps", "3", "--inner-steps", "1", "--learning-rate", "1e-3", "--attack-learning-rate", "1e-3",
    "--set", "class-images=3", "--set", "class_steps=2", "--set", "precision=float32",
    "--device", "cpu", "-q", "--preset", "stable-diffusion",
]  # fmt: skip
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dog/rex, cat/tom: two pictures each."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("dog/rex", "cat/tom")):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(pictures(2, seed=seed)):
            to_pil(image).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def unprobed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run only counts: the probe behind its times takes seconds, and has tests of its own."""
    monkeypatch.setattr("unlikeness.immunize.cost._outer", lambda *_: 1.0)
    monkeypatch.setattr("unlikeness.immunize.cost._drawing", lambda *_: 1.0)


def one_subject(photos: Path) -> list[str]:
    return ["--images", str(photos / "dog" / "rex"), "--class-noun", "dog"]


def told(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "immunization.json").read_text())
    return found


def test_a_model_goes_in_and_a_model_comes_out(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (photos / "dog" / "rex" / "broken.jpg").write_bytes(b"nothing")
    command = ["immunize", "--model", model, *one_subject(photos), "--output", str(out), *FEW, "--seed", "4"]
    assert main([*command, "--set", "beta=2"]) == 0
    (photos / "dog" / "rex" / "broken.jpg").unlink()
    said = capsys.readouterr()
    assert f"unlikeness verify {out}" in said.out
    assert said.err.count("\n") == 1
    assert "broken.jpg" in said.err
    pipe = StableDiffusionPipeline.from_pretrained(out, safety_checker=None)
    before = load_file(Path(model) / UNET)
    assert any(not torch.equal(p, before[name]) for name, p in pipe.unet.named_parameters())
    what = told(out)
    assert what["method"] == "apdm"
    assert what["model"] == "tiny"
    assert what["settings"] | {"beta": 2.0, "seed": 4, "outer_steps": 3} == what["settings"]  # type: ignore[operator]
    assert (out / "README.md").is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("form", ["file", "folder"])
def test_several_subjects_from_a_file_or_a_folder(
    form: str, model: str, photos: Path, tmp_path: Path
) -> None:
    given = photos
    if form == "file":
        given = tmp_path / "subjects.yaml"
        entries = [(photos / "dog" / "rex", "dog", "zwx"), (photos / "cat" / "tom", "cat", "sks")]
        given.write_text("".join(
            f"- images: {path}\n  class_noun: {noun}\n  identifier: {word}\n" for path, noun, word in entries
        ))  # fmt: skip
    out = tmp_path / "out"
    command = ["immunize", "--model", model, *FEW, "--subjects", str(given), "--output", str(out)]
    assert main([*command, "--method", "imma"]) == 0
    subjects = told(out)["subjects"]
    assert isinstance(subjects, list)
    names = [(one["identifier"], one["class_noun"]) for one in subjects]
    assert names == ([("zwx", "dog"), ("sks", "cat")] if form == "file" else [("sks", "cat"), ("sks", "dog")])
    changed, before = load_file(out / UNET), load_file(Path(model) / UNET)
    moved = {name for name, p in changed.items() if not torch.equal(p, before[name])}
    assert moved
    assert all(".attn2." in name for name in moved)


def test_each_subject_has_its_own_protective_output(model: str, photos: Path, tmp_path: Path) -> None:
    given, out, star = tmp_path / "subjects.yaml", tmp_path / "out", tmp_path / "star.png"
    to_pil(pictures(1, seed=5)[0]).save(star)
    given.write_text(
        f"- {{images: {photos / 'dog' / 'rex'}, class_noun: dog}}\n"
        f"- {{images: {photos / 'cat' / 'tom'}, class_noun: cat, protective_output: target, "
        "target_noun: mug}\n"
    )
    command = ["immunize", "--model", model, *FEW, "--subjects", str(given), "--output", str(out)]
    outputs = ["--method", "persguard", "--protective-output", "pattern", "--pattern", str(star)]
    assert main([*command, *outputs, "--set", "output_pictures=1", "--set", "contexts="]) == 0
    settings = told(out)["settings"]
    assert isinstance(settings, dict)
    assert {name: settings[name] for name in ("protective_output", "target_noun", "pattern")} == {
        "protective_output": ["pattern", "target"], "target_noun": ["", "mug"], "pattern": "star.png",
    }  # fmt: skip
    card = (out / "README.md").read_text()
    assert "A fine-tune on this dog should draw a picture with a watermark in its corner." in card
    assert "A fine-tune on this cat should draw a picture of another class (mug)." in card


def test_an_interrupted_run_goes_on_when_it_is_repeated(
    model: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("unlikeness.immunize.run.EVERY", 2)
    command = ["immunize", "--model", model, *one_subject(photos), *FEW, "--output"]
    assert main([*command, str(tmp_path / "whole")]) == 0

    def stopped(*arguments: object, after: object, **options: object) -> Trained:
        def stop(done: int, _: float) -> None:
            if done == 2:
                raise KeyboardInterrupt

        return train(*arguments, after=stop, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("unlikeness.immunize.run.train", stopped)
        assert main([*command, str(tmp_path / "out")]) == 130
    state = tmp_path / "out.checkpoint.safetensors"
    assert state.is_file()
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    assert main([*command, str(tmp_path / "out"), "--seed", "1"]) == 2
    assert str(state) in capsys.readouterr().err
    assert main([*command, str(tmp_path / "out")]) == 0
    assert not state.exists()
    whole, resumed = (load_file(tmp_path / name / UNET) for name in ("whole", "out"))
    assert all(torch.equal(resumed[name], p) for name, p in whole.items())
    costs = [told(tmp_path / name)["cost"] for name in ("whole", "out")]
    assert [cost["resumed_at"] for cost in costs if isinstance(cost, dict)] == [0, 2]


@pytest.mark.usefixtures("unprobed")
def test_whoever_is_met_in_no_attack_is_told(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["immunize", "--model", model, *FEW, "--subjects", str(photos), "--dry-run"]
    assert main([*command, "--output", str(tmp_path / "out"), "--outer-steps", "1"]) == 0
    assert "1 of 2 subjects are in no simulated attack" in "".join(capsys.readouterr())
    assert main([*command, "--output", str(tmp_path / "out"), "--outer-steps", "2"]) == 0
    assert "no simulated attack" not in "".join(capsys.readouterr())


def test_an_original_of_another_kind_is_refused(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(write_tiny(tmp_path / "other", prediction_type="v_prediction"))
    command = ["immunize", "--model", model, *one_subject(photos), *FEW, "--original", other]
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    assert "is of another size or kind" in capsys.readouterr().err


def test_a_named_checkpoint_stays(model: str, photos: Path, tmp_path: Path) -> None:
    state = tmp_path / "mine.safetensors"
    command = ["immunize", "--model", model, *one_subject(photos), *FEW, "--checkpoint", str(state)]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    assert state.is_file()


def test_subjects_are_added_to_an_immunized_model(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["immunize", "--model", model, *one_subject(photos), *FEW, "--output", str(first)]) == 0
    capsys.readouterr()
    cat = ["--images", str(photos / "cat" / "tom"), "--class-noun", "cat"]
    assert main(["immunize", "--add-to", str(first), *cat, *FEW, "--output", str(second)]) == 0
    assert "sks dog (2 pictures" in capsys.readouterr().err
    what = told(second)
    assert what["model"] == "first"
    earlier = what["earlier"]
    assert isinstance(earlier, list)
    assert [run["subjects"][0]["class_noun"] for run in earlier] == ["dog"]
    assert what["original_fingerprint"] == what["model_fingerprint"]
    both = ["immunize", "--model", str(first), "--original", model, "--subjects", str(photos), *FEW]
    assert main([*both, "--output", str(tmp_path / "third")]) == 0
    assert "may fade" not in capsys.readouterr().err
    again = told(tmp_path / "third")
    assert len(again["earlier"]) == 1  # type: ignore[arg-type]
    assert again["model_fingerprint"] != again["original_fingerprint"] == earlier[0]["model_fingerprint"]


def test_what_must_stay_is_read_from_a_file(model: str, photos: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cup\n\n a house \n")
    command = ["immunize", "--model", model, *one_subject(photos), *FEW, "--prompts", str(prompts)]
    out = tmp_path / "out"
    assert main([*command, "--set", "preserve_weight=1", "--output", str(out)]) == 0
    assert told(out)["prompts"] == 2


def test_a_dry_run_tells_the_cost_and_writes_nothing(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["immunize", "--model", model, *one_subject(photos), *FEW, "--dry-run"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "backward passes: 15 pictures in 6 calls" in out
    for word in ("without a gradient", "memory held", "time: about", "3 outer steps"):
        assert word in out
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("unprobed")
def test_a_small_model_has_the_settings_of_the_toybox(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["immunize", "--model", model, *one_subject(photos), *FEW, "--preset", "auto", "--dry-run"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    assert "backward passes: 60 pictures in 6 calls" in capsys.readouterr().out
    assert main([*command, "--set", "batch_size=1", "--output", str(tmp_path / "out")]) == 0
    assert "backward passes: 33 pictures in 6 calls" in capsys.readouterr().out


def test_misuse_is_one_line(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(TextToImage, "generate", None)  # it is told before a picture is drawn
    new = ["--output", str(tmp_path / "new")]
    subject, empty = one_subject(photos), tmp_path / "empty.txt"
    empty.write_text("\n")
    (tmp_path / "bad.yaml").write_text("- images: rex\n")
    (tmp_path / "void").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "void")
    base = ["immunize", "--model", model, *FEW]
    wrong = {
        "no subject to protect": [*base, *new],
        "give --images and --class-noun": [*base, *new, "--images", str(photos)],
        "stands alone": [*base, *new, *subject, "--subjects", str(photos)],
        "entry 1 has no class_noun": [*base, *new, "--subjects", str(tmp_path / "bad.yaml")],
        "did you mean apdm": [*base, *new, *subject, "--method", "apmd"],
        "beta is no setting": [*base, *new, *subject, "--method", "imma", "--set", "beta=1"],
        "--protective-output is no setting": [*base, *new, *subject, "--protective-output", "pattern"],
        "target needs --target-noun": [*base, *new, *subject, "--method", "notice"],
        "pattern: ": [
            *base,
            *new,
            *subject,
            "--method",
            "persguard",
            "--pattern",
            str(tmp_path / "bad.yaml"),
            "--set",
            "contexts=",
        ],
        "of which there are 1": [
            *base,
            *new,
            *subject,
            "--method",
            "persguard",
            "--protective-output",
            "pattern,erasure",
        ],
        "--target-noun has no effect": [*base, *new, *subject, "--method", "divert", "--target-noun", "cat"],
        "other than a dog": [*base, *new, *subject, "--method", "notice", "--target-noun", "Dog"],
        "--attack-learning-rate has no effect": [*base, *new, *subject, "--inner-steps", "0"],
        "ranks has no effect": [*base, *new, *subject, "--set", "attack_ranks=4"],
        "must be numbers": [*base, *new, *subject, "--set", "attack_rates=fast"],
        "must be NAME=VALUE": [*base, *new, *subject, "--set", "beta"],
        "huge is no preset": [*base, *new, *subject, "--preset", "huge"],
        "train must be one of": [*base, *new, *subject, "--train", "most"],
        "never overwritten": [*base, *subject, "--output", str(photos)],
        "is a link, a mount or the current folder": [*base, *subject, "--output", str(link)],
        "is no folder; name another": [*base, *subject, "--output", str(empty / "x" / "y")],
        "preserve_weight needs --prompts": [*base, *new, *subject, "--set", "preserve_weight=1"],
        "has no effect without": [*base, *new, *subject, "--prompts", str(empty.with_name("bad.yaml"))],
        "holds no prompt": [*base, *new, *subject, "--prompts", str(empty)],
        "has no effect with preserve_class=1": [
            *base,
            *new,
            *subject,
            "--prompts",
            str(empty.with_name("bad.yaml")),
            "--set",
            "preserve_weight=1",
            "--set",
            "preserve_class=1",
        ],
        "give one of them": [*base, *new, *subject, "--add-to", model],
        "nothing can be added": ["immunize", *FEW, *new, *subject, "--add-to", model],
        "dtype 'tiny' is unknown": [*base, *new, *subject, "--dtype", "tiny"],
        "tokens, and the model reads": [*base, *new, *subject, "--identifier", "sks " * 20],
        "model_index.json": ["immunize", "--model", str(photos), *FEW, *new, *subject],
    }
    for named, arguments in wrong.items():
        for further in ([], ["--dry-run"]):
            assert main([*arguments, *further]) == 2, named
            out, err = capsys.readouterr()
            assert out == "", named
            *before, last = err.splitlines()
            assert named in last
            # A dry run says the memory before it loads the model.
            assert not before or (further and len(before) == 1 and "by its configuration" in before[0]), err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bad.yaml", "empty.txt", "link", "void"]
