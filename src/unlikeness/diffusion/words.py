"""Words that are added to a model's prompts: put in, trained, and written (Gal et al. 2023)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unlikeness.diffusion.expanding import expanding, plain
from unlikeness.errors import NotFiniteError, UsageError, one_line
from unlikeness.files import replacing
from unlikeness.tensors import all_finite, for_readers, written

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = ["CLIPS", "FILE", "add_word", "learn_word", "save_word", "settle_word", "table_of"]

FILE = "learned_embeds.safetensors"
"""The file of a trained word, as diffusers names it."""

CLIPS = ("clip_l", "clip_g")
"""The names of two CLIPs' vectors in one file."""

_LEGACY_END = 2
"""The number that old configurations of CLIP give for the end of a prompt. transformers then takes the
largest number of a token for the end, which an added word would be."""

_TRAINED, _PLACE = "new_word", "new_word_place"
"""Names within an encoder's table: the trained vectors, and their first number with the hook that puts them
in."""


def add_word(model: TextToImage, word: str, vectors: Mapping[str, Tensor], *, remedy: str) -> None:
    """Let the prompts of `model`, a copy with encoders of its own, know a word, in place.

    vectors: [n, D] by the name of an encoder; further encoders read the word as letters. remedy: what a
    message says to give where the word cannot be added. UsageError if an encoder knows the word already.
    """
    words = model.conditioner
    tokenizers, words.tokenizers = words.tokenizers, dict(words.tokenizers)
    for encoder, name in zip(words.encoders, tokenizers, strict=True):
        if encoder in vectors:
            own = _with_word(tokenizers[name], word, len(vectors[encoder]), remedy)
            words.tokenizers[name] = own
            _append(words.encoders[encoder], own, word, vectors[encoder])


def learn_word(model: TextToImage, word: str, *, like: str, count: int = 1) -> list[nn.Parameter]:
    """`add_word` with vectors to train, in place; returns them, [count, D] in float32 for each CLIP.

    like: words whose mean vector they start as. Only they get a gradient; the rest of an encoder's table gets
    none and does not decay. `settle_word` ends the training. UsageError for a family without a CLIP, and for
    a word that is no single one or is known already.
    """
    names = model.family.lora_encoders
    if " " in word or not word.isprintable() or len(word) > 80:
        raise UsageError(f"{one_line(word)[:40]!r} is no single word to learn; give another identifier")
    if not names:
        raise UsageError(
            f"a new word is trained for CLIP text encoders, and a {model.family.title} has none; train a LoRA"
        )
    words = model.conditioner
    tokenizer_of = dict(zip(words.encoders, words.tokenizers, strict=True))
    starts = {
        name: _mean(words.encoders[name], words.tokenizers[tokenizer_of[name]], like, count) for name in names
    }
    add_word(model, word, starts, remedy="another identifier")
    found = []
    for name in names:
        table = table_of(words.encoders[name])
        vectors = nn.Parameter(starts[name])
        table.register_parameter(_TRAINED, vectors)
        first = _numbers(words.tokenizers[tokenizer_of[name]], word)[0]
        setattr(table, _PLACE, (first, table.register_forward_hook(_put)))
        found.append(vectors)
    return found


@torch.no_grad()
def settle_word(model: TextToImage) -> None:
    """Write the vectors of `learn_word` into the tables, and take out what trains them, in place."""
    for encoder in model.conditioner.encoders.values():
        table = table_of(encoder)
        vectors = getattr(table, _TRAINED, None)
        if vectors is not None:
            first, hook = getattr(table, _PLACE)
            table.weight[first : first + len(vectors)] = vectors.to(table.weight)
            hook.remove()
            delattr(table, _TRAINED)
            delattr(table, _PLACE)


def save_word(model: TextToImage, word: str, folder: Path) -> Path:
    """Write a word's vectors as `learned_embeds.safetensors` into `folder`; returns the file.

    `load_textual_inversion` of diffusers reads it. With two CLIPs the vectors are `clip_l` and `clip_g`, of
    which it takes one for each encoder. NotFiniteError for vectors of a training that diverged.
    """
    from safetensors.torch import save_file

    vectors = []
    for encoder, tokenizer in zip(
        model.conditioner.encoders.values(), model.conditioner.tokenizers.values(), strict=True
    ):
        numbers = _numbers(tokenizer, word)
        if numbers:
            vectors.append(table_of(encoder).weight.detach()[numbers].float().cpu().contiguous())
    if not all_finite(vectors):
        raise NotFiniteError(f"the word {word} is not saved to {folder}: its vectors are not finite")
    names = CLIPS if len(vectors) > 1 else (word,)
    with written(f"the word cannot be saved to {folder}", "free space or give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / FILE) as work:
            save_file(dict(zip(names, vectors, strict=True)), work, {"format": "pt"})
            for_readers(work)
    return folder / FILE


def table_of(encoder: Any) -> nn.Embedding:
    """The vectors of an encoder's words."""
    table: nn.Embedding = encoder.get_input_embeddings()
    return table


def _put(table: nn.Embedding, given: tuple[Tensor], vectors: Tensor) -> Tensor:
    """The table's output [..., D], with the trained vectors at their numbers."""
    trained: Tensor = getattr(table, _TRAINED)
    place = given[0] - getattr(table, _PLACE)[0]
    own = (place >= 0) & (place < len(trained))
    return torch.where(own[..., None], trained[place.clamp(0, len(trained) - 1)].to(vectors), vectors)


def _mean(encoder: Any, tokenizer: Any, like: str, count: int) -> Tensor:
    """[count, D]: the mean vector of the tokens of `like`, again and again."""
    numbers = tokenizer(like, add_special_tokens=False, verbose=False).input_ids
    if not numbers:
        raise UsageError(f"the model reads nothing in {like!r}; give words that a new word starts from")
    vectors = table_of(encoder).weight.detach()[torch.tensor(numbers)]
    return vectors.float().mean(0, keepdim=True).repeat(count, 1)


def _numbers(tokenizer: Any, word: str) -> list[int]:
    """The numbers of an added word's tokens; [] if the tokenizer does not know it."""
    added = plain(tokenizer).get_added_vocab()
    found = [added[word]] if word in added else []
    while found and f"{word}_{len(found)}" in added:
        found.append(added[f"{word}_{len(found)}"])
    return found


def _with_word(tokenizer: Any, word: str, count: int, remedy: str) -> Any:
    """A copy of the tokenizer that knows the word."""
    names = [word, *(f"{word}_{i}" for i in range(1, count))]  # as diffusers numbers them
    known = tokenizer.get_vocab()
    for name in names:
        if name in known or f"{name.lower()}</w>" in known:
            raise UsageError(f"the model knows the word {name!r} already; give {remedy}")
    own = copy.deepcopy(plain(tokenizer))
    if own.add_tokens(names) != count:
        raise UsageError(f"the tokenizer does not take the word {word!r}; give {remedy}")
    return expanding(own)


@torch.no_grad()
def _append(encoder: Any, tokenizer: Any, word: str, vectors: Tensor) -> None:
    """The encoder's table with the vectors at the word's numbers."""
    table = table_of(encoder)
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
