"""Models with a flow and Stable Diffusion XL whose files ask for pictures that the networks cannot draw."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_flow import write_flux, write_sd3
from tests.tiny_xl import tiny_xl

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UnlikenessError

WRITERS: dict[str, Callable[[Path], Path]] = {"flux": write_flux, "sd3": write_sd3}


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [("flux", 20, "multiple of 8"), ("sd3", 20, "of 8"), ("sd3", 56, "at most 48"), ("sd3", 10, "10 px")],
)
def test_a_resolution_that_is_never_drawn_is_refused(name: str, side: int, said: str, tmp_path: Path) -> None:
    folder = WRITERS[name](tmp_path / name)
    change(folder / "unlikeness.json", default_resolution=side)
    with pytest.raises(UnlikenessError, match=said) as caught:
        TextToImage.from_pretrained(folder, device="cpu")
    assert "default_resolution in unlikeness.json" in str(caught.value)


def test_so_is_a_side_of_latents_in_the_configuration(tmp_path: Path) -> None:
    folder = write_sd3(tmp_path / "sd3")
    (folder / "unlikeness.json").unlink(missing_ok=True)
    change(folder / "transformer" / "config.json", sample_size=7)
    with pytest.raises(UnlikenessError, match="sample_size"):
        TextToImage.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    "values",
    [{"base_image_seq_len": 256, "max_image_seq_len": 256}, {"max_shift": 1e5}, {"max_shift": -1e5}],
)
def test_a_shift_without_end_is_one_sentence(values: dict[str, Any], tmp_path: Path) -> None:
    folder = write_flux(tmp_path / "flux")
    config = folder / "scheduler" / "scheduler_config.json"
    change(config, use_dynamic_shifting=True, **values)
    with pytest.raises(UnlikenessError, match="correct base_shift"):
        TextToImage.from_pretrained(folder, device="cpu").generate(["a dog"], seeds=[0], steps=2)


_SCHEDULER = "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        (_SCHEDULER, {"base_shift": "0.5"}, "base_shift = '0.5', which must be null or a number"),
        (_SCHEDULER, {"use_dynamic_shifting": "false"}, "must be null or true or false"),
        ("unlikeness.json", {"default_resolution": 8192}, "must be a whole number from 8 to 4096"),
    ],
)  # fmt: skip
def test_settings_that_mislead_are_one_sentence(
    file: str, values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = write_flux(tmp_path / "flux")
    change(folder / file, **values)
    with pytest.raises(UnlikenessError, match=said):
        TextToImage.from_pretrained(folder, device="cpu")


def test_clips_wider_than_the_transformer_are_not_cut(tmp_path: Path) -> None:
    folder = write_sd3(tmp_path / "sd3", t5=False)
    change(folder / "transformer" / "config.json", joint_attention_dim=8)
    with pytest.raises(UnlikenessError, match="CLIPs of"):
        TextToImage.from_pretrained(folder, device="cpu")


def test_the_sizes_of_xl_follow_the_resolution(tmp_path: Path) -> None:
    folder = tiny_xl(tmp_path).source
    assert folder is not None
    change(folder / "unlikeness.json", default_resolution=24)
    model = TextToImage.from_pretrained(folder, device="cpu")
    sizes: Any = model.condition(["a dog"])
    assert sizes.sizes.tolist() == [[24, 24, 0, 0, 24, 24]]


def test_lightning_reads_whole_numbers(tmp_path: Path) -> None:
    model = tiny_xl(tmp_path)
    assert model.family.defaults(model.parts, "sdxl-lightning-16step").steps == 16
    assert model.family.defaults(model.parts, "sdxl-lightning-0step").steps == 4
