"""Open a model's tokenizer from copies of the few files and settings that it needs.

transformers also reads other files of a tokenizer's folder (templates, other tokenizers, further settings).
So it gets a folder with nothing else in it, and the result is tried before use.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlikeness.errors import UnlikenessError
from unlikeness.foreign import UnreadableError, read
from unlikeness.networks.building import sentence
from unlikeness.networks.configs import read_object

__all__ = ["check_tokenizer", "check_without_end", "load_tokenizer"]

_LARGEST = 1 << 24
"""Bytes of one file. CLIP's have up to 3.6 million, a language model's 11.4 million."""

_MOST_WORDS = 1 << 18
_MOST_ADDED = 10_000
"""Words of a vocabulary, and words added to it. A CLIP has 49,408 and two, a Qwen 151,643 and 26."""

_LONGEST = 200
"""Letters of a piece of a T5's vocabulary. Its own have up to 16; one of 500,000 takes minutes to read."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens")
_SETTINGS = (
    *_SPECIAL, "extra_special_tokens", "added_tokens_decoder", "model_max_length", "add_prefix_space",
    "do_lower_case", "errors", "clean_up_tokenization_spaces", "padding_side", "truncation_side",
    "split_special_tokens", "backend", "extra_ids",
)  # fmt: skip
_OF_A_TOKEN = ("content", "lstrip", "rstrip", "normalized", "single_word", "special", "__type", "id")
_WHOLE = ("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
          "decoder", "model")  # fmt: skip


def load_tokenizer(folder: Path, kind: str = "CLIPTokenizer", *, part: str = "tokenizer") -> Any:
    """transformers' tokenizer of class `kind` from `folder`/`part`.

    UnlikenessError, naming the file, for a file that is damaged, out of bounds, or of another tokenizer.
    """
    import transformers

    inside, what = folder / part, f"the tokenizer of model {folder}"
    with tempfile.TemporaryDirectory(prefix="unlikeness-") as work:
        for name, content in _files(inside, folder, kind).items():
            (Path(work) / name).write_bytes(content)
        with sentence(what):
            return getattr(transformers, kind).from_pretrained(
                work, local_files_only=True, trust_remote_code=False
            )


def check_tokenizer(tokenizer: Any, *, words: int, longest: int, what: str) -> None:
    """UnlikenessError, about `what`, unless prompts become token numbers below `words` and fit into `longest`
    positions."""
    length = tokenizer.model_max_length
    if isinstance(length, bool) or not isinstance(length, int) or not 3 <= length <= longest:
        raise UnlikenessError(
            f"{what} has model_max_length = {str(length)[:40]}, which must be a whole number from 3 to "
            f"{longest}, the positions of its text encoder; fetch or save it again"
        )
    with sentence(what):
        numbers = list(tokenizer.get_vocab().values())
        tried = tokenizer(
            ["", "a photo of sks dog", "dog " * (2 * longest)],
            padding="max_length", max_length=length, truncation=True, return_tensors="pt",
        ).input_ids  # fmt: skip
    largest = max([*numbers, int(tried.max())])
    if min([*numbers, int(tried.min())]) < 0 or largest >= words:
        raise UnlikenessError(
            f"{what} has the token number {largest}, and its text encoder knows those below {words}; "
            "fetch or save it again"
        )
    if tuple(tried.shape) != (3, length):
        raise UnlikenessError(f"{what} does not fill prompts up to {length} tokens; fetch or save it again")


def check_without_end(tokenizer: Any, config: Any, most: int, what: str) -> None:
    """`check_tokenizer` for a text encoder whose positions have no end, such as T5's relative ones.

    config: of the text encoder. A tokenizer without a length of its own gets `most`.
    """
    if not isinstance(tokenizer.model_max_length, int) or tokenizer.model_max_length > 1 << 16:
        tokenizer.model_max_length = most
    check_tokenizer(tokenizer, words=config.vocab_size, longest=1 << 16, what=what)


def _files(inside: Path, folder: Path, kind: str) -> dict[str, bytes]:
    """The tokenizer's files: name -> checked content."""

    def there(name: str) -> bool:
        return (inside / name).exists() or (inside / name).is_symlink()

    found: dict[str, Any] = {}
    for name, keys in (("tokenizer_config.json", _SETTINGS), ("special_tokens_map.json", _SPECIAL)):
        if there(name):
            content = read_object(inside / name, folder, most=_LARGEST)
            found[name] = {key: content[key] for key in keys if key in content}
            _check_settings(inside / name, found[name])
    for name in ("vocab.json", "added_tokens.json"):
        if there(name):
            found[name] = read_object(inside / name, folder, most=_LARGEST)
            _check_numbers(inside / name, found[name], _MOST_WORDS if name == "vocab.json" else _MOST_ADDED)
    if there("tokenizer.json"):
        path = inside / "tokenizer.json"
        found[path.name] = _pieces(path, folder) if kind.startswith("T5") else _whole(path, folder, kind)
    elif kind.startswith("T5"):
        raise _refused(inside, "has no tokenizer.json, which a T5's tokenizer is read from")
    data = {name: json.dumps(content).encode() for name, content in found.items()}
    if there("merges.txt"):
        try:
            data["merges.txt"] = read(inside / "merges.txt", folder=folder, most=_LARGEST)
            data["merges.txt"].decode("utf-8")
        except (UnreadableError, UnicodeDecodeError) as error:
            said = error if isinstance(error, UnreadableError) else "it is no UTF-8 text"
            raise _refused(inside / "merges.txt", f"cannot be read ({said})") from error
    if "tokenizer.json" not in data and not {"vocab.json", "merges.txt"} <= data.keys():
        raise _refused(
            inside, f"has no vocabulary of a {kind} (tokenizer.json, or vocab.json and merges.txt)"
        )
    return data


def _whole(path: Path, folder: Path, kind: str) -> dict[str, Any]:
    """The parts of tokenizer.json that transformers uses: vocabulary, merges and added tokens."""
    content = read_object(path, folder, most=_LARGEST)
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise _refused(path, f"has no byte-pair encoding (model), which every {kind} has")
    if not isinstance(model.get("vocab"), dict) or not isinstance(model.get("merges"), list):
        raise _refused(path, "has no vocabulary or no merges in its model")
    _check_numbers(path, model["vocab"], _MOST_WORDS)
    return _with_added(path, content)


def _pieces(path: Path, folder: Path) -> dict[str, Any]:
    """The same of a T5's tokenizer, whose vocabulary is a list of pieces and their scores."""
    content = read_object(path, folder, most=_LARGEST)
    found = content.get("model")
    model = found if isinstance(found, dict) else {}
    vocab = model.get("vocab") if model.get("type", "Unigram") == "Unigram" else None
    if not isinstance(vocab, list) or not 0 < len(vocab) <= _MOST_WORDS:
        raise _refused(path, "has no list of pieces of words (a Unigram model), which every T5 has")
    for one in vocab:
        pair = isinstance(one, list) and len(one) == 2 and isinstance(one[0], str)
        if not pair or len(one[0]) > _LONGEST:
            raise _refused(path, "has a piece that is no pair of a short text and a number")
        if isinstance(one[1], bool) or not isinstance(one[1], (int, float)):
            raise _refused(path, "has a piece that is no pair of a short text and a number")
    return _with_added(path, content)


def _with_added(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What transformers uses, its added tokens checked."""
    added = content.get("added_tokens", [])
    if not isinstance(added, list) or len(added) > _MOST_ADDED:
        raise _refused(path, f"must have a list of up to {_MOST_ADDED} added_tokens")
    for one in added:
        if not isinstance(one, dict):
            raise _refused(path, "has an added token that is no object")
        _check_token(path, one)
    return {key: content[key] for key in _WHOLE if key in content}


def _check_numbers(path: Path, words: Mapping[str, Any], most: int) -> None:
    if (not words and most == _MOST_WORDS) or len(words) > most:
        raise _refused(path, f"has {len(words)} words, and must have from 1 to {most}")
    for word, number in words.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 1 << 20:
            raise _refused(path, f"gives {word[:40]!r} the number {str(number)[:40]}, which no embedding has")


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if key == "added_tokens_decoder":
            if not isinstance(value, dict) or len(value) > _MOST_ADDED:
                raise _refused(path, f"must have an object of up to {_MOST_ADDED} {key}")
            tokens = list(value.values())
        elif key in ("additional_special_tokens", "extra_special_tokens"):
            tokens = list(value.values()) if isinstance(value, dict) else value
            if not isinstance(tokens, list) or len(tokens) > _MOST_ADDED:
                raise _refused(path, f"must have a list of up to {_MOST_ADDED} {key}")
        elif isinstance(value, dict) and key.endswith("_token"):
            tokens = [value]
        elif isinstance(value, (dict, list)) or (isinstance(value, str) and len(value) > 200):
            raise _refused(path, f"has a {key} that is no short text and no number")
        else:
            continue
        for token in tokens:
            if isinstance(token, dict):
                _check_token(path, token)
            elif not isinstance(token, str) or len(token) > 200:
                raise _refused(path, f"has a token in {key} that is no short text")


def _check_token(path: Path, token: Mapping[str, Any]) -> None:
    for key, value in token.items():
        if key in ("content", "__type"):
            fits = isinstance(value, str)
        elif key == "id":
            fits = isinstance(value, int) and 0 <= value <= 1 << 20
        else:
            fits = isinstance(value, bool)
        if key not in _OF_A_TOKEN or not fits:
            raise _refused(path, f"has a token with {key[:40]!r} = {str(value)[:40]}, which no token has")


def _refused(path: Path, why: str) -> UnlikenessError:
    return UnlikenessError(f"{path} {why}; fetch or save the model again")
