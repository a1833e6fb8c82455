"""Textual Inversion (Gal et al. 2023): words that a file adds to a model's prompts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unlikeness.diffusion.adapters import Embedding, find_embedding
from unlikeness.diffusion.expanding import expanding, plain
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError
from unlikeness.tensors import all_finite, open_pickle, read_safetensors

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["load_embedding"]

_MOST = 75
"""Vectors of a word: what a prompt of CLIP holds."""

_WIDEST = 1 << 14
"""Bound on the width of a text encoder, as in `networks.configs`."""

_LEGACY_END = 2
"""The number that old configurations of CLIP give for the end of a prompt. transformers then takes the
largest number of a token for the end, which an added word would be."""


def load_embedding(model: TextToImage, given: Embedding) -> TextToImage:
    """A copy of `model` whose prompts know the word of a Textual Inversion file.

    The word is the one that is given, else the one in the file, else the file's name. Files of diffusers
    (`<word>` -> vectors, also `emb_params`, and `clip_l` with `clip_g`) and of the first authors
    (`string_to_param`) are read; a pickle for tensors only.

    Raises:
        UsageError: there is no such file, or the word is in the vocabulary.
        UnlikenessError: it is damaged, or was made for text encoders of another width.
    """
    path = find_embedding(given)
    try:
        told, vectors = _read(path)
    except UnreadableError as error:
        raise UnlikenessError(f"the embedding {path} cannot be used ({error}); fetch it again") from error
    word = given.word or told or path.stem
    _check_word(word, path)
    by_width = {one.shape[1]: one for one in vectors}
    encoders = model.conditioner.encoders
    widths = {name: _table(encoder).weight.shape[1] for name, encoder in encoders.items()}
    fitting = {name: by_width[width] for name, width in widths.items() if width in by_width}
    if len(fitting) < len(by_width) or not fitting:
        raise UnlikenessError(
            f"the embedding {path} has vectors of width {_listed(by_width)}, and the model's text encoders "
            f"are of width {_listed(set(widths.values()))}; give one that was made for the model"
        )
    copied = model.copy(conditioner=True)
    copied.conditioner.tokenizers = dict(model.conditioner.tokenizers)
    for encoder, tokenizer in zip(list(encoders), list(model.conditioner.tokenizers), strict=True):
        if encoder in fitting:
            kept = model.conditioner.tokenizers[tokenizer]
            own = _with_word(kept, word, len(fitting[encoder]), path)
            copied.conditioner.tokenizers[tokenizer] = own
            _append(copied.conditioner.encoders[encoder], own, word, fitting[encoder])
    copied.freeze()
    return copied


def _read(path: Path) -> tuple[str, list[Tensor]]:
    """(the word in the file or "", its vectors [n, D], one tensor an encoder)."""
    content: Any = read_safetensors(path) if path.suffix.lower() == ".safetensors" else open_pickle(path)
    if not isinstance(content, Mapping):
        raise UnreadableError(f"it holds a {type(content).__name__}, no vectors")
    word = ""
    if isinstance(content.get("string_to_param"), Mapping):
        told, content = content.get("name"), content["string_to_param"]
        word = told if isinstance(told, str) else ""
    names = [name for name in content if isinstance(name, str)]
    if names == ["*"] or names == ["emb_params"] or set(names) == {"clip_l", "clip_g"}:
        chosen = names
    elif len(names) == 1:
        chosen, word = names, names[0]
    else:
        raise UnreadableError(f"it holds {len(names)} entries, and an embedding has one")
    vectors = [_vectors(name, content[name]) for name in chosen]
    if len({len(one) for one in vectors}) != 1:
        raise UnreadableError("its encoders have different numbers of vectors")
    if not all_finite(vectors):
        raise NotFiniteError(f"the embedding {path} has vectors that are not finite; fetch it again")
    return ("" if word == "*" else word), vectors


def _vectors(name: str, one: Any) -> Tensor:
    """[n, D] in float32. The shape is checked before any memory is taken: one value may stand for many."""
    if not isinstance(one, Tensor) or one.layout != torch.strided or one.is_meta:
        raise UnreadableError(f"its {name[:40]!r} is no list of vectors")
    if not one.is_floating_point() or one.ndim not in (1, 2) or not one.numel():
        raise UnreadableError(f"its {name[:40]!r} is no list of vectors")
    count = len(one) if one.ndim == 2 else 1
    if count > _MOST:
        raise UnreadableError(f"it has {count} vectors, and a prompt holds {_MOST}")
    if one.shape[-1] > _WIDEST:
        raise UnreadableError(f"its vectors are {one.shape[-1]} wide, and no text encoder is")
    return one.detach().reshape(count, -1).float()


def _check_word(word: str, path: Path) -> None:
    if not word.isprintable() or " " in word or len(word) > 80:
        raise UsageError(
            f"the word {one_line(word)[:40]!r} of {path} has spaces or is too long; give another, as in "
            f"--embedding WORD={path.name}"
        )


def _with_word(tokenizer: Any, word: str, count: int, path: Path) -> Any:
    """A copy of the tokenizer that knows the word."""
    names = [word, *(f"{word}_{i}" for i in range(1, count))]  # as diffusers numbers them
    known = tokenizer.get_vocab()
    for name in names:
        if name in known or f"{name.lower()}</w>" in known:
            raise UsageError(
                f"the model knows the word {name!r} already; give another, as in --embedding WORD={path.name}"
            )
    own = copy.deepcopy(plain(tokenizer))
    if own.add_tokens(names) != count:
        raise UsageError(
            f"the tokenizer does not take the word {word!r}; give another, as in WORD={path.name}"
        )
    return expanding(own)


@torch.no_grad()
def _append(encoder: Any, tokenizer: Any, word: str, vectors: Tensor) -> None:
    """The encoder's table with the vectors at the word's numbers."""
    table = _table(encoder)
    first = tokenizer.convert_tokens_to_ids(word)
    long = torch.zeros(max(first + len(vectors), len(table.weight)), table.weight.shape[1])
    long = long.to(table.weight.device, table.weight.dtype)
    long[: len(table.weight)] = table.weight
    long[first : first + len(vectors)] = vectors.to(long)
    table.weight = nn.Parameter(long, requires_grad=False)
    table.num_embeddings = encoder.config.vocab_size = len(long)
    for module in encoder.modules():
        if getattr(module, "eos_token_id", None) == _LEGACY_END:
            module.eos_token_id = tokenizer.eos_token_id


def _table(encoder: Any) -> nn.Embedding:
    table: nn.Embedding = encoder.get_input_embeddings()
    return table


def _listed(widths: Any) -> str:
    return " and ".join(str(width) for width in sorted(widths))
