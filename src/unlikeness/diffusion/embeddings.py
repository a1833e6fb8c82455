"""Textual Inversion (Gal et al. 2023): words that a file adds to a model's prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness.diffusion.adapters import Embedding, find_embedding
from unlikeness.diffusion.words import CLIPS, add_word, table_of
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
    remedy = f"another, as in --embedding WORD={path.name}"
    encoders = model.conditioner.encoders
    widths = {name: table_of(encoder).weight.shape[1] for name, encoder in encoders.items()}
    # Two are for the two CLIPs in their order; one is for every encoder of its width.
    given_to = zip(widths, vectors, strict=False) if len(vectors) > 1 else ((n, vectors[0]) for n in widths)
    fitting = {name: one for name, one in given_to if widths[name] == one.shape[1]}
    if len(fitting) < len(vectors):
        raise UnlikenessError(
            f"the embedding {path} has vectors of width {_listed({len(one[0]) for one in vectors})}, and the "
            f"model's text encoders are of width {_listed(set(widths.values()))}; give one that was made for "
            "the model"
        )
    copied = model.copy(conditioner=True)
    add_word(copied, word, fitting, remedy=remedy)
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
    if names == ["*"] or names == ["emb_params"]:
        chosen = names
    elif set(names) == set(CLIPS):
        chosen = list(CLIPS)
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


def _listed(widths: Any) -> str:
    return " and ".join(str(width) for width in sorted(widths))
