"""A class noun that a model does not know is reported before long work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import write_tiny, write_tokenizer

from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.vocabulary import check_noun, only_nouns, unknown_in
from unlikeness.errors import UsageError
from unlikeness.gallery import to_pil
from unlikeness.toybox.cast import member
from unlikeness.toybox.weights import model_path


def tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def toybox() -> Any:
    return tokenizer(model_path() / "tokenizer")


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Bytes and a few words, as in Stable Diffusion: an unknown word falls into pieces."""
    folder = tmp_path_factory.mktemp("tokenizers") / "open"
    write_tokenizer(folder)
    letters = [*map(chr, range(33, 127)), *map(chr, range(161, 173)), *map(chr, range(174, 256))]
    letters += [chr(256 + i) for i in range(68)]  # GPT-2's alphabet of bytes
    merges = ["d o", "do g</w>", "s c", "sc h", "sch n", "a u", "z e", "ze r</w>", "schn au"]
    merges += ["b a", "c k", "c k</w>", "ba ck", "p a", "pa ck</w>", "back pack</w>"]
    vocab = [*letters, *(letter + "</w>" for letter in letters)]
    vocab += [merge.replace(" ", "") for merge in merges]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return tokenizer(folder)


def test_the_toybox_knows_the_nouns_of_its_world_alone(toybox: Any, open_to_all: Any) -> None:
    assert only_nouns(toybox) == ("person", "dog", "cat", "robot", "backpack", "mug")
    assert only_nouns(open_to_all) == ()
    for noun in ("dog", "Dog", " mug ", "red mug", "Red Mug"):
        assert check_noun(toybox, noun, "--class-noun") is None
    for noun in ("horse", "dogs", "robt", "snow", "dog.", "狗", "dog😂", "mug red", "zq mug", "q" * 300):
        with pytest.raises(UsageError, match=r"^--class-noun .* which draws only person, dog, cat, robot, "):
            check_noun(toybox, noun, "--class-noun")
    for noun, near in (("robt", "robot"), ("Dogs", "dog"), ("rucksackpack", "backpack")):
        with pytest.raises(UsageError, match=rf"did you mean {near}\?"):
            check_noun(toybox, noun, "--class-noun")


def test_what_falls_into_letters_is_told_and_not_refused(open_to_all: Any) -> None:
    for noun in ("dog", "Schnauzer", "dog schnauzer", "R2-D2", "x"):
        assert check_noun(open_to_all, noun, "--class-noun") is None
    for noun in ("xqzvw", "狗", "собака", "🦊", "dog xqzvw"):
        told = check_noun(open_to_all, noun, "--class-noun")
        assert told is not None
        assert told.startswith("--class-noun ")
        assert "pieces of a letter or so" in told
    assert "did you mean backpack?" in str(check_noun(open_to_all, "bckpck", "--class-noun"))


def test_what_no_token_stands_for_is_refused(tmp_path: Path, open_to_all: Any) -> None:
    write_tokenizer(tmp_path / "ascii")
    with pytest.raises(UsageError, match="has letters that the model's tokenizer cannot read"):
        check_noun(tokenizer(tmp_path / "ascii"), "狗", "target_noun")
    with pytest.raises(UsageError, match="is no UTF-8 text"):
        check_noun(open_to_all, "\udcff", "--class-noun")


def test_a_prompt_that_names_nothing_of_the_world(toybox: Any, open_to_all: Any) -> None:
    for prompt in ("a photo of sks dog", "Two Cats and a Mug", "", "sks robot in the snow"):
        assert unknown_in(toybox, prompt) is None
    assert "did you mean robot?" in str(unknown_in(toybox, "a photo of sks robots"))
    assert "names nothing that the toybox draws" in str(unknown_in(toybox, "a horse in the snow"))
    assert unknown_in(open_to_all, "a horse") is None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    images = member(3, "mug").subject(2).images
    for name in ("images", "others/horse/bo", "subjects/dgo/rex"):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(images):
            to_pil(image).save(folder / name / f"{i}.png")
    (folder / "list.yaml").write_text(
        "- {images: images, class_noun: mug}\n- {images: images, class_noun: robbot, identifier: zwx}\n"
    )
    return folder


def test_every_command_says_so_before_its_work(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = TextToImage.from_pretrained("toybox", device="cpu")  # once for all commands
    monkeypatch.setattr(TextToImage, "from_pretrained", lambda *_, **__: loaded)
    images, new = ["--images", str(home / "images")], ["--output", str(tmp_path / "new"), "-q"]
    immunize = ["immunize", "--model", "toybox", *new]
    cases = {
        "--class-noun 'horse'": [
            ["personalize", *images, "--class-noun", "horse", *new],
            [*immunize, *images, "--class-noun", "horse"],
            [*immunize, *images, "--class-noun", "horse", "--dry-run"],
            ["verify", "toybox", *images, "--class-noun", "horse", *new],
            ["toybox", "render", "--class-noun", "horse", *new[:2]],
        ],
        "target_noun 'kat'": [
            [*immunize, *images, "--class-noun", "mug", "--method", "notice", "--protective-output", "target",
             "--target-noun", "kat"],
        ],
        "list.yaml, subject 2: class noun 'robbot'": [[*immunize, "--subjects", str(home / "list.yaml")]],
        "subject 1: class noun 'dgo'": [[*immunize, "--subjects", str(home / "subjects")]],
        "others: class noun 'horse'": [
            ["verify", "toybox", *images, "--class-noun", "mug", *new, "--unprotected", str(home / "others")],
        ],
        "--unrelated-noun 'horse'": [
            ["verify", "toybox", *images, "--class-noun", "mug", *new, "--unrelated", str(home / "images"),
             "--unrelated-noun", "horse"],
        ],
    }  # fmt: skip
    for named, commands in cases.items():
        for command in commands:
            assert main(command) == 2, command
            out, err = capsys.readouterr()
            costs = 3 * ("--dry-run" in command)  # lines on memory and time, before the model is loaded
            assert (out, err.count("\n")) == ("", 1 + costs)
            assert named in err
            assert "is no class noun of the toybox, which draws only person, dog, " in err
    assert not (tmp_path / "new").exists()


def test_generate_and_personalize_tell_and_go_on(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = ["generate", "--prompt", "a robbot", "--count", "1", "--steps", "1", "-q"]
    assert main([*drawn, "--output", str(tmp_path / "drawn")]) == 0
    assert "names nothing that the toybox draws" in (err := capsys.readouterr().err)
    assert "did you mean robot?" in err
    tiny = write_tiny(tmp_path / "tiny")
    tuned = ["personalize", "--model", str(tiny), "--images", str(home / "images"), "--class-noun", "mug"]
    tuned += ["--steps", "1", "--class-images", "0", "--output", str(tmp_path / "tuned"), "-q"]
    assert main(tuned) == 0
    assert "--class-noun 'mug' falls into 3 pieces" in capsys.readouterr().err
