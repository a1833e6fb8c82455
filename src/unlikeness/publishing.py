"""Publish an immunized model or a protector's network on the hub: its own files alone, with its card.

What is sent is a list of known names. Pictures, checkpoints and everything else in the folder stay here, and
a text that names a folder of this machine is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlikeness import __version__
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, check_file, parse_json, read, reason
from unlikeness.immunize import record
from unlikeness.protect.rid.settings import HUB_FILE, HUB_NAME, is_protector

__all__ = ["Contents", "check_repository", "contents", "publish"]

_CARD = "README.md"
_BESIDE = (_CARD, record.FILE, "unlikeness.json")
_ENDS = (".json", ".txt", ".model", ".safetensors")
"""Endings of files in the folders of a model's parts."""

_LARGEST_TEXT = 1 << 26


@dataclass(frozen=True)
class Contents:
    """What is published. what: in words; files: name in the repository -> the file here, or its bytes."""

    what: str
    files: Mapping[str, Path | bytes]

    @property
    def size(self) -> int:
        """Bytes in all."""
        found = (len(one) if isinstance(one, bytes) else one.stat().st_size for one in self.files.values())
        return sum(found)


def check_repository(name: str) -> None:
    """UsageError unless `name` can be that of a repository on the hub."""
    if HUB_NAME.fullmatch(name) is None:
        raise UsageError(f"--to {name[:80]} is no name on the hub; give OWNER/NAME")


def contents(path: Path) -> Contents:
    """The files of a folder that `immunize` wrote, or of a file of `train-protector`.

    UsageError for another folder or file; UnlikenessError if a file is damaged, or names a folder of this
    machine.
    """
    if path.is_dir():
        found = Contents("immunized model", _of_model(path))
    elif path.is_file() and is_protector(path):
        found = Contents("protector", _of_protector(path))
    else:
        raise UsageError(
            f"{path} is no folder of immunize and no file of train-protector, and only these are published; "
            "name one"
        )
    for name, one in found.files.items():
        _check_text(path, name, one)
    return found


def publish(found: Contents, to: str, *, public: bool = False) -> tuple[str, bool]:
    """Send everything to the repository `to` in one commit; returns (its address, whether it is private).

    A repository that is not there is made, private unless `public`. One that is there stays as it is.

    UsageError if it is public, and `public` was not given: nothing is sent then. UnlikenessError if the hub
    cannot be reached or does not let this user write there.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    check_repository(to)
    api = HfApi()
    # The base that the hub's client shares with the HTTP library under it, whichever that is.
    http_error: Any = errors.HfHubHTTPError.__bases__[0]
    try:
        address = str(api.create_repo(to, private=not public, exist_ok=True))
        private = bool(api.repo_info(to).private)
        if not (public or private):
            raise UsageError(f"{to} is there and is public; give --public, or another name")
        api.create_commit(
            to,
            [CommitOperationAdd(name, one) for name, one in found.files.items()],
            commit_message=f"{found.what.capitalize()}, by unlikeness {__version__}",
        )
    except UnlikenessError:
        raise
    except (http_error, OSError, ValueError) as error:
        raise UnlikenessError(
            f"{to} could not be published ({reason(error)}); log in with `hf auth login` as someone who may "
            "write there, and check the network"
        ) from error
    return address, private


def _of_model(folder: Path) -> dict[str, Path | bytes]:
    from unlikeness.diffusion.loading import read_index
    from unlikeness.diffusion.single_file.kinds import place
    from unlikeness.networks.weights import needed_files

    if record.read(folder) is None or not (folder / _CARD).is_file():
        raise UsageError(
            f"{folder} has no {record.FILE} or no {_CARD}, so that it is no result of immunize; name another"
        )
    names = [name for name in _BESIDE if (folder / name).exists()]
    single = place(folder)
    if single is not None and single.suffix.lower() == ".safetensors":
        names.append(single.name)
    else:
        family = read_index(folder).family
        names.append("model_index.json")
        for part in (*family.parts, *family.carried):
            if (folder / part).is_dir():
                inside = needed_files(one.name for one in (folder / part).iterdir())
                names += [f"{part}/{name}" for name in inside if name.endswith(_ENDS)]
    for name in names:
        try:
            check_file(folder / name, folder)
        except UnreadableError as error:
            raise UnlikenessError(f"{folder / name} cannot be published ({error}); mend it") from error
    return {name: folder / name for name in names}


def _of_protector(path: Path) -> dict[str, Path | bytes]:
    from unlikeness.protect.rid.saved import read_saved

    saved, card = read_saved(path), path.with_suffix(".md")
    text: Path | bytes = card if card.is_file() else _card(path.stem, saved.about, saved.fingerprint).encode()
    return {HUB_FILE: path, _CARD: text}


def _card(name: str, about: Mapping[str, Any], fingerprint: str) -> str:
    """The card of a network that has none of its own, from what its file says."""
    models = about.get("models")
    listed = ", ".join(map(str, models)) if isinstance(models, list) and models else "not recorded"
    recipe = json.dumps(about.get("recipe", {}), indent=2)
    return f"""---
library_name: unlikeness
tags: [unlikeness, image-protection]
---
# {name}

A network of `unlikeness protect --weights OWNER/NAME`: one pass a picture, without a model.

| | |
|---|---|
| trained against | {listed} |
| resolution of these models | {about.get("resolution")} px |
| fingerprint | {fingerprint} |

It does something against models like these at most. Compression, resizing and cleaning weaken it. No
perturbation is a lock: measure what it is worth.

The settings of the training that are not the default:

```json
{recipe}
```
"""


def _check_text(path: Path, name: str, one: Path | bytes) -> None:
    """UnlikenessError if a text names a folder of this machine: in a record any, else its own or home."""
    if name.endswith(".safetensors"):
        from unlikeness.tensors import read_header

        assert isinstance(one, Path)
        text = json.dumps(dict(read_header(one)), ensure_ascii=False)
        texts = list(_strings(read_header(one)))
    else:
        text = (one if isinstance(one, bytes) else read(one, most=_LARGEST_TEXT)).decode("utf-8", "replace")
        texts = list(_strings(parse_json(text))) if name in (record.FILE, "unlikeness.json") else []
    here = [str(Path.home()), str(path.resolve().parent)]
    named = [place for place in here if len(place) > 1 and f"{place}/" in text]
    named += [value for value in texts if _is_place(value)]
    if named:
        raise UnlikenessError(
            f"{name} of {path} names a folder of this machine ({named[0][:80]}), and is not published; take "
            "it out of the file"
        )


def _is_place(value: str) -> bool:
    return re.match(r"(/|~/|[A-Za-z]:[\\/])[^\s/\\]+[/\\]", value) is not None


def _strings(value: Any) -> Iterator[str]:
    """All texts in a JSON value; JSON in a text too, as in a header."""
    if isinstance(value, str):
        yield value
        if value.startswith("{"):
            try:
                yield from _strings(parse_json(value))
            except UnreadableError:
                return
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
