"""What a single file lacks: configurations, the noise schedule, and CLIP's tokenizer.

The tokenizer is CLIP's own (`carried/LICENSE-clip`). The configurations are those of the published models.
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from unlikeness.diffusion.single_file.kinds import FLOW, Found

__all__ = ["ZERO_SNR", "clip_words", "configurations", "write_folder"]

ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
"""Settings of a scheduler whose levels end without any signal (Lin et al. 2024)."""

_SIDE_OF_V = 96
"""Latents of the Stable Diffusion 2 that predicts v: 768 pixels."""


def configurations(found: Found) -> dict[str, Any]:
    """The JSON files of the kind's diffusers folder, by their paths in it."""
    content: dict[str, Any] = json.loads((_here() / f"{found.kind.carried}.json").read_text(encoding="utf-8"))
    if found.kind.prediction == FLOW:
        content[f"{found.kind.denoiser}/config.json"] |= found.settings
        return content
    scheduler = content["scheduler/scheduler_config.json"]
    scheduler["prediction_type"] = found.prediction
    if found.zero_snr:
        scheduler |= ZERO_SNR
    if found.kind.carried == "sd2" and found.prediction == "v_prediction":
        content["unet/config.json"]["sample_size"] = _SIDE_OF_V
    return content


def write_folder(found: Found, folder: Path) -> Path:
    """The kind's diffusers folder without weights. Returns `folder`."""
    for name, content in configurations(found).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
        if name.startswith("tokenizer"):
            words, merges = clip_words()
            (folder / name).with_name("vocab.json").write_text(json.dumps(words), encoding="utf-8")
            (folder / name).with_name("merges.txt").write_text(merges, encoding="utf-8")
    return folder


def clip_words() -> tuple[dict[str, int], str]:
    """CLIP's vocabulary, and the text of its merges: vocab.json and merges.txt.

    The vocabulary follows from the merges: the 256 bytes, the same at the end of a word, the merged pieces,
    and two special tokens (https://github.com/openai/CLIP, `simple_tokenizer.py`).
    """
    merges = gzip.decompress((_here() / "clip-merges.txt.gz").read_bytes()).decode("utf-8")
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    pieces = [line.replace(" ", "") for line in merges.splitlines()[1:]]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *pieces, "<|startoftext|>", "<|endoftext|>"]
    return {word: i for i, word in enumerate(words)}, merges


def _here() -> Any:
    return files("unlikeness.diffusion.single_file") / "carried"
