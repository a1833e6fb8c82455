"""Untrusted JSON and YAML: read, or refused with a reason, in bounded time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from unlikeness.demo.page import check_own as page_check_own
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, parse_json, parse_yaml, read, reason
from unlikeness.immunize import card, record
from unlikeness.immunize.subject_list import listed
from unlikeness.protect.files.manifest import NAME, Manifest
from unlikeness.verify.certificate import check_own, sign

DEEP = '{"a":' * 200_000
BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)
"""Seven levels of aliases: a few hundred bytes that stand for nine million values."""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (DEEP, "nested too deeply"),
        ("[" * 200_000, "nested too deeply"),
        ("[" * 70 + "]" * 70, "nested too deeply"),
        ("", "no JSON"),
        ("{", "no JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' twice"),
        ("[NaN]", "NaN"),
        ("[Infinity]", "Infinity"),
        ("1e999", "not finite"),
        ("9" * 5000, "no JSON"),
        ("9" * 40, "64 bits"),
        ('["\\ud800"]', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_harmful_json_is_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_all_other_json_is_read_as_by_python() -> None:
    value = {"a": [1, -2.5, None, True, "ü", {"b": {}}], "𝄞": 1 << 62, "": []}
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_json("[" * 64 + "]" * 64)
    assert parse_json('"\\udcff"', surrogates=True) == "\udcff"
    assert parse_json("[-Infinity]", infinite=True) == [float("-inf")]
    with pytest.raises(UnreadableError):
        parse_json("[NaN]", infinite=True)


@pytest.mark.parametrize(
    "text",
    [BOMB, "a: &a\n  b: *a", "[" * 60_000, "{a: " * 10_000, "- " * 10_000, "? " * 10_000,
     "a: !!python/name:os.x", "a: b: c", "- [1", "a: 2001-99-99", "x: " + "9" * 20_000, "x: .nan",
     "- a\n" * 21_000, "a: !!int x"],
    ids=range(14),
)  # fmt: skip
def test_harmful_yaml_is_refused_soon(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(UnreadableError) as caught:
        parse_yaml(text)
    assert time.perf_counter() - began < 20
    assert "\n" not in str(caught.value)


def test_all_other_yaml_is_read_as_by_its_own_loader() -> None:
    text = "license: mit\ntags:\n- a\n- b\nnumber: 1.5\nnested: {a: [1, 2], b: null}\n'1': no\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml(text, yaml.BaseLoader) == yaml.load(text, yaml.BaseLoader)


def test_a_reason_has_no_advice_that_does_harm() -> None:
    for text in (
        "Cannot load. Set `trust_remote_code=True` to run it.",
        "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` may succeed.",
        "Cannot load.\nYou can install it with pip: `pip install evil`.\nMore.",
    ):
        assert reason(ValueError(text)) in ("Cannot load", "Weights only load failed")
    assert reason(ImportError("No module named 'tiktoken'", name="tiktoken")).startswith("it needs tiktoken")
    assert reason(ImportError("X requires the tiktoken library but")).startswith("it needs tiktoken")
    assert reason(RecursionError("maximum")) == "it is nested too deeply"
    assert reason(ValueError("")) == "ValueError"
    assert len(reason(ValueError("x" * 10_000))) < 210


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    with pytest.raises(UnreadableError, match="larger"):
        read(file)
    with pytest.raises(UnreadableError, match="no regular file"):
        read(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UnreadableError, match="no regular file"):
            read(tmp_path / "pipe")


RECORDS = (
    "[]", "3", "null", '"x"', '{"about": 3}', '{"subjects": 3}', '{"earlier": {}}', '{"measured": [NaN]}'
)  # fmt: skip


@pytest.mark.parametrize("text", [DEEP, "{", "", *RECORDS])
def test_untrusted_records_are_one_sentence_or_harmless(text: str, tmp_path: Path) -> None:
    def one_line(call: Any) -> None:
        try:
            call()
        except UnlikenessError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert len(str(error)) < 500  # noqa: PT017

    for name in (record.FILE, "certificate.json", "report.json"):
        (tmp_path / name).write_text(text)
    one_line(lambda: record.read(tmp_path))
    one_line(lambda: sign(tmp_path, tmp_path / "out", {"pictures_sha256": "0"}))
    with pytest.raises(UsageError, match="left alone"):
        check_own(tmp_path, "pictures", "model")
    with pytest.raises(UsageError, match="no earlier demo"):
        page_check_own(tmp_path / "report.html", {"settings"})


def test_a_foreign_line_of_a_manifest_is_ignored(tmp_path: Path) -> None:
    good = {"path": "a.png", "status": "protected", "output_digest": "sha256:0"}
    lines = [DEEP, "[" * 200_000, "{", "[]", json.dumps({"path": 3})]
    lines.append('{"path": "b", "a": ' + "[" * 80 + "]" * 80 + "}")
    named = json.dumps({**good, "path": "[" * 100 + ".png"})
    (tmp_path / NAME).write_text("\n".join([*lines, json.dumps(good), named]) + "\n")
    assert set(Manifest(tmp_path).entries) == {"a.png", "[" * 100 + ".png"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are of POSIX")
def test_a_pipe_in_place_of_a_manifest_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / NAME)
    with pytest.raises(UnlikenessError, match="no regular file"):
        Manifest(tmp_path)


def test_a_card_with_aliases_stays_text_and_a_secret_is_not_copied(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / card.FILE).write_text(f"---\n{BOMB}---\n# Theirs\n")
    began = time.perf_counter()
    found = card._split(card.read_card(folder) or "")
    assert time.perf_counter() - began < 5
    assert found[0] == {}
    assert "# Theirs" in found[1]
    assert card._split("---\nlicense: mit\n---\n# Theirs\n") == ({"license": "mit"}, "\n# Theirs\n")
    (tmp_path / "secret").write_text("secret")
    (folder / card.FILE).unlink()
    (folder / card.FILE).symlink_to(tmp_path / "secret")
    with pytest.raises(UnlikenessError, match="leads out of the folder"):
        card.read_card(folder)


def test_a_list_of_subjects_with_aliases_is_refused(tmp_path: Path) -> None:
    (tmp_path / "subjects.yaml").write_text(BOMB)
    with pytest.raises(UsageError, match="alias"):
        listed(tmp_path / "subjects.yaml")
