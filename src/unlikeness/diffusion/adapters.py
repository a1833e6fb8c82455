"""LoRA files and embeddings as a user names them, to be added to a model; without torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.diffusion import hub
from unlikeness.errors import UsageError, one_line
from unlikeness.fetching import fetch
from unlikeness.provenance import file_digest, own_name

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["FILE", "FORMS", "PEFT_FILE", "Adapter", "Added", "Embedding", "check_form", "check_lora",
           "digests", "find_embedding", "find_lora", "parse_embeddings", "parse_loras"]  # fmt: skip

FORMS = ("diffusers", "kohya")
"""How the layers in a written LoRA file are named."""

FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE = "adapter_model.safetensors"
"""How diffusers and peft name a LoRA's file."""

_STRONGEST = 100.0


@dataclass(frozen=True)
class Adapter:
    """name: a file, a folder or a hub name; strength: what its updates are multiplied by."""

    name: str
    strength: float = 1.0

    def __str__(self) -> str:
        return self.name if self.strength == 1 else f"{self.name}:{self.strength:g}"


@dataclass(frozen=True)
class Embedding:
    """path: a file; word: its word in prompts, or "" for the file's own."""

    path: str
    word: str = ""

    def __str__(self) -> str:
        return f"{self.word}={self.path}" if self.word else self.path


@dataclass(frozen=True)
class Added:
    """What a user adds to a model before its use, in this order: LoRAs, and words for prompts."""

    loras: tuple[Adapter, ...] = ()
    embeddings: tuple[Embedding, ...] = ()

    @classmethod
    def parse(cls, loras: Sequence[str] | None, embeddings: Sequence[str] | None) -> Added:
        """Of `--lora` and `--embedding`. UsageError for what is not there."""
        return cls(tuple(parse_loras(loras or ())), tuple(parse_embeddings(embeddings or ())))

    def __bool__(self) -> bool:
        return bool(self.loras or self.embeddings)

    def to(self, model: TextToImage) -> TextToImage:
        """A copy of `model` with them, and their names behind its own; `model` itself if there are none.

        Raises as `lora.load_lora` and `embeddings.load_embedding`.
        """
        from unlikeness.diffusion.embeddings import load_embedding
        from unlikeness.diffusion.lora import load_lora

        name = model.name
        for one in self.loras:
            model = load_lora(model, one.name, strength=one.strength)
        for word in self.embeddings:
            model = load_embedding(model, word)
        if self:
            model.name = " + ".join([name or "a model", *(one["name"] for one in self._each())])
        return model

    def record(self) -> dict[str, list[dict[str, Any]]]:
        """For what is written: "lora" and "embeddings", each with names without folders, and digests of the
        files. Empty if there are none."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in self._each():
            found.setdefault("embeddings" if "word" in one else "lora", []).append(one)
        return found

    def without(self, known: Collection[str]) -> Added:
        """Those whose files have none of these digests."""
        return Added(
            tuple(one for one in self.loras if file_digest(find_lora(one.name)) not in known),
            tuple(one for one in self.embeddings if file_digest(find_embedding(one)) not in known),
        )

    def _each(self) -> Iterator[dict[str, Any]]:
        for one in self.loras:
            file = find_lora(one.name, local_files_only=True)  # `to` has fetched it
            yield {"name": own_name(one.name), "strength": one.strength, "sha256": file_digest(file)}
        for word in self.embeddings:
            file = find_embedding(word)
            yield {"name": file.name, "word": word.word, "sha256": file_digest(file)}


def digests(record: Mapping[str, Any]) -> set[str]:
    """The digests that `Added.record` wrote into a record, which may be a stranger's."""
    lists = [record.get(name) for name in ("lora", "embeddings")]
    entries = [one for some in lists if isinstance(some, list) for one in some if isinstance(one, dict)]
    return {one["sha256"] for one in entries if isinstance(one.get("sha256"), str)}


def parse_embeddings(texts: Sequence[str]) -> list[Embedding]:
    """`FILE`, or `WORD=FILE`, of each `--embedding`. UsageError for a path that is no such file."""
    found = []
    for text in texts:
        word, equals, path = text.partition("=")
        named = equals and not hub.at_home(text, "--embedding").exists()
        one = Embedding(path, word) if named else Embedding(text)
        find_embedding(one)
        found.append(one)
    return found


def find_embedding(given: Embedding) -> Path:
    """Its file. UsageError for a path that is none."""
    file = hub.at_home(given.path, "--embedding")
    if not file.is_file() or file.suffix.lower() not in (".safetensors", ".pt", ".bin"):
        raise UsageError(
            f"--embedding {given.path} is no embedding file; give a .safetensors, .pt or .bin file that is "
            "there"
        )
    return file


def check_form(form: str) -> None:
    """UsageError unless `form` is one of FORMS."""
    if form not in FORMS:
        raise UsageError(f"--lora-format {form!r} is unknown; it must be one of {', '.join(FORMS)}")


def parse_loras(texts: Sequence[str]) -> list[Adapter]:
    """`FILE`, or `FILE:STRENGTH`, of each `--lora`. UsageError for a path that is not there, or a strength
    that is no number from -100 to 100."""
    found = [_parse(text) for text in texts]
    for one in found:
        check_lora(one.name)
    return found


def _parse(text: str) -> Adapter:
    name, colon, number = text.rpartition(":")
    if not colon or hub.at_home(text, "--lora").exists() or "/" in number or "\\" in number:
        return Adapter(text)
    try:
        strength = float(number)
    except ValueError as error:
        raise UsageError(
            f"--lora {text}: the strength {number!r} is no number; give FILE, or FILE:STRENGTH as in "
            f"{name or 'FILE'}:0.8"
        ) from error
    if not math.isfinite(strength) or abs(strength) > _STRONGEST:
        raise UsageError(f"--lora {text}: the strength must be from {-_STRONGEST:g} to {_STRONGEST:g}")
    return Adapter(name, strength)


def check_lora(name: str) -> None:
    """UsageError for a path that is not there, or holds no LoRA file, and is no possible hub name."""
    path = hub.at_home(name, "--lora")
    if path.exists():
        _inside(path)
    elif name.startswith((".", "/", "~")) or "\\" in name or name.count("/") not in (1, 2):
        raise UsageError(
            f"--lora {name} does not exist; give a .safetensors file, a folder with one, or a hub name"
        )


def find_lora(name: str | Path, *, local_files_only: bool = False) -> Path:
    """The file of a path, or of a hub name (REPOSITORY or REPOSITORY/FILE), fetched into the hub's cache.

    UsageError for a path without a LoRA file; UnlikenessError as `hub.locate`.
    """
    path = hub.at_home(str(name), "--lora")
    if path.exists():
        return _inside(path)
    check_lora(str(name))
    owner, repo, *file = str(name).split("/")

    def wanted(files: list[str]) -> list[str]:
        if file and file[0] not in files:
            raise UsageError(f"LoRA {name}: the repository has no {file[0]}; check its spelling")
        chosen = file or [_choose(str(name), [one for one in files if "/" not in one])]
        return [*chosen, "adapter_config.json"]

    folder = fetch(f"{owner}/{repo}", f"LoRA {name}", wanted, local_files_only=local_files_only)
    return _inside(folder / file[0]) if file else _inside(folder)


def _inside(path: Path) -> Path:
    if path.is_dir():
        return path / _choose(str(path), sorted(one.name for one in path.iterdir()))
    if not path.is_file() or path.suffix.lower() != ".safetensors":
        raise UsageError(
            f"{path} is no LoRA file; give a .safetensors file, a folder with {FILE}, or a hub name"
        )
    return path


def _choose(where: str, names: list[str]) -> str:
    """The LoRA file among the names of a folder."""
    for usual in (FILE, PEFT_FILE):
        if usual in names:
            return usual
    others = [name for name in names if name.lower().endswith(".safetensors")]
    if len(others) != 1:
        said = "no .safetensors file" if not others else f"{len(others)} files ({_listed(others)})"
        raise UsageError(f"{where} is no LoRA file, and holds {said}; name the file of the LoRA")
    return others[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(one_line(name)[:60] for name in names[:4])
