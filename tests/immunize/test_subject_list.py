"""Several subjects from a YAML file or a folder: what is wrong is told in one sentence."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.tiny import pictures

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.gallery import to_pil
from unlikeness.immunize.subject_list import Listed, listed, load

GOOD = "- images: rex\n  class_noun: dog\n- {images: anna, class_noun: person, identifier: zwx}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("rex", "anna"):
        (tmp_path / name).mkdir()
        to_pil(pictures(1, seed=len(name))[0]).save(tmp_path / name / "0.png")
    return tmp_path


def test_a_file_lists_subjects_with_paths_from_its_own_folder(folder: Path) -> None:
    file = folder / "subjects.yaml"
    file.write_text(GOOD)
    assert listed(file, identifier="t@t") == [
        Listed(folder / "rex", "dog", "t@t"), Listed(folder / "anna", "person", "zwx"),
    ]  # fmt: skip
    dog, person = load(listed(file), size=16)
    assert (dog.instance_prompt, person.instance_prompt) == ("a photo of sks dog", "a photo of zwx person")
    assert dog.images.shape == (1, 3, 16, 16)


def test_an_entry_names_its_own_protective_output(folder: Path) -> None:
    file = folder / "subjects.yaml"
    file.write_text("- {images: rex, class_noun: dog, protective_output: target, target_noun: ' cat '}\n")
    assert listed(file) == [Listed(folder / "rex", "dog", "sks", "target", "cat")]


def test_words_stay_words(folder: Path) -> None:
    file = folder / "subjects.yaml"
    file.write_text("- images: rex\n  class_noun: no\n  identifier: 0017\n")
    assert listed(file) == [Listed(folder / "rex", "no", "0017")]


def test_a_folder_of_folders_lists_subjects(tmp_path: Path) -> None:
    for name in ("dog/rex", "dog/bella", "cat/tom", ".hidden/x", "dog/.thumbnails"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("")
    assert listed(tmp_path, identifier="zwx") == [
        Listed(tmp_path / "cat" / "tom", "cat", "zwx"), Listed(tmp_path / "dog" / "bella", "dog", "zwx"),
        Listed(tmp_path / "dog" / "rex", "dog", "zwx"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no list of subjects"),
        ("[]", "lists no subject"),
        ("images: rex\nclass_noun: dog\n", "no list of subjects"),
        ("- rex\n", "entry 1 is no mapping"),
        (f"{GOOD}- images: rex\n", "entry 3 has no class_noun"),
        ("- class_noun: dog\n", "entry 1 has no images"),
        ("- {images: rex, class_noun: dog, identifer: zwx}\n", "unknown key 'identifer'"),
        ("- {images: rex, class_noun: dog, protective_output: [target]}\n", "output of .* is no word"),
        ("- {images: rex, class_noun: dog, target_noun: 'cat,mug'}\n", "target_noun of .* is no word"),
        ("- {images: rex, class_noun: [dog]}\n", "class_noun of .* is no text"),
        ("- {images: rex, class_noun: }\n", "class_noun of .* is no text"),
        ("- {images: rex, class_noun: dog, class_noun: cat}\n", "stands twice"),
        ("- {images: tex, class_noun: dog}\n", "do not exist"),
        ("- {images: ~nobody-of-this-name/rex, class_noun: dog}\n", "do not exist"),
        (f'- {{images: "{"x" * 5000}", class_noun: dog}}\n', "do not exist"),
        ('- {images: "re\\0x", class_noun: dog}\n', "do not exist"),
        ("- {images: rex", "is no YAML"),
        ("- &a [*a]", "entry 1|no YAML"),
        ("[" * 3000, "is no YAML"),
        (" " * (2**20 + 1), "larger"),
    ],
)
def test_a_wrong_file_is_told_in_one_sentence(folder: Path, text: str, message: str) -> None:
    file = folder / "subjects.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        listed(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_what_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        listed(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="holds no subject"):
        listed(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"- images: \xe9\n")
    with pytest.raises(UsageError, match="is no YAML"):
        listed(tmp_path / "latin.yaml")


scraps = st.sampled_from([
    "- ", "images", "class_noun", "identifier", ": ", "rex", "dog", "\n", "\n  ", "{", "}", "[", "]", ", ",
    "&a ", "*a", "!!python/object/apply:os.getcwd ", "!!int ", "!!timestamp ", "2001-99-99", "<<", "? ", '"',
    "'", "\\0", "|", ">", "%TAG", "---", "...", "\t", "~", "#", "../", "/",
])  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.lists(scraps, max_size=30).map(lambda s: "".join(s).encode()), st.binary(max_size=200)))
@example(GOOD.encode())
@example(b"- !!python/object/apply:os.getcwd []")
@example(b"- !!timestamp 2001-99-99")
@example(b"\xff\xfe-\0")
def test_whatever_is_in_a_file_the_answer_is_subjects_or_one_sentence(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rex").mkdir()
        (folder / "anna").mkdir()
        file = folder / "subjects.yaml"
        file.write_bytes(text)
        try:
            found = listed(file)
        except UnlikenessError as error:
            found, line = [], str(error)
        else:
            line = ""
            assert found
        assert "\n" not in line
        for one in found:
            assert one.images.exists()
            assert one.class_noun.strip()
            assert one.identifier.strip()
