"""Write a model as a diffusers folder: safetensors only, complete or not at all."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unlikeness.diffusion.expanding import plain
from unlikeness.diffusion.loading import OWN_FILE
from unlikeness.diffusion.lora import DIVERGED, merge
from unlikeness.errors import NotFiniteError, UnlikenessError
from unlikeness.files import replacing
from unlikeness.foreign import UnreadableError, check_file
from unlikeness.networks.building import quiet
from unlikeness.networks.configs import read_object
from unlikeness.networks.weights import choose_weights, needed_files
from unlikeness.paths import check_empty
from unlikeness.tensors import all_finite, for_readers, read_tensors, written

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["save_folder"]

_ABSENT: list[Any] = [None, None]
_SETTINGS = ("config.json", "preprocessor_config.json")
"""Files beside weights that a carried part needs. Nothing else of a stranger's folder is copied."""


def save_folder(model: TextToImage, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """Write `model` to `folder` under a temporary name beside it, then rename it. Returns the folder.

    Parts that the model carries without having loaded them (a safety checker, ...) are copied from its source
    folder. A part that is no longer there is entered as absent.
    """
    check_empty(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        written(f"the model cannot be saved to {folder}", "free space or give another folder"),
        replacing(folder) as work,
    ):
        work.mkdir()
        with quiet():
            _write(model, work, dtype, folder.name)
        for_readers(*work.rglob("*"))
    return folder


def _write(model: TextToImage, work: Path, dtype: torch.dtype | None, called: str) -> None:
    import diffusers

    index: dict[str, Any] = {
        "_class_name": model.family.pipeline,
        "_diffusers_version": diffusers.__version__,
        **dict.fromkeys(model.family.carried, _ABSENT),
        **model.family.flags,
        **dict.fromkeys(model.family.optional, _ABSENT),
    }
    for name, value in model.carried.items():
        if name in ("_class_name", "_diffusers_version", "_name_or_path"):
            continue
        is_component = isinstance(value, list) and len(value) == 2
        if is_component and value[0] is not None and not _carry(model.source, name, work):
            value = _ABSENT
        index[name] = value
    for name in model.family.networks:
        module = _plain(model.parts[name], dtype)
        if not all_finite(module.parameters()):
            raise NotFiniteError(
                f"the {name} of the model is not saved: {DIVERGED}, or for numbers that {module.dtype} does "
                "not hold"
            )
        module.save_pretrained(work / name, safe_serialization=True)
        index[name] = [_library(module), type(module).__name__]
    for name in (*model.family.tokenizers, "scheduler"):
        part = plain(model.parts[name])
        part.save_pretrained(work / name)
        index[name] = [_library(part), type(part).__name__]
    _for_every_reader(model, work)
    _write_json(work / "model_index.json", index)
    usual = [model.family.defaults(model.parts, name) for name in ("", called)]
    if any(model.defaults != one for one in usual):
        own = {f"default_{name}": value for name, value in asdict(model.defaults).items()}
        _write_json(work / OWN_FILE, {name: value for name, value in own.items() if value is not None})


def _for_every_reader(model: TextToImage, work: Path) -> None:
    """Undo what the installed transformers and diffusers write that older ones, or strangers, should not see.

    - transformers 5 leaves out a text encoder's key prefix and a tokenizer's two original files. Without
      them version 4 reads random weights or nothing.
    - Configurations name the folder they came from.
    - transformers 5 opens a text encoder at the precision that its configuration names, and diffusers opens a
      denoiser in float32. A pipeline from half-precision files would not run, so float32 is always named.
    - A tokenizer's file holds the lengths of its last call. They are left out, so that a model is saved alike
      before and after its use.
    """
    from safetensors.torch import load_file, save_file

    for name, encoder in model.conditioner.encoders.items():
        file = work / name / "model.safetensors"
        tensors = load_file(file) if file.exists() and type(encoder).__name__ == "CLIPTextModel" else {}
        if tensors and not any(key.startswith("text_model.") for key in tensors):
            named = {f"text_model.{key}": tensor for key, tensor in tensors.items()}
            save_file(named, file, {"format": "pt"})
    for name, tokenizer in model.conditioner.tokenizers.items():
        backend = getattr(tokenizer, "backend_tokenizer", None)
        # transformers 4's slow tokenizers write both themselves; a T5's (Unigram) has neither.
        if backend is not None and type(backend.model).__name__ == "BPE":
            backend.model.save(str(work / name))
        whole = work / name / "tokenizer.json"
        if whole.exists():
            content = json.loads(whole.read_text(encoding="utf-8")) | {"truncation": None, "padding": None}
            whole.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    for path in sorted(work.glob("*/*config.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = {
            k: v for k, v in content.items() if k not in ("_name_or_path", "is_local", "local_files_only")
        }
        if path.parent.name in model.conditioner.encoders:
            kept["dtype"] = kept["torch_dtype"] = "float32"
        _write_json(path, kept)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _library(part: Any) -> str:
    return "transformers" if type(part).__module__.startswith("transformers.") else "diffusers"


def _plain(module: Any, dtype: torch.dtype | None) -> Any:
    """The module to write, cast and with its adapters merged. The model's own stays as it is."""
    adapted = bool(getattr(module, "peft_config", None))
    if not adapted and dtype in (None, module.dtype):
        return module
    module = copy.deepcopy(module)
    if adapted:
        merge(module)
    return module if dtype is None else torch.nn.Module.to(module, dtype)


def _carry(source: Path | None, name: str, work: Path) -> bool:
    """Copy the part's folder, with pickled weights as safetensors. False if it is not there."""
    if source is None or not (source / name).is_dir():
        return False
    inside = source / name
    names = [file.name for file in inside.iterdir() if file.is_file()]
    chosen = choose_weights(names)
    if chosen is not None and chosen.format == "bin" and chosen.sharded:
        raise UnlikenessError(
            f"the {name} of model {source} is in pickled shards, which are not written on; save it once with "
            "diffusers as safetensors"
        )
    (work / name).mkdir()
    for file in needed_files(names):
        # A variant's file takes the plain name, so that the folder opens without naming the variant.
        plain = file if chosen is None or chosen.variant is None else file.replace(f".{chosen.variant}.", ".")
        plain = file if "-of-" in file else plain
        if file.endswith(".bin"):
            plain = plain.replace(".bin", ".safetensors")
            _convert(inside / file, work / name / re.sub("^pytorch_model", "model", plain), source)
        elif file.endswith(".safetensors"):
            _copy(inside / file, work / name / plain, source)
        elif file in _SETTINGS or file.endswith(".index.json"):
            read_object(inside / file, source, most=1 << 24)  # no code is handed on
            _copy(inside / file, work / name / plain, source)
    return True


def _copy(source: Path, path: Path, folder: Path) -> None:
    try:
        check_file(source, folder)
    except UnreadableError as error:
        raise UnlikenessError(f"{source} cannot be copied ({error}); fetch the model again") from error
    shutil.copyfile(source, path)


def _convert(pickle: Path, path: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    try:
        tensors = read_tensors(pickle, folder=folder)
    except UnreadableError as error:
        raise UnlikenessError(
            f"{pickle} is no file of weights ({error}); fetch it again, or delete its folder, "
            "which is not needed"
        ) from error
    save_file(tensors, path, {"format": "pt"})
