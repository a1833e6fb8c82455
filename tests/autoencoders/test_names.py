"""Names of autoencoders: groups, what is on this machine, and what a missing one says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from tests.autoencoders.tiny_files import encoder_weights, write
from tests.tiny import pictures

from unlikeness.autoencoders import Autoencoder
from unlikeness.autoencoders.fetching import locate
from unlikeness.autoencoders.names import FOLDERS, GROUPS, KNOWN, TINY, expand, find, source_of, title
from unlikeness.cli import main
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.protect.surrogates import Surrogates


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, an empty hub cache, and no folders of one's own."""
    from huggingface_hub import constants

    monkeypatch.delenv(FOLDERS, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def cached(root: Path, repository: str, inside: str = "") -> Path:
    """A folder of a repository in the hub's cache, empty."""
    home = root / "hub" / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    folder = home / "snapshots" / "abc" / inside
    folder.mkdir(parents=True)
    return folder


def test_names_and_groups_become_single_names(tmp_path: Path) -> None:
    assert expand("sdxl, flux2:tiny") == ["sdxl", "flux2:tiny"]
    assert expand(["sd1", "common"]) == list(GROUPS["common"])
    assert expand("all") == list(KNOWN)
    assert expand("common:tiny") == [f"{name}{TINY}" for name in GROUPS["common"] if KNOWN[name].tiny]
    odd = tmp_path / "a,b.pth"
    odd.touch()
    assert expand([odd, "sana"]) == [str(odd), "sana"]
    assert expand("someone/model") == ["someone/model"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sdxxl", "did you mean sdxl"), ("qwen:tiny", "no distilled"), ("", "no autoencoder"),
        ("./none.pth", "no file or folder"), ("no/such.pth", "no file or folder"),
        ("x" * 9000, "no known name"), ("a\0b", "no known name"),
        ("~nosuchuser/x", "no known name"), ("flux1:small", "did you mean flux1"),
    ],
)  # fmt: skip
def test_what_is_no_name_is_one_sentence(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as found:
        expand(given)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400


@pytest.mark.parametrize("name", [*KNOWN, *(name + TINY for name, known in KNOWN.items() if known.tiny)])
def test_a_missing_one_says_what_is_missing_and_where_it_is(name: str) -> None:
    with pytest.raises(UnlikenessError) as found:
        Autoencoder.open(name)
    source = source_of(name)
    assert source is not None
    assert name in str(found.value)
    assert source.address in str(found.value)
    assert "\n" not in str(found.value)


def test_what_is_missing_is_found_without_torch(tmp_path: Path) -> None:
    program = """
import sys
from unlikeness.cli import main
assert main(["protect", "a.png", "-o", "out", "--against", "sdxl:tiny"]) == 1
assert main(["surrogates"]) == 0
assert "torch" not in sys.modules
"""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "UNLIKENESS_TRACEBACK": ""}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "sdxl:tiny is not in the hub cache here" in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_hub_name_that_is_not_here_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="cannot be a name on the hub"):
        Autoencoder.open("some..one/model")
    with pytest.raises(UnlikenessError, match="someone/model is not in the hub cache here"):
        Autoencoder.open("someone/model")


def test_a_folder_of_ones_own_serves_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "vae_approx"
    own.mkdir()
    file = write(own / "taesana_encoder.pth", encoder_weights(factor=32, latents=32))
    assert find("sana:tiny") is None
    monkeypatch.setenv(FOLDERS, f"{tmp_path / 'none'}:~nosuchuser/x:{own}")
    assert find("sana:tiny") == locate("sana:tiny") == file
    assert find("sana") is None
    found = Surrogates.named("sana:tiny", resolution=64)
    assert [one.name for one in found] == ["sana:tiny"]
    assert found[0].encode(pictures(1, size=64)).mean.shape == (1, 32, 2, 2)


def test_the_hubs_cache_serves_names(tmp_path: Path) -> None:
    assert find("flux1") is None
    folder = cached(tmp_path, "Tongyi-MAI/Z-Image-Turbo", "vae")
    diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(folder)
    assert find("flux1") == folder
    assert Autoencoder.open("flux1").channels == 4
    own = cached(tmp_path, "someone/model", "vae")
    for file in folder.iterdir():
        file.rename(own / file.name)
    assert Autoencoder.open("someone/model").channels == 4
    assert find("flux1") is None
    file = cached(tmp_path, "madebyollin/taef2") / "taef2.safetensors"
    write(file, encoder_weights(latents=32, pooled=True))
    assert Autoencoder.open("flux2:tiny").channels == 32


def test_the_vae_of_a_whole_models_folder_is_opened(tmp_path: Path) -> None:
    model = tmp_path / "model"
    diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(model / "vae")
    (model / "model_index.json").write_text("no JSON, and no matter")
    found = Autoencoder.open(model, decoder=False)
    assert found.channels == 4
    with pytest.raises(UsageError, match="without its decoder"):
        found.decode(torch.zeros(1, 4, 2, 2))


def test_the_command_lists_all_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "taef1_encoder.safetensors", encoder_weights(latents=16))
    monkeypatch.setenv(FOLDERS, str(tmp_path))
    assert main(["surrogates"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split()[1] for line in lines if line.split()[1] in ("yes", "no")}
    assert table["flux1:tiny"] == "yes"
    assert table["flux1"] == table["sdxl"] == "no"
    assert set(KNOWN) <= set(table)
    assert main(["surrogates", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["groups"]["all"] == list(KNOWN)
    assert all(row["licence"] and row["from"] and row["megabytes"] for row in told["autoencoders"])


FILES = {
    "Qwen/Qwen-Image": [
        "model_index.json", "README.md", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.bin", "vae/code.py",
        "transformer/config.json", "transformer/diffusion_pytorch_model-00001-of-00009.safetensors",
    ],
    "someone/vae-alone": ["config.json", "diffusion_pytorch_model.safetensors", "old.ckpt"],
    "madebyollin/taef2": ["README.md", "taef2.safetensors", "other.safetensors"],
    "someone/nothing": ["README.md", "vae/config.json", "vae/diffusion_pytorch_model.bin"],
}  # fmt: skip
"""Repository -> its files on a hub that is made up."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A hub with `FILES`. Returns a list that what is fetched is added to."""
    import huggingface_hub

    fetched: list[str] = []

    def listing(self: Any, repository: str, **further: Any) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in FILES[repository]])

    def fetch(repository: str, allow_patterns: list[str], **further: Any) -> str:
        fetched.extend(allow_patterns)
        return str(tmp_path / repository)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", listing)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    return fetched


@pytest.mark.parametrize(
    ("name", "place", "files"),
    [
        ("qwen", "Qwen/Qwen-Image/vae", ["config.json", "diffusion_pytorch_model.safetensors"]),
        ("someone/vae-alone", "someone/vae-alone", ["config.json", "diffusion_pytorch_model.safetensors"]),
        ("flux2:tiny", "madebyollin/taef2/taef2.safetensors", ["taef2.safetensors"]),
    ],
)
def test_only_the_autoencoder_is_fetched(
    name: str, place: str, files: list[str], hub: list[str], tmp_path: Path
) -> None:
    assert locate(name) == tmp_path / place
    assert [one.rpartition("/")[2] for one in hub] == files


@pytest.mark.usefixtures("hub")
def test_a_repository_without_safetensors_is_refused() -> None:
    with pytest.raises(UsageError, match="holds no autoencoder as safetensors"):
        locate("someone/nothing")


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("GatedRepoError", 403, "accept its licence"), ("RepositoryNotFoundError", 404, "is not on the hub"),
        ("HfHubHTTPError", 400, "could not be fetched"), ("HfHubHTTPError", 500, "was not reached"),
    ],
)  # fmt: skip
def test_what_the_hub_says_becomes_one_sentence(
    kind: str, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*args: Any, **further: Any) -> Any:
        response = SimpleNamespace(status_code=status, headers={}, request=None, text="", url="")
        raise getattr(errors, kind)("Traceback\nfor you", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    for name in ("sd3", "someone/model"):
        with pytest.raises(UnlikenessError, match=said) as found:
            locate(name)
        assert "\n" not in str(found.value)


def test_parts_that_do_not_fit_are_found_when_it_is_opened(tmp_path: Path) -> None:
    network = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    network.save_pretrained(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "spatial_compression_ratio": 4}))
    with pytest.raises(UnlikenessError, match=r"encodes a picture to \[1, 4, 8, 8\]"):
        Autoencoder.open(tmp_path / "a")
    with torch.no_grad():
        network.encoder.conv_in.weight.fill_(torch.nan)
    network.save_pretrained(tmp_path / "b")
    with pytest.raises(NotFiniteError, match="autoencoder"):
        Autoencoder.open(tmp_path / "b")


def test_a_title_is_what_readers_know() -> None:
    assert title("flux2") == "FLUX.2"
    assert title("sdxl:tiny") == "SDXL (distilled)"
    assert title("taesana_encoder.pth") == "Sana (distilled)"
    assert title("models/vae/sdxl_vae.safetensors") == "SDXL"
    assert title("someone/their-vae") == "someone/their-vae"


def test_autoencoders_of_one_title_are_told_apart(tmp_path: Path) -> None:
    files = []
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        files.append(write(tmp_path / folder / "own_encoder.pth", encoder_weights()))
    titles = list(Surrogates.named(files).by_title)
    assert titles == ["own_encoder.pth", "own_encoder.pth #2", "own_encoder.pth #3"]
