"""What was personalized, with what: written beside every result, without a single pixel of the subject."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.diffusion.lora import has_lora
from unlikeness.diffusion.lora_writing import save_lora
from unlikeness.files import replacing
from unlikeness.paths import check_empty
from unlikeness.personalize.objective import FineTuning
from unlikeness.provenance import versions
from unlikeness.tensors import written

if TYPE_CHECKING:
    from unlikeness.diffusion.adapters import Added
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.personalize import Personalizer
    from unlikeness.subjects import Subject

__all__ = ["FILE", "record", "save"]

FILE = "personalization.json"


def record(
    name: str, method: Personalizer, subject: Subject, model: str, added: Added | None = None, *,
    preset: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Method, preset, settings with seeds, the subject's words and digest, the model's name, what was added
    to the model before, and versions."""
    return {
        "method": name,
        **({"preset": preset} if preset else {}),
        "settings": asdict(method.settings),
        "model": model,
        **(added.record() if added else {}),
        **subject.as_record(),
        "versions": versions(),
    }


def save(
    model: TextToImage, folder: Path, what: dict[str, Any], method: Personalizer, *,
    lora_format: str = "diffusers",
) -> Path:  # fmt: skip
    """Write the result of a personalization to a new folder, with its record as `personalization.json`.

    Of a method that changes little (a LoRA, a word) only that is written, else a whole diffusers folder.
    lora_format: one of `adapters.FORMS`.
    """
    check_empty(folder)
    text = json.dumps(what, indent=2, sort_keys=True) + "\n"
    with written(f"the result cannot be written to {folder}", "free space there, or give another folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as work:
            if isinstance(method, FineTuning):
                method.write(model, work, what["identifier"], lora_format=lora_format)
            elif has_lora(model):  # of another package's method
                save_lora(model, work, form=lora_format)
            else:
                model.save_pretrained(work)
            (work / FILE).write_text(text, encoding="utf-8")
    return folder
