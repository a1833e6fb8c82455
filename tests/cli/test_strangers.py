"""Every command that takes a model goes through one door: no code, one sentence, no file written."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import pictures, write_tiny

from unlikeness.cli import main
from unlikeness.gallery import to_pil

SUBJECT = ["--images", "PICTURES", "--class-noun", "dog", "--output", "OUT"]
COMMANDS = {
    "generate": ["generate", "--model", "MODEL", "--prompt", "a dog", "--output", "OUT"],
    "protect": ["protect", "PICTURES", "--output", "OUT", "--method", "photoguard", "--model", "MODEL"],
    "personalize": ["personalize", "--model", "MODEL", *SUBJECT],
    "immunize": ["immunize", "--model", "MODEL", *SUBJECT],
    "immunize more": ["immunize", "--original", "MODEL", *SUBJECT],
    "verify": ["verify", "MODEL", *SUBJECT],
    "train-protector": ["train-protector", "--model", "MODEL", "--output", "OUT.safetensors"],
    "demo": ["demo", "--output", "OUT", "--photos", "PICTURES", "--model", "MODEL"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_tiny(folder / "model")
    (folder / "pictures").mkdir()
    for i, image in enumerate(pictures(2, size=64)):
        to_pil(image).save(folder / "pictures" / f"{i}.png")
    for place in ("model", "model/scheduler", "model/text_encoder"):
        code = f"from pathlib import Path\nPath({str(folder / 'ran')!r}).touch()\nclass Mine: pass\n"
        (folder / place / "mine.py").write_text(code)
    mapped = {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}
    (folder / "model" / "scheduler" / "config.json").write_text(
        json.dumps({"auto_map": mapped, "model_type": "mine"})
    )
    index = json.loads((folder / "model" / "model_index.json").read_text())
    index["scheduler"] = ["transformers", "AutoConfig"]
    (folder / "model" / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_or_offers_the_code_of_a_model(
    command: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def asked(*words: Any) -> str:
        raise AssertionError(f"asked: {words}")

    monkeypatch.setattr(builtins, "input", asked)
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": str(home / "model"), "PICTURES": str(home / "pictures")}
    words = [places.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in COMMANDS[command]]
    assert main(words) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the scheduler of model" in told
    assert "transformers.AutoConfig, which is never loaded" in told
    assert not (home / "ran").exists()
