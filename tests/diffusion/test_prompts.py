"""A prompt that is longer than the model reads gives a warning."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import write_tiny, write_tokenizer

from unlikeness.cli import main
from unlikeness.diffusion.vocabulary import too_long


def test_tokens_beyond_the_tokenizers_length_are_counted(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    write_tokenizer(tmp_path / "tokenizer", length=16)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert too_long(tokenizer, "") is None
    assert too_long(tokenizer, "dog " * 14) is None  # begin and end are tokens too
    said = str(too_long(tokenizer, "dog " * 15))
    assert "has 17 tokens, and the model reads the first 16" in said
    assert len(said) < 200


def test_generate_says_so_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, output = write_tiny(tmp_path / "tiny"), tmp_path / "drawn"
    options = ["--count", "1", "--steps", "1", "-q", "--device", "cpu", "--output", str(output)]
    assert main(["generate", "--model", str(model), "--prompt", "dog " * 20, *options]) == 0
    assert capsys.readouterr().err.count("has 22 tokens") == 1
    assert (output / "0000.png").is_file()
