"""Publishing on a stub of the hub's public functions, which keeps what it gets as the hub's cache does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from PIL import Image
from tests.tiny import pictures, write_tiny

from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.gallery import to_pil
from unlikeness.immunize import record
from unlikeness.protect.rid.network import Protector
from unlikeness.protect.rid.settings import HUB_FILE, NetworkSettings
from unlikeness.protect.rid.weights import load_protector, save_protector
from unlikeness.publishing import contents


class Hub:
    """Repositories by name: whether they are private, and their files."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.private, self.files = cache, dict[str, bool](), dict[str, list[str]]()

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        self.private.setdefault(name, private)
        return f"https://hub/{name}"

    def repo_info(self, name: str) -> Any:
        return SimpleNamespace(private=self.private[name])

    def create_commit(self, name: str, operations: Any, *, commit_message: str) -> None:
        home = self.cache / f"models--{name.replace('/', '--')}"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / "main").write_text("abc")
        self.files[name] = [one.path_in_repo for one in operations]
        for one in operations:
            file = home / "snapshots" / "abc" / one.path_in_repo
            file.parent.mkdir(parents=True, exist_ok=True)
            content = one.path_or_fileobj
            file.write_bytes(content if isinstance(content, bytes) else Path(content).read_bytes())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """A hub to publish on, and a machine that is offline when it reads."""
    found = Hub(tmp_path / "cache")

    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(found.cache))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    for name in ("create_repo", "repo_info", "create_commit"):
        own = getattr(found, name)
        monkeypatch.setattr(huggingface_hub.HfApi, name, lambda _, *a, own=own, **k: own(*a, **k))
    return found


@pytest.fixture
def immunized(tmp_path: Path) -> Path:
    """A folder like that of `immunize`, with things that are nobody's business."""
    folder = write_tiny(tmp_path / "released")
    (folder / record.FILE).write_text(json.dumps({"schema": record.SCHEMA, "model": "tiny", "subjects": []}))
    (folder / "README.md").write_text("# tiny, immunized\n")
    (folder / "rex.png").write_bytes(b"a picture")
    (folder / "unet" / "rex.jpg").write_bytes(b"a picture")
    (folder / "work").mkdir()
    (folder / "work" / "state.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "mine.safetensors"
    about = {"resolution": 64, "models": ["sdxl"], "toybox": [False], "recipe": {"steps": 3}}
    made = Protector(NetworkSettings(fine=4, middle=4, coarse=4))
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.3)
    save_protector(made, path, about=about)
    return path


def test_an_immunized_model_goes_out_and_comes_back(
    hub: Hub, immunized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["publish", str(immunized), "--to", "someone/safer"]
    assert main([*command, "--dry-run"]) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert not hub.private
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("https://hub/someone/safer (private): immunized model, ")
    assert hub.private == {"someone/safer": True}
    sent = hub.files["someone/safer"]
    assert {"README.md", record.FILE, "model_index.json"} <= set(sent)
    assert not [name for name in sent if "rex" in name or "work" in name]
    model = TextToImage.from_pretrained("someone/safer", device="cpu")
    own = TextToImage.from_pretrained(immunized, device="cpu")
    assert torch.equal(model.generate(["dog"], seeds=[1], steps=1), own.generate(["dog"], seeds=[1], steps=1))
    assert record.read(model.source) is not None


def test_a_network_goes_out_and_protects_under_its_name(
    hub: Hub, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(network), "--to", "someone/net", "--public"]) == 0
    assert "(public): protector" in capsys.readouterr().out
    assert hub.files["someone/net"] == [HUB_FILE, "README.md"]
    card = (hub.cache / "models--someone--net" / "snapshots" / "abc" / "README.md").read_text()
    assert "| trained against | sdxl |" in card
    to_pil(pictures(1, size=64)[0]).save(tmp_path / "a.png")
    command = ["protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "-q", "--weights"]
    assert main([*command, "someone/net"]) == 0
    line = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert line["against"]["network"] == "someone/net"
    ours, theirs = load_protector(network), load_protector("someone/net")
    pairs = zip(ours.network.parameters(), theirs.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    capsys.readouterr()
    assert main([*command, "someone/nothing"]) == 1
    said = capsys.readouterr().err
    assert "network someone/nothing is not in the hub cache here" in said
    assert said.count("\n") == 1


def test_what_is_public_is_not_written_to_by_chance(hub: Hub, immunized: Path) -> None:
    hub.private["someone/open"] = False
    assert main(["publish", str(immunized), "--to", "someone/open"]) == 2
    assert not hub.files
    assert main(["publish", str(immunized), "--to", "someone/open", "--public"]) == 0
    assert hub.files


def test_places_on_this_machine_are_not_published(immunized: Path, network: Path, tmp_path: Path) -> None:
    record_of = json.loads((immunized / record.FILE).read_text())
    for value in ("/home/me/rex/1.png", "C:\\Users\\me\\rex", "~/photos/rex"):
        (immunized / record.FILE).write_text(json.dumps({**record_of, "settings": {"pattern": value}}))
        with pytest.raises(UnlikenessError, match=r"immunization\.json of .* names a folder of this machine"):
            contents(immunized)
    (immunized / record.FILE).write_text(json.dumps({**record_of, "settings": {"prompt": "a dog / cat"}}))
    assert contents(immunized).what == "immunized model"
    (immunized / "README.md").write_text(f"made from {tmp_path}/photos")
    with pytest.raises(UnlikenessError, match=r"README\.md"):
        contents(immunized)
    settings = NetworkSettings(fine=4, middle=4, coarse=4)
    about = {"resolution": 64, "models": ["/home/me/models/mine"]}
    save_protector(Protector(settings), tmp_path / "named.safetensors", about=about)
    with pytest.raises(UnlikenessError, match="names a folder of this machine"):
        contents(tmp_path / "named.safetensors")


def test_only_results_are_published(immunized: Path, tmp_path: Path) -> None:
    (immunized / "README.md").unlink()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for wrong in (immunized, write_tiny(tmp_path / "plain"), tmp_path / "a.png", tmp_path / "nothing"):
        with pytest.raises(UsageError, match="immunize"):
            contents(wrong)
        assert main(["publish", str(wrong), "--to", "someone/safer"]) == 2
    assert main(["publish", str(immunized), "--to", "no-owner"]) == 2


def test_a_hub_that_is_closed_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", closed)
    assert main(["publish", str(network), "--to", "someone/net"]) == 1
    said = capsys.readouterr().err
    assert "log in with `hf auth login`" in said
    assert said.count("\n") == 1


def test_a_single_file_is_published_as_it_is(hub: Hub, immunized: Path, tmp_path: Path) -> None:
    single = tmp_path / "single"
    single.mkdir()
    for name in (record.FILE, "README.md", "rex.png"):
        shutil.copy(immunized / name, single / name)
    (single / "unlikeness.json").write_text('{"prediction": "v"}')
    shutil.copy(immunized / "unet" / "diffusion_pytorch_model.safetensors", single / "mine.safetensors")
    assert sorted(contents(single).files) == [
        "README.md", "immunization.json", "mine.safetensors", "unlikeness.json",
    ]  # fmt: skip
