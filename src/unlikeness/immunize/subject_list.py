"""Several subjects at once: from a YAML file, or from a folder CLASS_NOUN/NAME/pictures; and which protective
output each of them has.

The file is a list, and its paths are relative to it:

    - images: pictures/rex
      class_noun: dog
    - images: pictures/anna
      class_noun: person
      identifier: zwx
      protective_output: target
      target_noun: cat

All values are read as text: `no` is a word, not a truth value.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import UnreadableError, parse_yaml, read, reason
from unlikeness.immunize.outputs import in_turn
from unlikeness.settings import Checked, named
from unlikeness.words import with_article

if TYPE_CHECKING:
    from unlikeness.subjects import Subject

__all__ = ["Listed", "check_outputs", "listed", "load", "own_outputs"]

_log = logging.getLogger(__name__)

_KEYS = ("images", "class_noun", "identifier")
_OWN = ("protective_output", "target_noun")
_OF_ONE_KIND = {
    "target_noun": "target", "pattern": "pattern", "pattern_weight": "pattern", "avoidance": "erasure",
}  # fmt: skip
"""Settings that have an effect with one kind alone."""

_LARGEST = 2**20
_FORM = "write it as a list of entries with images, class_noun and, if it differs, identifier"


class Named(Protocol):
    """A subject's words."""

    @property
    def class_noun(self) -> str: ...

    @property
    def identifier(self) -> str: ...


@dataclass(frozen=True)
class Listed:
    """A subject whose pictures have not been read yet. protective_output, target_noun: its own, for a method
    with protective outputs; "" without."""

    images: Path
    class_noun: str
    identifier: str = "sks"
    protective_output: str = ""
    target_noun: str = ""


def listed(path: Path, *, identifier: str = "sks") -> list[Listed]:
    """The subjects of a YAML file, in its order, or of a folder CLASS_NOUN/NAME/pictures, sorted by name.

    identifier: for subjects without one.

    Raises:
        UsageError: there is no such file or folder, or no subject in it; it is no YAML; an entry is wrong.
        UnlikenessError: the file or the folder cannot be read.
    """
    if path.is_dir():
        return _in_folder(path, identifier)
    if not path.exists():
        raise UsageError(f"{path} does not exist; give a YAML file or a folder CLASS_NOUN/NAME with pictures")
    return _in_file(path, identifier)


def load(
    subjects: Sequence[Listed], *, size: int, report: Callable[[str], None] | None = None
) -> list[Subject]:
    """Their pictures at size × size pixels. A file that cannot be read goes to `report` and is left out."""
    from unlikeness.subjects import Subject

    return [
        Subject.from_folder(one.images, one.class_noun, one.identifier, size=size, report=report)
        for one in subjects
    ]


def _in_folder(folder: Path, identifier: str) -> list[Listed]:
    def folders(above: Path) -> list[Path]:
        try:
            inside = sorted(above.iterdir())
        except OSError as error:
            raise UnlikenessError(
                f"{above} cannot be read ({error.strerror}); change its permissions"
            ) from error
        return [one for one in inside if one.is_dir() and not one.name.startswith(".")]

    found = [Listed(one, noun.name, identifier) for noun in folders(folder) for one in folders(noun)]
    if not found:
        raise UsageError(
            f"{folder} holds no subject; put each one's pictures into a folder CLASS_NOUN/NAME there, or "
            "give a single subject by --images and --class-noun"
        )
    return found


def _in_file(path: Path, identifier: str) -> list[Listed]:
    content = _parsed(path)
    if not isinstance(content, list):
        raise UsageError(f"{path} is no list of subjects; {_FORM}")
    if not content:
        raise UsageError(f"{path} lists no subject; {_FORM}")
    return [_entry(f"{path}, entry {i}", entry, path, identifier) for i, entry in enumerate(content, 1)]


def _entry(where: str, entry: Any, path: Path, identifier: str) -> Listed:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is no mapping; write images: FOLDER and class_noun: WORD below each other")
    if "behaviour" in entry:
        _log.warning("%s: behaviour is called protective_output now; it works for one more release", where)
        entry = {**entry, "protective_output": entry["behaviour"]}
        del entry["behaviour"]
    for key in entry:
        if key not in _KEYS + _OWN:
            raise UsageError(
                f"{where} has an unknown key {_short(key)}; valid are: {', '.join(_KEYS + _OWN)}"
            )
    values = {"identifier": identifier, **entry}
    for key, example in zip(_KEYS, ("pictures/rex", "dog", "sks"), strict=True):
        value = values.get(key)
        if value is None:
            raise UsageError(f"{where} has no {key}; add a line such as {key}: {example}")
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"the {key} of {where} is no text; write it as {key}: {example}")
    own = {name: _own(where, name, values[name]) for name in _OWN if name in values}
    images = Path(values["images"])
    try:
        images = path.parent / images.expanduser()
        there = images.exists()
    except (OSError, RuntimeError):  # a name that no file can have, or of a user that there is not
        there = False
    if not there:
        raise UsageError(
            f"the images of {where} do not exist ({_short(values['images'])}, seen from the file's own "
            "folder); correct the path"
        )
    return Listed(images, values["class_noun"].strip(), values["identifier"].strip(), **own)


def _own(where: str, name: str, value: Any) -> str:
    """One word; a comma would stand for several subjects."""
    if not isinstance(value, str) or not value.strip() or "," in value:
        example = {"protective_output": "target", "target_noun": "cat"}[name]
        raise UsageError(f"the {name} of {where} is no word; write it as {name}: {example}")
    return value.strip()


def _short(value: object) -> str:
    text = value if isinstance(value, str) else type(value).__name__
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


class _Texts(yaml.BaseLoader):
    """Lists, mappings and text, nothing else; a key that stands twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            raise yaml.MarkedYAMLError("a key stands twice in one entry", problem_mark=node.start_mark)
        return mapping


def _parsed(path: Path) -> Any:
    try:
        text = read(path, most=_LARGEST)
    except UnreadableError as error:
        kind = UsageError if "larger" in str(error) else UnlikenessError
        raise kind(f"{path} cannot be read ({error}); {_FORM}") from error
    try:
        return parse_yaml(text.decode(), _Texts)
    except (UnreadableError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML ({reason(error)}); {_FORM}") from error


def own_outputs(
    subjects: Sequence[Listed], values: Mapping[str, object], kind: type[Checked]
) -> dict[str, object]:
    """`values`, with the subjects' own protective outputs and target nouns.

    A subject without its own has the one of `values`, or the default of the settings class `kind`.
    UsageError: the list and `values` both name several; a target noun without the kind target.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    made = dict(values)
    for name in _OWN:
        own = [getattr(one, name) for one in subjects]
        if any(own):
            common = _as_list(values.get(name, defaults.get(name, ())))
            if len(common) > 1:
                raise UsageError(
                    f"{name} {','.join(common)} goes to the subjects in turn, and the list of subjects names "
                    "one of its own; leave one of the two out"
                )
            made[name] = [word or in_turn(common, 0) for word in own]
    kinds = _as_list(made.get("protective_output", defaults.get("protective_output", ())))
    for i, one in enumerate(subjects):
        if one.target_noun and in_turn(kinds, i) != "target":
            raise UsageError(
                f"{_called(i, one)} has a target_noun, and its protective output is not target; give both"
            )
    return made


def check_outputs(settings: Checked, subjects: Sequence[Named]) -> None:
    """UsageError for protective outputs that do not fit the subjects.

    They may be more than the subjects, or without an effect. A target needs a noun of another class. Two
    subjects of one name need one output: a fine-tune tells a model nothing of a subject but its name.
    """
    said: dict[str, Sequence[str]] = {name: getattr(settings, name, ()) for name in _OWN}
    if not said["protective_output"]:
        return
    for name, words in said.items():
        if len(words) > len(subjects):
            raise UsageError(
                f"{name} {','.join(words)} goes to the subjects in turn, of which there are {len(subjects)}; "
                "name no more"
            )
    kinds = [in_turn(said["protective_output"], i) for i in range(len(subjects))]
    for field in fields(settings):
        needs = _OF_ONE_KIND.get(field.name)
        if needs and needs not in kinds and getattr(settings, field.name) != field.default:
            raise UsageError(
                f"{named(field.name)} has no effect without protective output {needs}; give both, or neither"
            )
    outputs: dict[str, tuple[str, str]] = {}
    for i, (one, kind) in enumerate(zip(subjects, kinds, strict=True)):
        noun = in_turn(said["target_noun"], i) if kind == "target" else ""
        if kind == "target" and noun.lower() in ("", one.class_noun.lower()):
            raise UsageError(
                f"{_called(i, one)} needs a target noun other than {with_article(one.class_noun)}, and "
                f"{'its own' if noun else 'no'} noun is given; give --target-noun, or target_noun in the "
                "list of subjects"
            )
        name = f"{one.identifier} {one.class_noun}".lower()
        if outputs.setdefault(name, (kind, noun)) != (kind, noun):
            raise UsageError(
                f"{_called(i, one)} has the name of an earlier subject, {name!r}, and another protective "
                "output; give it an identifier of its own, or both the same output"
            )


def _called(index: int, one: Named) -> str:
    return f"subject {index + 1} ({one.class_noun})"


def _as_list(value: object) -> list[str]:
    """A value before it is parsed: a list, or the text of a flag."""
    parts = value.split(",") if isinstance(value, str) else value
    return [str(part).strip() for part in parts] if isinstance(parts, list | tuple) else []
